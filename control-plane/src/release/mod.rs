//! Releases: candidates that ramp, hold, are promoted and rolled back by themselves.
//!
//! [`spec`] is what people write (`read`), [`status`] where a release is and what may happen there. Once a second the
//! [`controller`] makes a `snapshot` of what the ledger knows, asks the judge, and does what it says: the new status, the
//! [`record`] of the decision, and the revision with the new allocation are one transaction. [`safety`] is how it knows
//! that a return to stable is complete. `docs/release.md` says what holds.

mod allocation;
pub mod controller;
pub mod document;
pub mod event;
mod feed;
pub mod gate;
mod history;
mod metrics;
#[cfg(test)]
mod order_tests;
pub mod prometheus;
mod read;
pub mod record;
pub mod safety;
pub mod shares;
mod silence;
mod snapshot;
mod source;
pub mod spec;
pub mod status;
mod tick;
#[cfg(test)]
mod tick_tests;
pub mod view;

pub use crate::precondition::Precondition;
pub use controller::{Controller, ControllerError, Looked, Put};
pub use document::Document;
pub use event::Event;
pub use feed::Feed;
pub(crate) use feed::number;
pub use metrics::{MetricsArgs, metrics};
pub use read::read;
pub use record::DecisionRecord;
pub use spec::Spec;
pub use status::{Command, Phase, Status};

/// The JSON Schema of releases, for editors. `control-plane/tests/release_schema.rs` holds it to what [`read()`] takes.
pub const JSON_SCHEMA: &str = include_str!("../../../docs/release.schema.json");

/// Name of the arm with the concurrent control.
pub(crate) const CONTROL: &str = "control";
/// Name of the arm with the rest of stable.
pub(crate) const REST: &str = "rest";
