//! What a request says besides its body.

use crate::{deadline, model::Model};
use axum::http::{Extensions, HeaderMap, HeaderName};
use std::time::Instant;

/// What a request says besides its body.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// After it nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// What is passed on with the request when the model is remote: the trace that it belongs to, and what was decided
    /// about it.
    pub headers: HeaderMap,
}

impl Call {
    /// What a request for this model says.
    #[must_use]
    pub fn of(model: &Model, headers: &HeaderMap, _extensions: &Extensions) -> Self {
        let passed = |(name, value): (&HeaderName, _)| is_passed_on(name).then(|| (name.clone(), value));
        let headers_passed = if model.remote().is_some() {
            headers.iter().filter_map(|(name, value)| passed((name, value.clone()))).collect()
        } else {
            HeaderMap::new()
        };
        Self { deadline: deadline::of(headers), headers: headers_passed }
    }
}

fn is_passed_on(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "traceparent" | "tracestate" | "baggage") || name.starts_with("x-halftone-")
}
