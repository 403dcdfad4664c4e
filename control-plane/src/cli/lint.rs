//! `halftone lint`

use super::{Format, Source};
use anyhow::Result;
use clap::Args;
use halftone_compiler::{Diagnostic, Severity, render};
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
    diagnostics: &'a [Diagnostic],
}

impl LintArgs {
    /// Prints every problem. Exits with 1 when there are errors, with 2 when there are warnings and
    /// `--deny-lints`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let sources = self.files.iter().map(|file| Source::read(file)).collect::<Result<Vec<_>>>()?;
        let reports: Vec<Report<'_>> = sources
            .iter()
            .map(|source| Report { file: &source.file, diagnostics: source.diagnostics() })
            .collect();
        match self.format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&reports)?),
            Format::Text => {
                for source in &sources {
                    print!("{}", render(&source.file, &source.text, source.diagnostics()));
                }
            }
        }
        let count = |severity| {
            let of =
                |report: &Report<'_>| report.diagnostics.iter().filter(|d| d.severity == severity).count();
            reports.iter().map(of).sum::<usize>()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        if self.format == Format::Text {
            println!("files: {}, errors: {errors}, warnings: {warnings}", reports.len());
        }
        Ok(match (errors, warnings) {
            (1.., _) => ExitCode::FAILURE,
            (0, 1..) if self.deny_lints => ExitCode::from(2),
            _ => ExitCode::SUCCESS,
        })
    }
}
