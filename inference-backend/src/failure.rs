//! Why a request got no answer.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Why a request got no answer. On the wire: `{"error": "..."}`, as the Open Inference Protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request is wrong; the text says what was expected and what was got.
    #[error("{0}")]
    BadRequest(String),
    /// No such model, version or path; the text says what there is.
    #[error("{0}")]
    NotFound(String),
    /// The path exists, for another method.
    #[error("the method {0} is not allowed here")]
    MethodNotAllowed(String),
    /// The body is larger than `--max-body`.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// All sessions are busy and the queue is full.
    #[error("{0} is overloaded: its queue is full; try again later")]
    Overloaded(String),
    /// Not the client's fault.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Self::Internal(error) = &self {
            tracing::error!(error, "a request failed");
        }
        let body = Json(serde_json::json!({ "error": self.to_string() }));
        let mut response = (self.status(), body).into_response();
        if let Self::Overloaded(_) = self {
            // A queue is worked off within a second or it is too long.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
