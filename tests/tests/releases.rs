//! Releases on real Envoy: they ramp, are promoted and rolled back by themselves.

use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Paths, Stack, digits,
    traffic::{Traffic, replay},
};
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a thing may take that takes some seconds. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Everybody to version 1.
fn stable(stack: &Stack) -> String {
    format!("version: v1\n{}default: v1\nrules: []\n", stack.targets())
}

async fn put(stack: &Stack, name: &str, text: &str) -> Result<Value> {
    let path = format!("/v1/releases/{name}");
    let answer = stack.control_plane()?.request(Method::PUT, &path, text.to_owned()).await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status.is_success(), "{status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

async fn command(stack: &Stack, name: &str, command: &str) -> Result<(u16, Value)> {
    let path = format!("/v1/releases/{name}:{command}");
    let answer = stack.control_plane()?.request(Method::POST, &path, "").await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

async fn release(stack: &Stack, name: &str) -> Result<Value> {
    stack.control_plane()?.get(&format!("/v1/releases/{name}")).await
}

/// Waits until a release is as wanted.
async fn wait_for(stack: &Stack, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    loop {
        let now = release(stack, name).await?;
        if holds(&now) {
            return Ok(now);
        }
        if start.elapsed() > SOON {
            let decisions = stack.control_plane()?.get(&format!("/v1/releases/{name}/decisions")).await?;
            let of = |value: &Value| format!("{} {}", value["action"], value["why"]);
            let all: Vec<String> =
                decisions["decisions"].as_array().context("a list")?.iter().map(of).collect();
            anyhow::bail!("{name} is not {what}: {}\n{}\n{now:#}", now["phase"], all.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_in(phase: &str) -> impl Fn(&Value) -> bool {
    move |release| release["phase"] == phase
}

#[tokio::test]
async fn a_release_goes_up_its_steps_and_is_promoted_by_itself() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    stack.publish("digits", &stable(&stack)).await?;
    let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\napproval: auto\n\
                steps:\n- {share: 0.1, hold: {for: 1s, units: 20}}\n- {share: 0.5, hold: {for: 1s, units: 20}}\n\
                watch: {for: 3s, control: 0.05}\n\
                metrics: {nan: {kind: event, role: guardrail, ceiling: 0.2}}\n\
                policy: {cycle_s: 1, look_every_s: 1}\n";
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 4, Duration::from_millis(2), 500)?;
    put(&stack, "digits-v2", text).await?;
    let promoted = wait_for(&stack, "digits-v2", "promoted", is_in("promoted")).await?;
    assert_eq!(promoted["winner"], "v2", "{promoted:#}");
    wait_for(&stack, "digits-v2", "settled", |release| {
        release["phase"] == "promoted" && release["waits_for"].is_null()
    })
    .await?;
    let mut exchanges = traffic.stop().await?;
    exchanges.extend(replay(&stack.infer_urls(), &digits, 1..=500, 4).await?);
    let mut before: BTreeMap<u64, bool> = BTreeMap::new();
    for exchange in &exchanges {
        assert_eq!(exchange.status, Ok(200), "{exchange:?}");
        let candidate = exchange.target.as_deref() == Some("v2");
        let was = before.insert(exchange.user, candidate).unwrap_or_default();
        assert!(candidate || !was, "user {} moved back", exchange.user);
    }
    assert!(before.values().all(|candidate| *candidate));
    let decisions = stack.control_plane()?.get("/v1/releases/digits-v2/decisions").await?;
    println!("{decisions:#}");
    let (status, refused) = command(&stack, "digits-v2", "pause").await?;
    assert_eq!(status, 409, "{refused}");
    Ok(())
}
