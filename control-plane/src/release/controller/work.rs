//! What the controller knows from one moment to the next, and does not keep.

use crate::release::{history::History, snapshot::OutcomesByMetric};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Between the first two tries to take an allocation back that every proxy refused to lose; each time twice as long.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest of these.
const LONGEST_AGAIN: Duration = Duration::from_secs(320);

/// What is known from one moment to the next, by release.
#[derive(Default)]
pub(super) struct Work {
    /// When an allocation may be taken back again that every proxy refused to lose, and how long that was waited for last.
    pub(super) retries: BTreeMap<String, (Instant, Duration)>,
    /// What was observed in the last half minute.
    pub(super) histories: BTreeMap<String, History>,
    /// The number of the newest record.
    pub(super) last_record: u64,
    /// What was reported, and when to ask again.
    pub(super) outcomes: BTreeMap<String, (Instant, OutcomesByMetric)>,
}

impl Work {
    /// A number for a record: `id`, unless a clock that went back made that smaller than the one before. Who follows the
    /// records asks for those above the last one.
    pub(super) fn number(&mut self, id: u64) -> u64 {
        self.last_record = id.max(self.last_record.saturating_add(1));
        self.last_record
    }

    pub(super) fn must_wait(&self, name: &str) -> bool {
        self.retries.get(name).is_some_and(|(until, _)| Instant::now() < *until)
    }

    /// It is tried now, and then not for a while.
    pub(super) fn wait(&mut self, name: String) {
        let next = self.retries.get(&name).map_or(AGAIN, |(_, last)| (2 * *last).min(LONGEST_AGAIN));
        self.retries.insert(name, (Instant::now() + next, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_records_ascend_whatever_the_clock_does() {
        let mut work = Work { last_record: 100, ..Work::default() };
        let numbers: Vec<u64> = [105, 106, 50, 51, 107, 200].into_iter().map(|id| work.number(id)).collect();
        assert_eq!(numbers, [105, 106, 107, 108, 109, 200]);
    }
}
