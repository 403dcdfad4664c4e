//! How far webhooks are, for operators.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use std::fmt;

/// The name of the webhook.
type Labels = [(&'static str, String); 1];

/// How far webhooks are. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    waiting: Family<Labels, Gauge>,
    failures: Family<Labels, Counter>,
}

impl Progress {
    /// A webhook took an event.
    pub(super) fn delivered(&self, webhook: &str) {
        let waiting = self.waiting.get_or_create(&labels(webhook));
        waiting.set((waiting.get() - 1).max(0));
    }

    /// A webhook did not take an event, and so many wait for it.
    pub(super) fn failed(&self, webhook: &str, waiting: u64) {
        self.failures.get_or_create(&labels(webhook)).inc();
        self.waiting.get_or_create(&labels(webhook)).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

impl Collector for Progress {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Events that wait for a webhook which did not take the last one, as of its last failure";
        let kind = self.waiting.metric_type();
        self.waiting.encode(encoder.encode_descriptor("halftone_webhook_waiting", help, None, kind)?)?;
        let help = "Deliveries to a webhook that failed; each is tried again";
        let kind = self.failures.metric_type();
        self.failures.encode(encoder.encode_descriptor("halftone_webhook_failures", help, None, kind)?)
    }
}

fn labels(webhook: &str) -> Labels {
    [("webhook", webhook.to_owned())]
}
