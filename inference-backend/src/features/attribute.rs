//! The attributes of what the filter decided that can become an input or a part of a URL.

use halftone_proto::v1::EvaluationContext;
use serde_json::Value;

/// An attribute of the evaluation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// When the decision was taken, in milliseconds since 1970.
    TimestampMs,
    /// The ruleset that governed the request.
    Ruleset,
    /// Its revision.
    Revision,
    /// The rule that matched.
    Rule,
    /// The target that was chosen.
    Target,
    /// The rule's arm.
    Arm,
    /// The arm of an experiment besides.
    Experiment(String),
    /// The hash of the unit, which is a number, and in a text 16 hexadecimal digits.
    UnitHash,
    /// The unit's bucket.
    Bucket,
    /// Why the target was chosen.
    Reason,
    /// Whether an override named the unit: 1 or 0.
    Overridden,
    /// Whether the unit is held out: 1 or 0.
    HeldOut,
    /// The tenant.
    Tenant,
    /// The version of the features.
    FeatureVersion,
}

/// Those with a name of their own, and whether they are numbers.
const NAMED: [(&str, Attribute); 13] = [
    ("timestamp_ms", Attribute::TimestampMs),
    ("ruleset", Attribute::Ruleset),
    ("revision", Attribute::Revision),
    ("rule", Attribute::Rule),
    ("target", Attribute::Target),
    ("arm", Attribute::Arm),
    ("unit_hash", Attribute::UnitHash),
    ("bucket", Attribute::Bucket),
    ("reason", Attribute::Reason),
    ("overridden", Attribute::Overridden),
    ("held_out", Attribute::HeldOut),
    ("tenant", Attribute::Tenant),
    ("feature_version", Attribute::FeatureVersion),
];

impl Attribute {
    /// The attribute of this name; `experiment:NAME` is an experiment's arm.
    ///
    /// # Errors
    /// Which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some(experiment) = name.strip_prefix("experiment:") {
            return Ok(Self::Experiment(experiment.to_owned()));
        }
        let found = NAMED.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, attribute)| attribute).ok_or_else(|| {
            let known = NAMED.map(|(known, _)| known).join(", ");
            format!("unknown attribute {name:?}, expected one of {known}, experiment:NAME")
        })
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::TimestampMs
                | Self::Revision
                | Self::UnitHash
                | Self::Bucket
                | Self::Overridden
                | Self::HeldOut
        )
    }

    /// Its value, if the request has it: a number or a text.
    #[must_use]
    pub fn value(&self, context: &EvaluationContext) -> Option<Value> {
        let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Value::from);
        match self {
            Self::TimestampMs => Some(context.timestamp_ms.into()),
            Self::Ruleset => text(&context.ruleset),
            Self::Revision => Some(context.revision.into()),
            Self::Rule => text(&context.rule),
            Self::Target => text(&context.target),
            Self::Arm => text(&context.arm),
            Self::Experiment(name) => {
                let part = context.experiments.iter().find(|part| part.experiment == *name)?;
                text(&part.arm)
            }
            Self::UnitHash => Some(context.unit_hash).filter(|hash| *hash != 0).map(Value::from),
            Self::Bucket => context.bucket.map(Value::from),
            Self::Reason => text(context.reason().as_str_name()),
            Self::Overridden => Some(u8::from(context.overridden).into()),
            Self::HeldOut => Some(u8::from(context.held_out).into()),
            Self::Tenant => text(context.tenant()),
            Self::FeatureVersion => text(context.feature_version()),
        }
    }

    /// Its value as a text, if the request has it.
    #[must_use]
    pub fn text(&self, context: &EvaluationContext) -> Option<String> {
        match self.value(context)? {
            Value::String(text) => Some(text),
            _ if *self == Self::UnitHash => Some(format!("{:016x}", context.unit_hash)),
            number => Some(number.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_proto::v1::{Participation, Reason};

    #[test]
    fn every_name_has_its_value() {
        let context = EvaluationContext {
            timestamp_ms: 1,
            ruleset: "digits".into(),
            revision: 2,
            rule: "r".into(),
            target: "v2".into(),
            unit_hash: 0xabc,
            bucket: Some(0),
            reason: Reason::Split.into(),
            arm: "a".into(),
            experiments: vec![Participation { experiment: "e".into(), arm: "b".into() }],
            overridden: true,
            held_out: false,
            tenant: Some("acme".into()),
            feature_version: Some("7".into()),
            epoch: 3,
        };
        for (name, expected) in [
            ("timestamp_ms", "1"),
            ("ruleset", "digits"),
            ("revision", "2"),
            ("rule", "r"),
            ("target", "v2"),
            ("arm", "a"),
            ("unit_hash", "0000000000000abc"),
            ("bucket", "0"),
            ("reason", "SPLIT"),
            ("overridden", "1"),
            ("held_out", "0"),
            ("tenant", "acme"),
            ("feature_version", "7"),
            ("experiment:e", "b"),
        ] {
            let attribute = Attribute::named(name).unwrap();
            assert_eq!(attribute.text(&context).as_deref(), Some(expected), "{name}");
            let value = attribute.value(&context).unwrap();
            assert_eq!(value.is_number(), attribute.is_number(), "{name}");
        }
        assert_eq!(Attribute::named("experiment:other").unwrap().value(&context), None);
        let nothing = EvaluationContext::default();
        for name in ["ruleset", "rule", "target", "arm", "unit_hash", "bucket", "tenant", "feature_version"] {
            assert_eq!(Attribute::named(name).unwrap().value(&nothing), None, "{name}");
        }
        let unknown = Attribute::named("user").unwrap_err();
        assert!(
            unknown.starts_with(r#"unknown attribute "user", expected one of timestamp_ms, "#),
            "{unknown}"
        );
    }
}
