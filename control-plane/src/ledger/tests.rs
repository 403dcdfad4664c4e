//! The ledger as a whole, on a file.

use super::*;
use crate::trace::Id;
use halftone_proto::v1::{ObservationBatch, TracedRequest};
use halftone_rules::bundle::{Arm, Enrolment, Rule, Ruleset};
use halftone_tests::observed::{Request, batch, name, series};
use proptest::prelude::*;

const LIMITS: Limits = Limits { keep_days: 30, max_units: 100_000, keep_traces: 1_000 };

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
    Ledger::open(&folder.path().join("ledger.db"), LIMITS, Arc::default()).unwrap()
}

/// One that makes pictures all the time, and is left in the middle of one.
fn open_hasty(folder: &tempfile::TempDir) -> Ledger {
    let pace = Pace { log_bytes: 100, log_entries: 2, step_bytes: 1 };
    Ledger::open_at(&folder.path().join("ledger.db"), LIMITS, Arc::default(), pace).unwrap()
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
                let time_ms = start + offset;
                let request = |(unit, latency, failed): (u64, u16, bool)| Request {
                    unit,
                    time_ms,
                    latency: (!failed).then(|| f64::from(latency) / 1e3),
                };
                let requests: Vec<_> = requests.into_iter().map(request).collect();
                batch(source, sequence, vec![series(epoch, arm, &requests)])
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
        let mut ledger = open_hasty(&other);
        let mut next = [0; 3];
        let rest = (0..3).flat_map(|source| vec![source; sources[source].len()]);
        let rest = rest.map(|source| (source, None));
        let turns = turns.into_iter().map(|(source, index, again)| (source, again.then_some(index)));
        let turns: Vec<_> = turns.chain(rest).collect();
        let restart = restart.index(turns.len().max(1));
        for (turn, (source, again)) in turns.into_iter().enumerate() {
            if turn == restart {
                drop(ledger);
                ledger = open_hasty(&other);
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

fn refused(batch: &ObservationBatch) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = take(&open(&folder), batch).unwrap_err();
    assert!(matches!(error, LedgerError::Refused(_)), "{error}");
    error.to_string()
}

#[test]
fn ledger_what_is_old_goes_and_what_is_quiet_is_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let day = 24 * 3_600_000;
    let at = |source, ago_ms, release: &str, seed: u64| {
        let time_ms = now_ms() - ago_ms;
        let requests: Vec<_> = (0..50u64)
            .map(|i| Request {
                unit: seed * 1_000 + i,
                time_ms,
                latency: Some(0.001 * (seed * 50 + i) as f64),
            })
            .collect();
        let mut series = series(1, "control", &requests);
        series.series.as_mut().unwrap().release = release.to_owned();
        ObservationBatch { begun_ms: time_ms, ended_ms: time_ms, ..batch(source, 1, vec![series]) }
    };
    let (quiet, old) = (at(1, 3 * day, "canary", 1), at(3, 29 * day, "old", 3));
    let before = {
        let ledger = open(&folder);
        for batch in [&at(2, 2 * day, "canary", 2), &quiet, &at(4, 0, "canary", 4), &old] {
            take(&ledger, batch).unwrap();
        }
        assert_eq!(ledger.releases().unwrap().0.len(), 2);
        known(&ledger)
    };
    // 28 days are enough from now on.
    let limits = Limits { keep_days: 28, ..LIMITS };
    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.retain(now_ms() - day, now_ms() - 28 * day).unwrap().len(), 1);
    drop(database);
    let ledger = Ledger::open(&path, limits, Arc::default()).unwrap();
    assert_eq!(ledger.release("digits", "old").unwrap(), None);
    assert_eq!(ledger.releases().unwrap().0.len(), 1);
    let after = known(&ledger);
    for (before, after) in before.series.iter().zip(&after.series) {
        for (metric, before) in &before.statistics {
            let after = &after.statistics[metric];
            assert_eq!(before.histogram, after.histogram);
            let (one, other) = (before.moments, after.moments);
            let close = |one: f64, other: f64| (one - other).abs() <= 1e-12 * one.abs().max(1.0);
            assert!(close(one.mean, other.mean) && close(one.m2, other.m2), "{metric}: {one:?} {other:?}");
        }
    }
    assert_eq!(before.epochs[0].arms["control"].units, after.epochs[0].arms["control"].units);
    // Both are known still: one by its number, the other by its age.
    assert_eq!(take(&ledger, &quiet).unwrap(), 1);
    assert!(matches!(take(&ledger, &old), Err(LedgerError::Refused(_))));
    assert_eq!(known(&ledger), after);
    assert!(refused(&ObservationBatch { begun_ms: 0, ended_ms: 0, ..quiet }).contains("are kept for"));
}

