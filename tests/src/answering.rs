//! A backend inside the test: what it answers is the test's to say, and it counts.

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Full};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// The path of its health check.
pub const HEALTH: &str = "/health";
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";
/// `SERVING`, as a gRPC message.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// `NOT_SERVING`.
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];

/// A running backend. It speaks HTTP/1.1 and HTTP/2, and sends gRPC's messages back.
pub struct Answering {
    /// Where it listens.
    pub address: SocketAddr,
    conduct: Arc<Conduct>,
    server: JoinHandle<()>,
}

/// What it does, and what it has seen.
struct Conduct {
    requests: AtomicU64,
    failed: AtomicU64,
    checks: AtomicU64,
    status: AtomicU16,
    /// How many requests are still answered with 503.
    failures: AtomicU64,
    /// How many of a thousand requests are answered with 503.
    failing: AtomicU64,
    well: AtomicBool,
    delay_ms: AtomicU64,
    /// What each request needs to be answered.
    permits: Semaphore,
    version: Mutex<Version>,
    checked_host: Mutex<String>,
}

impl Answering {
    /// Starts one that answers everything with 200 at once.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let conduct = Arc::new(Conduct {
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            status: AtomicU16::new(200),
            failures: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            well: AtomicBool::new(true),
            delay_ms: AtomicU64::new(0),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            version: Mutex::new(Version::HTTP_09),
            checked_host: Mutex::new(String::new()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(conduct.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("a backend of the test broke: {error}");
            }
        });
        Ok(Self { address, conduct, server })
    }

    /// The requests that it got, without health checks.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.conduct.requests.load(Ordering::SeqCst)
    }

    /// The requests that it answered with 503 because of [`Self::fail`] or [`Self::fail_of_thousand`].
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.conduct.failed.load(Ordering::SeqCst)
    }

    /// The health checks that it got.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.conduct.checks.load(Ordering::SeqCst)
    }

    /// The host that the last health check named.
    #[must_use]
    pub fn checked_host(&self) -> String {
        self.conduct.checked_host.lock().map(|host| host.clone()).unwrap_or_default()
    }

    /// The HTTP version of the last request.
    #[must_use]
    pub fn version(&self) -> Version {
        self.conduct.version.lock().map_or(Version::HTTP_09, |version| *version)
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.conduct.status.store(status, Ordering::SeqCst);
    }

    /// Answers the next so many requests with 503.
    pub fn fail(&self, requests: u64) {
        self.conduct.failures.store(requests, Ordering::SeqCst);
    }

    /// Answers so many of a thousand requests with 503 from now on: the same ones in each run, and in no order.
    pub fn fail_of_thousand(&self, requests: u64) {
        self.conduct.failing.store(requests, Ordering::SeqCst);
    }

    /// What health checks are told from now on.
    pub fn be_well(&self, well: bool) {
        self.conduct.well.store(well, Ordering::SeqCst);
    }

    /// Answers so much later from now on.
    pub fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.conduct.delay_ms.store(delay, Ordering::SeqCst);
    }

    /// Answers nothing more until it is [let go](Self::let_go).
    pub fn hold(&self) {
        self.conduct.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Answers what it held back, and everything that comes.
    pub fn let_go(&self) {
        let held = Semaphore::MAX_PERMITS - self.conduct.permits.available_permits();
        self.conduct.permits.add_permits(held);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(conduct): State<Arc<Conduct>>, request: Request) -> Response {
    let well = conduct.well.load(Ordering::SeqCst);
    match request.uri().path() {
        HEALTH => {
            conduct.checked(&request);
            if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }.into_response()
        }
        GRPC_HEALTH => {
            conduct.checked(&request);
            grpc(Bytes::from_static(if well { SERVING } else { NOT_SERVING }))
        }
        _ => conduct.serve(request).await,
    }
}

impl Conduct {
    fn checked(&self, request: &Request) {
        self.checks.fetch_add(1, Ordering::SeqCst);
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(request.uri().authority().map(|authority| authority.as_str()));
        if let (Some(host), Ok(mut checked)) = (host, self.checked_host.lock()) {
            host.clone_into(&mut checked);
        }
    }

    async fn serve(&self, request: Request) -> Response {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut version) = self.version.lock() {
            *version = request.version();
        }
        let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|ty| ty == "application/grpc");
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        // The one that waits gives back what it got, so that the next one gets it.
        let permit = self.permits.acquire().await;
        drop(permit);
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))).await;
        let fails = |left: u64| left.checked_sub(1);
        // The middle digits of a product, which look like chance.
        let draw = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1_000;
        if draw < self.failing.load(Ordering::SeqCst)
            || self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok()
        {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if is_grpc {
            return grpc(body);
        }
        StatusCode::from_u16(self.status.load(Ordering::SeqCst)).unwrap_or_default().into_response()
    }
}

/// A gRPC answer that is well.
fn grpc(message: Bytes) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}
