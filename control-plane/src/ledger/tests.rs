//! The ledger as a whole, on a file.

use super::*;
use halftone_judge::stats::{Grid, Histogram, Mean, UnitBuckets};
use halftone_proto::v1::{self, BadEvent, Exposure, Omitted, Series, SeriesObservations};
use proptest::prelude::*;

const LIMITS: Limits = Limits { keep_days: 30, max_units: 100_000 };

fn name(source: u8) -> Vec<u8> {
    vec![source + 1; 16]
}

/// A metric of these values, each of a unit.
fn statistics(metric: &str, values: &[(u64, f64)]) -> v1::Statistics {
    let all: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    let (mean, histogram) = (Mean::of(&all), Histogram::of(Grid::default(), &all));
    let mut units = UnitBuckets::default();
    values.iter().for_each(|(unit, value)| units.push(usize::try_from(unit >> 54).unwrap(), *value, 1.0));
    let statistics = Statistics { moments: mean, histogram, units: Some(units) };
    let bytes = statistics.to_bytes();
    v1::Statistics { metric: metric.to_owned(), ..prost::Message::decode(bytes.as_slice()).unwrap() }
}

/// What a backend saw of some requests: unit, latency in milliseconds, whether it failed.
fn observations(epoch: u64, arm: &str, time_ms: u64, requests: &[(u64, u16, bool)]) -> SeriesObservations {
    let latency = |request: &(u64, u16, bool)| f64::from(request.1) / 1e3;
    let answered: Vec<(u64, f64)> =
        requests.iter().filter(|request| !request.2).map(|request| (request.0, latency(request))).collect();
    let errors: Vec<(u64, f64)> =
        requests.iter().map(|request| (request.0, f64::from(u8::from(request.2)))).collect();
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
        exposures: requests
            .iter()
            .map(|request| Exposure {
                unit_hash: request.0,
                time_ms,
                latency: (!request.2).then(|| latency(request)),
                outcome: u32::from(request.2),
            })
            .collect(),
        bad_events: requests
            .iter()
            .filter(|request| request.2)
            .map(|request| BadEvent { metric: "error".to_owned(), unit_hash: request.0, time_ms })
            .collect(),
        statistics: vec![statistics("latency", &answered), statistics("error", &errors)],
    }
}

fn batch(source: u8, sequence: u64, series: Vec<SeriesObservations>) -> ObservationBatch {
    let now = now_ms();
    ObservationBatch {
        source: name(source),
        sequence,
        begun_ms: now - 2_000,
        ended_ms: now - 1_000,
        series,
        omitted: Some(Omitted { requests: 1, units: 0, batches: 0 }),
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn take(ledger: &Ledger, batch: &ObservationBatch) -> Result<u64, LedgerError> {
    wait(ledger.report(batch.clone())?)
}

/// All that can be read, without the times of batches.
fn known(ledger: &Ledger) -> ReleaseObservations {
    ledger.release("digits", "canary").unwrap().unwrap_or_default()
}

fn open(folder: &tempfile::TempDir) -> Ledger {
    Ledger::open(&folder.path().join("ledger.db"), LIMITS).unwrap()
}

/// Three sources with some batches each.
fn batches() -> impl Strategy<Value = Vec<Vec<ObservationBatch>>> {
    let request = (prop_oneof![0u64..6, any::<u64>()], 0u16..900, prop::bool::weighted(0.2));
    let part = (0u64..2, 0usize..2, 0u64..900, prop::collection::vec(request, 0..20));
    let of_source = prop::collection::vec(part, 0..5);
    prop::collection::vec(of_source, 3).prop_map(|sources| {
        let start = now_ms() - 2_000;
        let sources = (0u8..).zip(sources).map(|(source, parts)| {
            let batch = |(sequence, (epoch, arm, offset, requests)): (u64, (u64, usize, u64, Vec<_>))| {
                let arm = ["control", "treatment"][arm];
                batch(source, sequence, vec![observations(epoch, arm, start + offset, &requests)])
            };
            (1u64..).zip(parts).map(batch).collect()
        });
        sources.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ledger_any_interleaving_and_repetition_gives_the_same(
        sources in batches(),
        turns in prop::collection::vec((0usize..3, any::<prop::sample::Index>(), any::<bool>()), 0..30),
        restart in any::<prop::sample::Index>(),
    ) {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let straight = open(&one);
        for batch in sources.iter().flatten() {
            prop_assert_eq!(take(&straight, batch).unwrap(), batch.sequence);
        }
        // The sources take turns, batches come again, and the ledger is opened again in between.
        let mut ledger = open(&other);
        let mut next = [0; 3];
        let rest = (0..3).flat_map(|source| vec![source; sources[source].len()]);
        let rest = rest.map(|source| (source, None));
        let turns = turns.into_iter().map(|(source, index, again)| (source, again.then_some(index)));
        let turns: Vec<_> = turns.chain(rest).collect();
        let restart = restart.index(turns.len().max(1));
        for (turn, (source, again)) in turns.into_iter().enumerate() {
            if turn == restart {
                drop(ledger);
                ledger = open(&other);
            }
            let (taken, all) = (next[source], &sources[source]);
            match again {
                Some(index) if taken > 0 => {
                    let batch = &all[index.index(taken)];
                    prop_assert_eq!(take(&ledger, batch).unwrap(), u64::try_from(taken).unwrap());
                }
                _ if taken < all.len() => {
                    take(&ledger, &all[taken]).unwrap();
                    next[source] += 1;
                }
                _ => {}
            }
            prop_assert_eq!(ledger.resume(&name(u8::try_from(source).unwrap())).unwrap(), u64::try_from(next[source]).unwrap());
        }
        prop_assert_eq!(known(&straight), known(&ledger), "to the last bit");
        prop_assert_eq!(straight.releases().unwrap(), ledger.releases().unwrap());
        drop(ledger);
        prop_assert_eq!(known(&straight), known(&open(&other)), "and after a restart");
    }
}
