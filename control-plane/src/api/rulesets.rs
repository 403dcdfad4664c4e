//! `/v1/rulesets`.

use super::{Api, problem::Problem};
use crate::publisher::{Precondition, Published};
use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use halftone_compiler::{Compiled, Diagnostic};
use serde::Serialize;
use std::net::SocketAddr;

/// The suffix of a name that asks for a check without a change.
const VALIDATE: &str = ":validate";

/// A ruleset in a listing.
#[derive(Serialize)]
pub(crate) struct Listed {
    name: String,
    /// The revision that brought it in its present form.
    revision: u64,
    rules: usize,
    targets: Vec<String>,
    default: Option<String>,
    /// What compiles, but will surprise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Diagnostic>,
}

impl Listed {
    fn new(compiled: &Compiled, revision: u64) -> Self {
        let ruleset = &compiled.ruleset;
        Self {
            name: ruleset.name.clone(),
            revision,
            rules: ruleset.rules.len(),
            targets: ruleset.targets.clone(),
            default: ruleset.targets.get(usize::from(ruleset.default)).cloned(),
            warnings: compiled.warnings.clone(),
        }
    }
}

/// The answer to a change.
#[derive(Serialize)]
pub(crate) struct Changed {
    name: String,
    revision: u64,
    changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Diagnostic>,
}

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Listed>> {
    let current = api.publisher.current();
    Json(current.rulesets.values().map(|r| Listed::new(&r.compiled, r.stored.revision)).collect())
}

/// The text as it was uploaded.
pub(crate) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let current = api.publisher.current();
    let ruleset = current.rulesets.get(&name).ok_or_else(|| unknown(&name))?;
    let source = ruleset.stored.source.clone();
    let json = source.trim_start().starts_with('{');
    let content_type = if json { "application/json" } else { "application/yaml" };
    Ok((
        [(header::CONTENT_TYPE, content_type.to_owned()), (header::ETAG, etag(ruleset.stored.revision))],
        source,
    )
        .into_response())
}

pub(crate) async fn put(
    State(api): State<Api>,
    Path(name): Path<String>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let source = text(body)?;
    let precondition = precondition(&headers)?;
    let published = api
        .publisher
        .put(&name, source.clone(), precondition, client.ip().to_string())
        .await
        .map_err(|error| Problem::publish(error, &name, &source))?;
    Ok(changed(name, published))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    Path(name): Path<String>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let published = api
        .publisher
        .delete(&name, precondition, client.ip().to_string())
        .await
        .map_err(|error| Problem::publish(error, &name, ""))?;
    Ok(changed(name, published))
}

/// `POST /v1/rulesets/{name}:validate`: all that an upload goes through, except that nothing changes.
pub(crate) async fn post(
    State(api): State<Api>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Listed>, Problem> {
    let Some(name) = name.strip_suffix(VALIDATE) else {
        return Err(Problem::method_not_allowed(format!(
            "use PUT to upload, or POST to {name}{VALIDATE} to check"
        )));
    };
    let source = text(body)?;
    let compiled = api
        .publisher
        .validate(name, source.clone())
        .await
        .map_err(|error| Problem::publish(error, name, &source))?;
    Ok(Json(Listed::new(&compiled, api.publisher.current().revision)))
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no ruleset {name:?}"))
}

fn changed(name: String, published: Published) -> Response {
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    let Published { revision, changed, warnings, .. } = published;
    (status, [(header::ETAG, etag(revision))], Json(Changed { name, revision, changed, warnings }))
        .into_response()
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn text(body: Result<Bytes, BytesRejection>) -> Result<String, Problem> {
    let body = body.map_err(|rejection| Problem::body(&rejection))?;
    String::from_utf8(body.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::bad_request(format!("the ruleset is not UTF-8: byte {at} does not belong to a character"))
    })
}

/// `If-Match` with an entity tag of ours or `*`, and `If-None-Match: *`.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some(tag), None) if tag == "*" => Ok(Precondition::Exists),
        (Some(tag), None) => tag
            .to_str()
            .ok()
            .and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok())
            .map(Precondition::Since)
            .ok_or_else(|| Problem::bad_request("If-Match takes the ETag of a ruleset, for example \"3\"")),
        (None, Some(tag)) if tag == "*" => Ok(Precondition::Absent),
        _ => Err(Problem::bad_request("use either If-Match, or If-None-Match: *")),
    }
}
