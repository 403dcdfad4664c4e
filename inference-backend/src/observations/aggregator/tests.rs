use super::{
    super::places::{MOST as MOST_TRACED, MOST_BYTES as MOST_TRACED_BYTES},
    *,
};
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
    let outcome = match end {
        End::Answered => Outcome::Ok,
        End::Refused => Outcome::Rejected,
        End::Failed => Outcome::Error,
        End::Left => Outcome::Cancelled,
    };
    ended(context, (end, outcome), traceparent)
}

fn ended(context: &EvaluationContext, (end, outcome): (End, Outcome), traceparent: Option<&str>) -> Record {
    let header = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(context.encode_to_vec())).unwrap();
    let mut headers = HeaderMap::from_iter([("x-halftone-context".parse().unwrap(), header)]);
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent.parse().unwrap());
    }
    let context = Arc::new(RequestContext::read(&headers));
    context.serve(Served { model: "m".into(), version: "1".into(), hardware: "cpu" });
    context.begin_inference().end(outcome);
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
    let evaluations = [told[0].evaluation.as_ref(), told[1].evaluation.as_ref()];
    assert_eq!((told.len(), evaluations), (2, [Some(&held_out), Some(&decided)]));
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

/// Those whose parents have these ids.
fn sampled(span: u64) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-{span:016x}-01")
}

/// The ids of the parents of those that are told of.
fn spans(aggregator: &Aggregator) -> Vec<u64> {
    let id = |of: &TracedRequest| u64::from_be_bytes(of.parent_id[..].try_into().unwrap());
    let mut spans: Vec<u64> = aggregator.batch().traced.iter().map(id).collect();
    spans.sort_unstable();
    spans
}

/// What was decided for a request of this arm and epoch.
fn of(arm: &str, epoch: u64) -> EvaluationContext {
    EvaluationContext { arm: arm.into(), epoch, ..decided(5, now_ms()) }
}

/// One that takes kilobytes.
fn large(arm: &str, epoch: u64) -> EvaluationContext {
    let part = Participation { experiment: "e".repeat(140), arm: "a".repeat(140) };
    EvaluationContext { experiments: vec![part; 16], ..of(arm, epoch) }
}

#[test]
fn requests_that_people_ask_after_take_the_place_of_ordinary_ones() {
    let most = u64::try_from(MOST_TRACED).unwrap();
    let mut aggregator = Aggregator::default();
    let take = |aggregator: &mut Aggregator, span: u64, context: &EvaluationContext, end| {
        aggregator.take(&ended(context, end, Some(&sampled(span))));
    };
    let (answered, invalid) = ((End::Answered, Outcome::Ok), (End::Refused, Outcome::Invalid));
    // Ordinary ones, in every way to be one, and more than there is room for.
    let ordinary = [
        ("control", 9, answered),
        ("rest", 9, invalid),
        ("v2", 0, answered),
        ("", 0, answered),
        ("", 0, invalid),
    ];
    for span in 1..=most + 10 {
        let (arm, epoch, end) = ordinary[usize::try_from(span).unwrap() % ordinary.len()];
        take(&mut aggregator, span, &of(arm, epoch), end);
    }
    for (span, context, end) in [
        (1_001, of("v2", 9), answered),
        (1_002, of("", 0), (End::Failed, Outcome::Error)),
        (1_003, of("rest", 9), (End::Refused, Outcome::Rejected)),
        (1_004, of("control", 9), (End::Left, Outcome::Cancelled)),
        (1_005, of("v2", 9), (End::Failed, Outcome::Error)),
    ] {
        take(&mut aggregator, span, &context, end);
    }
    let kept = spans(&aggregator);
    assert_eq!(u64::try_from(kept.len()).unwrap(), most);
    assert!(kept.ends_with(&[1_001, 1_002, 1_003, 1_004, 1_005]), "{kept:?}");
    assert_eq!(aggregator.batch().omitted, Omitted { traced: 15, ..Omitted::default() });
    // Those of candidates do not take the place of each other, and whoever comes is counted.
    for span in 2_001..=2_000 + most {
        take(&mut aggregator, span, &of("v2", 9), answered);
    }
    let kept: Vec<u64> = (1_001..=1_005).chain(2_001..=2_000 + most - 5).collect();
    assert_eq!(spans(&aggregator), kept);
    assert_eq!(aggregator.batch().omitted.traced, 10 + most + 5);
    // As many bytes as they need.
    aggregator.begin();
    for span in 1..=most {
        take(&mut aggregator, span, &of("", 0), answered);
    }
    for span in 1_001..=1_100 {
        take(&mut aggregator, span, &large("", 0), (End::Failed, Outcome::Error));
        let bytes: usize = aggregator.batch().traced.iter().map(Message::encoded_len).sum();
        assert!(bytes <= MOST_TRACED_BYTES, "{bytes}");
    }
    let kept = u64::try_from(aggregator.batch().traced.len()).unwrap();
    assert!(spans(&aggregator).contains(&1_050), "a large one takes the place of several");
    assert_eq!(kept + aggregator.batch().omitted.traced, most + 100);
}

