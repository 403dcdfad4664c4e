//! A request as a span, with what was decided about it and what came of it, by OpenTelemetry's conventions where there is one.

use crate::{
    context::RequestContext,
    current::Current,
    endpoint::Endpoint,
    outcome::{code_name, grpc_code, status},
    trace::{Event, Span, Tracer},
};
use halftone_proto::v1::{EvaluationContext, Reason};
use http::{Method, Request, Response, header};
use opentelemetry::trace::{SpanContext, SpanKind};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower_layer::Layer;
use tower_service::Service;

/// Records every request whose trace is sampled, and has its handlers record their stages below it
/// ([`RequestContext::stage`], [`current::stage`](crate::current::stage)). What they log names the trace.
///
/// As for the request log, a request ends when the head of its response is ready.
#[derive(Clone, Debug)]
pub struct TraceLayer {
    tracer: Tracer,
    begins: Begins,
}

/// Which requests that belong to no trace begin one. None does that is for a path that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Those that are inferences, which the Open Inference Protocol has at `…/infer` and as the call `ModelInfer`; probes and
    /// questions about models are not.
    Inferences,
    /// Those that change something, by their method.
    Changes,
}

impl Begins {
    /// Whether a request can be one that begins a trace: others take no room of those.
    fn can_be<B>(self, request: &Request<B>, endpoint: &Endpoint) -> bool {
        const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
        let is_one = match (self, endpoint) {
            (_, Endpoint::Other) => false,
            (Self::Inferences, Endpoint::Route(route)) => route.ends_with("/infer"),
            (Self::Inferences, Endpoint::Call(path)) => **path == *INFER,
            (Self::Changes, Endpoint::Route(_) | Endpoint::Call(_)) => true,
        };
        is_one && !request.method().is_safe()
    }
}

impl TraceLayer {
    /// Spans are made by this tracer.
    #[must_use]
    pub fn new(tracer: Tracer, begins: Begins) -> Self {
        Self { tracer, begins }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> TraceService<S> {
        TraceService { inner, layer: self.clone() }
    }
}

/// What [`TraceLayer`] makes.
#[derive(Clone, Debug)]
pub struct TraceService<S> {
    inner: S,
    layer: TraceLayer,
}

impl<S, B, R> Service<Request<B>> for TraceService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Traced<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Traced<S::Future> {
        let context = RequestContext::of(&mut request);
        let recording = self.layer.begin(&context, &request);
        let current = match &recording {
            Some(recording) => Current::of(&recording.span),
            None => context.trace_id().map(Current::named),
        };
        Traced { answer: self.inner.call(request), recording, current }
    }
}

pin_project! {
    /// A request that is recorded.
    #[derive(Debug)]
    pub struct Traced<F> {
        // Dropped first: its stages end before it does.
        #[pin]
        answer: F,
        recording: Option<Recording>,
        current: Option<Current>,
    }
}

impl<F: Future<Output = Result<Response<R>, E>>, R, E> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = match this.current {
            Some(current) => current.clone().enter(|| this.answer.poll(cx)),
            None => this.answer.poll(cx),
        };
        let answer = ready!(polled);
        if let Some(recording) = this.recording.take() {
            match &answer {
                Ok(response) => recording.end(status(response), grpc_code(response)),
                // A service that fails without a response ends the connection.
                Err(_) => recording.end(500, None),
            }
        }
        Poll::Ready(answer)
    }
}

/// A request that is being recorded. Dropped without an end, the client has left.
#[derive(Debug)]
struct Recording {
    span: Span,
    context: Arc<RequestContext>,
    endpoint: Endpoint,
    begins: Begins,
    ended: bool,
}

impl TraceLayer {
    fn begin<B>(&self, context: &Arc<RequestContext>, request: &Request<B>) -> Option<Recording> {
        let Self { tracer, begins } = self;
        if !tracer.records() || context.parent.as_ref().is_some_and(|parent| !parent.is_sampled()) {
            return None;
        }
        let endpoint = Endpoint::of(request);
        let mut span = match &context.parent {
            Some(parent) => tracer.below(parent, "request", SpanKind::Server),
            None if !begins.can_be(request, &endpoint) => return None,
            None => tracer.root("request", SpanKind::Server),
        };
        if context.parent.as_ref().is_none_or(began_in_filter) {
            let has_room = || tracer.has_room(context.evaluation.as_ref().is_some_and(is_taken));
            if !(span.is_recorded() && has_room()) {
                span.forget();
                context.leave_out();
                return None;
            }
            span.make_root();
        }
        let own = span.context()?.clone();
        let (begun, read) = context.read;
        span.begin_at(begun);
        about(&mut span, request, &endpoint);
        if let Some(evaluation) = &context.evaluation {
            let mut stage = span.child("evaluation context");
            stage.begin_at(begun);
            stage.event("feature_flag.evaluation", read, |event| flag(event, evaluation));
            stage.end_at(read);
            decided(&mut span, evaluation);
        }
        context.record(tracer.clone(), own);
        Some(Recording { span, context: Arc::clone(context), endpoint, begins: *begins, ended: false })
    }
}

impl Recording {
    fn end(mut self, status: u16, grpc: Option<u16>) {
        self.ended = true;
        self.tell(status, grpc);
        // What nobody traces but us, and is no inference, is a probe or a question about a model.
        if self.begins == Begins::Inferences
            && self.context.parent.is_none()
            && self.context.inference().is_none()
        {
            std::mem::take(&mut self.span).forget();
        }
    }

