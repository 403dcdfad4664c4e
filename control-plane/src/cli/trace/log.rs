//! Finds a request in a log of JSON lines.

use super::super::lines::read_line;
use crate::trace::Id;
use anyhow::{Context, Result, anyhow, bail};
use halftone_proto::v1::{EvaluationContext, Participation, Reason};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Bytes of a line. No request is logged in more.
const LONGEST: usize = 1 << 20;
/// Lines that are shown of a trace.
const MOST: usize = 100;

/// A line about a request.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) line: u64,
    /// When, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<String>,
    /// How the request was answered, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u64>,
    /// What was decided, as far as the log says.
    #[serde(skip)]
    pub(super) decided: Option<EvaluationContext>,
}

/// The lines about the requests of an id.
///
/// # Errors
/// When the file cannot be read, says nothing of the id, or what no log of ours has.
pub(super) fn find(file: &Path, id: &Id) -> Result<Vec<Line>> {
    let name = file.display().to_string();
    let found = if name == "-" {
        search(io::stdin().lock(), id)
    } else {
        let opened = File::open(file).with_context(|| format!("{name} cannot be read"))?;
        search(BufReader::with_capacity(64 << 10, opened), id)
    };
    let (lines, count) = found.with_context(|| name.clone())?;
    if lines.is_empty() {
        bail!(
            "none of the {count} lines of {name} is about {id}: of the backend's log those with --log-format json say it \
             (`trace_id`, `evaluation_id`), of Envoy's those in JSON (`traceparent`)"
        );
    }
    Ok(lines)
}

/// The lines, and how many were read.
fn search(mut input: impl BufRead, id: &Id) -> Result<(Vec<Line>, u64)> {
    let digits = id.digits();
    let (mut line, mut number, mut found) = (Vec::new(), 0, Vec::new());
    while read_line(&mut input, LONGEST, &mut line).context("it cannot be read further")? {
        number += 1;
        // Most lines are about something else, and need not be understood.
        if !line.windows(digits.len()).any(|part| part == digits.as_bytes()) {
            continue;
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(&line) else { continue };
        let fields = Fields(&fields);
        if !fields.is_about(id, &digits) {
            continue;
        }
        let decided = fields.decided().map_err(|problem| anyhow!("line {number}: {problem}"))?;
        let text = |name| fields.text(name).map(ToOwned::to_owned);
        let status = fields.number("status").or(fields.number("response_code"));
        let time = text("timestamp").or_else(|| text("start_time"));
        found.push(Line { line: number, time, status, decided });
        if found.len() > MOST {
            bail!("more than {MOST} lines are about {id}: ask for one evaluation (16 digits)");
        }
    }
    Ok((found, number))
}

/// The members of a line.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    fn is_about(&self, id: &Id, digits: &str) -> bool {
        let (name, part) = match id {
            Id::Trace(_) => ("trace_id", 1),
            Id::Evaluation(_) => ("evaluation_id", 2),
        };
        let of_parent = self.text("traceparent").and_then(|parent| parent.split('-').nth(part));
        [self.text(name), of_parent].contains(&Some(digits))
    }

    /// What was decided; `None` when the line has nothing of that kind.
    fn decided(&self) -> Result<Option<EvaluationContext>, String> {
        if let Some(pairs) = self.text("halftone") {
            return of_pairs(pairs).map(Some);
        }
        let of = |name: &str| self.0.get(&format!("halftone.{name}")).filter(|value| !value.is_null());
        if of("ruleset").is_none() {
            return Ok(None);
        }
        let mut decided = EvaluationContext::default();
        for name in NAMES {
            // Numbers and flags are no texts in JSON; in pairs they are.
            match of(name) {
                None => {}
                Some(Value::String(text)) => set(&mut decided, name, text)?,
                Some(other) => set(&mut decided, name, &other.to_string())?,
            }
        }
        decided.feature_version = self.text("feature_version").map(ToOwned::to_owned);
        Ok(Some(decided))
    }
}

/// What the members of the backend's log are called, behind `halftone.`.
const NAMES: [&str; 11] = [
    "ruleset",
    "revision",
    "rule",
    "arm",
    "target",
    "reason",
    "bucket",
    "epoch",
    "unit_hash",
    "overridden",
    "held_out",
];

/// What the filter says for Envoy's log: `key=value` pairs between blanks.
fn of_pairs(pairs: &str) -> Result<EvaluationContext, String> {
    let mut decided = EvaluationContext::default();
    for pair in pairs.split(' ') {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("`halftone`: {pair:?} is no pair"))?;
        set(&mut decided, name, value)?;
    }
    Ok(decided)
}

