//! The inference service: how much it answers, how fast, and what it does with more than that.

pub(crate) mod load;
mod observed;
mod peers;
mod raw;
pub(crate) mod server;
mod sink;

use self::{
    load::{Load, Report},
    server::Server,
};
use crate::envoy::static_answer;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::EvaluationContext;
use halftone_tests::{Paths, Stack, digits, observed::now_ms};
use prost::Message;
use std::{net::SocketAddr, time::Duration};

/// How long each load lasts.
const TIME: Duration = Duration::from_secs(5);
/// Loads are repeated, in turns; the median is told.
const ROUNDS: usize = 3;
/// Runs of each with and without observations.
const OBSERVED_RUNS: usize = 60;

pub(crate) fn run() -> Result<()> {
    // The clients get no more than one thread: the servers are to be measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let paths = Paths::find()?;
        let folder = tempfile::tempdir()?;
        lone_client(&paths, &folder).await?;
        throughput(&paths, &folder).await?;
        overload(&paths, &folder).await?;
        observed(&paths, &folder).await?;
        peers::small_model(&paths, &folder).await?;
        peers::large_model(&paths, &folder).await?;
        through_envoy(&paths, &folder).await
    })
}

/// Batching must cost a lone client nothing.
async fn lone_client(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let batched = Server::digits(paths, folder, "batched", &[]).await?;
    let waiting = Server::digits(paths, folder, "waiting", &["--batch-delay-us", "2000"]).await?;
    let alone = Server::digits(paths, folder, "alone", &["--max-batch", "1"]).await?;
    let load = Load::json(&digit()?);
    let mut medians = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (server, medians) in [&alone, &batched, &waiting].into_iter().zip(&mut medians) {
            medians.push(load.closed(server.address, 1, TIME / 2).await?.quantile(0.5));
        }
    }
    let [alone, batched, waiting] = medians.map(median);
    println!("inference: one client, median of a digit as JSON, median of {ROUNDS} rounds in turns");
    println!("  --max-batch 1                                 {alone:>7.0} us");
    println!(
        "  batched                                       {batched:>7.0} us   {:.2} times",
        batched / alone
    );
    println!(
        "  batched, --batch-delay-us 2000                {waiting:>7.0} us   {:.2} times",
        waiting / alone
    );
    Ok(())
}

/// What it costs to report what is observed, in CPU time of all threads of the backend.
async fn observed(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let (to, spool) = (sink::start().await?, folder.path().join("spool"));
    let spool = spool.to_str().context("no path")?;
    let reports = ["--observations-to", &to, "--observations-dir", spool];
    let silent = Server::digits(paths, folder, "silent", &[]).await?;
    let reporting = Server::digits(paths, folder, "reporting", &reports).await?;
    let context = context();
    let load = Load::json(&digit()?).with_context(&context);
    let mut least = [f64::MAX; 2];
    // Many short ones: some of them the machine leaves in peace.
    for _ in 0..OBSERVED_RUNS {
        for (server, least) in [&silent, &reporting].into_iter().zip(&mut least) {
            let before = server.cpu_time()?;
            let report = load.closed(server.address, 4, TIME / 25).await?;
            let used = server.cpu_time()?.saturating_sub(before);
            *least = least.min(used.as_secs_f64() * 1e6 / report.answered() as f64);
        }
    }
    let [silent, reporting] = least;
    println!("inference: CPU time of a digit as JSON, the least of {OBSERVED_RUNS} runs in turns");
    println!("  nothing is reported                           {silent:>7.1} us");
    println!(
        "  reported, with units                          {reporting:>7.1} us   {:.3} times",
        reporting / silent
    );
    observed::run(&context)
}

/// What it answers when 16 connections ask without a pause.
async fn throughput(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let batched = Server::digits(paths, folder, "many", &[]).await?;
    let alone = Server::digits(paths, folder, "many-alone", &["--max-batch", "1"]).await?;
    let digit = digit()?;
    println!(
        "inference: 16 connections without a pause, {} s each; the client shares the cores",
        TIME.as_secs()
    );
    for (name, server, load) in [
        ("JSON", &batched, Load::json(&digit)),
        ("JSON, --max-batch 1", &alone, Load::json(&digit)),
        ("binary tensors", &batched, Load::binary()),
    ] {
        let report = load.closed(server.address, 16, TIME).await?;
        println!("  {name:<28} {report}   {:>5.1} MB", megabytes(server.resident_bytes()?));
    }
    Ok(())
}

