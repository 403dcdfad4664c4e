//! What a simulation found out.

use super::{
    Simulation, UNGOVERNED,
    tally::{RuleTally, Side},
};
use serde::Serialize;
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

/// What requests would have met. Shares are between 0 and 1; `null` on one side means that there are no
/// such rules, or that they do not have that target or rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests that were decided.
    pub requests: u64,
    /// Requests that the new rules send elsewhere.
    pub moved_requests: Option<u64>,
    /// Requests that no ruleset governs.
    pub ungoverned: Sides<u64>,
    /// Governed requests that do not carry the unit.
    pub without_unit: Sides<u64>,
    /// Every target of every ruleset.
    pub targets: Vec<TargetReport>,
    /// What units would have met.
    pub units: UnitReport,
    /// Every rule, those that only the old rulesets have at the end.
    pub rules: Vec<RuleReport>,
    /// The rules of the new rulesets that took no request.
    pub never_hit: Vec<RuleName>,
}

/// The same under the old and the new rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sides<T> {
    /// Under the old rules.
    pub old: Option<T>,
    /// Under the new rules.
    pub new: Option<T>,
}

/// Requests and units of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Name of the ruleset.
    pub ruleset: String,
    /// Name of the target.
    pub target: String,
    /// Requests that it gets.
    pub requests: Sides<u64>,
    /// Its share of all requests, also those that no ruleset governs.
    pub share: Sides<f64>,
    /// New share less old share.
    pub difference: Option<f64>,
    /// Units whose last request it gets.
    pub units: Sides<u64>,
}

/// What units would have met. A unit counts once per ruleset, and with its last request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitReport {
    /// Distinct units.
    pub distinct: u64,
    /// Units that the new rules send elsewhere.
    pub moved: Option<u64>,
    /// Their share of the distinct units.
    pub moved_share: Option<f64>,
    /// From where to where they move, the most frequent first.
    pub moves: Vec<Move>,
    /// Units whose requests did not all go the same way, because they differ in more than the unit.
    pub mixed: u64,
    /// Distinct units that a simulation follows at most.
    pub limit: u64,
    /// Requests of units beyond that limit.
    pub untracked_requests: u64,
}

/// Units that go elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// Where they were; `null` when no ruleset governed them.
    pub from: Option<TargetName>,
    /// Where they go; `null` when no ruleset governs them.
    pub to: Option<TargetName>,
    /// How many.
    pub units: u64,
    /// Their share of the distinct units.
    pub share: f64,
}

/// A target by its full name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetName {
    /// Name of the ruleset.
    pub ruleset: String,
    /// Name of the target.
    pub target: String,
}

/// A rule by its full name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Name of the ruleset.
    pub ruleset: String,
    /// Name of the rule.
    pub rule: String,
}

/// How often a rule came out how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Name of the ruleset.
    pub ruleset: String,
    /// Name of the rule.
    pub rule: String,
    /// Requests that it takes.
    pub hits: Sides<u64>,
    /// Requests that its condition matches, but that have no unit to split by.
    pub without_unit: Sides<u64>,
    /// Requests for which its condition has no value.
    pub errors: Sides<Vec<ErrorCount>>,
}

/// Requests for which a condition has no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// Why.
    pub error: String,
    /// How many.
    pub requests: u64,
}

pub(super) fn report(simulation: &Simulation) -> Report {
    let (old, new) = (simulation.old.as_ref(), &simulation.new);
    let both = |count: &dyn Fn(&Side) -> u64| Sides { old: old.map(count), new: Some(count(new)) };
    let rules = rules(old, new);
    Report {
        requests: simulation.requests,
        moved_requests: old.map(|_| simulation.moved_requests),
        ungoverned: both(&|side| side.requests(UNGOVERNED)),
        without_unit: both(&|side| side.without_unit),
        targets: targets(simulation),
        units: units(simulation),
        never_hit: rules
            .iter()
            .filter(|rule| rule.hits.new == Some(0))
            .map(|rule| RuleName { ruleset: rule.ruleset.clone(), rule: rule.rule.clone() })
            .collect(),
        rules,
    }
}

