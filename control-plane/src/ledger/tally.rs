//! What the units of a release add up to: the counts that a verdict is made of, kept up to date with every record.

use super::record::{BAD_METRICS, Kind, LatencyCode, Record};
use halftone_judge::stats::Histogram;
use std::collections::{BTreeMap, BTreeSet};

/// An arm in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) epoch: u64,
    pub(super) arm: String,
}

/// The units of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochUnits {
    /// The number of the epoch.
    pub epoch: u64,
    /// By arm.
    pub arms: BTreeMap<String, ArmUnits>,
}

impl EpochUnits {
    /// Units that were seen in more than one arm of the epoch.
    #[must_use]
    pub fn both(&self) -> u64 {
        self.arms.values().map(|arm| arm.both).sum()
    }
}

/// The units of an arm in an epoch. A unit that was seen in several arms of the epoch counts in the one in which it was
/// first, of two at the same time in the one whose name comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmUnits {
    /// Distinct units that were exposed. One with a bad event was, whether or not a record says so.
    pub units: u64,
    /// Those of them that were also seen in another arm of the epoch.
    pub both: u64,
    /// By metric, those of them whose first bad event of the release was in this epoch.
    pub bad: BTreeMap<&'static str, u64>,
    /// The first latency of each, in seconds; +∞ for those without one.
    pub first_latency: Histogram,
}

/// Counts of a cell.
#[derive(Clone, Debug, Default)]
struct Count {
    units: u64,
    both: u64,
    bad: [u64; BAD_METRICS.len()],
    unanswered: u64,
    latencies: BTreeMap<LatencyCode, u64>,
}

/// The counts of a release.
#[derive(Default)]
pub(super) struct Tally {
    cells: Vec<(Cell, Count)>,
}

/// Whether a unit is added to the counts or taken out.
#[derive(Clone, Copy)]
enum Change {
    Add,
    TakeBack,
}

impl Change {
    fn of(self, count: &mut u64) {
        match self {
            Self::Add => *count += 1,
            Self::TakeBack => *count -= 1,
        }
    }
}

impl Tally {
    pub(super) fn name(&mut self, index: u16, cell: Cell) {
        let index = usize::from(index);
        if self.cells.len() <= index {
            self.cells.resize_with(index + 1, Default::default);
        }
        self.cells[index].0 = cell;
    }

    /// The cells that were named, by index.
    pub(super) fn cells(&self) -> impl ExactSizeIterator<Item = &Cell> {
        self.cells.iter().map(|(cell, _)| cell)
    }

    /// Adds a unit: all that is known of it.
    pub(super) fn count(&mut self, unit: &[Record]) {
        self.change(unit, Change::Add);
    }

    /// Takes a unit out that was counted, with the same records.
    pub(super) fn take_back(&mut self, unit: &[Record]) {
        self.change(unit, Change::TakeBack);
    }

    fn change(&mut self, unit: &[Record], change: Change) {
        if let [record] = unit {
            // As most units are, without looking for others.
            self.in_first_cell(record.cell(), false, unit, change);
            if let Kind::BadEvent(metric) = record.kind() {
                self.bad_event(record.cell(), metric, change);
            }
            return;
        }
        let epochs: BTreeSet<u64> = unit.iter().map(|record| self.cell(*record).epoch).collect();
        let mut first_cells = BTreeMap::new();
        for epoch in epochs {
            let of = unit.iter().filter(|record| self.cell(**record).epoch == epoch);
            let Some(first) = of.clone().min_by_key(|record| (record.time_ms(), &self.cell(**record).arm))
            else {
                continue;
            };
            let first = first.cell();
            let both = of.clone().any(|record| record.cell() != first);
            first_cells.insert(epoch, first);
            self.in_first_cell(first, both, unit, change);
        }
        for metric in (0u8..).take(BAD_METRICS.len()) {
            let of = unit.iter().filter(|record| record.kind() == Kind::BadEvent(metric));
            let first = of.map(|record| (record.time_ms(), self.cell(*record).epoch)).min();
            if let Some(cell) = first.and_then(|(_, epoch)| first_cells.get(&epoch)) {
                self.bad_event(*cell, metric, change);
            }
        }
    }

