//! What the demo prints.

use anyhow::{Context, Result};
use halftone_tests::{
    Stack,
    traffic::{Exchange, by_target},
};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// A table with one line per target. `share` is what version 2 should get.
#[allow(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^53")]
pub(crate) fn table(exchanges: &[Exchange], share: f64) {
    println!("  target  requests  intended  observed  accuracy   p50 ms   p99 ms");
    for (target, all) in by_target(exchanges) {
        let intended = if target == "v2" { share } else { 1.0 - share };
        let observed = all.len() as f64 / exchanges.len() as f64;
        let right = all.iter().filter(|exchange| exchange.correct == Some(true)).count() as f64;
        let (p50, p99) = quantiles(&all);
        println!(
            "  {target:<6}  {:>8}  {:>7.1}%  {:>7.1}%  {:>7.1}%  {p50:>7.2}  {p99:>7.2}",
            all.len(),
            intended * 100.0,
            observed * 100.0,
            right / all.len() as f64 * 100.0,
        );
    }
}

/// Median and 99th percentile of the latencies, in milliseconds.
#[allow(clippy::cast_precision_loss, reason = "microseconds of a demo are far below 2^53")]
fn quantiles(exchanges: &[&Exchange]) -> (f64, f64) {
    // Three digits, up to a minute: always valid.
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3) else { return (0.0, 0.0) };
    for exchange in exchanges {
        histogram.saturating_record(u64::try_from(exchange.latency.as_micros()).unwrap_or(u64::MAX));
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    (at(0.5), at(0.99))
}

/// Version 2's share in each half second around the change.
#[allow(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^53")]
pub(crate) fn timeline(exchanges: &[Exchange], change: Instant) {
    const STEP: Duration = Duration::from_millis(500);
    let Some(first) = exchanges.first() else { return };
    // Whole steps from the change, so that no row has requests of before and after it.
    let (mut step, mut start) = (0, change);
    while let Some(earlier) = start.checked_sub(STEP)
        && first.at + STEP / 2 < start
    {
        (step, start) = (step - 1, earlier);
    }
    let mut rest = exchanges;
    println!("      time  requests  failed  share of v2");
    while !rest.is_empty() {
        let count = rest.partition_point(|exchange| exchange.at < start + STEP);
        let (now, later) = rest.split_at(count);
        let v2 = now.iter().filter(|exchange| exchange.target.as_deref() == Some("v2")).count();
        let failed = now.iter().filter(|exchange| exchange.status != Ok(200)).count();
        let share = if now.is_empty() { 0.0 } else { v2 as f64 / now.len() as f64 };
        let offset = f64::from(step) * STEP.as_secs_f64();
        let bar = "█".repeat(v2 * 40 / now.len().max(1));
        println!("  {offset:>+6.1} s  {:>8}  {failed:>6}  {:>5.1}%  {bar}", now.len(), share * 100.0);
        (step, start) = (step + 1, start + STEP);
        rest = later;
    }
}

pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// What to try while everything is up.
pub(crate) fn curl_lines(stack: &Stack, request: &str, trace: &str) -> Result<()> {
    let rest = stack.control_plane()?.rest;
    let envoy = stack.envoys[0].address;
    let admin = stack.envoys[0].admin;
    let metrics = stack.control_plane()?.admin.context("the control plane shows no metrics")?;
    let of_v2 = stack.backend(2)?.admin.context("the backend shows no metrics")?;
    let body = stack.folder().join("digit.json");
    std::fs::write(&body, request)?;
    let here = std::env::current_dir()?;
    let body = body.strip_prefix(&here).unwrap_or(&body).display();
    // Where it is by default it need not be said.
    let server = if rest.port() == 8080 { String::new() } else { format!(" --server http://{rest}") };
    let halftone = &stack.paths().halftone;
    let halftone = halftone.strip_prefix(&here).unwrap_or(halftone).display();
    println!(
        "\nEverything stays up. Try, from another terminal in this folder:\n
  # a digit of user 42: which version answered is in x-halftone-target
  curl -si http://{envoy}/v2/models/digits/infer -H 'content-type: application/json' -H 'x-user-id: 42' -d '@{body}'

  # the releases: where each is, and why; and everything that one decided, with the numbers
  {halftone} status{server}
  curl -s http://{rest}/v1/releases/digits-v3
  curl -s http://{rest}/v1/releases/digits-v3/decisions

  # why a user got v3, while it was released: by the trace id, which answers have in x-halftone-trace
  {halftone} trace {trace}{server}

  # what Prometheus reads: decisions of the filter, shares of the releases, requests of v2
  curl -s http://{admin}/stats/prometheus | grep halftone_decisions_total
  curl -s http://{metrics}/metrics | grep halftone_release_share
  curl -s http://{of_v2}/metrics | grep model_request_total

  # v2 back to v1 by hand
  curl -s -X POST http://{rest}/v1/releases/digits-v2:rollback

  # a rule goes before releases: users below 100 to v1
  curl -s http://{rest}/v1/rulesets/digits | sed 's/rules: .*/rules: [{{name: testers, condition: user.id < 100, target: v1}}]/' | curl -s -X PUT --data-binary @- http://{rest}/v1/rulesets/digits

  # a mistake: the answer says where, and nothing changes
  curl -s http://{rest}/v1/rulesets/digits | sed 's/rules: .*/rules: [{{name: testers, condition: user.id < \"100\", target: v1}}]/' | curl -s -X PUT --data-binary @- http://{rest}/v1/rulesets/digits

  # the proxies and the revision that each runs, and everything that was ever changed
  curl -s http://{rest}/v1/nodes
  curl -s http://{rest}/v1/revisions

Ctrl-C stops every process."
    );
    Ok(())
}
