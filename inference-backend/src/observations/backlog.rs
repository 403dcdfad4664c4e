//! How far the observations are behind, for the metrics.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// How far the observations are behind. Written by the thread behind the requests, read by whoever scrapes; clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<Numbers>);

/// Times are milliseconds since the Unix epoch; 0: there is nothing.
#[derive(Debug, Default)]
struct Numbers {
    gathered_since_ms: AtomicU64,
    written_since_ms: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    omitted_requests: AtomicU64,
    omitted_units: AtomicU64,
    omitted_batches: AtomicU64,
    omitted_traced: AtomicU64,
}

impl Backlog {
    /// Since when something is gathered that is not written yet.
    pub(super) fn gathered(&self, since_ms: u64) {
        self.0.gathered_since_ms.store(since_ms, Relaxed);
    }

    /// What is written and not acknowledged: since when, how many batches, how many bytes.
    pub(super) fn written(&self, since_ms: u64, batches: usize, bytes: u64) {
        self.0.written_since_ms.store(since_ms, Relaxed);
        self.0.batches.store(batches as u64, Relaxed);
        self.0.bytes.store(bytes, Relaxed);
    }

    /// So much had to be left out.
    pub(super) fn omitted(&self, requests: u64, units: u64, batches: u64) {
        self.0.omitted_requests.fetch_add(requests, Relaxed);
        self.0.omitted_units.fetch_add(units, Relaxed);
        self.0.omitted_batches.fetch_add(batches, Relaxed);
    }

    /// A traced request had to be left out.
    pub(super) fn omitted_traced(&self) {
        self.0.omitted_traced.fetch_add(1, Relaxed);
    }

    /// How old the oldest observation is, in seconds, that the control plane has not acknowledged; 0 when it has all.
    #[must_use]
    pub fn lag_s(&self) -> f64 {
        let since = [&self.0.gathered_since_ms, &self.0.written_since_ms].map(|since| since.load(Relaxed));
        let oldest = since.into_iter().filter(|&since| since > 0).min();
        oldest.map_or(0.0, |oldest| now_ms().saturating_sub(oldest) as f64 / 1e3)
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Box<dyn Collector> {
        Box::new(Metrics(self.clone()))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Metrics(Backlog);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let numbers = &*self.0.0;
        let help =
            "Age of the oldest observation that the control plane has not acknowledged; 0 when it has all";
        let lag =
            encoder.encode_descriptor("halftone_observation_lag_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.0.lag_s()).encode(lag)?;
        for (name, help, value) in [
            (
                "halftone_observation_waiting_batches",
                "Batches of observations that are written down and not acknowledged",
                &numbers.batches,
            ),
            ("halftone_observation_spool_bytes", "Room that these take on the disk", &numbers.bytes),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value.load(Relaxed)).unwrap_or(i64::MAX)).encode(metric)?;
        }
        let help = "What had to be left out of the observations for want of room, by what it was";
        let mut omitted =
            encoder.encode_descriptor("halftone_observation_omitted", help, None, MetricType::Counter)?;
        for (what, count) in [
            ("requests", &numbers.omitted_requests),
            ("units", &numbers.omitted_units),
            ("batches", &numbers.omitted_batches),
            ("traced", &numbers.omitted_traced),
        ] {
            ConstCounter::new(count.load(Relaxed)).encode(omitted.encode_family(&[("what", what)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_wherever_it_is() {
        let backlog = Backlog::default();
        let lags = |low: f64, high: f64| (low..high).contains(&backlog.lag_s());
        assert_eq!(backlog.lag_s().to_bits(), 0.0_f64.to_bits());
        backlog.gathered(now_ms() - 5_000);
        assert!(lags(5.0, 3_600.0));
        backlog.written(now_ms() - 7_200_000, 2, 4096);
        assert!(lags(7_200.0, 10_000.0));
        backlog.written(0, 0, 0);
        assert!(lags(5.0, 3_600.0));
        // A clock that went back makes nothing older than now.
        backlog.gathered(now_ms() + 60_000);
        assert_eq!(backlog.lag_s().to_bits(), 0.0_f64.to_bits());
    }
}
