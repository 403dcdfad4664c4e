//! From what the ledger knows to what the judge takes in.

use super::{
    CONTROL, REST,
    history::History,
    prometheus::Readings,
    source::Source,
    spec::Spec,
    status::{Epoch, Phase, Status},
};
use crate::ledger::{
    ArmObservations, ArmOutcomes, EpochObservations, Ledger, OutcomeQuery, ReleaseObservations,
};
use crate::store::StoreError;
use halftone_judge::{
    Snapshot,
    policy::{self, Gate, Measurement, Sample, StepConditions},
    stats::ArmUnits,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Outcomes by metric, epoch and arm.
pub(super) type OutcomesByMetric = BTreeMap<String, BTreeMap<(u64, String), ArmOutcomes>>;

/// What applications reported of a release, for each metric that comes from there. Blocks.
pub(super) fn outcomes(ledger: &Ledger, spec: &Spec, now_ms: u64) -> Result<OutcomesByMetric, StoreError> {
    let analysed: BTreeSet<String> = spec.candidates.iter().cloned().chain([CONTROL.to_owned()]).collect();
    let mut outcomes = BTreeMap::new();
    for (name, source) in &spec.sources {
        let (Source::Outcome(reported), Some(metric)) = (source, spec.policy().metrics.get(name)) else {
            continue;
        };
        let query = OutcomeQuery {
            metric: reported.metric.clone(),
            window: (metric.window_s > 0).then(|| Duration::from_secs(metric.window_s)),
            aggregate: reported.aggregate,
            missing: reported.missing(metric),
            analysed_arms: analysed.clone(),
            now_ms,
            cap: metric.cap,
        };
        outcomes.insert(name.clone(), ledger.outcomes(&spec.ruleset, &spec.name, &query)?);
    }
    Ok(outcomes)
}

/// What is known of a release at a moment.
pub(super) struct Knowledge<'a> {
    /// What was observed, until now.
    pub(super) history: &'a History,
    /// What applications reported.
    pub(super) outcomes: &'a OutcomesByMetric,
    /// What a Prometheus server said.
    pub(super) prometheus: &'a Readings,
    /// The moment: milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
}

impl Knowledge<'_> {
    pub(super) fn epoch(&self, number: u64) -> Option<&EpochObservations> {
        self.history.now()?.epochs.iter().find(|epoch| epoch.epoch == number)
    }

    /// When the release was first and last observed, in its own epochs.
    fn span(&self, status: &Status) -> Option<(u64, u64)> {
        // A backend whose clock was wrong for a moment does not make a release older than it is.
        let seen =
            |epoch: &Epoch| self.epoch(epoch.epoch).map(|of| (of.begun_ms.max(epoch.since_ms), of.ended_ms));
        let epochs = status.epochs.iter().filter_map(seen);
        epochs.reduce(|(begun, ended), (other, last)| (begun.min(other), ended.max(last)))
    }
}

/// When the last batch ended that had requests to one of the candidates.
pub(super) fn last_seen(observed: Option<&ReleaseObservations>, spec: &Spec) -> Option<u64> {
    let series = observed?.series.iter().filter(|of| spec.candidates.contains(&of.series.target));
    series.map(|of| of.ended_ms).max()
}

/// What the judge is told of a candidate.
pub(super) fn snapshot(spec: &Spec, status: &Status, candidate: &str, known: &Knowledge<'_>) -> Snapshot {
    let by_prometheus = known.prometheus.span(spec, candidate);
    let span = if spec.asks_only_prometheus() { by_prometheus } else { known.span(status) };
    let seconds = |since: u64| known.now_ms.saturating_sub(since) / 1_000;
    let elapsed = span.map_or(0, |(begun, _)| seconds(begun));
    let age = |newest: Option<u64>| seconds(newest.unwrap_or(status.created_at_ms));
    // The other sources may go on for as long as they want: what one of them does not say could speak against it.
    let least = if spec.asks_prometheus() { age(by_prometheus.map(|(_, newest)| newest)) } else { 0 };
    let before = status.candidates.get(candidate).map_or(0, |candidate| candidate.judge.elapsed_s);
    Snapshot {
        // A first batch that comes late, from a backend with another clock, does not turn time back.
        elapsed_s: elapsed.max(before),
        data_age_s: age(span.map(|(_, ended)| ended)).max(least),
        gate: gate(spec, status, known.now_ms),
        epochs: status
            .epochs
            .iter()
            // Once everybody has the candidate, there is nothing to compare.
            .filter(|epoch| {
                epoch.shares.control > 0.0 && epoch.candidates.iter().any(|name| name == candidate)
            })
            .map(|epoch| of_epoch(spec, epoch, candidate, known))
            .collect(),
    }
}

fn gate(spec: &Spec, status: &Status, now_ms: u64) -> Gate {
    let Some(step) = spec.steps.get(status.step) else { return Gate::Final };
    let elapsed_s = now_ms.saturating_sub(status.step_since_ms) / 1_000;
    let held = elapsed_s >= step.hold.time.as_secs();
    let approved = step.hold.approval.then_some(status.approved);
    // The last step promotes; its conditions come before that.
    let is_final = status.is_last_step(spec) && held && approved != Some(false);
    if is_final || matches!(status.phase, Phase::Promoted | Phase::Candidate) {
        return Gate::Final;
    }
    Gate::Step(StepConditions {
        elapsed_s,
        least_s: step.hold.time.as_secs(),
        least_units: step.hold.units,
        approved,
    })
}

