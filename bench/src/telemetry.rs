//! What traces, metrics and logs cost the inference service at 5,000 requests a second: CPU time of all its threads per request, the
//! smallest of many short runs in turns; and what requests notice of a collector in trouble.

use crate::inference::{context, digit, load::Load, server::Server};
use anyhow::Result;
use halftone_tests::{
    Paths,
    collector::{Collector, free_port},
};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;

const RATE: u32 = 5_000;
const CONNECTIONS: u32 = 16;
/// A run: short, so that some are left alone by whatever else the machine does.
const RUN: Duration = Duration::from_millis(500);
const RUNS: usize = 40;

/// A server, and what is sent to it.
struct Candidate {
    name: &'static str,
    server: Server,
    load: Load,
    /// Seconds of CPU per request, and the 99 % quantile of the latency in microseconds: the smallest of each.
    best: (f64, f64),
}

pub(crate) fn run() -> Result<()> {
    // The clients get no more than one thread: the servers are to be measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let (paths, folder) = (Paths::find()?, tempfile::tempdir()?);
    let collector = Collector::start(folder.path()).await?;
    let hung = TcpListener::bind("127.0.0.1:0").await?;
    let refusing = refusing().await?;
    let (well, absent) = (collector.grpc, free_port()?);
    let plain = Load::json(&digit()?).with_context(&context());
    let sends = |to: SocketAddr| {
        ["--otlp-endpoint".to_owned(), format!("http://{to}"), "--otlp-metrics-interval=1000".to_owned()]
    };
    let mut candidates = Vec::new();
    for (name, flags, load) in [
        ("nothing", Vec::new(), plain.traced(0, 1)),
        ("metrics pushed, no trace sampled", sends(well).to_vec(), plain.traced(0, 1)),
        ("1 of 100 traces sampled", sends(well).to_vec(), plain.traced(1, 100)),
        ("1 of 10 traces sampled", sends(well).to_vec(), plain.traced(1, 10)),
        ("as it is by default, traces begin in the filter", sends(well).to_vec(), plain.traced_by_filter()),
        ("every trace sampled by clients", sends(well).to_vec(), plain.traced(1, 1)),
        ("every trace, collector absent", sends(absent).to_vec(), plain.traced(1, 1)),
        ("every trace, collector hung", sends(hung.local_addr()?).to_vec(), plain.traced(1, 1)),
        ("every trace, collector refuses", sends(refusing).to_vec(), plain.traced(1, 1)),
        (
            "access log as JSON",
            ["--log", "info", "--log-format", "json"].map(str::to_owned).to_vec(),
            plain.traced(0, 1),
        ),
        // How much two of the same differ.
        ("nothing, once more", Vec::new(), plain.traced(0, 1)),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::digits(&paths, &folder, &name.replace([' ', ','], "-"), &flags).await?;
        candidates.push(Candidate { name, server, load, best: (f64::INFINITY, f64::INFINITY) });
    }
    for _ in 0..RUNS {
        for Candidate { server, load, best, .. } in &mut candidates {
            let before = server.cpu_time()?;
            let report = load.open(server.address, CONNECTIONS, RATE, RUN).await?;
            let used = server.cpu_time()?.saturating_sub(before);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let each = used.as_secs_f64() / report.answered() as f64;
            *best = (best.0.min(each), best.1.min(report.quantile(0.99)));
        }
    }
    println!(
        "telemetry: {RATE} requests/s of a digit as JSON, CPU per request and 99 % quantile of the latency, smallest of {RUNS} runs in turns"
    );
    let off = candidates.first().map_or(f64::NAN, |nothing| nothing.best.0);
    for Candidate { name, best: (cpu, p99), server, .. } in &candidates {
        println!(
            "  {name:<50} {:>6.1} us  {:>6.3} times   p99 {:>6.2} ms   {:>4} MiB",
            cpu * 1e6,
            cpu / off,
            p99 / 1000.0,
            server.resident_bytes()? >> 20,
        );
    }
    Ok(())
}

/// A collector that takes nothing.
async fn refusing() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let refuse = async || {
        ([("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-message", "no room")], "")
    };
    let router = axum::Router::new().fallback(refuse);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
