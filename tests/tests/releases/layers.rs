//! Releases beside each other.

use crate::{SOON, stable};
use anyhow::{Context, Result};
use halftone_tests::{Paths, Stack, digits, traffic::replay};
use serde_json::Value;
use std::sync::Arc;

const USERS: u64 = 3_000;

fn text(candidate: &str, range: &str) -> String {
    format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [{candidate}]\nlayer: models\nrange: {range}\n\
         steps: [{{share: 0.2, hold: {{for: 1h}}}}]\nmetrics: {{error: {{kind: event, role: guardrail}}}}\n"
    )
}

/// Units of all arms of the current epoch.
fn units(release: &Value) -> Result<u64> {
    let arms = release["arms"].as_object().context("arms")?;
    arms.values().map(|arm| arm["units"].as_u64().context("units")).sum()
}

#[tokio::test]
async fn two_releases_of_a_layer_share_no_unit() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 3, 1, 2).await?;
    let ruleset = stable(&stack).replace("rules: []", "layers: {models: {}}\nrules: []");
    stack.publish("digits", &ruleset).await?;
    let control_plane = stack.control_plane()?;
    for (name, candidate, range) in [("second", "v2", "[0, 0.5]"), ("third", "v3", "[0.5, 1]")] {
        control_plane.put_release(name, text(candidate, range)).await?;
        control_plane.wait_for_release(name, SOON, |release| release["phase"] == "running").await?;
    }
    let third = control_plane.release("third").await?;
    let revision = third["epochs"].as_array().and_then(|all| all.last()?["epoch"].as_u64());
    control_plane.wait_until_applied(revision.context("an epoch")?, 1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    replay(&stack.infer_urls(), &digits, 1..=USERS, 4).await?;
    // Everybody is in one of them. A unit that was in both would be counted twice.
    let all = |release: &Value| units(release).unwrap_or_default();
    let second = control_plane.wait_for_release("second", SOON, |release| all(release) > 1_000).await?;
    let third = control_plane.wait_for_release("third", SOON, |release| all(release) + all(&second) >= USERS);
    let third = third.await?;
    assert_eq!(units(&control_plane.release("second").await?)? + units(&third)?, USERS);
    Ok(())
}
