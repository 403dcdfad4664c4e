//! What other rules would have done with requests that were seen: shares, moves, and rules without use.

mod report;
mod tally;
#[cfg(test)]
mod tests;
mod units;

pub use report::{
    ErrorCount, Move, Report, RuleName, RuleReport, Sides, TargetName, TargetReport, UnitReport,
};

use halftone_rules::{Request, Timestamp, VerifiedBundle};
use std::collections::HashMap;
use tally::Side;
use units::Units;

/// Units that a simulation follows unless told otherwise: they take some 300 MB. Requests of further units
/// still count as requests, and the report says how many they are.
pub const MAX_UNITS: usize = 10_000_000;

/// Decides requests by new rules, and by old ones to compare with, and counts.
///
/// Memory grows with the number of distinct units alone, up to a limit; requests themselves are not kept.
///
/// ```
/// use halftone_compiler::Simulation;
/// use halftone_rules::{Bundle, Request, Timestamp, codec};
///
/// struct Curl;
/// impl Request for Curl {
///     fn header(&self, name: &str) -> Option<&[u8]> {
///         (name == "x-user-id").then_some(b"42")
///     }
/// }
///
/// let rules = |target| codec::decode(&codec::encode(&Bundle::pass_all(1, "digits", target))?);
/// let mut simulation = Simulation::new(Some(rules("v1")?), rules("v2")?);
/// simulation.record(&Curl, Timestamp(0));
/// let report = simulation.report();
/// assert_eq!((report.requests, report.units.moved), (1, Some(1)));
/// # Ok::<(), codec::BundleError>(())
/// ```
#[derive(Debug)]
pub struct Simulation {
    places: Places,
    old: Option<Side>,
    new: Side,
    requests: u64,
    moved_requests: u64,
    units: Units,
}

impl Simulation {
    /// A simulation of `new`, in comparison with `old` if there is one. Rulesets, rules and targets of the
    /// two belong together by their names.
    #[must_use]
    pub fn new(old: Option<VerifiedBundle>, new: VerifiedBundle) -> Self {
        let mut places = Places::default();
        // The new rules first: their order is the report's.
        let new = Side::new(new, &mut places);
        let old = old.map(|old| Side::new(old, &mut places));
        Self { places, old, new, requests: 0, moved_requests: 0, units: Units::new(MAX_UNITS) }
    }

    /// Follows at most that many distinct units instead of [`MAX_UNITS`].
    #[must_use]
    pub fn with_unit_limit(mut self, limit: usize) -> Self {
        self.units = Units::new(limit);
        self
    }

    /// Decides a request that was made at `now`.
    pub fn record(&mut self, request: &impl Request, now: Timestamp) {
        self.requests += 1;
        let new = self.new.decide(request, now);
        let old = self.old.as_mut().map(|old| old.decide(request, now));
        let from = old.as_ref().map_or(new.place, |old| old.place);
        self.moved_requests += u64::from(from != new.place);
        // A unit is what the new rules randomise. Where they have none, the old ones know it by theirs.
        if let Some(unit) = new.unit.or_else(|| old.and_then(|old| old.unit)) {
            self.units.record(unit, from, new.place);
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn report(&self) -> Report {
        report::report(self)
    }
}

/// Where a request may go: the targets of all rulesets, old and new, each with a number.
#[derive(Debug, Default)]
struct Places {
    /// By number from 1; number 0 stands for requests that no ruleset governs.
    names: Vec<(String, String)>,
    numbers: HashMap<(String, String), u32>,
}

/// The number of the place of requests that no ruleset governs.
const UNGOVERNED: u32 = 0;

impl Places {
    fn number(&mut self, ruleset: &str, target: &str) -> u32 {
        let name = (ruleset.to_owned(), target.to_owned());
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        self.names.push(name.clone());
        // A bundle has at most 1,000 rulesets with 256 targets each.
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.numbers.insert(name, number);
        number
    }

    /// Ruleset and target; `None` when no ruleset governs.
    fn name(&self, number: u32) -> Option<&(String, String)> {
        self.names.get((number as usize).checked_sub(1)?)
    }

    /// All targets with their numbers, those of a ruleset together.
    fn sorted(&self) -> Vec<(u32, &str, &str)> {
        let mut sorted: Vec<_> = (1..)
            .zip(&self.names)
            .map(|(number, (ruleset, target))| (number, &**ruleset, &**target))
            .collect();
        sorted.sort_by_key(|(number, ruleset, _)| (*ruleset, *number));
        sorted
    }
}
