//! `halftone simulate`

mod csv;
mod field_map;
mod input;
mod interrupt;
mod json_lines;
mod parquet;
mod pipe;
mod progress;
mod record;
mod rules;
mod text;
mod time;

use super::{Format, print};
use crate::terminal::printable;
use anyhow::{Context, Result, bail};
use clap::Args;
use field_map::{FieldMap, Mapping};
use halftone_compiler::{Simulation, simulate};
use halftone_rules::Timestamp;
use input::{Bad, Input, InputFormat};
use interrupt::Interrupt;
use progress::Progress;
use record::Record;
use rules::Rules;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// How logs are read, for `--help`.
const HELP: &str = "\
Logs:
  Envoy's access logs as JSON lines (.json, .jsonl, .ndjson, .log), CSV with the names in the first row
  (.csv), Parquet (.parquet); JSON lines and CSV also compressed (.gz); `-` is standard input. Lines that
  cannot be read are skipped and told.

How a record becomes a request:
  JSON keys, CSV columns and Parquet columns are the fields of a request:
    method          `:method` or `method`
    path            `x-envoy-original-path`, `:path` or `path`; of a whole URL its path
    authority       `:authority`, `authority` or `host`
    time            `start_time`, `timestamp` or `time`: RFC 3339, or a number of seconds, milliseconds,
                    microseconds or nanoseconds since the epoch, told apart by their size
    client_address  `downstream_remote_address`, `client_address` or `downstream_direct_remote_address`
    header:NAME     every other field, in any case, with `_` for `-` where no field has the exact name;
                    and the members of an object `headers` or `request_headers`
  Of several fields the first one of these lists counts. Numbers and booleans are their text. `-`, null,
  lists and empty cells of CSV mean that there is no value. --map names fields that are called otherwise,
  members of objects with dots: --map header:x-user-id=labels.user --map path=url

The report:
  A unit is what the new rules randomise, and counts once per ruleset and with its last request: its
  requests may go different ways when they differ in more than the unit. Up to 10 million units are
  followed; of further ones only the requests count. Shares are of all requests. Ctrl-C ends the reading
  and reports what was read until then.

Exit code: 0; 1 for errors, also when a log cannot be read to its end or no record at all; 130 after Ctrl-C.";

/// Flags of `halftone simulate`.
#[derive(Args, Debug)]
#[command(after_long_help = HELP)]
pub struct SimulateArgs {
    /// The rules in force: rulesets, or a bundle. Left out: only the new ones are reported.
    #[arg(long, value_name = "FILE")]
    old: Vec<PathBuf>,
    /// The rules to try: rulesets, or a bundle.
    #[arg(long, value_name = "FILE", required = true)]
    new: Vec<PathBuf>,
    /// Name of a ruleset that does not name itself, as it is uploaded under. Shares depend on it. Left out:
    /// the other version's name, or that of the file with the new rules.
    #[arg(long)]
    name: Option<String>,
    /// Access logs; `-` is standard input.
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// Format of the logs. Left out: by their names.
    #[arg(long, value_enum)]
    input_format: Option<InputFormat>,
    /// Field that holds a part of the request, for example `path=url`; see below.
    #[arg(long = "map", value_name = "PART=FIELD")]
    mappings: Vec<Mapping>,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reasons that are told; further lines are only counted.
const REASONS: usize = 5;

/// What is told in the end.
#[derive(Debug, Serialize)]
struct Report {
    /// Why the logs were not read to their end, if they were not.
    partial: Option<String>,
    input: Reading,
    #[serde(flatten)]
    simulation: simulate::Report,
}

/// How the reading went.
#[derive(Debug, Default, Serialize)]
struct Reading {
    /// Records that were decided.
    records: u64,
    /// Records that could not be read.
    skipped: u64,
    /// The first of them.
    reasons: Vec<Reason>,
    /// Records without a time, which are decided as of now.
    without_time: u64,
}

/// Why a record could not be read.
#[derive(Debug, Serialize)]
struct Reason {
    file: String,
    line: u64,
    reason: String,
}

/// What ended the reading before its time.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Interrupt,
    /// A log is damaged: file, line and reason.
    Damage(String),
}

