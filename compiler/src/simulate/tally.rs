//! Counts of what one set of rules decides.

use super::{Places, UNGOVERNED};
use halftone_rules::{EvalError, Observer, Outcome, Request, Ruleset, Timestamp, VerifiedBundle};
use std::collections::HashMap;

/// Rules, and what they did.
#[derive(Debug)]
pub(super) struct Side {
    rules: VerifiedBundle,
    /// In the bundle's order.
    rulesets: Vec<RulesetTally>,
    /// Requests by place.
    requests: HashMap<u32, u64>,
    /// Governed requests that have no unit.
    pub(super) without_unit: u64,
}

#[derive(Debug)]
struct RulesetTally {
    name: String,
    /// Place by target.
    places: HashMap<String, u32>,
    /// In the ruleset's order.
    rules: Vec<RuleTally>,
}

/// How often a rule came out how.
#[derive(Debug, Default)]
pub(super) struct RuleTally {
    pub(super) name: String,
    pub(super) hits: u64,
    pub(super) without_unit: u64,
    /// Conditions without a value, by cause. A rule has few causes.
    pub(super) errors: Vec<(EvalError, u64)>,
}

/// Where a request went.
pub(super) struct Placed {
    pub(super) place: u32,
    /// Stands for the unit within its ruleset.
    pub(super) unit: Option<u64>,
}

impl Side {
    pub(super) fn new(rules: VerifiedBundle, places: &mut Places) -> Self {
        let rulesets = rules.bundle().rulesets.iter().map(|ruleset| RulesetTally {
            name: ruleset.name.clone(),
            places: ruleset
                .targets
                .iter()
                .map(|target| (target.clone(), places.number(&ruleset.name, target)))
                .collect(),
            rules: ruleset
                .rules
                .iter()
                .map(|rule| RuleTally { name: rule.name.clone(), ..RuleTally::default() })
                .collect(),
        });
        Self { rulesets: rulesets.collect(), rules, requests: HashMap::new(), without_unit: 0 }
    }

    pub(super) fn decide(&mut self, request: &impl Request, now: Timestamp) -> Placed {
        let mut tally = Tally { rulesets: &mut self.rulesets, current: None };
        let placed = match self.rules.decide(request, now, &mut tally) {
            None => Placed { place: UNGOVERNED, unit: None },
            Some(decision) => {
                let ruleset = tally.find(decision.ruleset).map(|index| &tally.rulesets[index]);
                let place = ruleset.and_then(|ruleset| ruleset.places.get(decision.target)).copied();
                self.without_unit += u64::from(decision.unit_hash.is_none());
                let unit = decision.unit_hash.map(|unit| within(decision.ruleset, unit));
                Placed { place: place.unwrap_or(UNGOVERNED), unit }
            }
        };
        *self.requests.entry(placed.place).or_default() += 1;
        placed
    }

    /// Requests that went to a place.
    pub(super) fn requests(&self, place: u32) -> u64 {
        self.requests.get(&place).copied().unwrap_or_default()
    }

    /// The rules with their rulesets' names, in order.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&str, &RuleTally)> {
        self.rulesets.iter().flat_map(|ruleset| ruleset.rules.iter().map(|rule| (&*ruleset.name, rule)))
    }

    /// Whether the rules know a place.
    pub(super) fn has(&self, ruleset: &str, target: &str) -> bool {
        self.rulesets.iter().any(|other| other.name == ruleset && other.places.contains_key(target))
    }
}

/// Rulesets split independently, so the same user in two of them is two units.
fn within(ruleset: &str, unit: u64) -> u64 {
    unit ^ halftone_rules::unit_hash(ruleset.as_bytes())
}

struct Tally<'a> {
    rulesets: &'a mut [RulesetTally],
    /// A request meets the rules of one ruleset only.
    current: Option<usize>,
}

impl Tally<'_> {
    fn find(&mut self, ruleset: &str) -> Option<usize> {
        if self.current.is_none() {
            // A bundle keeps its rulesets in the order of their names.
            self.current = self.rulesets.binary_search_by(|other| other.name.as_str().cmp(ruleset)).ok();
        }
        self.current
    }
}

impl Observer for Tally<'_> {
    fn rule(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome) {
        let Some(found) = self.find(&ruleset.name) else { return };
        let Some(rule) = self.rulesets[found].rules.get_mut(index) else { return };
        match outcome {
            Outcome::Taken { .. } => rule.hits += 1,
            Outcome::NoUnit => rule.without_unit += 1,
            Outcome::Error(error) => match rule.errors.iter_mut().find(|(other, _)| *other == error) {
                Some((_, count)) => *count += 1,
                None => rule.errors.push((error, 1)),
            },
            _ => {}
        }
    }
}
