//! What a backend may say: a batch is checked as a whole before anything of it is written.

use super::Refusal;
use super::record::{BAD_METRICS, END_OF_TIME, Record};
use super::statistics::Statistics;
use super::traced;
use halftone_proto::{
    CLOCK_TOLERANCE_MS,
    v1::{self, Omitted, Series, SeriesObservations, TracedRequest},
};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

/// One start of a backend.
pub(super) type Source = [u8; 16];

/// What the statistics of sources that are long gone are put under. No source has this name.
pub(super) const FORMER: Source = [0; 16];

/// Bytes of a name.
const MAX_NAME: usize = 512;
/// Series of a batch.
const MAX_SERIES: usize = 1024;
/// Metrics of a series.
const MAX_METRICS: usize = 256;

/// A batch that may be kept.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) source: Source,
    pub(super) sequence: u64,
    pub(super) begun_ms: u64,
    pub(super) ended_ms: u64,
    pub(super) omitted: Omitted,
    pub(super) parts: Vec<Part>,
    pub(super) traced: Vec<TracedRequest>,
}

/// What a batch says of a series.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) series: Series,
    /// Of cell 0: which one it is of the release is not known yet.
    pub(super) records: Vec<Record>,
    pub(super) statistics: Vec<(String, Statistics)>,
}

/// A source's name.
///
/// # Errors
/// When it is none.
pub(super) fn source(bytes: &[u8]) -> Result<Source, Refusal> {
    let source = Source::try_from(bytes).ok().filter(|source| *source != FORMER);
    source.ok_or_else(|| Refusal::new("`source` has to be 16 random bytes, made anew at each start"))
}

impl Batch {
    /// Checks a batch. `keep` is how old one may be.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn checked(batch: v1::ObservationBatch, now_ms: u64, keep: Duration) -> Result<Self, Refusal> {
        let v1::ObservationBatch { source: name, sequence, begun_ms, ended_ms, series, omitted, traced } =
            batch;
        let source = source(&name)?;
        if sequence == 0 || i64::try_from(sequence).is_err() {
            return Err(Refusal::new(format!("`sequence` is {sequence}, and has to be from 1 to 2^63 - 1")));
        }
        if begun_ms > ended_ms {
            return Err(Refusal::new(format!("it ended at {ended_ms}, before it had begun at {begun_ms}")));
        }
        if ended_ms > now_ms + CLOCK_TOLERANCE_MS {
            return Err(Refusal::new(format!(
                "it ended {} s in the future: set the backend's clock",
                (ended_ms - now_ms) / 1000
            )));
        }
        let oldest = now_ms.saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        if ended_ms < oldest {
            return Err(Refusal::new(format!(
                "it ended {} s ago, and observations are kept for {} s",
                (now_ms - ended_ms) / 1000,
                keep.as_secs()
            )));
        }
        if series.len() > MAX_SERIES {
            return Err(Refusal::new(format!("it has {} series; the most are {MAX_SERIES}", series.len())));
        }
        let omitted = omitted.unwrap_or_default();
        let counts = [omitted.requests, omitted.units, omitted.batches, omitted.traced];
        if counts.iter().any(|count| *count > u64::from(u32::MAX)) {
            return Err(Refusal::new("`omitted` counts more than 2^32 - 1"));
        }
        traced::check(&traced)?;
        let times = Times { begun_ms, ended_ms };
        let mut parts = Vec::with_capacity(series.len());
        let mut seen = HashSet::new();
        for (index, observations) in series.into_iter().enumerate() {
            let place = |refusal: Refusal| refusal.at(format_args!("series[{index}]"));
            let part = times.part(observations).map_err(place)?;
            if !seen.insert(part.series.clone()) {
                return Err(place(Refusal::new("it is there twice")));
            }
            parts.push(part);
        }
        Ok(Self { source, sequence, begun_ms, ended_ms, omitted, parts, traced })
    }

    /// Records of all series.
    pub(super) fn records(&self) -> usize {
        self.parts.iter().map(|part| part.records.len()).sum()
    }
}

/// From when to when a batch is.
#[derive(Clone, Copy)]
struct Times {
    begun_ms: u64,
    ended_ms: u64,
}

