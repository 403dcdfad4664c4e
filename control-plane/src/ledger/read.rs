//! What is known of a release: what the judge takes in, and what people look at.

use super::database::{ReleaseId, read_statistics};
use super::outcome_table::release_id;
use super::outcomes::{OutcomeCounts, Outcomes};
use super::statistics::Statistics;
use super::tally::ArmUnits;
use super::{Ledger, Units, lock};
use crate::store::{StoreError, unsigned};
use halftone_judge::stats::{Proportion, merge_all};
use halftone_proto::v1::Series;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is known of a release.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReleaseObservations {
    /// By number, ascending.
    pub epochs: Vec<EpochObservations>,
    /// By name.
    pub series: Vec<SeriesStatistics>,
    /// By metric, what applications said.
    pub outcomes: BTreeMap<String, OutcomeCounts>,
}

/// What is known of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpochObservations {
    /// Its number.
    pub epoch: u64,
    /// When the first batch began: milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// When the last batch ended.
    pub ended_ms: u64,
    /// By name.
    pub arms: BTreeMap<String, ArmObservations>,
}

/// What is known of an arm in an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmObservations {
    /// Its units.
    pub units: ArmUnits,
    /// By metric, of all requests, whatever answered them. The unit sums have the number of units of the arm.
    pub statistics: BTreeMap<String, Statistics>,
}

impl ArmObservations {
    /// Units, and those with a bad event of the metric; `None` when no such events are kept.
    #[must_use]
    pub fn bad_events(&self, metric: &str) -> Option<Proportion> {
        Some(Proportion { n: self.units.units, k: *self.units.bad.get(metric)? })
    }
}

/// A series' statistics, of all sources.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesStatistics {
    /// Which.
    pub series: Series,
    /// When the first batch began: milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// When the last batch ended.
    pub ended_ms: u64,
    /// By metric.
    pub statistics: BTreeMap<String, Statistics>,
}

/// A release that was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseSummary {
    /// The ruleset that has it; empty for requests that were part of no release of none.
    pub ruleset: String,
    /// Its name; empty for requests that were part of none.
    pub release: String,
    /// When its first batch began: milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// When its last batch ended.
    pub ended_ms: u64,
}

/// What backends had to leave out, of all that are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Omitted {
    /// Requests.
    pub requests: u64,
    /// Exposures and bad events.
    pub units: u64,
    /// Batches.
    pub batches: u64,
    /// Requests whose trace is sampled that were not reported one by one.
    pub traced: u64,
}

