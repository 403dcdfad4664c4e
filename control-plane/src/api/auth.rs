//! Who may change something.

use super::problem::Problem;
use axum::{
    extract::{Request, State},
    http::{Method, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The secret that a client has to bring. It is never shown.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// A token; `None` when it is too short to be a secret.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        const SHORTEST: usize = 16;
        let token = token.trim();
        (token.len() >= SHORTEST).then(|| Self(token.into()))
    }

    fn is(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

/// Lets reading pass. Everything else needs the token, when there is one.
pub(crate) async fn require_token(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let allowed = token.is_none_or(|token| {
        let given = request.headers().get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
        given.and_then(|value| value.strip_prefix(b"Bearer ")).is_some_and(|value| token.is(value))
    });
    if reads || allowed {
        return next.run(request).await;
    }
    Problem::unauthorized("send the control plane's token as `Authorization: Bearer …`").into_response()
}
