//! Data that nothing may follow from.

use crate::{SOON, actions, stable, units};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::EvaluationContext;
use halftone_tests::{
    Paths, Stack, digits,
    observed::now_ms,
    traffic::{self, Traffic, failures, replay},
};
use prost::Message;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const TEXT: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\napproval: auto\n\
    steps:\n- {share: 0.2, hold: {for: 1s, units: 1}}\n- {share: 0.5, hold: {for: 1h}}\n\
    metrics: {error: {kind: event, role: guardrail, ceiling: 0.3}}\npolicy: {cycle_s: 1, look_every_s: 1}\n";

fn data_says(release: &Value, decision: &str) -> bool {
    release["verdicts"]["v2"]["decision"] == decision
}

/// Somebody sends to the candidate's backend past Envoy, with contexts that no proxy wrote.
#[tokio::test]
async fn a_broken_assignment_is_invalid_and_pauses_the_release() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    stack.publish("digits", &stable(&stack)).await?;
    let control_plane = stack.control_plane()?;
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 2, Duration::from_millis(5), 500)?;
    control_plane.put_release("canary", TEXT).await?;
    let running = control_plane
        .wait_for_release("canary", SOON, |release| release["step"] == 2 && units(release, "v2") > 0)
        .await?;
    let epoch = running["epochs"].as_array().and_then(|all| all.last()?["epoch"].as_u64());
    let epoch = epoch.context("an epoch")?;
    let url = format!("http://{}/v2/models/digits/infer", stack.backend(2)?.address);
    let client = traffic::client()?;
    let (mut forged, begun) = (0_u64, Instant::now());
    let paused = loop {
        for _ in 0..100 {
            forged += 1;
            let context = EvaluationContext {
                timestamp_ms: now_ms(),
                ruleset: "digits".to_owned(),
                revision: epoch,
                rule: "canary".to_owned(),
                target: "v2".to_owned(),
                arm: "v2".to_owned(),
                unit_hash: forged.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                epoch,
                ..EvaluationContext::default()
            };
            let request = client.post(&url).header("content-type", "application/json");
            let request =
                request.header("x-halftone-context", URL_SAFE_NO_PAD.encode(context.encode_to_vec()));
            request.body(digits[0].request.clone()).send().await?.error_for_status()?;
        }
        let now = control_plane.release("canary").await?;
        if now["phase"] != "running" {
            break now;
        }
        // What may only be late is waited for half a minute.
        assert!(begun.elapsed() < SOON, "{now:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    traffic.stop().await?;
    assert_eq!(paused["phase"], "paused", "{paused:#}");
    assert!(data_says(&paused, "INVALID"), "{paused:#}");
    assert_eq!(paused["verdicts"]["v2"]["reason"], "srm", "{paused:#}");
    let decisions = control_plane.decisions("canary").await?;
    let last = actions(&decisions).last().copied().context("a record")?;
    assert_eq!((&last["action"], &last["by"]), (&"pause".into(), &"judge".into()), "{last:#}");
    println!("after {forged} forged requests: {}", paused["why"]);
    Ok(())
}

/// The candidate's backend is not there: Envoy answers for it, and nothing is observed of it.
#[tokio::test]
async fn a_candidate_that_does_not_answer_never_goes_on_and_is_taken_back() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    stack.publish("digits", &stable(&stack)).await?;
    stack.backends.pop().context("the candidate's backend")?;
    let control_plane = stack.control_plane()?;
    control_plane.put_release("canary", TEXT).await?;
    let insufficient = |release: &Value| data_says(release, "INSUFFICIENT_DATA");
    // No traffic at all.
    let none = control_plane.wait_for_release("canary", SOON, insufficient).await?;
    assert_eq!(none["phase"], "running");
    // Of stable alone: for longer than the step would take, and then for too long.
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 2, Duration::from_millis(5), 5_000)?;
    let back = control_plane.wait_for_release("canary", SOON, |release| {
        assert!(!data_says(release, "PROMOTE"), "{release:#}");
        release["phase"] == "rolled_back" && !release["safety"]["safe_at_ms"].is_null()
    });
    let back = back.await?;
    traffic.stop().await?;
    assert!(back["why"].as_str().is_some_and(|why| why.starts_with("nothing was heard of v2")), "{back:#}");
    let exchanges = replay(&stack.infer_urls(), &digits, 1..=100, 2).await?;
    assert!(failures(&exchanges).is_empty(), "nobody is sent to it any more");
    let decisions = control_plane.decisions("canary").await?;
    let done = actions(&decisions);
    // The shares do not hold either, which pauses it before.
    let done = done.iter().filter_map(|record| record["action"].as_str()).filter(|action| *action != "pause");
    let done: Vec<_> = done.collect();
    assert_eq!(done, ["create", "start", "rollback", "safe"], "no step was taken: {decisions:#?}");
    Ok(())
}
