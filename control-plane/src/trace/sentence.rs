//! Why a ruleset gave a request its target, in a sentence: from what was decided and from the ruleset as it was then.
//!
//! The sentence is made of the ruleset alone, and only when the decision follows from it: what does not fit is an error that
//! says so. Attributes are not known any more, so of a condition it can only be said that it held.

use halftone_proto::v1::{EvaluationContext, Reason};
use halftone_rules::{
    Rule, Ruleset,
    bucket::BUCKETS,
    bundle::{Allocation, Arm, Forced, Slice, Space},
    unit_hash,
};

/// The buckets that a decision fell into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The first of them.
    pub(super) start: u32,
    /// The first behind them.
    pub(super) end: u32,
}

/// Why, and the buckets that the unit's is among, when the rule splits.
///
/// # Errors
/// What of the decision does not follow from the ruleset.
pub(super) fn sentence(
    decided: &EvaluationContext,
    ruleset: &Ruleset,
) -> Result<(String, Option<Slot>), String> {
    let name = |target: u16| ruleset.targets.get(usize::from(target)).map_or("?", String::as_str);
    let default = name(ruleset.default);
    if decided.held_out && decided.rule.is_empty() {
        if ruleset.holdout == 0 {
            return Err("the ruleset held nobody out then".to_owned());
        }
        is_target(decided, default)?;
        let share = percent(ruleset.holdout);
        return Ok((
            format!(
                "the unit is among the {share} % that are held out of every rule, and goes to the default target `{default}`"
            ),
            None,
        ));
    }
    // Who forces a rule or a target asks neither conditions nor buckets.
    let is_forced =
        decided.overridden && decided.reason() == Reason::TargetingMatch && decided.bucket.is_none();
    let forced = forced(decided, ruleset).filter(|_| is_forced);
    if decided.rule.is_empty() {
        if let Some(Forced::Target(target)) = forced {
            is_target(decided, name(target))?;
            let target = name(target);
            return Ok((format!("an override names the unit and gives it the target `{target}`"), None));
        }
        if is_forced {
            if !ruleset.targets.contains(&decided.target) {
                return Err(format!("the ruleset had no target `{}` then", decided.target));
            }
            let target = &decided.target;
            return Ok((format!("an override token of the request demanded the target `{target}`"), None));
        }
        is_target(decided, default)?;
        let rules = match ruleset.rules.as_slice() {
            [] => "there are no rules".to_owned(),
            [only] => format!("the {} `{}` did not take it", kind(only), only.name),
            all => format!("none of the {} rules took it", all.len()),
        };
        return Ok((format!("{rules}, so it goes to the default target `{default}`"), None));
    }
    let rule = ruleset.rules.iter().find(|rule| rule.name == decided.rule);
    let rule = rule.ok_or_else(|| format!("the ruleset had no rule `{}` then", decided.rule))?;
    if rule.epoch != decided.epoch {
        return Err(format!("the rule `{}` was in epoch {} then", rule.name, rule.epoch));
    }
    let what = kind(rule);
    if let Some(Forced::Rule { rule: index, arm }) = forced {
        let named = ruleset.rules.get(index as usize).filter(|named| named.name == rule.name);
        let arm = named.and_then(|rule| rule.arms.get(usize::from(arm)));
        let arm = arm
            .filter(|arm| arm.name == decided.arm)
            .ok_or("the override that names the unit gives it another rule")?;
        is_target(decided, name(arm.target))?;
        return Ok((
            format!("an override names the unit and gives it the {what} `{}`{}", rule.name, of_arm(arm)),
            None,
        ));
    }
    let (why, arm, slot) = enrolled(decided, ruleset, rule)?;
    is_target(decided, name(arm.target))?;
    Ok((format!("{what} `{}`: {why}", rule.name), slot))
}