fn share(part: u64, whole: u64) -> f64 {
    // Counts stay far below 2^53, where a double begins to leave integers out.
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn targets(simulation: &Simulation) -> Vec<TargetReport> {
    let mut units: (HashMap<u32, u64>, HashMap<u32, u64>) = Default::default();
    for ((from, to), count) in simulation.units.matrix() {
        *units.0.entry(from).or_default() += count;
        *units.1.entry(to).or_default() += count;
    }
    let old = simulation.old.as_ref();
    let target = |(number, ruleset, target): (u32, &str, &str)| {
        let in_old = old.filter(|old| old.has(ruleset, target));
        let in_new = Some(&simulation.new).filter(|new| new.has(ruleset, target));
        let requests = Sides {
            old: in_old.map(|side| side.requests(number)),
            new: in_new.map(|side| side.requests(number)),
        };
        let of_all = |requests: Option<u64>| requests.map(|requests| share(requests, simulation.requests));
        let share = Sides { old: of_all(requests.old), new: of_all(requests.new) };
        let units_of = |counts: &HashMap<u32, u64>| counts.get(&number).copied().unwrap_or_default();
        TargetReport {
            ruleset: ruleset.into(),
            target: target.into(),
            difference: old.map(|_| share.new.unwrap_or_default() - share.old.unwrap_or_default()),
            units: Sides { old: in_old.map(|_| units_of(&units.0)), new: in_new.map(|_| units_of(&units.1)) },
            requests,
            share,
        }
    };
    simulation.places.sorted().into_iter().map(target).collect()
}

fn units(simulation: &Simulation) -> UnitReport {
    let units = &simulation.units;
    let distinct = units.len() as u64;
    let name = |number| {
        let (ruleset, target) = simulation.places.name(number)?.clone();
        Some(TargetName { ruleset, target })
    };
    let mut moved: Vec<_> = units.matrix().into_iter().filter(|((from, to), _)| from != to).collect();
    moved.sort_by_key(|(way, count)| (Reverse(*count), *way));
    let total = moved.iter().map(|(_, count)| count).sum();
    let compared = simulation.old.is_some();
    UnitReport {
        distinct,
        moved: compared.then_some(total),
        moved_share: compared.then(|| share(total, distinct)),
        moves: moved
            .into_iter()
            .map(|((from, to), units)| Move {
                from: name(from),
                to: name(to),
                units,
                share: share(units, distinct),
            })
            .collect(),
        mixed: units.mixed() as u64,
        limit: units.limit() as u64,
        untracked_requests: units.untracked_requests,
    }
}

fn rules(old: Option<&Side>, new: &Side) -> Vec<RuleReport> {
    let olds: HashMap<(&str, &str), &RuleTally> = old
        .into_iter()
        .flat_map(Side::rules)
        .map(|(ruleset, rule)| ((ruleset, rule.name.as_str()), rule))
        .collect();
    let names: HashSet<(&str, &str)> =
        new.rules().map(|(ruleset, rule)| (ruleset, rule.name.as_str())).collect();
    let of_new = new.rules().map(|(ruleset, rule)| {
        rule_report(ruleset, olds.get(&(ruleset, rule.name.as_str())).copied(), Some(rule))
    });
    let of_old = old
        .into_iter()
        .flat_map(Side::rules)
        .filter(|(ruleset, rule)| !names.contains(&(*ruleset, rule.name.as_str())))
        .map(|(ruleset, rule)| rule_report(ruleset, Some(rule), None));
    of_new.chain(of_old).collect()
}

fn rule_report(ruleset: &str, old: Option<&RuleTally>, new: Option<&RuleTally>) -> RuleReport {
    let both = |count: fn(&RuleTally) -> u64| Sides { old: old.map(count), new: new.map(count) };
    let errors = |rule: &RuleTally| {
        let mut errors: Vec<_> = rule
            .errors
            .iter()
            .map(|(error, requests)| ErrorCount { error: error.to_string(), requests: *requests })
            .collect();
        errors.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.error.cmp(&b.error)));
        errors
    };
    RuleReport {
        ruleset: ruleset.into(),
        rule: new.or(old).map(|rule| rule.name.clone()).unwrap_or_default(),
        hits: both(|rule| rule.hits),
        without_unit: both(|rule| rule.without_unit),
        errors: Sides { old: old.map(errors), new: new.map(errors) },
    }
}
