//! Data that nobody sends by chance: huge, odd, contradictory, or very many. There is a verdict in numbers, soon.

use crate::common::*;
use halftone_judge::{
    Judge, Policy, Snapshot, State, Verdict,
    policy::{Decision, Epoch, Measurement, Metric, MetricKind, PolicyKind, Role, Sample, Shares},
    stats::{ArmUnits, Histogram, Mean, UnitBuckets},
};
use std::collections::BTreeMap;

const HUGE: u64 = 1_000_000_000_000_000;

fn everything(policy: PolicyKind) -> Policy {
    let cost = Metric { cap: Some(2.0), ..Metric::new(Role::Guardrail, MetricKind::Mean) };
    let mut all = policy_of(policy);
    all.metrics.insert("cost".to_owned(), cost);
    all
}

fn policy_of(kind: PolicyKind) -> Policy {
    let errors = Metric { ceiling: Some(0.01), ..errors() };
    Policy { policy: kind, ..policy(&[("errors", errors), ("latency", latency()), ("conversion", goal())]) }
}

/// Judged by both policies, as a first run and again with what that left; every number is one.
fn survives(snapshot: &Snapshot) -> Vec<Verdict> {
    let run = |kind| {
        let judge = Judge::new(everything(kind)).unwrap();
        let (first, state) = judge.judge(snapshot, State::default());
        let (again, _) = judge.judge(snapshot, state);
        [first, again]
    };
    let verdicts: Vec<Verdict> =
        [PolicyKind::Sequential, PolicyKind::Classic].into_iter().flat_map(run).collect();
    for verdict in &verdicts {
        for test in &verdict.tests {
            let numbers = [test.estimate, test.relative, test.low, test.high, test.z, test.ln_e, test.p];
            assert!(numbers.into_iter().flatten().all(f64::is_finite), "{test:?}");
        }
    }
    verdicts
}

fn full(units: u64, latency: Measurement, cost: Measurement) -> Epoch {
    epoch(
        units,
        vec![
            ("errors", measured(proportion(units, units / 100), proportion(units, units / 100))),
            ("latency", latency),
            ("conversion", measured(proportion(units, units / 5), proportion(units, units / 5 + units / 50))),
            ("cost", cost),
        ],
    )
}

fn even(units: u64) -> Measurement {
    measured(mean(units, 1.0, 0.3), mean(units, 1.0, 0.3))
}

fn buckets(indices: impl IntoIterator<Item = i32>, count: u64) -> Option<Sample> {
    let counts: BTreeMap<i32, u64> = indices.into_iter().map(|index| (index, count)).collect();
    Some(Sample::Histogram(Histogram { counts, ..Histogram::default() }))
}

#[test]
fn thousands_of_epochs() {
    let one = full(2_000, measured(latencies(500, 0.1), latencies(500, 0.1)), even(2_000));
    let epochs: Vec<Epoch> = (0..3_000).map(|id| Epoch { id: id.to_string(), ..one.clone() }).collect();
    for verdict in survives(&snapshot(30 * DAY, epochs)) {
        assert_ne!(verdict.decision, Decision::Invalid, "{}", verdict.sentence);
    }
}

#[test]
fn thousands_of_candidates() {
    let others = 5_000;
    let share = 1.0 / 5_002.0;
    let mut epoch = full(20_000, measured(latencies(500, 0.1), latencies(500, 0.1)), even(20_000));
    epoch.shares = Shares { control: share, treatment: share, rest: 0.0, others: vec![share; others] };
    epoch.units =
        ArmUnits { control: 20_000, treatment: 20_000, others: vec![20_000; others], ..ArmUnits::default() };
    for verdict in survives(&snapshot(3 * DAY, vec![epoch.clone()])) {
        assert_ne!(verdict.decision, Decision::Invalid, "{}", verdict.sentence);
    }
    // Many cells make the prior wide: it takes a lot to be told from chance.
    epoch.units.others[77] = 400_000;
    assert!(survives(&snapshot(3 * DAY, vec![epoch])).iter().all(|it| it.decision == Decision::Invalid));
}

#[test]
fn huge_histograms() {
    for (control, treatment) in [
        // Every bucket that there is for numbers, and more than there are.
        (buckets(-40_000..40_000, 3), buckets(-40_000..40_000, 3)),
        (buckets([i32::MIN, -1, i32::MAX], HUGE), buckets([i32::MIN, 0, i32::MAX], HUGE)),
        (buckets(0..100, HUGE), buckets(50..150, HUGE)),
        // A total beyond 64 bits, and one just below.
        (buckets(0..100, u64::MAX / 50), buckets(0..100, u64::MAX / 100)),
        (buckets(0..1, u64::MAX), buckets(0..1, 1)),
        (buckets([], 0), buckets([0], 0)),
    ] {
        survives(&snapshot(3 * DAY, vec![full(20_000, measured(control, treatment), even(20_000))]));
    }
}

