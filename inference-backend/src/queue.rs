//! A bounded queue that refuses when it is full, and gives out what can be done together.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often those who left are sought in a full queue.
const BETWEEN_CLEANINGS: Duration = Duration::from_millis(1);

/// What stands in a queue.
pub trait Item {
    /// Whether nobody wants it any more; such an item is never given out.
    fn is_void(&self) -> bool;

    /// How much of a batch it takes.
    fn weight(&self) -> usize;

    /// Whether it can be in one batch with the other.
    fn fits(&self, other: &Self) -> bool;
}

/// How large a batch may become, and how long it may wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Largest weight of a batch of several items.
    pub size: usize,
    /// How long a batch that is not full waits while more is on its way.
    pub delay: Duration,
}

impl BatchLimits {
    /// Every item by itself.
    pub const NONE: Self = Self { size: 1, delay: Duration::ZERO };
}

/// What [`Queue::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// At least one item; several when they fit each other.
    Batch(Vec<T>),
    /// Nothing came in the time given.
    Idle,
    /// The queue was closed and is empty.
    Closed,
}

/// An item came back because the queue is full.
#[derive(Debug)]
pub struct Full;

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// For idle takers: something came, or nothing more will.
    changed: Condvar,
    /// For takers whose batch waits for more.
    joined: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Takers that wait for an item.
    idle: usize,
    /// Takers whose batch waits for more.
    gathering: usize,
    /// Announced items that have not come yet.
    announced: usize,
    closed: bool,
    /// When those who left were last sought.
    cleaned: Option<Instant>,
}

impl<T: Item> Queue<T> {
    /// A queue in which at most `limit` items wait, besides those for which a taker is idle.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            idle: 0,
            gathering: 0,
            announced: 0,
            closed: false,
            cleaned: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), joined: Condvar::new(), limit }
    }

    /// Whether an item would be refused now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().is_full(self.limit)
    }

    /// How many items may wait, besides those for which a taker is idle.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many items wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().items.len()
    }

    /// Says that an item is about to come. A batch that is not full may wait for it.
    pub fn announce(&self) -> Announced<'_, T> {
        self.lock().announced += 1;
        Announced(self)
    }

    /// Adds an item; says how many wait now beyond what idle takers will take.
    ///
    /// # Errors
    /// When the queue is full or closed.
    pub fn push(&self, item: T) -> Result<usize, Full> {
        let mut state = self.lock();
        if state.closed {
            return Err(Full);
        }
        if state.is_full(self.limit) {
            return Err(Full);
        }
        state.items.push_back(item);
        let beyond = state.items.len().saturating_sub(state.idle);
        let gathering = state.gathering > 0;
        drop(state);
        if gathering {
            self.joined.notify_all();
        } else {
            self.changed.notify_one();
        }
        Ok(beyond)
    }

    /// Waits up to `patience` for an item, and takes with it what fits within the limits.
    pub fn take(&self, limits: BatchLimits, patience: Duration) -> Taken<T> {
        let mut state = self.lock();
        let first = loop {
            if let Some(item) = state.next() {
                break item;
            }
            if state.closed {
                return Taken::Closed;
            }
            state.idle += 1;
            let (woken, waited) = wait(&self.changed, state, patience);
            state = woken;
            state.idle -= 1;
            if waited && state.items.is_empty() && !state.closed {
                return Taken::Idle;
            }
        };
        let mut weight = first.weight();
        let mut batch = vec![first];
        state.fill(&mut batch, &mut weight, limits.size);
        let latest = Instant::now() + limits.delay;
        // Only while somebody is known to come: alone, nobody waits.
        while weight < limits.size && state.announced > 0 && state.items.is_empty() && !state.closed {
            let left = latest.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.gathering += 1;
            state = wait(&self.joined, state, left).0;
            state.gathering -= 1;
            state.fill(&mut batch, &mut weight, limits.size);
        }
        // What came in the meantime and does not fit is another taker's.
        if !state.items.is_empty() {
            self.changed.notify_one();
        }
        Taken::Batch(batch)
    }

    /// Takes no more items; those that wait are still given out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.joined.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits; says whether in vain.
fn wait<'a, T>(condition: &Condvar, state: MutexGuard<'a, T>, time: Duration) -> (MutexGuard<'a, T>, bool) {
    let (state, outcome) = condition.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
    (state, outcome.timed_out())
}

impl<T: Item> State<T> {
    /// Whether there is no place. Those who left hold none; when it is full they are sought, but not with every request
    /// that is to be refused.
    fn is_full(&mut self, limit: usize) -> bool {
        let is_full = |items: &VecDeque<T>, idle: usize| items.len() >= limit.saturating_add(idle);
        if !is_full(&self.items, self.idle) {
            return false;
        }
        if self.cleaned.is_none_or(|cleaned| cleaned.elapsed() > BETWEEN_CLEANINGS) {
            self.items.retain(|item| !item.is_void());
            self.cleaned = Some(Instant::now());
        }
        is_full(&self.items, self.idle)
    }

    fn next(&mut self) -> Option<T> {
        loop {
            let item = self.items.pop_front()?;
            if !item.is_void() {
                return Some(item);
            }
        }
    }

    /// Adds those from the front that fit. In their order: who came first is not to wait for who came later.
    fn fill(&mut self, batch: &mut Vec<T>, weight: &mut usize, size: usize) {
        while let Some(front) = self.items.front() {
            if front.is_void() {
                self.items.pop_front();
                continue;
            }
            let together = weight.saturating_add(front.weight());
            if together > size || !batch.first().is_some_and(|first| first.fits(front)) {
                return;
            }
            *weight = together;
            batch.extend(self.items.pop_front());
        }
    }
}

/// An item that is about to come; dropped when it came, or will not.
#[derive(Debug)]
pub struct Announced<'a, T: Item>(&'a Queue<T>);

impl<T: Item> Drop for Announced<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.announced -= 1;
        let in_vain = state.announced == 0 && state.gathering > 0;
        drop(state);
        if in_vain {
            // A batch that waited for it need not wait any longer.
            self.0.joined.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
