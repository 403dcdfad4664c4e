//! The protocol's REST endpoints.

pub mod payload;
mod repository;
pub mod request;
pub mod response;

use self::payload::Payload;
use crate::{
    app::{App, EXTENSIONS},
    call::Call,
    failure::Failure,
    model::Model,
    observations::{record::Protocol, watch::Watch},
    offload::offload,
    output::Output,
    signature::Signature,
};
use axum::{
    Extension, Json, Router,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use halftone_telemetry::context::RequestContext;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

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
        .nest("/v2/repository", repository::router())
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .method_not_allowed_fallback(async |method: Method| Failure::MethodNotAllowed(method.to_string()))
        .with_state(app)
}

async fn server() -> Response {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS }))
        .into_response()
}

async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    readiness(app.is_ready(), json!({ "ready": app.is_ready() }))
}

async fn model_ready(State(app): State<Arc<App>>, Named(model): Named) -> Response {
    let ready = app.is_ready() && model.is_ready();
    readiness(ready, json!({ "name": model.name(), "ready": ready }))
}

fn readiness(ready: bool, body: serde_json::Value) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// The protocol's model metadata.
#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'a str,
    #[serde(flatten)]
    signature: &'a Signature,
}

async fn metadata(State(app): State<Arc<App>>, Named(model): Named) -> Response {
    Json(Metadata {
        name: model.name(),
        versions: app.models.versions(model.name()),
        platform: model.platform(),
        signature: model.offered(),
    })
    .into_response()
}

async fn infer(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Arc<RequestContext>>,
    named: Result<Named, Failure>,
    request: Request,
) -> Result<Response, Failure> {
    if named.is_err() {
        app.miss(Arc::clone(&context), Protocol::Rest.answer(&named));
    }
    let Named(model) = named?;
    let mut watch = app.watch(context, Protocol::Rest, Arc::clone(&model));
    let answer = answer(&app, model, request, &mut watch).await;
    watch.end(&answer);
    answer
}

async fn answer(
    app: &App,
    model: Arc<Model>,
    request: Request,
    watch: &mut Watch,
) -> Result<Response, Failure> {
    model.has_room()?;
    let call = Call::of(&model, request.headers(), request.extensions());
    let prepare = async {
        // Features are on their way while the body comes.
        let (payload, bound) =
            tokio::join!(Payload::read(request, &app.limits, &app.budget), model.bind(&call));
        let (payload, bound) = (payload?, bound?);
        let model = Arc::clone(&model);
        let _stage = call.stage("decode");
        // The payload is kept to the end: what is made of it takes about as much memory.
        offload(payload.bytes.len(), move || {
            let payload = payload.decode()?;
            let (unchecked, envelope) = request::parse(&payload.bytes, payload.json)?;
            Ok((unchecked.check(model.signature(), &bound)?, (envelope.into_owned(), payload)))
        })
        .await
    };
    let (outputs, (envelope, payload)) = model.run(&call, prepare).await?;
    let encode = move |model: &Model, outputs: &[Output]| response::encode(model, &envelope, outputs);
    let encoded = watch.encode(outputs?, encode).await?;
    drop(payload);
    let Some(json) = encoded.json else {
        let kind = HeaderValue::from_static("application/json");
        return Ok(([(header::CONTENT_TYPE, kind)], encoded.body).into_response());
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (HeaderName::from_static(payload::JSON_LENGTH), HeaderValue::from(json)),
    ];
    Ok((headers, encoded.body).into_response())
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
        if let Some(context) = parts.extensions.get::<Arc<RequestContext>>() {
            context.serve(model.served().clone());
        }
        Ok(Self(model))
    }
}
