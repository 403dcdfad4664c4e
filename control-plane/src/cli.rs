//! The commands: those that work on files alone, and those that ask a control plane.

mod apply;
mod client;
mod command;
mod compile;
mod decisions;
mod delete;
mod disasm;
mod explain;
mod judge;
mod lines;
mod lint;
mod override_token;
mod plan;
mod replay;
mod schema;
mod simulate;
mod status;
mod trace;

pub use apply::ApplyArgs;
pub use command::CommandArgs;
pub use compile::CompileArgs;
pub use decisions::DecisionsArgs;
pub use delete::DeleteArgs;
pub use disasm::DisasmArgs;
pub use explain::ExplainArgs;
pub use judge::JudgeArgs;
pub use lint::LintArgs;
pub use override_token::OverrideArgs;
pub use plan::PlanArgs;
pub use replay::ReplayArgs;
pub use schema::SchemaArgs;
pub use simulate::SimulateArgs;
pub use status::StatusArgs;
pub use trace::TraceArgs;

use crate::terminal::printable;
use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use halftone_compiler::{Compiled, Diagnostic, compile_file};
use halftone_rules::{codec::MAGIC, limits::MAX_BUNDLE_BYTES};
use serde::Serialize;
use std::{
    io::{self, Read, Write},
    path::Path,
};

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// A ruleset's text and the name it was read from.
struct Source {
    file: String,
    text: String,
    outcome: std::result::Result<Compiled, Vec<Diagnostic>>,
}

/// The bytes of a file; `-` is standard input.
fn read(path: &Path) -> Result<Vec<u8>> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused as too large.
    let limit = halftone_compiler::MAX_TEXT_BYTES.max(MAX_BUNDLE_BYTES) as u64 + 1;
    if file == "-" {
        io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        let opened = std::fs::File::open(path).with_context(|| format!("{file} cannot be read"))?;
        opened.take(limit).read_to_end(&mut bytes).with_context(|| format!("{file} cannot be read"))?;
    }
    Ok(bytes)
}

/// Writes to standard output. Whoever reads it may have seen enough: that is no error.
///
/// # Errors
/// When it cannot be written.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

/// Writes text for people to standard output, without what a terminal would obey. As [`print`].
///
/// # Errors
/// When it cannot be written.
pub fn print_text(text: &str) -> Result<()> {
    print(printable(text))
}

/// Says on standard error what went wrong.
pub fn complain(error: &anyhow::Error) {
    halftone_telemetry::log::say(format_args!("halftone: {}", printable(&format!("{error:#}"))));
}

/// A share, to the hundredth of a percent.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A moment, given in milliseconds since the Unix epoch, to the second.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The word of an enum's value, as JSON has it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

impl Source {
    /// Reads and compiles a file; `-` is standard input. A ruleset that does not name itself is named
    /// after its file.
    fn read(path: &Path) -> Result<Self> {
        Self::new(path, read(path)?)
    }

    /// Compiles what was read from a file.
    fn new(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let file = path.display().to_string();
        if bytes.starts_with(&MAGIC) {
            bail!("{file} is a bundle, and this takes rulesets: `halftone disasm` shows what is in it");
        }
        let text = String::from_utf8(bytes).with_context(|| format!("{file} is not UTF-8"))?;
        let stem =
            path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "-").unwrap_or("ruleset");
        let outcome = compile_file(&text, stem);
        Ok(Self { file, text, outcome })
    }

    /// Compiles it again, under another name if it does not name itself.
    fn compile(&mut self, fallback: &str) {
        self.outcome = compile_file(&self.text, fallback);
    }

    /// All that there is to say about it.
    fn diagnostics(&self) -> &[Diagnostic] {
        match &self.outcome {
            Ok(compiled) => &compiled.warnings,
            Err(diagnostics) => diagnostics,
        }
    }

    /// The program, or an error with all problems as snippets.
    fn compiled(&self) -> Result<&Compiled> {
        match &self.outcome {
            Ok(compiled) => Ok(compiled),
            Err(diagnostics) => {
                let rendered = halftone_compiler::render(&self.file, &self.text, diagnostics);
                bail!("{} does not compile\n{}", self.file, rendered.trim_end());
            }
        }
    }
}