/// Five times as many requests as it can answer.
async fn overload(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    // A short queue, so that who is accepted does not wait for long.
    let server = Server::digits(paths, folder, "overload", &["--queue", "64"]).await?;
    let load = Load::json(&digit()?);
    let peak = load.closed(server.address, 64, TIME).await?;
    let excess = load.closed(server.address, 320, TIME).await?;
    let memory = megabytes(server.resident_bytes()?);
    let after = load.closed(server.address, 64, TIME / 5).await?;
    println!("inference: --queue 64, connections without a pause");
    println!("  64                           {peak}");
    println!("  320                          {excess}   {memory:>5.1} MB");
    println!("  64, in the second after      {after}");
    println!(
        "  goodput at five times as many connections is {:.0} % of that before",
        100.0 * excess.rate() / peak.rate()
    );
    Ok(())
}

/// At fixed rates through Envoy with the filter, to backends with everything on; beside the backend itself, and beside an
/// Envoy that answers by itself, which shows what is the machine's noise.
async fn through_envoy(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let spool = folder.path().join("spool-{version}");
    let flags = ["--admin", "127.0.0.1:0", "--observations-to", &sink::start().await?, "--observations-dir"];
    let mut everything = Paths::find()?;
    everything.inference_flags = flags.map(str::to_owned).into();
    everything.inference_flags.push(spool.to_str().context("no path")?.to_owned());
    let stack = Stack::start_with(everything, 1, 2).await?;
    stack.publish("digits", &stack.canary(0.5)).await?;
    let url = stack.envoys[0].infer_url();
    let through = url.split('/').nth(2).context("no address")?.parse()?;
    let nothing = static_answer(paths, folder.path()).await?;
    let direct = Server::digits(paths, folder, "direct", &[]).await?;
    let (load, nothing_asked) = (Load::json(&digit()?), Load::get("/"));
    println!(
        "inference: a digit as JSON at a fixed rate, {} s each, latency from when it was due, the best of {ROUNDS} rounds \
         in turns",
        TIME.as_secs()
    );
    for rate in [500, 5000] {
        let parts = [
            ("Envoy answers by itself", nothing.address, &nothing_asked),
            ("backend", direct.address, &load),
            ("Envoy, filter, backends, all on", through, &load),
        ];
        let mut best: [Option<Report>; 3] = [None, None, None];
        for _ in 0..ROUNDS {
            for ((_, address, load), best) in parts.iter().zip(&mut best) {
                let report = at_rate(load, *address, rate).await?;
                if best.as_ref().is_none_or(|best| report.quantile(0.99) < best.quantile(0.99)) {
                    *best = Some(report);
                }
            }
        }
        for ((name, ..), best) in parts.iter().zip(best) {
            println!("  {rate:>5}/s {name:<32} {}", best.context("no round")?);
        }
    }
    for backend in &stack.backends {
        println!("  memory of a backend with all on  {:>5.1} MB", megabytes(backend.resident_bytes()?));
    }
    Ok(())
}

async fn at_rate(load: &Load, address: SocketAddr, rate: u32) -> Result<Report> {
    // The first connections and runs are not what is asked about.
    load.open(address, 32, rate, TIME / 5).await?;
    load.open(address, 32, rate, TIME).await
}

/// What the filter tells of a unit in an arm of a rule, now.
pub(crate) fn context() -> String {
    let context = EvaluationContext {
        timestamp_ms: now_ms(),
        ruleset: "digits".into(),
        revision: 7,
        rule: "trial".into(),
        target: "v2".into(),
        unit_hash: 42,
        arm: "candidate".into(),
        ..EvaluationContext::default()
    };
    URL_SAFE_NO_PAD.encode(context.encode_to_vec())
}

pub(crate) fn digit() -> Result<String> {
    Ok(digits::test_set()?.swap_remove(0).request)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[allow(clippy::cast_precision_loss, reason = "to be read by people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
