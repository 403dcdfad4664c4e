//! The units of one release: who was exposed, in which arm of which epoch, and had a bad event.
//!
//! All records of a unit lie together, whatever their epochs and arms, so that what a unit contributes to the counts can be
//! taken back and added again when a record of it comes.

use super::record::{BYTES, Record};
use super::sorted::{Element, PARTITIONS, Sorted, partition_of};
use super::tally::{Cell, EpochUnits, Tally};
use std::cmp::Ordering;

/// The units of a release.
pub(super) struct Units {
    partitions: Vec<Partition>,
    tally: Tally,
    records: usize,
}

#[derive(Clone, Default)]
struct Partition {
    records: Sorted<Record>,
    /// Whether it has what its blob in the database has not.
    changed: bool,
}

impl Units {
    pub(super) fn new() -> Self {
        Self { partitions: vec![Partition::default(); PARTITIONS], tally: Tally::default(), records: 0 }
    }

    /// The counts by epoch, ascending, and arm.
    pub(super) fn counts(&self) -> Vec<EpochUnits> {
        self.tally.epochs()
    }

    /// Records that are kept.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// The records of a partition.
    pub(super) fn partition(&self, partition: usize) -> Option<&Sorted<Record>> {
        self.partitions.get(partition).map(|partition| &partition.records)
    }

    /// The cells that records are of, by index.
    pub(super) fn cells(&self) -> impl ExactSizeIterator<Item = &Cell> {
        self.tally.cells()
    }

    /// Names a cell. Records of it come later.
    pub(super) fn name(&mut self, index: u16, cell: Cell) {
        self.tally.name(index, cell);
    }

    /// Takes records, of cells that are named.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut unit = Vec::new();
        for record in records {
            let Some(partition) = self.partitions.get_mut(partition_of(record.unit)) else { continue };
            partition.records.unit(record.unit, &mut unit);
            let known = unit.iter().position(|known| known.order(&record) == Ordering::Equal);
            let merged = known.map_or(record, |known| record.merge(unit[known]));
            if known.is_some_and(|known| unit[known] == merged) {
                continue;
            }
            self.tally.take_back(&unit);
            match known {
                Some(known) => {
                    partition.records.replace(merged);
                    unit[known] = merged;
                }
                None => {
                    partition.records.insert(merged);
                    unit.push(merged);
                    self.records += 1;
                }
            }
            partition.changed = true;
            self.tally.count(&unit);
        }
    }

    /// Takes over a partition as it was written, before anything else of it. Whether it can have been written so: in
    /// order, each record once.
    pub(super) fn load(&mut self, partition: usize, records: Vec<Record>) -> bool {
        let in_order = records.is_sorted_by(|one, next| one.order(next) == Ordering::Less);
        let is_whole = in_order && records.iter().all(|record| partition_of(record.unit) == partition);
        let Some(partition) = self.partitions.get_mut(partition).filter(|_| is_whole) else { return false };
        self.records += records.len();
        records.chunk_by(|one, next| one.unit == next.unit).for_each(|unit| self.tally.count(unit));
        partition.records = Sorted::of(records);
        true
    }

    /// The partitions that have what the database has not.
    pub(super) fn changed(&self) -> Vec<usize> {
        let changed = self.partitions.iter().enumerate().filter(|(_, partition)| partition.changed);
        changed.map(|(index, _)| index).collect()
    }

    /// A partition as it is written.
    pub(super) fn blob(&mut self, partition: usize) -> Vec<u8> {
        let Some(partition) = self.partitions.get_mut(partition) else { return Vec::new() };
        let records = partition.records.all();
        let mut blob = Vec::with_capacity(records.len() * BYTES);
        records.iter().for_each(|record| blob.extend(record.to_bytes()));
        blob
    }

    /// Says that the database has all of a partition, or no longer.
    pub(super) fn set_changed(&mut self, partition: usize, changed: bool) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.changed = changed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::BAD_METRICS;
    use proptest::prelude::*;

    fn cells() -> Vec<Cell> {
        [(1, "control"), (1, "treatment"), (2, "control"), (2, "treatment")]
            .map(|(epoch, arm)| Cell { epoch, arm: arm.to_owned() })
            .to_vec()
    }

    fn units(order: &[u16], records: &[Record]) -> Units {
        let mut units = Units::new();
        // A cell has whatever index it was given first.
        for (index, cell) in order.iter().enumerate() {
            units.name(u16::try_from(index).unwrap(), cells()[usize::from(*cell)].clone());
        }
        units.add(records.iter().map(|record| {
            let index = order.iter().position(|cell| *cell == record.cell()).unwrap();
            record.in_cell(u16::try_from(index).unwrap())
        }));
        units
    }

    fn record() -> impl Strategy<Value = Record> {
        let unit = prop_oneof![0u64..4, Just(u64::MAX), any::<u64>()];
        let bad = BAD_METRICS.len();
        (unit, 0u16..4, 0u64..6, 0u8..16, prop::option::of(0.0..2.0f64), 0..=bad).prop_map(
            |(unit, cell, time, outcome, latency, kind)| match kind.checked_sub(1) {
                None => Record::exposure(unit, cell, time, outcome, latency),
                Some(metric) => Record::bad_event(unit, cell, time, u8::try_from(metric).unwrap()),
            },
        )
    }

    proptest! {
        #[test]
        fn ledger_units_do_not_depend_on_order_or_repetition(
            records in prop::collection::vec(record(), 0..300),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
            shuffled in Just((0u16..4).collect::<Vec<_>>()).prop_shuffle(),
            seed in any::<u64>(),
        ) {
            let mut straight = units(&[0, 1, 2, 3], &records);
            let mut others = records.clone();
            if !records.is_empty() {
                others.extend(again.iter().map(|index| *index.get(&records)));
            }
            others.sort_by_key(|record| (record.to_bytes(), seed).into_hash());
            let other = units(&shuffled, &others);
            prop_assert_eq!(straight.counts(), other.counts());
            prop_assert_eq!(straight.records(), other.records());
            // And it can be read back.
            let mut loaded = Units::new();
            for (index, cell) in cells().into_iter().enumerate() {
                loaded.name(u16::try_from(index).unwrap(), cell);
            }
            for partition in straight.changed() {
                prop_assert!(loaded.load(partition, Record::all(&straight.blob(partition)).unwrap()));
            }
            prop_assert_eq!(straight.counts(), loaded.counts());
            prop_assert!(loaded.changed().is_empty());
        }
    }

    /// A number that looks random, to sort by.
    trait IntoHash {
        fn into_hash(self) -> u64;
    }

    impl IntoHash for ([u8; 24], u64) {
        fn into_hash(self) -> u64 {
            xxhash_rust::xxh3::xxh3_64_with_seed(&self.0, self.1)
        }
    }

    #[test]
    fn many_units_of_one_partition_are_found_again() {
        let record = |unit: u64| Record::exposure(unit, 0, 5, 0, Some(0.1));
        let all: Vec<Record> = (0..5_000).map(|i| record(i * 7_919 % 5_000)).collect();
        let mut units = units(&[0, 1, 2, 3], &all);
        units.add(all);
        assert_eq!(units.records(), 5_000);
        assert_eq!(units.counts()[0].arms["control"].units, 5_000);
        assert_eq!(units.changed(), [0]);
    }
}
