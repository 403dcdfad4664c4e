//! However observations come, the verdict is the same, byte for byte.

use super::{
    allocation::{allocation, epoch_of},
    history::History,
    prometheus::Readings,
    read,
    safety::Seen,
    shares::Shares,
    snapshot::{Knowledge, outcomes},
    spec::Spec,
    status::Status,
    tick::{Moment, tick},
};
use crate::ledger::{Ledger, Limits, Outcome};
use halftone_proto::v1::ObservationBatch;
use halftone_tests::observed::{Request, batch, now_ms, series};
use std::{path::Path, sync::Arc};

const EPOCH: u64 = 7;
const TEXT: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n\
    steps: [{share: 0.4, hold: {for: 0s, units: 10}}]\n\
    metrics:\n  error: {role: guardrail, kind: event}\n  latency: {role: guardrail, kind: latency}\n\
    \x20 correct: {role: goal, kind: proportion, mde: {absolute: 0.1}}\n\
    policy: {cycle_s: 1, look_every_s: 1}\n";

fn limits() -> Limits {
    Limits { keep_days: 30, max_units: 100_000, keep_traces: 1_000 }
}

/// What two replicas of a backend report, in the order in which each of them does: some units come to both.
fn batches(now: u64) -> [Vec<ObservationBatch>; 2] {
    [0u8, 1].map(|source| {
        (0..6u64)
            .map(|index| {
                let arms = ["v2", "control", "rest"].map(|arm| {
                    let first = u64::from(source) * 40 + index * 30 + 10_000 * u64::from(arm.as_bytes()[0]);
                    let request = |unit: u64| Request {
                        unit: unit.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                        time_ms: now - 60_000 + 1_000 * index + unit % 97,
                        latency: (!unit.is_multiple_of(11)).then(|| 0.01 + (unit % 13) as f64 / 1e3),
                    };
                    series(EPOCH, arm, &(first..first + 60).map(request).collect::<Vec<_>>())
                });
                ObservationBatch {
                    begun_ms: now - 61_000 + 1_000 * index,
                    ended_ms: now - 59_000 + 1_000 * index,
                    ..batch(source, index + 1, arms.to_vec())
                }
            })
            .collect()
    })
}

fn labels(now: u64) -> Vec<Outcome> {
    ["v2", "control"]
        .into_iter()
        .flat_map(|arm| (0..120u64).map(move |unit| 10_000 * u64::from(arm.as_bytes()[0]) + unit))
        .map(|unit| Outcome {
            key: unit.to_string(),
            ruleset: "digits".to_owned(),
            release: "canary".to_owned(),
            metric: "correct".to_owned(),
            unit: unit.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            value: f64::from(u8::from(unit.is_multiple_of(3))),
            time_ms: Some(now - 10_000 + unit % 50),
        })
        .collect()
}

/// The bytes of what the release is and decided, on what the ledger knows at a moment.
fn verdict(ledger: &Ledger, spec: &Spec, now_ms: u64) -> Vec<u8> {
    let mut status = Status::new(spec, now_ms - 120_000);
    status.start(now_ms - 100_000);
    let actual = allocation(spec, &status, Shares::of_step(spec, 0), EPOCH);
    status.epochs.push(epoch_of(&actual, 1.0, now_ms - 100_000));
    let mut history = History::default();
    history.push(now_ms, Arc::new(ledger.release("digits", "canary").unwrap().unwrap()));
    let outcomes = outcomes(ledger, spec, now_ms).unwrap();
    let moment = Moment {
        known: Knowledge { history: &history, outcomes: &outcomes, prometheus: &Readings::default(), now_ms },
        actual: Some(&actual),
        seen: Seen { applied_at_ms: Some(0), last_seen_ms: None, proxies: 1, started_ms: 0 },
        started_ms: 0,
        answered: None,
    };
    let (next, decided) = tick(spec, &status, &moment);
    let judged: Vec<_> = decided.into_iter().map(|decided| decided.judged).collect();
    let text = serde_json::to_string(&(next, &judged)).unwrap();
    assert!(judged.iter().flatten().any(|of| of.snapshot.epochs[0].units.treatment > 100), "{text}");
    text.into_bytes()
}

/// Feeds a ledger and opens it again where asked; `order` says whose batch comes next.
async fn feed(
    folder: &Path,
    order: &[usize],
    again: bool,
    reopen_after: usize,
    now: u64,
    spec: &Spec,
) -> Vec<u8> {
    let path = folder.join("ledger.db");
    let mut ledger = Ledger::open(&path, limits(), Arc::default()).unwrap();
    let all = batches(now);
    let mut next = [0; 2];
    for (position, source) in order.iter().enumerate() {
        let batch = &all[*source][next[*source]];
        next[*source] += 1;
        ledger.report(batch.clone()).unwrap().await.unwrap();
        if again {
            ledger.report(batch.clone()).unwrap().await.unwrap();
            ledger.report(all[*source][0].clone()).unwrap().await.unwrap();
        }
        if position == reopen_after {
            drop(ledger);
            ledger = Ledger::open(&path, limits(), Arc::default()).unwrap();
        }
    }
    let mut labels = labels(now);
    if again {
        labels.reverse();
        labels.extend(labels.clone());
    }
    let taken = ledger.take_outcomes(labels.into_iter().map(Ok).collect()).unwrap().await.unwrap();
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    verdict(&ledger, spec, now)
}

#[tokio::test]
async fn twice_late_out_of_order_and_after_restarts_give_the_same_verdict() {
    let spec = read(TEXT, Some("canary")).unwrap();
    let now = now_ms();
    let mut bytes = Vec::new();
    for (order, again, reopen_after) in [
        ([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], false, usize::MAX),
        ([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], false, usize::MAX),
        ([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0], true, usize::MAX),
        ([1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0], true, 5),
        ([0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1], false, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        bytes.push(feed(folder.path(), &order, again, reopen_after, now, &spec).await);
    }
    for other in &bytes[1..] {
        assert!(
            *other == bytes[0],
            "{}\n{}",
            String::from_utf8_lossy(&bytes[0]),
            String::from_utf8_lossy(other)
        );
    }
}
