use super::*;
use crate::{
    checks::{Checks, ChecksConfig, Findings},
    signature::Signature,
};
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{EvaluationContext, Omitted, Participation};
use halftone_telemetry::{
    context::{RequestContext, Served},
    outcome::Outcome,
};
use prost::Message;
use std::sync::Arc;

fn record(context: &EvaluationContext, end: End) -> Record {
    traced(context, end, None)
}

fn traced(context: &EvaluationContext, end: End, traceparent: Option<&str>) -> Record {
    let header = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(context.encode_to_vec())).unwrap();
    let mut headers = HeaderMap::from_iter([("x-halftone-context".parse().unwrap(), header)]);
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent.parse().unwrap());
    }
    let context = Arc::new(RequestContext::read(&headers));
    context.serve(Served { model: "m".into(), version: "1".into(), hardware: "cpu" });
    context.begin_inference().end(Outcome::Ok);
    let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let checks = Arc::new(Checks::new(&ChecksConfig::default(), &signature).unwrap());
    Record { context, begun_ms: 1, answer: None, checks, end, findings: Findings::default() }
}

fn decided(unit_hash: u64, time: u64) -> EvaluationContext {
    EvaluationContext {
        timestamp_ms: time,
        ruleset: "r".into(),
        rule: "trial".into(),
        arm: "a".into(),
        unit_hash,
        ..EvaluationContext::default()
    }
}

#[test]
fn a_unit_is_reported_once_and_again_when_it_is_first_answered() {
    let (mut aggregator, now) = (Aggregator::default(), now_ms());
    let exposures = |aggregator: &Aggregator| -> Vec<(u64, u32, bool)> {
        let series = aggregator.batch().series.values();
        let sightings =
            series.flat_map(|observations| observations.exposures.values().flat_map(|s| s.each()));
        sightings.map(|s| (s.time_ms - now, s.outcome, s.latency.is_some())).collect()
    };
    for (time, end, expected) in [
        (1, End::Failed, vec![(1, outcome::ERROR, false)]),
        // Nothing new.
        (2, End::Failed, vec![]),
        (3, End::Refused, vec![]),
        // Its first latency.
        (4, End::Answered, vec![(4, 0, true)]),
        (5, End::Answered, vec![]),
        (6, End::Failed, vec![]),
    ] {
        aggregator.take(&record(&decided(5, now + time), end));
        assert_eq!(exposures(&aggregator), expected, "{time}");
        let bad: usize = aggregator.batch().series.values().map(|o| o.bad_events.len()).sum();
        assert_eq!(bad, usize::from(time == 1), "{time}");
        aggregator.begin();
    }
    aggregator.forget();
    aggregator.take(&record(&decided(5, now + 7), End::Answered));
    assert_eq!(exposures(&aggregator), [(7, 0, true)]);
    // In one batch both are told.
    aggregator.begin();
    aggregator.take(&record(&decided(6, now + 1), End::Failed));
    aggregator.take(&record(&decided(6, now + 2), End::Answered));
    assert_eq!(exposures(&aggregator), [(1, outcome::ERROR, false), (2, 0, true)]);
}

#[test]
fn its_memory_is_bounded_and_it_says_what_it_left_out() {
    let (mut aggregator, now) = (Aggregator::default(), now_ms());
    for revision in 0..200 {
        let context = EvaluationContext { revision, ..decided(1, now) };
        aggregator.take(&record(&context, End::Answered));
    }
    assert_eq!(aggregator.batch().series.len(), MOST_SERIES);
    assert_eq!(aggregator.batch().omitted, Omitted { requests: 72, ..Omitted::default() });

    aggregator.begin();
    aggregator.forget();
    let units = u64::try_from(MOST_UNITS).unwrap() + 10;
    for unit in 1..=units {
        aggregator.take(&record(&decided(unit, now), End::Answered));
        assert_eq!(aggregator.is_full(), unit >= 1 << 14);
    }
    assert_eq!(aggregator.batch().units(), MOST_UNITS);
    assert_eq!(aggregator.batch().omitted, Omitted { units: 10, ..Omitted::default() });
    // Who was left out is reported when it comes again.
    aggregator.begin();
    aggregator.take(&record(&decided(units, now), End::Answered));
    assert_eq!(aggregator.batch().units(), 1);
}

