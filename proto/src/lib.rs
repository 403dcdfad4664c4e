//! Protobuf messages of Halftone, generated from `proto/halftone/`, and the Open Inference Protocol's, from
//! `proto/inference/`.
//!
//! The `.proto` files are the contract; this crate only compiles them.

/// Package `halftone.v1`.
pub mod v1 {
    #![allow(missing_docs, reason = "generated; the documentation is in the .proto files")]
    #![allow(clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/halftone.v1.rs"));
}

/// Package `inference`: the Open Inference Protocol, version 2.
pub mod inference {
    #![allow(missing_docs, reason = "generated; the documentation is in the .proto files")]
    #![allow(clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));

    /// The package's descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}
