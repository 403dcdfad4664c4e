//! `halftone lint`

use super::{Format, Source, print};
use anyhow::Result;
use clap::Args;
use halftone_compiler::{Diagnostic, Member, Severity, conflicts, render};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode};

/// Flags of `halftone lint`.
#[derive(Args, Debug)]
pub struct LintArgs {
    /// Files with rulesets; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Exit with 2 when there are warnings.
    #[arg(long)]
    deny_lints: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The diagnostics of one file.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

/// What there is to say about each file: about itself, and about publishing it together with the others.
fn reports<'a>(sources: &'a [Source]) -> Vec<Report<'a>> {
    let members: Vec<Member<'_>> = sources
        .iter()
        .filter_map(|source| {
            let compiled = source.outcome.as_ref().ok()?;
            Some(Member { file: &source.file, text: &source.text, compiled })
        })
        .collect();
    let mut conflicts = conflicts(&members).into_iter();
    let mut report = |source: &'a Source| {
        let mut diagnostics = source.diagnostics().to_vec();
        if source.outcome.is_ok() {
            diagnostics.extend(conflicts.next().unwrap_or_default());
        }
        diagnostics.sort_by_key(|diagnostic| (diagnostic.place.line, diagnostic.place.column));
        Report { file: &source.file, diagnostics }
    };
    sources.iter().map(&mut report).collect()
}

impl LintArgs {
    /// Prints every problem, also that of rulesets that cannot be published together. Exits with 1 when there are errors, with 2 when there are warnings and
    /// `--deny-lints`.
    ///
    /// # Errors
    /// When a file cannot be read, or the output cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        let sources = self.files.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let reports = reports(&sources);
        let count = |severity| {
            let of =
                |report: &Report<'_>| report.diagnostics.iter().filter(|d| d.severity == severity).count();
            reports.iter().map(of).sum::<usize>()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&reports)? + "\n",
            Format::Text => {
                let rendered = sources
                    .iter()
                    .zip(&reports)
                    .map(|(source, report)| render(&source.file, &source.text, &report.diagnostics));
                let files = reports.len();
                let counts = format!("files: {files}, errors: {errors}, warnings: {warnings}\n");
                rendered.chain([counts]).collect()
            }
        })?;
        Ok(match (errors, warnings) {
            (1.., _) => ExitCode::FAILURE,
            (0, 1..) if self.deny_lints => ExitCode::from(2),
            _ => ExitCode::SUCCESS,
        })
    }
}
