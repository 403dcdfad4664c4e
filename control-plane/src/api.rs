//! The REST API.

mod auth;
mod bundle;
mod etag;
mod events;
mod json;
mod observations;
mod outcomes;
mod problem;
mod releases;
mod rulesets;
mod status;
mod traces;
mod upload;
mod wait;

pub use auth::Token;
pub(crate) use auth::is_loopback;

use crate::{ledger::Ledger, publisher::Publisher, release::Controller, trace::forms::Forms, xds::Nodes};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{get, put},
};
use halftone_telemetry::{
    trace::Tracer,
    trace_layer::{Begins, TraceLayer},
};
use problem::Problem;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Bytes of a request's body.
const MAX_BODY: usize = halftone_compiler::MAX_TEXT_BYTES;

/// What the handlers work on.
#[derive(Clone)]
pub(crate) struct Api {
    controller: Controller,
    nodes: Nodes,
    ledger: Arc<Ledger>,
    /// Places for readers of events.
    readers: Arc<Semaphore>,
    /// Places for those who ask why.
    explaining: Arc<Semaphore>,
    /// What they asked about last.
    forms: Forms,
    /// Ends, with its sender, when the server is to stop: requests that wait for something answer then.
    stopping: watch::Receiver<()>,
}

impl Api {
    fn publisher(&self) -> &Publisher {
        self.controller.publisher()
    }
}

/// All endpoints. Changes are recorded by the tracer. With a `token`, requests that change something have to bring it; reading and checking are free.
/// When the sender of `stopping` goes away, no request waits any longer.
pub fn router(
    (controller, nodes, ledger): (Controller, Nodes, Arc<Ledger>),
    token: Option<Token>,
    tracer: Tracer,
    stopping: watch::Receiver<()>,
) -> Router {
    let changes = put(rulesets::put)
        .delete(rulesets::delete)
        .route_layer(middleware::from_fn_with_state(token.clone(), auth::require_token));
    let of_releases = put(releases::put)
        .delete(releases::delete)
        .post(releases::post)
        .route_layer(middleware::from_fn_with_state(token.clone(), auth::require_token));
    let reports = outcomes::route(Arc::clone(&ledger))
        .route_layer(middleware::from_fn_with_state(token.clone(), auth::require_token));
    Router::new()
        .route("/v1/releases", get(releases::list))
        .route("/v1/releases/{name}", of_releases.get(releases::get))
        .route("/v1/releases/{name}/decisions", get(releases::decisions_of))
        .route("/v1/decisions", get(releases::decisions))
        .route("/v1/decisions/{id}", get(releases::decision))
        .route("/v1/events", get(events::get))
        .route("/v1/rulesets", get(rulesets::list))
        .route("/v1/rulesets/{name}", changes.get(rulesets::get).post(rulesets::post))
        .route("/v1/schemas/ruleset.json", get(rulesets::schema))
        .route("/v1/schemas/release.json", get(releases::schema))
        .route("/v1/bundle", get(bundle::get))
        .route("/v1/revisions", get(status::revisions))
        .route("/v1/nodes", get(status::nodes))
        .route("/v1/observations", get(observations::get))
        .route("/v1/traces/{id}", get(traces::get))
        .route("/v1/explanations", get(traces::explain))
        .route("/v1/outcomes", reports)
        .layer(middleware::from_fn_with_state(token, auth::require_addressee))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new(tracer, Begins::Changes))
        .with_state(Api {
            controller,
            nodes,
            ledger,
            readers: Arc::new(Semaphore::new(events::MOST_READERS)),
            explaining: Arc::new(Semaphore::new(traces::AT_ONCE)),
            forms: Forms::default(),
            stopping,
        })
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::method_not_allowed(format!("{} does not take {method}", uri.path()))
}
