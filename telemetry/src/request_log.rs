//! The access log: one line per request, with what the filter decided about it.

use crate::{context::RequestContext, outcome::grpc_code};
use halftone_proto::v1::EvaluationContext;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tower_layer::Layer;
use tower_service::Service;

/// Says on every response which model and version it is about: `digits:2`.
pub const MODEL_HEADER: HeaderName = HeaderName::from_static("x-halftone-model");

/// Says on every response to a request of a trace which one that is: what `halftone trace` takes.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("x-halftone-trace");

/// Logs every request (never its body) under the tracing target `access`, and names the model that it is about in
/// the response.
///
/// A line is written when the head of the response is ready. For gRPC that is the whole answer, but for streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLogLayer;

impl<S> Layer<S> for RequestLogLayer {
    type Service = RequestLogService<S>;

    fn layer(&self, inner: S) -> RequestLogService<S> {
        RequestLogService { inner }
    }
}

/// What [`RequestLogLayer`] makes.
#[derive(Clone, Debug)]
pub struct RequestLogService<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RequestLogService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Logged<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Logged<S::Future> {
        let line = Line {
            begun: Instant::now(),
            context: RequestContext::of(&mut request),
            method: request.method().clone(),
            uri: request.uri().clone(),
        };
        Logged { answer: self.inner.call(request), line }
    }
}

pin_project! {
    /// A request whose end is logged.
    #[derive(Debug)]
    pub struct Logged<F> {
        #[pin]
        answer: F,
        line: Line,
    }
}

impl<F: Future<Output = Result<Response<R>, E>>, R, E> Future for Logged<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx));
        if let Ok(response) = &mut answer {
            this.line.end(response);
        }
        Poll::Ready(answer)
    }
}

#[derive(Debug)]
struct Line {
    begun: Instant,
    context: Arc<RequestContext>,
    method: Method,
    uri: Uri,
}

impl Line {
    fn end<R>(&self, response: &mut Response<R>) {
        let served = self.context.served();
        if let Some(served) = served
            && let Ok(name) = HeaderValue::try_from(format!("{}:{}", served.model, served.version))
        {
            response.headers_mut().insert(MODEL_HEADER, name);
        }
        if let Some(trace) = self.context.trace_id()
            && let Ok(trace) = HeaderValue::try_from(trace.to_string())
        {
            response.headers_mut().insert(TRACE_HEADER, trace);
        }
        let decided = self.context.evaluation.as_ref();
        // The prefix is that of the baggage members. A plain `target` would be a second key of that name in JSON
        // lines, whose `target` is tracing's.
        tracing::info!(
            target: "access",
            method = self.method.as_str(),
            path = self.uri.path(),
            status = response.status().as_u16(),
            // Of calls over gRPC that failed; those that did not have theirs in the trailers.
            grpc_status = grpc_code(response),
            duration_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            model = served.map(|served| &*served.model),
            version = served.map(|served| &*served.version),
            halftone.target = decided.and_then(|c| non_empty(&c.target)),
            halftone.ruleset = decided.and_then(|c| non_empty(&c.ruleset)),
            halftone.revision = decided.map(|c| c.revision),
            halftone.rule = decided.and_then(|c| non_empty(&c.rule)),
            halftone.unit_hash = decided.and_then(unit_hash),
            halftone.arm = decided.and_then(|c| non_empty(&c.arm)),
            halftone.epoch = decided.map(|c| c.epoch).filter(|epoch| *epoch > 0),
            halftone.bucket = decided.and_then(|c| c.bucket),
            halftone.reason = decided.map(|c| c.reason().as_str_name()),
            halftone.overridden = decided.map(|c| c.overridden).filter(|overridden| *overridden),
            halftone.held_out = decided.map(|c| c.held_out).filter(|held_out| *held_out),
            feature_version = self.context.feature_version(),
            model_output_hash = self.context.output_hash().map(hexadecimal),
            trace_id = self.context.trace_id().map(tracing::field::display),
            evaluation_id = self.context.parent.as_ref().map(|parent| tracing::field::display(parent.span_id())),
        );
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn unit_hash(context: &EvaluationContext) -> Option<String> {
    (context.unit_hash != 0).then(|| hexadecimal(context.unit_hash))
}

/// As a number it would lose digits in whatever reads JSON numbers as doubles.
fn hexadecimal(hash: u64) -> String {
    format!("{hash:016x}")
}
