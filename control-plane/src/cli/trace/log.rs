//! Finds a request in a log of JSON lines.

use super::super::lines::read_line;
use crate::{
    terminal::one_line,
    trace::{Id, read},
};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{EvaluationContext, Participation, Reason};
use prost::Message;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Bytes of a line. No request is logged in more.
const LONGEST: usize = 1 << 20;
/// Lines that are shown of a trace.
const MOST: usize = 100;
/// What compressed files begin with, and texts of some systems.
const GZIP: &[u8] = &[0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A line about a request.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) line: u64,
    /// The trace that the request belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    /// The span in which it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evaluation_id: Option<String>,
    /// When, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<String>,
    /// How the request was answered, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u64>,
    /// The model that answered; of the backend's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    /// Its version; of the backend's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// The hash of the output, 16 hexadecimal digits; of the backend's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_hash: Option<String>,
    /// What was decided, as far as the log says.
    #[serde(skip)]
    pub(super) decided: Option<EvaluationContext>,
}

/// What a log has of an id.
pub(super) struct Found {
    /// The lines about it, the newest of them.
    pub(super) lines: Vec<Line>,
    /// Whether there are older ones.
    pub(super) more: bool,
}

/// The lines about the requests of an id. Says on standard error which could not be read.
///
/// # Errors
/// When the file cannot be read, or says nothing of the id.
pub(super) fn find(file: &Path, id: &Id) -> Result<Found> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { one_line(&file.display().to_string()) };
    let found = if is_stdin {
        search(io::stdin().lock(), id)
    } else {
        let opened = File::open(file).with_context(|| format!("{name} cannot be read"))?;
        search(BufReader::with_capacity(64 << 10, opened), id)
    };
    let Search { lines, more, count, unread } = found.with_context(|| name.clone())?;
    if let Some(unread) = unread {
        eprintln!("halftone: {name}: {unread}");
    }
    if lines.is_empty() {
        bail!(
            "{name}: no line of {count} is about {id}: of the backend's log those with --log-format json say it \
             (`trace_id`, `evaluation_id`), of Envoy's those in JSON (`traceparent`), which Envoy writes up to 10 s later"
        );
    }
    Ok(Found { lines: lines.into(), more })
}

/// What a log has of an id, and of others.
#[derive(Debug, Default, PartialEq)]
struct Search {
    /// The lines about it, the newest of them.
    lines: VecDeque<Line>,
    /// Whether there are older ones.
    more: bool,
    /// How many lines there are.
    count: u64,
    /// Those that may be about it and could not be read, when there are some.
    unread: Option<Unread>,
}

/// Lines that could not be read.
#[derive(Debug, PartialEq)]
struct Unread {
    count: u64,
    /// The number of the first, from 1.
    first: u64,
    /// What is wrong with it.
    problem: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, first, problem } = self;
        match count {
            1 => write!(f, "line {first} could not be read: {problem}"),
            _ => write!(f, "{count} lines could not be read, the first is line {first}: {problem}"),
        }
    }
}

impl Search {
    /// The last line could not be read.
    fn skip(&mut self, problem: String) {
        match &mut self.unread {
            Some(unread) => unread.count += 1,
            None => self.unread = Some(Unread { count: 1, first: self.count, problem }),
        }
    }
}

fn search(mut input: impl BufRead, id: &Id) -> Result<Search> {
    let digits = id.digits();
    let (mut line, mut found) = (Vec::new(), Search::default());
    while read_line(&mut input, LONGEST, &mut line).with_context(|| match found.count {
        0 => "it cannot be read".to_owned(),
        count => format!("it cannot be read further than line {count}"),
    })? {
        found.count += 1;
        if found.count == 1 && line.starts_with(GZIP) {
            bail!("it is compressed: unpack it first, as in `zcat FILE | halftone trace ID --from-log -`");
        }
        if found.count == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.len() > LONGEST && line.last() != Some(&b'\n') {
            found.skip(format!("it has more than {LONGEST} bytes"));
            continue;
        }
        // Most lines are about something else, and need not be understood.
        if !line.windows(digits.len()).any(|part| part == digits.as_bytes()) {
            continue;
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(&line) else {
            found.skip("it is no JSON object".to_owned());
            continue;
        };
        let fields = Fields(&fields);
        if !fields.is_about(id, &digits) {
            continue;
        }
        let decided = match fields.decided() {
            Ok(decided) => decided,
            Err(problem) => {
                found.skip(problem);
                continue;
            }
        };
        let text = |name| fields.text(name).map(ToOwned::to_owned);
        if found.lines.len() == MOST {
            found.lines.pop_front();
            found.more = true;
        }
        found.lines.push_back(Line {
            line: found.count,
            trace_id: fields.trace_id().map(ToOwned::to_owned),
            evaluation_id: fields.evaluation_id().map(ToOwned::to_owned),
            time: text("timestamp").or_else(|| text("start_time")),
            status: fields.number("status").or(fields.number("response_code")),
            model: text("model"),
            version: text("version"),
            output_hash: text("model_output_hash"),
            decided,
        });
    }
    Ok(found)
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
        let named = match id {
            Id::Trace(_) => self.trace_id(),
            Id::Evaluation(_) => self.evaluation_id(),
        };
        named == Some(digits)
    }

    fn trace_id(&self) -> Option<&'a str> {
        self.text("trace_id").or_else(|| self.of_parent(1))
    }

    fn evaluation_id(&self) -> Option<&'a str> {
        self.text("evaluation_id").or_else(|| self.of_parent(2))
    }

    /// A part of the header `traceparent`.
    fn of_parent(&self, part: usize) -> Option<&'a str> {
        self.text("traceparent")?.split('-').nth(part)
    }

    /// What was decided; `None` when the line has nothing of that kind.
    fn decided(&self) -> Result<Option<EvaluationContext>, String> {
        if let Some(pairs) = self.text("halftone") {
            return of_pairs(pairs).and_then(|decided| checked(&decided)).map(Some);
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
        checked(&decided).map(Some)
    }
}

