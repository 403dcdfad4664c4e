//! Why a ruleset gave a request its target, in a sentence: from what was decided and from the ruleset as it was then.
//!
//! The sentence is made of the ruleset alone, and only when the decision follows from it ([`way`](super::way)): what does not fit
//! is an error that says so. Attributes are not known any more, so of a condition it can only be said that it held.

use super::way::{Miss, Passed, Place, Way, ways};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::{
    Rule, Ruleset,
    bucket::BUCKETS,
    bundle::{Arm, Slice, Space},
};

/// Rules that did not take a request and are named, of more.
const MOST_PASSED: usize = 8;

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
    let ways = ways(decided, ruleset)?;
    let said: Vec<String> = ways.iter().map(|way| of_way(way, decided, ruleset)).collect();
    let slot = ways.iter().find_map(|way| match way {
        Way::Split(_, Place { slice, .. }) => Some(Slot { start: slice.start, end: slice.end }),
        _ => None,
    });
    Ok(match said.as_slice() {
        [only] => (only.clone(), slot),
        all => (
            format!(
                "either {}: whose request it was is not told, so it cannot be said which",
                all.join(", or ")
            ),
            slot,
        ),
    })
}

fn of_way(way: &Way<'_>, decided: &EvaluationContext, ruleset: &Ruleset) -> String {
    let target = &decided.target;
    match way {
        Way::Demanded => format!("an override token of the request demanded the target `{target}`"),
        Way::Named => format!("an override names the unit and gives it the target `{target}`"),
        Way::Forced(rule, arm) => {
            format!(
                "an override names the unit and gives it the {} `{}`{}",
                kind(rule),
                rule.name,
                of_arm(arm)
            )
        }
        Way::HeldOut => {
            let share = percent(ruleset.holdout);
            format!(
                "the unit is among the {share} % that are held out of every rule, and goes to the default target `{target}`"
            )
        }
        Way::Default(passed) => {
            format!("{}, so it goes to the default target `{target}`", passed_by(passed))
        }
        Way::Matched(rule) => format!("{}, and it takes every such request", held(rule)),
        Way::Split(rule, of) => format!("{}, and {}", held(rule), place(decided, ruleset, of)),
    }
}

/// That no rule took the request, and as far as is known why.
fn passed_by(passed: &[Passed<'_>]) -> String {
    match passed {
        [] => "there are no rules".to_owned(),
        [Passed { rule, because }] => {
            format!("the {} `{}` did not take it ({})", kind(rule), rule.name, missed(because))
        }
        all => {
            let named = all.iter().take(MOST_PASSED);
            let named = named.map(|Passed { rule, because }| format!("`{}`: {}", rule.name, missed(because)));
            let more = all.len().saturating_sub(MOST_PASSED);
            let more = (more > 0).then(|| format!("and {more} more"));
            let told = named.chain(more).collect::<Vec<_>>().join("; ");
            format!("none of the {} rules took it ({told})", all.len())
        }
    }
}

fn missed(because: &[Miss]) -> String {
    let because = because.iter().map(|miss| match miss {
        Miss::NotInForce => "it was not in force".to_owned(),
        Miss::Condition => "its condition did not hold".to_owned(),
        Miss::NoUnit => "the request had no unit".to_owned(),
        Miss::Share(buckets) => format!("the unit is not in its share of {} %", percent(*buckets)),
    });
    because.collect::<Vec<_>>().join(", or ")
}

/// What is known of a rule's condition, as it took the request.
fn held(rule: &Rule) -> String {
    let conditional = rule.enrolment.condition.is_some() || rule.guard.is_some();
    let holds = if conditional { "its condition held" } else { "it has no condition" };
    format!("{} `{}`: {holds}", kind(rule), rule.name)
}

/// Where the bucket lies, and how the arm of this place in the slice's division came from that.
fn place(decided: &EvaluationContext, ruleset: &Ruleset, place: &Place<'_>) -> String {
    let Place { allocation, slice, at, bucket } = place;
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
        let own = division.get(*at).map_or(0, |share| share.end.saturating_sub(before));
        let (arm, own) = (&decided.arm, percent(own));
        text += &format!(", of which a second hash of the unit gives {own} % the arm `{arm}`");
    }
    text
}

fn kind(rule: &Rule) -> &'static str {
    if rule.epoch > 0 { "release" } else { "rule" }
}

fn of_arm(arm: &Arm) -> String {
    if arm.name.is_empty() { String::new() } else { format!(", arm `{}`", arm.name) }
}

/// Buckets as a share of all.
fn percent(buckets: u32) -> String {
    format!("{}", f64::from(buckets) / (f64::from(BUCKETS) / 100.0))
}

#[cfg(test)]
mod tests;
