//! The outcomes of one release's units, in memory.

use super::sorted::{Element, PARTITIONS, Sorted, partition_of};
use std::{cmp::Ordering, collections::BTreeMap};
use xxhash_rust::xxh3::xxh3_64;

/// What is known of an outcome, in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    unit: u64,
    /// The metric's number (16 bits), then the time (48).
    place: u64,
    /// Of outcomes of one time the one with the smaller hash of the key comes first: in whatever order they arrived.
    tie: u64,
    value: f64,
}

impl Record {
    pub(super) fn new(unit: u64, metric: u16, time_ms: u64, key: &str, value: f64) -> Self {
        let place = u64::from(metric) << 48 | time_ms & ((1 << 48) - 1);
        Self { unit, place, tie: xxh3_64(key.as_bytes()), value }
    }

    pub(super) fn metric(&self) -> u16 {
        (self.place >> 48) as u16
    }

    /// When it happened: milliseconds since the Unix epoch.
    pub(super) fn time_ms(&self) -> u64 {
        self.place & ((1 << 48) - 1)
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }
}

impl Element for Record {
    fn unit(&self) -> u64 {
        self.unit
    }

    fn order(&self, other: &Self) -> Ordering {
        let by_key = (self.unit, self.place, self.tie).cmp(&(other.unit, other.place, other.tie));
        by_key.then_with(|| self.value.total_cmp(&other.value))
    }
}

/// How many outcomes there are of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OutcomeCounts {
    /// Outcomes.
    pub outcomes: u64,
    /// Distinct units that have one, exposed or not.
    pub units: u64,
}

/// The outcomes of a release.
pub(super) struct Outcomes {
    partitions: Vec<Sorted<Record>>,
    /// By number.
    metrics: Vec<(String, OutcomeCounts)>,
    records: usize,
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self { partitions: vec![Sorted::default(); PARTITIONS], metrics: Vec::new(), records: 0 }
    }

    /// Names a metric. Outcomes of it come later.
    pub(super) fn name(&mut self, metric: u16, name: &str) {
        let index = usize::from(metric);
        if self.metrics.len() <= index {
            self.metrics.resize_with(index + 1, Default::default);
        }
        self.metrics[index].0 = name.to_owned();
    }

    /// Takes outcomes that it has not, of metrics that are named.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut unit = Vec::new();
        for record in records {
            let partition = self.partitions.get_mut(partition_of(record.unit));
            let metric = self.metrics.get_mut(usize::from(record.metric()));
            let (Some(partition), Some((_, counts))) = (partition, metric) else { continue };
            partition.unit(record.unit, &mut unit);
            counts.outcomes += 1;
            if !unit.iter().any(|known| known.metric() == record.metric()) {
                counts.units += 1;
            }
            partition.insert(record);
            self.records += 1;
        }
    }

    /// How many there are.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// The number of a metric.
    pub(super) fn metric(&self, name: &str) -> Option<u16> {
        let index = self.metrics.iter().position(|(known, _)| known == name)?;
        u16::try_from(index).ok()
    }

    pub(super) fn counts(&self) -> BTreeMap<String, OutcomeCounts> {
        self.metrics.iter().cloned().collect()
    }

    /// The outcomes of a partition's units.
    pub(super) fn partition(&self, partition: usize) -> Option<&Sorted<Record>> {
        self.partitions.get(partition)
    }
}
