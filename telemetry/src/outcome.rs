//! How a request ended, in words that HTTP and gRPC share.

use http::{HeaderMap, Response, StatusCode};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// The client asked for something that does not fit, is not there or is not allowed.
    Invalid,
    /// There was no room for it.
    Rejected,
    /// The answer would have come too late.
    Timeout,
    /// The client left before the answer.
    Cancelled,
    /// It failed on our side.
    Error,
}

impl Outcome {
    /// As it is written in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }

    /// That of an answer with this status of HTTP, as [`status`] gives it.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            0..400 => Self::Ok,
            408 | 504 => Self::Timeout,
            429 => Self::Rejected,
            499 => Self::Cancelled,
            400..500 => Self::Invalid,
            _ => Self::Error,
        }
    }
}

/// The code of gRPC in a response's headers: of calls that failed before anything was sent. It is absent where all went
/// well, and where a stream failed in its middle.
pub(crate) fn grpc_code<B>(response: &Response<B>) -> Option<u16> {
    code_in(response.headers())
}

/// The code of gRPC in headers or trailers.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What a code of gRPC is called.
#[must_use]
pub fn code_name(code: u16) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}

/// The status of HTTP that a response has or, for a call of gRPC that failed, would have: the mapping is that of gRPC's
/// own gateways.
pub(crate) fn status<B>(response: &Response<B>) -> u16 {
    let status = response.status();
    let code = grpc_code(response).filter(|_| status == StatusCode::OK);
    code.map_or(status.as_u16(), status_of)
}

/// The status of HTTP that a call of gRPC with this code would have.
pub(crate) fn status_of(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(http: u16, grpc: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(http);
        if let Some(code) = grpc {
            response = response.header("grpc-status", code);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn http_and_grpc_end_alike() {
        for (http, grpc, expected, outcome) in [
            (200, None, 200, Outcome::Ok),
            (429, None, 429, Outcome::Rejected),
            (404, None, 404, Outcome::Invalid),
            (503, None, 503, Outcome::Error),
            (200, Some("0"), 200, Outcome::Ok),
            (200, Some("3"), 400, Outcome::Invalid),
            (200, Some("4"), 504, Outcome::Timeout),
            (200, Some("8"), 429, Outcome::Rejected),
            (200, Some("13"), 500, Outcome::Error),
            (200, Some("14"), 503, Outcome::Error),
            (200, Some("1"), 499, Outcome::Cancelled),
            (200, Some("none"), 200, Outcome::Ok),
            // A proxy between answered in gRPC's stead.
            (502, Some("14"), 502, Outcome::Error),
        ] {
            let got = status(&response(http, grpc));
            assert_eq!((got, Outcome::of(got)), (expected, outcome), "{http} {grpc:?}");
        }
    }
}
