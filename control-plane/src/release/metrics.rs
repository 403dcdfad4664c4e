//! What operators see of releases in Prometheus.
//!
//! What a release has series of is chosen once for each scrape ([`shown`]): those that are under way first, then those
//! that changed last, and no more than the operator allows. All others are counted by phase only.

mod judged;

use super::{
    controller::{Controller, Looked},
    shares::Shares,
    status::Phase,
};
use clap::Args;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType, TypedMetric,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::{cmp::Reverse, collections::BTreeMap, fmt};

/// How much the metrics of releases may be.
#[derive(Args, Clone, Copy, Debug)]
pub struct MetricsArgs {
    /// Most releases that have metrics of their own in Prometheus: those under way first, then those that changed last.
    /// The others are only counted.
    #[arg(long, env = "HALFTONE_METRICS_RELEASES", value_name = "N", default_value_t = 100)]
    pub metrics_releases: usize,
}

/// How long looks take, from half a millisecond on.
pub(super) fn look_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 14))
}

/// The metrics of releases.
#[must_use]
pub fn metrics(controller: Controller, args: MetricsArgs) -> Box<dyn Collector> {
    Box::new(Metrics { controller, most: args.metrics_releases })
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPhase {
    release: String,
    ruleset: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfArm {
    release: String,
    ruleset: String,
    arm: String,
}

struct Metrics {
    controller: Controller,
    most: usize,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A release that has metrics of its own.
type Shown<'a> = (&'a str, &'a Looked);

fn shown(releases: &BTreeMap<String, Looked>, most: usize) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown<'_>> = releases.iter().map(|(name, of)| (name.as_str(), of)).collect();
    let is_over = |of: &Looked| of.status.phase.is_ended() || of.status.settled;
    all.sort_by_key(|(name, of)| (is_over(of), Reverse(of.status.since_ms), *name));
    all.truncate(most);
    all
}

fn labels<'a>((name, of): &Shown<'a>) -> [(&'static str, &'a str); 2] {
    [("release", name), ("ruleset", of.spec.ruleset.as_str())]
}

fn phase(phase: Phase) -> String {
    phase.name().replace(' ', "_")
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let releases = self.controller.releases().borrow().clone();
        let shown = shown(&releases, self.most);
        counted(&mut encoder, &releases, shown.len())?;
        phases(&mut encoder, &shown)?;
        self.shares(&mut encoder, &shown)?;
        safety(&mut encoder, &shown)?;
        judged::encode(&mut encoder, &shown, &self.controller)?;
        let help = "Seconds that a look at a release takes: reading, judging, keeping, publishing";
        let kind = <Histogram as TypedMetric>::TYPE;
        let family = encoder.encode_descriptor("halftone_release_look_seconds", help, None, kind)?;
        self.controller.looks().encode(family)
    }
}

/// Of all releases.
fn counted(
    encoder: &mut DescriptorEncoder<'_>,
    releases: &BTreeMap<String, Looked>,
    shown: usize,
) -> Result<(), fmt::Error> {
    let help = "Releases, by the phase that they are in";
    let mut family = encoder.encode_descriptor("halftone_releases", help, None, MetricType::Gauge)?;
    for of in Phase::ALL {
        let count = releases.values().filter(|looked| looked.status.phase == of).count();
        gauge(count).encode(family.encode_family(&[("phase", phase(of))])?)?;
    }
    let help = "Releases that have no metrics of their own, because there are more than --metrics-releases";
    let metric = encoder.encode_descriptor("halftone_releases_not_shown", help, None, MetricType::Gauge)?;
    gauge(releases.len() - shown).encode(metric)
}

fn gauge(count: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Where each is.
fn phases(encoder: &mut DescriptorEncoder<'_>, shown: &[Shown<'_>]) -> Result<(), fmt::Error> {
    let help = "1 for the phase that a release is in";
    let mut family = encoder.encode_descriptor("halftone_release_phase", help, None, MetricType::Gauge)?;
    for (release, looked) in shown {
        let (release, ruleset) = ((*release).to_owned(), looked.spec.ruleset.clone());
        let labels = OfPhase { release, ruleset, phase: phase(looked.status.phase) };
        ConstGauge::new(1).encode(family.encode_family(&labels)?)?;
    }
    let help = "The step of its ramp that a release is at, from 1";
    let mut family = encoder.encode_descriptor("halftone_release_step", help, None, MetricType::Gauge)?;
    for of in shown {
        gauge(of.1.status.step + 1).encode(family.encode_family(&labels(of))?)?;
    }
    let help = "1 for a release that cannot go on at the moment";
    let mut family = encoder.encode_descriptor("halftone_release_trouble", help, None, MetricType::Gauge)?;
    for of in shown {
        let trouble = i64::from(of.1.trouble.is_some());
        ConstGauge::new(trouble).encode(family.encode_family(&labels(of))?)?;
    }
    Ok(())
}

