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
async fn send(mut client: ObservationsClient<Channel>, source: u8) -> Result<()> {
    let of_source = UNITS / u64::from(SOURCES);
    for index in 0..of_source / BATCH {
        let arm = if index.is_multiple_of(2) { "control" } else { "treatment" };
        let first = u64::from(source) * of_source + index * BATCH;
        let observations = vec![series(1, arm, &requests(first))];
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

async fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
    let channel = Channel::from_shared(format!("http://{}", control_plane.xds))?.connect().await?;
    let (start, before) = (Instant::now(), control_plane.process().cpu_time()?);
    let resident_before = control_plane.resident_bytes()?;
    let sending: Vec<_> = (0..SOURCES)
        .map(|source| tokio::spawn(send(ObservationsClient::new(channel.clone()), source)))
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
        let units = units("control").zip(units("treatment")).context("an arm is missing")?;
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
