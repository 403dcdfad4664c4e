//! How far the proxies are with what was published, for Prometheus.

use crate::{publisher::Publisher, xds::Nodes};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::fmt;

/// The metrics of revisions. Whatever the number of proxies, so many series.
#[must_use]
pub fn metrics(publisher: Publisher, nodes: Nodes) -> Box<dyn Collector> {
    Box::new(Metrics { publisher, nodes })
}

struct Metrics {
    publisher: Publisher,
    nodes: Nodes,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let published = self.publisher.current().revision;
        let fleet = self.nodes.fleet(published);
        let reached = self.nodes.reached();
        for (name, help, revision) in [
            ("halftone_revision_published", "The newest revision", Some(published)),
            (
                "halftone_revision_acked",
                "The newest revision that every connected proxy has accepted; missing while one has none",
                reached.acked,
            ),
            (
                "halftone_revision_applied",
                "The newest revision that every worker of every connected proxy decides by; missing while that is not known",
                reached.applied,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            if let Some(revision) = revision {
                ConstGauge::new(i64::try_from(revision).unwrap_or(i64::MAX)).encode(metric)?;
            }
        }
        let help = "Connected proxies that take the rules from here, by how far they are with the newest revision: \
                    pending (no answer yet), refused, acked (accepted, and not decided by on all workers yet), applied";
        let mut family = encoder.encode_descriptor("halftone_nodes", help, None, MetricType::Gauge)?;
        for (state, count) in [
            ("pending", fleet.pending),
            ("refused", fleet.nacked),
            ("acked", fleet.acked.saturating_sub(fleet.applied)),
            ("applied", fleet.applied),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        let help = "How often a proxy refused a revision, since the start";
        let refused =
            encoder.encode_descriptor("halftone_revisions_refused", help, None, MetricType::Counter)?;
        ConstCounter::new(reached.refused).encode(refused)
    }
}
