//! Why a request got no answer.

use crate::rejections::Reason;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use halftone_telemetry::outcome::Outcome;
use tonic::{Code, Status, metadata::MetadataValue};

/// Seconds after which a refused client may try again: a queue is worked off within that time or it is too long.
const RETRY_AFTER: u32 = 1;

/// Why a request got no answer. Over REST it is `{"error": "..."}`, over gRPC a status, as the Open Inference Protocol
/// says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request is wrong; the text says what was expected and what was got.
    #[error("{0}")]
    BadRequest(String),
    /// No such model, version or path; the text says what there is.
    #[error("{0}")]
    NotFound(String),
    /// It is not allowed here; the text says what would allow it.
    #[error("{0}")]
    Forbidden(String),
    /// The path exists, for another method.
    #[error("the method {0} is not allowed here")]
    MethodNotAllowed(String),
    /// The body did not come in time.
    #[error("the body stopped coming for {0} seconds")]
    TooSlow(u64),
    /// The body is larger than `--max-body`.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body is compressed in a way that is not read.
    #[error("the content encoding {0:?} is not read; gzip, deflate and identity are")]
    Encoding(String),
    /// More than can be kept is waiting; the text says what of.
    #[error("{problem}; try again later")]
    Overloaded {
        /// What is full.
        problem: String,
        /// The same, for the metrics.
        reason: Reason,
    },
    /// What is needed for an answer is not there now.
    #[error("{problem}; try again later")]
    Unavailable {
        /// What is not there, and why.
        problem: String,
        /// The same, for the metrics.
        reason: Reason,
        /// Seconds after which a client may try again.
        retry_after: u32,
    },
    /// Nobody waits for the answer any more.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// Not the client's fault.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// Its status of HTTP and its code of gRPC.
    #[must_use]
    pub fn codes(&self) -> (StatusCode, Code) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
            Self::Encoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented),
            Self::Overloaded { .. } => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Self::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::DeadlineExceeded(_) => (StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }

    /// Seconds after which a client may try again; none when that would not help.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Overloaded { .. } => Some(RETRY_AFTER),
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Why sound work was turned away, when it was.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Overloaded { reason, .. } | Self::Unavailable { reason, .. } => Some(*reason),
            Self::TooSlow(_) => Some(Reason::SlowBody),
            Self::DeadlineExceeded(_) => Some(Reason::Deadline),
            Self::BadRequest(_)
            | Self::NotFound(_)
            | Self::Forbidden(_)
            | Self::MethodNotAllowed(_)
            | Self::TooLarge(_)
            | Self::Encoding(_)
            | Self::Internal(_) => None,
        }
    }

    /// How a request that was answered so ended.
    #[must_use]
    pub fn outcome<T>(answer: &Result<T, Self>) -> Outcome {
        answer.as_ref().map_or_else(|failure| Outcome::of(failure.codes().0.as_u16()), |_| Outcome::Ok)
    }

    /// Whether it is our fault and not the client's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.codes().0.is_server_error()
    }

    /// What went wrong on our side is for the log too.
    fn tell(&self) {
        if let Self::Internal(error) = self {
            tracing::error!(error, "a request failed");
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.tell();
        let body = Json(serde_json::json!({ "error": self.to_string() }));
        let mut response = (self.codes().0, body).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.tell();
        let mut status = Self::new(failure.codes().1, failure.to_string());
        if let Some(seconds) = failure.retry_after() {
            let metadata = status.metadata_mut();
            metadata.insert("retry-after", MetadataValue::from(seconds));
            // What gRPC's own retries go by.
            metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(seconds.saturating_mul(1000)));
        }
        status
    }
}
