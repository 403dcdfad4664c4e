//! The body of a REST request.

use crate::{
    app::ClientLimits,
    budget::{Budget, Reservation},
    failure::Failure,
};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, header},
};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use std::{future::poll_fn, io::Read, pin::Pin, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Says how long the JSON is that binary tensors follow.
pub const JSON_LENGTH: &str = "inference-header-content-length";

/// How much of a body that is refused is still read, and forgotten: a client that is cut off while it sends sees a
/// broken connection instead of the answer.
const DISCARDED: usize = 64 << 20;
/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(1);
/// What is set aside for a body that does not say how long it is.
const FIRST_PIECE: usize = 16 << 10;

/// The body of a request, and what it takes of the budget.
#[derive(Debug)]
pub struct Payload {
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
    /// Length of the JSON, when binary tensors follow it.
    pub json: Option<usize>,
    encoding: Encoding,
    limit: usize,
    reservation: Reservation,
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Payload {
    /// Reads a body within the limits, as far as the budget reaches.
    ///
    /// # Errors
    /// When it is too large, does not come, or says that it is what we cannot read.
    pub async fn read(
        request: Request,
        limits: &ClientLimits,
        budget: &Arc<Budget>,
    ) -> Result<Self, Failure> {
        let (parts, mut body) = request.into_parts();
        let read = Self::take(&parts.headers, &mut body, limits, budget).await;
        if read.is_err() && !parts.headers.contains_key(header::EXPECT) {
            // Who expects leave to send gets the answer instead; all others send already.
            discard(body).await;
        }
        read
    }

    async fn take(
        headers: &HeaderMap,
        body: &mut Body,
        limits: &ClientLimits,
        budget: &Arc<Budget>,
    ) -> Result<Self, Failure> {
        let (limit, silence) = (limits.max_body, limits.silence);
        let (json, encoding) = (json_length(headers)?, encoding(headers)?);
        let declared = content_length(headers);
        if declared > limit {
            return Err(Failure::TooLarge(limit));
        }
        // Refused before it is read; what is left may still be gone before it has come.
        budget.has_room(declared)?;
        let mut reservation = budget.reserve();
        let mut bytes = Vec::new();
        while let Some(frame) = timeout(silence, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)))
            .await
            .map_err(|_| Failure::TooSlow(silence.as_secs()))?
        {
            let frame = frame.map_err(|e| Failure::BadRequest(format!("cannot read the body: {e}")))?;
            let Some(data) = frame.data_ref() else { continue };
            let length = bytes.len() + data.len();
            if length > limit {
                return Err(Failure::TooLarge(limit));
            }
            if declared >= length {
                reservation.grow(data.len())?;
                // In one piece, of which the system gives only what is written to. Not before something has come:
                // who declares much and sends nothing gets nothing.
                bytes.reserve_exact(declared - bytes.len());
                bytes.extend_from_slice(data);
            } else {
                append(&mut bytes, data, limit, &mut reservation)?;
            }
        }
        Ok(Self { bytes, json, encoding, limit, reservation })
    }

    /// Undoes the content's encoding.
    ///
    /// # Errors
    /// When it is not what it says, or becomes larger than a body may be.
    pub fn decode(mut self) -> Result<Self, Failure> {
        let mut decoder: Box<dyn Read + '_> = match self.encoding {
            Encoding::Identity => return Ok(self),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(self.bytes.as_slice())),
            Encoding::Deflate => Box::new(ZlibDecoder::new(self.bytes.as_slice())),
        };
        let (mut decoded, mut piece) = (Vec::new(), vec![0; FIRST_PIECE]);
        loop {
            let length = decoder
                .read(&mut piece)
                .map_err(|e| Failure::BadRequest(format!("cannot decompress the body: {e}")))?;
            let Some(data) = piece.get(..length).filter(|data| !data.is_empty()) else { break };
            if decoded.len() + data.len() > self.limit {
                return Err(Failure::TooLarge(self.limit));
            }
            append(&mut decoded, data, self.limit, &mut self.reservation)?;
        }
        drop(decoder);
        self.bytes = decoded;
        Ok(self)
    }
}

/// Adds data to bytes of which nobody said how many there will be, at most `most`, and takes of the budget what they
/// take.
fn append(
    bytes: &mut Vec<u8>,
    data: &[u8],
    most: usize,
    reservation: &mut Reservation,
) -> Result<(), Failure> {
    let (length, before) = (bytes.len() + data.len(), bytes.capacity());
    if length > before {
        let capacity = (before * 2).max(FIRST_PIECE).min(most).max(length);
        // While they move they are in both places.
        reservation.grow(capacity)?;
        bytes.reserve_exact(capacity - bytes.len());
        reservation.shrink(before);
    }
    bytes.extend_from_slice(data);
    Ok(())
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        Failure::BadRequest(format!(
            "Inference-Header-Content-Length is {value:?}, expected a number of bytes"
        ))
    })
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "identity" | "" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        other => Err(Failure::Encoding(other.to_owned())),
    }
}

/// Zero when it is not declared.
fn content_length(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Reads what still comes, for a while.
async fn discard(mut body: Body) {
    let reading = async {
        let mut length = 0_usize;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            length = length.saturating_add(frame.data_ref().map_or(0, axum::body::Bytes::len));
            if length > DISCARDED {
                break;
            }
        }
    };
    // In vain or not: the answer goes out.
    let _ = timeout(DISCARDING, reading).await;
}