/// How the return to stable went, of those that were taken back.
fn safety(encoder: &mut DescriptorEncoder<'_>, shown: &[Shown<'_>]) -> Result<(), fmt::Error> {
    let seconds = |ms: u64| ms as f64 / 1e3;
    let help = "From the decision to return to stable until no proxy routed to a candidate any more";
    let name = "halftone_release_time_to_safe_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for of in shown {
        let Some(took_ms) = of.1.status.safety.as_ref().and_then(|safety| safety.time_to_safe_ms) else {
            continue;
        };
        ConstGauge::new(seconds(took_ms)).encode(family.encode_family(&labels(of))?)?;
    }
    let help =
        "Since the decision to return to stable, while it is not certain that no proxy routes to a candidate";
    let mut family =
        encoder.encode_descriptor("halftone_release_unsafe_seconds", help, None, MetricType::Gauge)?;
    let now_ms = super::controller::now_ms();
    for of in shown {
        let Some(safety) = of.1.status.safety.as_ref().filter(|safety| safety.safe_at_ms.is_none()) else {
            continue;
        };
        let since = now_ms.saturating_sub(safety.decided_at_ms);
        ConstGauge::new(seconds(since)).encode(family.encode_family(&labels(of))?)?;
    }
    Ok(())
}

impl Metrics {
    /// Who is to get how much, and who was seen.
    fn shares(&self, encoder: &mut DescriptorEncoder<'_>, shown: &[Shown<'_>]) -> Result<(), fmt::Error> {
        let of_arm = |(release, looked): &Shown<'_>, arm: &str| OfArm {
            release: (*release).to_owned(),
            ruleset: looked.spec.ruleset.clone(),
            arm: arm.to_owned(),
        };
        let help = "Configured share of a release's units, by arm";
        let mut family =
            encoder.encode_descriptor("halftone_release_share", help, None, MetricType::Gauge)?;
        for of in shown {
            let Some(Shares { candidate, control, rest }) = of.1.status.shares(&of.1.spec) else { continue };
            let candidates = of.1.status.tried().map(|name| (name, candidate));
            for (arm, share) in candidates.chain([("control", control), ("rest", rest)]) {
                ConstGauge::new(share).encode(family.encode_family(&of_arm(of, arm))?)?;
            }
        }
        let takes = |of: &&Shown<'_>| !of.1.status.settled && of.1.status.shares(&of.1.spec).is_some();
        let seen: Vec<_> = shown.iter().filter(takes).map(|of| (of, self.controller.arms(of.0))).collect();
        let help = "Share of the units that were seen of a release in its current epoch, by arm, as of the last look";
        let mut family =
            encoder.encode_descriptor("halftone_release_observed_share", help, None, MetricType::Gauge)?;
        for (of, arms) in &seen {
            for (arm, observed) in arms.iter().filter_map(|(arm, of)| Some((arm, of.observed?))) {
                ConstGauge::new(observed).encode(family.encode_family(&of_arm(of, arm))?)?;
            }
        }
        let help =
            "Distinct units that were seen of a release in its current epoch, by arm, as of the last look";
        let mut family =
            encoder.encode_descriptor("halftone_release_units", help, None, MetricType::Gauge)?;
        for (of, arms) in &seen {
            for (arm, seen) in arms.iter() {
                let units = i64::try_from(seen.units).unwrap_or(i64::MAX);
                ConstGauge::new(units).encode(family.encode_family(&of_arm(of, arm))?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{read, status::Status};
    use std::sync::Arc;

    fn looked(phase: Phase, since_ms: u64) -> Looked {
        let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\nsteps: [{share: 0.1}]\n";
        let spec = read(text, Some("r")).unwrap();
        let mut status = Status::new(&spec, 0);
        status.enter(phase, "", since_ms);
        Looked { spec: Arc::new(spec), source: text.into(), status: Arc::new(status), trouble: None }
    }

    #[test]
    fn those_under_way_are_shown_first_then_those_that_changed_last() {
        let releases: BTreeMap<String, Looked> = [
            ("a", Phase::RolledBack, 9),
            ("b", Phase::Running, 1),
            ("c", Phase::Aborted, 8),
            ("d", Phase::Paused, 2),
        ]
        .into_iter()
        .map(|(name, phase, since_ms)| (name.to_owned(), looked(phase, since_ms)))
        .collect();
        let names = |most| shown(&releases, most).into_iter().map(|(name, _)| name).collect::<String>();
        assert_eq!(
            ["", "d", "db", "dba", "dbac", "dbac"],
            [0, 1, 2, 3, 4, 9].map(names).each_ref().map(String::as_str)
        );
    }
}
