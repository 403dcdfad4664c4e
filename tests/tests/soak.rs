//! Hundreds of changes one after another: every worker follows each of them, no request notices, and nothing grows.

use anyhow::{Context, Result};
use halftone_tests::{
    Stack, digits,
    traffic::{Traffic, by_target, failures},
};
use reqwest::Method;
use std::{sync::Arc, time::Duration};

const WORKERS: usize = 2;

#[tokio::test]
async fn every_worker_follows_each_of_two_hundred_uploads_under_load() -> Result<()> {
    const UPLOADS: u32 = 200;
    let stack = Stack::start(2, WORKERS).await?;
    let digits = Arc::new(digits::test_set()?);
    let control_plane = stack.control_plane()?;
    control_plane.apply("digits", stack.canary(0.5), 2, WORKERS).await?;
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 4, Duration::from_millis(2), 1_000)?;
    for upload in 0..UPLOADS {
        let path = "/v1/rulesets/digits?wait=applied&timeout=30s";
        let answer = control_plane.request(Method::PUT, path, varied(&stack, upload)?).await?;
        let answer: serde_json::Value = answer.error_for_status()?.json().await?;
        let fleet = &answer["fleet"];
        assert_eq!((&fleet["proxies"], &fleet["applied"]), (&2.into(), &2.into()), "{upload}: {answer}");
        let nodes = control_plane.get("/v1/nodes").await?;
        let nodes = nodes.as_array().context("no list")?;
        for node in nodes {
            let workers = node["workers"].as_array().context("no workers")?;
            assert_eq!(workers.len(), WORKERS + 1, "Envoy's main thread is one, too: {node}");
            assert!(workers.iter().all(|worker| worker["revision"] == answer["revision"]), "{node}");
        }
        assert_eq!(nodes.len(), 2);
    }
    let exchanges = traffic.stop().await?;
    let failed = failures(&exchanges);
    assert!(exchanges.len() > 1_000, "too little load: {}", exchanges.len());
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), exchanges.len(), failed[0]);
    let targets: Vec<String> = by_target(&exchanges).into_keys().collect();
    for expected in ["candidate", "only", "v1", "v2"] {
        assert!(targets.contains(&expected.into()), "{targets:?}");
    }
    Ok(())
}

/// Shares move, and every few uploads targets come, go, and are renamed. No two that follow each other are the same.
fn varied(stack: &Stack, upload: u32) -> Result<String> {
    let ruleset = match upload % 6 {
        0 => stack.canary(f64::from(upload) / 200.0),
        1 => stack.canary(0.5).replace("v2", "candidate"),
        2 => format!("version: v1\n{}default: v2\nrules: []\n", stack.targets()),
        3 => stack.canary(0.9).replace("name: canary,", "name: canary, condition: user.id % 2 == 0,"),
        4 => stack.canary(0.5).replace("v2", &format!("v2-{upload}")),
        _ => format!(
            "version: v1\ntargets: {{only: {{endpoints: [\"{}\"]}}}}\ndefault: only\nrules: []\n",
            stack.backend(1)?.address
        ),
    };
    Ok(ruleset)
}

#[tokio::test]
async fn a_thousand_revisions_do_not_grow_anybodys_memory() -> Result<()> {
    /// Until caches and heaps have the size that they need.
    const WARM_UP: u32 = 100;
    const REVISIONS: u32 = 1_000;
    /// What is allowed on top of that. `docs/architecture.md` states it.
    const BOUND: u64 = 8_000_000;

    let mut stack = Stack::start(0, 0).await?;
    stack.add_envoy_of_each_form(WORKERS, stack.control_plane()?.xds).await?;
    let digits = Arc::new(digits::test_set()?);
    let control_plane = stack.control_plane()?;
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 1, Duration::from_millis(10), 1_000)?;
    let resident = || -> Result<Vec<u64>> {
        let envoys = stack.envoys.iter().map(halftone_tests::Envoy::resident_bytes);
        std::iter::once(control_plane.resident_bytes()).chain(envoys).collect()
    };
    let mut before = Vec::new();
    for revision in 1..=WARM_UP + REVISIONS {
        let path = "/v1/rulesets/digits?wait=acked&timeout=30s";
        let answer = control_plane.request(Method::PUT, path, many_rules(&stack, revision)).await?;
        let answer: serde_json::Value = answer.error_for_status()?.json().await?;
        assert_eq!(answer["fleet"]["acked"], 2, "each of them takes each: {answer}");
        if revision == WARM_UP {
            before = resident()?;
        }
        if revision.is_multiple_of(100) {
            println!("after {revision} revisions: {:?}", resident()?);
        }
    }
    let after = resident()?;
    for (who, (before, after)) in
        ["control plane", "by sotw", "by delta"].iter().zip(before.iter().zip(&after))
    {
        assert!(*after < before + BOUND, "{who}: from {before} to {after} bytes in {REVISIONS} revisions");
    }
    let last = control_plane.apply("digits", stack.canary(0.5), 2, WORKERS).await?;
    assert_eq!(last, u64::from(WARM_UP + REVISIONS + 1));
    let exchanges = traffic.stop().await?;
    assert!(failures(&exchanges).is_empty(), "first {:?}", failures(&exchanges)[0]);
    Ok(())
}

/// A hundred rules, whose bundle of about 10 KB is another one each time; every tenth has other clusters, too.
fn many_rules(stack: &Stack, revision: u32) -> String {
    let rule = |rule: u32| {
        let tenant = format!("tenant-{rule}-{revision}");
        format!("  - {{name: of-{tenant}, condition: 'user.tenant == \"{tenant}\"', target: v2}}\n")
    };
    let ruleset = format!(
        "version: v1\n{}default: v1\nrules:\n{}",
        stack.targets(),
        (0..100).map(rule).collect::<String>()
    );
    if revision.is_multiple_of(10) { ruleset.replace("v2", &format!("v2-{revision}")) } else { ruleset }
}