#[test]
fn counts_of_1e15_beside_counts_of_one() {
    let latency = || measured(buckets(0..10, HUGE), buckets(0..10, 1));
    for units in [0, 1, 2, HUGE, u64::MAX] {
        survives(&snapshot(3 * DAY, vec![full(units, latency(), even(units))]));
    }
    for (n, k) in [(0, 1), (1, 2), (HUGE, HUGE + 1), (0, u64::MAX)] {
        let mut epoch = full(20_000, latency(), even(20_000));
        epoch.metrics.insert("errors".to_owned(), measured(proportion(n, k), proportion(20_000, 9)));
        for verdict in survives(&snapshot(3 * DAY, vec![epoch])) {
            assert_ne!(verdict.decision, Decision::Promote, "{n} {k}: {}", verdict.sentence);
        }
    }
}

#[test]
fn means_that_are_no_numbers() {
    for (mean, m2) in [
        (f64::NAN, 1.0),
        (1.0, f64::NAN),
        (f64::INFINITY, 1.0),
        (1.0, f64::INFINITY),
        (1.0, -1.0),
        (f64::MAX, f64::MAX),
        (-f64::MAX, 0.0),
        (f64::MIN_POSITIVE, f64::MIN_POSITIVE),
    ] {
        let odd = Some(Sample::Mean(Mean { n: 20_000, mean, m2, min: 0.0, max: 2.0, rejected: 0 }));
        let cost = measured(odd, mean_of_one());
        let latency = measured(latencies(500, 0.1), latencies(500, 0.1));
        for verdict in survives(&snapshot(3 * DAY, vec![full(20_000, latency, cost)])) {
            assert_ne!(verdict.decision, Decision::Promote, "{mean} {m2}: {}", verdict.sentence);
        }
    }
}

fn mean_of_one() -> Option<Sample> {
    mean(20_000, 1.0, 0.3)
}

/// Unit buckets that are none, too few, too many or not finite, where a mean is wanted and where a ratio is.
#[test]
fn unit_buckets_of_any_length() {
    let ratio = Metric { margin: Some(0.1), ..Metric::new(Role::Guardrail, MetricKind::Ratio) };
    let judge = Judge::new(policy(&[("errors", errors()), ("ratio", ratio)])).unwrap();
    for sums in [
        vec![],
        vec![(1.0, 1.0)],
        vec![(1.0, 1.0); 100_000],
        vec![(f64::NAN, 1.0); 1_024],
        vec![(f64::MAX, f64::MAX); 1_024],
        vec![(0.0, 0.0); 1_024],
        vec![(1.0, -1.0); 1_024],
    ] {
        let odd = Some(Sample::Buckets(UnitBuckets { units: 20_000, sums }));
        let mut epoch = full(20_000, measured(None, None), even(20_000));
        epoch.metrics.insert("ratio".to_owned(), measured(odd.clone(), odd));
        let (verdict, _) = judge.judge(&snapshot(3 * DAY, vec![epoch]), State::default());
        assert_ne!(verdict.decision, Decision::Promote, "{}", verdict.sentence);
    }
}

/// A history of as many looks as there may be, close together, and one that is none.
#[test]
fn stored_histories() {
    let with = |times: &[f64]| {
        let times = serde_json::to_string(times).unwrap();
        serde_json::from_str::<State>(&format!(r#"{{"goals": {{"conversion": {{"looks": {times}}}}}}}"#))
    };
    let times: Vec<f64> = (0..300u32).map(|look| 0.1 + 2e-5 * f64::from(look)).collect();
    let judge = Judge::new(policy_of(PolicyKind::Sequential)).unwrap();
    let mut state = with(&times).unwrap();
    state.policy_hash = judge.hash().to_owned();
    let latency = measured(latencies(500, 0.1), latencies(500, 0.1));
    let (verdict, after) = judge.judge(&snapshot(3 * DAY, vec![full(20_000, latency, even(20_000))]), state);
    assert!(verdict.look_due && after.goals["conversion"].looks.times().len() == 301, "{verdict:#?}");
    for wrong in [
        [0.2, 0.1].to_vec(),
        vec![0.0],
        vec![0.1, 0.1],
        vec![f64::MAX, f64::MAX],
        (1..=1_001u32).map(f64::from).collect(),
    ] {
        assert!(with(&wrong).is_err(), "{wrong:?}");
    }
}
