//! Outcomes on a real file: taken once, and added up alike in whatever order they come.

use super::*;
use halftone_judge::stats::{Mean, Proportion};
use halftone_tests::observed::{Request, batch, series};
use proptest::prelude::*;
use std::collections::BTreeSet;

const LIMITS: Limits = Limits { keep_days: 30, max_units: 100_000, keep_traces: 1_000 };

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn open(folder: &tempfile::TempDir) -> Ledger {
    Ledger::open(&folder.path().join("ledger.db"), LIMITS, Arc::default()).unwrap()
}

fn take(ledger: &Ledger, outcomes: &[Outcome]) -> Vec<Result<Taken, LedgerError>> {
    let outcomes = outcomes.iter().cloned().map(Ok).collect();
    wait(ledger.take_outcomes(outcomes).unwrap()).unwrap()
}

fn outcome(key: impl ToString + Copy, unit: u64, time_ms: u64, value: f64) -> Outcome {
    Outcome {
        key: key.to_string(),
        ruleset: "digits".to_owned(),
        release: "canary".to_owned(),
        metric: "click".to_owned(),
        unit,
        value,
        time_ms: Some(time_ms),
    }
}

/// Exposures: unit, epoch, arm, time.
type Exposed = (u64, u64, &'static str, u64);

fn expose(ledger: &Ledger, source: u8, sequence: u64, (unit, epoch, arm, time_ms): Exposed) {
    let request = Request { unit, time_ms, latency: Some(0.1) };
    wait(ledger.report(batch(source, sequence, vec![series(epoch, arm, &[request])])).unwrap()).unwrap();
}

fn query(window_ms: Option<u64>, aggregate: Aggregate, missing: Missing, now_ms: u64) -> OutcomeQuery {
    OutcomeQuery {
        metric: "click".to_owned(),
        window: window_ms.map(Duration::from_millis),
        aggregate,
        missing,
        analysed_arms: ["control", "treatment"].map(str::to_owned).into(),
        now_ms,
        cap: None,
    }
}

fn queries(start: u64) -> Vec<OutcomeQuery> {
    let mut all = Vec::new();
    for window in [None, Some(0), Some(300), Some(1_000)] {
        for aggregate in [Aggregate::First, Aggregate::Any, Aggregate::Sum] {
            for missing in [Missing::Zero, Missing::LeaveOut] {
                all.push(query(window, aggregate, missing, start + 1_200));
            }
        }
    }
    let capped = OutcomeQuery { cap: Some(1.0), ..all[5].clone() };
    all.push(capped);
    all
}

type Sums = BTreeMap<(u64, String), ArmOutcomes>;

fn known(ledger: &Ledger, start: u64) -> Vec<Sums> {
    queries(start).iter().map(|query| ledger.outcomes("digits", "canary", query).unwrap()).collect()
}

/// The same, as the documentation says it.
fn by_the_book(exposed: &[Exposed], outcomes: &[Outcome], query: &OutcomeQuery) -> Sums {
    let mut sums = Sums::new();
    let units: BTreeSet<u64> = exposed.iter().map(|exposed| exposed.0).collect();
    for unit in units {
        let of_unit: Vec<_> = exposed.iter().filter(|exposed| exposed.0 == unit).collect();
        let analysed = of_unit.iter().filter(|(_, _, arm, _)| query.analysed_arms.contains(*arm));
        let Some((_, epoch, arm, begun)) = analysed.min_by_key(|(_, epoch, arm, time)| (*time, *epoch, *arm))
        else {
            continue;
        };
        if of_unit.iter().any(|(_, other, in_arm, _)| other == epoch && in_arm != arm) {
            continue;
        }
        let sums = sums.entry((*epoch, (*arm).to_owned())).or_default();
        let end =
            query.window.map_or(query.now_ms, |window| begun + u64::try_from(window.as_millis()).unwrap());
        if end > query.now_ms {
            sums.open += 1;
            continue;
        }
        let mut of_unit: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.unit == unit && outcome.metric == query.metric)
            .map(|outcome| (outcome.time_ms.unwrap(), &outcome.key, outcome.value))
            .filter(|(time, ..)| (*begun..=end).contains(time))
            .collect();
        of_unit.sort_by_key(|(time, key, _)| (*time, xxhash_rust::xxh3::xxh3_64(key.as_bytes())));
        let values = of_unit.iter().map(|(.., value)| *value);
        let value = match query.aggregate {
            Aggregate::First => values.clone().next(),
            Aggregate::Any => values.clone().max_by(f64::total_cmp),
            Aggregate::Sum => values.clone().reduce(|sum, value| sum + value),
        };
        sums.absent += u64::from(value.is_none());
        let value = if query.missing == Missing::Zero { Some(value.unwrap_or(0.0)) } else { value };
        let Some(value) = value.map(|value| query.cap.map_or(value, |cap| cap.min(value))) else { continue };
        sums.values.push(value);
        sums.events = sums
            .events
            .filter(|_| [0.0, 1.0].contains(&value))
            .map(|Proportion { n, k }| Proportion { n: n + 1, k: k + u64::from(value == 1.0) });
    }
    sums.retain(|_, sums| *sums != ArmOutcomes::default());
    sums
}

