//! From a request to the target that serves it.

use crate::{
    bucket::{BUCKETS, bucket},
    bundle::{Rule, Ruleset},
    eval::Evaluation,
    hash::unit_hash,
    matching::governing,
    request::Request,
    value::EvalError,
    verify::VerifiedBundle,
};

/// Why a target was chosen; `OpenFeature`'s reasons. The numbers are those of `halftone.v1.Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The rule takes every request, without a condition.
    Static = 1,
    /// The rule's condition held.
    TargetingMatch = 2,
    /// The rule takes a share of the units, and this unit is in it.
    Split = 3,
    /// No rule took the request.
    Default = 4,
}

/// What was decided for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Name of the ruleset that governs the request.
    pub ruleset: &'a str,
    /// Revision of the bundle.
    pub revision: u64,
    /// Name of the rule that took the request.
    pub rule: Option<&'a str>,
    /// Name of the target.
    pub target: &'a str,
    /// [`unit_hash`] of the unit, when the request has one.
    pub unit_hash: Option<u64>,
    /// The unit's bucket under the rule that took the request, when the rule splits.
    pub bucket: Option<u32>,
    /// Why.
    pub reason: Reason,
}

/// How a rule came out for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rule takes the request.
    Taken,
    /// The condition does not hold.
    NoMatch,
    /// The condition holds, but the unit is not in the rule's share.
    NotInShare {
        /// The unit's bucket under the rule's seed.
        bucket: u32,
    },
    /// The condition holds, but the request has no unit to split by.
    NoUnit,
    /// The condition has no value: the rule does not match.
    Error(EvalError),
}

/// Learns how each rule came out, in order, up to the one that takes the request. For counters and
/// explanations; `()` ignores it all.
pub trait Observer {
    /// Called once for each rule that was tried. `index` is the rule's place in its ruleset.
    fn rule(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome);
}

impl Observer for () {
    fn rule(&mut self, _: &Ruleset, _: usize, _: Outcome) {}
}

impl VerifiedBundle {
    /// Decides for one request; `None` when no ruleset governs it.
    #[must_use]
    pub fn decide(&self, request: &impl Request, observer: &mut impl Observer) -> Option<Decision<'_>> {
        let ruleset = governing(&self.bundle().rulesets, request)?;
        let mut evaluation = Evaluation::new(ruleset, request);
        let mut chosen = None;
        for (index, rule) in ruleset.rules.iter().enumerate() {
            let (outcome, bucket) = attempt(rule, &mut evaluation);
            observer.rule(ruleset, index, outcome);
            if outcome == Outcome::Taken {
                chosen = Some((rule, bucket));
                break;
            }
        }
        let (target, reason) = match chosen {
            None => (ruleset.default, Reason::Default),
            Some((rule, Some(_))) => (rule.target, Reason::Split),
            Some((rule, None)) if rule.condition.is_some() => (rule.target, Reason::TargetingMatch),
            Some((rule, None)) => (rule.target, Reason::Static),
        };
        Some(Decision {
            ruleset: &ruleset.name,
            revision: self.bundle().revision,
            rule: chosen.map(|(rule, _)| rule.name.as_str()),
            target: ruleset.targets.get(usize::from(target))?,
            unit_hash: evaluation.unit().map(unit_hash),
            bucket: chosen.and_then(|(_, bucket)| bucket),
            reason,
        })
    }
}

/// Tries one rule. The bucket comes with it when the rule splits.
fn attempt<R: Request>(rule: &Rule, evaluation: &mut Evaluation<'_, R>) -> (Outcome, Option<u32>) {
    match rule.condition.map_or(Ok(true), |condition| evaluation.holds(condition)) {
        Err(error) => return (Outcome::Error(error), None),
        Ok(false) => return (Outcome::NoMatch, None),
        Ok(true) => {}
    }
    if rule.share == BUCKETS {
        return (Outcome::Taken, None);
    }
    let Some(unit) = evaluation.unit() else {
        return (Outcome::NoUnit, None);
    };
    let bucket = bucket(rule.seed.as_bytes(), unit);
    if bucket < rule.share { (Outcome::Taken, Some(bucket)) } else { (Outcome::NotInShare { bucket }, None) }
}
