//! Protobuf messages of Halftone, generated from `proto/halftone/`, and the Open Inference Protocol's, from
//! `proto/inference/`.
//!
//! The `.proto` files are the contract; this crate compiles them, and has the numbers of it that both sides need.

/// Package `halftone.v1`.
pub mod v1 {
    #![allow(missing_docs, reason = "generated; the documentation is in the .proto files")]
    #![allow(clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/halftone.v1.rs"));
}

/// Milliseconds by which clocks may differ, the time that a request is on its way included: an exposure or a bad event that was
/// decided longer before its batch began, or after it ended, is not to be sent.
pub const CLOCK_TOLERANCE_MS: u64 = 10 * 60 * 1000;

/// Package `inference`: the Open Inference Protocol, version 2.
pub mod inference {
    #![allow(missing_docs, reason = "generated; the documentation is in the .proto files")]
    #![allow(clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));

    /// The package's descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}
