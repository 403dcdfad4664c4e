//! What was decided for a request and why, by the revision that it was decided by, also after rules have changed.
//!
//! A request is found by [`Id`]. What backends reported of it is in the [ledger](crate::ledger); why its target followed from that is
//! in the history of the [store](crate::store): [`why`] reads it there, `way` finds how the rules came to it,
//! `sentence` says it. `forms` keeps the last compiled rulesets.

mod decision;
pub(crate) mod forms;
mod found;
mod id;
mod sentence;
mod way;
pub mod why;

pub(crate) use decision::read;
pub use decision::{Decision, Participation};
pub use found::{Explanation, Found, Request};
pub use id::{BadId, Id};
