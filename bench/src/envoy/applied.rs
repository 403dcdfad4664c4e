//! How long after the answer to an upload the last worker of the fleet decides by it, under load.
//!
//! Workers report what they have applied; the control plane notes when the report came. So a time holds the way of the
//! report, too, and is no better than a millisecond.

use super::ms;
use anyhow::{Context, Result};
use halftone_tests::{
    Stack, digits,
    traffic::{Traffic, failures},
};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const UPLOADS: usize = 200;
const ENVOYS: usize = 2;
const WORKERS: usize = 2;
/// When an upload counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run() -> Result<()> {
    let stack = Stack::start(ENVOYS, WORKERS).await?;
    let digits = Arc::new(digits::test_set()?);
    let control_plane = stack.control_plane()?;
    control_plane.apply("digits", stack.canary(0.5), ENVOYS, WORKERS).await?;
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 4, Duration::from_millis(5), 1_000)?;
    let (mut from_answer, mut from_sending) = (Vec::new(), Vec::new());
    for upload in 0..UPLOADS {
        // Shares move, and every other time a target is renamed: the clusters and routes change, too.
        let ruleset = stack.canary(if upload % 4 < 2 { 0.25 } else { 0.75 });
        let ruleset = if upload.is_multiple_of(2) { ruleset } else { ruleset.replace("v2", "candidate") };
        let sent = now_ms()?;
        let revision = control_plane.put("digits", ruleset).await?;
        let answered = now_ms()?;
        let start = Instant::now();
        let applied = loop {
            if let Some(at) = all_applied(&control_plane.get("/v1/nodes").await?, revision) {
                break at;
            }
            anyhow::ensure!(start.elapsed() < PATIENCE, "revision {revision} is not applied everywhere");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        from_answer.push(Duration::from_millis(applied.saturating_sub(answered)));
        from_sending.push(Duration::from_millis(applied.saturating_sub(sent)));
    }
    let exchanges = traffic.stop().await?;
    println!(
        "envoy: until the last worker decides by an upload, {UPLOADS} uploads, {ENVOYS} Envoys with {WORKERS} workers, \
         under load ({} requests, {} failed)",
        exchanges.len(),
        failures(&exchanges).len()
    );
    for (what, mut times) in [("from the PUT's answer", from_answer), ("from sending the PUT", from_sending)]
    {
        times.sort();
        let at = |percent: usize| times.get(times.len() * percent / 100).or(times.last()).copied();
        let at = |percent| at(percent).map(ms).context("nothing measured");
        println!("  {what:<24} p50 {:>4.0} ms   p99 {:>4.0} ms   max {:>4.0} ms", at(50)?, at(99)?, at(100)?);
    }
    Ok(())
}

/// When the last worker applied the revision, in milliseconds since 1970; `None` while one has an older one.
fn all_applied(nodes: &Value, revision: u64) -> Option<u64> {
    let workers: Vec<&Value> =
        nodes.as_array()?.iter().filter_map(|node| node["workers"].as_array()).flatten().collect();
    let there = |worker: &&Value| worker["revision"].as_u64() == Some(revision);
    // Envoy's main thread runs the filter, too.
    let all = workers.len() == ENVOYS * (WORKERS + 1) && workers.iter().all(there);
    all.then(|| workers.iter().filter_map(|worker| worker["since_ms"].as_u64()).max()).flatten()
}

fn now_ms() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
