//! Mergeable statistics: what a judge needs to know of millions of requests, in a few numbers.
//!
//! Merging is commutative and associative: exactly for counts, to 1e-12 for means. Whoever wants the same bits
//! on every replay merges in the same order, by the names of the sources.

mod buckets;
mod counter;
mod histogram;
mod mean;
mod pair;
mod proportion;
mod units;

pub use buckets::{BUCKETS, UnitBuckets};
pub use counter::Counters;
pub use histogram::{Grid, Histogram};
pub use mean::Mean;
pub use pair::{Pair, PairSums};
pub use proportion::Proportion;
pub use units::{ArmUnits, PairedOutcomes};

use crate::error::{Error, Result};

/// Sum of counts.
///
/// # Errors
/// When the sum exceeds 64 bits.
pub(crate) fn add(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b).ok_or(Error::Overflow)
}

/// A statistic that can be put together from parts.
pub trait Merge: Sized {
    /// The statistic of both parts' values together.
    ///
    /// # Errors
    /// When the parts have different shapes, or a count overflows.
    fn merge(&self, other: &Self) -> Result<Self>;
}

/// Merges parts as a balanced tree in the order given: rounding errors grow with the logarithm of the number of
/// parts, and the same order gives the same bits. `None` when there are no parts.
///
/// # Errors
/// As [`Merge::merge`].
pub fn merge_all<T: Merge + Clone>(parts: &[T]) -> Result<Option<T>> {
    match parts {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            match (merge_all(left)?, merge_all(right)?) {
                (Some(left), Some(right)) => left.merge(&right).map(Some),
                (one, other) => Ok(one.or(other)),
            }
        }
    }
}