fn exposures() -> impl Strategy<Value = Vec<(u64, u64, usize, u64)>> {
    prop::collection::vec((unit(), 1u64..4, 0usize..3, 0u64..900), 0..25)
}

/// Few, and some of them beside each other in one list.
fn unit() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..8, Just(u64::MAX), (1u64..6).prop_map(|i| i << 60)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn outcomes_add_up_alike_in_any_order_and_repetition(
        exposed in exposures(),
        happened in prop::collection::vec((unit(), 0u64..1_800, prop_oneof![Just(0.0), Just(1.0), -3.0..3.0f64]), 0..40),
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let start = now_ms() - 100_000;
        let arms = ["control", "treatment", "rest"];
        let exposed: Vec<Exposed> =
            exposed.into_iter().map(|(unit, epoch, arm, time)| (unit, epoch, arms[arm], start + time)).collect();
        let outcomes: Vec<_> =
            happened.into_iter().enumerate().map(|(key, (unit, time, value))| outcome(key, unit, start + time, value)).collect();
        // One after the other, in one go.
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let straight = open(&one);
        for (sequence, exposed) in (1..).zip(&exposed) {
            expose(&straight, 0, sequence, *exposed);
        }
        prop_assert!(take(&straight, &outcomes).iter().all(|taken| matches!(taken, Ok(Taken::New(_)))));
        // Shuffled, by two senders who both send everything, with a restart in between.
        let mut ledger = open(&other);
        let mut events: Vec<(bool, usize)> = (0..exposed.len()).map(|index| (true, index)).collect();
        events.extend((0..2 * outcomes.len()).map(|index| (false, index / 2)));
        let rank = |event: usize| xxhash_rust::xxh3::xxh3_64_with_seed(&event.to_le_bytes(), seed);
        let mut ranked: Vec<_> = (0..events.len()).collect();
        ranked.sort_by_key(|event| rank(*event));
        let restart = order.index(events.len().max(1));
        for (turn, event) in ranked.into_iter().enumerate() {
            if turn == restart {
                drop(ledger);
                ledger = open(&other);
            }
            let (is_exposure, index) = events[event];
            if is_exposure {
                expose(&ledger, u8::try_from(index).unwrap(), 1, exposed[index]);
            } else {
                prop_assert!(take(&ledger, &outcomes[index..=index])[0].is_ok());
            }
        }
        let expected: Vec<_> = queries(start).iter().map(|query| by_the_book(&exposed, &outcomes, query)).collect();
        prop_assert_eq!(&known(&straight, start), &expected, "to the last bit");
        prop_assert_eq!(&known(&ledger, start), &expected);
        let counts = |ledger: &Ledger| ledger.release("digits", "canary").unwrap().unwrap_or_default().outcomes;
        prop_assert_eq!(counts(&straight), counts(&ledger));
        drop(ledger);
        prop_assert_eq!(&known(&open(&other), start), &expected, "and after a restart");
    }
}

fn kept(taken: &Result<Taken, LedgerError>) -> &KeptOutcome {
    match taken.as_ref().unwrap() {
        Taken::New(kept) | Taken::Repeated(kept) | Taken::Conflict(kept) => kept,
    }
}

