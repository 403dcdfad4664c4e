//! Errors as `application/problem+json` (RFC 9457).

use super::{json, outcomes::Stored};
use crate::{
    gate::GateError, ledger::LedgerError, publisher::PublishError, release::ControllerError,
    store::StoreError,
};
use axum::{
    extract::rejection::BytesRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use halftone_compiler::{Diagnostic, render};
use serde::Serialize;

/// One error, for machines and people.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    /// What kind of problem: the same for every occurrence.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// What is wrong this time, and what to do.
    detail: String,
    /// The problems of a ruleset, each with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Diagnostic>,
    /// The same as snippets of the text, to be shown to whoever wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rendered: Option<String>,
    /// What is kept in place of what was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Box<Stored>>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            rendered: None,
            stored: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:halftone:problem:bad-request",
            "The request is malformed",
            detail,
        )
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:halftone:problem:unauthorized", "A token is needed", detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:halftone:problem:forbidden",
            "The request is not allowed",
            detail,
        )
    }

    pub(crate) fn misdirected(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:misdirected";
        Self::new(StatusCode::MISDIRECTED_REQUEST, kind, "The request is for another host", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:halftone:problem:not-found", "Not found", detail)
    }

    /// What is asked for does not fit to where things are.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:halftone:problem:conflict", "It is not possible now", detail)
    }

    pub(crate) fn method_not_allowed(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:method-not-allowed";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, kind, "The method is not allowed", detail)
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:internal";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind, "Nothing was changed", detail)
    }

    /// What is kept could not be read.
    pub(crate) fn unreadable(error: &StoreError) -> Self {
        tracing::error!(%error, "the store cannot be read: {}", error.remedy());
        let kind = "urn:halftone:problem:store";
        let detail = format!("{error}: {}", error.remedy());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "The store does not answer", detail)
    }

    /// The body, which is to be `what`, could not be taken.
    pub(crate) fn body(rejection: &BytesRejection, what: &str, most: usize) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::too_large(format!("{what} has at most {most} bytes"));
        }
        Self::bad_request(rejection.body_text())
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:too-large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind, "The upload is too large", detail)
    }

    /// The body is of a kind that is not taken here.
    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:media-type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, "The body is of another kind", detail)
    }

    /// Too many do the same.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        let kind = "urn:halftone:problem:busy";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "The control plane is busy", detail)
    }

    /// An outcome whose key another one has.
    pub(crate) fn key_used(stored: Stored) -> Self {
        let kind = "urn:halftone:problem:key-used";
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            kind,
            "The id belongs to another outcome",
            "another outcome of this release came with this id before, and stays: `stored`. Give each outcome an id of its own",
        );
        Self { stored: Some(Box::new(stored)), ..problem }
    }

    /// An outcome that was not taken.
    pub(crate) fn not_taken(error: &LedgerError) -> Self {
        let detail = error.to_string();
        match error {
            LedgerError::Refused(refusal) => Self::bad_request(refusal.to_string()),
            LedgerError::Busy => Self::busy(detail),
            LedgerError::Full(_) => Self::full(detail),
            LedgerError::Store(error) if error.is_full() => Self::full(detail),
            LedgerError::Store(_) | LedgerError::Ids(_) | LedgerError::Stopped => {
                let kind = "urn:halftone:problem:store";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "Nothing can be kept", detail)
            }
        }
    }

    fn full(detail: String) -> Self {
        let kind = "urn:halftone:problem:store";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, kind, "There is no room", detail)
    }

    /// Its status, what is wrong this time, and what is kept in place of what was sent.
    pub(crate) fn parts(self) -> (u16, String, Option<Box<Stored>>) {
        (self.status, self.detail, self.stored)
    }

    /// The same problem, with what may have led to it.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { detail: format!("{} ({hint})", self.detail), ..self }
    }

    /// A change of a release that was not made. `name` and `source` are the release's.
    pub(crate) fn release(error: ControllerError, name: &str, source: &str) -> Self {
        let detail = error.to_string();
        match error {
            ControllerError::Invalid(diagnostics) => {
                let kind = "urn:halftone:problem:invalid-release";
                Self::invalid(kind, "The release is not valid", name, source, diagnostics)
            }
            ControllerError::NotFound(_) => Self::not_found(detail),
            ControllerError::NotAllowed(_) => Self::conflict(detail),
            ControllerError::Precondition(generation) => {
                let detail = match generation {
                    Some(generation) => format!("the release is at generation {generation}; read it again"),
                    None => "the release does not exist".into(),
                };
                let kind = "urn:halftone:problem:precondition";
                Self::new(StatusCode::PRECONDITION_FAILED, kind, "The release has changed", detail)
            }
            // The text is right, and its ruleset cannot have it: places are in the ruleset's text, and mean nothing.
            ControllerError::Publish(PublishError::Invalid(diagnostics)) => {
                let kind = "urn:halftone:problem:invalid-release";
                let first = diagnostics.first().map_or(String::new(), |first| {
                    let help = first.help.as_ref().map_or(String::new(), |help| format!(": {help}"));
                    format!("{}{help}", first.message)
                });
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    kind,
                    "The ruleset cannot have the release",
                    first,
                )
            }
            ControllerError::Id(_) => {
                tracing::error!(release = name, error = detail, "a change was not made");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "urn:halftone:problem:ids",
                    "The control plane has no numbers for records",
                    detail,
                )
            }
            ControllerError::Publish(error) => Self::publish(error, name, source),
        }
    }

    fn invalid(
        kind: &'static str,
        title: &'static str,
        name: &str,
        source: &str,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let detail = diagnostics.first().map_or(String::new(), |first| {
            let more = match diagnostics.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            format!("line {}, column {}: {}{more}", first.place.line, first.place.column, first.message)
        });
        let rendered = Some(render(name, source, &diagnostics));
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail);
        Self { errors: diagnostics, rendered, ..problem }
    }

    /// A change that was not made. `name` and `source` are the ruleset's.
    pub(crate) fn publish(error: PublishError, name: &str, source: &str) -> Self {
        const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
        let detail = error.to_string();
        match error {
            PublishError::Invalid(diagnostics) => {
                let kind = "urn:halftone:problem:invalid-ruleset";
                Self::invalid(kind, "The ruleset is not valid", name, source, diagnostics)
            }
            PublishError::NotFound(_) => Self::not_found(detail),
            PublishError::HasReleases(_) => Self::conflict(detail),
            PublishError::Overlap(_) => Self::new(
                StatusCode::CONFLICT,
                "urn:halftone:problem:overlap",
                "Two rulesets overlap",
                detail,
            ),
            PublishError::Bundle(_)
            | PublishError::TooManyNodeClusters(_)
            | PublishError::Gate(GateError::TooLarge) => {
                Self::new(UNPROCESSABLE, "urn:halftone:problem:bundle", "The bundle cannot be made", detail)
            }
            PublishError::Precondition(since) => {
                let detail = match since {
                    Some(revision) => {
                        format!("the ruleset is in force since revision {revision}; read it again")
                    }
                    None => "the ruleset does not exist".into(),
                };
                let kind = "urn:halftone:problem:precondition";
                Self::new(StatusCode::PRECONDITION_FAILED, kind, "The ruleset has changed", detail)
            }
            PublishError::Busy => Self::busy(format!("{detail}; try again in a moment")),
            PublishError::Store(error) => {
                tracing::error!(ruleset = name, %error, "a change cannot be kept: {}", error.remedy());
                let status = match error {
                    _ if error.is_full() => StatusCode::INSUFFICIENT_STORAGE,
                    StoreError::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
                    StoreError::Conflict(_) | StoreError::Incompatible(_) => {
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                let kind = "urn:halftone:problem:store";
                let detail = format!("{detail}; nothing was changed, and proxies go on: {}", error.remedy());
                Self::new(status, kind, "The store takes no changes", detail)
            }
            PublishError::Gate(_) | PublishError::Snapshot(_) | PublishError::Internal(_) => {
                tracing::error!(ruleset = name, error = detail, "a change was not made");
                Self::internal(detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json::text(&self).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
