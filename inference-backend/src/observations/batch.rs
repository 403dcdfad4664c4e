//! What was observed in a while, as it is gathered, merged and sent.

use super::statistics::Statistics;
use halftone_judge::stats::Merge;
use halftone_proto::v1::{
    BadEvent, Exposure, ObservationBatch, Omitted, Series, SeriesObservations, TracedRequest,
};
use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

/// Name of a metric.
pub type Metric = Cow<'static, str>;

/// What was observed in a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// When it begins: milliseconds since the Unix epoch; 0 while nothing was observed.
    pub begun_ms: u64,
    /// When it ends.
    pub ended_ms: u64,
    /// What was observed.
    pub series: BTreeMap<Series, Observations>,
    /// Requests whose trace is sampled.
    pub traced: Vec<TracedRequest>,
    /// What had to be left out.
    pub omitted: Omitted,
}

/// What was observed of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// By the unit's hash.
    pub exposures: BTreeMap<u64, Sightings>,
    /// By metric and the unit's hash: when it was.
    pub bad_events: BTreeMap<Metric, BTreeMap<u64, u64>>,
    /// By metric.
    pub statistics: BTreeMap<Metric, Statistics>,
}

/// One request of a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// When it was decided: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What came of it, as flags.
    pub outcome: u32,
    /// Seconds, when it was answered.
    pub latency: Option<f64>,
}

impl Sighting {
    /// Which of two counts: the earlier; at the same time, that of the smaller outcome, then of the smaller latency.
    fn order(&self, other: &Self) -> Ordering {
        let key = |sighting: &Self| (sighting.time_ms, sighting.outcome);
        let latency = |sighting: &Self| sighting.latency.unwrap_or(f64::INFINITY);
        key(self).cmp(&key(other)).then_with(|| latency(self).total_cmp(&latency(other)))
    }
}

/// What is known of a unit: its first request, and the first one that was answered. Taking requests in whatever order,
/// and more than once, gives the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sightings {
    first: Sighting,
    answered: Option<Sighting>,
}

impl Sightings {
    /// Of one request.
    #[must_use]
    pub fn of(sighting: Sighting) -> Self {
        Self { first: sighting, answered: Some(sighting).filter(|sighting| sighting.latency.is_some()) }
    }

    /// Takes what else is known.
    pub fn unite(&mut self, other: Self) {
        let earlier = |a: Sighting, b: Sighting| if b.order(&a).is_lt() { b } else { a };
        self.first = earlier(self.first, other.first);
        self.answered = match (self.answered, other.answered) {
            (Some(ours), Some(theirs)) => Some(earlier(ours, theirs)),
            (one, another) => one.or(another),
        };
    }

    /// The requests that tell all of it: one or two.
    pub fn each(&self) -> impl Iterator<Item = Sighting> {
        let answered = self.answered.filter(|answered| *answered != self.first);
        [Some(self.first), answered].into_iter().flatten()
    }
}

impl Batch {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.traced.is_empty() && self.omitted == Omitted::default()
    }

    /// How many exposures and bad events there are.
    #[must_use]
    pub fn units(&self) -> usize {
        self.series.values().map(Observations::units).sum()
    }

    /// Takes all of another batch.
    ///
    /// # Errors
    /// When two statistics do not fit together, or a count overflows; then part of it may have been taken.
    pub fn merge(&mut self, other: Self) -> Result<(), String> {
        let begun = [self.begun_ms, other.begun_ms].into_iter().filter(|&begun| begun > 0).min();
        self.begun_ms = begun.unwrap_or_default();
        self.ended_ms = self.ended_ms.max(other.ended_ms);
        self.omitted = sum(self.omitted, other.omitted);
        self.traced.extend(other.traced);
        for (series, theirs) in other.series {
            match self.series.entry(series) {
                Entry::Vacant(vacant) => {
                    vacant.insert(theirs);
                }
                Entry::Occupied(mut ours) => ours.get_mut().merge(theirs)?,
            }
        }
        Ok(())
    }

    /// Two batches that are all of it, each with half of the series, the first with all else; none when there is only one.
    #[must_use]
    pub fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.series.keys().nth(self.series.len() / 2).filter(|_| self.series.len() > 1)?;
        let mut first = self.clone();
        let series = first.series.split_off(middle);
        let second = Self { begun_ms: self.begun_ms, ended_ms: self.ended_ms, series, ..Self::default() };
        Some((first, second))
    }

    /// Lets go the exposures and bad events, and counts them as left out.
    pub fn strip(&mut self) {
        self.omitted.units = self.omitted.units.saturating_add(self.units() as u64);
        for observations in self.series.values_mut() {
            observations.exposures.clear();
            observations.bad_events.clear();
        }
    }

    /// Lets go the traced requests, and counts them as left out.
    pub fn strip_traced(&mut self) {
        self.omitted.traced = self.omitted.traced.saturating_add(self.traced.len() as u64);
        self.traced.clear();
    }

    /// As it is sent.
    #[must_use]
    pub fn encode(&self, source: [u8; 16], sequence: u64) -> ObservationBatch {
        ObservationBatch {
            source: source.into(),
            sequence,
            begun_ms: self.begun_ms,
            ended_ms: self.ended_ms,
            series: self.series.iter().map(|(series, observations)| observations.encode(series)).collect(),
            omitted: Some(self.omitted).filter(|omitted| *omitted != Omitted::default()),
            traced: self.traced.clone(),
        }
    }

    /// From what is sent.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn decode(message: &ObservationBatch) -> Result<Self, String> {
        let mut batch = Self {
            begun_ms: message.begun_ms,
            ended_ms: message.ended_ms,
            series: BTreeMap::new(),
            traced: message.traced.clone(),
            omitted: message.omitted.unwrap_or_default(),
        };
        for observations in &message.series {
            let series = observations.series.clone().unwrap_or_default();
            batch.series.insert(series, Observations::decode(observations)?);
        }
        Ok(batch)
    }
}