#[test]
fn outcomes_of_one_key_give_the_first_again() {
    let folder = tempfile::tempdir().unwrap();
    let now = now_ms();
    let first = outcome("a", 7, now, 1.0);
    let untimed = Outcome { time_ms: None, ..outcome("b", 7, now, 1.0) };
    let taken = {
        let ledger = open(&folder);
        take(&ledger, &[first.clone(), untimed.clone()])
    };
    let (a, b) = (kept(&taken[0]), kept(&taken[1]));
    assert!(a.record < b.record && a.processed_at_ms >= now && b.time_ms == b.processed_at_ms, "{taken:?}");
    let ledger = open(&folder);
    let again = take(&ledger, &[first.clone(), untimed.clone(), Outcome { time_ms: None, ..first.clone() }]);
    for (again, first) in again.iter().zip([a, b, a]) {
        assert_eq!(again.as_ref().unwrap(), &Taken::Repeated(first.clone()));
    }
    let others = [
        Outcome { value: 0.0, ..first.clone() },
        Outcome { unit: 8, ..first.clone() },
        Outcome { metric: "label".to_owned(), ..first.clone() },
        Outcome { time_ms: Some(now - 1), ..first.clone() },
    ];
    for other in take(&ledger, &others) {
        assert_eq!(other.unwrap(), Taken::Conflict(a.clone()));
    }
    // Another release has keys of its own.
    let elsewhere = Outcome { release: "other".to_owned(), ..first.clone() };
    assert!(matches!(take(&ledger, &[elsewhere])[0], Ok(Taken::New(_))));
    // Twice at once.
    let two = take(&ledger, &[outcome("c", 1, now, 1.0), outcome("c", 1, now, 1.0)]);
    assert!(matches!((&two[0], &two[1]), (Ok(Taken::New(one)), Ok(Taken::Repeated(other))) if one == other));
    let counts = &ledger.release("digits", "canary").unwrap().unwrap().outcomes["click"];
    assert_eq!(counts, &OutcomeCounts { outcomes: 3, units: 2 });
}

#[test]
fn outcomes_that_cannot_be_are_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let (now, day) = (now_ms(), 24 * 3_600_000);
    let sound = outcome("a", 1, now, 1.0);
    let refused = [
        (Outcome { key: String::new(), ..sound.clone() }, "`id` has 0 bytes"),
        (Outcome { key: "x".repeat(129), ..sound.clone() }, "`id` has 129 bytes"),
        (Outcome { key: "a\nb".to_owned(), ..sound.clone() }, "no control characters"),
        (Outcome { ruleset: String::new(), ..sound.clone() }, "`ruleset` is missing"),
        (Outcome { release: "x".repeat(513), ..sound.clone() }, "`release` has 513 bytes"),
        (Outcome { metric: "a\0".to_owned(), ..sound.clone() }, "`metric` has a control character"),
        (Outcome { value: f64::NAN, ..sound.clone() }, "`value` is NaN"),
        (Outcome { value: -1e101, ..sound.clone() }, "from -1e100 to 1e100"),
        (Outcome { time_ms: Some(now + 3_600_000), ..sound.clone() }, "s in the future"),
        (Outcome { time_ms: Some(u64::MAX), ..sound.clone() }, "s in the future"),
        (Outcome { time_ms: Some(now - 31 * day), ..sound.clone() }, "--keep-observations"),
    ];
    for (outcome, say) in &refused {
        let results = take(&ledger, std::slice::from_ref(outcome));
        let error = results[0].as_ref().unwrap_err();
        assert!(
            matches!(error, LedgerError::Refused(_)) && error.to_string().contains(say),
            "{say}: {error}"
        );
    }
    assert_eq!(ledger.release("digits", "canary").unwrap(), None, "nothing has changed");
    let mixed = take(&ledger, &[refused[0].0.clone(), sound, refused[1].0.clone()]);
    assert!(mixed[0].is_err() && mixed[1].is_ok() && mixed[2].is_err());
    // More metrics than there may be.
    let metric = |index: usize| Outcome { metric: index.to_string(), ..outcome(index, 1, now, 1.0) };
    let results = take(&ledger, &(0..256).map(metric).collect::<Vec<_>>());
    let refused = results.iter().filter_map(|result| result.as_ref().err()).collect::<Vec<_>>();
    assert!(matches!(refused[..], [LedgerError::Refused(_)]), "{refused:?}");
    assert!(matches!(take(&ledger, &[metric(3)])[0], Ok(Taken::Repeated(_))));
}

#[test]
fn outcomes_need_room_and_repetitions_none() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_units: 3, ..LIMITS };
    let ledger = Ledger::open(&folder.path().join("ledger.db"), limits, Arc::default()).unwrap();
    let now = now_ms();
    expose(&ledger, 0, 1, (1, 1, "control", now));
    let all: Vec<_> = (0..3).map(|key| outcome(key, 1, now, 1.0)).collect();
    let taken = take(&ledger, &all);
    assert!(taken[0].is_ok() && taken[1].is_ok());
    assert!(matches!(taken[2], Err(LedgerError::Full(3))), "{taken:?}");
    let again = take(&ledger, &all);
    assert!(matches!(again[..], [Ok(Taken::Repeated(_)), Ok(Taken::Repeated(_)), Err(LedgerError::Full(3))]));
    let unknown = Outcome { release: "other".to_owned(), ..all[0].clone() };
    assert!(matches!(take(&ledger, &[unknown])[0], Err(LedgerError::Full(3))));
    assert_eq!(ledger.release("digits", "other").unwrap(), None);
}

