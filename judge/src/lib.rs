//! The judge: from mergeable statistics and a policy to a verdict with its reasons.
//!
//! Pure functions. There is no clock, no I/O and no randomness: the host passes in what is known ([`Snapshot`]) and what
//! was remembered ([`State`]), and stores what comes out. The same inputs give the same bytes.
//!
//! - [`stats`]: what has to be known of millions of requests, in a few numbers that merge;
//! - [`fixed`]: tests for one look, sample sizes, corrections for several tests;
//! - [`sequential`]: methods that stay valid however often one looks;
//! - [`policy`]: from these to a verdict;
//! - [`simulation`]: releases whose truth is known, to see what all of it does.
//!
//! `docs/judge.md` says what each method assumes and when it is used.
//!
//! ```
//! use halftone_judge::{Judge, Policy, Snapshot, State, policy::Decision};
//!
//! let policy: Policy = serde_json::from_str(r#"{"metrics": {"errors": {"role": "guardrail", "kind": "event"}}}"#)?;
//! let judge = Judge::new(policy).expect("a sound policy");
//! let snapshot: Snapshot = serde_json::from_str(
//!     r#"{"elapsed_s": 60, "gate": "final", "epochs": [{
//!         "id": "1", "shares": {"control": 0.05, "treatment": 0.05, "rest": 0.9},
//!         "units": {"control": 300, "treatment": 290, "rest": 5400},
//!         "metrics": {"errors": {
//!             "control": {"proportion": {"n": 300, "k": 0}},
//!             "treatment": {"proportion": {"n": 290, "k": 9}},
//!             "rest": {"proportion": {"n": 5400, "k": 6}}
//!         }}
//!     }]}"#,
//! )?;
//! let (verdict, state) = judge.judge(&snapshot, State::default());
//! assert_eq!(verdict.decision, Decision::Rollback);
//! assert!(verdict.sentence.starts_with("Roll back: errors is worse in the candidate: 9 of 15 units with a bad event"));
//! # let _ = state;
//! # Ok::<(), serde_json::Error>(())
//! ```
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
pub mod simulation;
pub mod special;
pub mod stats;

pub use error::{Error, Result};
pub use policy::{Judge, Policy, Snapshot, State, Verdict};