/// Whoever sends them, to whichever version, and however many.
#[test]
fn mistakes_of_clients_take_nobodys_place() {
    let most = u64::try_from(MOST_TRACED).unwrap();
    let mut aggregator = Aggregator::default();
    let mut take = |span: u64, context: &EvaluationContext, end| {
        aggregator.take(&ended(context, end, Some(&sampled(span))));
    };
    let (answered, invalid) = ((End::Answered, Outcome::Ok), (End::Refused, Outcome::Invalid));
    let arms = [of("v2", 9), of("control", 9), of("", 0)];
    for span in 1..=2 * most {
        take(span, &arms[usize::try_from(span).unwrap() % arms.len()], invalid);
        if span % 4 == 0 {
            take(10_000 + span, &arms[usize::try_from(span).unwrap() % arms.len()], answered);
        }
    }
    let told = spans(&aggregator);
    assert_eq!(u64::try_from(told.len()).unwrap(), most);
    assert_eq!(told.iter().filter(|span| **span > 10_000).count(), MOST_TRACED / 2, "all that were answered");
    assert_eq!(u64::try_from(told.len()).unwrap() + aggregator.batch().omitted.traced, 2 * most + most / 2);
}

/// However many there are of one kind, and however large they are.
#[test]
fn candidates_and_trouble_of_others_have_half_of_the_places_each() {
    let half = MOST_TRACED / 2;
    let failed = (End::Failed, of("v2", 9));
    // Behind large ones, some more small ones have room in what one of them has left.
    for (name, (first, many), (second, others), kept) in [
        ("trouble first", (End::Failed, of("", 0)), (End::Answered, of("v2", 9)), half..=half),
        ("candidates first", (End::Answered, of("v2", 9)), (End::Left, of("control", 9)), half..=half),
        ("failed candidates first", (End::Failed, of("v2", 9)), (End::Refused, of("", 0)), half..=half),
        ("large trouble", (End::Failed, large("", 0)), (End::Answered, of("v2", 9)), half..=half + 40),
        ("large candidates", (End::Answered, large("v2", 9)), (End::Failed, of("", 0)), half..=half + 40),
        ("both large", (End::Failed, large("", 0)), (End::Answered, large("v2", 9)), 20..=30),
        ("candidates that fail", (End::Answered, of("v2", 9)), failed.clone(), MOST_TRACED..=MOST_TRACED),
        ("the same twice", failed.clone(), failed, 0..=0),
    ] {
        let mut aggregator = Aggregator::default();
        for (from, context, end) in [(0, &many, first), (10_000, &others, second)] {
            for span in from + 1..=from + 1_000 {
                aggregator.take(&traced(context, end, Some(&sampled(span))));
            }
        }
        let told = spans(&aggregator);
        let of_second = told.iter().filter(|span| **span > 10_000).count();
        assert!(kept.contains(&of_second), "{name}: {of_second} of {}", told.len());
        let bytes: usize = aggregator.batch().traced.iter().map(Message::encoded_len).sum();
        assert!(told.len() <= MOST_TRACED && bytes <= MOST_TRACED_BYTES, "{name}: {bytes}");
        assert_eq!(told.len() as u64 + aggregator.batch().omitted.traced, 2_000, "{name}");
    }
}