#[test]
fn outcomes_go_with_their_release_and_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let now = now_ms();
    {
        let ledger = open(&folder);
        expose(&ledger, 0, 1, (1, 1, "control", now));
        take(&ledger, &[outcome("a", 1, now, 1.0)]);
        // Nothing else is known of this one.
        take(&ledger, &[Outcome { release: "early".to_owned(), ..outcome("a", 1, now, 1.0) }]);
    }
    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.retain(0, now - 1_000).unwrap(), Vec::<ReleaseId>::new());
    assert!(open(&folder).release("digits", "early").unwrap().is_some());
    assert_eq!(database.retain(0, now + 3_600_000).unwrap().len(), 2);
    let left: i64 = database.0.query_row("SELECT count(*) FROM outcomes", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    assert_eq!(open(&folder).release("digits", "canary").unwrap(), None);
}

#[test]
fn outcomes_count_when_their_window_is_over_and_late_ones_correct() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder);
    let start = now_ms() - 10_000;
    for (source, unit, arm, time) in
        [(0, 1, "control", 0), (1, 2, "treatment", 100), (2, 3, "rest", 0), (3, 3, "treatment", 500)]
    {
        // The third was in an arm that does not count first, in an epoch of its own.
        let epoch = if arm == "rest" { 1 } else { 2 };
        expose(&ledger, source, 1, (unit, epoch, arm, start + time));
    }
    let clicks = [(1, 0), (1, 1_000), (2, 99), (2, 1_101), (3, 499)];
    let clicks: Vec<_> =
        (0..).zip(clicks).map(|(key, (unit, time))| outcome(key, unit, start + time, 1.0)).collect();
    take(&ledger, &clicks);
    let at = |ms| {
        let query = query(Some(1_000), Aggregate::Sum, Missing::Zero, start + ms);
        ledger.outcomes("digits", "canary", &query).unwrap()
    };
    let arm = |sums: &Sums, arm: &str| sums.get(&(2, arm.to_owned())).copied().unwrap_or_default();
    assert_eq!(arm(&at(999), "control").open, 1);
    let control = arm(&at(1_000), "control");
    assert_eq!((control.open, control.absent, control.values.mean, control.events), (0, 0, 2.0, None));
    // One click came before the exposure, the other after the window.
    let treatment = arm(&at(1_100), "treatment");
    assert_eq!((treatment.open, treatment.absent, treatment.events), (1, 1, Some(Proportion { n: 1, k: 0 })));
    let treatment = arm(&at(1_500), "treatment");
    assert_eq!((treatment.open, treatment.absent, treatment.events), (0, 2, Some(Proportion { n: 2, k: 0 })));
    // A late delivery of something in the window counts, whenever it comes; one of something after it never does.
    take(&ledger, &[outcome("late", 2, start + 1_100, 1.0), outcome("after", 3, start + 1_501, 1.0)]);
    let treatment = arm(&at(1_500), "treatment");
    assert_eq!((treatment.absent, treatment.events), (1, Some(Proportion { n: 2, k: 1 })));
    // Seen in another arm of the epoch, the unit is dropped.
    expose(&ledger, 4, 1, (2, 2, "control", start + 5_000));
    assert_eq!(arm(&at(1_500), "treatment").events, Some(Proportion { n: 1, k: 0 }));
    assert_eq!(arm(&at(1_500), "control").values.n, 1);
    let none = OutcomeQuery {
        metric: "other".to_owned(),
        ..query(None, Aggregate::First, Missing::LeaveOut, start)
    };
    let sums = ledger.outcomes("digits", "canary", &none).unwrap();
    assert_eq!(
        arm(&sums, "control"),
        ArmOutcomes { values: Mean::default(), absent: 1, ..ArmOutcomes::default() }
    );
    assert_eq!(ledger.outcomes("digits", "other", &none).unwrap(), Sums::new());
}

#[test]
fn outcomes_have_a_place_in_a_file_of_the_build_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let now = now_ms();
    expose(&open(&folder), 0, 1, (1, 1, "control", now));
    // As it was before.
    let former = connection(&path).unwrap();
    former
        .execute_batch(
            "DROP INDEX series_unpublished; ALTER TABLE series DROP COLUMN published;
             DROP TABLE outcomes; DROP TABLE outcome_metrics; DROP TABLE workers;
             ALTER TABLE releases DROP COLUMN outcome_ms;
             DROP TABLE traced; ALTER TABLE sources DROP COLUMN omitted_traced; PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(former);
    let ledger = open(&folder);
    assert!(take(&ledger, &[outcome("a", 1, now, 1.0)])[0].is_ok());
    let known = ledger.release("digits", "canary").unwrap().unwrap();
    assert_eq!((known.epochs[0].arms["control"].units.units, known.outcomes["click"].outcomes), (1, 1));
}
