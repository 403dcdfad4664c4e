//! The form of a batch in a file.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `HTOBS\0\0\1`: what it is, and the version of the form |
//! | 8 | 8 | xxh3-64 of all that follows |
//! | 16 | 16 | the source |
//! | 32 | 8 | the first sequence that it has, when it was merged of several |
//! | 40 | 8 | its sequence, which is the last of those |
//! | 48 | | the message `ObservationBatch` |
//!
//! Numbers are little-endian.

use halftone_proto::v1::ObservationBatch;
use prost::Message;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"HTOBS\0\0\x01";

/// Whose batch it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// 16 random bytes.
    pub(super) source: [u8; 16],
    /// The first sequence that it has.
    pub(super) first: u64,
    /// The last, which it is sent by.
    pub(super) sequence: u64,
}

/// A batch as the bytes of a file.
#[must_use]
pub(super) fn encode(label: Label, batch: &ObservationBatch) -> Vec<u8> {
    let mut covered = Vec::with_capacity(32 + batch.encoded_len());
    covered.extend_from_slice(&label.source);
    covered.extend_from_slice(&label.first.to_le_bytes());
    covered.extend_from_slice(&label.sequence.to_le_bytes());
    covered.extend_from_slice(&batch.encode_to_vec());
    [&MAGIC[..], &xxh3_64(&covered).to_le_bytes(), &covered].concat()
}

/// A batch from the bytes of a file.
///
/// # Errors
/// How it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Result<(Label, ObservationBatch), String> {
    let (magic, rest) = bytes.split_first_chunk().ok_or("it ends within its head")?;
    if *magic != MAGIC {
        return Err("it is no batch of this version".into());
    }
    let (checksum, covered) = rest.split_first_chunk().ok_or("it ends within its head")?;
    if u64::from_le_bytes(*checksum) != xxh3_64(covered) {
        return Err("its checksum is wrong: it was cut off, or bits have changed".into());
    }
    let (source, rest) = covered.split_first_chunk().ok_or("it ends within its head")?;
    let (first, rest) = rest.split_first_chunk().ok_or("it ends within its head")?;
    let (sequence, message) = rest.split_first_chunk().ok_or("it ends within its head")?;
    let label =
        Label { source: *source, first: u64::from_le_bytes(*first), sequence: u64::from_le_bytes(*sequence) };
    let batch = ObservationBatch::decode(message).map_err(|e| e.to_string())?;
    Ok((label, batch))
}

/// Writes a file in one step: after a crash of the machine it is there completely, as it was or not at all.
///
/// # Errors
/// When that is not possible; then it is as it was.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        // On a full disk it would take room from others. What is left is removed at the next start.
        let _ = fs::remove_file(&new);
    }
    written?;
    path.parent().map_or(Ok(()), sync)
}

/// Makes the folder's entries durable.
///
/// # Errors
/// When the system cannot.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