impl Times {
    fn part(self, observations: SeriesObservations) -> Result<Part, Refusal> {
        let SeriesObservations { series, exposures, bad_events, statistics } = observations;
        let series = series.ok_or_else(|| Refusal::new("it has no `series`"))?;
        check_series(&series)?;
        if series.release.is_empty() && !(exposures.is_empty() && bad_events.is_empty()) {
            return Err(Refusal::new("it has units, and no `release` that they could be of"));
        }
        let mut records = Vec::with_capacity(exposures.len() + bad_events.len());
        for (index, exposure) in exposures.iter().enumerate() {
            let record = self.exposure(exposure);
            records.push(record.map_err(|refusal| refusal.at(format_args!("exposures[{index}]")))?);
        }
        for (index, event) in bad_events.iter().enumerate() {
            let record = self.bad_event(event);
            records.push(record.map_err(|refusal| refusal.at(format_args!("bad_events[{index}]")))?);
        }
        if statistics.len() > MAX_METRICS {
            return Err(Refusal::new(format!(
                "it has {} metrics; the most are {MAX_METRICS}",
                statistics.len()
            )));
        }
        let mut metrics = BTreeSet::new();
        let mut checked = Vec::with_capacity(statistics.len());
        for (index, statistics) in statistics.into_iter().enumerate() {
            let place = |refusal: Refusal| {
                refusal.at(format_args!("statistics[{index}] ({:?})", short(&statistics.metric)))
            };
            check_name("metric", &statistics.metric).map_err(place)?;
            if statistics.metric.is_empty() || !metrics.insert(statistics.metric.clone()) {
                return Err(place(Refusal::new("the metric has no name, or is there twice")));
            }
            let statistic = Statistics::checked(&statistics).map_err(place)?;
            checked.push((statistics.metric, statistic));
        }
        Ok(Part { series, records, statistics: checked })
    }

    fn exposure(self, exposure: &v1::Exposure) -> Result<Record, Refusal> {
        self.check(exposure.time_ms)?;
        let outcome = u8::try_from(exposure.outcome).ok().filter(|outcome| *outcome < 16);
        let outcome =
            outcome.ok_or_else(|| Refusal::new(format!("there is no outcome {}", exposure.outcome)))?;
        if let Some(latency) = exposure.latency.filter(|latency| !(latency.is_finite() && *latency >= 0.0)) {
            return Err(Refusal::new(format!("its latency is {latency} s")));
        }
        Ok(Record::exposure(exposure.unit_hash, 0, exposure.time_ms, outcome, exposure.latency))
    }

    fn bad_event(self, event: &v1::BadEvent) -> Result<Record, Refusal> {
        self.check(event.time_ms)?;
        let metric = (0u8..).zip(BAD_METRICS).find(|(_, metric)| *metric == event.metric);
        let (metric, _) = metric.ok_or_else(|| {
            Refusal::new(format!(
                "there are no bad events of {:?}, only of {}",
                short(&event.metric),
                BAD_METRICS.join(", ")
            ))
        })?;
        Ok(Record::bad_event(event.unit_hash, 0, event.time_ms, metric))
    }

    /// Whether something of this batch can have been decided at this time.
    fn check(self, time_ms: u64) -> Result<(), Refusal> {
        let (earliest, latest) =
            (self.begun_ms.saturating_sub(CLOCK_TOLERANCE_MS), self.ended_ms + CLOCK_TOLERANCE_MS);
        if time_ms >= END_OF_TIME || !(earliest..=latest).contains(&time_ms) {
            return Err(Refusal::new(format!(
                "it was decided at {time_ms}, and the batch is from {} to {}: compare the clocks of the backend and of the proxies",
                self.begun_ms, self.ended_ms
            )));
        }
        Ok(())
    }
}

fn check_series(series: &Series) -> Result<(), Refusal> {
    let Series { ruleset, release, epoch, arm, target, model, version } = series;
    let names = [
        ("ruleset", ruleset),
        ("release", release),
        ("arm", arm),
        ("target", target),
        ("model", model),
        ("version", version),
    ];
    names.into_iter().try_for_each(|(what, name)| check_name(what, name))?;
    if i64::try_from(*epoch).is_err() {
        return Err(Refusal::new(format!("`epoch` is {epoch}, and has to be below 2^63")));
    }
    if !release.is_empty() && (ruleset.is_empty() || arm.is_empty()) {
        return Err(Refusal::new("it has a `release`, and no `ruleset` or no `arm`"));
    }
    Ok(())
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.len() > MAX_NAME {
        return Err(Refusal::new(format!("`{what}` has {} bytes; the most are {MAX_NAME}", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::new(format!("`{what}` has a control character")));
    }
    Ok(())
}

/// The beginning of a name, to be shown.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}
