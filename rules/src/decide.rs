//! From a request to the target that serves it.

use crate::{
    anonymous::UnitCookie,
    bundle::{Allocation, Arm, Enrolment, Experiment, Forced, Override, Rule, Ruleset},
    eval::Evaluation,
    hash::unit_hash,
    isa::AttributeId,
    limits::MAX_REPORTED,
    matching::governing,
    plan::{Entry, Plan},
    request::Request,
    time::Timestamp,
    value::EvalError,
    verify::VerifiedBundle,
};
use arrayvec::ArrayVec;

/// Why a target was chosen; `OpenFeature`'s reasons. The numbers are those of `halftone.v1.Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The rule takes every request, without a condition.
    Static = 1,
    /// The rule's condition held, an override named the unit, or a token demanded the target.
    TargetingMatch = 2,
    /// The rule takes a share of the units, and this unit is in it.
    Split = 3,
    /// No rule took the request.
    Default = 4,
}

impl Reason {
    /// The reason as `OpenFeature` writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Default => "DEFAULT",
        }
    }
}

/// What was decided for a request.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// Name of the ruleset that governs the request.
    pub ruleset: &'a str,
    /// Revision of the bundle.
    pub revision: u64,
    /// Name of the rule that took the request.
    pub rule: Option<&'a str>,
    /// Name of the rule's arm, when it has several.
    pub arm: Option<&'a str>,
    /// The epoch of the release that the rule is; 0 when it is none.
    pub epoch: u64,
    /// Name of the target.
    pub target: &'a str,
    /// [`unit_hash`] of the unit, when the request has one.
    pub unit_hash: Option<u64>,
    /// The unit's bucket under the rule that took the request, when the rule splits.
    pub bucket: Option<u32>,
    /// Why.
    pub reason: Reason,
    /// Whether an override named the unit, or a token demanded the target: nothing about it is to be analysed.
    pub overridden: bool,
    /// Whether the unit is kept out of everything.
    pub held_out: bool,
    /// Where the client is to keep the [unit](Request::fresh_unit) that it was given for this request.
    pub new_unit: Option<&'a UnitCookie>,
    /// The experiments that the unit takes part in, and their arms, by their indices.
    participations: ArrayVec<(u16, u16), MAX_REPORTED>,
    /// What the indices stand for.
    of_ruleset: &'a [Experiment],
}

impl<'a> Decision<'a> {
    /// The experiments that the unit takes part in.
    pub fn experiments(&self) -> impl Iterator<Item = Participation<'a>> {
        self.participations.iter().filter_map(|(experiment, arm)| {
            let experiment = self.of_ruleset.get(usize::from(*experiment))?;
            let arm = experiment.arms.get(usize::from(*arm))?;
            Some(Participation { experiment: &experiment.name, arm })
        })
    }
}

/// Two decisions are equal when they say the same, wherever they come from.
impl PartialEq for Decision<'_> {
    fn eq(&self, other: &Self) -> bool {
        let told = |decision: &Self| {
            (
                decision.ruleset,
                decision.revision,
                decision.rule,
                (decision.arm, decision.epoch),
                decision.target,
                decision.unit_hash,
                decision.bucket,
                decision.reason,
                (decision.overridden, decision.held_out),
            )
        };
        told(self) == told(other) && self.experiments().eq(other.experiments())
    }
}

/// A part in an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participation<'a> {
    /// Name of the experiment.
    pub experiment: &'a str,
    /// Name of the arm.
    pub arm: &'a str,
}

/// How a rule or an experiment came out for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the request.
    Taken {
        /// Index of the arm.
        arm: u16,
        /// The unit's bucket, when it splits.
        bucket: Option<u32>,
    },
    /// It is not in force at this time.
    NotScheduled,
    /// The condition does not hold.
    NoMatch,
    /// The condition holds, but the unit's bucket is in none of its slices.
    NotInShare {
        /// The unit's bucket.
        bucket: u32,
    },
    /// The condition holds, but the request has no unit to split by.
    NoUnit,
    /// The condition holds, but the unit is kept out of the layer.
    HeldOut,
    /// The condition has no value: it does not match.
    Error(EvalError),
}

