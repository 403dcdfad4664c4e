//! What traces, metrics and logs cost the inference service at 5,000 requests a second: CPU time of all its threads per request, the
//! smallest and the median of many short runs in turns; and what requests notice of a collector in trouble.

use crate::inference::{context, digit, load::Load, median, server::Server};
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
    /// Of each run: seconds of CPU per request, and the 99 % quantile of the latency in microseconds.
    cpu: Vec<f64>,
    latency: Vec<f64>,
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
    let logs = ["--log", "info", "--log-format", "json"].map(str::to_owned);
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
        ("access log as JSON", logs.to_vec(), plain.traced(0, 1)),
        (
            "traces as by default and the access log as JSON",
            [sends(well).as_slice(), &logs].concat(),
            plain.traced_by_filter(),
        ),
        // How much two of the same differ.
        ("nothing, once more", Vec::new(), plain.traced(0, 1)),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::digits(&paths, &folder, &name.replace([' ', ','], "-"), &flags).await?;
        candidates.push(Candidate { name, server, load, cpu: Vec::new(), latency: Vec::new() });
    }
    for _ in 0..RUNS {
        for Candidate { server, load, cpu, latency, .. } in &mut candidates {
            let before = server.cpu_time()?;
            let report = load.open(server.address, CONNECTIONS, RATE, RUN).await?;
            let used = server.cpu_time()?.saturating_sub(before);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let each = used.as_secs_f64() / report.answered() as f64;
            cpu.push(each);
            latency.push(report.quantile(0.99));
        }
    }
    println!(
        "telemetry: {RATE} requests/s of a digit as JSON, CPU per request, smallest and median of {RUNS} runs in turns; smallest 99 % quantile of the latency"
    );
    let nothing = candidates.first().map_or((f64::NAN, f64::NAN), |nothing| of(&nothing.cpu));
    for Candidate { name, cpu, latency, server, .. } in &candidates {
        let (smallest, median) = of(cpu);
        println!(
            "  {name:<48} {:>6.1} us {:>6.3} times   median {:>6.1} us {:>6.3} times   p99 {:>6.2} ms   {:>4} MiB",
            smallest * 1e6,
            smallest / nothing.0,
            median * 1e6,
            median / nothing.1,
            of(latency).0 / 1000.0,
            server.resident_bytes()? >> 20,
        );
    }
    Ok(())
}

/// The smallest and the median.
fn of(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), median(values.to_vec()))
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
