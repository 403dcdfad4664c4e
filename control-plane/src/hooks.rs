//! What other programs are told and asked: webhooks hear of every decision, gates can hold a release.
//!
//! Where they are is for the operator alone to say, in a file ([`settings`]): whoever may upload a release names gates,
//! never addresses. Everything that is sent is signed ([`sign`]).

mod deliver;
mod gates;
mod progress;
mod settings;
mod sign;

pub use gates::Gatekeeper;
pub use settings::{Hooks, read};

pub(crate) use deliver::deliver;

use prometheus_client::collector::Collector;

/// The metrics of webhooks.
#[must_use]
pub fn metrics(hooks: &Hooks) -> Box<dyn Collector> {
    Box::new(hooks.progress.clone())
}