fn set(decided: &mut EvaluationContext, name: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("`{name}` is {value:?}");
    let number = || value.parse::<u64>().map_err(|_| wrong());
    let flag = || value.parse::<bool>().map_err(|_| wrong());
    match name {
        "ruleset" => decided.ruleset = value.to_owned(),
        "revision" => decided.revision = number()?,
        "rule" => decided.rule = value.to_owned(),
        "arm" => decided.arm = value.to_owned(),
        "target" => decided.target = value.to_owned(),
        "reason" => decided.set_reason(Reason::from_str_name(value).ok_or_else(wrong)?),
        "bucket" => decided.bucket = Some(value.parse().map_err(|_| wrong())?),
        "epoch" => decided.epoch = number()?,
        "unit_hash" => decided.unit_hash = u64::from_str_radix(value, 16).map_err(|_| wrong())?,
        "overridden" => decided.overridden = flag()?,
        "held_out" => decided.held_out = flag()?,
        "experiment" => {
            let (experiment, arm) = value.split_once('/').ok_or_else(wrong)?;
            let part = Participation { experiment: experiment.to_owned(), arm: arm.to_owned() };
            decided.experiments.push(part);
        }
        // A later filter may say more.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const EVALUATION: &str = "b7ad6b7169203331";

    fn search(text: &str, id: &str) -> Result<Vec<Line>> {
        Ok(super::search(text.as_bytes(), &id.parse()?)?.0)
    }

    #[test]
    fn both_logs_say_the_same() {
        let backend = format!(
            r#"{{"timestamp":"2026-01-31T08:00:00Z","target":"access","status":200,"halftone.target":"v2","halftone.ruleset":"digits","halftone.revision":3,"halftone.rule":"canary","halftone.unit_hash":"00f067aa0ba902b7","halftone.arm":"treatment","halftone.epoch":2,"halftone.bucket":31337,"halftone.reason":"SPLIT","halftone.overridden":true,"trace_id":"{TRACE}","evaluation_id":"{EVALUATION}"}}"#
        );
        let envoy = format!(
            r#"{{"start_time":"2026-01-31T08:00:00Z","response_code":200,"traceparent":"00-{TRACE}-{EVALUATION}-00","halftone":"ruleset=digits rule=canary arm=treatment target=v2 reason=SPLIT experiment=colour/red overridden=true revision=3 epoch=2 bucket=31337"}}"#
        );
        let expected = EvaluationContext {
            ruleset: "digits".into(),
            revision: 3,
            rule: "canary".into(),
            arm: "treatment".into(),
            target: "v2".into(),
            reason: Reason::Split.into(),
            bucket: Some(31337),
            epoch: 2,
            overridden: true,
            ..EvaluationContext::default()
        };
        let colour = Participation { experiment: "colour".into(), arm: "red".into() };
        let of_backend = EvaluationContext { unit_hash: 0x00f0_67aa_0ba9_02b7, ..expected.clone() };
        let of_envoy = EvaluationContext { experiments: vec![colour], ..expected };
        let text =
            format!("started\n{{\"trace_id\":\"{EVALUATION}{EVALUATION}\"}}\n{backend}\n[7\n{envoy}\n");
        let line = |line, decided: &EvaluationContext| Line {
            line,
            time: Some("2026-01-31T08:00:00Z".into()),
            status: Some(200),
            decided: Some(decided.clone()),
        };
        for id in [TRACE, EVALUATION] {
            let found = search(&text, id).unwrap();
            assert_eq!(found, [line(3, &of_backend), line(5, &of_envoy)], "{id}");
        }
        assert_eq!(search(&text, "00f067aa0ba902b7").unwrap(), [], "a unit is no evaluation");
    }

    #[test]
    fn what_no_log_of_ours_says_is_an_error_with_its_line() {
        for (field, problem) in [
            (r#""halftone":"ruleset""#, r#"`halftone`: "ruleset" is no pair"#),
            (r#""halftone":"revision=x""#, r#"`revision` is "x""#),
            (r#""halftone.ruleset":"r","halftone.bucket":-1"#, r#"`bucket` is "-1""#),
            (r#""halftone.ruleset":"r","halftone.reason":"WHIM""#, r#"`reason` is "WHIM""#),
        ] {
            let error = search(&format!("\n{{\"trace_id\":\"{TRACE}\",{field}}}"), TRACE).unwrap_err();
            assert_eq!(error.to_string(), format!("line 2: {problem}"));
        }
        let undecided = search(&format!("{{\"trace_id\":\"{TRACE}\",\"halftone\":null}}"), TRACE).unwrap();
        assert_eq!(undecided[0].decided, None);
        let long = format!("{}\n{{\"trace_id\":\"{TRACE}\"}}\n", "x".repeat(3 * LONGEST));
        assert_eq!(search(&long, TRACE).unwrap()[0].line, 2);
    }
}
