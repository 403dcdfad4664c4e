//! The JSON Schema of releases says what the reader takes: the same fields, the same words, the documented examples.

use halftone_control_plane::release::{JSON_SCHEMA, read};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const DOCUMENTATION: &str = include_str!("../../docs/release.md");

/// A release that has everything.
fn whole() -> Value {
    json!({
        "version": "v1", "name": "r", "ruleset": "digits", "stable": "v1", "candidates": ["v2"],
        "eligible": "user.id > 5", "layer": "a", "range": [0.0, 0.5], "before": "all",
        "steps": [{"share": 0.1, "hold": {"for": "1m30s", "units": 5, "approval": true}}],
        "gates": ["calendar"], "approval": "auto", "on_no_data": "hold", "watch": {"for": "24h", "control": 0.05},
        "metrics": {
            "error": {"role": "guardrail", "kind": "event", "source": {"observed": "error"}, "better": "lower",
                "tolerance": 0.1, "margin": 0.5, "ceiling": 0.2, "window_s": 0},
            "failed": {"role": "signal", "kind": "ratio", "better": "lower", "source": {"prometheus": {
                "numerator": "e{t=\"$target\"}", "denominator": "r{t=\"$target\"}", "block": "5s"}}},
            "latency": {"role": "guardrail", "kind": "latency", "quantiles": [0.5], "promote_quantiles": [0.5]},
            "rating": {"role": "goal", "kind": "mean", "source": {"outcome": {"metric": "stars", "aggregate": "sum", "missing": "zero"}}, "mde": {"relative": 0.05},
                "baseline": {"mean": 3.0, "sd": 1.0}, "cap": 5.0, "log": false, "window_s": 60},
        },
        "policy": {
            "kind": "sequential", "power": 0.8, "spending": {"power": 2.0}, "look_every_s": 60, "most_looks": 10,
            "horizon": "known", "n_star": 1000.0, "planned_s": 600, "promote_when": "superior",
            "require_practical": false, "cycle_s": 60, "warm_up_s": 0, "stale_after_s": 900, "data_deadline_s": 60,
            "kill": true, "kill_baseline": "control",
            "alpha": {"promote": 0.01, "kill": 0.01, "signal": 0.05, "non_inferior": 0.05, "srm": 0.001, "suspect": 0.2},
            "classic": {"p": 0.01, "alpha": 0.05, "periods": 3, "minimum_s": 1, "maximum_s": 9, "rollback_on_harm": true},
        },
    })
}

fn schema() -> Value {
    serde_json::from_str(JSON_SCHEMA).expect("JSON")
}

/// What is wrong with a value, by the words that our schema uses. A word that is not known here is a failure.
fn problems(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let wrong = |what: &str| vec![format!("{at}: {what}")];
    for (word, wanted) in schema.as_object().expect("a schema is an object") {
        let holds = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" => true,
            "$ref" => {
                let path =
                    wanted.as_str().and_then(|path| path.strip_prefix('#')).expect("a reference inside");
                found.extend(problems(root.pointer(path).expect(path), root, value, at));
                true
            }
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("the type {other}"),
                };
                match wanted {
                    Value::Array(any) => any.iter().filter_map(Value::as_str).any(is),
                    one => one.as_str().is_some_and(is),
                }
            }
            "const" => value == wanted,
            "enum" => wanted.as_array().is_some_and(|any| any.contains(value)),
            "oneOf" => {
                let any = wanted.as_array().expect("a list");
                any.iter().filter(|one| problems(one, root, value, at).is_empty()).count() == 1
            }
            "properties" | "additionalProperties" => {
                let none = Map::new();
                let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}.{key}");
                    let of = match (word.as_str(), known.get(key)) {
                        ("properties", Some(of)) => of,
                        ("additionalProperties", None) if wanted == &Value::Bool(false) => {
                            found.push(format!("{at}: unknown"));
                            continue;
                        }
                        ("additionalProperties", None) => wanted,
                        _ => continue,
                    };
                    found.extend(problems(of, root, inner, &at));
                }
                true
            }
            "required" => {
                let names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                value.is_object() && names.into_iter().all(|name| value.get(name).is_some())
                    || !value.is_object()
            }
            "items" => {
                for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(problems(wanted, root, inner, &format!("{at}.{index}")));
                }
                true
            }
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().expect("a count"))
            }
            "maxItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 <= wanted.as_u64().expect("a count"))
            }
            "minProperties" => {
                value.as_object().is_none_or(|of| of.len() as u64 >= wanted.as_u64().expect("a count"))
            }
            "uniqueItems" => value.as_array().is_none_or(|items| {
                items.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() == items.len()
            }),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                let limit = wanted.as_f64().expect("a number");
                value.as_f64().is_none_or(|value| match word.as_str() {
                    "minimum" => value >= limit,
                    "maximum" => value <= limit,
                    "exclusiveMinimum" => value > limit,
                    _ => value < limit,
                })
            }
            // Spelled out for editors; the reader checks it.
            "pattern" => true,
            other => panic!("the word {other} is not known to this test"),
        };
        if !holds {
            found.extend(wrong(word));
        }
    }
    found
}

