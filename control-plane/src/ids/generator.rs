//! What makes ids.

use super::{Id, SEQUENCES};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// By how many milliseconds the clock may go back and is waited for.
pub(super) const TOLERATED_MS: u64 = 5;

/// Tells the time, and lets it pass.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Returns after this time.
    fn wait(&self, time: Duration);
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Why there is no id now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Ids made now could have been made before.
    #[error(
        "the clock went back by {0} ms: no ids are made until another worker's number is leased, or it has caught up"
    )]
    WentBack(u64),
    /// The last lease expired and could not be renewed.
    #[error("no worker's number is leased: look at the disk of the folder --data, and at the clock")]
    NoLease,
    /// The clock is wrong by years.
    #[error("there are no ids for the time {0} (milliseconds since the Unix epoch): set the clock")]
    OutOfTime(u64),
}

/// The right to make ids as a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) worker: u16,
    /// No id is made at this time or later: milliseconds since the Unix epoch.
    pub(super) expires_at_ms: u64,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<Lease>,
    /// The time of the last id, or when the worker's number was leased.
    last_ms: u64,
    /// The sequence of the next id of that time.
    sequence: u16,
    /// The clock is behind, and that was counted.
    behind: bool,
}

/// Makes ids. Clones make them together.
#[derive(Clone)]
pub struct Ids(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    went_back: AtomicU64,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("state", &*self.state()).finish_non_exhaustive()
    }
}

impl Ids {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { clock, state: Mutex::default(), went_back: AtomicU64::new(0) }))
    }

    /// An id that nobody had. Blocks: until the next millisecond when this one has no more, and up to 5 ms while the clock
    /// catches up after a small step back.
    ///
    /// # Errors
    /// When the clock went back further, or there is no lease.
    pub fn next(&self) -> Result<Id, IdError> {
        let mut state = self.state();
        loop {
            let now = self.0.clock.now_ms();
            if let Some(back) = state.last_ms.checked_sub(now).filter(|back| *back > 0) {
                if back > TOLERATED_MS {
                    self.count_step_back(&mut state, back);
                    return Err(IdError::WentBack(back));
                }
                self.0.clock.wait(Duration::from_millis(back));
                continue;
            }
            let lease = state.lease.filter(|lease| now < lease.expires_at_ms).ok_or(IdError::NoLease)?;
            if now > state.last_ms {
                (state.last_ms, state.sequence) = (now, 0);
            }
            if state.sequence >= SEQUENCES {
                self.0.clock.wait(Duration::from_millis(1));
                continue;
            }
            let id = Id::new(now, lease.worker, state.sequence).ok_or(IdError::OutOfTime(now))?;
            state.sequence += 1;
            state.behind = false;
            return Ok(id);
        }
    }

    /// How often the clock went back by more than 5 ms, a restart included.
    #[must_use]
    pub fn times_went_back(&self) -> u64 {
        self.0.went_back.load(Relaxed)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// The lease, and the time of its last id.
    pub(super) fn leased(&self) -> (Option<Lease>, u64) {
        let state = self.state();
        (state.lease, state.last_ms)
    }

    /// Whether ids can be made at this time.
    pub(super) fn can_work(&self, now_ms: u64) -> bool {
        let (lease, last_ms) = self.leased();
        lease.is_some_and(|lease| now_ms < lease.expires_at_ms) && now_ms + TOLERATED_MS >= last_ms
    }

    /// Goes on with a lease that was renewed.
    pub(super) fn renewed(&self, lease: Lease) {
        self.state().lease = Some(lease);
    }

    /// Begins with a lease of a number that was free at `now_ms`, in place of the one before.
    pub(super) fn begin(&self, lease: Lease, now_ms: u64) {
        *self.state() = State { lease: Some(lease), last_ms: now_ms, sequence: 0, behind: false };
    }

    /// Ids were made `back` milliseconds later than it is now.
    pub(super) fn tell_step_back(&self, back: u64) {
        self.count_step_back(&mut self.state(), back);
    }

    fn count_step_back(&self, state: &mut State, back: u64) {
        if !std::mem::replace(&mut state.behind, true) {
            self.0.went_back.fetch_add(1, Relaxed);
            tracing::error!(milliseconds = back, "the clock went back: look at what sets it");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic leaves is whole: it is changed after everything that could fail.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
