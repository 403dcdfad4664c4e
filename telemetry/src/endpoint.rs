//! What a request was sent to, in a form that no client can make up.

use axum::extract::MatchedPath;
use http::{Request, header};
use std::sync::Arc;

/// What a request was sent to.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// A route of axum's, by its pattern, which no client can make up.
    Route(Arc<str>),
    /// A call of gRPC by its path, which is known to be one only when it was answered.
    Call(Arc<str>),
    /// None.
    Other,
}

impl Endpoint {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        // Tonic's services are routes with a wildcard: what stands for it is the call.
        match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
            Some(pattern) if !pattern.contains("{*") => Self::Route(pattern.into()),
            _ if is_grpc(request) => Self::Call(request.uri().path().into()),
            Some(pattern) => Self::Route(pattern.into()),
            None => Self::Other,
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
