//! `/v1/rulesets`.

use super::{
    Api,
    etag::{etag, is_known, precondition},
    json::Json,
    problem::Problem,
    upload::{Name, Upload},
    wait::Wait,
};
use crate::{publisher::Published, xds::Fleet};
use axum::{
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use halftone_compiler::{Compiled, Diagnostic};
use serde::Serialize;
use std::{collections::BTreeSet, net::SocketAddr};

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
    /// The clusters of proxies that it is for; missing when it is for all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    node_clusters: BTreeSet<String>,
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
            node_clusters: compiled.node_clusters.clone(),
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
    /// What the proxies said of the revision, for who waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<Fleet>,
}

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Listed>> {
    let current = api.publisher().current();
    Json(current.rulesets.values().map(|r| Listed::new(&r.compiled, r.stored.revision)).collect())
}

/// `GET /v1/schemas/ruleset.json`: what editors check rulesets by.
pub(crate) async fn schema() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/schema+json")], Json(halftone_compiler::json_schema()))
}

/// The text as it was uploaded.
pub(crate) async fn get(
    State(api): State<Api>,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let current = api.publisher().current();
    let ruleset = current.rulesets.get(&name).ok_or_else(|| unknown(&name))?;
    let tag = etag(ruleset.stored.revision);
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let source = ruleset.stored.content.source.clone();
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
    Name(name): Name,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    wait: Wait,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let upload = Upload::new("ruleset", &headers, body)?;
    let precondition = precondition(&headers, "a ruleset")?;
    let published = api
        .publisher()
        .put(&name, upload.text.clone(), precondition, client.ip().to_string())
        .await
        .map_err(|error| upload.refused(Problem::publish(error, &name, &upload.text)))?;
    Ok(changed(&api, name, published, &wait).await)
}

pub(crate) async fn delete(
    State(api): State<Api>,
    Name(name): Name,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    wait: Wait,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers, "a ruleset")?;
    let published = api
        .publisher()
        .delete(&name, precondition, client.ip().to_string())
        .await
        .map_err(|error| Problem::publish(error, &name, ""))?;
    Ok(changed(&api, name, published, &wait).await)
}

/// `POST /v1/rulesets/{name}:validate`: all that an upload goes through, except that nothing changes.
pub(crate) async fn post(
    State(api): State<Api>,
    Name(name): Name,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Listed>, Problem> {
    let Some(name) = name.strip_suffix(VALIDATE) else {
        return Err(Problem::method_not_allowed(format!(
            "use PUT to upload, or POST to {name}{VALIDATE} to check"
        )));
    };
    let upload = Upload::new("ruleset", &headers, body)?;
    let compiled = api
        .publisher()
        .validate(name, upload.text.clone())
        .await
        .map_err(|error| upload.refused(Problem::publish(error, name, &upload.text)))?;
    Ok(Json(Listed::new(&compiled, api.publisher().current().revision)))
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no ruleset {name:?}"))
}

async fn changed(api: &Api, name: String, published: Published, wait: &Wait) -> Response {
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    let Published { revision, changed, warnings, .. } = published;
    let fleet = wait.fleet(api, revision).await;
    (status, [(header::ETAG, etag(revision))], Json(Changed { name, revision, changed, warnings, fleet }))
        .into_response()
}