/// Learns how rules and experiments came out. For counters and explanations; `()` ignores it all.
pub trait Observer {
    /// Called once for each rule that was tried, in order. `index` is the rule's place in its ruleset.
    fn rule(&mut self, _ruleset: &Ruleset, _index: usize, _outcome: Outcome) {}

    /// Called once for each experiment.
    fn experiment(&mut self, _ruleset: &Ruleset, _index: usize, _outcome: Outcome) {}

    /// An attribute that rules are looked up by has no value; those rules were not tried.
    fn unknown(&mut self, _ruleset: &Ruleset, _attribute: AttributeId, _error: EvalError) {}
}

impl Observer for () {}

impl VerifiedBundle {
    /// The ruleset that governs a request.
    #[must_use]
    pub fn governing(&self, request: &impl Request) -> Option<&Ruleset> {
        let rulesets = &self.bundle().rulesets;
        rulesets.get(governing(rulesets, request)?)
    }

    /// Decides for one request at a time; `None` when no ruleset governs it.
    ///
    /// Rules that an index excludes are not tried, and the observer does not see them.
    #[must_use]
    pub fn decide(
        &self,
        request: &impl Request,
        now: Timestamp,
        observer: &mut impl Observer,
    ) -> Option<Decision<'_>> {
        self.search(request, now, observer, true)
    }

    /// As [`decide`](Self::decide), with every rule tried in order up to the one that takes the request: what
    /// the index has to agree with, and what explanations show.
    #[must_use]
    pub fn decide_by_each_rule(
        &self,
        request: &impl Request,
        now: Timestamp,
        observer: &mut impl Observer,
    ) -> Option<Decision<'_>> {
        self.search(request, now, observer, false)
    }

    fn search(
        &self,
        request: &impl Request,
        now: Timestamp,
        observer: &mut impl Observer,
        indexed: bool,
    ) -> Option<Decision<'_>> {
        let at = governing(&self.bundle().rulesets, request)?;
        let (ruleset, plan) = (self.bundle().rulesets.get(at)?, self.plans().get(at)?);
        let mut evaluation = Evaluation::new(ruleset, plan, request, now);
        evaluation.prepare();
        let mut decider = Decider { ruleset, plan, evaluation: &mut evaluation, observer };
        let unit = decider.evaluation.unit();
        let overrides = unit.map_or(&[][..], |unit| overrides(ruleset, unit));
        let held_out =
            plan.holdout.zip(unit).is_some_and(|(space, unit)| space.bucket(unit) < ruleset.holdout);

        let mut decision = Decision {
            ruleset: &ruleset.name,
            revision: self.bundle().revision,
            rule: None,
            arm: None,
            epoch: 0,
            target: ruleset.targets.get(usize::from(ruleset.default))?,
            unit_hash: unit.map(unit_hash),
            bucket: None,
            reason: Reason::Default,
            overridden: false,
            held_out: false,
            new_unit: ruleset.unit_cookie.as_ref().filter(|_| decider.evaluation.has_fresh_unit()),
            participations: ArrayVec::new(),
            of_ruleset: &ruleset.experiments,
        };
        if !demand(ruleset, request, &mut decision) && !decider.force(overrides, &mut decision)? {
            decision.held_out = held_out;
            if !held_out {
                decider.route(indexed, &mut decision)?;
            }
        }
        decider.experiments(overrides, held_out, &mut decision);
        Some(decision)
    }
}

/// Gives the request the target that a token demands; the answer is whether one does. A target that is not there any
/// more demands nothing.
fn demand<'b>(ruleset: &'b Ruleset, request: &impl Request, decision: &mut Decision<'b>) -> bool {
    let Some(demanded) = request.demanded_target(&ruleset.name) else { return false };
    let Some(target) = ruleset.targets.iter().find(|target| *target == demanded) else { return false };
    decision.target = target;
    decision.reason = Reason::TargetingMatch;
    decision.overridden = true;
    true
}

