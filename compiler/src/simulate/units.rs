//! Which unit went where.

use std::collections::{HashMap, hash_map::Entry};

/// The units seen, each with where its last request went. A unit is known by 64 bits of hash: among ten
/// million of them, two are mistaken for each other with a probability of 1 in 400,000.
#[derive(Debug)]
pub(super) struct Units {
    seen: HashMap<u64, Seen>,
    limit: usize,
    /// Requests of units beyond the limit.
    pub(super) untracked_requests: u64,
}

/// Kept to eight bytes: there are millions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    from: u32,
    /// The highest bit tells that the unit's requests did not all go the same way.
    to: u32,
}

const MIXED: u32 = 1 << 31;

impl Units {
    pub(super) fn new(limit: usize) -> Self {
        Self { seen: HashMap::new(), limit, untracked_requests: 0 }
    }

    /// A request of a unit that went to the place `from` and goes to the place `to`.
    pub(super) fn record(&mut self, unit: u64, from: u32, to: u32) {
        let full = self.seen.len() >= self.limit;
        match self.seen.entry(unit) {
            Entry::Occupied(mut seen) => {
                let before = *seen.get();
                let changed = (before.from, before.to & !MIXED) != (from, to);
                let mixed = if changed { MIXED } else { before.to & MIXED };
                seen.insert(Seen { from, to: to | mixed });
            }
            Entry::Vacant(_) if full => self.untracked_requests += 1,
            Entry::Vacant(vacant) => {
                vacant.insert(Seen { from, to });
            }
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Units whose requests did not all go the same way.
    pub(super) fn mixed(&self) -> usize {
        self.seen.values().filter(|seen| seen.to & MIXED != 0).count()
    }

    /// Number of units by from where to where, also of those that stay.
    pub(super) fn matrix(&self) -> HashMap<(u32, u32), u64> {
        let mut matrix = HashMap::new();
        for seen in self.seen.values() {
            *matrix.entry((seen.from, seen.to & !MIXED)).or_default() += 1;
        }
        matrix
    }
}
