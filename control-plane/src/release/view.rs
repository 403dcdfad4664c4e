//! A release as people and programs look at it.

use super::{
    controller::Looked,
    prometheus::{Readings, readings::PrometheusMetric},
    safety::Safety,
    shares::Shares,
    spec::{Approval, Step},
    status::{Epoch, Phase},
};
use crate::ledger::ReleaseObservations;
use halftone_judge::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A release in a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The ruleset whose requests it takes.
    pub ruleset: String,
    /// The target that requests went to before.
    pub stable: String,
    /// The targets that are tried.
    pub candidates: Vec<String>,
    /// Where it is.
    pub phase: Phase,
    /// Since when: milliseconds since the Unix epoch, as all times here.
    pub since_ms: u64,
    /// Why.
    pub why: String,
    /// Why it cannot go on at the moment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// The step of the ramp, from 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
    /// The intended shares of its units; missing when it takes none.
    pub intended: Option<Shares>,
    /// Counts its changes; its entity tag.
    pub generation: u64,
}

/// A release with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// What the listing has.
    #[serde(flatten)]
    pub summary: Summary,
    /// When it was created.
    pub created_at_ms: u64,
    /// The step that it is at.
    pub at_step: Option<Step>,
    /// When that began.
    pub step_since_ms: u64,
    /// Who approves the promotion.
    pub approval: Approval,
    /// What it waits for; missing when it has ended.
    pub waits_for: Option<Waiting>,
    /// The arms of the current epoch, by name.
    pub arms: BTreeMap<String, Arm>,
    /// The last verdict about each candidate.
    pub verdicts: BTreeMap<String, Verdict>,
    /// The candidate that was promoted, or is to be.
    pub winner: Option<String>,
    /// How reading from the Prometheus server goes, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prometheus: BTreeMap<String, PrometheusMetric>,
    /// Its epochs, in order.
    pub epochs: Vec<Epoch>,
    /// How the return to stable went.
    pub safety: Option<Safety>,
    /// Its text, as it was uploaded.
    pub source: String,
}

/// What a release waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// For people.
    pub what: String,
    /// When that is expected; missing when nobody can know.
    pub expected_at_ms: Option<u64>,
}

/// An arm in the current epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Where its requests go.
    pub target: String,
    /// The configured share of the release's units.
    pub intended: f64,
    /// The share of the units that were seen; missing before the first one.
    pub observed: Option<f64>,
    /// Distinct units that were seen; blocks with requests, where all metrics come from a Prometheus server.
    pub units: u64,
}

impl Summary {
    /// Of a release.
    #[must_use]
    pub fn of(looked: &Looked) -> Self {
        let Looked { spec, status, trouble, .. } = looked;
        Self {
            name: spec.name.clone(),
            ruleset: spec.ruleset.clone(),
            stable: spec.stable.clone(),
            candidates: spec.candidates.clone(),
            phase: status.phase,
            since_ms: status.since_ms,
            why: status.why.clone(),
            trouble: trouble.as_ref().map(ToString::to_string),
            step: status.step + 1,
            steps: spec.steps.len(),
            intended: status.shares(spec),
            generation: status.generation,
        }
    }
}

impl View {
    /// Of a release, with what was observed of it, and what a Prometheus server said.
    #[must_use]
    pub fn of(
        looked: &Looked,
        observed: Option<&ReleaseObservations>,
        readings: &Readings,
        now_ms: u64,
    ) -> Self {
        let Looked { spec, status, source, .. } = looked;
        let verdicts = status.candidates.iter();
        Self {
            summary: Summary::of(looked),
            created_at_ms: status.created_at_ms,
            at_step: spec.steps.get(status.step).copied(),
            step_since_ms: status.step_since_ms,
            approval: spec.approval,
            waits_for: waits_for(looked, now_ms),
            arms: arms(looked, observed, readings),
            verdicts: verdicts.filter_map(|(name, of)| Some((name.clone(), of.verdict.clone()?))).collect(),
            winner: status.winner.clone(),
            prometheus: readings.seen(),
            epochs: status.epochs.clone(),
            safety: status.safety.clone(),
            source: source.to_string(),
        }
    }
}

fn waits_for(looked: &Looked, now_ms: u64) -> Option<Waiting> {
    let Looked { spec, status, .. } = looked;
    let plain = |what: &str| Some(Waiting { what: what.to_owned(), expected_at_ms: None });
    match status.phase {
        Phase::Pending => plain("the controller"),
        Phase::Candidate => plain("an approval of the promotion"),
        Phase::Paused => plain("a person: `resume`, `abort` or `rollback`"),
        Phase::Promoted if status.settled => None,
        Phase::Promoted => {
            let length = u64::try_from(spec.watch.time.as_millis()).unwrap_or(u64::MAX);
            let expected_at_ms = Some(status.since_ms.saturating_add(length));
            Some(Waiting { what: "the end of the watch".to_owned(), expected_at_ms })
        }
        Phase::RolledBack | Phase::Aborted => {
            let safe = status.safety.as_ref().is_none_or(|safety| safety.safe_at_ms.is_some());
            if safe { None } else { plain("proxies and observations that show that nobody gets a candidate") }
        }
        Phase::Running => {
            if let Some(held) = &status.gate {
                return plain(&held.why);
            }
            let verdicts = status.candidates.values().filter(|candidate| !candidate.dropped);
            let Some(verdict) = verdicts.filter_map(|candidate| candidate.verdict.as_ref()).next() else {
                return plain("the first verdict");
            };
            // Durations in seconds from the judge; what is beyond a year is not known.
            let left = verdict.remaining_s.filter(|left| (0.0..3.2e7).contains(left));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within the range above"
            )]
            let expected_at_ms = left.map(|left| now_ms.saturating_add((left * 1e3) as u64));
            Some(Waiting { what: verdict.sentence.clone(), expected_at_ms })
        }
    }
}

/// The arms of the current epoch, by name.
pub(super) fn arms(
    looked: &Looked,
    observed: Option<&ReleaseObservations>,
    readings: &Readings,
) -> BTreeMap<String, Arm> {
    let Looked { spec, status, .. } = looked;
    let Some(epoch) = status.epochs.last() else { return BTreeMap::new() };
    let seen = observed.and_then(|observed| observed.epochs.iter().find(|seen| seen.epoch == epoch.epoch));
    let units = |arm: &str| seen.and_then(|seen| seen.arms.get(arm)).map_or(0, |arm| arm.units.units);
    let all: u64 = seen.map_or(0, |seen| seen.arms.values().map(|arm| arm.units.units).sum());
    let candidates =
        epoch.candidates.iter().map(|name| (name.as_str(), name.as_str(), epoch.shares.candidate));
    let stable = [("control", epoch.shares.control), ("rest", epoch.shares.rest)];
    let stable = stable.into_iter().map(|(arm, share)| (arm, spec.stable.as_str(), share));
    candidates
        .chain(stable)
        .filter(|(_, _, intended)| *intended > 0.0)
        .map(|(name, target, intended)| {
            let units = match name {
                _ if !spec.asks_only_prometheus() => units(name),
                // All of stable is the control, then.
                "rest" => 0,
                _ => readings.blocks(epoch.epoch, target),
            };
            let observed = (all > 0).then(|| units as f64 / all as f64);
            (name.to_owned(), Arm { target: target.to_owned(), intended, observed, units })
        })
        .collect()
}
