//! The protocol's extension for model repositories.

use super::payload::Payload;
use crate::{
    app::{App, ClientLimits},
    failure::Failure,
    keeper::IndexEntry,
};
use axum::{
    Json, Router,
    extract::{Path, Request, State},
    routing::post,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Largest body of these requests.
const LARGEST: usize = 64 << 10;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/index", post(index))
        .route("/models/{model}/load", post(load))
        .route("/models/{model}/unload", post(unload))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Index {
    ready: bool,
}

async fn index(State(app): State<Arc<App>>, request: Request) -> Result<Json<Vec<IndexEntry>>, Failure> {
    let Index { ready } = body(&app, request).await?;
    let index = app.keeper.index();
    Ok(Json(index.iter().filter(|entry| !ready || entry.is_ready()).cloned().collect()))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Load {
    parameters: Map<String, Value>,
}

async fn load(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<(), Failure> {
    app.may_control()?;
    let Load { parameters } = body(&app, request).await?;
    if let Some(name) = parameters.keys().next() {
        return Err(Failure::BadRequest(format!(
            "the parameter {name:?} is not served: a model is loaded from the repository, as it is there"
        )));
    }
    app.keeper.load(&model).await
}

async fn unload(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<(), Failure> {
    app.may_control()?;
    // Its only parameter is about ensembles, which there are none of.
    body::<Load>(&app, request).await?;
    app.keeper.unload(&model).await
}

/// An object, which may be left out.
async fn body<T: DeserializeOwned + Default>(app: &App, request: Request) -> Result<T, Failure> {
    let payload = Payload::read(request, &ClientLimits { max_body: LARGEST, ..app.limits }, &app.budget)
        .await?
        .decode()?;
    if payload.bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&payload.bytes).map_err(|e| Failure::BadRequest(format!("malformed request: {e}")))
}
