//! What comes in: the name in the path, and the text in the body.

use super::problem::Problem;
use axum::{
    body::Bytes,
    extract::{FromRequestParts, Path, rejection::BytesRejection},
    http::{HeaderMap, header, request::Parts},
};

/// The name in the path.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// A text that came in.
pub(super) struct Upload {
    pub(super) text: String,
    /// Whether it came as `curl -d` sends files: as a form, and without a single line break.
    lines_joined: bool,
}

impl Upload {
    /// Takes the text over; `what` it is.
    pub(super) fn new(
        what: &'static str,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Self, Problem> {
        let body = body.map_err(|rejection| Problem::body(&rejection, what, super::MAX_BODY))?;
        let text = String::from_utf8(body.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::bad_request(format!("the {what} is not UTF-8: byte {at} does not belong to a character"))
        })?;
        let form =
            headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/x-www-form-urlencoded");
        let lines_joined = form && !text.is_empty() && !text.contains('\n');
        Ok(Self { text, lines_joined })
    }

    /// Why it was not taken, with what may have led to it.
    pub(super) fn refused(&self, problem: Problem) -> Problem {
        if self.lines_joined {
            return problem
                .with_hint("all of it is one line: curl's -d joins lines, --data-binary keeps them");
        }
        problem
    }
}
