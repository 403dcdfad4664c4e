//! Spans and metrics on their way to a collector, by the OpenTelemetry Protocol (OTLP) over gRPC or HTTP.
//!
//! Whatever the collector does, nobody waits for it: what it does not take in time is dropped and counted.

mod args;
mod link;
mod metrics;
mod push;
mod spans;

pub use args::{OtlpArgs, Protocol, share};

use crate::{metrics::ModelMetrics, trace::Tracer};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle};

/// What is sent, until it is stopped.
#[derive(Debug)]
pub struct Telemetry {
    tracer: Tracer,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts to send what the command line asks for. To be called within tokio's runtime. `service` is the `service.name`
    /// unless the environment has one; `attributes` are said of everything. The metrics get those of the sending itself.
    ///
    /// # Errors
    /// What is wrong with the command line or the environment.
    pub fn start(
        args: &OtlpArgs,
        service: &'static str,
        attributes: Vec<KeyValue>,
        metrics: &ModelMetrics,
    ) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let Some(endpoint) = args.endpoint()? else {
            return Ok(Self { tracer: Tracer::none(), stop, tasks: Vec::new() });
        };
        let link = link::Link::new(endpoint, args.otlp_protocol, args.headers()?)?;
        let resource = resource(service, attributes);
        let (sink, sender) = spans::channel();
        metrics.register(Box::new(sink.counts()));
        let exporter = link.spans(&resource)?;
        let mut tasks = vec![tokio::spawn(sender.run(exporter, stopped.clone()))];
        if args.otlp_metrics_interval > 0 {
            let interval = Duration::from_millis(args.otlp_metrics_interval);
            tasks.push(tokio::spawn(push::run(link, resource, metrics.clone(), interval, stopped)));
        }
        Ok(Self { tracer: Tracer::new(sink, args.trace_sample), stop, tasks })
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

/// Who sends: what the program says, and what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, which count more.
fn resource(service: &'static str, attributes: Vec<KeyValue>) -> Resource {
    let own = [
        KeyValue::new("service.name", service),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance()),
    ];
    let said = Resource::builder_empty()
        .with_detectors(&[
            Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector) as Box<_>,
            Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()) as Box<_>,
        ])
        .build();
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let said = said.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect::<Vec<_>>();
    Resource::builder_empty()
        .with_attributes(own.into_iter().chain(attributes))
        .with_attributes(said)
        .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
        .build()
}

/// One start of a process, as no other has it.
fn instance() -> String {
    use opentelemetry_sdk::trace::IdGenerator;
    opentelemetry_sdk::trace::RandomIdGenerator::default().new_trace_id().to_string()
}