fn refused_by_schema(value: &Value) -> Vec<String> {
    problems(&schema(), &schema(), value, "")
}

fn refused_by_reader(value: &Value) -> Option<String> {
    let text = value.to_string();
    let problems = read(&text, Some("r")).err()?;
    Some(halftone_compiler::render("r", &text, &problems))
}

/// Every mapping in a value: its path.
fn mappings(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(at.to_owned());
            fields.iter().for_each(|(key, inner)| mappings(inner, &format!("{at}/{key}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, inner)| mappings(inner, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn a_release_with_everything_is_taken_by_both() {
    assert_eq!(refused_by_schema(&whole()), Vec::<String>::new());
    assert_eq!(refused_by_reader(&whole()), None);
}

#[test]
fn unknown_fields_are_refused_by_both_everywhere() {
    let mut all = Vec::new();
    mappings(&whole(), "", &mut all);
    for at in all {
        let mut value = whole();
        let fields = value.pointer_mut(&at).and_then(Value::as_object_mut).expect("it is there");
        fields.insert("surprise".to_owned(), Value::from(1));
        assert!(!refused_by_schema(&value).is_empty(), "{at}: the schema takes it");
        assert!(refused_by_reader(&value).is_some(), "{at}: the reader takes it");
    }
}

/// serde names the fields that it knows when it meets one that it does not: none may be missing in the schema.
#[test]
fn every_field_of_the_reader_is_in_the_schema() {
    let schema = schema();
    let policy = ["metrics", "steps", "candidates", "policy"];
    for (at, place, not_there) in [
        ("", "", &[][..]),
        ("/steps/0", "/$defs/step", &[]),
        ("/steps/0/hold", "/$defs/step/properties/hold", &[]),
        ("/watch", "/properties/watch", &[]),
        ("/metrics/error", "/$defs/metric", &[]),
        ("/metrics/failed/source/prometheus", "/$defs/source/oneOf/2/properties/prometheus", &[]),
        ("/metrics/rating/baseline", "/$defs/metric/properties/baseline", &[]),
        // What the release says itself, the reader refuses in its policy.
        ("/policy", "/$defs/policy", &policy),
        ("/policy/alpha", "/$defs/policy/properties/alpha", &[]),
        ("/policy/classic", "/$defs/policy/properties/classic", &[]),
    ] {
        let mut value = whole();
        let fields = value.pointer_mut(at).and_then(Value::as_object_mut).expect("it is there");
        fields.insert("surprise".to_owned(), Value::from(1));
        let said = refused_by_reader(&value).expect("it is refused");
        let (_, names) =
            said.split_once("expected one of ").or_else(|| said.split_once("expected ")).expect(&said);
        let names = names.lines().next().unwrap_or_default().split('`').skip(1).step_by(2);
        let known = schema.pointer(&format!("{place}/properties")).and_then(Value::as_object).expect(place);
        let mut count = 0;
        for name in names.filter(|name| !not_there.contains(name)) {
            assert!(known.contains_key(name), "{place} lacks {name}");
            count += 1;
        }
        assert!(count > 0, "{said}");
    }
}

#[test]
fn words_that_are_not_known_are_refused_by_both() {
    for (at, word) in [
        ("/approval", "nobody"),
        ("/on_no_data", "wait"),
        ("/policy/horizon", "near"),
        ("/policy/kill_baseline", "rest"),
        ("/policy/promote_when", "equal"),
        ("/policy/spending", "linear"),
        ("/policy/kind", "other"),
        ("/metrics/error/role", "aim"),
        ("/metrics/error/kind", "gauge"),
        ("/metrics/error/better", "more"),
        ("/version", "v2"),
    ] {
        let mut value = whole();
        *value.pointer_mut(at).expect(at) = Value::from(word);
        assert!(!refused_by_schema(&value).is_empty(), "{at}: the schema takes {word}");
        assert!(refused_by_reader(&value).is_some(), "{at}: the reader takes {word}");
    }
}

#[test]
fn every_example_in_the_documentation_is_valid() {
    let mut count = 0;
    let blocks = DOCUMENTATION.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    for text in blocks.filter(|text| text.contains("candidates:")) {
        let tree = read(text, Some("example")).or_else(|_| read(text, None));
        assert!(
            tree.is_ok(),
            "{text}\n{}",
            halftone_compiler::render("docs", text, &tree.expect_err("refused"))
        );
        let subject = halftone_compiler::Subject { one: "release", many: "releases", start: "version: v1" };
        let value = halftone_compiler::Tree::read(text, subject).expect("it was read").value();
        assert_eq!(refused_by_schema(&value), Vec::<String>::new(), "{text}");
        count += 1;
    }
    assert!(count > 0, "there is no example");
}
