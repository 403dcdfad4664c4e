//! The way up, when all is well.

use crate::{SOON, actions, stable};
use anyhow::{Context, Result};
use halftone_tests::{
    Paths, Stack, digits,
    traffic::{Traffic, is_binomial, replay},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

const USERS: u64 = 4_000;
const STEPS: [f64; 5] = [0.01, 0.05, 0.2, 0.5, 0.9];

#[tokio::test]
async fn a_release_goes_up_its_steps_and_is_promoted_by_itself() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 2, 2, 2).await?;
    stack.publish("digits", &stable(&stack)).await?;
    let steps: String =
        STEPS.iter().map(|share| format!("- {{share: {share}, hold: {{for: 1s, units: 20}}}}\n")).collect();
    let text = format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\napproval: auto\nsteps:\n{steps}\
         watch: {{for: 3s, control: 0.05}}\nmetrics: {{nan: {{kind: event, role: guardrail, ceiling: 0.2}}}}\n\
         policy: {{cycle_s: 1, look_every_s: 1}}\n"
    );
    let digits = Arc::new(digits::test_set()?);
    let control_plane = stack.control_plane()?;
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 3, Duration::from_millis(2), USERS)?;
    control_plane.put_release("digits-v2", text).await?;
    // The last sight of each epoch.
    let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
    let promoted = control_plane.wait_for_release("digits-v2", 2 * SOON, |release| {
        let epoch = release["epochs"].as_array().and_then(|all| all.last()?["epoch"].as_u64());
        if let Some(epoch) = epoch {
            seen.insert(epoch, release.clone());
        }
        release["phase"] == "promoted" && release["waits_for"].is_null()
    });
    let promoted = promoted.await?;
    assert_eq!(promoted["winner"], "v2", "{promoted:#}");
    let mut exchanges = traffic.stop().await?;
    // What is settled reaches the workers a moment after it was decided; until then they keep the watch's control.
    let settled = promoted["epochs"].as_array().and_then(|all| all.last()?["epoch"].as_u64());
    control_plane.wait_until_applied(settled.context("an epoch")?, 2, 2).await?;
    // Everybody once more, now that all belong to the candidate.
    exchanges.extend(replay(&stack.infer_urls(), &digits, 1..=USERS, 4).await?);
    let mut was_candidate: HashMap<u64, bool> = HashMap::new();
    for exchange in &exchanges {
        assert_eq!(exchange.status, Ok(200), "{exchange:?}");
        let candidate = exchange.target.as_deref() == Some("v2");
        let was = was_candidate.insert(exchange.user, candidate).unwrap_or_default();
        assert!(candidate || !was, "user {} moved back", exchange.user);
    }
    assert_eq!(was_candidate.len(), usize::try_from(USERS)?);
    let behind: Vec<_> = was_candidate.iter().filter(|(_, now)| !**now).map(|(user, _)| user).collect();
    assert!(behind.is_empty(), "not moved: {behind:?}");

    let decisions = control_plane.decisions("digits-v2").await?;
    let done: Vec<&str> =
        actions(&decisions).iter().map(|record| record["action"].as_str().unwrap_or_default()).collect();
    assert_eq!(done, ["create", "start", "widen", "widen", "widen", "widen", "promote", "settle"]);
    for record in &decisions {
        assert_ne!(record["judged"]["verdict"]["decision"], "INVALID", "{record:#}");
    }
    // Each step, and the watch; what is settled is not split any more.
    let split: Vec<&Value> = seen.values().filter(|release| !release["arms"]["control"].is_null()).collect();
    assert_eq!(split.len(), STEPS.len() + 1);
    for release in split {
        shares_hold(release)?;
    }
    Ok(())
}

/// Each arm has of the units what it should have, and the control as many as the candidate where both have the same share.
fn shares_hold(release: &Value) -> Result<()> {
    let arms = release["arms"].as_object().context("arms")?;
    let units = |arm: &Value| usize::try_from(arm["units"].as_u64().unwrap_or_default());
    let all = arms.values().map(units).sum::<Result<usize, _>>()?;
    for (name, arm) in arms {
        let intended = arm["intended"].as_f64().context("a share")?;
        assert!(is_binomial(units(arm)?, all, intended), "{name}: {arms:?}");
    }
    let (candidate, control) = (&release["arms"]["v2"], &release["arms"]["control"]);
    if candidate["intended"] == control["intended"] {
        let (candidate, control) = (units(candidate)?, units(control)?);
        assert!(is_binomial(candidate, candidate + control, 0.5), "{candidate} and {control}");
    }
    Ok(())
}
