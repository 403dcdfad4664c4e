//! From the requests to the thread behind them.

use super::record::Record;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

/// Inferences that may wait until the thread looks, which it does 40 times a second.
pub const ROOM: usize = 8192;

/// Where requests hand over what was observed. Never waits.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: SyncSender<Record>,
    missed: Arc<AtomicU64>,
}

/// Where it arrives.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Record>,
    missed: Arc<AtomicU64>,
}

/// Both ends.
#[must_use]
pub fn handover() -> (Outbox, Inbox) {
    let (sender, receiver) = sync_channel(ROOM);
    let missed = Arc::new(AtomicU64::new(0));
    (Outbox { sender, missed: Arc::clone(&missed) }, Inbox { receiver, missed })
}

impl Outbox {
    /// Hands over. What there is no room for is counted and let go.
    pub fn put(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Inbox {
    /// The next; none when nothing waits.
    pub fn take(&mut self) -> Option<Record> {
        self.receiver.try_recv().ok()
    }

    /// How many there was no room for, since this was asked last.
    pub fn take_missed(&mut self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}