impl SimulateArgs {
    /// Reads all logs and prints the report.
    ///
    /// # Errors
    /// When rules do not compile, a log cannot be opened, or none of the records can be read.
    pub fn run(&self) -> Result<ExitCode> {
        let dash = |paths: &[PathBuf]| paths.iter().filter(|path| *path == Path::new("-")).count();
        if dash(&self.old) + dash(&self.new) + dash(&self.logs) > 1 {
            bail!("standard input can be read only once");
        }
        let simulation = self.simulation()?;
        let interrupt = Interrupt::default();
        let open = |path: &PathBuf| Input::open(path, self.input_format, &interrupt);
        let inputs = self.logs.iter().map(open).collect::<Result<Vec<_>>>()?;
        interrupt.listen().context("Ctrl-C cannot be listened to")?;

        let (report, stop) = self.replay(simulation, inputs, &interrupt);
        if report.input.records == 0 && report.input.skipped > 0 && stop != Some(Stop::Interrupt) {
            bail!("none of the records can be read\n{}", text::reasons(&report.input).trim_end());
        }
        let rendered = match self.format {
            Format::Text => printable(&text::render(&report)),
            Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        };
        print(rendered)?;
        Ok(match stop {
            None => ExitCode::SUCCESS,
            Some(Stop::Damage(_)) => ExitCode::FAILURE,
            Some(Stop::Interrupt) => ExitCode::from(interrupt::EXIT_CODE),
        })
    }

    fn simulation(&self) -> Result<Simulation> {
        let mut new = Rules::read(&self.new)?;
        if let Some(name) = &self.name {
            new.set_name(name);
        }
        if self.old.is_empty() {
            return Ok(Simulation::new(None, new.verified()?));
        }
        let mut old = Rules::read(&self.old)?;
        rules::unify_names(&mut old, &mut new);
        if let (Some(old), Some(new)) = (old.name(), new.name())
            && old != new
        {
            eprintln!(
                "halftone: the old ruleset is called {old} and the new one {new}, so they draw their shares \
                 independently, and nearly every unit moves"
            );
        }
        Ok(Simulation::new(Some(old.verified()?), new.verified()?))
    }

    fn replay(
        &self,
        mut simulation: Simulation,
        inputs: Vec<Input>,
        interrupt: &Interrupt,
    ) -> (Report, Option<Stop>) {
        let map = FieldMap::new(self.mappings.clone());
        let mut record = Record::new(&map);
        let mut reading = Reading::default();
        let mut stop = None;
        let progress = Progress::new(inputs.iter().map(|input| input.length).sum());
        let now = now();
        // Bytes of the logs that are done.
        let mut done = 0;
        for mut input in inputs {
            let ended = loop {
                if interrupt.is_noted() {
                    break Some(Stop::Interrupt);
                }
                let outcome = match input.reader.next(&mut record) {
                    Ok(true) => record.time().map_err(Bad::Record),
                    Ok(false) => break None,
                    Err(bad) => Err(bad),
                };
                match outcome {
                    Ok(time) => {
                        reading.records += 1;
                        reading.without_time += u64::from(time.is_none());
                        simulation.record(&record, Timestamp(time.unwrap_or(now)));
                    }
                    Err(Bad::Record(reason)) => reading.skip(&input, reason),
                    Err(Bad::Rest(reason)) => {
                        let told = format!("{}:{}: {reason}", input.name, input.reader.line());
                        reading.skip(&input, reason);
                        break Some(Stop::Damage(told));
                    }
                }
                progress.show(reading.records + reading.skipped, || done + input.reader.position());
            };
            done += input.length.unwrap_or_default();
            // A damaged log does not keep the next ones from being read.
            stop = ended.or(stop);
            // A pipe ends when the user interrupts.
            if interrupt.is_noted() {
                stop = Some(Stop::Interrupt);
                break;
            }
        }
        progress.finish();
        let partial = stop.as_ref().map(|stop| match stop {
            Stop::Interrupt => "interrupted".to_owned(),
            Stop::Damage(told) => told.clone(),
        });
        (Report { partial, input: reading, simulation: simulation.report() }, stop)
    }
}

impl Reading {
    fn skip(&mut self, input: &Input, reason: String) {
        self.skipped += 1;
        if self.reasons.len() < REASONS {
            let (file, line) = (input.name.clone(), input.reader.line());
            self.reasons.push(Reason { file, line, reason });
        }
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
