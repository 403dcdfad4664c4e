//! Why a request gets its target: rule by rule, with values and buckets.

use crate::disassemble::source;
use halftone_rules::{Observer, Outcome, Reason, Request, Ruleset, Value, VerifiedBundle};
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
    /// The decision: the target's name.
    pub target: String,
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

/// How a rule came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleOutcome {
    /// The rule's name.
    pub rule: String,
    /// Whether the rule took the request.
    pub taken: bool,
    /// What happened, in words.
    pub why: String,
}

/// Decides for a request and explains it; `None` when no ruleset governs it.
#[must_use]
pub fn explain(bundle: &VerifiedBundle, request: &impl Request) -> Option<Explanation> {
    let mut outcomes = Outcomes(Vec::new());
    let decision = bundle.decide(request, &mut outcomes)?;
    let ruleset = bundle.bundle().rulesets.iter().find(|ruleset| ruleset.name == decision.ruleset)?;
    let unit = ruleset.unit.read(request).filter(|unit| !unit.is_empty());
    let attribute = |attribute: &halftone_rules::Attribute| AttributeValue {
        name: attribute.name.clone(),
        source: source(&attribute.source),
        ty: attribute.ty.name(),
        value: attribute
            .source
            .read(request)
            .map_or("missing".into(), |bytes| value(attribute.ty.parse(bytes), bytes)),
    };
    Some(Explanation {
        ruleset: decision.ruleset.into(),
        revision: decision.revision,
        unit: unit.map(|unit| String::from_utf8_lossy(unit).into_owned()),
        attributes: ruleset.attributes.iter().map(attribute).collect(),
        rules: outcomes.0,
        target: decision.target.into(),
        reason: match decision.reason {
            Reason::Static => "STATIC",
            Reason::TargetingMatch => "TARGETING_MATCH",
            Reason::Split => "SPLIT",
            Reason::Default => "DEFAULT",
        },
    })
}

struct Outcomes(Vec<RuleOutcome>);

impl Observer for Outcomes {
    fn rule(&mut self, ruleset: &Ruleset, index: usize, outcome: Outcome) {
        let Some(rule) = ruleset.rules.get(index) else { return };
        let condition =
            if rule.condition.is_some() { "the condition holds" } else { "there is no condition" };
        let why = match outcome {
            Outcome::Taken => condition.to_owned(),
            Outcome::NoMatch => "the condition does not hold".into(),
            Outcome::NotInShare { bucket } => {
                format!("{condition}, but the unit's bucket {bucket} is not below {}", rule.share)
            }
            Outcome::NoUnit => format!("{condition}, but the request has no unit to split by"),
            Outcome::Error(error) => format!("the condition has no value: {error}"),
        };
        self.0.push(RuleOutcome { rule: rule.name.clone(), taken: outcome == Outcome::Taken, why });
    }
}

fn value(value: Value<'_>, bytes: &[u8]) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => format!("{value:?}"),
        Value::String(value) => format!("{value:?}"),
        Value::Error(_) => format!("{:?} is not of this type", String::from_utf8_lossy(bytes)),
    }
}