impl Ledger {
    /// What is known of a release; `None` when nothing is. With an empty name, of the requests that the ruleset governed
    /// and that were part of none. Blocks.
    ///
    /// Counts of units and statistics of requests are each of one moment; batches that come meanwhile may be in the former
    /// alone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn release(&self, ruleset: &str, release: &str) -> Result<Option<ReleaseObservations>, StoreError> {
        let mut connection = lock(&self.reader);
        let transaction = connection.transaction()?;
        let series = transaction
            .prepare_cached(
                "SELECT id, epoch, arm, target, model, version, begun_ms, ended_ms FROM series
                 WHERE ruleset = ?1 AND release = ?2 ORDER BY epoch, arm, target, model, version",
            )?
            .query_map([ruleset, release], |row| {
                let series = Series {
                    ruleset: ruleset.to_owned(),
                    release: release.to_owned(),
                    epoch: unsigned(row, 1)?,
                    arm: row.get(2)?,
                    target: row.get(3)?,
                    model: row.get(4)?,
                    version: row.get(5)?,
                };
                Ok((row.get::<_, i64>(0)?, series, unsigned(row, 6)?, unsigned(row, 7)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let id = release_id(&transaction, ruleset, release)?;
        let outcomes =
            self.shared.read(|held| held.outcomes.get(&id?).map(Outcomes::counts)).unwrap_or_default();
        if series.is_empty() && outcomes.is_empty() {
            return Ok(None);
        }
        let mut of_arms: BTreeMap<(u64, String), Parts> = BTreeMap::new();
        let mut epochs: BTreeMap<u64, EpochObservations> = BTreeMap::new();
        let mut of_series = Vec::with_capacity(series.len());
        for (id, series, begun_ms, ended_ms) in series {
            let mut parts = Parts::default();
            read_statistics(&transaction, id, |metric, part| parts.entry(metric).or_default().push(part))?;
            if !release.is_empty() {
                let epoch = epochs.entry(series.epoch).or_insert_with(|| EpochObservations {
                    epoch: series.epoch,
                    begun_ms,
                    ..EpochObservations::default()
                });
                epoch.begun_ms = epoch.begun_ms.min(begun_ms);
                epoch.ended_ms = epoch.ended_ms.max(ended_ms);
                let of_arm = of_arms.entry((series.epoch, series.arm.clone())).or_default();
                for (metric, parts) in &parts {
                    of_arm.entry(metric.clone()).or_default().extend(parts.iter().cloned());
                }
            }
            let statistics = merged(parts)?;
            of_series.push(SeriesStatistics { series, begun_ms, ended_ms, statistics });
        }
        drop(transaction);
        drop(connection);
        for ((epoch, arm), parts) in of_arms {
            if let Some(epoch) = epochs.get_mut(&epoch) {
                let statistics = merged(parts)?;
                epoch.arms.insert(arm, ArmObservations { units: ArmUnits::default(), statistics });
            }
        }
        if let Some(id) = id {
            self.add_units(id, &mut epochs);
        }
        Ok(Some(ReleaseObservations { epochs: epochs.into_values().collect(), series: of_series, outcomes }))
    }

    fn add_units(&self, id: ReleaseId, epochs: &mut BTreeMap<u64, EpochObservations>) {
        let counted = self.shared.read(|held| held.releases.get(&id).map(Units::counts)).unwrap_or_default();
        for counted in counted {
            let Some(epoch) = epochs.get_mut(&counted.epoch) else { continue };
            for (arm, units) in counted.arms {
                let arm = epoch.arms.entry(arm).or_default();
                for statistics in arm.statistics.values_mut() {
                    if let Some(sums) = &mut statistics.units {
                        sums.units = units.units;
                    }
                }
                arm.units = units;
            }
        }
    }

    /// The releases of which something is known, by name, and what had to be left out. Blocks.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn releases(&self) -> Result<(Vec<ReleaseSummary>, Omitted), StoreError> {
        let mut connection = lock(&self.reader);
        let transaction = connection.transaction()?;
        let releases = transaction
            .prepare_cached(
                "SELECT ruleset, release, min(begun_ms), max(ended_ms) FROM series
                 GROUP BY ruleset, release ORDER BY ruleset, release",
            )?
            .query_map([], |row| {
                Ok(ReleaseSummary {
                    ruleset: row.get(0)?,
                    release: row.get(1)?,
                    begun_ms: unsigned(row, 2)?,
                    ended_ms: unsigned(row, 3)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        let omitted = transaction.query_row(
            "SELECT coalesce(sum(omitted_requests), 0), coalesce(sum(omitted_units), 0),
                    coalesce(sum(omitted_batches), 0), coalesce(sum(omitted_traced), 0)
             FROM sources",
            [],
            |row| {
                let [requests, units] = [unsigned(row, 0)?, unsigned(row, 1)?];
                Ok(Omitted { requests, units, batches: unsigned(row, 2)?, traced: unsigned(row, 3)? })
            },
        )?;
        Ok((releases, omitted))
    }
}

/// Statistics by metric that are to be merged, in a fixed order.
type Parts = BTreeMap<String, Vec<Statistics>>;

fn merged(parts: Parts) -> Result<BTreeMap<String, Statistics>, StoreError> {
    let mut merged = BTreeMap::new();
    for (metric, parts) in parts {
        let all = merge_all(&parts)
            .map_err(|error| StoreError::Incompatible(format!("the statistics of {metric:?}: {error}")))?;
        if let Some(all) = all {
            merged.insert(metric, all);
        }
    }
    Ok(merged)
}
