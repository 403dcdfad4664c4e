//! What is in force, where, and whether all is well.

use super::{Api, json::Json, problem::Problem};
use crate::{store::Revision, xds::NodeStatus};
use axum::extract::{Query, State, rejection::QueryRejection};
use serde::{Deserialize, Serialize};

/// Which part of the revisions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Only revisions below this one.
    before: Option<u64>,
    /// At most this many.
    limit: Option<usize>,
}

/// A part of the revisions, newest first.
#[derive(Serialize)]
pub(crate) struct Revisions {
    /// The newest one, 0 before the first change.
    current: u64,
    revisions: Vec<Revision>,
}

pub(crate) async fn revisions(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Revisions>, Problem> {
    const DEFAULT: usize = 50;
    const MOST: usize = 1_000;
    let Query(page) = page.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT).min(MOST);
    let revisions = api
        .publisher()
        .revisions(page.before, limit)
        .await
        .map_err(|error| Problem::publish(error, "", ""))?;
    Ok(Json(Revisions { current: api.publisher().current().revision, revisions }))
}

pub(crate) async fn nodes(State(api): State<Api>) -> Json<Vec<NodeStatus>> {
    Json(api.nodes.list())
}

/// The process runs.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store takes writes, so changes can be made.
pub(crate) async fn readyz(State(api): State<Api>) -> Result<&'static str, Problem> {
    api.publisher().ready().await.map_err(|error| Problem::publish(error, "", ""))?;
    Ok("ready\n")
}
