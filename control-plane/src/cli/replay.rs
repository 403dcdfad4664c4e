//! `halftone replay`

use super::{
    client::{Client, ServerArgs, block_on},
    judge::json,
    print, read,
};
use crate::release::{DecisionRecord, record::Replay};
use anyhow::{Context, Result};
use clap::Args;
use halftone_judge::Verdict;
use serde_json::Value;
use std::{fmt::Write, path::PathBuf, process::ExitCode};

/// What `halftone replay` exits with when the verdict is another one.
const DIFFERENT: u8 = 3;

/// Flags of `halftone replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A file with a decision record; `-` is standard input; a number is a record of the control plane.
    #[arg(value_name = "RECORD")]
    record: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

impl ReplayArgs {
    /// Computes the verdict again, from the record alone. Exits with 3 when it is another one.
    ///
    /// # Errors
    /// When there is no such record.
    pub fn run(&self) -> Result<ExitCode> {
        let name = self.record.display().to_string();
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = if is_number && !self.record.exists() {
            let client = Client::new(&self.server)?;
            let found = block_on(client.find(&["v1", "decisions", &name]))?;
            found.with_context(|| format!("there is neither a file nor a decision {name}"))?.into_bytes()
        } else {
            read(&self.record)?
        };
        let record: DecisionRecord = json(&bytes).with_context(|| format!("{name} is no decision record"))?;
        let Some(judged) = &record.judged else {
            print(format!("{} has no verdict: it was decided by {}\n", record.id, record.by))?;
            return Ok(ExitCode::SUCCESS);
        };
        match judged.replay() {
            Replay::Identical => {
                print(format!("{}: identical\n{}\n", record.id, judged.verdict.sentence))?;
                return Ok(ExitCode::SUCCESS);
            }
            Replay::Different(verdict) => print(differences(&record.id, &judged.verdict, &verdict)?)?,
            Replay::Refused(why) => {
                print(format!("{}: the policy is refused by this build: {why}\n", record.id))?;
            }
        }
        Ok(ExitCode::from(DIFFERENT))
    }
}

fn differences(id: &str, recorded: &Verdict, computed: &Verdict) -> Result<String> {
    let mut out = format!("{id}: different\n");
    let before = out.len();
    compare("", &serde_json::to_value(recorded)?, &serde_json::to_value(computed)?, &mut out);
    if out.len() == before {
        out.push_str("the verdict is the same, but what the judge remembers of it is not\n");
    }
    Ok(out)
}

/// Says where two values differ.
fn compare(path: &str, recorded: &Value, computed: &Value, out: &mut String) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (recorded, computed) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&join(key), &of(a), &of(b), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&join(&index.to_string()), a, b, out);
            }
        }
        (a, b) if a != b => {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{path}: recorded {a}, computed {b}");
        }
        _ => {}
    }
}