#[test]
fn one_wrong_clock_of_a_proxy_costs_no_batch() {
    let (mut aggregator, now) = (Aggregator::default(), now_ms());
    let minutes = |count: u64| count * 60 * 1000;
    let exposed = |aggregator: &Aggregator| -> Vec<u64> {
        let series = aggregator.batch().series.values();
        series.flat_map(|observations| observations.exposures.keys().copied()).collect()
    };
    aggregator.take(&record(&decided(1, now), End::Answered));
    let (begun, ended) = (aggregator.batch().begun_ms, aggregator.batch().ended_ms);
    for (unit, time, end) in [
        // Within what is tolerated.
        (2, begun - minutes(10), End::Failed),
        (3, ended + minutes(10), End::Answered),
        (6, begun - minutes(10) - 1, End::Answered),
        // Not any more: among them an exposure with its bad event, twice.
        (4, now - minutes(60), End::Answered),
        (5, now + minutes(60), End::Failed),
        (5, now + minutes(60), End::Failed),
    ] {
        aggregator.take(&record(&decided(unit, time), end));
    }
    assert_eq!(exposed(&aggregator), [1, 2, 3]);
    let batch = aggregator.batch();
    let bad: usize = batch.series.values().map(|observations| observations.bad_events.len()).sum();
    assert_eq!((bad, batch.omitted), (1, Omitted { units: 6, ..Omitted::default() }));
    // What is no matter of time is counted of all.
    let errors: u64 = batch.series.values().map(|observations| observations.statistics["error"].mean.n).sum();
    assert_eq!(errors, 7);
    // Once its clock is right, the unit is news.
    aggregator.take(&record(&decided(5, now), End::Answered));
    assert_eq!(exposed(&aggregator), [1, 2, 3, 5]);
}

#[test]
fn the_epoch_is_the_releases_or_else_the_revision() {
    let mut aggregator = Aggregator::default();
    for (epoch, revision) in [(0, 7), (9, 7), (9, 8)] {
        let context = EvaluationContext { epoch, revision, ..decided(1, now_ms()) };
        aggregator.take(&record(&context, End::Answered));
    }
    let epochs: Vec<u64> = aggregator.batch().series.keys().map(|series| series.epoch).collect();
    assert_eq!(epochs, [7, 9]);
}

#[test]
fn requests_of_sampled_traces_are_told_one_by_one_as_many_as_there_is_room_for() {
    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let unsampled = SAMPLED.replace("-01", "-00");
    let (mut aggregator, decided) = (Aggregator::default(), decided(5, now_ms()));
    aggregator.take(&traced(&decided, End::Answered, Some(&unsampled)));
    aggregator.take(&record(&decided, End::Answered));
    assert_eq!(aggregator.batch().traced, []);
    // Not analysed, and no answer: whoever asks after the trace is told all the same.
    let held_out = EvaluationContext { held_out: true, ..decided.clone() };
    aggregator.take(&traced(&held_out, End::Answered, Some(SAMPLED)));
    aggregator.take(&traced(&decided, End::Left, Some(SAMPLED)));
    let told = &aggregator.batch().traced;
    assert_eq!((told.len(), told[0].evaluation.as_ref(), told[1].answer), (2, Some(&held_out), None));
    assert_eq!((&told[0].trace_id[..2], &told[0].parent_id[..2]), (&[0x0a, 0xf7][..], &[0xb7, 0xad][..]));
    let requests: u64 = aggregator.batch().series.values().map(|of| of.statistics["error"].mean.n).sum();
    assert_eq!(requests, 2, "who left is no observation");
    aggregator.begin();
    assert!(aggregator.batch().is_empty());

    let most = u64::try_from(MOST_TRACED).unwrap();
    for _ in 0..most + 10 {
        aggregator.take(&traced(&held_out, End::Answered, Some(SAMPLED)));
    }
    assert_eq!(aggregator.batch().traced.len(), MOST_TRACED);
    assert_eq!(aggregator.batch().omitted, Omitted { traced: 10, ..Omitted::default() });
    assert!(aggregator.batch().begun_ms > 0);
    aggregator.begin();
    // Those of many experiments with long names, too.
    let part = Participation { experiment: "e".repeat(140), arm: "a".repeat(140) };
    let huge = EvaluationContext { held_out: true, experiments: vec![part; 16], ..decided };
    for _ in 0..100 {
        aggregator.take(&traced(&huge, End::Answered, Some(SAMPLED)));
    }
    let (kept, left_out) = (aggregator.batch().traced.len(), aggregator.batch().omitted.traced);
    assert!(kept * 16 * 280 <= MOST_TRACED_BYTES && left_out > 0, "{kept}");
    assert_eq!(u64::try_from(kept).unwrap() + left_out, 100);
}
