//! A worker whose VM fails, by a test build of the filter that traps when a request asks for it: what the shipped
//! failure policy makes of it. `docs/envoy.md` has what the other policies would.

use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Answering, Envoy, Paths, Stack, digits,
    traffic::{Traffic, client, failures},
};
use reqwest::Client;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What the test build listens to.
const TRAP: &str = "x-test-trap";

/// A stack whose proxies run the test build.
async fn start(workers: usize) -> Result<Stack> {
    let mut paths = Paths::find()?;
    paths.filter.clone_from(&paths.trapping_filter);
    Stack::start_with(paths, 1, workers).await
}

/// Makes the worker trap that has this connection.
async fn trap(client: &Client, envoy: &Envoy) -> Result<u16> {
    let response = client.get(envoy.infer_url()).header(TRAP, "1").send().await?;
    Ok(response.status().as_u16())
}

async fn reloads(envoy: &Envoy) -> Result<u64> {
    envoy.stat("wasm.halftone.vm_reload_success").await
}

#[tokio::test]
async fn a_trap_costs_the_request_that_made_it_and_nobody_else() -> Result<()> {
    let stack = start(2).await?;
    let envoy = &stack.envoys[0];
    let digits = Arc::new(digits::test_set()?);
    stack.publish("digits", &stack.canary(0.5)).await?;
    let traffic = Traffic::start(&[envoy.infer_url()], &digits, 6, Duration::from_millis(2), 1_000)?;
    let mut traps = 0;
    // Now and then, and then one after the other: the back-off is over before the next request comes.
    for pause in [Duration::from_millis(100), Duration::ZERO] {
        for _ in 0..15 {
            // A connection of its own each time, for any of the workers.
            assert_eq!(trap(&client()?, envoy).await?, 503);
            traps += 1;
            tokio::time::sleep(pause).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let exchanges = traffic.stop().await?;
    let failed = failures(&exchanges);
    ensure!(exchanges.len() > 300, "too little load: {}", exchanges.len());
    // What waits for its answer on a worker that traps fails with it, see below: here at most the six connections' half.
    ensure!(failed.len() <= traps * 3, "{} of {} failed", failed.len(), exchanges.len());
    // Everybody else is decided as before: the VM is back with its rules before the worker's next request.
    let undecided =
        exchanges.iter().filter(|other| other.status == Ok(200) && other.target.is_none()).count();
    assert_eq!(undecided, 0);
    // Whoever comes next on a worker has it reloaded, so a trap that nobody followed is not reloaded yet.
    let reloaded = reloads(envoy).await?;
    ensure!(reloaded > 0 && envoy.log().contains("unreachable"), "nothing trapped");

    // Reports and updates go on: both workers and the main thread. A VM that failed cannot say so, and is forgotten later.
    let revision = stack.publish("digits", &stack.canary(1.0)).await?;
    let start = Instant::now();
    loop {
        let nodes = stack.control_plane()?.get("/v1/nodes").await?;
        let workers = nodes[0]["workers"].as_array().context("no workers")?;
        if workers.iter().filter(|worker| worker["revision"] == revision).count() == 3 {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "{nodes}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn what_waits_for_an_answer_on_a_worker_that_traps_fails_with_it() -> Result<()> {
    let stack = start(1).await?;
    let envoy = &stack.envoys[0];
    let backend = Answering::start().await?;
    let ruleset = format!(
        "version: v1\ntargets: {{slow: {{endpoints: [\"{}\"]}}}}\ndefault: slow\nrules: []\n",
        backend.address
    );
    stack.publish("digits", &ruleset).await?;
    backend.hold();
    let waiting: Vec<_> =
        (0..4).map(|_| Ok(tokio::spawn(client()?.get(envoy.infer_url()).send()))).collect::<Result<_>>()?;
    while backend.requests() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = client()?;
    assert_eq!(trap(&client, envoy).await?, 503);
    backend.let_go();
    let mut statuses = Vec::new();
    for request in waiting {
        statuses.push(request.await??.status().as_u16());
    }
    assert_eq!(statuses, [503; 4]);
    let next = client.get(envoy.infer_url()).send().await?;
    assert_eq!(next.status(), 200);
    assert_eq!(next.headers().get("x-halftone-target").context("undecided")?, "slow");
    Ok(())
}
