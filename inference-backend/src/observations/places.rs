//! The places that a batch has for requests by themselves, and who gets them when there are more requests.

/// Most traced requests of a batch.
pub(super) const MOST: usize = 512;
/// Most bytes of them: whoever passes by the filter may send what no filter decides.
pub(super) const MOST_BYTES: usize = 256 << 10;

/// How much people ask after a request by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// It is of a release's candidate.
    pub of_candidate: bool,
    /// It was not answered as it should.
    pub is_trouble: bool,
    /// It is a mistake of the client's, whosever answer it would have had: anybody can make as many of those as there are places.
    pub is_mistake: bool,
}

impl Rank {
    pub(super) const ORDINARY: Self = Self { of_candidate: false, is_trouble: false, is_mistake: false };
    pub(super) const MISTAKE: Self = Self { is_mistake: true, ..Self::ORDINARY };
}

/// Who has places. Half of them are for candidates and half for trouble of others; what one side leaves free is the other's, and
/// then anybody's. Mistakes make room for all others.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The rank and the bytes of each.
    taken: Vec<(Rank, usize)>,
    candidates: Room,
    others: Room,
}

/// The room that requests take.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    requests: usize,
    bytes: usize,
}

impl Room {
    fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }

    /// Whether it is no more than one of so many parts of all room.
    fn is_within(self, parts: usize) -> bool {
        self.requests <= MOST / parts && self.bytes <= MOST_BYTES / parts
    }
}

impl Places {
    /// Gives a request of so many bytes the place behind all others, if there is one.
    pub(super) fn take(&mut self, rank: Rank, bytes: usize) -> bool {
        let one = Room { requests: 1, bytes };
        let is_free = self.candidates.and(self.others).and(one).is_within(1);
        if is_free {
            let side = self.side(rank);
            *side = side.and(one);
            self.taken.push((rank, bytes));
        }
        is_free
    }

    /// Clears one for such a request, which the last of all then moves to; none when nobody has to make room for it. What that
    /// costs does not grow: whoever leaves has come once.
    pub(super) fn clear(&mut self, rank: Rank, bytes: usize) -> Option<usize> {
        let place = self.weakest(rank, bytes)?;
        let (leaves, bytes) = self.taken.swap_remove(place);
        let side = self.side(leaves);
        *side = Room { requests: side.requests - 1, bytes: side.bytes - bytes };
        Some(place)
    }

    /// The place of the one that such a request comes before.
    fn weakest(&mut self, rank: Rank, bytes: usize) -> Option<usize> {
        let mistake = self.place(Rank::MISTAKE).filter(|_| rank != Rank::MISTAKE);
        if mistake.is_some() || [Rank::MISTAKE, Rank::ORDINARY].contains(&rank) {
            return mistake;
        }
        let is_due = self.side(rank).and(Room { requests: 1, bytes }).is_within(2);
        let last = |of_candidate: bool, is_trouble: bool| {
            self.place(Rank { of_candidate, is_trouble, ..Rank::ORDINARY })
        };
        let ordinary = || last(false, false);
        // As long as this side has less than its half, the other has more.
        let other = || last(!rank.of_candidate, false).or_else(|| last(!rank.of_candidate, true));
        let own = || last(rank.of_candidate, false);
        ordinary().or_else(|| is_due.then(other).flatten()).or_else(|| rank.is_trouble.then(own).flatten())
    }

    /// The last place of this rank.
    fn place(&self, of: Rank) -> Option<usize> {
        self.taken.iter().rposition(|(rank, _)| *rank == of)
    }

    fn side(&mut self, rank: Rank) -> &mut Room {
        if rank.of_candidate { &mut self.candidates } else { &mut self.others }
    }
}
