//! What was read from a Prometheus server, as the rest of a release sees it.

use crate::release::{source::Source, spec::Spec};
use halftone_judge::{
    policy::{Sample, Shares},
    stats::{ArmUnits, UnitBuckets},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was read for a release, by metric.
#[derive(Clone, Debug, Default)]
pub struct Readings(pub(super) BTreeMap<String, Reading>);

/// What was read for a metric.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// By epoch.
    pub(super) epochs: BTreeMap<u64, OfEpoch>,
    /// When the first block of all began: milliseconds since the Unix epoch, as all times here.
    pub(super) begun_ms: Option<u64>,
    /// Of the newest sample of each target's denominator.
    pub(super) newest_ms: BTreeMap<String, u64>,
    /// For people.
    pub(super) seen: PrometheusMetric,
}

/// What was read for an epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct OfEpoch {
    /// By target.
    pub(super) targets: BTreeMap<String, UnitBuckets>,
    /// By candidate: blocks in which both it and stable had requests.
    pub(super) shared: BTreeMap<String, u64>,
}

/// How reading a metric goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrometheusMetric {
    /// By target.
    pub targets: BTreeMap<String, PrometheusTarget>,
    /// Why nothing newer was read; missing while all is well.
    pub trouble: Option<Trouble>,
}

/// What was read of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrometheusTarget {
    /// Of its newest sample: milliseconds since the Unix epoch.
    pub newest_ms: Option<u64>,
    /// Blocks of the current epoch that had requests.
    pub blocks: u64,
    /// Blocks of the current epoch that nobody saw: more than a few mean that `block` is shorter than the scrape interval, or
    /// that scrapes fail.
    pub unseen: u64,
    /// What the numerator gained in the current epoch.
    pub numerator: f64,
    /// What the denominator gained in the current epoch.
    pub denominator: f64,
    /// Times that a counter began again, in all epochs.
    pub resets: u64,
}

/// Why nothing newer was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// For people.
    pub why: String,
    /// Since when: milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Readings {
    /// How reading goes, by metric.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<String, PrometheusMetric> {
        self.0.iter().map(|(name, reading)| (name.clone(), reading.seen.clone())).collect()
    }

    /// A metric of a target in an epoch; nothing before it had requests.
    pub(in crate::release) fn sample(&self, metric: &str, epoch: u64, target: &str) -> Option<Sample> {
        let read = self.0.get(metric)?.epochs.get(&epoch)?.targets.get(target)?;
        (read.units > 0).then(|| Sample::Buckets(read.clone()))
    }

    /// The units of an epoch where nothing else counts any: blocks in which both arms had requests, of the metric that has
    /// the fewest. Both arms are in each block, so their shares are equal, and a sample ratio says nothing.
    pub(in crate::release) fn units(&self, epoch: u64, candidate: &str) -> (Shares, ArmUnits) {
        let of = |reading: &Reading| {
            reading.epochs.get(&epoch).and_then(|of| of.shared.get(candidate)).copied().unwrap_or_default()
        };
        let units = self.0.values().map(of).min().unwrap_or_default();
        (
            Shares { control: 0.5, treatment: 0.5, ..Shares::default() },
            ArmUnits { control: units, treatment: units, ..ArmUnits::default() },
        )
    }

    /// Blocks of a target with requests in an epoch, of the metric that has the fewest.
    pub(in crate::release) fn blocks(&self, epoch: u64, target: &str) -> u64 {
        let of = |reading: &Reading| {
            reading.epochs.get(&epoch).and_then(|of| of.targets.get(target)).map_or(0, |read| read.units)
        };
        self.0.values().map(of).min().unwrap_or_default()
    }

    /// When the first block began that counts, and when the arm that is behind most, in any metric, was last seen. Missing
    /// until all were.
    pub(in crate::release) fn span(&self, spec: &Spec, candidate: &str) -> Option<(u64, u64)> {
        let mut span: Option<(u64, u64)> = None;
        for name in spec.sources.iter().filter(|(_, source)| is_prometheus(source)).map(|(name, _)| name) {
            let reading = self.0.get(name)?;
            let begun = reading.begun_ms?;
            let newest = |target: &str| reading.newest_ms.get(target).copied();
            let newest = newest(&spec.stable)?.min(newest(candidate)?);
            span = Some(span.map_or((begun, newest), |(first, last)| (first.min(begun), last.min(newest))));
        }
        span
    }
}

fn is_prometheus(source: &Source) -> bool {
    matches!(source, Source::Prometheus(_))
}

impl Spec {
    /// Whether any metric comes from a Prometheus server.
    pub(in crate::release) fn asks_prometheus(&self) -> bool {
        self.sources.values().any(is_prometheus)
    }

    /// Whether all of them do, so that nobody knows units.
    pub(in crate::release) fn asks_only_prometheus(&self) -> bool {
        self.sources.values().all(is_prometheus)
    }
}