/// Only what a filter can have written is asked after: of one line that is refused the others would not be told.
fn checked(decided: &EvaluationContext) -> Result<EvaluationContext, String> {
    read(&URL_SAFE_NO_PAD.encode(decided.encode_to_vec()))
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

    fn search(text: &str, id: &str) -> Search {
        super::search(text.as_bytes(), &id.parse().unwrap()).unwrap()
    }

    #[test]
    fn both_logs_say_the_same() {
        let backend = format!(
            r#"{{"timestamp":"2026-01-31T08:00:00Z","target":"access","status":200,"model":"digits","version":"2","model_output_hash":"83c0b1f1a5a4f7d2","halftone.target":"v2","halftone.ruleset":"digits","halftone.revision":3,"halftone.rule":"canary","halftone.unit_hash":"00f067aa0ba902b7","halftone.arm":"treatment","halftone.epoch":2,"halftone.bucket":31337,"halftone.reason":"SPLIT","halftone.overridden":true,"trace_id":"{TRACE}","evaluation_id":"{EVALUATION}"}}"#
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
            trace_id: Some(TRACE.into()),
            evaluation_id: Some(EVALUATION.into()),
            time: Some("2026-01-31T08:00:00Z".into()),
            status: Some(200),
            decided: Some(decided.clone()),
            ..Line::default()
        };
        let answered = |line| Line {
            model: Some("digits".into()),
            version: Some("2".into()),
            output_hash: Some("83c0b1f1a5a4f7d2".into()),
            ..line
        };
        for id in [TRACE, EVALUATION] {
            let lines = [answered(line(3, &of_backend)), line(5, &of_envoy)].into();
            assert_eq!(search(&text, id), Search { lines, count: 5, ..Search::default() }, "{id}");
        }
        assert_eq!(search(&text, "00f067aa0ba902b7").lines, [], "a unit is no evaluation");
    }

    #[test]
    fn lines_that_cannot_be_read_are_told_and_hide_no_others() {
        let good = format!("{{\"trace_id\":\"{TRACE}\",\"halftone\":\"ruleset=r\"}}");
        let bad = |fields: &str| format!("{{\"trace_id\":\"{TRACE}\",{fields}}}");
        for (line, problem) in [
            (bad(r#""halftone":"ruleset""#), r#"`halftone`: "ruleset" is no pair"#),
            (bad(r#""halftone":"revision=x""#), r#"`revision` is "x""#),
            (bad(r#""halftone":"revision=1""#), "it names no ruleset"),
            (bad(r#""halftone":"ruleset=\u001b[2J""#), "`ruleset` has a control character"),
            (bad(r#""halftone.ruleset":"r","halftone.bucket":-1"#), r#"`bucket` is "-1""#),
            (bad(r#""halftone.ruleset":"r","halftone.reason":"WHIM""#), r#"`reason` is "WHIM""#),
            (
                bad(&format!(r#""halftone":"ruleset=r rule={}""#, "x".repeat(600))),
                "`rule` has 600 bytes, more than 512",
            ),
            (format!("{{\"trace_id\":\"{TRACE}\","), "it is no JSON object"),
            ("x".repeat(3 * LONGEST), "it has more than 1048576 bytes"),
        ] {
            let found = search(&format!("\n{line}\n{good}\n{line}\n{good}"), TRACE);
            let lines: Vec<u64> = found.lines.iter().map(|line| line.line).collect();
            let said = format!("2 lines could not be read, the first is line 2: {problem}");
            assert_eq!((lines, found.count), (vec![3, 5], 5), "{problem}");
            assert_eq!(found.unread.map(|unread| unread.to_string()), Some(said));
        }
        let one = search("0af7651916cd43dd8448eb211c80319c", TRACE).unread.unwrap().to_string();
        assert_eq!(one, "line 1 could not be read: it is no JSON object");
        let undecided = search(&bad("\"halftone\":null"), TRACE);
        assert_eq!((undecided.lines[0].decided.as_ref(), undecided.unread), (None, None));
        let endless = BufReader::new(io::repeat(0));
        let endless = format!("{:#}", super::search(endless, &TRACE.parse().unwrap()).unwrap_err());
        assert!(endless.starts_with("it cannot be read: a line has more"), "{endless}");
    }

    #[test]
    fn the_newest_lines_are_shown_of_a_trace_that_has_many() {
        let text: String = (0..150).map(|_| format!("{{\"trace_id\":\"{TRACE}\"}}\n")).collect();
        let found = search(&format!("\u{feff}{text}"), TRACE);
        assert_eq!((found.lines.len(), found.lines[0].line, found.more), (100, 51, true));
        let packed = super::search(&[0x1f, 0x8b, 8, 0][..], &TRACE.parse().unwrap()).unwrap_err().to_string();
        assert!(packed.starts_with("it is compressed: unpack it first"), "{packed}");
    }
}