#[test]
fn ledger_more_units_than_allowed_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_units: 10, ..LIMITS };
    let ledger = Ledger::open(&folder.path().join("ledger.db"), limits, Arc::default()).unwrap();
    let request = |unit| Request { unit, time_ms: now_ms(), latency: Some(0.1) };
    let units =
        |units: std::ops::Range<u64>| vec![series(1, "control", &units.map(request).collect::<Vec<_>>())];
    take(&ledger, &batch(0, 1, units(0..8))).unwrap();
    let before = known(&ledger);
    let full = take(&ledger, &batch(0, 2, units(8..11))).unwrap_err();
    assert!(matches!(full, LedgerError::Full(8)) && full.to_string().contains("--max-units"), "{full}");
    assert_eq!((known(&ledger), ledger.resume(&name(0)).unwrap()), (before, 1));
    assert_eq!(take(&ledger, &batch(0, 2, units(8..10))).unwrap(), 2);
}

#[test]
fn ledger_a_file_of_the_build_before_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let units = vec![series(1, "control", &[Request { unit: 7, time_ms: now_ms(), latency: Some(0.1) }])];
    let before = {
        let ledger = open(&folder);
        take(&ledger, &batch(0, 1, units)).unwrap();
        (known(&ledger), ledger.releases().unwrap())
    };
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "DROP INDEX series_unpublished; ALTER TABLE series DROP COLUMN published;
             DROP TABLE traced; ALTER TABLE sources DROP COLUMN omitted_traced; PRAGMA user_version = 2;",
        )
        .unwrap();
    let ledger = open(&folder);
    assert_eq!((known(&ledger), ledger.releases().unwrap()), before);
    assert_eq!(ledger.resume(&name(0)).unwrap(), 1);
    let request = TracedRequest { trace_id: vec![1; 16], parent_id: vec![2; 8], ..TracedRequest::default() };
    let omitted = Some(halftone_proto::v1::Omitted { traced: 3, ..Default::default() });
    take(&ledger, &ObservationBatch { traced: vec![request.clone()], omitted, ..batch(0, 2, Vec::new()) })
        .unwrap();
    assert_eq!(ledger.traced(&Id::Trace([1; 16]), 9).unwrap(), [request]);
    assert_eq!(ledger.releases().unwrap().1.traced, 3);
}

/// A ruleset `digits` with these releases, each in epoch 1 with a control and a treatment.
fn ruleset(releases: &[&str]) -> Ruleset {
    let arms = ["control", "treatment"];
    let rule = |name: &&str| Rule {
        name: (*name).to_owned(),
        guard: None,
        enrolment: Enrolment::default(),
        arms: (0..).zip(arms).map(|(target, name)| Arm { name: name.to_owned(), target }).collect(),
        epoch: 1,
    };
    let rules = releases.iter().map(rule).collect();
    Ruleset { targets: arms.map(str::to_owned).to_vec(), rules, ..Ruleset::pass_all("digits", "control") }
}

/// A request of a unit of its own with a name, or an epoch, that nobody published: in another place from one to the next.
fn made_up(number: u64) -> halftone_proto::v1::SeriesObservations {
    let request = Request { unit: number << 40, time_ms: now_ms(), latency: Some(0.1) };
    let mut observations = series(1, "control", &[request]);
    let series = observations.series.as_mut().unwrap();
    let name = format!("made up {number}");
    match number % 5 {
        0 => series.ruleset = name,
        1 => series.release = name,
        2 => series.arm = name,
        3 => series.target = name,
        _ => series.epoch = 1_000_000 + number,
    }
    observations
}

