//! How full the models are, for the metrics: asked for when these are read, so that it costs requests nothing.

use crate::{batch_sizes::BatchSizes, budget::Budget, model::Model, models::Models};
use halftone_telemetry::breaker::State;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, TypedMetric, gauge::ConstGauge, histogram::Histogram},
};
use std::{fmt, sync::Arc};

/// How full the models are, and the memory for bodies.
#[derive(Debug)]
pub struct Gauges {
    /// The models.
    pub models: Arc<Models>,
    /// The memory.
    pub budget: Arc<Budget>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    model_name: String,
    model_version: String,
}

impl Labels {
    fn of(model: &Model) -> Self {
        Self { model_name: model.name().to_owned(), model_version: model.version().to_owned() }
    }
}

/// Name, what it says, and its value; nothing for models that have none.
type Gauge = (&'static str, &'static str, fn(&Model) -> Option<usize>);

const GAUGES: [Gauge; 6] = [
    ("halftone_model_waiting_requests", "Requests that wait for a worker", |model| {
        model.workers().map(|workers| workers.queue().waiting())
    }),
    (
        "halftone_model_queue_limit_requests",
        "Requests that may wait for a worker; more are refused",
        |model| model.workers().map(|workers| workers.queue().limit()),
    ),
    ("halftone_model_workers", "Workers, each with a session of its own", |model| {
        model.workers().map(|workers| workers.count())
    }),
    ("halftone_model_running_workers", "Workers that are running requests", |model| {
        model.workers().map(|workers| workers.running())
    }),
    ("halftone_model_ready", "1 when it answers, 0 when the server that has it does not", |model| {
        Some(usize::from(model.is_ready()))
    }),
    (
        "halftone_model_breaker_open",
        "1 while the circuit breaker before the server that has the model is open or tries again",
        |model| model.remote().map(|remote| usize::from(remote.breaker().state() != State::Closed)),
    ),
];

/// Name, what it says, and where it is kept.
type Sizes = (&'static str, &'static str, fn(&BatchSizes) -> &Histogram);

const SIZES: [Sizes; 2] = [
    ("halftone_model_batch_requests", "Requests that a worker ran together", |sizes| &sizes.requests),
    (
        "halftone_model_batch_rows",
        "Rows that a worker ran together; 1 for each request to a model without batches",
        |sizes| &sizes.rows,
    ),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let models = self.models.all();
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for model in &models {
                let Some(value) = value(model) else { continue };
                ConstGauge::new(number(value)).encode(metric.encode_family(&Labels::of(model))?)?;
            }
        }
        for (name, help, histogram) in SIZES {
            let kind = <Histogram as TypedMetric>::TYPE;
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (model, workers) in models.iter().filter_map(|model| Some((model, model.workers()?))) {
                histogram(workers.sizes()).encode(metric.encode_family(&Labels::of(model))?)?;
            }
        }
        let (used, limit) = (self.budget.used(), self.budget.limit());
        for (name, help, value) in [
            ("halftone_body_used_bytes", "Memory that the bodies of requests take now", used),
            ("halftone_body_limit_bytes", "Memory that is kept for them; more are refused", limit),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(number(value)).encode(metric)?;
        }
        Ok(())
    }
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
