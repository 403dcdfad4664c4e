//! Ids that are given out once, whoever gives them out and however often it is started again, and that sort by time.
//!
//! An [`Id`] is a Snowflake: 41 bits of milliseconds since [`EPOCH_MS`], 10 bits of the worker that made it, 12 bits of a
//! sequence. A worker's number is leased (`lease`): nobody else has it until the lease has expired, and no id has a time
//! at or after that. So the time in an id says whose it is, whatever clocks did in between.

mod generator;
mod lease;
#[cfg(test)]
mod tests;

pub use generator::{Clock, IdError, Ids, SystemClock};
pub(crate) use lease::Keeper;

use serde::{Serialize, Serializer};
use std::fmt;

/// 2025-01-01T00:00:00Z in milliseconds since the Unix epoch: where the times of ids begin. They end in 2094.
pub const EPOCH_MS: u64 = 1_735_689_600_000;

const WORKER_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;

/// Workers that can be at work at once.
const WORKERS: u16 = 1 << WORKER_BITS;
/// Ids of a worker in a millisecond.
const SEQUENCES: u16 = 1 << SEQUENCE_BITS;
/// Milliseconds that there are ids for.
const TIMES: u64 = 1 << 41;

/// An id. Below 2^63. As text and in JSON it is decimal digits in a string: the numbers of JavaScript end at 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

impl Id {
    /// Of its parts; `None` when the time, in milliseconds since the Unix epoch, has no ids.
    fn new(time_ms: u64, worker: u16, sequence: u16) -> Option<Self> {
        let time = time_ms.checked_sub(EPOCH_MS).filter(|time| *time < TIMES)?;
        Some(Self(
            time << (WORKER_BITS + SEQUENCE_BITS) | u64::from(worker) << SEQUENCE_BITS | u64::from(sequence),
        ))
    }

    /// When it was made: milliseconds since the Unix epoch.
    #[must_use]
    pub fn time_ms(self) -> u64 {
        EPOCH_MS + (self.0 >> (WORKER_BITS + SEQUENCE_BITS))
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// One that was kept as a number.
    #[must_use]
    pub fn kept(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
