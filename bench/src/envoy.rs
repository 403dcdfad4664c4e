//! Real Envoy: how long a change takes to be in force on every worker, what the filter weighs, and what a request costs.

mod applied;
mod cost;

use anyhow::{Context, Result};
use halftone_tests::{
    Envoy, EnvoyOptions, Paths, Stack,
    digits::{self, Digit},
    traffic::{client, replay, send},
};
use reqwest::header::HeaderMap;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Changes to measure.
const CHANGES: usize = 40;
/// Connections that watch; the kernel spreads them over the workers.
const WATCHERS: usize = 12;

pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        time_to_force().await?;
        applied::run().await?;
        memory().await?;
        cost::run().await
    })
}

pub(crate) use cost::static_answer;

/// From the PUT to the workers: the first and the last connection that is answered by the new rules.
async fn time_to_force() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let url = stack.envoys[0].infer_url();
    stack.publish("digits", &stack.canary(0.0)).await?;
    let (mut answered, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let (weight, target) = if change % 2 == 0 { (1.0, "v2") } else { (0.0, "v1") };
        let stop = Arc::new(AtomicBool::new(false));
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|_| tokio::spawn(watch(url.clone(), digits.clone(), target, stop.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        stack.control_plane()?.put("digits", stack.canary(weight)).await?;
        answered.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for watcher in watchers {
            seen.push(watcher.await??.saturating_duration_since(start));
        }
        seen.sort();
        first.push(*seen.first().context("no watcher")?);
        last.push(*seen.last().context("no watcher")?);
    }
    println!("envoy: from sending a PUT, {CHANGES} changes, 2 workers, {WATCHERS} connections");
    for (what, times) in [
        ("the PUT is answered", answered),
        ("the first connection has the new rules", first),
        ("the last connection has the new rules", last),
    ] {
        let (median, worst) = median_and_worst(times)?;
        println!("  {what:<40} median {:>6.1} ms   worst {:>6.1} ms", ms(median), ms(worst));
    }
    Ok(())
}

/// When this connection first got the target and then kept getting it.
async fn watch(url: String, digits: Arc<Vec<Digit>>, target: &str, stop: Arc<AtomicBool>) -> Result<Instant> {
    let client = client()?;
    let mut since = None;
    while !stop.load(Ordering::Relaxed) {
        let digit = digits.first().context("no digits")?;
        let exchange = send(&client, &url, 1, digit, HeaderMap::new()).await;
        anyhow::ensure!(exchange.status == Ok(200), "a request failed: {:?}", exchange.status);
        let new = exchange.target.as_deref() == Some(target);
        since = new.then(|| since.unwrap_or(exchange.at));
    }
    since.context("the change did not come into force")
}

/// Resident memory of Envoy after the same traffic, without the filter and with it.
async fn memory() -> Result<()> {
    println!("envoy: resident memory after 4,000 requests");
    for workers in [1, 2] {
        let mut stack = Stack::start(0, 0).await?;
        stack.control_plane()?.put("digits", stack.canary(0.5)).await?;
        let digits = Arc::new(digits::test_set()?);
        stack.add_envoy("with-filter", workers, stack.control_plane()?.xds, 0, 0).await?;
        stack.control_plane()?.wait_for_acks(1, 1).await?;
        let without = Envoy::start(
            &Paths::find()?,
            stack.folder(),
            &EnvoyOptions {
                name: "plain",
                workers,
                xds: stack.control_plane()?.xds,
                xds_form: "sotw",
                default_endpoint: stack.backend(1)?.address,
                port: 0,
                admin: 0,
                edit_bootstrap: without_filter,
            },
        )
        .await?;
        let with = stack.envoys.first().context("no Envoy")?;
        for url in [without.infer_url(), with.infer_url()] {
            replay(&[url], &digits, 1..=4_000, 8).await?;
        }
        let (plain, filtered) = (without.resident_bytes()?, with.resident_bytes()?);
        println!(
            "  {workers} worker(s): {:.1} MB without, {:.1} MB with the filter",
            megabytes(plain),
            megabytes(filtered)
        );
    }
    Ok(())
}

/// The bootstrap without the filter's slot.
fn without_filter(bootstrap: &str) -> String {
    let start = bootstrap.find("                  - name: halftone\n");
    let end = bootstrap.find("                  - name: envoy.filters.http.router\n");
    match (start, end) {
        (Some(start), Some(end)) => format!("{}{}", &bootstrap[..start], &bootstrap[end..]),
        _ => bootstrap.to_owned(),
    }
}

fn median_and_worst(mut times: Vec<Duration>) -> Result<(Duration, Duration)> {
    times.sort();
    Ok((*times.get(times.len() / 2).context("nothing measured")?, *times.last().context("nothing measured")?))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[allow(clippy::cast_precision_loss, reason = "memory of a process is far below 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
