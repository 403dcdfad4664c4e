//! The bundle's bytes.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | magic `HTNB` |
//! | 4 | 2 | format version, little-endian |
//! | 6 | 8 | revision, little-endian |
//! | 14 | 4 | length of the payload, little-endian |
//! | 18 | 8 | content hash: xxh3-64 of bytes 0 to 18 and the payload, little-endian |
//! | 26 | … | payload: the [`Bundle`] by bincode 2 (variable-length integers) |
//!
//! The hash finds damage, not malice: what the payload says is trusted only after
//! [`verify`](crate::verify).

use crate::{
    bundle::Bundle,
    limits::{MAX_BUNDLE_BYTES, MAX_DECODED_BYTES},
    verify::{VerifiedBundle, VerifyError},
};
use xxhash_rust::xxh3::Xxh3Default;

/// The first bytes of every bundle. No JSON or YAML text starts like this.
pub const MAGIC: [u8; 4] = *b"HTNB";
/// Version of the container and the payload. A reader refuses every other one.
pub const FORMAT_VERSION: u16 = 4;

const HASHED_HEADER: usize = 18;
const HEADER: usize = 26;

fn config() -> impl bincode::config::Config {
    // Bounds what a lying length inside the payload can make the decoder allocate.
    bincode::config::standard().with_limit::<MAX_DECODED_BYTES>()
}

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Larger than [`MAX_BUNDLE_BYTES`].
    #[error("the bundle has {0} bytes, more than the {MAX_BUNDLE_BYTES} allowed")]
    TooLarge(usize),
    /// Shorter than its header or than its header says.
    #[error("the bundle is truncated: {got} bytes where {want} were expected")]
    Truncated {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// The bytes go on after the payload.
    #[error("{0} bytes follow the bundle's end")]
    TrailingBytes(usize),
    /// No bundle at all.
    #[error("not a bundle: the first four bytes are not HTNB")]
    Magic,
    /// Made by another version.
    #[error("bundle format {0}, but this build reads only format {FORMAT_VERSION}")]
    FormatVersion(u16),
    /// The bytes changed since they were written.
    #[error("the bundle is damaged: its content hash does not match")]
    ContentHash,
    /// The header and the payload name different revisions.
    #[error("the header says revision {header}, the payload {payload}")]
    Revision {
        /// The header's.
        header: u64,
        /// The payload's.
        payload: u64,
    },
    /// The payload cannot be decoded.
    #[error("the payload cannot be decoded: {0}")]
    Payload(String),
    /// The payload is no valid program.
    #[error("the bundle does not verify: {0}")]
    Invalid(#[from] VerifyError),
}

/// The bytes of a bundle. Whether it is valid is for [`decode`] to say.
///
/// # Errors
/// When the bundle is larger than [`MAX_BUNDLE_BYTES`].
pub fn encode(bundle: &Bundle) -> Result<Vec<u8>, BundleError> {
    let payload =
        bincode::encode_to_vec(bundle, config()).map_err(|e| BundleError::Payload(e.to_string()))?;
    let total = HEADER.saturating_add(payload.len());
    let length = u32::try_from(payload.len()).map_err(|_| BundleError::TooLarge(total))?;
    if total > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge(total));
    }
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&bundle.revision.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let hash = content_hash(&bytes, &payload);
    bytes.extend_from_slice(&hash.to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Reads and verifies a bundle's bytes.
///
/// # Errors
/// When a single bit is not as [`encode`] wrote it, or the program would break an invariant of the
/// evaluator.
pub fn decode(bytes: &[u8]) -> Result<VerifiedBundle, BundleError> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge(bytes.len()));
    }
    let truncated = |want| BundleError::Truncated { got: bytes.len(), want };
    let (hashed, rest) = bytes.split_at_checked(HASHED_HEADER).ok_or(truncated(HEADER))?;
    let (hash, payload) = rest.split_first_chunk::<8>().ok_or(truncated(HEADER))?;
    let (magic, fields) = hashed.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
    let (version, fields) = fields.split_first_chunk::<2>().ok_or(truncated(HEADER))?;
    let (revision, fields) = fields.split_first_chunk::<8>().ok_or(truncated(HEADER))?;
    let length = fields.first_chunk::<4>().ok_or(truncated(HEADER))?;

    if *magic != MAGIC {
        return Err(BundleError::Magic);
    }
    if u16::from_le_bytes(*version) != FORMAT_VERSION {
        return Err(BundleError::FormatVersion(u16::from_le_bytes(*version)));
    }
    let length = u32::from_le_bytes(*length) as usize;
    if payload.len() < length {
        return Err(truncated(HEADER.saturating_add(length)));
    }
    if payload.len() > length {
        return Err(BundleError::TrailingBytes(payload.len() - length));
    }
    if u64::from_le_bytes(*hash) != content_hash(hashed, payload) {
        return Err(BundleError::ContentHash);
    }
    let (bundle, read): (Bundle, usize) =
        bincode::decode_from_slice(payload, config()).map_err(|e| BundleError::Payload(e.to_string()))?;
    if read != length {
        return Err(BundleError::TrailingBytes(length - read));
    }
    let header = u64::from_le_bytes(*revision);
    if header != bundle.revision {
        return Err(BundleError::Revision { header, payload: bundle.revision });
    }
    Ok(VerifiedBundle::new(bundle)?)
}

/// The content hash in a bundle's header, as it stands there; `None` when the bytes end before it.
#[must_use]
pub fn stored_content_hash(bytes: &[u8]) -> Option<u64> {
    let (_, rest) = bytes.split_at_checked(HASHED_HEADER)?;
    rest.first_chunk::<8>().map(|hash| u64::from_le_bytes(*hash))
}

fn content_hash(header: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(header);
    hash.update(payload);
    hash.digest()
}
