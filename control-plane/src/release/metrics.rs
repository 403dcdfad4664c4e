//! What operators see of releases in Prometheus.

use super::{controller::Controller, shares::Shares, status::Phase};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType, TypedMetric,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::fmt;

/// How long looks take, from half a millisecond on.
pub(super) fn look_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 14))
}

/// The metrics of releases.
#[must_use]
pub fn metrics(controller: Controller) -> Box<dyn Collector> {
    Box::new(Metrics(controller))
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPhase {
    release: String,
    ruleset: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfShare {
    release: String,
    ruleset: String,
    arm: String,
}

struct Metrics(Controller);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let releases = self.0.releases().borrow().clone();
        let help = "1 for the phase that a release is in";
        let mut family =
            encoder.encode_descriptor("halftone_release_phase", help, None, MetricType::Gauge)?;
        for (release, looked) in releases.iter() {
            let phase = Phase::name(looked.status.phase).replace(' ', "_");
            let labels = OfPhase { release: release.clone(), ruleset: looked.spec.ruleset.clone(), phase };
            ConstGauge::new(1).encode(family.encode_family(&labels)?)?;
        }
        let help = "Configured share of a release's units, by arm";
        let mut family =
            encoder.encode_descriptor("halftone_release_share", help, None, MetricType::Gauge)?;
        for (release, looked) in releases.iter() {
            let Some(Shares { candidate, control, rest }) = looked.status.shares(&looked.spec) else {
                continue;
            };
            let candidates = looked.status.tried().map(|name| (name, candidate));
            for (arm, share) in candidates.chain([("control", control), ("rest", rest)]) {
                let (release, arm) = (release.clone(), arm.to_owned());
                let labels = OfShare { release, ruleset: looked.spec.ruleset.clone(), arm };
                ConstGauge::new(share).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "1 for a release that cannot go on at the moment";
        let mut family =
            encoder.encode_descriptor("halftone_release_trouble", help, None, MetricType::Gauge)?;
        for (release, looked) in releases.iter() {
            let labels = [("release", release.as_str()), ("ruleset", looked.spec.ruleset.as_str())];
            let trouble = i64::from(looked.trouble.is_some());
            ConstGauge::new(trouble).encode(family.encode_family(&labels)?)?;
        }
        let looks = self.0.looks();
        let help = "Seconds that a look at a release takes: reading, judging, keeping, publishing";
        let family = encoder.encode_descriptor(
            "halftone_release_look_seconds",
            help,
            None,
            <Histogram as TypedMetric>::TYPE,
        )?;
        looks.encode(family)
    }
}