/// The overrides of a unit.
fn overrides<'a>(ruleset: &'a Ruleset, unit: &[u8]) -> &'a [Override] {
    let start = ruleset.overrides.partition_point(|other| other.unit.as_slice() < unit);
    let rest = ruleset.overrides.get(start..).unwrap_or_default();
    let end = rest.partition_point(|other| other.unit.as_slice() == unit);
    rest.get(..end).unwrap_or_default()
}

/// `'b` is the bundle's life, `'r` the request's, `'o` that of the decision's making.
struct Decider<'b, 'r, 'o, R, O> {
    ruleset: &'b Ruleset,
    plan: &'b Plan,
    evaluation: &'o mut Evaluation<'r, R>,
    observer: &'o mut O,
}

impl<'b, R: Request, O: Observer> Decider<'b, '_, '_, R, O> {
    /// Applies the unit's overrides; the answer is whether one of them routes.
    fn force(&mut self, overrides: &[Override], decision: &mut Decision<'b>) -> Option<bool> {
        for Override { forced, .. } in overrides {
            decision.overridden = true;
            match *forced {
                Forced::Target(target) => {
                    decision.target = self.ruleset.targets.get(usize::from(target))?;
                }
                Forced::Rule { rule, arm } => {
                    let rule = self.ruleset.rules.get(rule as usize)?;
                    self.take(rule, rule.arms.get(usize::from(arm))?, decision)?;
                }
                Forced::Experiment { .. } => continue,
            }
            decision.reason = Reason::TargetingMatch;
            return Some(true);
        }
        Some(false)
    }

    /// Finds the first rule that takes the request.
    fn route(&mut self, indexed: bool, decision: &mut Decision<'b>) -> Option<()> {
        let rules = &self.plan.rules;
        if indexed && !self.plan.index.is_empty() {
            let (evaluation, observer, ruleset) = (&mut *self.evaluation, &mut *self.observer, self.ruleset);
            let candidates = self.plan.index.candidates(
                ruleset,
                |id| evaluation.attribute(id),
                |id, error| observer.unknown(ruleset, id, error),
            );
            for (index, guarded) in candidates {
                let index = index as usize;
                if self.try_rule(index, rules.get(index)?, guarded, decision)? {
                    break;
                }
            }
        } else {
            for (index, entry) in rules.iter().enumerate() {
                if self.try_rule(index, entry, false, decision)? {
                    break;
                }
            }
        }
        Some(())
    }

    /// Tries a rule; `guarded` when its guard is known to hold.
    #[inline(always)]
    fn try_rule(
        &mut self,
        index: usize,
        entry: &Entry,
        guarded: bool,
        decision: &mut Decision<'b>,
    ) -> Option<bool> {
        if !in_force(entry, self.evaluation) {
            self.observer.rule(self.ruleset, index, Outcome::NotScheduled);
            return Some(false);
        }
        let guard = match entry.guard {
            Some(guard) if !guarded => self.evaluation.guards(guard),
            _ => Ok(true),
        };
        let mut holds = guard;
        if guard != Ok(false) {
            holds = self.evaluation.holds(entry.condition);
            // A guard is an operand of `&&`: false absorbs its error.
            if guard.is_err() && holds != Ok(false) {
                holds = guard;
            }
        }
        match holds {
            Ok(true) => self.enter_rule(index, entry, decision),
            Ok(false) => {
                self.observer.rule(self.ruleset, index, Outcome::NoMatch);
                Some(false)
            }
            Err(error) => {
                self.observer.rule(self.ruleset, index, Outcome::Error(error));
                Some(false)
            }
        }
    }

