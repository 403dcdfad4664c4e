//! `GET /v1/bundle`: the compiled rules in force, for engines that are embedded in other programs.

use super::{Api, etag::is_known, problem::Problem};
use crate::publisher::PublishedBundle;
use axum::{
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use halftone_rules::codec::stored_content_hash;
use serde::Deserialize;
use std::time::Duration;

/// The revision of the bundle.
const REVISION: HeaderName = HeaderName::from_static("x-halftone-revision");
/// The most seconds that `wait` takes: whoever sees it knows that this server can be waited on.
const MAX_WAIT: HeaderName = HeaderName::from_static("x-halftone-max-wait");
const MAX_WAIT_SECONDS: u64 = 60;

/// Which bundle, and how long to wait for something new.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Seconds that the answer may take while the client, by its `If-None-Match`, knows the bundle in force.
    #[serde(default)]
    wait: u64,
    /// The cluster of proxies whose bundle is wanted; that of clusters which no ruleset names when left out.
    #[serde(default)]
    node_cluster: String,
}

pub(crate) async fn get(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(Wanted { wait, node_cluster }) =
        wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if wait > MAX_WAIT_SECONDS {
        return Err(Problem::bad_request(format!("`wait` is at most {MAX_WAIT_SECONDS} seconds")));
    }
    let (mut bundles, mut stopping) = (api.publisher().bundles(), api.stopping);
    let unknown = async {
        // An error means that the publisher is gone; then nothing new can come.
        let _ = bundles.wait_for(|bundles| !is_known(&headers, &etag(bundles.of(&node_cluster)))).await;
    };
    tokio::select! {
        () = unknown => {}
        () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        // The sender goes away, and nothing is ever sent.
        _ = stopping.changed() => {}
    }
    let current = bundles.borrow().of(&node_cluster).clone();
    let tag = etag(&current);
    let status = if is_known(&headers, &tag) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let headers = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (REVISION, current.revision.to_string()),
        (MAX_WAIT, MAX_WAIT_SECONDS.to_string()),
    ];
    Ok(match status {
        StatusCode::OK => {
            let binary = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            (headers, [binary], Bytes::from_owner(current.bytes)).into_response()
        }
        _ => (status, headers).into_response(),
    })
}

/// The content hash covers the revision too: every revision has a tag of its own.
fn etag(bundle: &PublishedBundle) -> String {
    format!("\"{:016x}\"", stored_content_hash(&bundle.bytes).unwrap_or_default())
}
