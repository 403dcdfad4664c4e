//! What happens to an engine's rules, for those who want to know.

use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// Events that a subscriber may be behind before it misses some.
const BACKLOG: usize = 64;

/// Rules that replaced others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that is in force now.
    pub revision: u64,
    /// The one before.
    pub previous: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// New rules are in force. [`Engine::rules`](crate::Engine::rules) has them, or newer ones.
    Changed(Change),
    /// A source that is watched has nothing that could be taken; the rules in force stay. Told once for each
    /// reason, however often it is tried again.
    Failed {
        /// The file or the URL.
        source: Arc<str>,
        /// What is wrong.
        why: Arc<str>,
    },
    /// A source that failed is well again, and what it has is in force already.
    Recovered {
        /// The file or the URL.
        source: Arc<str>,
    },
    /// This subscriber was too slow, and so many events are lost to it.
    Missed(u64),
}

/// The events of an engine since it was subscribed to.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// Waits for the next event; `None` when the engine and its watches are gone. Nothing waits for the subscriber:
    /// one that is far behind loses the oldest events and is told so. Can be cancelled without losing any.
    pub async fn next(&mut self) -> Option<Event> {
        told(self.0.recv().await)
    }

    /// As [`next`](Self::next), for threads without a runtime.
    ///
    /// # Panics
    /// When it is called within an asynchronous task.
    pub fn next_blocking(&mut self) -> Option<Event> {
        told(self.0.blocking_recv())
    }
}

fn told(received: Result<Event, RecvError>) -> Option<Event> {
    match received {
        Ok(event) => Some(event),
        Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
        Err(RecvError::Closed) => None,
    }
}

pub(crate) fn channel() -> broadcast::Sender<Event> {
    broadcast::Sender::new(BACKLOG)
}
