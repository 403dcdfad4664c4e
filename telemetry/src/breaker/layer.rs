//! A circuit breaker around a service of HTTP requests.

use super::{Breaker, BreakerBody, Open, Ticket};
use crate::outcome::{Outcome, grpc_code, status};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use std::{
    error::Error,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Code, Status, TimeoutExpired, metadata::MetadataValue};
use tower_layer::Layer;
use tower_service::Service;

/// What it says when it is open.
pub const REFUSAL: &str = "left alone for a while after too many failures; try again later";

/// A circuit breaker around a service of HTTP requests: a client, such as tonic's `Channel`, or a server, such as axum's
/// `Router` or tonic's.
///
/// Over HTTP, a status of 5xx is a failure, which is known when the response's head is there; a body that breaks off
/// afterwards is not seen. Over gRPC, the codes for which HTTP has 5xx are (UNAVAILABLE, INTERNAL, UNKNOWN and their
/// like), and a body that breaks off, which is known with the trailers, so that a stream counts when it ends. An error of
/// the service is one either way. Running out of time (504, DEADLINE_EXCEEDED, a request that is dropped before its
/// answer) is one when it took as long as [`Policy::patience`](super::Policy::patience).
///
/// Open, it answers 503 with `Retry-After`, over gRPC UNAVAILABLE with `retry-after` and `grpc-retry-pushback-ms`. Put
/// time-outs inside of it: what one outside cuts off, is only known to have been dropped.
#[derive(Clone, Debug)]
pub struct BreakerLayer(Arc<Breaker>);

impl BreakerLayer {
    /// Services that share a breaker open and close together.
    #[must_use]
    pub fn new(breaker: Arc<Breaker>) -> Self {
        Self(breaker)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = BreakerService<S>;

    fn layer(&self, inner: S) -> BreakerService<S> {
        BreakerService { breaker: Arc::clone(&self.0), inner }
    }
}

/// A service behind a circuit breaker.
#[derive(Clone, Debug)]
pub struct BreakerService<S> {
    breaker: Arc<Breaker>,
    inner: S,
}

impl<S, A, B> Service<Request<A>> for BreakerService<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Error + Send + 'static,
    A: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<BreakerBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    /// Always: when it is open, nobody is to wait for the service to be ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let is_grpc = is_grpc(request.headers());
        let ticket = match self.breaker.enter() {
            Ok(ticket) => ticket,
            Err(open) => {
                let refusal = refuse(open, is_grpc);
                return Box::pin(std::future::ready(Ok(refusal)));
            }
        };
        let mut inner = self.inner.clone();
        Box::pin(async move {
            let answered = async {
                poll_fn(|context| inner.poll_ready(context)).await?;
                inner.call(request).await
            };
            match answered.await {
                Ok(response) => Ok(watch(response, ticket, is_grpc)),
                Err(error) => {
                    ticket.finish(of_error(&error));
                    Err(error)
                }
            }
        })
    }
}

/// Tells the ticket how the request went, or leaves that to the response's trailers.
fn watch<B>(response: Response<B>, ticket: Ticket, is_grpc: bool) -> Response<BreakerBody<B>> {
    // A response of gRPC without a body has its code in the head.
    let is_told = !is_grpc || grpc_code(&response).is_some() || !response.status().is_success();
    let outcome = is_told.then(|| Outcome::of(status(&response)));
    let ticket = match outcome {
        None => Some(ticket),
        Some(outcome) => {
            ticket.finish(outcome);
            None
        }
    };
    response.map(|body| BreakerBody::of_service(body, ticket))
}

/// How a request went that had no response.
fn of_error(error: &(dyn Error + 'static)) -> Outcome {
    let mut chain = std::iter::successors(Some(error), |&error| error.source());
    let is_late = chain.any(|error| {
        let status = error.downcast_ref::<Status>();
        error.is::<TimeoutExpired>() || status.is_some_and(|status| status.code() == Code::DeadlineExceeded)
    });
    if is_late { Outcome::Timeout } else { Outcome::Error }
}

fn refuse<B>(open: Open, is_grpc: bool) -> Response<BreakerBody<B>> {
    let seconds = open.retry_after.as_secs_f64().ceil().max(1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; not negative")]
    let seconds = seconds as u32;
    if is_grpc {
        let mut status = Status::unavailable(REFUSAL);
        let metadata = status.metadata_mut();
        metadata.insert("retry-after", MetadataValue::from(seconds));
        metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(seconds.saturating_mul(1000)));
        return status.into_http::<()>().map(|()| BreakerBody::of_breaker(None));
    }
    let mut response = Response::new(BreakerBody::of_breaker(Some(Bytes::from_static(REFUSAL.as_bytes()))));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
