//! The protocol's REST endpoints.

use crate::{
    access::{self, FoundModel},
    failure::Failure,
    model::Model,
    models::Models,
    payload::Payload,
    signature::Signature,
};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What the endpoints share.
#[derive(Debug)]
pub struct App {
    /// The models that are served.
    pub models: Models,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    draining: AtomicBool,
}

impl App {
    /// Serves these models, taking bodies of at most `max_body` bytes.
    #[must_use]
    pub fn new(models: Models, max_body: usize) -> Arc<Self> {
        Arc::new(Self { models, max_body, draining: AtomicBool::new(false) })
    }

    /// From now on says that it is not ready; still answers.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

/// The protocol's REST endpoints.
pub fn router(app: Arc<App>) -> Router {
    let model = Router::new()
        .route("/", get(metadata))
        .route("/ready", get(model_ready))
        .route("/infer", post(infer));
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .fallback(async |uri: Uri| Failure::NotFound(format!("no such path: {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method| Failure::MethodNotAllowed(method.to_string()))
        .layer(middleware::from_fn(access::log))
        .with_state(app)
}

async fn server() -> Response {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
        .into_response()
}

async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    readiness(app.is_ready(), json!({ "ready": app.is_ready() }))
}

async fn model_ready(State(app): State<Arc<App>>, Named(model): Named) -> Response {
    readiness(app.is_ready(), json!({ "name": model.name(), "ready": app.is_ready() }))
}

fn readiness(ready: bool, body: serde_json::Value) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// The protocol's model metadata.
#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    versions: Vec<&'a str>,
    platform: &'a str,
    #[serde(flatten)]
    signature: &'a Signature,
}

async fn metadata(State(app): State<Arc<App>>, Named(model): Named) -> Response {
    Json(Metadata {
        name: model.name(),
        versions: app.models.versions(model.name()),
        platform: "onnx_onnxv1",
        signature: model.signature(),
    })
    .into_response()
}

async fn infer(Named(model): Named, Payload(body): Payload) -> Result<Response, Failure> {
    let answer = model.infer(body).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], answer).into_response())
}

/// The model that a path names.
struct Named(Arc<Model>);

#[derive(Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let Path(path) = Path::<ModelPath>::from_request_parts(parts, app)
            .await
            .map_err(|e| Failure::BadRequest(e.body_text()))?;
        let model = app.models.find(&path.model, path.version.as_deref())?;
        if let Some(found) = parts.extensions.get::<FoundModel>() {
            found.set(model);
        }
        Ok(Self(Arc::clone(model)))
    }
}
