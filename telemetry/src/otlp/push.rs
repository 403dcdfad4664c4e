//! Metrics on their way to a collector.

use super::{
    link::{Link, Signal},
    metrics,
    origin::Origin,
};
use crate::{metrics::ModelMetrics, throttle::Throttle};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use std::time::{Duration, SystemTime};
use tokio::{sync::watch, time::MissedTickBehavior};

const METRICS: Signal =
    Signal { method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", path: "/v1/metrics" };

/// Sends what the metrics are, every so often and when it is to stop.
pub(super) async fn run(
    link: Link,
    origin: Origin,
    source: ModelMetrics,
    interval: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let begun = SystemTime::now();
    let mut throttle = Throttle::default();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            // Also when whoever could say so is gone.
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let request = metrics::request(&source.render(), &origin, begun, SystemTime::now());
        if let Err(problem) = send(&link, request).await
            && throttle.is_due()
        {
            let what_follows = if stopping { "these were the last" } else { "they come again with the next" };
            tracing::warn!(
                endpoint = link.endpoint(),
                problem,
                "the collector does not take metrics; {what_follows}"
            );
        }
        if stopping {
            return;
        }
    }
}

async fn send(link: &Link, request: ExportMetricsServiceRequest) -> Result<(), String> {
    let answer: ExportMetricsServiceResponse = link.send(&METRICS, request).await?;
    match answer.partial_success.map_or(0, |partial| partial.rejected_data_points) {
        0 => Ok(()),
        rejected => Err(format!("{rejected} numbers were rejected")),
    }
}
