//! Which version serves whom, through real Envoy.

use anyhow::{Context, Result};
use halftone_tests::{
    Stack, digits,
    traffic::{Exchange, assignment, by_target, client, failures, is_binomial, replay, send},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;

fn share(exchanges: &[Exchange], target: &str) -> usize {
    by_target(exchanges).get(target).map_or(0, Vec::len)
}

#[tokio::test]
async fn the_split_is_the_rules_share_and_the_named_version_really_answers() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    stack.publish("digits", &stack.canary(0.25)).await?;
    let exchanges = replay(&urls, &digits, 1..=4_000, 8).await?;
    assert!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges).first());
    let to_v2 = share(&exchanges, "v2");
    assert!(is_binomial(to_v2, exchanges.len(), 0.25), "{to_v2} of {}", exchanges.len());
    for exchange in &exchanges {
        let version = exchange.version.as_deref().context("no version")?;
        assert_eq!(exchange.target, Some(format!("v{version}")), "user {}", exchange.user);
    }

    // The document's minimal form: no targets of its own, so the mesh routes by the header.
    let minimal = "version: v1\nrules:\n  - {name: user-id-mod100, condition: user.id % 100 < 10, weight: 0.1, target: v2}\n";
    stack.publish("digits", minimal).await?;
    let exchanges = replay(&urls, &digits, 1..=4_000, 8).await?;
    assert!(failures(&exchanges).is_empty());
    let to_v2 = share(&exchanges, "v2");
    assert!(is_binomial(to_v2, 4_000, 0.01), "{to_v2}");
    assert_eq!(share(&exchanges, "default"), 4_000 - to_v2);
    assert!(
        exchanges.iter().all(|exchange| exchange.version.as_deref() == Some("1")),
        "the bootstrap's default"
    );
    Ok(())
}

#[tokio::test]
async fn a_user_gets_the_same_version_from_every_worker_of_every_envoy() -> Result<()> {
    let stack = Stack::start(2, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    stack.publish("digits", &stack.canary(0.5)).await?;
    let mut all = Vec::new();
    for round in 0..6 {
        // Connections of their own each time, spread over the workers by the kernel.
        let urls = [stack.envoys[round % 2].infer_url()];
        all.extend(replay(&urls, &digits, 1..=300, 8).await?);
    }
    assert!(failures(&all).is_empty());
    let assigned = assignment(&all).context("a user got two versions")?;
    assert_eq!(assigned.len(), 300);
    let to_v2 = assigned.values().filter(|target| *target == "v2").count();
    assert!(is_binomial(to_v2, 300, 0.5), "{to_v2}");
    Ok(())
}

#[tokio::test]
async fn widening_moves_nobody_back() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    let mut before = std::collections::HashSet::new();
    for weight in [0.1, 0.3, 1.0] {
        stack.publish("digits", &stack.canary(weight)).await?;
        let exchanges = replay(&urls, &digits, 1..=2_000, 8).await?;
        assert!(failures(&exchanges).is_empty());
        let after: std::collections::HashSet<u64> =
            exchanges.iter().filter(|e| e.target.as_deref() == Some("v2")).map(|e| e.user).collect();
        assert!(is_binomial(after.len(), 2_000, weight), "{} at {weight}", after.len());
        assert!(before.is_subset(&after), "somebody moved back at {weight}");
        before = after;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_cannot_choose_its_version() -> Result<()> {
    let stack = Stack::start(1, 1).await?;
    let digits = digits::test_set()?;
    let url = stack.envoys[0].infer_url();
    let client = client()?;
    let spoofs: [&[(&str, &str)]; 6] = [
        &[("x-halftone-target", "v2")],
        &[("X-Halftone-Target", "v2"), ("x-halftone-target", "v2")],
        &[("x-halftone-route", "xds/digits"), ("x-halftone-target", "v2")],
        &[
            ("x-halftone-route", "xds/digits"),
            ("x-halftone-route", "xds/digits"),
            ("x-halftone-target", "v2"),
        ],
        &[("x-halftone-context", "CAES"), ("x-halftone-target", "v2"), ("x-halftone-anything", "v2")],
        &[("x_halftone_target", "v2"), ("x-halftone-target ", "v2")],
    ];
    // Before there are rules, with rules that decide, and with rules that do not govern the request.
    let elsewhere =
        stack.canary(0.0).replace("default: v1", "default: v1\nmatch: {path_prefixes: [/elsewhere]}");
    for ruleset in [None, Some(stack.canary(0.0)), Some(elsewhere)] {
        if let Some(ruleset) = &ruleset {
            stack.publish("digits", ruleset).await?;
        }
        for (index, spoof) in spoofs.iter().enumerate() {
            let mut headers = HeaderMap::new();
            for (name, value) in *spoof {
                if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                    headers.append(name, HeaderValue::from_str(value)?);
                }
            }
            let exchange = send(&client, &url, 1_000 + index as u64, &digits[0], headers).await;
            assert_eq!(exchange.status, Ok(200), "{spoof:?}");
            assert_eq!(exchange.version.as_deref(), Some("1"), "{spoof:?}");
            assert_ne!(exchange.target.as_deref(), Some("v2"), "{spoof:?}");
        }
    }
    // What reached the backend was never the client's.
    let log = stack.backend(1)?.log_of(3 * spoofs.len()).await?;
    assert!(!log.contains("CAES"), "a spoofed context passed");
    assert!(stack.backend(2)?.log().lines().all(|line| !line.contains("/infer")), "version 2 was reached");
    Ok(())
}

#[tokio::test]
async fn the_backend_logs_the_decision_and_the_trace() -> Result<()> {
    let stack = Stack::start(1, 1).await?;
    let digits = digits::test_set()?;
    let url = stack.envoys[0].infer_url();
    let revision = stack.publish("digits", &stack.canary(1.0)).await?;
    let client = client()?;
    let mut headers = HeaderMap::new();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", HeaderValue::from_static(traceparent));
    assert_eq!(send(&client, &url, 7, &digits[0], headers).await.status, Ok(200));
    assert_eq!(send(&client, &url, 8, &digits[0], HeaderMap::new()).await.status, Ok(200));
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static("00-zero-is-not-a-trace-01"));
    assert_eq!(send(&client, &url, 9, &digits[0], headers).await.status, Ok(200));

    let log = stack.backend(2)?.log_of(3).await?;
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|l: &serde_json::Value| l["path"] == "/v2/models/digits/infer")
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines {
        assert_eq!(line["target"], "access", "{line}");
        assert_eq!(line["halftone.target"], "v2", "{line}");
        assert_eq!(line["halftone.ruleset"], "digits", "{line}");
        assert_eq!(line["halftone.rule"], "canary", "{line}");
        assert_eq!(line["halftone.revision"], revision, "{line}");
    }
    let trace = |index: usize| lines[index]["trace_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(trace(0), "0af7651916cd43dd8448eb211c80319c", "a valid trace goes on");
    for index in [1, 2] {
        assert_eq!(trace(index).len(), 32, "a trace starts where there is none");
    }
    assert_ne!(trace(1), trace(2));
    Ok(())
}
