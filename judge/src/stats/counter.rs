use super::{Merge, add};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters that many sources only ever raise, each from 0 again when it restarts.
///
/// A source is known by its name and its incarnation (its start). What counts is the highest value of each: a
/// repeated, late or reordered report changes nothing, and a restart begins a new incarnation instead of a
/// negative difference. Merging is the maximum by key: exact, commutative, associative and idempotent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters {
    sources: BTreeMap<String, BTreeMap<u64, u64>>,
}

impl Counters {
    /// Takes a report: the counter of `source`, in its life `incarnation`, stands at `value`.
    pub fn report(&mut self, source: &str, incarnation: u64, value: u64) {
        let lives = match self.sources.get_mut(source) {
            Some(lives) => lives,
            None => self.sources.entry(source.to_owned()).or_default(),
        };
        let highest = lives.entry(incarnation).or_default();
        *highest = value.max(*highest);
    }

    /// Sum of all sources and lives.
    ///
    /// # Errors
    /// When the sum exceeds 64 bits.
    pub fn total(&self) -> Result<u64> {
        self.sources.values().flat_map(BTreeMap::values).try_fold(0, |sum, value| add(sum, *value))
    }
}

impl Merge for Counters {
    fn merge(&self, other: &Self) -> Result<Self> {
        let mut merged = self.clone();
        for (source, lives) in &other.sources {
            for (incarnation, value) in lives {
                merged.report(source, *incarnation, *value);
            }
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_and_late_reports_never_lower_a_count() {
        let mut counters = Counters::default();
        let mut last = 0;
        for (source, incarnation, value) in
            [("a", 1, 10), ("a", 1, 12), ("a", 2, 3), ("a", 1, 11), ("b", 1, 5), ("a", 2, 3), ("a", 2, 0)]
        {
            counters.report(source, incarnation, value);
            let total = counters.total().unwrap();
            assert!(total >= last, "{source} {incarnation} {value}: {last} to {total}");
            last = total;
        }
        assert_eq!(last, 12 + 3 + 5);
        assert_eq!(counters.merge(&counters).unwrap(), counters);
        counters.report("c", 1, u64::MAX);
        assert!(counters.total().is_err());
    }
}
