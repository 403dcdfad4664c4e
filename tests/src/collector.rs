//! Where spans and metrics go: a real OpenTelemetry collector, and behind it a receiver that keeps what comes out.

use crate::{Process, command, paths::fetched, repository};
use anyhow::{Context, Result, bail, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
    trace::v1::Span,
};
use prost::Message;
use std::{
    io::Read,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// How long something may take to arrive. Generous: the machine may be busy with something else.
const ARRIVES: Duration = Duration::from_secs(30);

/// Receives OTLP over HTTP, and keeps it.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Received>,
    metrics: Vec<(Vec<KeyValue>, Metric)>,
}

/// A span, and who sent it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The attributes of its resource.
    pub resource: Vec<KeyValue>,
    /// The span.
    pub span: Span,
}

impl Received {
    /// Its trace, as hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its id, as hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Its parent's id, as hexadecimal digits; empty when it has none.
    #[must_use]
    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// An attribute of it, as text.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }

    /// An attribute of its resource, as text.
    #[must_use]
    pub fn of_resource(&self, key: &str) -> Option<String> {
        attribute(&self.resource, key)
    }
}

/// The value of an attribute, as text.
#[must_use]
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => format!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Receiver {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> Result<Self> {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/v1/traces", post(take_spans))
            .route("/v1/metrics", post(take_metrics))
            .with_state(Arc::clone(&kept));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, kept, server })
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Received> {
        lock(&self.kept).spans.clone()
    }

    /// The spans of a trace, once they are as expected.
    ///
    /// # Errors
    /// When they never are.
    pub async fn trace(&self, id: &str, complete: impl Fn(&[Received]) -> bool) -> Result<Vec<Received>> {
        let start = Instant::now();
        loop {
            let all = self.spans();
            let own: Vec<Received> = all.iter().filter(|span| span.trace() == id).cloned().collect();
            if complete(&own) {
                return Ok(own);
            }
            let names: Vec<&str> = own.iter().map(|span| span.span.name.as_str()).collect();
            ensure!(start.elapsed() < ARRIVES, "trace {id} has {names:?}; there are {} spans", all.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The newest metric of this name for which this gives something.
    ///
    /// # Errors
    /// When none comes.
    pub async fn metric<T>(
        &self,
        name: &str,
        found: impl Fn(&[KeyValue], &Metric) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let told = lock(&self.kept).metrics.iter().rev().find_map(|(resource, metric)| {
                (metric.name == name).then(|| found(resource, metric)).flatten()
            });
            if let Some(told) = told {
                return Ok(told);
            }
            if start.elapsed() > ARRIVES {
                let kept = lock(&self.kept);
                let names: Vec<&str> = kept.metrics.iter().map(|(_, metric)| metric.name.as_str()).collect();
                bail!("no such {name} among {names:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body as it was before it was compressed: the collector compresses, Envoy does not.
fn unpacked(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        flate2::read::GzDecoder::new(body).read_to_end(&mut plain).ok()?;
    } else {
        plain.extend_from_slice(body);
    }
    Some(plain)
}

async fn take_spans(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let request = unpacked(&headers, &body).and_then(|body| ExportTraceServiceRequest::decode(&*body).ok());
    let Some(request) = request else { return StatusCode::BAD_REQUEST };
    for from in request.resource_spans {
        let resource = from.resource.map(|resource| resource.attributes).unwrap_or_default();
        let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
        lock(&kept).spans.extend(spans.map(|span| Received { resource: resource.clone(), span }));
    }
    StatusCode::OK
}

async fn take_metrics(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let request = unpacked(&headers, &body).and_then(|body| ExportMetricsServiceRequest::decode(&*body).ok());
    let Some(request) = request else { return StatusCode::BAD_REQUEST };
    for from in request.resource_metrics {
        let resource = from.resource.map(|resource| resource.attributes).unwrap_or_default();
        let metrics = from.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        lock(&kept).metrics.extend(metrics.map(|metric| (resource.clone(), metric)));
    }
    StatusCode::OK
}

/// A real collector, which passes on what it gets to a [`Receiver`].
pub struct Collector {
    /// What came out of it.
    pub receiver: Receiver,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP over HTTP.
    pub http: SocketAddr,
    /// The running program.
    pub process: Process,
}

impl Collector {
    /// Where the program is.
    ///
    /// # Errors
    /// When it was not fetched.
    pub fn program() -> Result<PathBuf> {
        fetched("HALFTONE_TEST_COLLECTOR", "collector/collector")
    }

    /// Starts one, with its log in `folder`.
    ///
    /// # Errors
    /// When it was not fetched, or does not get ready.
    pub async fn start(folder: &Path) -> Result<Self> {
        let receiver = Receiver::start().await?;
        let [grpc, http] = [free_port()?, free_port()?];
        let mut command = command(&Self::program()?);
        command.arg("start").args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--batch-timeout", "50ms"]);
        command.arg("--otlp-exporter-endpoint").arg(format!("http://{}", receiver.address));
        command.arg("--otlp-grpc-endpoint").arg(grpc.to_string());
        command.arg("--otlp-http-endpoint").arg(http.to_string());
        let mut process = Process::start("collector", command, folder)?;
        process
            .wait_until(ARRIVES, async || {
                let open = async |address| tokio::net::TcpStream::connect(address).await.ok();
                open(grpc).await.zip(open(http).await)
            })
            .await
            .context("the collector")?;
        Ok(Self { receiver, grpc, http, process })
    }
}

/// A port that was free a moment ago: the collector does not say which one it took.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<SocketAddr> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A bootstrap with `envoy/tracing.yaml` in it, and a cluster that leads to a collector, where it takes OTLP over HTTP. `propagates`: whether
/// the tracer sets the headers of the trace.
#[must_use]
pub fn with_tracer(bootstrap: &str, collector: SocketAddr, propagates: bool) -> String {
    let snippet = std::fs::read_to_string(repository().join("envoy/tracing.yaml")).unwrap_or_default();
    let snippet = snippet
        .replace("<service name>", "edge")
        .replace("<collector>", &collector.to_string())
        .replace("<collector cluster>", "collector");
    let snippet = if propagates {
        snippet
    } else {
        snippet.replace("# no_context_propagation", "no_context_propagation")
    };
    let snippet: String = snippet.lines().map(|line| format!("                {line}\n")).collect();
    let manager = "                codec_type: AUTO\n";
    let clusters = "  clusters:\n";
    let (ip, port) = (collector.ip(), collector.port());
    let cluster = format!(
        "    - {{name: collector, type: STATIC, load_assignment: {{cluster_name: collector, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}}}\n"
    );
    bootstrap.replacen(manager, &format!("{manager}{snippet}"), 1).replacen(
        clusters,
        &format!("{clusters}{cluster}"),
        1,
    )
}
