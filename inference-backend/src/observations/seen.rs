//! Which units were reported already: a bounded memory.

use std::collections::HashSet;

/// Most facts in each of the two halves: together they take about 5 MB.
const MOST: usize = 1 << 17;

/// Remembers facts by their hashes, as many as there is room for, the latest ones. A fact that was forgotten is told
/// again, which costs bytes and changes nothing.
#[derive(Debug, Default)]
pub struct Seen {
    /// Grows; when it is full, it becomes the older half.
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl Seen {
    /// Whether a fact is remembered.
    #[must_use]
    pub fn contains(&self, fact: u64) -> bool {
        self.newer.contains(&fact) || self.older.contains(&fact)
    }

    /// Remembers a fact.
    pub fn insert(&mut self, fact: u64) {
        if self.newer.len() >= MOST {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(fact);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_latest() {
        let mut seen = Seen::default();
        let most = u64::try_from(MOST).unwrap();
        for fact in 0..3 * most {
            assert!(!seen.contains(fact));
            seen.insert(fact);
            assert!(seen.contains(fact) && seen.contains(fact.saturating_sub(most / 2)));
        }
        assert!(!seen.contains(0) && seen.newer.len() + seen.older.len() <= 2 * MOST);
        seen.clear();
        assert!(!seen.contains(3 * most - 1));
    }
}