fn of_epoch(spec: &Spec, epoch: &Epoch, candidate: &str, known: &Knowledge<'_>) -> policy::Epoch {
    let beside = of_number(known.history.beside_stable(epoch.epoch, candidate), epoch.epoch);
    let arm = |name: &str| {
        let known = if name == candidate { beside } else { known.epoch(epoch.epoch) };
        known.and_then(|epoch| epoch.arms.get(name))
    };
    let others: Vec<&String> = epoch.candidates.iter().filter(|name| *name != candidate).collect();
    let counted = units(epoch, candidate, &others, known);
    let metrics = spec.sources.iter().filter_map(|(name, source)| {
        let metric = spec.policy().metrics.get(name)?;
        let sample = |arm_name: &str| match source {
            Source::Observed(from) => observed_sample(metric.kind, from, arm(arm_name)?),
            Source::Outcome(_) => {
                let outcomes = known.outcomes.get(name)?.get(&(epoch.epoch, arm_name.to_owned()))?;
                match metric.kind {
                    policy::MetricKind::Proportion => outcomes.events.map(Sample::Proportion),
                    _ => Some(Sample::Mean(outcomes.values)),
                }
            }
            Source::Prometheus(_) => {
                let target = if arm_name == CONTROL { &spec.stable } else { arm_name };
                known.prometheus.sample(name, epoch.epoch, target)
            }
        };
        // Goals are compared with the concurrent control alone.
        let rest = matches!(source, Source::Observed(_)).then(|| sample(REST)).flatten();
        Some((name.clone(), Measurement { control: sample(CONTROL), treatment: sample(candidate), rest }))
    });
    let metrics = metrics.collect();
    let shares = policy::Shares {
        control: epoch.shares.control,
        treatment: epoch.shares.candidate,
        rest: epoch.shares.rest,
        others: others.iter().map(|_| epoch.shares.candidate).collect(),
    };
    let (shares, units) = if spec.asks_only_prometheus() {
        known.prometheus.units(epoch.epoch, candidate)
    } else {
        (shares, counted)
    };
    policy::Epoch { id: epoch.epoch.to_string(), shares, units, metrics }
}

fn of_number(observed: Option<&ReleaseObservations>, number: u64) -> Option<&EpochObservations> {
    observed?.epochs.iter().find(|epoch| epoch.epoch == number)
}

/// The units of the arms at one time. What is known now of each arm is of another time; of the time half a minute ago it is
/// known that there were no fewer than what was known then, and no more than what is known now. Of what it may have been this is
/// what comes closest to the shares, so that no report that is late looks like a share that is wrong.
fn units(epoch: &Epoch, candidate: &str, others: &[&String], known: &Knowledge<'_>) -> ArmUnits {
    let count = |of: Option<&EpochObservations>, name: &str| {
        of.and_then(|of| of.arms.get(name)).map_or(0, |arm| arm.units.units)
    };
    let (before, now) = (of_number(known.history.before(), epoch.epoch), known.epoch(epoch.epoch));
    let shares = epoch.shares;
    let arms = [(CONTROL, shares.control), (candidate, shares.candidate), (REST, shares.rest)];
    let arms = arms.into_iter().chain(others.iter().map(|name| (name.as_str(), shares.candidate)));
    let bounds: Vec<(f64, u64, u64)> =
        arms.map(|(name, share)| (share, count(before, name), count(now, name))).collect();
    let with_share = bounds.iter().filter(|(share, _, _)| *share > 0.0);
    let whole = with_share.map(|(share, _, most)| *most as f64 / share).fold(f64::INFINITY, f64::min);
    let closest = |(share, least, most): &(f64, u64, u64)| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to counts")]
        let wanted = (whole * share).round() as u64;
        wanted.clamp(*least.min(most), *most)
    };
    let counts: Vec<u64> = bounds.iter().map(closest).collect();
    let at = |index: usize| counts.get(index).copied().unwrap_or_default();
    let both: u64 = now.map_or(0, |epoch| epoch.arms.values().map(|arm| arm.units.both).sum());
    let all: u64 = bounds.iter().map(|(_, _, most)| most).sum();
    // As many of those in two arms as of all.
    let both = u128::from(both) * u128::from(counts.iter().sum::<u64>()) / u128::from(all.max(1));
    ArmUnits {
        control: at(0),
        treatment: at(1),
        rest: at(2),
        others: counts.iter().skip(3).copied().collect(),
        both: u64::try_from(both).unwrap_or(u64::MAX),
    }
}

fn observed_sample(kind: policy::MetricKind, from: &str, arm: &ArmObservations) -> Option<Sample> {
    if arm.units.units == 0 {
        return None;
    }
    match kind {
        policy::MetricKind::Event => arm.bad_events(from).map(Sample::Proportion),
        policy::MetricKind::Latency => Some(Sample::Histogram(arm.units.first_latency.clone())),
        _ => arm.statistics.get(from)?.units.clone().map(Sample::Buckets),
    }
}
