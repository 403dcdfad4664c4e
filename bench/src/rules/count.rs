//! Instructions per decision, counted by valgrind's callgrind: the same on every machine of an architecture.

use super::{Headers, Values, decide, ruleset};
use crate::rulesets::bundle;
use anyhow::{Context, Result, ensure};
use halftone_rules::codec;
use std::{path::PathBuf, process::Command};

/// Decisions in a counted run. What happens around them is subtracted by a run without any.
const DECISIONS: u32 = 1_000;

/// Decides `decisions` times by a ruleset, from headers or from values that are `ready`; run under callgrind.
pub(crate) fn probe(name: &str, ready: bool, decisions: u32) -> Result<()> {
    let verified = codec::decode(&bundle(&ruleset(name)?)?)?;
    let request = Headers::new();
    let values = Values::new(&verified, &request)?;
    for _ in 0..decisions {
        if ready {
            decide(&verified, &values);
        } else {
            decide(&verified, &request);
        }
    }
    Ok(())
}

/// Runs this program under callgrind.
pub(super) struct Counter {
    program: PathBuf,
}

impl Counter {
    /// `None` without valgrind.
    pub(super) fn find() -> Option<Self> {
        let found = Command::new("valgrind").arg("--version").output().ok()?.status.success();
        found.then(|| std::env::current_exe().ok().map(|program| Self { program }))?
    }

    /// Instructions for one decision.
    pub(super) fn per_decision(&self, ruleset: &str, ready: bool) -> Result<f64> {
        let (none, some) =
            (self.instructions(ruleset, ready, 0)?, self.instructions(ruleset, ready, DECISIONS)?);
        #[allow(clippy::cast_precision_loss, reason = "a difference of millions")]
        let difference = some.saturating_sub(none) as f64;
        Ok(difference / f64::from(DECISIONS))
    }

    fn instructions(&self, ruleset: &str, ready: bool, decisions: u32) -> Result<u64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(&self.program)
            .args(["--probe", ruleset, "--decisions", &decisions.to_string()])
            .args(ready.then_some("--ready"))
            .output()?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "valgrind failed: {log}");
        let collected = log.lines().find_map(|line| line.split_once("Collected : ")).context("no count")?;
        Ok(collected.1.trim().parse()?)
    }
}
