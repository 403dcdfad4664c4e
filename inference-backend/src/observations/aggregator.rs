//! From single inferences to a batch.

use super::{
    backlog::Backlog,
    batch::{Batch, Sighting, Sightings},
    places::{Places, Rank},
    record::{End, Record, now_ms, outcome},
    seen::Seen,
};
use halftone_proto::{
    CLOCK_TOLERANCE_MS,
    v1::{Series, TracedRequest},
};
use halftone_telemetry::throttle::Throttle;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

/// Most series of a batch. Requests of more are left out.
const MOST_SERIES: usize = 128;

/// Exposures and bad events after which a batch is to be written, however young it is.
const MANY_UNITS: usize = 1 << 14;
/// Most of them, when it cannot be written.
const MOST_UNITS: usize = 1 << 16;

/// Gathers what is observed.
#[derive(Debug, Default)]
pub struct Aggregator {
    batch: Batch,
    /// Exposures and bad events of the batch.
    units: usize,
    /// Those of its traced requests, in their order.
    places: Places,
    seen: Seen,
    /// Names a fact while it is hashed.
    fact: Vec<u8>,
    clock_warning: Throttle,
    backlog: Backlog,
}

/// What is reported of a unit once.
#[derive(Clone, Copy)]
enum Fact {
    Exposed,
    Answered,
    Bad(&'static str),
}

impl Aggregator {
    /// One that says in the backlog how far it is.
    #[must_use]
    pub fn new(backlog: Backlog) -> Self {
        Self { backlog, ..Self::default() }
    }

    /// Takes one inference.
    pub fn take(&mut self, record: &Record) {
        if let Some(traced) = record.traced() {
            self.trace(traced, record.rank());
        }
        for series in record.series() {
            if self.batch.series.len() >= MOST_SERIES && !self.batch.series.contains_key(&series) {
                self.omit(1, 0, 0);
                continue;
            }
            self.count(&series, record);
            if let Some(unit) = record.unit().filter(|_| !series.release.is_empty()) {
                self.expose(&series, unit, record);
            }
        }
    }

    /// Takes note of what had to be left out.
    pub fn omit(&mut self, requests: u64, units: u64, batches: u64) {
        let omitted = &mut self.batch.omitted;
        omitted.requests = omitted.requests.saturating_add(requests);
        omitted.units = omitted.units.saturating_add(units);
        omitted.batches = omitted.batches.saturating_add(batches);
        self.backlog.omitted(requests, units, batches);
        self.touch();
    }

    /// Takes a request by itself, if there is a place for it.
    fn trace(&mut self, traced: TracedRequest, rank: Rank) {
        self.touch();
        let bytes = traced.encoded_len();
        while !self.places.take(rank, bytes) {
            // This one, or the one that makes room for it.
            self.omit_traced();
            let Some(place) = self.places.clear(rank, bytes) else { return };
            self.batch.traced.swap_remove(place);
        }
        self.batch.traced.push(traced);
    }

    fn omit_traced(&mut self) {
        self.batch.omitted.traced = self.batch.omitted.traced.saturating_add(1);
        self.backlog.omitted_traced();
    }

    /// What was gathered.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether it is time to write it, however young it is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.units >= MANY_UNITS
    }

    /// Begins anew: what was gathered is kept elsewhere.
    pub fn begin(&mut self) {
        (self.batch, self.places, self.units) = (Batch::default(), Places::default(), 0);
        self.backlog.gathered(0);
    }

