//! `halftone judge`

mod arms;
mod policy;
mod simulate;
mod svg;

use super::{Format, print, read, word};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use halftone_judge::{
    Judge, Snapshot, State, Verdict,
    policy::{Decision, Test},
};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What is read and told, for `--help`.
const HELP: &str = "\
Data:
  A snapshot as JSON: time since the first exposure, gate, epochs with shares, units and statistics by metric
  (docs/judge.md shows one). Or CSV (.csv) with a row per unit and the names in the first row: `arm` is `control`
  or `treatment`, every other column a metric of the policy; events and proportions are 0 or 1, an empty cell is
  no value. With CSV the arms are taken to be half and half, and a day to have passed; see --elapsed and --share.

State:
  What has to be remembered between two runs (spent level, e-values, times of looks). --state names the file that
  holds it: read when it exists, and written with what the run leaves. Without it each run is the first.

Exit code: 0 for PROMOTE and HOLD, 1 for errors, 3 for ROLLBACK, 4 for INSUFFICIENT_DATA, 5 for INVALID.";

/// Flags of `halftone judge`.
#[derive(Args, Debug)]
#[command(after_long_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct JudgeArgs {
    #[command(subcommand)]
    command: Option<JudgeCommand>,
    /// The policy: YAML or JSON.
    #[arg(long, value_name = "FILE", required = true)]
    policy: Option<PathBuf>,
    /// A snapshot as JSON, or two arms as CSV; `-` is standard input.
    #[arg(required = true, value_name = "DATA")]
    data: Option<PathBuf>,
    /// File with the state; read when it exists, and written.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// With CSV: seconds since the first exposure.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    elapsed: u64,
    /// With CSV: share of treatment among the units of both arms.
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Subcommand, Debug)]
enum JudgeCommand {
    /// Rerun the acceptance simulations, and draw them.
    Simulate(simulate::JudgeSimulateArgs),
}

impl JudgeArgs {
    /// Judges, prints the verdict and writes the state.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the policy, the data or the state are malformed.
    pub fn run(&self) -> Result<ExitCode> {
        if let Some(JudgeCommand::Simulate(args)) = &self.command {
            args.run()?;
            return Ok(ExitCode::SUCCESS);
        }
        let (Some(policy), Some(data)) = (&self.policy, &self.data) else {
            bail!("give a policy and data; see --help");
        };
        if policy == Path::new("-") && data == policy {
            bail!("standard input can be read only once");
        }
        let judge = policy::read(policy)?;
        let snapshot = self.snapshot(&judge, data)?;
        let (verdict, state) = judge.judge(&snapshot, self.read_state()?);
        if let Some(path) = &self.state {
            write_state(path, &state)?;
        }
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&verdict)? + "\n",
            Format::Text => text(&verdict),
        })?;
        Ok(ExitCode::from(match verdict.decision {
            Decision::Promote | Decision::Hold => 0,
            Decision::Rollback => 3,
            Decision::InsufficientData => 4,
            Decision::Invalid => 5,
        }))
    }

    fn snapshot(&self, judge: &Judge, path: &Path) -> Result<Snapshot> {
        let file = path.display();
        let bytes = read(path)?;
        if path.extension().is_some_and(|extension| extension == "csv") {
            if !(self.share > 0.0 && self.share < 1.0) {
                bail!("--share {}: give a share between 0 and 1", self.share);
            }
            return arms::snapshot(judge.policy(), &bytes, self.elapsed, self.share)
                .with_context(|| format!("{file} cannot be judged"));
        }
        json(&bytes).with_context(|| format!("{file} is no snapshot"))
    }

    fn read_state(&self) -> Result<State> {
        match &self.state {
            Some(path) if path.exists() => {
                json(&read(path)?).with_context(|| format!("{} is no state of a judge", path.display()))
            }
            _ => Ok(State::default()),
        }
    }
}

/// JSON, with the path to what has the wrong form.
pub(super) fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)?;
    reader.end().context("there is more behind its end")?;
    Ok(value)
}

/// Beside the old one first, so that a crash leaves one of the two.
fn write_state(path: &Path, state: &State) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, serde_json::to_string(state)? + "\n")
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// The verdict for people: the sentence, what else there is to say, and every test.
fn text(verdict: &Verdict) -> String {
    let mut out = format!("{}\n{}\n", word(&verdict.decision), verdict.sentence);
    if let Some(warning) = &verdict.warning {
        let _ = writeln!(out, "warning: {warning}");
    }
    for cause in verdict.causes.iter().skip(1) {
        let subject = cause.subject.as_deref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let _ = writeln!(out, "also: {subject}{}", cause.detail);
    }
    if let Some(information) = verdict.information {
        let spent =
            verdict.alpha_spent.map(|spent| format!(", {spent:.5} of the level spent")).unwrap_or_default();
        let _ = writeln!(
            out,
            "look {}: {:.1} % of the planned information{spent}",
            verdict.looks,
            100.0 * information
        );
    }
    out.push_str("\nmetric            purpose       test                  estimate    p or 1/E   reached\n");
    verdict.tests.iter().for_each(|test| out.push_str(&row(test)));
    out
}

fn row(test: &Test) -> String {
    let quantile = test.quantile.map(|q| format!(" p{}", 100.0 * q)).unwrap_or_default();
    let method = word(&test.method) + &quantile;
    let estimate = match (test.relative, test.estimate) {
        (Some(relative), _) => format!("{:+.2} %", 100.0 * relative),
        (None, Some(estimate)) => format!("{estimate:+.4}"),
        (None, None) => "-".to_owned(),
    };
    let p = test.shown_p().unwrap_or_else(|| "-".to_owned());
    let reached = if test.reached { "yes" } else { "no" };
    format!(
        "{:<17} {:<13} {method:<21} {estimate:>9} {p:>11}   {reached}\n",
        test.metric,
        word(&test.purpose)
    )
}