#[test]
fn ledger_names_that_were_made_up_take_a_bounded_place_from_nobody() {
    const MADE_UP: u64 = 2_000;
    let (folder, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let published = Arc::new(PublishedNames::default());
    published.add(1, [&ruleset(&["canary"])]);
    let open = |folder: &tempfile::TempDir| {
        Ledger::open(&folder.path().join("ledger.db"), LIMITS, Arc::clone(&published)).unwrap()
    };
    let real = |release: &str, units: std::ops::Range<u64>| {
        let requests: Vec<_> = units
            .map(|unit| Request {
                unit: unit << 50,
                time_ms: 1 + now_ms() / 1_000 * 1_000,
                latency: Some(0.1),
            })
            .collect();
        ["control", "treatment"].map(|arm| {
            let mut observations = series(1, arm, &requests);
            observations.series.as_mut().unwrap().release = release.to_owned();
            observations
        })
    };
    let most = usize::try_from(database::MOST_UNPUBLISHED).unwrap();
    let (canary, late) =
        (batch(1, 1, real("canary", 0..50).to_vec()), batch(1, 2, real("late", 0..70).to_vec()));
    let (ledger, straight) = (open(&folder), open(&alone));
    for sequence in 1..=MADE_UP / 100 {
        let some = ((sequence - 1) * 100..sequence * 100).map(made_up).collect();
        take(&ledger, &batch(0, sequence, some)).unwrap();
    }
    let bounds_hold = |ledger: &Ledger, real: usize| {
        let releases = ledger.releases().unwrap().0;
        assert!(releases.len() <= most + real + 1, "{}", releases.len());
        let held = ledger.shared.read(|held| held.releases.len());
        assert!(held <= most + real, "{held}");
        let cells =
            ledger.shared.read(|held| held.releases.values().map(|units| units.cells().len()).sum::<usize>());
        assert!(cells <= most + 2 * real, "{cells}");
    };
    bounds_hold(&ledger, 0);
    // All requests are there: under their names, or under none.
    let nameless = ledger.release("", "").unwrap().unwrap();
    assert_eq!(nameless.series.len(), 1);
    assert_eq!(
        nameless.series[0].statistics["latency"].moments.n,
        MADE_UP - database::MOST_UNPUBLISHED.unsigned_abs()
    );
    assert!(nameless.epochs.is_empty(), "and no units");
    assert_eq!(ledger.counters.nameless_series(), MADE_UP - database::MOST_UNPUBLISHED.unsigned_abs());

    // A release is published when all places are taken.
    take(&ledger, &canary).unwrap();
    drop(ledger);
    let ledger = open(&folder);
    published.add(2, [&ruleset(&["canary", "late"])]);
    take(&ledger, &late).unwrap();
    for batch in [&canary, &late] {
        take(&straight, batch).unwrap();
    }
    bounds_hold(&ledger, 2);
    let late = ledger.release("digits", "late").unwrap().unwrap();
    assert_eq!(late, straight.release("digits", "late").unwrap().unwrap());
    assert_eq!(late.epochs[0].arms["treatment"].units.units + late.epochs[0].arms["control"].units.units, 70);
    // Of the release that there was, the made up arms, epochs and targets that found a place are apart.
    let (with, without) = (known(&ledger), known(&straight));
    let of = |known: &ReleaseObservations| {
        let named = |name: &str| !name.starts_with("made up");
        let series = known
            .series
            .iter()
            .filter(|of| named(&of.series.target) && named(&of.series.arm) && of.series.epoch == 1);
        series.map(|of| (of.series.clone(), of.statistics.clone())).collect::<Vec<_>>()
    };
    assert_eq!(of(&with), of(&without));
    // What has a place keeps it.
    take(&ledger, &batch(2, 1, vec![made_up(0)])).unwrap();
    let first = ledger.release("made up 0", "canary").unwrap().unwrap();
    assert_eq!(first.series[0].statistics["latency"].moments.n, 2);
}
