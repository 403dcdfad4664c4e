//! How full the models are, for the metrics: asked for when these are read, so that it costs requests nothing.

use crate::{model::Model, models::Models};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::{fmt, sync::Arc};

/// How full the models are.
#[derive(Debug)]
pub struct Gauges(pub Arc<Models>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    model_name: String,
    model_version: String,
}

/// Name, what it says, and its value; nothing for models that have none.
type Gauge = (&'static str, &'static str, fn(&Model) -> Option<usize>);

const GAUGES: [Gauge; 4] = [
    ("halftone_model_waiting_requests", "Requests that wait for a worker", |model| {
        model.workers().map(|workers| workers.queue().waiting())
    }),
    ("halftone_model_workers", "Workers, each with a session of its own", |model| {
        model.workers().map(|workers| workers.count())
    }),
    ("halftone_model_running_workers", "Workers that are running requests", |model| {
        model.workers().map(|workers| workers.running())
    }),
    ("halftone_model_ready", "1 when it answers, 0 when the server that has it does not", |model| {
        Some(usize::from(model.is_ready()))
    }),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let models = self.0.all();
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for model in &models {
                let Some(value) = value(model) else { continue };
                let labels =
                    Labels { model_name: model.name().to_owned(), model_version: model.version().to_owned() };
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
