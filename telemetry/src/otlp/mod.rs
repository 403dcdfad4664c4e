//! Spans and metrics on their way to a collector, by the OpenTelemetry Protocol (OTLP) over gRPC or HTTP.
//!
//! Whatever the collector does, nobody waits for it: what it does not take in time is dropped and counted.

mod args;
mod link;
mod metrics;
mod origin;
mod push;
mod spans;

pub use args::{Collector, OtlpArgs, Protocol, share};

use crate::{metrics::ModelMetrics, sampling::Sampling, trace::Tracer};
use opentelemetry::KeyValue;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// What is sent, until it is stopped.
#[derive(Debug)]
pub struct Telemetry {
    tracer: Tracer,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts to send to the collector, if there is one, what is sampled. To be called within tokio's runtime. `service` is the
    /// `service.name` unless the environment has one; `attributes` are said of everything. The metrics get those of the sending itself.
    ///
    /// # Errors
    /// When there is no way to the collector.
    pub fn start(
        collector: Option<Collector>,
        sampling: Sampling,
        service: &'static str,
        attributes: Vec<KeyValue>,
        metrics: &ModelMetrics,
    ) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let Some(collector) = collector else {
            return Ok(Self { tracer: Tracer::none(), stop, tasks: Vec::new() });
        };
        let Collector { endpoint, protocol, headers, metrics_interval } = collector;
        tracing::info!(endpoint, ?protocol, "spans and metrics go to a collector");
        let link = link::Link::new(endpoint, protocol, headers)?;
        let origin = origin::Origin::new(service, attributes);
        let (sink, sender) = spans::channel();
        let sampling = Arc::new(sampling);
        metrics.register(Box::new(sink.counts(Arc::clone(&sampling))));
        let mut tasks = vec![tokio::spawn(sender.run(link.clone(), origin.clone(), stopped.clone()))];
        if metrics_interval > 0 {
            let interval = Duration::from_millis(metrics_interval);
            tasks.push(tokio::spawn(push::run(link, origin, metrics.clone(), interval, stopped)));
        }
        Ok(Self { tracer: Tracer::new(sink, sampling), stop, tasks })
    }

    /// Makes the spans that are sent.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Sends what there is, for as long as `patience` at most, and ends.
    pub async fn stop(self, patience: Duration) {
        let _ = self.stop.send(true);
        let all = async {
            for task in self.tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(
                "the last spans and metrics were not sent: the collector did not take them in time"
            );
        }
    }
}