    /// Forgets which units were reported, as some of it was lost: those that come again are reported again.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn touch(&mut self) {
        let now = now_ms();
        if self.batch.begun_ms == 0 {
            self.batch.begun_ms = now;
            self.backlog.gathered(now);
        }
        self.batch.ended_ms = now.max(self.batch.ended_ms);
    }

    /// What is counted of every request.
    fn count(&mut self, series: &Series, record: &Record) {
        self.touch();
        let unit = record.unit();
        let seconds = seconds(record);
        let observations = match self.batch.series.get_mut(series) {
            Some(observations) => observations,
            None => self.batch.series.entry(series.clone()).or_default(),
        };
        let mut push = |metric: &'static str, values: &[f64]| observations.push(metric.into(), values, unit);
        let flag = |flag| if flag { [1.0] } else { [0.0] };
        match record.end {
            End::Answered => push("latency", &[seconds]),
            End::Refused | End::Left => {}
            End::Failed => push("latency_failed", &[seconds]),
        }
        push("error", &flag(record.end == End::Failed));
        push("refused", &flag(record.end == End::Refused));
        let findings = &record.findings;
        if let Some(nan) = findings.nan {
            push("nan", &flag(nan));
        }
        if let Some(range) = findings.range {
            push("range", &flag(range));
        }
        if !findings.confidence.is_empty() {
            push("confidence", &findings.confidence);
        }
        for (check, values) in &findings.values {
            if let Some(metric) = record.checks.metric(*check) {
                // A distribution is no mean per request: it needs no units.
                observations.push(metric.to_owned().into(), values, None);
            }
        }
    }

    /// What is reported once of a unit.
    fn expose(&mut self, series: &Series, unit: u64, record: &Record) {
        let flags = record.outcome();
        let latency = (record.end == End::Answered).then(|| seconds(record));
        let sighting = Sighting { time_ms: time_ms(record), outcome: flags, latency };
        let exposed = if latency.is_some() { Fact::Answered } else { Fact::Exposed };
        if self.is_news(series, unit, exposed, sighting.time_ms) {
            self.batch.series.entry(series.clone()).or_default().expose(unit, Sightings::of(sighting));
        }
        for (flag, metric) in [(outcome::ERROR, "error"), (outcome::NAN, "nan"), (outcome::RANGE, "range")] {
            if flags & flag != 0 && self.is_news(series, unit, Fact::Bad(metric), sighting.time_ms) {
                let observations = self.batch.series.entry(series.clone()).or_default();
                observations.bad(metric.into(), unit, sighting.time_ms);
            }
        }
    }

    /// Whether this, decided at a time, is to be reported, which it then counts as.
    fn is_news(&mut self, series: &Series, unit: u64, fact: Fact, time_ms: u64) -> bool {
        let key = self.key(series, unit, fact);
        // A unit that was answered has been exposed.
        let answered = self.key(series, unit, Fact::Answered);
        if self.seen.contains(key) || (matches!(fact, Fact::Exposed) && self.seen.contains(answered)) {
            return false;
        }
        if self.units >= MOST_UNITS {
            self.omit(0, 1, 0);
            return false;
        }
        // One proxy whose clock is wrong would have the whole batch refused.
        if !self.is_of_batch(time_ms) {
            if self.clock_warning.is_due() {
                tracing::warn!(
                    time_ms,
                    ruleset = series.ruleset,
                    "units are left out: a proxy's clock and this one differ by more than ten minutes"
                );
            }
            self.omit(0, 1, 0);
            return false;
        }
        self.seen.insert(key);
        self.units += 1;
        true
    }

    /// Whether something that was decided at this time can be told in this batch, which only ever gets longer.
    fn is_of_batch(&self, time_ms: u64) -> bool {
        let earliest = self.batch.begun_ms.saturating_sub(CLOCK_TOLERANCE_MS);
        let latest = self.batch.ended_ms.saturating_add(CLOCK_TOLERANCE_MS);
        (earliest..=latest).contains(&time_ms)
    }

    fn key(&mut self, series: &Series, unit: u64, fact: Fact) -> u64 {
        let Series { ruleset, release, epoch, arm, target, model, version } = series;
        let fact = match fact {
            Fact::Exposed => "exposed",
            Fact::Answered => "answered",
            Fact::Bad(metric) => metric,
        };
        self.fact.clear();
        for text in [ruleset, release, arm, target, model, version] {
            self.fact.extend_from_slice(text.as_bytes());
            // No name has it.
            self.fact.push(0);
        }
        self.fact.extend_from_slice(&epoch.to_le_bytes());
        self.fact.extend_from_slice(&unit.to_le_bytes());
        self.fact.extend_from_slice(fact.as_bytes());
        xxh3_64(&self.fact)
    }
}

/// How long the inference took.
fn seconds(record: &Record) -> f64 {
    record.context.inference().map_or(f64::NAN, |inference| inference.duration.as_secs_f64())
}

/// When the request was decided, by the proxy's clock: the same whoever reports it.
fn time_ms(record: &Record) -> u64 {
    let decided = record.context.evaluation.as_ref().map(|context| context.timestamp_ms);
    decided.filter(|&time_ms| time_ms > 0).unwrap_or_else(now_ms)
}

#[cfg(test)]
mod tests;
