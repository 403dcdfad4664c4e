//! Protobuf messages of Halftone, generated from `proto/halftone/`.
//!
//! The `.proto` files are the contract; this crate only compiles them.

/// Package `halftone.v1`.
pub mod v1 {
    #![allow(missing_docs, reason = "generated; the documentation is in the .proto files")]
    include!(concat!(env!("OUT_DIR"), "/halftone.v1.rs"));
}
