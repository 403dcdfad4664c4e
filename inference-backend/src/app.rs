//! What the protocols share, and both of them on one port.

use crate::{
    access,
    budget::{self, Budget},
    failure::Failure,
    grpc,
    models::Models,
    rest,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, header},
    middleware,
    response::{IntoResponse, Response},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tonic::Status;
use tonic_health::server::HealthReporter;

/// The extensions of the protocol that are served, as the server's metadata name them.
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// How much of what clients send is taken.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body of a request, in bytes.
    pub one: usize,
    /// All bodies that are there at once, in bytes.
    pub all: usize,
}

/// What the endpoints share.
#[derive(Debug)]
pub struct App {
    /// The models that are served.
    pub models: Models,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// For the bodies of all requests.
    pub budget: Arc<Budget>,
    health: HealthReporter,
    draining: AtomicBool,
}

impl App {
    /// From now on says that it is not ready; still answers.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for service in grpc::SERVICES {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
    }

    /// Whether it takes requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

/// Both protocols, serving these models.
///
/// # Errors
/// When the descriptors for gRPC's reflection are damaged.
pub async fn serve(models: Models, bodies: BodyLimits) -> anyhow::Result<(Arc<App>, Router)> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in grpc::SERVICES {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let budget = Budget::new(bodies.all);
    let draining = AtomicBool::new(false);
    let app = Arc::new(App { models, max_body: bodies.one, budget, health, draining });
    let metered = middleware::from_fn_with_state(Arc::clone(&app.budget), budget::meter);
    let router = grpc::router(&app, health_service)?
        .layer(metered)
        .merge(rest::router(Arc::clone(&app)))
        .fallback(unknown)
        .layer(middleware::from_fn(access::log));
    Ok((app, router))
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        return Status::unimplemented(format!("no such call: {path}")).into_http::<axum::body::Body>();
    }
    Failure::NotFound(format!("no such path: {path}")).into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
