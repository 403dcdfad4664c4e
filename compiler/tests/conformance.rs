//! CEL's own conformance cases, as far as they lie inside the subset.
//!
//! `conformance/cel.jsonl` holds the cases of cel-spec's simple tests, `conformance/outside.tsv` those that lie outside:
//! with what the compiler says against them, or, where their variables or containers cannot be written in a ruleset,
//! with that. A case must have CEL's result or be in that list; a case that has left the list by accident fails too. `HALFTONE_BLESS=1` writes the list anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Optimisation, compile_with, link};
use halftone_rules::{Observer, Outcome, Request, Ruleset, Timestamp, VerifiedBundle};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write};

/// The variables of a case as headers.
struct Variables(BTreeMap<String, Vec<u8>>);

impl Request for Variables {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

#[derive(Default)]
struct First(Option<Outcome>);

impl Observer for First {
    fn rule(&mut self, _: &Ruleset, _: usize, outcome: Outcome) {
        self.0 = Some(outcome);
    }
}

/// A condition that holds when the expression has the expected value.
fn condition(case: &Value) -> String {
    let expr = case["expr"].as_str().unwrap();
    let expected = &case["expect"];
    match expected["value"].as_str() {
        // Nothing equals what is not a number.
        Some("double(\"NaN\")") => format!("({expr}) != ({expr})"),
        Some("null") => format!("({expr}) == null"),
        Some(value) => format!("({expr}\n) == ({value})"),
        None => format!("({expr}\n) == ({expr}\n)"),
    }
}

/// The attributes of a case's variables, and their values. `None` when a variable is no scalar.
fn variables(case: &Value) -> Option<(String, Variables)> {
    let (mut attributes, mut values) = (String::new(), BTreeMap::new());
    for (index, (name, variable)) in case["vars"].as_object().into_iter().flatten().enumerate() {
        // That the constant is meant and not the variable is what these cases are about; there is no such attribute.
        if ["true", "false", "null"].contains(&name.as_str()) {
            continue;
        }
        let ty = variable["type"].as_str()?;
        let text = variable["value"].as_str()?;
        let value = match ty {
            "bool" | "int" => text.to_owned(),
            "uint" => text.trim_end_matches('u').to_owned(),
            "double" => text.to_owned(),
            "string" => serde_json::from_str(text).ok()?,
            _ => return None,
        };
        writeln!(attributes, "  {name}: {{header: v{index}, type: {ty}}}").unwrap();
        values.insert(format!("v{index}"), value.into_bytes());
    }
    Some((attributes, Variables(values)))
}

/// What the compiler says against a case, or how it comes out.
fn run(case: &Value, optimisation: Optimisation) -> Result<Outcome, String> {
    if !case["container"].is_null() && !case["vars"].is_null() {
        return Err("names resolved in a container".into());
    }
    let Some((attributes, request)) = variables(case) else {
        return Err("a variable that is no scalar".into());
    };
    let attributes = if attributes.is_empty() { String::new() } else { format!("attributes:\n{attributes}") };
    let condition = serde_json::to_string(&condition(case)).unwrap();
    let text = format!("version: v1\n{attributes}rules: [{{name: r, condition: {condition}, target: v2}}]\n");
    let compiled = compile_with(&text, "test", optimisation)
        .map_err(|problems| format!("{} {}", problems[0].code.as_str(), problems[0].message))?;
    let bundle = VerifiedBundle::new(link(1, [&compiled]).unwrap()).expect("verifies");
    let mut first = First::default();
    let _ = bundle.decide(&request, Timestamp(0), &mut first);
    Ok(first.0.unwrap())
}

#[test]
fn every_case_has_cels_result_or_is_refused_by_name() {
    let (mut outside, mut wrong, mut inside) = (String::new(), Vec::new(), 0);
    for line in include_str!("conformance/cel.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["test"].as_str().unwrap();
        let [optimised, plain] =
            [Optimisation::Full, Optimisation::None].map(|optimisation| run(&case, optimisation));
        if optimised != plain {
            wrong.push(format!("{name}: {} is {optimised:?} optimised, {plain:?} as written", case["expr"]));
        }
        match (&optimised, case["expect"]["error"].is_null()) {
            (Err(problem), _) => writeln!(outside, "{name}\t{problem}").unwrap(),
            (Ok(Outcome::Taken { .. }), true) | (Ok(Outcome::Error(_)), false) => inside += 1,
            (Ok(found), _) => {
                wrong.push(format!("{name}: {} is {found:?}, not {}", case["expr"], case["expect"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{inside} cases have CEL's result, {} are refused", outside.lines().count());
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/outside.tsv");
    if std::env::var_os("HALFTONE_BLESS").is_some() {
        std::fs::write(list, &outside).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(list).unwrap_or_default(),
        outside,
        "the list of refused cases has changed"
    );
}
