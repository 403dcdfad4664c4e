//! What the ledger counts of itself, for Prometheus.

use super::{Held, Ledger, LedgerError, Taken};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, times: usize) {
        self.0.fetch_add(u64::try_from(times).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What became of what came, since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Those that had come before are among them.
    pub(super) batches_taken: Count,
    pub(super) batches_refused: Count,
    pub(super) nameless: Count,
    outcomes_taken: Count,
    outcomes_repeated: Count,
    pub(super) outcomes_refused: Count,
}

impl Counters {
    pub(super) fn batch(&self, result: &Result<u64, LedgerError>) {
        let count = if result.is_ok() { &self.batches_taken } else { &self.batches_refused };
        count.add(1);
    }

    /// Series of batches that were counted without their names.
    pub(super) fn nameless_series(&self) -> u64 {
        self.nameless.0.load(Relaxed)
    }

    pub(super) fn outcome(&self, result: &Result<Taken, LedgerError>) {
        let count = match result {
            Ok(Taken::New(_)) => &self.outcomes_taken,
            Ok(Taken::Repeated(_)) => &self.outcomes_repeated,
            Ok(Taken::Conflict(_)) | Err(_) => &self.outcomes_refused,
        };
        count.add(1);
    }
}

/// The metrics of a ledger.
#[must_use]
pub fn metrics(ledger: Arc<Ledger>) -> Box<dyn Collector> {
    Box::new(Metrics(ledger))
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

struct Metrics(Arc<Ledger>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = &self.0.counters;
        let families = [
            (
                "halftone_ledger_batches",
                "Batches of observations, by what became of them",
                vec![("taken", &counters.batches_taken), ("refused", &counters.batches_refused)],
            ),
            (
                "halftone_ledger_outcomes",
                "Outcomes, by what became of them; repeated are those that were kept already",
                vec![
                    ("taken", &counters.outcomes_taken),
                    ("repeated", &counters.outcomes_repeated),
                    ("refused", &counters.outcomes_refused),
                ],
            ),
        ];
        for (name, help, counts) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (result, count) in counts {
                let value = ConstCounter::new(count.0.load(Relaxed));
                value.encode(family.encode_family(&Labels { result })?)?;
            }
        }
        let help =
            "Series of batches that name what was never published here and were counted without their names";
        let nameless =
            encoder.encode_descriptor("halftone_ledger_nameless_series", help, None, MetricType::Counter)?;
        ConstCounter::new(counters.nameless_series()).encode(nameless)?;
        let (records, outcomes) = self.0.shared.read(|held| (held.records(), Held::outcomes(held)));
        let help = "Records of units and outcomes that are held, of which --max-units is the most";
        gauge(&mut encoder, "halftone_ledger_held_records", help, records)?;
        gauge(&mut encoder, "halftone_ledger_held_outcomes", "Outcomes that are held", outcomes)?;
        let help =
            "How often the clock went back by more than 5 ms, so that no ids could be made for a while";
        let went_back =
            encoder.encode_descriptor("halftone_clock_went_back", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.ids().times_went_back()).encode(went_back)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: usize,
) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
}
