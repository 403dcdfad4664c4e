//! The part of Halftone that decides.
//!
//! A [`Bundle`] holds compiled rulesets. [`codec::decode`] verifies its bytes completely and yields a
//! [`VerifiedBundle`], the only thing that can [`decide`](VerifiedBundle::decide). The same code runs in
//! the wasm filter and natively. It does no I/O and has neither clock nor randomness of its own: the
//! host passes them in.
//!
//! ```
//! use halftone_rules::{Bundle, Request, Timestamp, codec};
//!
//! struct Curl;
//! impl Request for Curl {
//!     fn header(&self, name: &str) -> Option<&[u8]> {
//!         (name == "x-user-id").then_some(b"42")
//!     }
//! }
//!
//! let bundle = Bundle::pass_all(7, "digits", "v1");
//! let bytes = codec::encode(&bundle)?;
//! let verified = codec::decode(&bytes)?;
//! let decision = verified.decide(&Curl, Timestamp(0), &mut ()).expect("the ruleset governs every request");
//! assert_eq!(decision.target, "v1");
//! # Ok::<(), codec::BundleError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    reason = "this crate runs inside Envoy, where a panic takes a worker down"
)]

pub mod anonymous;
mod automaton;
pub mod baggage;
pub mod bucket;
pub mod bundle;
pub mod codec;
pub mod context;
mod decide;
mod decimal;
mod eval;
mod graph;
mod hash;
pub mod headers;
mod index;
pub mod isa;
pub mod limits;
mod matching;
pub mod network;
pub mod operator;
mod plan;
mod request;
mod scan;
pub mod time;
pub mod token;
pub mod trace;
mod value;
mod verify;
mod version;

pub use bundle::{Attribute, Bundle, Rule, Ruleset, Scope, Source};
pub use decide::{Decision, Observer, Outcome, Participation, Reason};
pub use hash::{Murmur3, unit_hash};
pub use request::Request;
pub use time::Timestamp;
pub use value::{EvalError, Type, Value, elements};
pub use verify::{VerifiedBundle, VerifyError};
pub use version::{compare_versions, is_version};