    /// Counts a unit in the cell of the epoch in which it was first.
    fn in_first_cell(&mut self, cell: u16, both: bool, unit: &[Record], change: Change) {
        let Some((_, count)) = self.cells.get_mut(usize::from(cell)) else { return };
        change.of(&mut count.units);
        if both {
            change.of(&mut count.both);
        }
        let exposure = unit.iter().find(|record| record.cell() == cell && record.kind() == Kind::Exposure);
        match exposure.and_then(|exposure| exposure.latency()) {
            None => change.of(&mut count.unanswered),
            Some(latency) => {
                let units = count.latencies.entry(latency).or_default();
                change.of(units);
                if *units == 0 {
                    count.latencies.remove(&latency);
                }
            }
        }
    }

    fn bad_event(&mut self, cell: u16, metric: u8, change: Change) {
        let count = self.cells.get_mut(usize::from(cell)).map(|(_, count)| &mut count.bad);
        if let Some(count) = count.and_then(|bad| bad.get_mut(usize::from(metric))) {
            change.of(count);
        }
    }

    fn cell(&self, record: Record) -> &Cell {
        &self.cells[usize::from(record.cell())].0
    }

    /// The counts by epoch, ascending, and arm.
    pub(super) fn epochs(&self) -> Vec<EpochUnits> {
        let mut epochs: BTreeMap<u64, BTreeMap<String, ArmUnits>> = BTreeMap::new();
        for (cell, count) in &self.cells {
            let mut first_latency = Histogram { infinite: count.unanswered, ..Histogram::default() };
            count.latencies.iter().for_each(|(code, times)| code.count(&mut first_latency, *times));
            let arm = ArmUnits {
                units: count.units,
                both: count.both,
                bad: BAD_METRICS.into_iter().zip(count.bad).collect(),
                first_latency,
            };
            epochs.entry(cell.epoch).or_default().insert(cell.arm.clone(), arm);
        }
        epochs.into_iter().map(|(epoch, arms)| EpochUnits { epoch, arms }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_counts_once_where_it_was_first() {
        let mut tally = Tally::default();
        for (index, (epoch, arm)) in (0u16..).zip([(1, "b"), (1, "a"), (2, "b")]) {
            tally.name(index, Cell { epoch, arm: arm.to_owned() });
        }
        let exposure = |cell, time, latency| Record::exposure(1, cell, time, 0, latency);
        let unit = [
            exposure(0, 10, None),
            exposure(1, 10, Some(0.5)),
            exposure(2, 30, Some(0.1)),
            // Its first error was in the first epoch, in the arm in which it was not first.
            Record::bad_event(1, 0, 12, 0),
            Record::bad_event(1, 2, 30, 0),
            Record::bad_event(1, 2, 31, 1),
        ];
        tally.count(&unit);
        let epochs = tally.epochs();
        let (first, second) = (&epochs[0], &epochs[1]);
        assert_eq!((first.epoch, first.both(), second.epoch, second.both()), (1, 1, 2, 0));
        let (a, b) = (&first.arms["a"], &first.arms["b"]);
        assert_eq!((a.units, a.both, a.bad["error"], a.first_latency.total()), (1, 1, 1, Ok(1)));
        assert_eq!(b, &ArmUnits { bad: b.bad.clone(), ..ArmUnits::default() });
        assert_eq!((b.bad["error"], second.arms["b"].bad["error"]), (0, 0));
        assert_eq!((second.arms["b"].bad["nan"], second.arms["b"].units), (1, 1));
        tally.take_back(&unit);
        assert!(tally.epochs().iter().flat_map(|epoch| epoch.arms.values()).all(|arm| arm.units == 0));
    }
}
