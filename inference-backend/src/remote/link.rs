//! A connection to a server.

use super::config::RemoteConfig;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::{
    Status, TimeoutExpired,
    body::Body,
    transport::{self, Channel, Endpoint},
};
use tower_service::Service;

/// How long making a connection may take, within the time of the request that needs it.
const CONNECTING: Duration = Duration::from_secs(2);
/// A server that is silent for so long is asked for a sign of life...
const SILENCE: Duration = Duration::from_secs(5);
/// ...and the connection is given up when there is none.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A connection to a server, made when it is needed and made again when it is lost. Whatever goes wrong with it is
/// UNAVAILABLE: tonic would tell some of it as UNKNOWN, CANCELLED or INTERNAL, as if the server had said so.
#[derive(Clone, Debug)]
pub struct Link(Channel);

impl Link {
    /// To the server of a configuration that was checked. Needs tokio's runtime.
    ///
    /// # Errors
    /// When its URL is none.
    pub fn new(config: &RemoteConfig) -> Result<Self, transport::Error> {
        let endpoint = Endpoint::from_shared(config.url.clone())?
            .connect_timeout(CONNECTING.min(config.timeout()))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SILENCE)
            .keep_alive_timeout(SIGN_OF_LIFE);
        Ok(Self(endpoint.connect_lazy()))
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(ready!(self.0.poll_ready(context)).map_err(|error| broken(&error)))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.map(|body| Body::new(body.map_err(|status| cut_off(&status))))),
                Err(error) => Err(broken(&error)),
            }
        })
    }
}

/// Before there was an answer.
fn broken(error: &(dyn Error + 'static)) -> Status {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    if chain().any(|error| error.is::<TimeoutExpired>()) {
        return Status::deadline_exceeded("no answer in time");
    }
    // The outer ones only say that something went wrong.
    let cause = chain().last().map(ToString::to_string).unwrap_or_default();
    Status::unavailable(format!("no connection: {cause}"))
}

/// In the middle of an answer.
fn cut_off(status: &Status) -> Status {
    Status::unavailable(format!("the answer was cut off: {}", status.message()))
}