impl Observations {
    fn units(&self) -> usize {
        self.exposures.len() + self.bad_events.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Takes a request of a unit.
    pub fn expose(&mut self, unit: u64, sightings: Sightings) {
        self.exposures.entry(unit).and_modify(|known| known.unite(sightings)).or_insert(sightings);
    }

    /// Takes a bad event of a unit.
    pub fn bad(&mut self, metric: Metric, unit: u64, time_ms: u64) {
        let events = self.bad_events.entry(metric).or_default();
        events.entry(unit).and_modify(|known| *known = time_ms.min(*known)).or_insert(time_ms);
    }

    /// Takes values of a metric, of this unit.
    pub fn push(&mut self, metric: Metric, values: &[f64], unit: Option<u64>) {
        let statistics = self.statistics.entry(metric).or_default();
        values.iter().for_each(|value| statistics.push(*value, unit));
    }

    fn merge(&mut self, other: Self) -> Result<(), String> {
        other.exposures.into_iter().for_each(|(unit, sightings)| self.expose(unit, sightings));
        for (metric, events) in other.bad_events {
            for (unit, time_ms) in events {
                self.bad(metric.clone(), unit, time_ms);
            }
        }
        for (metric, theirs) in other.statistics {
            match self.statistics.entry(metric) {
                Entry::Vacant(vacant) => {
                    vacant.insert(theirs);
                }
                Entry::Occupied(mut ours) => {
                    let merged = ours.get().merge(&theirs).map_err(|e| e.to_string())?;
                    ours.insert(merged);
                }
            }
        }
        Ok(())
    }

    fn encode(&self, series: &Series) -> SeriesObservations {
        let exposures = self.exposures.iter().flat_map(|(&unit_hash, sightings)| {
            sightings.each().map(move |Sighting { time_ms, outcome, latency }| Exposure {
                unit_hash,
                time_ms,
                latency,
                outcome,
            })
        });
        let bad_events = self.bad_events.iter().flat_map(|(metric, events)| {
            events.iter().map(|(&unit_hash, &time_ms)| BadEvent {
                metric: metric.clone().into_owned(),
                unit_hash,
                time_ms,
            })
        });
        SeriesObservations {
            series: Some(series.clone()),
            exposures: exposures.collect(),
            bad_events: bad_events.collect(),
            statistics: self.statistics.iter().map(|(metric, stats)| stats.encode(metric)).collect(),
        }
    }

    fn decode(message: &SeriesObservations) -> Result<Self, String> {
        let mut observations = Self::default();
        for &Exposure { unit_hash, time_ms, latency, outcome } in &message.exposures {
            observations.expose(unit_hash, Sightings::of(Sighting { time_ms, outcome, latency }));
        }
        for BadEvent { metric, unit_hash, time_ms } in &message.bad_events {
            observations.bad(metric.clone().into(), *unit_hash, *time_ms);
        }
        for statistics in &message.statistics {
            let decoded = Statistics::decode(statistics)?;
            observations.statistics.insert(statistics.metric.clone().into(), decoded);
        }
        Ok(observations)
    }
}

fn sum(a: Omitted, b: Omitted) -> Omitted {
    Omitted {
        requests: a.requests.saturating_add(b.requests),
        units: a.units.saturating_add(b.units),
        batches: a.batches.saturating_add(b.batches),
        traced: a.traced.saturating_add(b.traced),
    }
}

#[cfg(test)]
pub(super) mod tests;
