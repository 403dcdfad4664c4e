//! A collector or a Prometheus that is absent, hangs or refuses costs the spans and nothing else.

use anyhow::{Context, Result, ensure};
use axum::{Router, http::HeaderMap};
use halftone_tests::{
    Backend, Paths,
    collector::free_port,
    digits,
    traffic::{self, client},
};
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

/// Each makes seven spans: together more than may wait.
const REQUESTS: u64 = 4_000;
/// What spans that wait may take, at most, with what the allocator keeps of it.
const MOST_BYTES: u64 = 96 << 20;

/// A backend that sends to such a collector, after as many requests as fill whatever can be filled.
async fn after_many_requests(
    protocol: &str,
    collector: SocketAddr,
) -> Result<(Backend, SocketAddr, TempDir)> {
    let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
    let mut paths = Paths::find()?;
    let admin = free_port()?;
    let endpoint = format!("http://{collector}");
    paths.inference_flags = ["--otlp-endpoint", &endpoint, "--otlp-protocol", protocol]
        .into_iter()
        .chain(["--otlp-metrics-interval", "100", "--log", "warn,access=off", "--admin", &admin.to_string()])
        .map(str::to_owned)
        .collect();
    let backend = Backend::start(&paths, folder.path(), 2, 0).await?;
    // Somebody who asks for metrics and never reads them.
    let mut reader = TcpStream::connect(admin)?;
    reader.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(64).as_slice())?;
    let before = backend.resident_bytes()?;
    let url = format!("http://{}/v2/models/digits/infer", backend.address);
    let digit = Arc::new(digits::test_set()?.swap_remove(0));
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let (url, digit, client) = (url.clone(), Arc::clone(&digit), client()?);
        senders.spawn(async move {
            for number in 0..REQUESTS / 8 {
                let traceparent = format!("00-{:032x}-b7ad6b7169203331-01", 1 + sender * REQUESTS + number);
                let mut headers = HeaderMap::new();
                headers.insert("traceparent", traceparent.parse()?);
                let exchange = traffic::send(&client, &url, number, &digit, headers).await;
                ensure!(exchange.status == Ok(200), "{exchange:?}");
            }
            Ok(())
        });
    }
    // A request that waited for the collector would take its ten seconds, and all of them hours.
    let all = async {
        while let Some(sender) = senders.join_next().await {
            sender??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.context("requests wait")??;
    let grown = backend.resident_bytes()?.saturating_sub(before);
    assert!(grown < MOST_BYTES, "{protocol}: {} MiB", grown >> 20);
    drop(reader);
    Ok((backend, admin, folder))
}

/// Spans that were dropped, once there are some.
async fn dropped(admin: SocketAddr) -> Result<u64> {
    let start = std::time::Instant::now();
    loop {
        let text = client()?.get(format!("http://{admin}/metrics")).send().await?.text().await?;
        let count = text.lines().find_map(|line| line.strip_prefix("halftone_spans_dropped_total "));
        let count = count.context("not counted")?.parse()?;
        if count > 0 {
            return Ok(count);
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "nothing is dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is logged of it: one line about spans and one about metrics at most, whatever fails how often.
fn warned(backend: &Backend) -> Vec<String> {
    backend.log().lines().filter(|line| line.contains("the collector")).map(str::to_owned).collect()
}

async fn costs_only_spans(name: &str, protocol: &str, collector: SocketAddr) -> Result<()> {
    let (backend, admin, _folder) = after_many_requests(protocol, collector).await?;
    let dropped = dropped(admin).await?;
    let warned = warned(&backend);
    let about = |what: &str| warned.iter().filter(|line| line.contains(what)).count();
    assert!(about("take spans") <= 1 && about("take metrics") <= 1, "{name}: {warned:#?}");
    assert!(dropped > 0);
    // It ends by itself, and soon.
    tokio::task::spawn_blocking(move || backend.stop()).await??;
    Ok(())
}

#[tokio::test]
async fn an_absent_collector_costs_only_spans() -> Result<()> {
    for protocol in ["grpc", "http/protobuf"] {
        costs_only_spans("absent", protocol, free_port()?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_collector_that_hangs_costs_only_spans() -> Result<()> {
    for protocol in ["grpc", "http/protobuf"] {
        // Connections are taken by the system, and by nobody else.
        let hung = TcpListener::bind("127.0.0.1:0").await?;
        costs_only_spans("hung", protocol, hung.local_addr()?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_collector_that_refuses_costs_only_spans() -> Result<()> {
    let grpc = async || ([("content-type", "application/grpc"), ("grpc-status", "8")], "");
    let http = async || (axum::http::StatusCode::FORBIDDEN, "no");
    for (protocol, router) in
        [("grpc", Router::new().fallback(grpc)), ("http/protobuf", Router::new().fallback(http))]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        costs_only_spans("refuses", protocol, address).await?;
        server.abort();
    }
    Ok(())
}

/// Something else than a collector answers on its port.
#[tokio::test]
async fn noise_in_place_of_a_collector_costs_only_spans() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(&[0x5a; 4_096]);
        }
    });
    costs_only_spans("noise", "grpc", address).await
}
