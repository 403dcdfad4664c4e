//! Metrics on their way to a collector.

use super::{link::Link, metrics};
use crate::{metrics::ModelMetrics, throttle::Throttle};
use opentelemetry_sdk::Resource;
use std::time::{Duration, SystemTime};
use tokio::{sync::watch, time::MissedTickBehavior};

/// Sends what the metrics are, every so often and when it is to stop.
pub(super) async fn run(
    link: Link,
    resource: Resource,
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
        let request = metrics::request(&source.render(), &resource, begun, SystemTime::now());
        if let Err(problem) = link.metrics(request).await
            && throttle.is_due()
        {
            tracing::warn!(
                problem,
                "the collector does not take metrics; they come again with the next ones"
            );
        }
        if stopping {
            return;
        }
    }
}
