//! Why a request gets its target: rule by rule, with values and buckets.

use crate::show::{self, source};
use halftone_rules::{
    EvalError, Observer, Outcome, Request, Ruleset, Timestamp, Value, VerifiedBundle,
    bundle::{Allocation, Enrolment, Space},
    isa::AttributeId,
    limits::MAX_VALUE_BYTES,
};
use serde::Serialize;

/// Everything that led to a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Name of the ruleset that governs the request.
    pub ruleset: String,
    /// Revision of the bundle.
    pub revision: u64,
    /// The unit's text, if the request has one.
    pub unit: Option<String>,
    /// What the rules read, with the values that this request has.
    pub attributes: Vec<AttributeValue>,
    /// How each rule came out, up to the one that took the request.
    pub rules: Vec<RuleOutcome>,
    /// How each experiment came out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<RuleOutcome>,
    /// Whether an override named the unit.
    pub overridden: bool,
    /// Whether the unit is kept out of everything.
    pub held_out: bool,
    /// The decision: the target's name.
    pub target: String,
    /// The arm of the rule, when it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The epoch of the release that the rule is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why, as `OpenFeature` names it.
    pub reason: &'static str,
}

/// An attribute and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttributeValue {
    /// Its name in the rules.
    pub name: String,
    /// Where it comes from.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// Its value, or why it has none.
    pub value: String,
}

/// How a rule or an experiment came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleOutcome {
    /// The rule's or the experiment's name.
    pub rule: String,
    /// Whether it took the request.
    pub taken: bool,
    /// What happened, in words.
    pub why: String,
    /// The unit's bucket, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u32>,
}

/// Decides for a request and explains it; `None` when no ruleset governs it.
#[must_use]
pub fn explain(bundle: &VerifiedBundle, request: &impl Request, now: Timestamp) -> Option<Explanation> {
    let mut outcomes = Outcomes::default();
    let decision = bundle.decide_by_each_rule(request, now, &mut outcomes)?;
    let ruleset = bundle.bundle().rulesets.iter().find(|ruleset| ruleset.name == decision.ruleset)?;
    let unit = request.unit(ruleset);
    let attribute = |(id, attribute): (u16, &halftone_rules::Attribute)| AttributeValue {
        name: attribute.name.clone(),
        source: source(&attribute.source),
        ty: attribute.ty.name(),
        value: value(request, AttributeId(id), attribute),
    };
    Some(Explanation {
        ruleset: decision.ruleset.into(),
        revision: decision.revision,
        unit: unit.filter(|unit| !unit.is_empty()).map(|unit| String::from_utf8_lossy(unit).into_owned()),
        attributes: (0..).zip(&ruleset.attributes).map(attribute).collect(),
        rules: outcomes.rules,
        experiments: outcomes.experiments,
        overridden: decision.overridden,
        held_out: decision.held_out,
        target: decision.target.into(),
        arm: decision.arm.map(ToOwned::to_owned),
        epoch: Some(decision.epoch).filter(|epoch| *epoch > 0),
        reason: decision.reason.name(),
    })
}

/// What conditions see of an attribute, or why they see nothing.
fn value(request: &impl Request, id: AttributeId, attribute: &halftone_rules::Attribute) -> String {
    let bytes = || request.attribute(attribute).unwrap_or_default();
    match request.value(id, attribute) {
        Value::Error(EvalError::Missing) => "missing".into(),
        Value::Error(EvalError::Malformed) => {
            format!("{:?} is not of this type", String::from_utf8_lossy(bytes()))
        }
        Value::Error(EvalError::TooLong) => {
            format!("{} bytes, more than the {MAX_VALUE_BYTES} that conditions work on", bytes().len())
        }
        value => show::value(&value),
    }
}

#[derive(Default)]
struct Outcomes {
    rules: Vec<RuleOutcome>,
    experiments: Vec<RuleOutcome>,
}

impl Observer for Outcomes {
    fn rule(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome) {
        let Some(rule) = ruleset.rules.get(index) else { return };
        let conditional = rule.enrolment.condition.is_some() || rule.guard.is_some();
        let arm = |arm: u16| rule.arms.get(usize::from(arm)).map_or("", |arm| arm.name.as_str());
        self.rules.push(describe(ruleset, &rule.name, &rule.enrolment, conditional, outcome, arm));
    }

    fn experiment(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome) {
        let Some(experiment) = ruleset.experiments.get(index) else { return };
        let conditional = experiment.enrolment.condition.is_some();
        let arm = |arm: u16| experiment.arms.get(usize::from(arm)).map_or("", String::as_str);
        let described = describe(ruleset, &experiment.name, &experiment.enrolment, conditional, outcome, arm);
        self.experiments.push(described);
    }
}

fn describe<'a>(
    ruleset: &Ruleset,
    name: &str,
    enrolment: &Enrolment,
    conditional: bool,
    outcome: Outcome,
    arm: impl Fn(u16) -> &'a str,
) -> RuleOutcome {
    let holds = if conditional { "the condition holds" } else { "there is no condition" };
    let (why, bucket) = match outcome {
        Outcome::Taken { arm: taken, bucket } => {
            let mut why = holds.to_owned();
            if let Some(bucket) = bucket {
                why = format!("{why}, and the unit's bucket {bucket} {} is taken", space(ruleset, enrolment));
            }
            if !arm(taken).is_empty() {
                why = format!("{why}; arm {}", arm(taken));
            }
            (why, bucket)
        }
        Outcome::NotScheduled => ("it is not in force at this time".into(), None),
        Outcome::NoMatch => ("the condition does not hold".into(), None),
        Outcome::NotInShare { bucket } => {
            let slices = enrolment.allocation.iter().flat_map(|allocation| &allocation.slices);
            let taken: Vec<String> = slices.map(|slice| show::buckets(slice.start, slice.end)).collect();
            let taken = if taken.is_empty() { "no buckets".into() } else { taken.join(" and ") };
            let space = space(ruleset, enrolment);
            (
                format!("{holds}, but the unit's bucket {bucket} {space} is not taken: it takes {taken}"),
                Some(bucket),
            )
        }
        Outcome::NoUnit => (format!("{holds}, but the request has no unit to split by"), None),
        Outcome::HeldOut => (format!("{holds}, but the unit is held out"), None),
        Outcome::Error(error) => (format!("the condition has no value: {error}"), None),
    };
    RuleOutcome { rule: name.into(), taken: matches!(outcome, Outcome::Taken { .. }), why, bucket }
}

/// Where a bucket was computed, in words.
fn space(ruleset: &Ruleset, enrolment: &Enrolment) -> String {
    match enrolment.allocation.as_ref().map(|Allocation { space, .. }| space) {
        Some(Space::Layer(id)) => {
            let layer = ruleset.layers.get(usize::from(*id)).map_or("?", |layer| layer.name.as_str());
            format!("in the layer {layer}")
        }
        Some(Space::Seeded(seed)) => format!("under the seed {seed:?}"),
        Some(Space::Own) | None => "under its own seed".into(),
    }
}
