//! Releases on real Envoy: they ramp, are promoted and rolled back by themselves.

mod crash;
mod faults;
mod goals;
mod lag;
mod layers;
mod ramp;
mod untrustworthy;

use halftone_tests::Stack;
use serde_json::Value;
use std::time::Duration;

/// How long a thing may take that takes some seconds. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(120);

/// Everybody to version 1.
fn stable(stack: &Stack) -> String {
    format!("version: v1\n{}default: v1\nrules: []\n", stack.targets())
}

fn is_in(phase: &str) -> impl Fn(&Value) -> bool {
    move |release| release["phase"] == phase
}

/// Units of an arm in the current epoch.
fn units(release: &Value, arm: &str) -> u64 {
    release["arms"][arm]["units"].as_u64().unwrap_or_default()
}

/// The records of what was done, without those that only note a verdict.
fn actions(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["action"] != "note").collect()
}