/// Why a rule took the unit, the arm that it gave it, and the buckets of that.
fn enrolled<'a>(
    decided: &EvaluationContext,
    ruleset: &Ruleset,
    rule: &'a Rule,
) -> Result<(String, &'a Arm, Option<Slot>), String> {
    let conditional = rule.enrolment.condition.is_some() || rule.guard.is_some();
    let holds = if conditional { "its condition held" } else { "it has no condition" };
    let named = |index: u16| rule.arms.get(usize::from(index)).filter(|arm| arm.name == decided.arm);
    let no_arm = || format!("`{}` had no arm `{}` for this bucket then", rule.name, decided.arm);
    let (allocation, bucket) = match (&rule.enrolment.allocation, decided.bucket) {
        (None, None) => {
            let arm = named(0).ok_or_else(no_arm)?;
            return Ok((format!("{holds}, and it takes every such request"), arm, None));
        }
        (Some(allocation), Some(bucket)) => (allocation, bucket),
        (None, Some(_)) => return Err(format!("`{}` asked for no bucket then", rule.name)),
        (Some(_), None) => return Err(format!("`{}` split by buckets then", rule.name)),
    };
    let slice = allocation.slices.iter().find(|slice| (slice.start..slice.end).contains(&bucket));
    let slice = slice.ok_or_else(|| format!("`{}` did not take the bucket {bucket} then", rule.name))?;
    let at = slice.division.iter().position(|share| named(share.arm).is_some()).ok_or_else(no_arm)?;
    let arm = slice.division.get(at).and_then(|share| named(share.arm)).ok_or_else(no_arm)?;
    let why = format!("{holds}, and {}", place(decided, ruleset, allocation, slice, bucket, at));
    Ok((why, arm, Some(Slot { start: slice.start, end: slice.end })))
}

/// Where the bucket lies, and how the arm of this place in the slice's division came from that.
fn place(
    decided: &EvaluationContext,
    ruleset: &Ruleset,
    allocation: &Allocation,
    slice: &Slice,
    bucket: u32,
    at: usize,
) -> String {
    let space = match &allocation.space {
        Space::Own => String::new(),
        Space::Seeded(seed) => format!(" under the seed {seed:?}"),
        Space::Layer(layer) => {
            let layer = ruleset.layers.get(usize::from(*layer)).map_or("?", |layer| layer.name.as_str());
            format!(" in the layer `{layer}`")
        }
    };
    let Slice { start, end, division } = slice;
    let (share, last) = (percent(end - start), end.saturating_sub(1));
    let whose = match decided.arm.as_str() {
        "" => "its share".to_owned(),
        _ if division.len() > 1 => "the share of its arms".to_owned(),
        arm => format!("the share of its arm `{arm}`"),
    };
    let within = if *start == 0 { "is below" } else { "is in" };
    let mut text =
        format!("bucket {bucket} of {BUCKETS}{space} {within} {whose} of {share} % ({start} to {last})");
    if division.len() > 1 {
        let before = at.checked_sub(1).and_then(|before| division.get(before)).map_or(0, |share| share.end);
        let own = division.get(at).map_or(0, |share| share.end.saturating_sub(before));
        let (arm, own) = (&decided.arm, percent(own));
        text += &format!(", of which a second hash of the unit gives {own} % the arm `{arm}`");
    }
    text
}

fn kind(rule: &Rule) -> &'static str {
    if rule.epoch > 0 { "release" } else { "rule" }
}

/// What an override of the ruleset gives the unit.
fn forced(decided: &EvaluationContext, ruleset: &Ruleset) -> Option<Forced> {
    let of_unit = ruleset.overrides.iter().filter(|other| unit_hash(&other.unit) == decided.unit_hash);
    let mut forced = of_unit.map(|other| other.forced);
    forced.find(|forced| !matches!(forced, Forced::Experiment { .. }))
}

fn of_arm(arm: &Arm) -> String {
    if arm.name.is_empty() { String::new() } else { format!(", arm `{}`", arm.name) }
}

fn is_target(decided: &EvaluationContext, target: &str) -> Result<(), String> {
    if decided.target == target {
        return Ok(());
    }
    Err(format!("the ruleset sent such a request to the target `{target}` then"))
}

/// Buckets as a share of all.
fn percent(buckets: u32) -> String {
    format!("{}", f64::from(buckets) / (f64::from(BUCKETS) / 100.0))
}

#[cfg(test)]
mod tests;
