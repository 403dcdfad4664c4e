//! What outcomes add up to: for each unit one value, once what happened in its window is known.

use super::outcome_table::release_id;
use super::outcomes::{self, Outcomes};
use super::record::Record;
use super::sorted::PARTITIONS;
use super::tally::Cell;
use super::{Ledger, Units, lock};
use crate::store::StoreError;
use halftone_judge::stats::{Mean, Proportion};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

/// Lists that are added up at once: whoever writes waits so long.
const AT_ONCE: usize = 16;

/// Which of a unit's outcomes is its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// The earliest; of one time the one with the smaller hash of its key.
    #[default]
    First,
    /// The largest: of 0 and 1, whether any was 1.
    Any,
    /// The sum.
    Sum,
}

/// What a unit without an outcome counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// 0: nothing happened, as with conversions.
    Zero,
    /// Nothing: nobody said, as with labels and ratings.
    LeaveOut,
}

/// What is asked of a release's outcomes.
#[derive(Clone, Debug)]
pub struct OutcomeQuery {
    /// The metric.
    pub metric: String,
    /// For how long after its exposure what happens to a unit counts. A unit counts when its window is over. `None`: at
    /// once, with whatever is known of it until `now_ms`.
    pub window: Option<Duration>,
    /// Which of its outcomes is a unit's value.
    pub aggregate: Aggregate,
    /// What a unit without one counts as.
    pub missing: Missing,
    /// The arms whose exposures count.
    pub analysed_arms: BTreeSet<String>,
    /// When is now: milliseconds since the Unix epoch. An earlier time leaves late deliveries time to come.
    pub now_ms: u64,
    /// A larger value of a unit counts as this one.
    pub cap: Option<f64>,
}

/// What the outcomes of a metric add up to, in an arm of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmOutcomes {
    /// The values of units whose window is over.
    pub values: Mean,
    /// The same as counts, when all values are 0 or 1.
    pub events: Option<Proportion>,
    /// Units whose window is not over: they are in none of the others.
    pub open: u64,
    /// Units whose window is over and that have no outcome in it. With [`Missing::Zero`] they are in `values`.
    pub absent: u64,
}

impl Default for ArmOutcomes {
    fn default() -> Self {
        Self { values: Mean::default(), events: Some(Proportion::default()), open: 0, absent: 0 }
    }
}

impl ArmOutcomes {
    fn push(&mut self, value: f64) {
        self.values.push(value);
        self.events = match self.events {
            Some(Proportion { n, k }) if value == 0.0 => Some(Proportion { n: n + 1, k }),
            Some(Proportion { n, k }) if value == 1.0 => Some(Proportion { n: n + 1, k: k + 1 }),
            _ => None,
        };
    }
}

impl Ledger {
    /// What the outcomes of a metric add up to, by epoch and arm. Each unit is in one of them at most: in the epoch and arm of
    /// its first exposure in one of the analysed arms, unless it was seen in several arms of that epoch. The same bits, in
    /// whatever order exposures and outcomes came. Blocks.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn outcomes(
        &self,
        ruleset: &str,
        release: &str,
        query: &OutcomeQuery,
    ) -> Result<BTreeMap<(u64, String), ArmOutcomes>, StoreError> {
        let id = release_id(&lock(&self.reader), ruleset, release)?;
        let mut sums = Sums { query, cells: Vec::new() };
        for start in (0..PARTITIONS).step_by(AT_ONCE) {
            self.shared.read(|held| {
                let units = id.and_then(|id| held.releases.get(&id));
                let outcomes = id.and_then(|id| held.outcomes.get(&id));
                if let Some(units) = units {
                    sums.add(units, outcomes, start..start + AT_ONCE);
                }
            });
        }
        Ok(sums.finish())
    }
}

/// Adds up.
struct Sums<'a> {
    query: &'a OutcomeQuery,
    cells: Vec<Counted>,
}

/// A cell, and what it adds up to.
struct Counted {
    cell: Cell,
    is_analysed: bool,
    sums: ArmOutcomes,
}

impl Sums<'_> {
    /// Adds the units of some partitions. All partitions are added in ascending order, so that values are in the order of
    /// the units' hashes.
    fn add(&mut self, units: &Units, outcomes: Option<&Outcomes>, partitions: Range<usize>) {
        for cell in units.cells().skip(self.cells.len()) {
            let is_analysed = self.query.analysed_arms.contains(&cell.arm);
            self.cells.push(Counted { cell: cell.clone(), is_analysed, sums: ArmOutcomes::default() });
        }
        let metric = outcomes.and_then(|outcomes| outcomes.metric(&self.query.metric));
        for partition in partitions {
            let Some(records) = units.partition(partition) else { continue };
            let mut outcomes =
                outcomes.and_then(|outcomes| outcomes.partition(partition)).map(|of| of.cursor());
            let mut records = records.cursor();
            while let Some(unit) = records.next() {
                let of_unit = outcomes.as_mut().map_or(&[][..], |outcomes| outcomes.take(unit));
                let of_metric = of_unit.iter().filter(|outcome| Some(outcome.metric()) == metric);
                self.unit(records.take(unit), of_metric);
            }
        }
    }

    fn unit<'o>(&mut self, records: &[Record], outcomes: impl Iterator<Item = &'o outcomes::Record>) {
        let analysed = records.iter().filter(|record| self.cell(record).is_analysed);
        let Some(first) = analysed.min_by_key(|record| (record.time_ms(), &self.cell(record).cell)) else {
            return;
        };
        let epoch = self.cell(first).cell.epoch;
        let elsewhere =
            |record: &Record| record.cell() != first.cell() && self.cell(record).cell.epoch == epoch;
        if records.iter().any(elsewhere) {
            return;
        }
        let OutcomeQuery { window, aggregate, missing, now_ms, cap, .. } = self.query;
        let (begun, cell) = (first.time_ms(), usize::from(first.cell()));
        let sums = &mut self.cells[cell].sums;
        let window = window.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
        let end = window.map_or(*now_ms, |window| begun.saturating_add(window));
        if end > *now_ms {
            sums.open += 1;
            return;
        }
        let mut values = outcomes
            .filter(|outcome| (begun..=end).contains(&outcome.time_ms()))
            .map(outcomes::Record::value);
        let value = match aggregate {
            Aggregate::First => values.next(),
            Aggregate::Any => values.reduce(f64::max),
            Aggregate::Sum => values.reduce(|sum, value| sum + value),
        };
        if value.is_none() {
            sums.absent += 1;
        }
        let value = match missing {
            Missing::Zero => Some(value.unwrap_or_default()),
            Missing::LeaveOut => value,
        };
        if let Some(value) = value {
            sums.push(cap.map_or(value, |cap| value.min(cap)));
        }
    }

    fn cell(&self, record: &Record) -> &Counted {
        &self.cells[usize::from(record.cell())]
    }

    /// Those in which there were any.
    fn finish(self) -> BTreeMap<(u64, String), ArmOutcomes> {
        let cells = self.cells.into_iter().filter(|Counted { sums, .. }| *sums != ArmOutcomes::default());
        cells.map(|Counted { cell, sums, .. }| ((cell.epoch, cell.arm), sums)).collect()
    }
}
