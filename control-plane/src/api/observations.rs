//! `GET /v1/observations`: what backends reported, and what it adds up to.

use super::{Api, json::Json, problem::Problem};
use crate::{
    ledger::{
        ArmObservations, EpochObservations, Ledger, Omitted, OutcomeCounts, ReleaseObservations,
        ReleaseSummary, SeriesStatistics, Statistics,
    },
    store::StoreError,
};
use axum::extract::{Query, State, rejection::QueryRejection};
use halftone_judge::stats::Histogram;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// Of which release.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The ruleset that has it; empty with an empty `release`: what was governed by none.
    ruleset: Option<String>,
    /// Its name; empty: what was part of none.
    release: Option<String>,
}

/// What is asked for.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// All that were observed.
    Releases { releases: Vec<ReleaseSummary>, omitted: Omitted },
    /// One.
    Release {
        ruleset: String,
        release: String,
        epochs: Vec<Epoch>,
        series: Vec<Series>,
        outcomes: BTreeMap<String, OutcomeCounts>,
    },
}

/// An epoch.
#[derive(Serialize)]
pub(crate) struct Epoch {
    epoch: u64,
    begun_ms: u64,
    ended_ms: u64,
    arms: BTreeMap<String, Arm>,
}

/// An arm in an epoch.
#[derive(Serialize)]
pub(crate) struct Arm {
    /// Distinct units.
    units: u64,
    /// Those of them that were in another arm, too.
    both: u64,
    /// Units by metric of their first bad event.
    bad: BTreeMap<&'static str, u64>,
    /// The first latency of each.
    first_latency: Quantiles,
    /// Of all requests.
    statistics: BTreeMap<String, Metric>,
}

/// A series.
#[derive(Serialize)]
pub(crate) struct Series {
    epoch: u64,
    arm: String,
    target: String,
    model: String,
    version: String,
    begun_ms: u64,
    ended_ms: u64,
    statistics: BTreeMap<String, Metric>,
}

/// A metric.
#[derive(Serialize)]
pub(crate) struct Metric {
    /// Values that were finite numbers.
    count: u64,
    /// `None` without values, as the next four.
    mean: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// Standard deviation.
    sd: Option<f64>,
    /// Values that were none.
    rejected: u64,
    #[serde(flatten)]
    quantiles: Quantiles,
}

/// Quantiles of a histogram, which are right to 1 %.
#[derive(Serialize)]
pub(crate) struct Quantiles {
    /// Values that are infinite: of latencies, units without one.
    infinite: u64,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

pub(crate) async fn get(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Answer>, Problem> {
    let Query(wanted) = wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    match wanted {
        Wanted { ruleset: None, release: None } => {
            let (releases, omitted) = read(api.ledger, Ledger::releases).await?;
            Ok(Json(Answer::Releases { releases, omitted }))
        }
        Wanted { ruleset: Some(ruleset), release: Some(release) } => {
            let of = (ruleset.clone(), release.clone());
            let known = read(api.ledger, move |ledger| ledger.release(&of.0, &of.1)).await?;
            let ReleaseObservations { epochs, series, outcomes } = known.ok_or_else(|| {
                Problem::not_found(format!(
                    "nothing was observed of release {release:?} of ruleset {ruleset:?}"
                ))
            })?;
            let epochs = epochs.into_iter().map(Epoch::from).collect();
            let series = series.into_iter().map(Series::from).collect();
            Ok(Json(Answer::Release { ruleset, release, epochs, series, outcomes }))
        }
        _ => Err(Problem::bad_request(
            "`ruleset` and `release` belong together: a release's name is its ruleset's",
        )),
    }
}

async fn read<T: Send + 'static>(
    ledger: Arc<Ledger>,
    read: impl FnOnce(&Ledger) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let read = tokio::task::spawn_blocking(move || read(&ledger)).await;
    read.map_err(|error| Problem::internal(error.to_string()))?.map_err(|error| Problem::unreadable(&error))
}

impl From<EpochObservations> for Epoch {
    fn from(of: EpochObservations) -> Self {
        let EpochObservations { epoch, begun_ms, ended_ms, arms } = of;
        let arms = arms.into_iter().map(|(name, arm)| (name, arm.into())).collect();
        Self { epoch, begun_ms, ended_ms, arms }
    }
}

impl From<ArmObservations> for Arm {
    fn from(of: ArmObservations) -> Self {
        let ArmObservations { units, statistics } = of;
        Self {
            units: units.units,
            both: units.both,
            bad: units.bad,
            first_latency: (&units.first_latency).into(),
            statistics: metrics(&statistics),
        }
    }
}

impl From<SeriesStatistics> for Series {
    fn from(of: SeriesStatistics) -> Self {
        let SeriesStatistics { series, begun_ms, ended_ms, statistics } = of;
        Self {
            epoch: series.epoch,
            arm: series.arm,
            target: series.target,
            model: series.model,
            version: series.version,
            begun_ms,
            ended_ms,
            statistics: metrics(&statistics),
        }
    }
}

fn metrics(statistics: &BTreeMap<String, Statistics>) -> BTreeMap<String, Metric> {
    statistics.iter().map(|(name, statistics)| (name.clone(), statistics.into())).collect()
}

impl From<&Statistics> for Metric {
    fn from(of: &Statistics) -> Self {
        let moments = of.moments;
        let some = |value| (moments.n > 0).then_some(value);
        Self {
            count: moments.n,
            mean: some(moments.mean),
            min: some(moments.min),
            max: some(moments.max),
            sd: moments.variance().map(f64::sqrt),
            rejected: moments.rejected,
            quantiles: (&of.histogram).into(),
        }
    }
}

impl From<&Histogram> for Quantiles {
    fn from(of: &Histogram) -> Self {
        // Infinity has no JSON.
        let quantile = |q| of.quantile(q).filter(|value| value.is_finite());
        Self { infinite: of.infinite, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99) }
    }
}
