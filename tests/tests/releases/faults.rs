//! Candidates that go wrong.

use crate::{SOON, actions, stable, units};
use anyhow::{Context, Result};
use halftone_tests::{
    Paths, Stack,
    digits::{self, Fault},
    traffic::{Asked, Load},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ERRORS: &str = "error: {kind: event, role: guardrail}";
const NAN: &str = "nan: {kind: event, role: guardrail}";
/// Twice as slow is tolerated: two programs on a busy machine differ.
const LATENCY: &str = "latency: {kind: latency, role: guardrail, tolerance: 1}";

/// Each fault begins when requests ask for it; every version but the candidate ignores that.
#[tokio::test]
async fn a_candidate_that_goes_wrong_is_rolled_back_and_gets_nothing_any_more() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 1, 1, 1).await?;
    stack.add_faulty().await?;
    stack.publish("digits", &stable(&stack)).await?;
    for (name, metric, fault, share) in [
        ("half", ERRORS, Fault::Fail, 0.5),
        ("a-fifth", ERRORS, Fault::Fail, 0.2),
        ("a-twentieth", ERRORS, Fault::Fail, 0.05),
        ("no-number", NAN, Fault::Nan, 0.2),
        ("slow", LATENCY, Fault::Slow, 1.0),
    ] {
        goes_wrong(&stack, name, metric, Asked { fault, share }).await.context(name)?;
    }
    Ok(())
}

async fn goes_wrong(stack: &Stack, name: &str, metric: &str, asked: Asked) -> Result<()> {
    let text = format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [v4]\nsteps: [{{share: 0.2, hold: {{for: 1h}}}}]\n\
         metrics: {{{metric}}}\n"
    );
    let control_plane = stack.control_plane()?;
    let (urls, digits) = (stack.infer_urls(), Arc::new(digits::test_set()?));
    // Each request is of a new user: the latency of a unit is that of its first request.
    let load = Load {
        urls: &urls,
        digits: &digits,
        connections: 4,
        pause: Duration::from_millis(8),
        users: u64::MAX,
        tell: None,
    };
    let traffic = load.start()?;
    control_plane.put_release(name, text).await?;
    control_plane.wait_for_release(name, SOON, |release| units(release, "v4") >= 20).await?;
    let begun = Instant::now();
    traffic.ask(Some(asked));
    let rolled_back = |release: &serde_json::Value| release["phase"] == "rolled_back";
    control_plane
        .wait_for_release(name, SOON, |release| {
            rolled_back(release) && !release["safety"]["safe_at_ms"].is_null()
        })
        .await?;
    let (safe, sent) = (Instant::now(), traffic.sent());
    while traffic.sent() < sent + 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let exchanges = traffic.stop().await?;
    let of_candidate = |since: Instant| {
        let later = exchanges.iter().filter(move |exchange| exchange.at > since);
        later.filter(|exchange| exchange.target.as_deref() == Some("v4")).count()
    };
    assert_eq!(of_candidate(safe), 0, "after {safe:?}");
    assert!(of_candidate(begun) > 0);
    let stable = exchanges.iter().filter(|exchange| exchange.target.as_deref() == Some("v1"));
    for exchange in stable {
        assert_eq!(exchange.status, Ok(200), "stable ignores what it is asked for: {exchange:?}");
    }
    let decisions = control_plane.decisions(name).await?;
    let done = actions(&decisions);
    let [_, start, rollback, safe] = done.as_slice() else { anyhow::bail!("{done:#?}") };
    assert_eq!(
        (&start["action"], &rollback["action"], &safe["action"]),
        (&"start".into(), &"rollback".into(), &"safe".into())
    );
    assert_eq!(
        (&rollback["by"], &rollback["judged"]["verdict"]["decision"]),
        (&"judge".into(), &"ROLLBACK".into())
    );
    let to_safe = safe["time_to_safe_ms"].as_u64().context("the time to safe")?;
    println!("{name}: {}; safe {to_safe} ms after the decision", rollback["why"]);
    Ok(())
}
