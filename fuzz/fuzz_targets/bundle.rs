//! A bundle's bytes: as they are, and as the payload of a header that is right.
#![no_main]

use halftone_fuzz::{decides, requests, survives};
use halftone_rules::{
    Timestamp,
    codec::{FORMAT_VERSION, MAGIC, decode},
};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

/// The bytes of a bundle with this payload.
fn with_header(payload: &[u8]) -> Vec<u8> {
    // The payload starts with the revision; below 251 that is one byte.
    let revision = payload.first().map_or(0, |first| u64::from(*first));
    let length = u32::try_from(payload.len()).expect("inputs are short");
    let header =
        [&MAGIC[..], &FORMAT_VERSION.to_le_bytes(), &revision.to_le_bytes(), &length.to_le_bytes()].concat();
    let hash = xxh3_64(&[&header, payload].concat());
    [&header, &hash.to_le_bytes()[..], payload].concat()
}

fuzz_target!(|bytes: &[u8]| {
    // What stands behind the header of a bundle in the seeds is a payload too.
    let payload = bytes.get(26..).filter(|_| bytes.starts_with(&MAGIC)).unwrap_or(bytes);
    for bytes in [bytes, &with_header(payload)] {
        if let Ok(bundle) = decode(bytes) {
            survives(&bundle);
            decides(&bundle, &requests(), Timestamp(0));
        }
    }
});
