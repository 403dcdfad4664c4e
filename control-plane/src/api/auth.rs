//! Who may change something.

use super::problem::Problem;
use axum::{
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{AUTHORIZATION, HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, sync::Arc};
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

    /// Whether an `Authorization` brings it.
    pub(crate) fn is_in(&self, authorization: Option<&[u8]>) -> bool {
        authorization.and_then(bearer).is_some_and(|given| self.0.as_bytes().ct_eq(given).into())
    }
}

/// Without a token the API is for this machine alone, so it has to be addressed as such: a page in the
/// operator's browser can make another name resolve to loopback, but it cannot send another `Host`.
pub(crate) async fn require_addressee(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    if token.is_none() && !host.is_some_and(is_loopback) {
        let detail = "without a token the API answers only to 127.0.0.1, [::1] and localhost";
        return Problem::misdirected(detail).into_response();
    }
    // It can send a simple request without asking, though, and then says which page it is.
    let origin = request.headers().get(ORIGIN).map(HeaderValue::as_bytes);
    if token.is_none() && origin.is_some_and(|origin| !is_same_site(origin, host)) {
        let detail = "without a token the API takes no requests from pages of other sites";
        return Problem::forbidden(detail).into_response();
    }
    next.run(request).await
}

/// Whether a page comes from the very address that it asks.
fn is_same_site(origin: &[u8], host: Option<&[u8]>) -> bool {
    let of = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    of.is_some() && of == host
}

/// Lets those pass who bring the token, when there is one.
pub(crate) async fn require_token(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if token.is_none_or(|token| token.is_in(given)) {
        return next.run(request).await;
    }
    Problem::unauthorized("send the control plane's token as `Authorization: Bearer …`").into_response()
}

/// The token of an `Authorization`. Its scheme is written in upper or lower case (RFC 9110, 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether a `Host` names this machine, with or without a port.
pub(crate) fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
