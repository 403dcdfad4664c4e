//! A circuit breaker: who fails too often is left alone for a while instead of being waited for.
//!
//! *Closed*, every request passes and is counted. When too many in a row fail, or too large a share of those in a sliding
//! window, it *opens*: requests are answered at once. After a while it is *half-open*: a few requests pass, and when all
//! of these succeed it closes; when one fails it opens again.
//!
//! [`BreakerLayer`] puts it around any service of HTTP requests, be it the client or the server, HTTP or gRPC.

mod body;
mod layer;
mod machine;

pub use self::{
    body::BreakerBody,
    layer::{BreakerLayer, BreakerService, REFUSAL},
};

use self::machine::Machine;
use crate::outcome::Outcome;
use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// When a circuit breaker opens and closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Opens when so many requests fail one after the other.
    pub consecutive: NonZeroU32,
    /// Opens when such a share of the window's requests failed.
    pub failure_percent: u8,
    /// The share is of no account as long as the window has fewer requests.
    pub minimum: NonZeroU32,
    /// What the share is of. It slides by tenths of itself; not zero.
    pub window: Duration,
    /// How long it stays open.
    pub open: Duration,
    /// How many requests pass when it is half-open; when all of them succeed, it closes.
    pub probes: NonZeroU32,
    /// A request that ran out of time, or that nobody waits for any more, is a failure when it was given at least so
    /// long. Shorter, it says nothing: whoever sends requests could else open the circuit for all others.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        const fn number(n: u32) -> NonZeroU32 {
            NonZeroU32::MIN.saturating_add(n - 1)
        }
        Self {
            consecutive: number(5),
            failure_percent: 50,
            minimum: number(20),
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            probes: number(3),
            patience: Duration::from_secs(1),
        }
    }
}

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests pass.
    Closed,
    /// Requests are answered at once. Half-open begins with the first request after its time.
    Open,
    /// A few requests pass.
    HalfOpen,
}

impl State {
    /// Its name, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open")]
pub struct Open {
    /// For how long it is; zero when the few that may pass are on their way.
    pub retry_after: Duration,
}

/// A circuit breaker; shared by all who ask the same service. Its clock is tokio's. Every change of state is an event of
/// the tracing target `breaker`.
#[derive(Debug)]
pub struct Breaker {
    name: String,
    policy: Policy,
    start: Instant,
    machine: Mutex<Machine>,
}

impl Breaker {
    /// A closed one. The name of what is behind it goes to the log.
    #[must_use]
    pub fn new(name: impl Into<String>, policy: Policy) -> Arc<Self> {
        let (start, machine) = (Instant::now(), Mutex::new(Machine::new()));
        Arc::new(Self { name: name.into(), policy, start, machine })
    }

    /// Name of what is behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// Asks whether a request may pass. How it went is to be told to the ticket; one that is dropped was cancelled.
    ///
    /// # Errors
    /// When it may not.
    pub fn enter(self: &Arc<Self>) -> Result<Ticket, Open> {
        let phase = self.change(|machine, now| machine.enter(&self.policy, now));
        let phase = phase.map_err(|retry_after| Open { retry_after })?;
        Ok(Ticket { breaker: Arc::clone(self), phase, begun: Instant::now(), told: false })
    }

    /// Does something with the machine and tells when its state has changed.
    fn change<T>(&self, work: impl FnOnce(&mut Machine, Duration) -> T) -> T {
        let mut machine = self.lock();
        let before = machine.state();
        let result = work(&mut machine, self.start.elapsed());
        let after = machine.state();
        drop(machine);
        if before != after {
            let (from, to) = (before.name(), after.name());
            tracing::warn!(target: "breaker", name = self.name, from, to, "the circuit is {to}");
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing that can panic is done under the lock.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that passes.
#[derive(Debug)]
pub struct Ticket {
    breaker: Arc<Breaker>,
    phase: u64,
    begun: Instant,
    told: bool,
}

impl Ticket {
    /// Says how the request ended. An answer is a success also when the request was wrong or there was no room for it;
    /// what ran out of time, or was cancelled, is a failure when it was given [long enough](Policy::patience).
    pub fn finish(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        self.told = true;
        let policy = &self.breaker.policy;
        let failed = match outcome {
            Outcome::Ok | Outcome::Invalid | Outcome::Rejected => Some(false),
            Outcome::Error => Some(true),
            Outcome::Timeout | Outcome::Cancelled => {
                (self.begun.elapsed() >= policy.patience).then_some(true)
            }
        };
        self.breaker.change(|machine, now| machine.leave(policy, now, self.phase, failed));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Outcome::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests;
