use super::*;
use crate::observations::spool::Spool;
use proptest::{collection::vec, prelude::*};

const SOURCE: [u8; 16] = [7; 16];

/// Something that happened.
#[derive(Clone, Debug)]
pub(in crate::observations) enum Event {
    Seen { series: u8, unit: u64, time_ms: u64, outcome: u32, latency: Option<f64> },
    Bad { series: u8, unit: u64, time_ms: u64 },
    Value { series: u8, unit: Option<u64>, value: f64 },
    Omitted,
}

fn events() -> impl Strategy<Value = Event> {
    // Few of each, so that they meet.
    let (series, unit, time) = (0..3_u8, (0..8_u64).prop_map(|unit| unit << 52), 1..5_u64);
    let latency = prop_oneof![Just(None), (0.001..2.0).prop_map(Some)];
    let value =
        prop_oneof![4 => -1e3..1e3_f64, 1 => Just(f64::NAN), 1 => Just(0.0), 1 => Just(f64::INFINITY)];
    prop_oneof![
        (series.clone(), unit.clone(), time.clone(), 0..4_u32, latency).prop_map(
            |(series, unit, time_ms, outcome, latency)| Event::Seen {
                series,
                unit,
                time_ms,
                outcome,
                latency
            }
        ),
        (series.clone(), unit.clone(), time).prop_map(|(series, unit, time_ms)| Event::Bad {
            series,
            unit,
            time_ms
        }),
        (series, proptest::option::of(unit), value).prop_map(|(series, unit, value)| Event::Value {
            series,
            unit,
            value
        }),
        Just(Event::Omitted),
    ]
}

pub(in crate::observations) fn series(number: u8) -> Series {
    Series { release: format!("r{number}"), epoch: number.into(), ..Series::default() }
}

pub(in crate::observations) fn batch(events: &[Event]) -> Batch {
    let mut batch = Batch::default();
    for event in events {
        (batch.begun_ms, batch.ended_ms) = (1, 2);
        let (Event::Seen { series: number, .. }
        | Event::Bad { series: number, .. }
        | Event::Value { series: number, .. }) = *event
        else {
            batch.omitted.requests += 1;
            continue;
        };
        let observations = batch.series.entry(series(number)).or_default();
        match *event {
            Event::Seen { unit, time_ms, outcome, latency, .. } => {
                observations.expose(unit, Sightings::of(Sighting { time_ms, outcome, latency }));
            }
            Event::Bad { unit, time_ms, .. } => observations.bad("nan".into(), unit, time_ms),
            Event::Value { unit, value, .. } => observations.push("latency".into(), &[value], unit),
            Event::Omitted => {}
        }
    }
    batch
}

/// The same, but for the last digits of means.
#[track_caller]
fn assert_same(a: &Batch, b: &Batch) {
    let exact = |batch: &Batch| {
        let mut batch = batch.clone();
        batch.series.values_mut().flat_map(|series| series.statistics.values_mut()).for_each(|statistics| {
            (statistics.mean.mean, statistics.mean.m2) = (0.0, 0.0);
            let sums = statistics.units.iter_mut().flat_map(|units| &mut units.sums);
            sums.for_each(|(numerator, _)| *numerator = 0.0);
        });
        batch
    };
    assert_eq!(exact(a), exact(b));
    let inexact = |batch: &Batch| -> Vec<f64> {
        let statistics = batch.series.values().flat_map(|series| series.statistics.values());
        statistics
            .flat_map(|statistics| {
                let sums =
                    statistics.units.iter().flat_map(|units| &units.sums).map(|(numerator, _)| *numerator);
                [statistics.mean.mean, statistics.mean.m2].into_iter().chain(sums).collect::<Vec<_>>()
            })
            .collect()
    };
    for (a, b) in inexact(a).into_iter().zip(inexact(b)) {
        assert!((a - b).abs() <= 1e-9 * a.abs().max(1e6), "{a} {b}");
    }
}

proptest! {
    /// However what happened is cut into batches, in whatever order they are merged, with sets that come twice.
    #[test]
    fn merging_is_independent_of_order(
        events in vec(events(), 0..60),
        cuts in vec(0..60_usize, 0..5),
        order in any::<u64>(),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(events.len())).collect();
        cuts.extend([0, events.len()]);
        cuts.sort_unstable();
        let mut parts: Vec<Batch> = cuts.windows(2).map(|cut| batch(&events[cut[0]..cut[1]])).collect();
        let whole = batch(&events);
        for turn in 0..parts.len() {
            let other = usize::try_from(order >> turn).unwrap_or(0) % parts.len();
            parts.swap(turn, other);
        }
        let mut merged = Batch::default();
        for part in parts {
            // Sets that come again change nothing.
            let sets = part.clone();
            merged.merge(part).unwrap();
            for (series, observations) in sets.series {
                let again = Observations { statistics: BTreeMap::new(), ..observations };
                merged.series.entry(series).or_default().merge(again).unwrap();
            }
        }
        assert_same(&merged, &whole);
    }

    #[test]
    fn what_is_sent_is_what_was_there(events in vec(events(), 0..60)) {
        let batch = batch(&events);
        let message = batch.encode(SOURCE, 5);
        prop_assert_eq!((message.source.as_slice(), message.sequence), (&SOURCE[..], 5));
        prop_assert_eq!(Batch::decode(&message).unwrap(), batch);
    }
}

proptest! {
    // Each writes tens of files to a disk.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the spool has to merge, what it had is there: by count, and by unit.
    #[test]
    fn the_spool_loses_nothing_by_merging(parts in vec(vec(events(), 1..20), 20..40)) {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 64 << 10).unwrap();
        let mut whole = Batch::default();
        for part in &parts {
            let part = batch(part);
            spool.add(&part).unwrap();
            spool.shrink().unwrap();
            whole.merge(part).unwrap();
        }
        // As after a crash.
        drop(spool);
        let mut spool = Spool::open(folder.path(), 64 << 10).unwrap();
        prop_assert!(spool.bytes() <= 64 << 10 && spool.len() < parts.len());
        let (mut sent, mut last) = (Batch::default(), 0);
        while let Some(message) = spool.oldest().unwrap() {
            prop_assert!(message.sequence > last);
            last = message.sequence;
            sent.merge(Batch::decode(&message).unwrap()).unwrap();
            spool.remove(&message.source, message.sequence);
        }
        assert_same(&sent, &whole);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let good = batch(&[Event::Value { series: 1, unit: Some(1), value: 2.0 }]).encode(SOURCE, 1);
    let refused = |change: fn(&mut halftone_proto::v1::Statistics)| {
        let mut message = good.clone();
        change(&mut message.series[0].statistics[0]);
        Batch::decode(&message).unwrap_err()
    };
    assert_eq!(refused(|s| s.units.as_mut().unwrap().buckets[0] = 1024), "there is no bucket 1024 of units");
    assert!(refused(|s| s.units.as_mut().unwrap().numerators.clear()).contains("more buckets than sums"));
    assert!(refused(|s| s.histogram.as_mut().unwrap().counts.clear()).contains("more buckets than counts"));
    assert!(refused(|s| s.histogram = None).contains("grid"));
    assert!(refused(|s| s.moments.as_mut().unwrap().m2 = -1.0).contains("negative"));
}
