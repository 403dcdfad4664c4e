//! What a request says besides its body.

use crate::{deadline, model::Model};
use axum::http::{Extensions, HeaderMap};
use halftone_telemetry::{context::RequestContext, trace::Span};
use opentelemetry::trace::SpanKind;
use std::{sync::Arc, time::Instant};

/// What a request says besides its body.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// After it nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// What is known of the request: what the filter decided, decoded once.
    pub context: Option<Arc<RequestContext>>,
    /// What is passed on with the request when the model is remote: the trace that it belongs to, and what was decided
    /// about it.
    pub headers: HeaderMap,
}

impl Call {
    /// A stage of the request, until the span is dropped.
    #[must_use]
    pub fn stage(&self, name: &'static str) -> Span {
        self.context.as_ref().map_or_else(Span::none, |context| context.stage(name))
    }

    /// A call of another service for the request, until the span is dropped.
    #[must_use]
    pub fn calls(&self, name: &'static str) -> Span {
        let calls = |context: &Arc<RequestContext>| context.stage_of_kind(name, SpanKind::Client);
        self.context.as_ref().map_or_else(Span::none, calls)
    }

    /// The `traceparent` of a call with this span, which need not be recorded; nothing when there is no trace.
    #[must_use]
    pub fn traceparent(&self, span: &Span) -> Option<String> {
        span.traceparent().or_else(|| self.context.as_ref()?.traceparent())
    }

    /// What a request for this model says.
    #[must_use]
    pub fn of(model: &Model, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let passed = |name: &str| {
            matches!(name, "traceparent" | "tracestate" | "baggage") || name.starts_with("x-halftone-")
        };
        let passed_on = headers.iter().filter(|(name, _)| model.remote().is_some() && passed(name.as_str()));
        Self {
            deadline: deadline::of(headers),
            context: extensions.get::<Arc<RequestContext>>().cloned(),
            headers: passed_on.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }
}
