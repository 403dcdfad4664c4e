//! The states of a circuit breaker, without a clock: the time comes from outside, counted from its start.

use super::{Policy, State};
use std::{collections::VecDeque, time::Duration};

/// The window slides by such a part of itself.
pub(super) const SLICES: u32 = 10;

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    /// Counts the phases: what was let in during an earlier one has no say in a later one.
    number: u64,
}

#[derive(Debug)]
enum Phase {
    Closed { window: Window, in_a_row: u32 },
    Open { until: Duration },
    HalfOpen { under_way: u32, succeeded: u32 },
}

impl Machine {
    pub(super) fn new() -> Self {
        Self { phase: Phase::closed(), number: 0 }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Lets a request in, in the phase of this number, or says for how long none is.
    pub(super) fn enter(&mut self, policy: &Policy, now: Duration) -> Result<u64, Duration> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(until - now);
            }
            self.turn(Phase::HalfOpen { under_way: 0, succeeded: 0 });
        }
        if let Phase::HalfOpen { under_way, succeeded } = &mut self.phase {
            if *under_way + *succeeded >= policy.probes.get() {
                return Err(Duration::ZERO);
            }
            *under_way += 1;
        }
        Ok(self.number)
    }

    /// Whether a request failed that was let in during the phase of this number; none when nobody knows.
    pub(super) fn leave(&mut self, policy: &Policy, now: Duration, number: u64, failed: Option<bool>) {
        if number != self.number {
            return;
        }
        match (&mut self.phase, failed) {
            (Phase::Closed { window, in_a_row }, Some(failed)) => {
                *in_a_row = if failed { *in_a_row + 1 } else { 0 };
                window.add(policy, now, failed);
                if failed && (*in_a_row >= policy.consecutive.get() || window.is_bad(policy)) {
                    self.turn(Phase::Open { until: now + policy.open });
                }
            }
            (Phase::HalfOpen { .. }, Some(true)) => self.turn(Phase::Open { until: now + policy.open }),
            (Phase::HalfOpen { under_way, succeeded }, Some(false)) => {
                *under_way -= 1;
                *succeeded += 1;
                if *succeeded >= policy.probes.get() {
                    self.turn(Phase::closed());
                }
            }
            (Phase::HalfOpen { under_way, .. }, None) => *under_way -= 1,
            (Phase::Closed { .. }, None) | (Phase::Open { .. }, _) => {}
        }
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.number += 1;
    }
}

impl Phase {
    fn closed() -> Self {
        Self::Closed { window: Window::default(), in_a_row: 0 }
    }
}

/// What was counted lately.
#[derive(Debug, Default)]
struct Window {
    /// Each with its number since the start, in ascending order; none is empty.
    slices: VecDeque<Slice>,
}

#[derive(Debug)]
struct Slice {
    number: u128,
    requests: u32,
    failures: u32,
}

impl Window {
    fn add(&mut self, policy: &Policy, now: Duration, failed: bool) {
        let number = slice(policy, now);
        while self.slices.front().is_some_and(|slice| slice.number + u128::from(SLICES) <= number) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|slice| slice.number != number) {
            self.slices.push_back(Slice { number, requests: 0, failures: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.requests = slice.requests.saturating_add(1);
            slice.failures = slice.failures.saturating_add(failed.into());
        }
    }

    fn is_bad(&self, policy: &Policy) -> bool {
        let sum = |count: fn(&Slice) -> u32| self.slices.iter().map(|slice| u64::from(count(slice))).sum();
        let (requests, failures): (u64, u64) = (sum(|slice| slice.requests), sum(|slice| slice.failures));
        requests >= policy.minimum.get().into()
            && failures * 100 >= requests * u64::from(policy.failure_percent)
    }
}

/// Number of the slice of time, counted from the start.
pub(super) fn slice(policy: &Policy, now: Duration) -> u128 {
    now.as_nanos() * u128::from(SLICES) / policy.window.as_nanos().max(1)
}

#[cfg(test)]
mod tests;
