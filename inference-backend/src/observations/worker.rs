//! The thread behind the requests: gathers what they hand over, writes it down and sends it.

use super::{
    aggregator::Aggregator,
    backlog::Backlog,
    handover::{Inbox, ROOM},
    spool::Spool,
    uplink::Uplink,
};
use halftone_telemetry::throttle::Throttle;
use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, oneshot},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{Code, Status};

/// How often it looks what was handed over. Requests wake nobody.
const LOOK: Duration = Duration::from_millis(25);

/// What is written and not sent yet, for the two things that the thread does in turns.
#[derive(Debug)]
pub struct Shelf {
    /// Never borrowed while somebody waits.
    spool: RefCell<Spool>,
    added: Notify,
    backlog: Backlog,
}

impl Shelf {
    /// Of a spool; says in the backlog how much is on it.
    #[must_use]
    pub fn new(spool: Spool, backlog: Backlog) -> Self {
        let shelf = Self { spool: RefCell::new(spool), added: Notify::new(), backlog };
        shelf.say(&shelf.spool.borrow());
        shelf
    }

    fn say(&self, spool: &Spool) {
        self.backlog.written(spool.begun_ms(), spool.len(), spool.bytes());
    }
}

/// Works until it is told to stop, and then for as long as it is told, at most, to send what is left. What cannot be sent
/// stays in the spool.
pub async fn run(
    mut gatherer: Gatherer,
    shelf: &Shelf,
    mut uplink: Uplink,
    stop: oneshot::Receiver<Duration>,
) {
    let patience = tokio::select! {
        patience = gatherer.gather(shelf, stop) => patience,
        never = send(shelf, &mut uplink) => match never {},
    };
    if timeout(patience, flush(shelf, &mut uplink)).await.is_err() {
        tracing::debug!("the time to send observations is over");
    }
    let left = shelf.spool.borrow().len();
    if left > 0 {
        tracing::info!(batches = left, "observations are kept and sent after the next start");
    }
}

/// Gathers what requests hand over, and writes it down.
#[derive(Debug)]
pub struct Gatherer {
    inbox: Inbox,
    interval: Duration,
    aggregator: Aggregator,
    /// The last batch could be written.
    writable: bool,
    unwritable_warning: Throttle,
    full_warning: Throttle,
}

impl Gatherer {
    /// Writes a batch so often.
    #[must_use]
    pub fn new(inbox: Inbox, interval: Duration, backlog: Backlog) -> Self {
        Self {
            inbox,
            interval,
            aggregator: Aggregator::new(backlog),
            writable: true,
            unwritable_warning: Throttle::default(),
            full_warning: Throttle::default(),
        }
    }

    /// Gathers until it is told to stop; gives what it was told.
    async fn gather(&mut self, shelf: &Shelf, mut stop: oneshot::Receiver<Duration>) -> Duration {
        let mut look = interval(LOOK.min(self.interval));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Instant::now();
        loop {
            let stopped = tokio::select! {
                _ = look.tick() => None,
                // Who would tell is gone: there is nothing to wait for.
                stopped = &mut stop => Some(stopped.unwrap_or_default()),
            };
            self.take();
            // What cannot be written now is not tried again with every look.
            let full = self.aggregator.is_full() && self.writable;
            if stopped.is_some() || written.elapsed() >= self.interval || full {
                self.write(shelf);
                written = Instant::now();
            }
            if let Some(patience) = stopped {
                return patience;
            }
        }
    }

    fn take(&mut self) {
        // No more than can wait: what comes faster must not keep the thread from everything else.
        for _ in 0..ROOM {
            let Some(record) = self.inbox.take() else { break };
            self.aggregator.take(&record);
        }
        let missed = self.inbox.take_missed();
        if missed > 0 {
            self.aggregator.omit(missed, 0, 0);
        }
    }

    /// Writes down what was gathered. What cannot be written is gathered on, and tried again.
    fn write(&mut self, shelf: &Shelf) {
        let mut spool = shelf.spool.borrow_mut();
        let lost = spool.take_lost();
        if lost > 0 {
            self.aggregator.omit(0, 0, lost);
            // It may have had the first sight of a unit.
            self.aggregator.forget();
        }
        if self.aggregator.batch().is_empty() {
            return;
        }
        let added = spool.add(self.aggregator.batch());
        self.writable = added.is_ok();
        if let Err(error) = added {
            self.tell(&error);
            return;
        }
        // Before it is no longer gathered: in between, nothing would be behind.
        shelf.say(&spool);
        self.aggregator.begin();
        match spool.shrink() {
            Ok(gone) => {
                if gone.units || gone.batches > 0 {
                    self.aggregator.omit(0, 0, gone.batches);
                    self.aggregator.forget();
                    self.warn_of_room(gone.batches);
                }
            }
            Err(error) => self.tell(&error),
        }
        shelf.say(&spool);
        shelf.added.notify_one();
    }

    fn tell(&mut self, error: &io::Error) {
        if self.unwritable_warning.is_due() {
            tracing::warn!(%error, "cannot write observations down; they are kept in memory as far as there is room");
        } else {
            tracing::debug!(%error, "cannot write observations down");
        }
    }

    fn warn_of_room(&mut self, batches: u64) {
        if self.full_warning.is_due() {
            tracing::warn!(batches, "the folder of observations is full: the oldest are let go");
        } else {
            tracing::debug!(batches, "the oldest observations are let go");
        }
    }
}

/// Sends what there is, and what comes.
async fn send(shelf: &Shelf, uplink: &mut Uplink) -> Infallible {
    loop {
        match send_oldest(shelf, uplink).await {
            Ok(true) => {}
            Ok(false) => shelf.added.notified().await,
            Err(wait) => sleep(wait).await,
        }
    }
}

/// Sends what there is, as long as that goes well.
async fn flush(shelf: &Shelf, uplink: &mut Uplink) {
    while send_oldest(shelf, uplink).await == Ok(true) {}
}

/// Sends one batch. Whether there was one.
///
/// # Errors
/// When it failed: how long to wait before it is tried again.
async fn send_oldest(shelf: &Shelf, uplink: &mut Uplink) -> Result<bool, Duration> {
    let waiting = shelf.spool.borrow().len();
    let oldest = shelf.spool.borrow_mut().oldest();
    let Some(batch) = oldest.map_err(|error| {
        let unreadable = Status::internal(format!("cannot read a batch: {error}"));
        uplink.failed(&unreadable, waiting)
    })?
    else {
        return Ok(false);
    };
    let (source, sequence) = (batch.source.clone(), batch.sequence);
    let sent = uplink.send(batch).await;
    let mut spool = shelf.spool.borrow_mut();
    match sent {
        Ok(kept) => {
            spool.remove(&source, kept);
            shelf.say(&spool);
            tracing::debug!(sequence, kept, waiting = spool.len(), "observations were sent");
            uplink.succeeded();
            Ok(true)
        }
        Err(status) if status.code() == Code::InvalidArgument => {
            let reason = status.message();
            tracing::error!(
                sequence,
                reason,
                "observations are lost: a batch was refused; kept as `refused`"
            );
            spool.refuse_oldest();
            shelf.say(&spool);
            Ok(true)
        }
        Err(status) => Err(uplink.failed(&status, waiting)),
    }
}
