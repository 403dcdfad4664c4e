//! Events in their order, as they come to be.

use super::{controller::Looked, event::Event};
use crate::{
    publisher::{PublishError, Publisher},
    store::StoreError,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::watch;

/// Events that are read from the store at once.
const AT_ONCE: usize = 64;

/// Reads events from the store, one after the other: those that were there, then those that come. Notes are none.
pub struct Feed {
    publisher: Publisher,
    /// Told of every change.
    changes: watch::Receiver<Arc<BTreeMap<String, Looked>>>,
    after: u64,
    ready: VecDeque<Event>,
}

impl Feed {
    /// Of the events whose numbers are above `after`.
    pub(super) fn new(
        publisher: Publisher,
        changes: watch::Receiver<Arc<BTreeMap<String, Looked>>>,
        after: u64,
    ) -> Self {
        Self { publisher, changes, after, ready: VecDeque::new() }
    }

    /// Waits for the next event. Nothing is lost when the waiting is given up.
    ///
    /// # Errors
    /// When the store does not answer; it can be asked again.
    pub async fn next(&mut self) -> Result<Event, PublishError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = number(&event)?;
                return Ok(event);
            }
            // First: what changes while the store is read is read then.
            self.changes.borrow_and_update();
            let after = self.after;
            let records = self.publisher.stored(move |store| store.events(after, AT_ONCE)).await?;
            self.ready = records.iter().map(|record| parsed(record)).collect::<Result<_, _>>()?;
            if self.ready.is_empty() && self.changes.changed().await.is_err() {
                // Nothing comes any more: the program ends.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// An event's number.
///
/// # Errors
/// When it has none.
pub(crate) fn number(event: &Event) -> Result<u64, StoreError> {
    event.id.parse().map_err(|_| StoreError::Incompatible(format!("{:?} is no number of a record", event.id)))
}

fn parsed(record: &str) -> Result<Event, StoreError> {
    serde_json::from_str(record).map_err(|error| StoreError::Incompatible(error.to_string()))
}
