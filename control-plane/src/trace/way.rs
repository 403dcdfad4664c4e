//! The ways that a ruleset has to a decision. Each fixes what the evaluator writes down, and a decision came by it only when all
//! of that is so: what does not fit is an error that says what.
//!
//! Attributes are not known any more, so a condition can only be believed, unless it is a constant, or that of a rule before. Of
//! the unit its hash is known, by which overrides are found, and its bucket.

use halftone_proto::v1::{EvaluationContext, Participation, Reason};
use halftone_rules::{
    Rule, Ruleset, Timestamp,
    bucket::BUCKETS,
    bundle::{Allocation, Arm, Condition, Constant, Enrolment, Experiment, Forced, Override, Slice, Space},
    isa::Op,
    limits::MAX_REPORTED,
    unit_hash,
};

/// How a request came to its target.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// An override token demanded it.
    Demanded,
    /// An override of the ruleset gives it to the unit.
    Named,
    /// An override of the ruleset gives the unit a rule's arm.
    Forced(&'a Rule, &'a Arm),
    /// The unit is kept out of every rule.
    HeldOut,
    /// No rule took it: all of them.
    Default(Vec<Passed<'a>>),
    /// A rule took everybody for whom its condition held.
    Matched(&'a Rule),
    /// A rule took the unit's bucket.
    Split(&'a Rule, Place<'a>),
}

/// A rule that did not take the request.
#[derive(Debug)]
pub(super) struct Passed<'a> {
    pub(super) rule: &'a Rule,
    /// Why: one or more of these. Of several it is not known any more which.
    pub(super) because: Vec<Miss>,
}

/// Why a rule did not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Its schedule.
    NotInForce,
    /// Its condition did not hold.
    Condition,
    /// It splits units, and the request had none.
    NoUnit,
    /// The unit is not among those that it takes: so many buckets at most.
    Share(u32),
}

/// Where a bucket lies in a rule's allocation.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) allocation: &'a Allocation,
    pub(super) slice: &'a Slice,
    /// The arm's place in the slice's division.
    pub(super) at: usize,
    pub(super) bucket: u32,
}

/// Whose request it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// The one with this hash.
    Known(u64),
    /// It had none.
    None,
    /// The record does not say.
    Untold,
}

/// All ways by which the ruleset can have come to this: one, where the record says whose request it was.
///
/// # Errors
/// What of the decision does not follow from the ruleset.
pub(super) fn ways<'a>(decided: &EvaluationContext, ruleset: &'a Ruleset) -> Result<Vec<Way<'a>>, String> {
    let case = Case::new(decided, ruleset);
    let ways = if decided.overridden { case.overridden()? } else { vec![case.not_overridden()?] };
    case.experiments()?;
    Ok(ways)
}

/// A decision and the ruleset that it is said to follow from.
struct Case<'d, 'a> {
    decided: &'d EvaluationContext,
    ruleset: &'a Ruleset,
    unit: Unit,
    /// The overrides that name the unit, or may do so when it is not told.
    overrides: Vec<&'a Override>,
    /// The index of the rule that is named; none when there is no such rule.
    rule: Option<usize>,
}

impl<'d, 'a> Case<'d, 'a> {
    fn new(decided: &'d EvaluationContext, ruleset: &'a Ruleset) -> Self {
        let unit = match decided.unit_hash {
            // The filter writes the time down and the proxy's log does not; nor does that have the unit.
            0 if decided.timestamp_ms == 0 => Unit::Untold,
            0 => Unit::None,
            hash => Unit::Known(hash),
        };
        let names = |other: &&Override| match unit {
            Unit::Known(hash) => unit_hash(&other.unit) == hash,
            Unit::None => false,
            Unit::Untold => true,
        };
        let overrides = ruleset.overrides.iter().filter(names).collect();
        let rule = ruleset.rules.iter().position(|rule| rule.name == decided.rule);
        Self { decided, ruleset, unit, overrides, rule }
    }

