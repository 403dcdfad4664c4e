//! What operators ask a running program: metrics, a CPU profile, the state of its heap. For a port of its own, which
//! clients cannot reach.

use crate::{
    heap::HeapStatistics,
    metrics::{CONTENT_TYPE, ModelMetrics},
    profile::{self, Profile},
};
use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use std::time::Duration;

/// Endpoints: `GET /metrics`, `GET /debug/pprof/profile?seconds=10&frequency=99`, `GET /debug/heap`.
pub fn router(metrics: ModelMetrics) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/debug/pprof/profile", get(cpu_profile))
        .route("/debug/heap", get(async || Json(HeapStatistics::now())))
        .fallback(async || {
            let there = "no such path; there are /metrics, /debug/pprof/profile, /debug/heap";
            error(StatusCode::NOT_FOUND, there)
        })
        .with_state(metrics)
}

async fn scrape(State(metrics): State<ModelMetrics>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.render()).into_response()
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProfileQuery {
    seconds: u32,
    frequency: u16,
}

impl Default for ProfileQuery {
    fn default() -> Self {
        Self { seconds: 10, frequency: 99 }
    }
}

async fn cpu_profile(query: Result<Query<ProfileQuery>, QueryRejection>) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    if !(1..=300).contains(&query.seconds) || !(1..=1000).contains(&query.frequency) {
        return error(
            StatusCode::BAD_REQUEST,
            "seconds is from 1 to 300, frequency (samples/s) from 1 to 1000",
        );
    }
    match Profile::record(Duration::from_secs(query.seconds.into()), query.frequency).await {
        Ok(profile) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"profile.pb\""),
            ];
            (headers, profile.encode()).into_response()
        }
        Err(profile::Error::Busy) => error(StatusCode::CONFLICT, "another profile is being recorded"),
        Err(profile::Error::Failed(reason)) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason),
    }
}

fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}
