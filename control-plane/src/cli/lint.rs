//! `halftone lint`

use super::{Format, Source, print, read};
use crate::{
    release::{self, Document},
    terminal::printable,
};
use anyhow::Result;
use clap::Args;
use halftone_compiler::{Diagnostic, Member, Severity, conflicts, render};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Flags of `halftone lint`.
#[derive(Args, Debug)]
pub struct LintArgs {
    /// Files with rulesets and releases; `-` is standard input. Of releases the form is checked: what their rulesets have
    /// is known to the control plane.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Exit with 2 when there are warnings.
    #[arg(long)]
    deny_lints: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A file that is checked.
enum Linted {
    Ruleset(Box<Source>),
    Release { file: String, text: String, diagnostics: Vec<Diagnostic> },
}

/// The diagnostics of one file.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl Linted {
    fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        // What is neither is told as a ruleset.
        let text = std::str::from_utf8(&bytes).ok();
        let document = text.and_then(|text| Some((text, Document::of(text).ok()?)));
        let Some((text, Document { is_release: true, name, .. })) = document else {
            return Ok(Self::Ruleset(Box::new(Source::new(path, bytes)?)));
        };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "-");
        let name = name.as_deref().or(stem).unwrap_or("release");
        let diagnostics = release::read(text, Some(name)).err().unwrap_or_default();
        Ok(Self::Release { file: path.display().to_string(), text: text.to_owned(), diagnostics })
    }

    fn file(&self) -> &str {
        match self {
            Self::Ruleset(source) => &source.file,
            Self::Release { file, .. } => file,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Ruleset(source) => &source.text,
            Self::Release { text, .. } => text,
        }
    }
}

/// What there is to say about each file: about itself, and about publishing it together with the others.
fn reports<'a>(all: &'a [Linted]) -> Vec<Report<'a>> {
    let members: Vec<Member<'_>> = all
        .iter()
        .filter_map(|linted| {
            let Linted::Ruleset(source) = linted else { return None };
            let compiled = source.outcome.as_ref().ok()?;
            Some(Member { file: &source.file, text: &source.text, compiled })
        })
        .collect();
    let mut conflicts = conflicts(&members).into_iter();
    let report = |linted: &'a Linted| {
        let mut diagnostics = match linted {
            Linted::Ruleset(source) => source.diagnostics().to_vec(),
            Linted::Release { diagnostics, .. } => diagnostics.clone(),
        };
        if matches!(linted, Linted::Ruleset(source) if source.outcome.is_ok()) {
            diagnostics.extend(conflicts.next().unwrap_or_default());
        }
        diagnostics.sort_by_key(|diagnostic| (diagnostic.place.line, diagnostic.place.column));
        Report { file: linted.file(), diagnostics }
    };
    all.iter().map(report).collect()
}

impl LintArgs {
    /// Prints every problem, also that of rulesets that cannot be published together. Exits with 1 when there are errors, with 2 when there are warnings and
    /// `--deny-lints`.
    ///
    /// # Errors
    /// When a file cannot be read, or the output cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        let all = self.files.iter().map(|file| Linted::read(file)).collect::<Result<Vec<_>>>()?;
        let reports = reports(&all);
        let count = |severity| {
            let of =
                |report: &Report<'_>| report.diagnostics.iter().filter(|d| d.severity == severity).count();
            reports.iter().map(of).sum::<usize>()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&reports)? + "\n",
            Format::Text => {
                let rendered = all
                    .iter()
                    .zip(&reports)
                    .map(|(linted, report)| render(linted.file(), linted.text(), &report.diagnostics));
                let files = reports.len();
                let counts = format!("files: {files}, errors: {errors}, warnings: {warnings}\n");
                printable(&rendered.chain([counts]).collect::<String>())
            }
        })?;
        Ok(match (errors, warnings) {
            (1.., _) => ExitCode::FAILURE,
            (0, 1..) if self.deny_lints => ExitCode::from(2),
            _ => ExitCode::SUCCESS,
        })
    }
}