    fn not_overridden(&self) -> Result<Way<'a>, String> {
        if self.unit != Unit::Untold && !self.overrides.is_empty() {
            return Err("an override named this unit then".to_owned());
        }
        self.ruled()
    }

    /// A token comes before the overrides of the ruleset. Those of an experiment leave the target to the rules.
    fn overridden(&self) -> Result<Vec<Way<'a>>, String> {
        let routes = |forced: &Forced| !matches!(forced, Forced::Experiment { .. });
        let all = || self.overrides.iter().map(|other| other.forced);
        let (mut routing, has_experiment) = (all().filter(routes), !all().all(|forced| routes(&forced)));
        if self.unit == Unit::Untold {
            // Of units that are given the same it does not matter which one it was.
            let named = routing.find_map(|forced| self.forced(forced).ok());
            let ruled = if has_experiment { self.ruled().ok() } else { None };
            let mut ways: Vec<Way<'a>> = named.into_iter().chain(ruled).collect();
            match self.demanded() {
                Ok(way) => ways.push(way),
                Err(misfit) if ways.is_empty() => return Err(misfit),
                Err(_) => {}
            }
            return Ok(ways);
        }
        let by_the_ruleset = match routing.next() {
            Some(forced) => self.forced(forced),
            None if has_experiment => self.ruled(),
            None => return Ok(vec![self.demanded()?]),
        };
        let way = by_the_ruleset.or_else(|misfit| self.demanded().map_err(|_| misfit))?;
        Ok(vec![way])
    }

    /// By a token.
    fn demanded(&self) -> Result<Way<'a>, String> {
        if !self.decided.rule.is_empty() {
            return Err("no override gave such a unit a rule then".to_owned());
        }
        self.has_no_rule()?;
        self.is_forced()?;
        if !self.ruleset.targets.contains(&self.decided.target) {
            return Err(format!("the ruleset had no target `{}` then", self.decided.target));
        }
        Ok(Way::Demanded)
    }

    /// By an override that names the unit.
    fn forced(&self, forced: Forced) -> Result<Way<'a>, String> {
        let another = || "the override that names the unit gave it something else then".to_owned();
        let way = match forced {
            Forced::Target(target) if self.decided.rule.is_empty() => {
                self.has_no_rule()?;
                self.is_target(target)?;
                Way::Named
            }
            Forced::Rule { rule, arm } => {
                let rule = self.ruleset.rules.get(rule as usize);
                let rule = rule.filter(|rule| rule.name == self.decided.rule).ok_or_else(another)?;
                let arm = rule.arms.get(usize::from(arm));
                let arm = arm.filter(|arm| arm.name == self.decided.arm).ok_or_else(another)?;
                self.is_of(rule)?;
                self.is_target(arm.target)?;
                if self.decided.bucket.is_some() {
                    return Err("an override asks for no bucket".to_owned());
                }
                Way::Forced(rule, arm)
            }
            _ => return Err(another()),
        };
        self.is_forced()?;
        Ok(way)
    }

    /// By the rules.
    fn ruled(&self) -> Result<Way<'a>, String> {
        if self.decided.held_out {
            return self.held_out();
        }
        if self.has_unit() && self.ruleset.holdout >= BUCKETS {
            return Err("the ruleset held every unit out then".to_owned());
        }
        if self.decided.rule.is_empty() { self.default() } else { self.taken() }
    }

    fn held_out(&self) -> Result<Way<'a>, String> {
        if self.ruleset.holdout == 0 {
            return Err("the ruleset held nobody out then".to_owned());
        }
        if self.unit == Unit::None {
            return Err("only units are held out, and the request had none".to_owned());
        }
        self.has_no_rule()?;
        self.is_target(self.ruleset.default)?;
        self.is_reason(Reason::Default)?;
        Ok(Way::HeldOut)
    }

    fn default(&self) -> Result<Way<'a>, String> {
        self.has_no_rule()?;
        self.is_target(self.ruleset.default)?;
        self.is_reason(Reason::Default)?;
        self.is_reached()?;
        Ok(Way::Default(self.ruleset.rules.iter().map(|rule| self.passed(rule)).collect()))
    }

    /// Why a rule did not take the request: what is certain, or else all that may be.
    fn passed(&self, rule: &'a Rule) -> Passed<'a> {
        let Rule { enrolment, guard, .. } = rule;
        let in_force = self.in_force(enrolment);
        let condition = guard.is_none().then(|| self.outcome(enrolment)).flatten();
        let splits = enrolment.allocation.is_some();
        let certain = [
            (in_force == Some(false), Miss::NotInForce),
            (condition == Some(false), Miss::Condition),
            (splits && self.unit == Unit::None, Miss::NoUnit),
        ];
        let certain = certain.into_iter().find(|(is_certain, _)| *is_certain).map(|(_, miss)| vec![miss]);
        let because = certain.unwrap_or_else(|| {
            let share =
                enrolment.allocation.as_ref().map(|of| self.share(of)).filter(|share| *share < BUCKETS);
            let may = [
                in_force.is_none().then_some(Miss::NotInForce),
                condition.is_none().then_some(Miss::Condition),
                (splits && self.unit == Unit::Untold).then_some(Miss::NoUnit),
                share.map(Miss::Share),
            ];
            may.into_iter().flatten().collect()
        });
        Passed { rule, because }
    }

    /// How many buckets a rule takes at most.
    fn share(&self, Allocation { space, slices }: &Allocation) -> u32 {
        let taken: u32 = slices.iter().map(|slice| slice.end - slice.start).sum();
        taken.min(BUCKETS - self.holdout(space).min(BUCKETS))
    }

    fn taken(&self) -> Result<Way<'a>, String> {
        let decided = self.decided;
        let rule = self.rule().ok_or_else(|| format!("the ruleset had no rule `{}` then", decided.rule))?;
        let name = &rule.name;
        self.is_of(rule)?;
        self.is_open(name, &rule.enrolment)?;
        let named = |index: u16| rule.arms.get(usize::from(index)).filter(|arm| arm.name == decided.arm);
        let no_arm = || format!("`{name}` had no arm `{}` for this bucket then", decided.arm);
        let (way, arm, reason) = match (&rule.enrolment.allocation, decided.bucket) {
            (None, None) => {
                let conditional = rule.enrolment.condition.is_some() || rule.guard.is_some();
                let reason = if conditional { Reason::TargetingMatch } else { Reason::Static };
                (Way::Matched(rule), named(0).ok_or_else(no_arm)?, reason)
            }
            (Some(allocation), Some(bucket)) => {
                let slice = allocation.slices.iter().find(|slice| has(slice, bucket));
                let slice = slice.ok_or_else(|| format!("`{name}` did not take the bucket {bucket} then"))?;
                let mut arms = parts(slice).enumerate();
                let (at, arm) = arms.find_map(|(at, arm)| Some((at, named(arm?)?))).ok_or_else(no_arm)?;
                if self.unit == Unit::None {
                    return Err(format!("`{name}` split units then, and the request had none"));
                }
                (Way::Split(rule, Place { allocation, slice, at, bucket }), arm, Reason::Split)
            }
            (None, Some(_)) => return Err(format!("`{name}` asked for no bucket then")),
            (Some(_), None) => return Err(format!("`{name}` split by buckets then")),
        };
        self.is_target(arm.target)?;
        self.is_reason(reason)?;
        self.is_reached()?;
        Ok(way)
    }

    /// Whether the request came to the rule that took it, or to the end: none of those before took it for certain.
    fn is_reached(&self) -> Result<(), String> {
        let test = |rule: &Rule| (rule.guard, self.code(&rule.enrolment));
        let held = self.rule().map(test);
        let holds = |other: &Rule| {
            other.guard.is_none() && self.outcome(&other.enrolment) == Some(true) || Some(test(other)) == held
        };
        let mut before = self.ruleset.rules.iter().take(self.rule.unwrap_or(usize::MAX));
        match before.find(|other| holds(other) && self.takes(&other.enrolment)) {
            Some(other) => Err(format!("`{}` took every such request then", other.name)),
            None => Ok(()),
        }
    }

    /// Whether a rule or an experiment takes the unit for certain, when its condition holds.
    fn takes(&self, enrolment: &Enrolment) -> bool {
        if self.in_force(enrolment) != Some(true) {
            return false;
        }
        let Some(Allocation { space, slices }) = &enrolment.allocation else { return true };
        match self.bucket_in(space) {
            Some(bucket) => slices.iter().any(|slice| has(slice, bucket)),
            None => self.has_unit() && self.holdout(space) == 0 && has_all(slices),
        }
    }

    /// Whether the experiments are those that the unit took part in.
    fn experiments(&self) -> Result<(), String> {
        let told = &self.decided.experiments;
        // The backend's log does not have them, and no more than so many are reported.
        let complete = self.decided.timestamp_ms > 0 && told.len() < MAX_REPORTED;
        let mut told = told.iter().peekable();
        for (index, experiment) in self.ruleset.experiments.iter().enumerate() {
            match told.next_if(|part| part.experiment == experiment.name) {
                Some(part) => self.takes_part(index, experiment, part)?,
                None if complete && self.has_to_take_part(index, experiment) => {
                    return Err(format!(
                        "such a request took part in the experiment `{}` then",
                        experiment.name
                    ));
                }
                None => {}
            }
        }
        match told.next() {
            Some(part) => Err(format!("the ruleset had no experiment `{}` there then", part.experiment)),
            None => Ok(()),
        }
    }

    fn takes_part(&self, index: usize, of: &Experiment, part: &Participation) -> Result<(), String> {
        let name = &of.name;
        let no_arm = || format!("the experiment `{name}` had no arm `{}` for such a request then", part.arm);
        let arm = of.arms.iter().position(|arm| *arm == part.arm).ok_or_else(no_arm)?;
        let mut forced = self.forced_arms(index);
        if self.decided.overridden && forced.any(|forced| forced == arm) {
            return Ok(());
        }
        if self.unit != Unit::Untold && self.forced_arms(index).next().is_some() {
            return Err(format!("an override gave the unit another arm of the experiment `{name}` then"));
        }
        if self.decided.held_out {
            return Err(format!("who is held out takes no part in the experiment `{name}`"));
        }
        self.is_open(name, &of.enrolment)?;
        let Some(allocation) = &of.enrolment.allocation else {
            return if arm == 0 { Ok(()) } else { Err(no_arm()) };
        };
        if self.unit == Unit::None {
            return Err(format!("the experiment `{name}` split units then, and the request had none"));
        }
        let bucket = self.bucket_in(&allocation.space);
        let slices = allocation.slices.iter().filter(|slice| bucket.is_none_or(|bucket| has(slice, bucket)));
        let mut arms = slices.flat_map(parts).flatten();
        if arms.any(|other| usize::from(other) == arm) { Ok(()) } else { Err(no_arm()) }
    }

    /// Whether a request that is known to the last field took part in an experiment for certain.
    fn has_to_take_part(&self, index: usize, of: &Experiment) -> bool {
        // Whoever is overridden may be held out besides.
        let held_out = self.decided.held_out || self.decided.overridden && self.ruleset.holdout > 0;
        self.forced_arms(index).next().is_some()
            || !held_out && self.outcome(&of.enrolment) == Some(true) && self.takes(&of.enrolment)
    }

    /// The arms of an experiment that overrides give the unit.
    fn forced_arms(&self, index: usize) -> impl Iterator<Item = usize> {
        self.overrides.iter().filter_map(move |other| match other.forced {
            Forced::Experiment { experiment, arm } if usize::from(experiment) == index => Some(arm.into()),
            _ => None,
        })
    }

    /// The rule that is named.
    fn rule(&self) -> Option<&'a Rule> {
        self.ruleset.rules.get(self.rule?)
    }

    /// The unit's bucket in a space, when the rule that took it splits the same one. A rule's own is nobody else's.
    fn bucket_in(&self, space: &Space) -> Option<u32> {
        let split = &self.rule()?.enrolment.allocation.as_ref()?.space;
        self.decided.bucket.filter(|_| *space != Space::Own && space == split)
    }

    fn has_unit(&self) -> bool {
        matches!(self.unit, Unit::Known(_)) || self.decided.bucket.is_some()
    }

    /// The share of a space that takes nothing in it.
    fn holdout(&self, space: &Space) -> u32 {
        let Space::Layer(layer) = space else { return 0 };
        self.ruleset.layers.get(usize::from(*layer)).map_or(0, |layer| layer.holdout)
    }

    /// What a condition is for every request; `None` when that depends on the request.
    fn outcome(&self, enrolment: &Enrolment) -> Option<bool> {
        match self.code(enrolment) {
            [] => Some(true),
            [Op::Constant(id)] => match self.ruleset.constants.get(id.0 as usize)? {
                Constant::Bool(value) => Some(*value),
                _ => None,
            },
            [Op::Fail(..)] => Some(false),
            _ => None,
        }
    }

    /// A condition's operations; none when there is no condition.
    fn code(&self, enrolment: &Enrolment) -> &'a [Op] {
        let of = |Condition { start, length }: Condition| {
            let rest = self.ruleset.code.get(start as usize..).unwrap_or_default();
            rest.get(..length as usize).unwrap_or(rest)
        };
        match enrolment.condition.map(of).unwrap_or_default() {
            [Op::Predicate(id)] => {
                self.ruleset.predicates.get(usize::from(id.0)).copied().map(of).unwrap_or_default()
            }
            code => code,
        }
    }

    /// Whether it was in force; `None` when that is not known.
    fn in_force(&self, enrolment: &Enrolment) -> Option<bool> {
        let Some(schedule) = enrolment.schedule else { return Some(true) };
        let at_ms = Some(self.decided.timestamp_ms).filter(|at| *at > 0)?;
        let first = Timestamp::from_millis(i64::try_from(at_ms).ok()?);
        // The proxy's clock is finer than what it writes down.
        let last = Timestamp(first.0.saturating_add(999_999));
        let (first, last) = (schedule.holds(first), schedule.holds(last));
        (first == last).then_some(first)
    }

    /// Whether a rule or an experiment can take anything then.
    fn is_open(&self, name: &str, enrolment: &Enrolment) -> Result<(), String> {
        if self.in_force(enrolment) == Some(false) {
            return Err(format!("`{name}` was not in force at that time"));
        }
        if self.outcome(enrolment) == Some(false) {
            return Err(format!("the condition of `{name}` never held"));
        }
        let holdout = enrolment.allocation.as_ref().map_or(0, |of| self.holdout(&of.space));
        if holdout >= BUCKETS {
            return Err(format!("every unit was held out of the layer of `{name}` then"));
        }
        Ok(())
    }

    fn is_of(&self, rule: &Rule) -> Result<(), String> {
        if rule.epoch == self.decided.epoch {
            return Ok(());
        }
        Err(format!("the rule `{}` was in epoch {} then", rule.name, rule.epoch))
    }

    /// What a rule leaves behind is not there without one.
    fn has_no_rule(&self) -> Result<(), String> {
        let EvaluationContext { rule, arm, bucket, epoch, .. } = self.decided;
        let left = [
            ("rule", !rule.is_empty()),
            ("arm", !arm.is_empty()),
            ("bucket", bucket.is_some()),
            ("epoch", *epoch > 0),
        ];
        match left.into_iter().find(|(_, is_there)| *is_there) {
            Some((what, _)) => Err(format!("a request that no rule took has no {what}")),
            None => Ok(()),
        }
    }

    /// Who forces a rule or a target asks neither the holdout nor conditions.
    fn is_forced(&self) -> Result<(), String> {
        if self.decided.held_out {
            return Err("an override comes before the holdout".to_owned());
        }
        self.is_reason(Reason::TargetingMatch)
    }

    fn is_target(&self, target: u16) -> Result<(), String> {
        let target = self.ruleset.targets.get(usize::from(target)).map_or("?", String::as_str);
        if self.decided.target == target {
            return Ok(());
        }
        Err(format!("the ruleset sent such a request to the target `{target}` then"))
    }

    fn is_reason(&self, reason: Reason) -> Result<(), String> {
        if self.decided.reason == i32::from(reason) {
            return Ok(());
        }
        Err(format!("the reason of such a decision is {}", reason.as_str_name()))
    }
}

fn has(slice: &Slice, bucket: u32) -> bool {
    (slice.start..slice.end).contains(&bucket)
}

/// Whether slices, which are in ascending order, leave no bucket out.
fn has_all(slices: &[Slice]) -> bool {
    let end = slices.iter().try_fold(0, |end, slice| (slice.start == end).then_some(slice.end));
    end == Some(BUCKETS)
}

/// The arms of a slice; `None` for those that get nothing.
fn parts(slice: &Slice) -> impl Iterator<Item = Option<u16>> {
    let starts = std::iter::once(0).chain(slice.division.iter().map(|share| share.end));
    starts.zip(&slice.division).map(|(start, share)| (start < share.end).then_some(share.arm))
}
