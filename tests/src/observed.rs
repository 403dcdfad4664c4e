//! What a backend reports, made up.

use halftone_judge::stats::{Grid, Histogram, Mean};
use halftone_proto::v1::{
    BadEvent, Exposure, LogHistogram, Moments, ObservationBatch, Omitted, Series, SeriesObservations,
    Statistics, UnitSums,
};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// A request that was observed.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The hash of its unit.
    pub unit: u64,
    /// When it was decided: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Seconds; `None` when it failed.
    pub latency: Option<f64>,
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is reported of requests of an arm of the release `canary` of the ruleset `digits`.
#[must_use]
pub fn series(epoch: u64, arm: &str, requests: &[Request]) -> SeriesObservations {
    let failed = || requests.iter().filter(|request| request.latency.is_none());
    let latencies: Vec<_> = requests.iter().filter_map(|of| Some((of.unit, of.latency?))).collect();
    let errors: Vec<_> =
        requests.iter().map(|of| (of.unit, f64::from(u8::from(of.latency.is_none())))).collect();
    let exposure = |of: &Request| Exposure {
        unit_hash: of.unit,
        time_ms: of.time_ms,
        latency: of.latency,
        outcome: u32::from(of.latency.is_none()),
    };
    let bad_event =
        |of: &Request| BadEvent { metric: "error".to_owned(), unit_hash: of.unit, time_ms: of.time_ms };
    SeriesObservations {
        series: Some(Series {
            ruleset: "digits".to_owned(),
            release: "canary".to_owned(),
            epoch,
            arm: arm.to_owned(),
            target: arm.to_owned(),
            model: "digits".to_owned(),
            version: "1".to_owned(),
        }),
        exposures: requests.iter().map(exposure).collect(),
        bad_events: failed().map(bad_event).collect(),
        statistics: vec![statistics("latency", &latencies), statistics("error", &errors)],
    }
}

/// A metric that has these values, each of a request of a unit.
#[must_use]
pub fn statistics(metric: &str, of: &[(u64, f64)]) -> Statistics {
    let values: Vec<f64> = of.iter().map(|(_, value)| *value).collect();
    let (moments, histogram) = (Mean::of(&values), Histogram::of(Grid::default(), &values));
    let mut buckets: BTreeMap<u32, (f64, u64)> = BTreeMap::new();
    for (unit, value) in of.iter().filter(|(_, value)| value.is_finite()) {
        let (sum, count) = buckets.entry(u32::try_from(unit >> 54).unwrap_or_default()).or_default();
        *sum += value;
        *count += 1;
    }
    let sums = UnitSums {
        buckets: buckets.keys().copied().collect(),
        numerators: buckets.values().map(|(sum, _)| *sum).collect(),
        denominators: buckets.values().map(|(_, count)| *count).collect(),
    };
    Statistics {
        metric: metric.to_owned(),
        moments: Some(Moments {
            count: moments.n,
            mean: moments.mean,
            m2: moments.m2,
            min: moments.min,
            max: moments.max,
            rejected: moments.rejected,
        }),
        histogram: Some(LogHistogram {
            error_ppm: histogram.grid.into(),
            buckets: histogram.counts.keys().copied().collect(),
            counts: histogram.counts.values().copied().collect(),
            zero: histogram.zero,
            infinite: histogram.infinite,
            negative: histogram.negative,
            nan: histogram.nan,
        }),
        units: Some(sums),
    }
}

/// A batch of the last two seconds, of the source of this number.
#[must_use]
pub fn batch(source: u8, sequence: u64, series: Vec<SeriesObservations>) -> ObservationBatch {
    let now = now_ms();
    ObservationBatch {
        source: name(source),
        sequence,
        begun_ms: now - 2_000,
        ended_ms: now,
        series,
        omitted: Some(Omitted { requests: 1, ..Omitted::default() }),
        traced: Vec::new(),
    }
}

/// The name of the source of this number.
#[must_use]
pub fn name(source: u8) -> Vec<u8> {
    vec![source.wrapping_add(1); 16]
}
