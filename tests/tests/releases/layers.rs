//! Releases beside each other.

use crate::{SOON, stable};
use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Paths, Stack, digits,
    traffic::{is_binomial, replay},
};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    // Everybody is in one of them. A unit that was in both would be counted twice, and somebody else be missed.
    let begun = Instant::now();
    loop {
        let (second, third) = (control_plane.release("second").await?, control_plane.release("third").await?);
        let (second, third) = (units(&second)?, units(&third)?);
        assert!(second + third <= USERS, "{second} and {third} of {USERS}");
        if second + third == USERS {
            assert!(is_binomial(usize::try_from(second)?, usize::try_from(USERS)?, 0.5), "{second}");
            break;
        }
        ensure!(begun.elapsed() < SOON, "{second} and {third} of {USERS}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
