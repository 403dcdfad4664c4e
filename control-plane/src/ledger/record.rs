//! What is known of a unit in one cell, in 24 bytes.

use super::sorted::Element;
use halftone_judge::stats::{Grid, Histogram};
use std::cmp::Ordering;

/// Bytes of a record where it is kept.
pub(super) const BYTES: usize = 24;

/// Times, in milliseconds since the Unix epoch, are below this one: it is in the year 2527.
pub(super) const END_OF_TIME: u64 = 1 << 44;

/// A release has fewer cells (arms of epochs) than this.
pub(super) const MAX_CELLS: u16 = 1 << 14;

/// No latency.
const NONE: u64 = u64::MAX;

/// What a record tells of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It was exposed.
    Exposure,
    /// It had a bad event of the metric of this index.
    BadEvent(u8),
}

/// The metrics of bad events, in the order of their indices.
pub(super) const BAD_METRICS: [&str; 3] = ["error", "nan", "range"];

/// What is known of a unit in one cell, of one kind.
///
/// The two numbers are made so that the smaller one is the one that counts: a time of 44 bits, then the outcome, then the
/// latency. So records of the same unit, cell and kind merge by the smaller of each, which is exact, and the same in any
/// order and however often one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) unit: u64,
    /// Time (44 bits) and outcome (4) of the first; then cell (14) and kind (2).
    first: u64,
    /// Time and outcome of the first with a latency; then the latency's bucket (16). [`NONE`] when there is none.
    latency: u64,
}

impl Record {
    /// A unit that was exposed. `outcome` has 4 bits; the latency is in seconds, finite and not negative.
    pub(super) fn exposure(unit: u64, cell: u16, time_ms: u64, outcome: u8, latency: Option<f64>) -> Self {
        let stamp = time_ms << 4 | u64::from(outcome & 15);
        let latency = latency.map_or(NONE, |latency| stamp << 16 | u64::from(code(latency)));
        Self { unit, first: stamp << 16 | slot(cell, Kind::Exposure), latency }
    }

    /// A bad event of the metric of this index.
    pub(super) fn bad_event(unit: u64, cell: u16, time_ms: u64, metric: u8) -> Self {
        Self { unit, first: time_ms << 20 | slot(cell, Kind::BadEvent(metric)), latency: NONE }
    }

    /// The same in another cell.
    pub(super) fn in_cell(self, cell: u16) -> Self {
        Self { first: self.first & !(0xFFFF ^ 3) | u64::from(cell) << 2, ..self }
    }

    pub(super) fn cell(self) -> u16 {
        (self.first >> 2 & 0x3FFF) as u16
    }

    pub(super) fn kind(self) -> Kind {
        match (self.first & 3) as u8 {
            0 => Kind::Exposure,
            metric => Kind::BadEvent(metric - 1),
        }
    }

    /// When it was first: milliseconds since the Unix epoch.
    pub(super) fn time_ms(self) -> u64 {
        self.first >> 20
    }

    /// The code of the first latency.
    pub(super) fn latency(self) -> Option<LatencyCode> {
        (self.latency != NONE).then_some(LatencyCode((self.latency & 0xFFFF) as u16))
    }

    /// What is known from both. They are of the same unit, cell and kind.
    pub(super) fn merge(self, other: Self) -> Self {
        Self { unit: self.unit, first: self.first.min(other.first), latency: self.latency.min(other.latency) }
    }

    pub(super) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let words = [self.unit, self.first, self.latency];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    /// The records of a blob; `None` when it is not a whole number of them.
    pub(super) fn all(blob: &[u8]) -> Option<Vec<Self>> {
        let (records, rest) = blob.as_chunks::<BYTES>();
        let word = |record: &[u8; BYTES], at: usize| {
            record[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let record =
            |record| Self { unit: word(record, 0), first: word(record, 8), latency: word(record, 16) };
        rest.is_empty().then(|| records.iter().map(record).collect())
    }
}

impl Element for Record {
    fn unit(&self) -> u64 {
        self.unit
    }

    /// By unit, then by cell and kind.
    fn order(&self, other: &Self) -> Ordering {
        (self.unit, self.first & 0xFFFF).cmp(&(other.unit, other.first & 0xFFFF))
    }
}

fn slot(cell: u16, kind: Kind) -> u64 {
    let kind = match kind {
        Kind::Exposure => 0,
        Kind::BadEvent(metric) => u64::from(metric) + 1,
    };
    u64::from(cell) << 2 | kind
}

/// The bucket of a latency in the judge's default grid, as a number that grows with it; 0 for a latency of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LatencyCode(u16);

/// What is added to a bucket's index. Beyond it on either side, at `e^-655` s and `e^655` s, buckets are cut off.
const OFFSET: i32 = 1 << 15;

fn code(latency: f64) -> u16 {
    if latency == 0.0 {
        return 0;
    }
    let index = Grid::default().index(latency).clamp(1 - OFFSET, OFFSET - 1);
    u16::try_from(index + OFFSET).unwrap_or(u16::MAX)
}

impl LatencyCode {
    /// Counts it `times` times.
    pub(super) fn count(self, histogram: &mut Histogram, times: u64) {
        match self.0 {
            0 => histogram.zero += times,
            code => *histogram.counts.entry(i32::from(code) - OFFSET).or_default() += times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_it_was_made_of() {
        let exposure = Record::exposure(u64::MAX, 0, END_OF_TIME - 1, 15, Some(0.25)).in_cell(MAX_CELLS - 1);
        assert_eq!(
            (exposure.unit, exposure.cell(), exposure.kind(), exposure.time_ms()),
            (u64::MAX, MAX_CELLS - 1, Kind::Exposure, END_OF_TIME - 1)
        );
        let bad = Record::bad_event(7, 3, 1_700_000_000_000, 2);
        assert_eq!((bad.cell(), bad.kind(), bad.latency()), (3, Kind::BadEvent(2), None));
        assert_eq!(bad.time_ms(), 1_700_000_000_000);
        let blob: Vec<u8> = [exposure, bad].iter().flat_map(|record| record.to_bytes()).collect();
        assert_eq!(Record::all(&blob).unwrap(), [exposure, bad]);
        assert!(Record::all(&blob[1..]).is_none());
    }

    #[test]
    fn latencies_fall_into_the_judges_buckets() {
        for latency in [0.0, 1e-300, 1e-6, 0.02, 1.0, 59.9, 1e300] {
            let mut histogram = Histogram::default();
            let record = Record::exposure(1, 0, 1, 0, Some(latency));
            record.latency().unwrap().count(&mut histogram, 1);
            if (1e-200..1e200).contains(&latency) || latency == 0.0 {
                assert_eq!(histogram, Histogram::of(Grid::default(), &[latency]), "{latency}");
            }
            assert_eq!(histogram.total().unwrap(), 1);
        }
    }

    #[test]
    fn the_earliest_counts_and_ties_go_by_outcome_and_latency() {
        let record = |time, outcome, latency| Record::exposure(1, 0, time, outcome, latency);
        let (early, late) = (record(5, 1, None), record(9, 0, Some(0.1)));
        let both = early.merge(late);
        assert_eq!(both, late.merge(early));
        assert_eq!((both.time_ms(), both.latency()), (5, late.latency()), "of two records");
        let (slow, bad) = (record(9, 0, Some(0.2)), record(9, 2, Some(0.01)));
        assert_eq!(late.merge(slow), late);
        assert_eq!(late.merge(bad), late);
    }
}
