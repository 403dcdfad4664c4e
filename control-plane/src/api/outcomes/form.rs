//! An outcome as JSON.

use crate::ledger::{Outcome, Refusal};
use chrono::DateTime;
use halftone_proto::v1::EvaluationContext;
use halftone_rules::{limits::MAX_VALUE_BYTES, unit_hash};
use halftone_telemetry::context::{decode, parts};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};
use std::fmt;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    id: Option<String>,
    ruleset: Option<String>,
    release: Option<String>,
    metric: String,
    value: Value,
    time: Option<Time>,
    unit: Option<String>,
    evaluation: Option<String>,
}

/// An outcome; `key` is its name, when it came beside it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &[u8], key: Option<&str>) -> Result<Outcome, Refusal> {
    let form: Form = serde_json::from_slice(text).map_err(|_| why(text))?;
    let Form { id, ruleset, release, metric, value, time, unit, evaluation } = form;
    let key = match (id, key) {
        (Some(id), Some(key)) if id != key => {
            return Err(Refusal::new("`id` and `Idempotency-Key` contradict each other: one is enough"));
        }
        (Some(id), _) => id,
        (None, Some(key)) => key.to_owned(),
        (None, None) => {
            return Err(Refusal::new(
                "`id` is missing: a name for the outcome, so that it can be sent again",
            ));
        }
    };
    let unit = unit.map(|unit| hash(&unit)).transpose()?;
    let (ruleset, release, unit) = match (evaluation, unit) {
        (Some(evaluation), unit) => of_evaluation(&evaluation, ruleset, release, unit)?,
        (None, Some(unit)) => (needed("ruleset", ruleset)?, needed("release", release)?, unit),
        (None, None) => {
            return Err(Refusal::new(
                "whose it is, is missing: `unit` (as it came with the request), or `evaluation` (the value of the header \
                 x-halftone-context)",
            ));
        }
    };
    Ok(Outcome { key, ruleset, release, metric, unit, value: value.0, time_ms: time.map(|time| time.0) })
}

/// Whose outcome it is by the evaluation, which the rest must not contradict.
fn of_evaluation(
    evaluation: &str,
    ruleset: Option<String>,
    release: Option<String>,
    unit: Option<u64>,
) -> Result<(String, String, u64), Refusal> {
    let context: EvaluationContext = decode(evaluation.as_bytes()).map_err(|error| {
        Refusal::new(format!("`evaluation` is no value of the header x-halftone-context: {error}"))
    })?;
    if context.overridden || context.held_out {
        return Err(Refusal::new(
            "`evaluation` was overridden or held out: it is part of no release, and nothing to be analysed",
        ));
    }
    if context.unit_hash == 0 {
        return Err(Refusal::new("`evaluation` has no unit"));
    }
    if let Some(ruleset) = ruleset.filter(|ruleset| *ruleset != context.ruleset) {
        return Err(Refusal::new(format!(
            "`ruleset` is {ruleset:?}, and that of `evaluation` {:?}",
            context.ruleset
        )));
    }
    if unit.is_some_and(|unit| unit != context.unit_hash) {
        return Err(Refusal::new("`unit` is not the one of `evaluation`"));
    }
    let releases: Vec<&str> = parts(&context).map(|(release, _)| release).collect();
    let release = match (release, releases.as_slice()) {
        (_, []) => return Err(Refusal::new("`evaluation` is part of no release")),
        (Some(release), of) if of.contains(&release.as_str()) => release,
        (None, [release]) => (*release).to_owned(),
        (release, of) => {
            let is = release.map_or_else(|| "is missing".to_owned(), |release| format!("is {release:?}"));
            return Err(Refusal::new(format!("`release` {is}; `evaluation` is part of {}", of.join(", "))));
        }
    };
    Ok((context.ruleset.clone(), release, context.unit_hash))
}

fn hash(unit: &str) -> Result<u64, Refusal> {
    if unit.is_empty() || unit.len() > MAX_VALUE_BYTES {
        return Err(Refusal::new(format!(
            "`unit` has {} bytes, and has to have 1 to {MAX_VALUE_BYTES}",
            unit.len()
        )));
    }
    Ok(unit_hash(unit.as_bytes()))
}

fn needed(what: &str, value: Option<String>) -> Result<String, Refusal> {
    value.ok_or_else(|| Refusal::new(format!("`{what}` is missing")))
}

/// Why a text is no outcome. Finding the place costs more than reading does, so it is looked for only then.
fn why(text: &[u8]) -> Refusal {
    let mut reader = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, Form>(&mut reader) {
        Err(error) if error.path().iter().next().is_some() => {
            Refusal::new(format!("`{}`: {}", error.path(), error.inner()))
        }
        Err(error) => Refusal::new(error.into_inner().to_string()),
        Ok(_) => Refusal::new("there is more after the outcome: each is one JSON object"),
    }
}

/// A finite number, or whether something happened.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, true or false")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value(f64::from(u8::from(value))))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
                Ok(Value(value))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Milliseconds since the Unix epoch.
