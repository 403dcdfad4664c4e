use super::*;
use crate::{
    checks::{Checks, ChecksConfig, Findings},
    signature::Signature,
};
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{EvaluationContext, Omitted};
use halftone_telemetry::{
    context::{RequestContext, Served},
    outcome::Outcome,
};
use prost::Message;
use std::sync::Arc;

fn record(context: &EvaluationContext, end: End) -> Record {
    let header = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(context.encode_to_vec())).unwrap();
    let headers = HeaderMap::from_iter([("x-halftone-context".parse().unwrap(), header)]);
    let context = Arc::new(RequestContext::read(&headers));
    context.serve(Served { model: "m".into(), version: "1".into(), hardware: "cpu" });
    context.begin_inference().end(Outcome::Ok);
    let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let checks = Arc::new(Checks::new(&ChecksConfig::default(), &signature).unwrap());
    Record { context, checks, end, findings: Findings::default() }
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
    let mut aggregator = Aggregator::default();
    let exposures = |aggregator: &Aggregator| -> Vec<(u64, u32, bool)> {
        let series = aggregator.batch().series.values();
        let sightings =
            series.flat_map(|observations| observations.exposures.values().flat_map(|s| s.each()));
        sightings.map(|s| (s.time_ms, s.outcome, s.latency.is_some())).collect()
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
        aggregator.take(&record(&decided(5, time), end));
        assert_eq!(exposures(&aggregator), expected, "{time}");
        let bad: usize = aggregator.batch().series.values().map(|o| o.bad_events.len()).sum();
        assert_eq!(bad, usize::from(time == 1), "{time}");
        aggregator.begin();
    }
    aggregator.forget();
    aggregator.take(&record(&decided(5, 7), End::Answered));
    assert_eq!(exposures(&aggregator), [(7, 0, true)]);
    // In one batch both are told.
    aggregator.begin();
    aggregator.take(&record(&decided(6, 1), End::Failed));
    aggregator.take(&record(&decided(6, 2), End::Answered));
    assert_eq!(exposures(&aggregator), [(1, outcome::ERROR, false), (2, 0, true)]);
}

#[test]
fn its_memory_is_bounded_and_it_says_what_it_left_out() {
    let mut aggregator = Aggregator::default();
    for revision in 0..200 {
        let context = EvaluationContext { revision, ..decided(1, 1) };
        aggregator.take(&record(&context, End::Answered));
    }
    assert_eq!(aggregator.batch().series.len(), MOST_SERIES);
    assert_eq!(aggregator.batch().omitted, Omitted { requests: 72, units: 0, batches: 0 });

    aggregator.begin();
    aggregator.forget();
    let units = u64::try_from(MOST_UNITS).unwrap() + 10;
    for unit in 1..=units {
        aggregator.take(&record(&decided(unit, 1), End::Answered));
        assert_eq!(aggregator.is_full(), unit >= 1 << 14);
    }
    assert_eq!(aggregator.batch().units(), MOST_UNITS);
    assert_eq!(aggregator.batch().omitted, Omitted { requests: 0, units: 10, batches: 0 });
    // Who was left out is reported when it comes again.
    aggregator.begin();
    aggregator.take(&record(&decided(units, 1), End::Answered));
    assert_eq!(aggregator.batch().units(), 1);
}
