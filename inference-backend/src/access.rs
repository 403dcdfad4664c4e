//! The access log: one line per request, with what the filter decided about it.

use crate::{
    context::{evaluation_context, trace_id},
    model::Model,
};
use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use halftone_proto::v1::EvaluationContext;
use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};
use tonic::Status;

/// Says on every response which model and version it is about: `digits:2`.
pub const MODEL_HEADER: HeaderName = HeaderName::from_static("x-halftone-model");

/// Goes with a request to where its model is found, and tells it back to the log. Unlike a response's extension it
/// also tells when the answer is an error.
#[derive(Clone, Debug, Default)]
pub struct FoundModel(Arc<OnceLock<Arc<Model>>>);

impl FoundModel {
    /// To be called once, by who finds the model.
    pub fn set(&self, model: &Arc<Model>) {
        // A second call would come from the same request and carry the same model.
        let _ = self.0.set(Arc::clone(model));
    }
}

/// Logs the request (never its body) under the tracing target `access` and names the model in the response.
pub async fn log(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let context = evaluation_context(request.headers());
    let trace_id = trace_id(request.headers()).map(str::to_owned);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let found = FoundModel::default();
    request.extensions_mut().insert(found.clone());

    let mut response = next.run(request).await;

    let model = found.0.get();
    if let Some(name) = model.and_then(|model| HeaderValue::from_str(model.label()).ok()) {
        response.headers_mut().insert(MODEL_HEADER, name);
    }
    let decided = context.as_ref();
    // The prefix is that of the baggage members. A plain `target` would be a second key of that name in JSON lines,
    // whose `target` is tracing's.
    tracing::info!(
        target: "access",
        method = method.as_str(),
        path = uri.path(),
        status = response.status().as_u16(),
        // Of calls over gRPC that failed; those that did not have theirs in the trailers.
        grpc_status = response.headers().get(Status::GRPC_STATUS).and_then(|status| status.to_str().ok()),
        duration_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        model = model.map(|model| model.name()),
        version = model.map(|model| model.version()),
        halftone.target = decided.and_then(|c| non_empty(&c.target)),
        halftone.ruleset = decided.and_then(|c| non_empty(&c.ruleset)),
        halftone.revision = decided.map(|c| c.revision),
        halftone.rule = decided.and_then(|c| non_empty(&c.rule)),
        halftone.unit_hash = decided.and_then(unit_hash),
        halftone.bucket = decided.and_then(|c| c.bucket),
        halftone.reason = decided.map(|c| c.reason().as_str_name()),
        trace_id,
    );
    response
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// In hexadecimal: as a number it would lose digits in whatever reads JSON numbers as doubles.
fn unit_hash(context: &EvaluationContext) -> Option<String> {
    (context.unit_hash != 0).then(|| format!("{:016x}", context.unit_hash))
}
