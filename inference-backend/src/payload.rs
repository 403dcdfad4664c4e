//! The body of an inference request.

use crate::{failure::Failure, http::App};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use std::{future::poll_fn, pin::Pin, sync::Arc};

/// Says that tensors follow the JSON in binary.
const BINARY_EXTENSION: &str = "inference-header-content-length";

/// How much of a body that is too large is still read, and forgotten: a client that is cut off while it sends sees a
/// broken connection instead of the answer.
const DISCARDED: usize = 64 << 20;

/// The body of an inference request, no larger than allowed.
pub(crate) struct Payload(pub(crate) Bytes);

impl FromRequest<Arc<App>> for Payload {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let headers = request.headers();
        if headers.contains_key(BINARY_EXTENSION) {
            return Err(Failure::BadRequest(
                "the binary tensor data extension is not served; send the tensors as JSON \
                 (tritonclient: binary_data=False)"
                    .into(),
            ));
        }
        let declared = content_length(headers);
        if headers.contains_key(header::EXPECT) && declared > app.max_body {
            // The client waits for leave to send.
            return Err(Failure::TooLarge(app.max_body));
        }
        let capacity = declared.min(app.max_body);
        read(request.into_body(), capacity, app.max_body).await.map(Self)
    }
}

/// Zero when it is not declared.
fn content_length(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
}

async fn read(mut body: Body, capacity: usize, limit: usize) -> Result<Bytes, Failure> {
    let mut bytes = Vec::with_capacity(capacity);
    let mut length = 0_usize;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|e| Failure::BadRequest(format!("cannot read the body: {e}")))?;
        let Some(data) = frame.data_ref() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            bytes.extend_from_slice(data);
        } else if length - limit > DISCARDED {
            break;
        }
    }
    if length > limit {
        return Err(Failure::TooLarge(limit));
    }
    Ok(bytes.into())
}
