//! Counters, in the host's statistics.
//!
//! Decisions are counted here and handed to the host once a second: what a request costs does not grow with what is
//! counted about it. The ABI has no labels, so they stand in the name, as `name;label=value;label=value`, from where
//! `stats_tags` in Envoy's bootstrap takes them.

use crate::host::{Metric, MetricKind};
use halftone_rules::{Decision, Observer, Outcome, Ruleset, VerifiedBundle};
use std::{cell::RefCell, collections::BTreeMap};

/// Series that one VM defines at most, over all revisions: the host keeps them for as long as the VM lives.
const MAX_SERIES: usize = 2_000;
/// The labels of decisions and errors beyond that. No name has brackets.
const OTHER: &str = "(other)";
/// The rule of decisions that no rule made.
const DEFAULT: &str = "(default)";
/// The rule of decisions that an override or a token made.
const OVERRIDE: &str = "(override)";

thread_local! {
    /// The host gives a new number each time that a metric is defined: so once for each VM.
    static SERIES: RefCell<BTreeMap<String, Metric>> = RefCell::default();
}

/// What one configuration has counted since it was handed to the host last.
#[derive(Default)]
pub(crate) struct Counts {
    decisions: BTreeMap<Decided, u64>,
    errors: BTreeMap<Place, u64>,
}

/// A rule by its place in its ruleset, and that by its place in the bundle.
type Place = (usize, usize);

/// Who decided, and for which target.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Decided {
    ruleset: usize,
    by: By,
    target: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Default,
    Override,
    Rule(usize),
}

/// Errors that are counted for one request; a ruleset in which more rules have one reads something that is not there.
const MAX_ERRORS: usize = 16;

/// Sees how a request is decided.
#[derive(Default)]
pub(crate) struct Watch {
    taken: Option<(usize, u16)>,
    errors: [usize; MAX_ERRORS],
    error_count: usize,
}

impl Observer for Watch {
    #[inline]
    fn rule(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Taken { arm, .. } => {
                let arm = ruleset.rules.get(index).and_then(|rule| rule.arms.get(usize::from(arm)));
                self.taken = arm.map(|arm| (index, arm.target));
            }
            Outcome::Error(_) => {
                if let Some(slot) = self.errors.get_mut(self.error_count) {
                    *slot = index;
                    self.error_count = self.error_count.saturating_add(1);
                }
            }
            _ => {}
        }
    }
}

impl Counts {
    /// Counts a decision.
    pub(crate) fn decided(&mut self, bundle: &VerifiedBundle, decision: &Decision<'_>, watch: &Watch) {
        let rulesets = &bundle.bundle().rulesets;
        let at = rulesets.binary_search_by(|ruleset| ruleset.name.as_str().cmp(decision.ruleset));
        let Some((at, ruleset)) = at.ok().and_then(|at| Some((at, rulesets.get(at)?))) else { return };
        for index in watch.errors.iter().take(watch.error_count) {
            increment(self.errors.entry((at, *index)).or_default());
        }
        let (by, target) = match watch.taken {
            _ if decision.overridden => {
                let target = ruleset.targets.iter().position(|target| target == decision.target);
                (By::Override, target.and_then(|at| u16::try_from(at).ok()).unwrap_or(ruleset.default))
            }
            Some((index, target)) => (By::Rule(index), target),
            None => (By::Default, ruleset.default),
        };
        increment(self.decisions.entry(Decided { ruleset: at, by, target }).or_default());
    }

    /// Hands everything to the host. What it does not take is lost; a host without metrics takes nothing.
    pub(crate) fn flush(&mut self, bundle: &VerifiedBundle) {
        let rulesets = &bundle.bundle().rulesets;
        let rule = |ruleset: &Ruleset, index: usize| {
            ruleset.rules.get(index).map_or_else(|| OTHER.to_owned(), |rule| rule.name.clone())
        };
        for (Decided { ruleset, by, target }, count) in std::mem::take(&mut self.decisions) {
            let Some(ruleset) = rulesets.get(ruleset) else { continue };
            let target = ruleset.targets.get(usize::from(target)).map_or(OTHER, String::as_str);
            let rule = match by {
                By::Default => DEFAULT.to_owned(),
                By::Override => OVERRIDE.to_owned(),
                By::Rule(index) => rule(ruleset, index),
            };
            add(
                "halftone_decisions_total",
                [("ruleset", &ruleset.name), ("rule", &rule), ("target", target)],
                count,
            );
        }
        for ((ruleset, index), count) in std::mem::take(&mut self.errors) {
            let Some(ruleset) = rulesets.get(ruleset) else { continue };
            let rule = rule(ruleset, index);
            add("halftone_evaluation_errors_total", [("ruleset", &ruleset.name), ("rule", &rule)], count);
        }
    }
}

fn increment(count: &mut u64) {
    *count = count.saturating_add(1);
}

/// Shows which revision was applied last, by any worker of the process.
pub(crate) fn applied(revision: u64) {
    if let Some(metric) = series(MetricKind::Gauge, "halftone_revision".to_owned()) {
        metric.record(revision);
    }
}

fn add<const N: usize>(name: &str, labels: [(&str, &str); N], count: u64) {
    let named = |value: fn(&str) -> &str| {
        labels
            .iter()
            .fold(name.to_owned(), |text, (label, content)| format!("{text};{label}={}", value(content)))
    };
    let metric = series(MetricKind::Counter, named(|content| content));
    if let Some(metric) = metric.or_else(|| series(MetricKind::Counter, named(|_| OTHER))) {
        metric.increment(count);
    }
}

/// The metric of this name; `None` when there are too many, except for those that count the rest.
fn series(kind: MetricKind, name: String) -> Option<Metric> {
    SERIES.with(|series| {
        let mut series = series.try_borrow_mut().ok()?;
        if let Some(known) = series.get(&name) {
            return Some(*known);
        }
        if series.len() >= MAX_SERIES && !name.contains(OTHER) {
            return None;
        }
        let metric = Metric::define(kind, &name).ok()?;
        series.insert(name, metric);
        Some(metric)
    })
}
