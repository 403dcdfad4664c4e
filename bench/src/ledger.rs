//! The ledger of a real control plane: what it takes in per second of CPU time, memory, and how fast it is read.

use anyhow::{Context, Result, ensure};
use halftone_proto::v1::observations_client::ObservationsClient;
use halftone_tests::{
    ControlPlane, Paths,
    observed::{Request, batch, now_ms, series},
    traffic,
};
use reqwest::{Method, StatusCode};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tonic::transport::Channel;

const UNITS: u64 = 10_000_000;
/// Records of exposures of a batch.
const BATCH: u64 = 20_000;
const SOURCES: u8 = 2;
const READS: usize = 21;

const OUTCOMES: u64 = 1_000_000;
const OUTCOMES_OF_A_BODY: u64 = 50_000;

const RULES: &str = "version: v1\ntargets: {v1: {endpoints: [\"127.0.0.1:1\"]}, v2: {endpoints: [\"127.0.0.1:2\"]}}\n\
                     default: v1\nrules: []\n";
/// A release that everybody is half and half in, and that stays at its only step.
const HALVES: &str =
    "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\nsteps: [{share: 0.5, hold: {for: 24h}}]\n";
/// How long it is looked at to see how long a look takes.
const LOOKED_AT: Duration = Duration::from_secs(15);

const RELEASE: &str = "/v1/observations?ruleset=digits&release=canary";

/// The units of a batch: half of them in each arm, one in a hundred fails.
fn requests(first: u64) -> Vec<Request> {
    let time_ms = now_ms();
    let request = |i: u64| Request {
        unit: i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        time_ms,
        latency: (!i.is_multiple_of(100)).then(|| 0.01 + (i % 977) as f64 / 1e4),
    };
    (first..first + BATCH).map(request).collect()
}

/// Sends the units of a source, each once.
async fn send(mut client: ObservationsClient<Channel>, source: u8, epoch: u64) -> Result<()> {
    let of_source = UNITS / u64::from(SOURCES);
    for index in 0..of_source / BATCH {
        let arm = if index.is_multiple_of(2) { "control" } else { "v2" };
        let first = u64::from(source) * of_source + index * BATCH;
        let observations = vec![series(epoch, arm, &requests(first))];
        client.report(batch(source, index + 1, observations)).await?;
    }
    Ok(())
}

fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// In milliseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// Of sorted ones, in milliseconds.
fn worst(times: &[Duration]) -> f64 {
    times.last().copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// Begins a release; the answer is its epoch.
async fn begin(control_plane: &ControlPlane) -> Result<u64> {
    control_plane.put("digits", RULES).await?;
    let answer = control_plane.request(Method::PUT, "/v1/releases/canary", HALVES).await?;
    answer.error_for_status()?;
    loop {
        let release = control_plane.get("/v1/releases/canary").await?;
        if let Some(epoch) = release["epochs"][0]["epoch"].as_u64() {
            return Ok(epoch);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many looks there were until now, and how many seconds they took together.
async fn looks(admin: &str) -> Result<(f64, f64)> {
    let text = traffic::client()?.get(format!("http://{admin}/metrics")).send().await?.text().await?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        anyhow::Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse::<f64>()?)
    };
    Ok((value("halftone_release_look_seconds_count ")?, value("halftone_release_look_seconds_sum ")?))
}

async fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let serve_flags = ["--admin", "127.0.0.1:0"].map(Into::into).to_vec();
    let paths = Paths { serve_flags, ..Paths::find()? };
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let ready: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("control-plane.ready"))?)?;
    let admin = ready["admin"].as_str().context("no admin address")?.to_owned();
    let epoch = begin(&control_plane).await?;
    let channel = Channel::from_shared(format!("http://{}", control_plane.xds))?.connect().await?;
    let (start, before) = (Instant::now(), control_plane.process().cpu_time()?);
    let resident_before = control_plane.resident_bytes()?;
    let sending: Vec<_> = (0..SOURCES)
        .map(|source| tokio::spawn(send(ObservationsClient::new(channel.clone()), source, epoch)))
        .collect();
    let (mut most, mut meanwhile) = (0, Vec::new());
    while !sending.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(control_plane.resident_bytes()?);
        let start = Instant::now();
        // There is nothing before the first batch.
        control_plane.request(Method::GET, RELEASE, "").await?.bytes().await?;
        meanwhile.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for source in sending {
        source.await??;
    }
    let (took, cpu) = (start.elapsed(), control_plane.process().cpu_time()? - before);
    let records = UNITS as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("ledger: {UNITS} units, each reported once, by {SOURCES} sources in batches of {BATCH}");
    println!(
        "  {:>9.0} records per second of CPU time of the control plane; {:.0} per second that passed, with the clients \
         on the same cores",
        records / cpu.as_secs_f64(),
        records / took.as_secs_f64()
    );
    println!(
        "  {:>9.0} MiB resident at most, {:.0} MiB before; {:.0} MiB on the disk",
        mib(most.max(control_plane.resident_bytes()?)),
        mib(resident_before),
        mib(bytes_in(&folder.path().join("data"))?)
    );
    let mut reads = Vec::with_capacity(READS);
    for _ in 0..READS {
        let start = Instant::now();
        let answer = control_plane.request(Method::GET, RELEASE, "").await?;
        let answer: serde_json::Value = answer.error_for_status()?.json().await?;
        reads.push(start.elapsed());
        let units = |arm: &str| answer["epochs"][0]["arms"][arm]["units"].as_u64();
        let units = units("control").zip(units("v2")).context("an arm is missing")?;
        ensure!(units.0 + units.1 == UNITS, "{units:?}");
    }
    println!(
        "  {:>9.1} ms (median) to read the statistics of the release, {:.1} ms at worst",
        median(&mut reads),
        worst(&reads)
    );
    println!(
        "  {:>9.1} ms (median) and {:.1} ms at worst of {} reads while it takes in as fast as it can",
        median(&mut meanwhile),
        worst(&meanwhile),
        meanwhile.len()
    );
    let before = looks(&admin).await?;
    tokio::time::sleep(LOOKED_AT).await;
    let after = looks(&admin).await?;
    let (count, seconds) = (after.0 - before.0, after.1 - before.1);
    println!("  {:>9.1} ms (mean of {count:.0}) for a look: read, judged, kept", 1e3 * seconds / count);
    measure_outcomes(&control_plane).await?;
    let crashed = control_plane.crash()?;
    let start = Instant::now();
    let control_plane = crashed.start_again().await?;
    println!("  {:>9.1} s to start again after a crash", start.elapsed().as_secs_f64());
    println!("  {:>9.0} MiB resident then", mib(control_plane.resident_bytes()?));
    control_plane.stop()
}

/// Outcomes of two clients at once, in bodies of many.
async fn measure_outcomes(control_plane: &ControlPlane) -> Result<()> {
    let (start, before) = (Instant::now(), control_plane.process().cpu_time()?);
    let send = async |client: u64| {
        for body in 0..OUTCOMES / 2 / OUTCOMES_OF_A_BODY {
            let first = (client * OUTCOMES / 2) + body * OUTCOMES_OF_A_BODY;
            let request = traffic::client()?.post(format!("http://{}/v1/outcomes", control_plane.rest));
            let request = request.header("content-type", "application/x-ndjson").body(outcomes(first));
            let answer = request.send().await?;
            ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
            answer.bytes().await?;
        }
        anyhow::Ok(())
    };
    let (one, other) = tokio::join!(send(0), send(1));
    one.and(other)?;
    let (took, cpu) = (start.elapsed(), control_plane.process().cpu_time()? - before);
    println!(
        "  {:>9.0} outcomes per second of CPU time, of {OUTCOMES} by 2 clients in bodies of {OUTCOMES_OF_A_BODY}; {:.0} per \
         second that passed",
        OUTCOMES as f64 / cpu.as_secs_f64(),
        OUTCOMES as f64 / took.as_secs_f64()
    );
    Ok(())
}

/// A body of outcomes. Their ids come in no order, as random ones do.
fn outcomes(first: u64) -> String {
    let line = |i: u64| {
        let id = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!(
            "{{\"id\":\"{id:032x}\",\"ruleset\":\"digits\",\"release\":\"canary\",\"metric\":\"click\",\"value\":{},\
             \"unit\":\"{i}\"}}\n",
            i % 2
        )
    };
    (first..first + OUTCOMES_OF_A_BODY).map(line).collect()
}

pub(crate) fn run() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}
