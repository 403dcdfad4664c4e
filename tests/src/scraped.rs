//! Counters of the test's backends, as Prometheus scrapes them.

use crate::Answering;
use anyhow::Result;
use axum::{Router, extract::State, routing::get};
use std::{
    fmt::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Serves `http_requests_total` and `http_errors_total` by target.
pub struct Scraped {
    /// Where it listens.
    pub address: SocketAddr,
    counted: Arc<Vec<Counted>>,
    server: JoinHandle<()>,
}

/// A backend, and what it had counted when its counters began again.
struct Counted {
    target: String,
    backend: Arc<Answering>,
    requests: AtomicU64,
    failed: AtomicU64,
}

impl Scraped {
    /// Starts to serve what these count, by the names of their targets.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(backends: &[(&str, &Arc<Answering>)]) -> Result<Self> {
        let counted = backends.iter().map(|(target, backend)| Counted {
            target: (*target).to_owned(),
            backend: Arc::clone(backend),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let counted = Arc::new(counted.collect::<Vec<_>>());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/metrics", get(text)).with_state(Arc::clone(&counted));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the counters of the test broke: {error}");
            }
        });
        Ok(Self { address, counted, server })
    }

    /// All counters begin again, as if the backends had.
    pub fn reset(&self) {
        for of in self.counted.iter() {
            of.failed.store(of.backend.failed(), Ordering::SeqCst);
            of.requests.store(of.backend.requests(), Ordering::SeqCst);
        }
    }
}

impl Drop for Scraped {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn text(State(counted): State<Arc<Vec<Counted>>>) -> String {
    let mut text = String::new();
    for of in counted.iter() {
        let failed = of.backend.failed().saturating_sub(of.failed.load(Ordering::SeqCst));
        let requests = of.backend.requests().saturating_sub(of.requests.load(Ordering::SeqCst));
        let target = &of.target;
        // Writing into a text does not fail.
        let _ = writeln!(text, "http_requests_total{{target=\"{target}\"}} {requests}");
        let _ = writeln!(text, "http_errors_total{{target=\"{target}\"}} {failed}");
    }
    text
}
