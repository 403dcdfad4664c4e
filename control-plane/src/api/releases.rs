//! `/v1/releases` and `/v1/decisions`.

use super::{
    Api,
    etag::{etag, precondition},
    json::Json,
    problem::Problem,
    upload::{Name, Upload},
};
use crate::release::{
    Command, ControllerError, JSON_SCHEMA, Looked,
    view::{Summary, View},
};
use axum::{
    body::Bytes,
    extract::{
        ConnectInfo, Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes of a person's reason.
const LONGEST_REASON: usize = 2_000;

/// Which part of the records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Only records below this one.
    before: Option<u64>,
    /// At most this many.
    limit: Option<usize>,
}

/// How a release is deleted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deletion {
    /// Even if units move.
    #[serde(default)]
    force: bool,
}

/// What a person says to a command.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// Why, for the record.
    reason: Option<String>,
}

/// A part of the records, newest first.
#[derive(Serialize)]
pub(crate) struct Decisions {
    decisions: Vec<Box<RawValue>>,
}

/// The answer to an upload.
#[derive(Serialize)]
struct Put {
    #[serde(flatten)]
    release: Summary,
    changed: bool,
}

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Summary>> {
    let releases = api.controller.releases().borrow().clone();
    Json(releases.values().map(Summary::of).collect())
}

/// Its tag is for changes: numbers move without one.
pub(crate) async fn get(State(api): State<Api>, Name(name): Name) -> Result<Response, Problem> {
    let looked = release(&api, &name)?;
    Ok(([(header::ETAG, etag(looked.status.generation))], Json(view(&api, &looked).await?)).into_response())
}

pub(crate) async fn put(
    State(api): State<Api>,
    Name(name): Name,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let upload = Upload::new("release", &headers, body)?;
    let precondition = precondition(&headers, "a release")?;
    let put = api
        .controller
        .put(&name, upload.text.clone(), precondition, client.ip().to_string())
        .await
        .map_err(|error| upload.refused(Problem::release(error, &name, &upload.text)))?;
    let looked = release(&api, &name)?;
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = Put { release: Summary::of(&looked), changed: put.changed };
    Ok((status, [(header::ETAG, etag(looked.status.generation))], Json(answer)).into_response())
}

pub(crate) async fn delete(
    State(api): State<Api>,
    Name(name): Name,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    deletion: Result<Query<Deletion>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Query(Deletion { force }) =
        deletion.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let precondition = precondition(&headers, "a release")?;
    api.controller
        .delete(&name, precondition, force, client.ip().to_string())
        .await
        .map_err(|error| Problem::release(error, &name, ""))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/releases/{name}:validate`, and `:pause`, `:resume`, `:approve`, `:promote`, `:abort`, `:rollback`.
pub(crate) async fn post(
    State(api): State<Api>,
    Name(path): Name,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let words =
        || Command::value_variants().iter().map(|command| command.name()).collect::<Vec<_>>().join(", :");
    let unknown =
        || Problem::bad_request(format!("use PUT to upload, or POST to a name with :validate, :{}", words()));
    let (name, word) = path.rsplit_once(':').ok_or_else(unknown)?;
    let upload = Upload::new("release", &headers, body)?;
    if word == "validate" {
        let checked = api.controller.check(name, &upload.text).await;
        checked.map_err(|error| upload.refused(Problem::release(error, name, &upload.text)))?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let command = Command::value_variants().iter().find(|command| command.name() == word);
    let command = *command.ok_or_else(unknown)?;
    let said: Said = if upload.text.trim().is_empty() {
        Said::default()
    } else {
        serde_json::from_str(&upload.text).map_err(|error| {
            Problem::bad_request(format!("the body is {{\"reason\": \"…\"}} or empty: {error}"))
        })?
    };
    if said.reason.as_ref().is_some_and(|reason| reason.len() > LONGEST_REASON) {
        let detail = format!("`reason` has at most {LONGEST_REASON} bytes: name a page that says more");
        return Err(Problem::bad_request(detail));
    }
    if said.reason.as_ref().is_some_and(|reason| reason.chars().any(char::is_control)) {
        return Err(Problem::bad_request("`reason` is one line, without control characters"));
    }
    let looked = api
        .controller
        .command(name, command, said.reason, client.ip().to_string())
        .await
        .map_err(|error| Problem::release(error, name, ""))?;
    Ok(([(header::ETAG, etag(looked.status.generation))], Json(Summary::of(&looked))).into_response())
}

/// `GET /v1/schemas/release.json`: what editors check releases by.
pub(crate) async fn schema() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/schema+json")], JSON_SCHEMA)
}

/// The records of a release.
pub(crate) async fn decisions_of(
    State(api): State<Api>,
    Name(name): Name,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    release(&api, &name)?;
    records(&api, Some(name), page).await
}

/// The records of all releases.
pub(crate) async fn decisions(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    records(&api, None, page).await
}

/// A record.
pub(crate) async fn decision(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let number = id.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    let number = number.ok_or_else(|| Problem::bad_request(format!("{id:?} is no number of a decision")))?;
    let record = api.controller.record(number).await.map_err(|error| Problem::publish(error, "", ""))?;
    let record = record.ok_or_else(|| Problem::not_found(format!("there is no decision {number}")))?;
    Ok(Json(raw(record)?))
}

async fn records(
    api: &Api,
    release: Option<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    const DEFAULT: usize = 20;
    const MOST: usize = 500;
    let Query(page) = page.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT).min(MOST);
    let records = api.controller.records(release, page.before, limit).await;
    let records = records.map_err(|error| Problem::publish(error, "", ""))?;
    Ok(Json(Decisions { decisions: records.into_iter().map(raw).collect::<Result<_, _>>()? }))
}

/// As it is kept, byte for byte.
fn raw(record: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(record).map_err(|error| Problem::internal(error.to_string()))
}

fn release(api: &Api, name: &str) -> Result<Looked, Problem> {
    let unknown = || Problem::release(ControllerError::NotFound(name.to_owned()), name, "");
    api.controller.release(name).ok_or_else(unknown)
}

async fn view(api: &Api, looked: &Looked) -> Result<View, Problem> {
    let (ledger, spec) = (api.ledger.clone(), looked.spec.clone());
    let observed = tokio::task::spawn_blocking(move || ledger.release(&spec.ruleset, &spec.name)).await;
    let observed = observed.map_err(|error| Problem::internal(error.to_string()))?;
    let observed = observed.map_err(|error| Problem::unreadable(&error))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok(View::of(looked, observed.as_ref(), &api.controller.readings(&looked.spec.name), now_ms))
}
