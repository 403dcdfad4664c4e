//! The access log: one line per request, with what the filter decided about it.

use crate::{access_log::Line, context::RequestContext, log_writer, outcome::grpc_code};
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
/// A line is for when the head of the response is ready. For gRPC that is the whole answer, but for streams.
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
        let is_logged = tracing::enabled!(target: "access", tracing::Level::INFO);
        let begun = Begun {
            at: Instant::now(),
            context: RequestContext::of(&mut request),
            named: is_logged.then(|| (request.method().clone(), request.uri().clone())),
        };
        Logged { answer: self.inner.call(request), begun }
    }
}

pin_project! {
    /// A request whose end is logged.
    #[derive(Debug)]
    pub struct Logged<F> {
        #[pin]
        answer: F,
        begun: Begun,
    }
}

impl<F: Future<Output = Result<Response<R>, E>>, R, E> Future for Logged<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx));
        if let Ok(response) = &mut answer {
            this.begun.end(response);
        }
        Poll::Ready(answer)
    }
}

#[derive(Debug)]
struct Begun {
    at: Instant,
    context: Arc<RequestContext>,
    /// Of requests that are logged.
    named: Option<(Method, Uri)>,
}

impl Begun {
    fn end<R>(&mut self, response: &mut Response<R>) {
        if let Some(served) = self.context.served()
            && let Ok(name) = HeaderValue::try_from(format!("{}:{}", served.model, served.version))
        {
            response.headers_mut().insert(MODEL_HEADER, name);
        }
        if let Some(trace) = self.context.trace_id()
            && let Ok(trace) = HeaderValue::try_from(trace.to_string())
        {
            response.headers_mut().insert(TRACE_HEADER, trace);
        }
        if let Some((method, uri)) = self.named.take() {
            log_writer::write_access(Line {
                context: Arc::clone(&self.context),
                method,
                path: uri.path().into(),
                status: response.status().as_u16(),
                grpc_status: grpc_code(response),
                duration: self.at.elapsed(),
            });
        }
    }
}
