//! The judge: from mergeable statistics and a policy to a verdict with its reasons.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    reason = "a judge that panics leaves a release without one"
)]

mod error;
pub mod fixed;
pub mod policy;
pub mod sequential;
pub mod special;
pub mod stats;

pub use error::{Error, Result};
pub use policy::{Judge, Policy, Snapshot, State, Verdict};
