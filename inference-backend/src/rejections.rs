//! Work that was turned away, by model and reason, for the metrics.

use crate::{failure::Failure, models::Models};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family},
};
use std::{fmt, sync::Arc};

/// Why a sound request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// As many requests as may wait for the model do.
    QueueFull,
    /// The bodies of requests take all of the memory kept for them.
    BodyBudget,
    /// The body stopped coming.
    SlowBody,
    /// The time that the request gave was over.
    Deadline,
    /// The circuit breaker before the server that has the model is open.
    BreakerOpen,
    /// That server has no room.
    RemoteOverloaded,
    /// That server cannot be reached.
    RemoteUnavailable,
    /// A feature that the model needs is not to be had, and has no fallback.
    FeatureUnavailable,
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::QueueFull,
        Self::BodyBudget,
        Self::SlowBody,
        Self::Deadline,
        Self::BreakerOpen,
        Self::RemoteOverloaded,
        Self::RemoteUnavailable,
        Self::FeatureUnavailable,
    ];

    /// As it is written in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::BodyBudget => "body_budget",
            Self::SlowBody => "slow_body",
            Self::Deadline => "deadline",
            Self::BreakerOpen => "breaker_open",
            Self::RemoteOverloaded => "remote_overloaded",
            Self::RemoteUnavailable => "remote_unavailable",
            Self::FeatureUnavailable => "feature_unavailable",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    model_name: Arc<str>,
    reason: &'static str,
}

/// Counts what was turned away. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Rejections(Family<Labels, Counter>);

impl Rejections {
    /// Counts a failure, if it turned sound work away. The model's name is empty where the model was not known yet.
    pub fn count(&self, model_name: &Arc<str>, failure: &Failure) {
        if let Some(reason) = failure.reason() {
            self.of(model_name, reason).inc();
        }
    }

    fn of(&self, model_name: &Arc<str>, reason: Reason) -> Counter {
        let labels = Labels { model_name: Arc::clone(model_name), reason: reason.as_str() };
        self.0.get_or_create(&labels).clone()
    }

    /// Its metrics: every reason of the models that are served, from 0, so that the first rejection is an increase.
    #[must_use]
    pub fn metrics(&self, models: Arc<Models>) -> Box<dyn Collector> {
        Box::new(Metrics { rejections: self.clone(), models })
    }
}

#[derive(Debug)]
struct Metrics {
    rejections: Rejections,
    models: Arc<Models>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for model in self.models.all() {
            for reason in Reason::ALL {
                drop(self.rejections.of(&model.served().model, reason));
            }
        }
        let help = "Sound requests that were turned away, by model and reason";
        let family = &self.rejections.0;
        let kind = family.metric_type();
        family.encode(encoder.encode_descriptor("halftone_rejected_requests", help, None, kind)?)
    }
}