    fn tell(&mut self, status: u16, grpc: Option<u16>) {
        let (span, context) = (&mut self.span, &self.context);
        let failed = match &self.endpoint {
            Endpoint::Call(path) => {
                // A call that went well has its status in the trailers.
                let code = grpc.unwrap_or(0);
                span.set("rpc.response.status_code", code_name(code));
                if code == UNIMPLEMENTED {
                    span.rename("grpc");
                    span.set("rpc.method", OTHER);
                    span.set("rpc.method_original", shortened(path));
                } else {
                    span.set("rpc.method", shortened(path.trim_start_matches('/')));
                }
                // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's fault.
                matches!(code, 2 | 4 | 12 | 13 | 14 | 15).then(|| code_name(code).to_owned())
            }
            Endpoint::Route(_) | Endpoint::Other => {
                span.set("http.response.status_code", i64::from(status));
                (status >= 500).then(|| status.to_string())
            }
        };
        if let Some(kind) = failed {
            span.fail(&kind, "");
        }
        if let Some(served) = context.served() {
            span.set("model.name", &served.model);
            span.set("model.version", &served.version);
            span.set("hardware_type", served.hardware);
        }
        if let Some(hash) = context.output_hash() {
            span.set("model_output_hash", &format!("{hash:016x}"));
        }
        span.set_some("halftone.feature_version", context.feature_version());
        span.set_some("halftone.outcome", context.inference().map(|inference| inference.outcome.as_str()));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(499, Some(1));
            self.span.fail("cancelled", "the client left before the answer");
        }
    }
}

/// Whether the parent is a filter's, which records none.
fn began_in_filter(parent: &SpanContext) -> bool {
    halftone_rules::trace::began_here(&parent.trace_id().to_bytes(), &parent.span_id().to_bytes())
}

/// Whether a rule took the request, and it is not one of those that a candidate is compared with.
fn is_taken(evaluation: &EvaluationContext) -> bool {
    !evaluation.rule.is_empty() && !matches!(evaluation.arm.as_str(), "control" | "rest")
}

/// The convention's word for what a client can have made up.
const OTHER: &str = "_OTHER";
/// The code of gRPC of calls that there are not.
const UNIMPLEMENTED: u16 = 12;
/// Bytes that are kept of what may be made up: long ones would take the room of other spans.
const LONGEST: usize = 256;

/// A method by name, if it is one that the conventions know.
fn method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

fn shortened(text: &str) -> &str {
    text.get(..LONGEST.min(text.len())).unwrap_or_default()
}

/// What is known of a request from its head.
fn about<B>(span: &mut Span, request: &Request<B>, endpoint: &Endpoint) {
    match endpoint {
        Endpoint::Call(path) => {
            // What the call is called is known to be no invention when it was answered.
            span.rename(shortened(path.trim_start_matches('/')).to_owned());
            span.set("rpc.system.name", "grpc");
        }
        Endpoint::Route(route) => {
            let method = method(request.method());
            span.rename(format!("{} {route}", method.unwrap_or("HTTP")));
            span.set("http.request.method", method.unwrap_or(OTHER));
            span.set("http.route", route);
            span.set("url.path", shortened(request.uri().path()));
            span.set("url.scheme", "http");
        }
        Endpoint::Other => {
            let method = method(request.method());
            span.rename(method.unwrap_or("HTTP"));
            span.set("http.request.method", method.unwrap_or(OTHER));
            span.set("url.path", shortened(request.uri().path()));
            span.set("url.scheme", "http");
        }
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok());
    if let Some(authority) = host.and_then(|host| host.parse::<http::uri::Authority>().ok()) {
        span.set("server.address", shortened(authority.host()));
        span.set_some("server.port", authority.port_u16().map(i64::from));
    }
}

/// What the filter decided, in our own words.
fn decided(span: &mut Span, evaluation: &EvaluationContext) {
    let EvaluationContext { ruleset, revision, rule, target, arm, epoch, .. } = evaluation;
    span.set("halftone.ruleset", ruleset);
    span.set("halftone.revision", whole(*revision));
    if !rule.is_empty() {
        span.set("halftone.rule", rule);
    }
    // A rule with an epoch is a release.
    if *epoch > 0 {
        span.set("halftone.release", rule);
        span.set("halftone.epoch", whole(*epoch));
    }
    if !arm.is_empty() {
        span.set("halftone.arm", arm);
    }
    span.set("halftone.variant", target);
}

/// What the filter decided, in the words of the event `feature_flag.evaluation`.
fn flag(event: &mut Event, evaluation: &EvaluationContext) {
    event.set("feature_flag.key", &evaluation.ruleset);
    event.set("feature_flag.result.variant", &evaluation.target);
    event.set("feature_flag.result.reason", &reason(evaluation.reason()));
    event.set("feature_flag.provider.name", "halftone");
    event.set("feature_flag.version", &evaluation.revision.to_string());
    if evaluation.unit_hash != 0 {
        // The unit itself is nobody's business.
        event.set("feature_flag.context.id", &format!("{:016x}", evaluation.unit_hash));
    }
}

/// A reason in the convention's words.
fn reason(reason: Reason) -> String {
    match reason {
        Reason::Unspecified => "unknown".to_owned(),
        known => known.as_str_name().to_lowercase(),
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
