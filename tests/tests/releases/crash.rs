//! A control plane that is killed again and again.

use crate::{SOON, actions, is_in, stable};
use anyhow::{Context, Result};
use halftone_tests::{
    Paths, Stack, digits,
    traffic::{Traffic, failures},
};
use std::{sync::Arc, time::Duration};

const KILLS: usize = 12;
const STEPS: u32 = 30;

/// Milliseconds below `most`, spread as if by chance and the same in each run.
fn chance(number: usize, most: u64) -> Duration {
    let spread = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(spread % most)
}

#[tokio::test]
async fn killed_at_any_moment_of_a_ramp_it_repeats_and_forgets_nothing() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 2, 1, 2).await?;
    stack.publish("digits", &stable(&stack)).await?;
    let steps: String = (1..=STEPS)
        .map(|step| format!("- {{share: {}, hold: {{for: 1s, units: 5}}}}\n", f64::from(step) / 100.0))
        .collect();
    let text = format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\napproval: auto\nsteps:\n{steps}\
         watch: {{for: 2s, control: 0.05}}\nmetrics: {{nan: {{kind: event, role: guardrail, ceiling: 0.3}}}}\n\
         policy: {{cycle_s: 1, look_every_s: 1}}\n"
    );
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 3, Duration::from_millis(4), 2_000)?;
    stack.control_plane()?.put_release("digits-v2", text).await?;
    let mut running = 0;
    for kill in 0..KILLS {
        tokio::time::sleep(chance(kill, 1_500)).await;
        let now = stack.control_plane()?.release("digits-v2").await?;
        running += usize::from(now["phase"] == "running");
        let control_plane = stack.take_control_plane()?;
        stack.set_control_plane(control_plane.crash_and_restart(chance(kill + KILLS, 300)).await?);
    }
    assert!(running >= 10, "it was through after {running} kills");
    let control_plane = stack.control_plane()?;
    control_plane.wait_for_release("digits-v2", 2 * SOON, is_in("promoted")).await?;
    control_plane.wait_for_release("digits-v2", SOON, |release| release["waits_for"].is_null()).await?;
    let exchanges = traffic.stop().await?;
    let failed = failures(&exchanges);
    assert!(failed.is_empty(), "{} of {}, the first {:?}", failed.len(), exchanges.len(), failed[0]);

    let decisions = control_plane.decisions("digits-v2").await?;
    let done = actions(&decisions);
    let of = |action: &str| done.iter().filter(|record| record["action"] == action).count();
    assert_eq!(of("widen"), usize::try_from(STEPS)? - 1);
    for action in ["create", "start", "promote", "settle"] {
        assert_eq!(of(action), 1, "{action}");
    }
    assert_eq!(done.len(), usize::try_from(STEPS)? + 3);
    let widened: Vec<u64> = done
        .iter()
        .filter(|record| record["action"] == "widen")
        .filter_map(|record| record["step"].as_u64())
        .collect();
    assert_eq!(widened, (2..=u64::from(STEPS)).collect::<Vec<_>>());
    let moved = done.iter().filter(|record| record["action"] != "create");
    let revisions = moved.map(|record| record["revision"].as_u64()).collect::<Option<Vec<u64>>>();
    let revisions = revisions.context("an action without a revision")?;
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    Ok(())
}