struct Time(u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as in RFC 3339, or milliseconds since 1970")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Time, E> {
                Ok(Time(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                let time = DateTime::parse_from_rfc3339(text).ok();
                let time = time.and_then(|time| u64::try_from(time.timestamp_millis()).ok());
                time.map(Time).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use halftone_proto::v1::Participation;
    use prost::Message;
    use serde_json::json;

    fn of(text: &serde_json::Value) -> Result<Outcome, String> {
        read(text.to_string().as_bytes(), None).map_err(|refusal| refusal.to_string())
    }

    fn evaluation(change: fn(&mut EvaluationContext)) -> String {
        let mut context = EvaluationContext {
            ruleset: "digits".to_owned(),
            rule: "canary".to_owned(),
            arm: "control".to_owned(),
            unit_hash: unit_hash(b"42"),
            ..EvaluationContext::default()
        };
        change(&mut context);
        URL_SAFE_NO_PAD.encode(context.encode_to_vec())
    }

    #[test]
    fn what_an_outcome_is_read_from() {
        let plain = json!({"id": "a", "ruleset": "digits", "release": "canary", "metric": "click", "value": true, "unit": "42"});
        let expected = Outcome {
            key: "a".to_owned(),
            ruleset: "digits".to_owned(),
            release: "canary".to_owned(),
            metric: "click".to_owned(),
            unit: unit_hash(b"42"),
            value: 1.0,
            time_ms: None,
        };
        assert_eq!(of(&plain), Ok(expected.clone()));
        let by_evaluation =
            json!({"id": "a", "metric": "click", "value": 1, "evaluation": evaluation(|_| {})});
        assert_eq!(of(&by_evaluation), Ok(expected.clone()));
        for (time, ms) in [
            (json!("2026-07-01T14:30:00.25+02:00"), 1_782_909_000_250),
            (json!(1_782_909_000_250u64), 1_782_909_000_250),
        ] {
            let mut with = plain.clone();
            with["time"] = time;
            assert_eq!(of(&with), Ok(Outcome { time_ms: Some(ms), ..expected.clone() }));
        }
        let mut nameless = plain.clone();
        nameless.as_object_mut().unwrap().remove("id");
        assert_eq!(read(nameless.to_string().as_bytes(), Some("a")), Ok(expected.clone()));
        assert_eq!(read(plain.to_string().as_bytes(), Some("a")), Ok(expected.clone()));
        let say = read(plain.to_string().as_bytes(), Some("b")).unwrap_err().to_string();
        assert!(say.contains("contradict"), "{say}");
        let in_two = evaluation(|context| {
            context.experiments = vec![Participation { experiment: "layout".into(), arm: "a".into() }];
        });
        let mut which = by_evaluation.clone();
        which["evaluation"] = in_two.into();
        assert!(
            of(&which).unwrap_err().contains("`release` is missing; `evaluation` is part of canary, layout")
        );
        which["release"] = "layout".into();
        assert_eq!(of(&which), Ok(Outcome { release: "layout".to_owned(), ..expected }));
    }

    #[test]
    fn what_is_no_outcome_is_told_with_its_place() {
        let plain = json!({"id": "a", "ruleset": "digits", "release": "canary", "metric": "click", "value": true, "unit": "42"});
        let with = |field: &str, value: serde_json::Value| {
            let mut changed = plain.clone();
            changed[field] = value;
            of(&changed).unwrap_err()
        };
        for (field, value, say) in [
            ("value", json!("1"), "`value`: invalid type: string \"1\", expected a number, true or false"),
            ("value", json!(null), "`value`: invalid type: null"),
            ("time", json!("yesterday"), "`time`: invalid value: string \"yesterday\""),
            ("time", json!("1960-01-01T00:00:00Z"), "`time`"),
            ("time", json!(-5), "`time`"),
            ("unit", json!(42), "`unit`: invalid type: integer `42`, expected a string"),
            ("unit", json!(""), "`unit` has 0 bytes"),
            ("who", json!(1), "unknown field `who`"),
            ("evaluation", json!("!"), "`evaluation` is no value of the header"),
            ("evaluation", json!(evaluation(|context| context.unit_hash = 0)), "no unit"),
            ("evaluation", json!(evaluation(|context| context.unit_hash = 1)), "`unit` is not the one"),
            ("evaluation", json!(evaluation(|context| context.overridden = true)), "overridden"),
            ("evaluation", json!(evaluation(|context| context.held_out = true)), "held out"),
            ("evaluation", json!(evaluation(|context| context.arm.clear())), "part of no release"),
            (
                "evaluation",
                json!(evaluation(|context| context.rule = "x".into())),
                "`release` is \"canary\"; `evaluation` is part of x",
            ),
            (
                "evaluation",
                json!(evaluation(|context| context.ruleset = "x".into())),
                "`ruleset` is \"digits\"",
            ),
        ] {
            let told = with(field, value);
            assert!(told.contains(say), "{say}: {told}");
        }
        for (gone, say) in [
            ("id", "`id` is missing"),
            ("ruleset", "`ruleset` is missing"),
            ("release", "`release` is missing"),
            ("metric", "missing field `metric`"),
            ("value", "missing field `value`"),
            ("unit", "whose it is, is missing"),
        ] {
            let mut without = plain.clone();
            without.as_object_mut().unwrap().remove(gone);
            let told = of(&without).unwrap_err();
            assert!(told.contains(say), "{say}: {told}");
        }
        for (text, say) in [
            (r#"{"value": NaN}"#, "`value`: expected value at line 1 column 11"),
            (r#"{"value": 1e999}"#, "out of range"),
            ("[]", "invalid"),
            ("", "EOF"),
        ] {
            let told = read(text.as_bytes(), None).unwrap_err().to_string();
            assert!(told.contains(say), "{say}: {told}");
        }
        let twice = format!("{plain}{plain}");
        assert!(read(twice.as_bytes(), None).unwrap_err().to_string().contains("more after the outcome"));
    }
}