    /// Goes on with a rule whose condition holds.
    #[inline(never)]
    fn enter_rule(&mut self, index: usize, entry: &Entry, decision: &mut Decision<'b>) -> Option<bool> {
        let rule = self.ruleset.rules.get(index)?;
        let outcome = split(&rule.enrolment, entry, self.evaluation);
        self.observer.rule(self.ruleset, index, outcome);
        let Outcome::Taken { arm, bucket } = outcome else { return Some(false) };
        self.take(rule, rule.arms.get(usize::from(arm))?, decision)?;
        decision.bucket = bucket;
        decision.reason = match bucket {
            Some(_) => Reason::Split,
            None if rule.enrolment.condition.is_some() || rule.guard.is_some() => Reason::TargetingMatch,
            None => Reason::Static,
        };
        Some(true)
    }

    fn take(&self, rule: &'b Rule, arm: &'b Arm, decision: &mut Decision<'b>) -> Option<()> {
        decision.rule = Some(&rule.name);
        decision.arm = Some(arm.name.as_str()).filter(|name| !name.is_empty());
        decision.epoch = rule.epoch;
        decision.target = self.ruleset.targets.get(usize::from(arm.target))?;
        Some(())
    }

    /// Reports the experiments that the unit takes part in.
    fn experiments(&mut self, overrides: &[Override], held_out: bool, decision: &mut Decision<'b>) {
        for (index, (experiment, entry)) in
            self.ruleset.experiments.iter().zip(&self.plan.experiments).enumerate()
        {
            let forced = overrides.iter().find_map(|other| match other.forced {
                Forced::Experiment { experiment, arm } if usize::from(experiment) == index => Some(arm),
                _ => None,
            });
            let outcome = match forced {
                Some(arm) => Outcome::Taken { arm, bucket: None },
                None if held_out => Outcome::HeldOut,
                None => enrol(&experiment.enrolment, entry, self.evaluation),
            };
            self.observer.experiment(self.ruleset, index, outcome);
            if let Outcome::Taken { arm, .. } = outcome
                && let Ok(index) = u16::try_from(index)
                && decision.participations.try_push((index, arm)).is_err()
            {
                // More than fit into the context are not reported, in the order of the ruleset.
                break;
            }
        }
    }
}

/// Whether an experiment takes the request, and with which arm.
fn enrol<R: Request>(enrolment: &Enrolment, entry: &Entry, evaluation: &mut Evaluation<'_, R>) -> Outcome {
    if !in_force(entry, evaluation) {
        return Outcome::NotScheduled;
    }
    match evaluation.holds(entry.condition) {
        Err(error) => Outcome::Error(error),
        Ok(false) => Outcome::NoMatch,
        Ok(true) => split(enrolment, entry, evaluation),
    }
}

#[inline]
fn in_force<R: Request>(entry: &Entry, evaluation: &Evaluation<'_, R>) -> bool {
    entry.schedule.is_none_or(|schedule| schedule.holds(evaluation.now()))
}

/// Which arm a request gets for which everything else holds.
fn split<R: Request>(enrolment: &Enrolment, entry: &Entry, evaluation: &mut Evaluation<'_, R>) -> Outcome {
    let Some((allocation, space)) = enrolment.allocation.as_ref().zip(entry.space.as_ref()) else {
        return Outcome::Taken { arm: 0, bucket: None };
    };
    let Some(unit) = evaluation.unit() else {
        return Outcome::NoUnit;
    };
    if space.holdout.is_some_and(|(holdout, share)| holdout.bucket(unit) < share) {
        return Outcome::HeldOut;
    }
    let bucket = space.buckets.bucket(unit);
    match arm(allocation, bucket, || space.division.bucket(unit)) {
        Some(arm) => Outcome::Taken { arm, bucket: Some(bucket) },
        None => Outcome::NotInShare { bucket },
    }
}

/// The arm that an allocation has for a bucket.
fn arm(allocation: &Allocation, bucket: u32, division: impl FnOnce() -> u32) -> Option<u16> {
    let slice = allocation.slices.iter().find(|slice| slice.start <= bucket && bucket < slice.end)?;
    match slice.division.as_slice() {
        [only] => Some(only.arm),
        shares => {
            let part = division();
            shares.iter().find(|share| part < share.end).map(|share| share.arm)
        }
    }
}
