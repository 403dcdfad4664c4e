//! The edge cases of judge.md that have no better place, and what other tools get wrong.

use crate::common::*;
use halftone_judge::{
    Judge, Policy, State,
    fixed::Better,
    policy::{
        Action, Decision, Effect, Epoch, Metric, MetricKind, Purpose, Reason, Role, Sample, Shares,
        StepConditions,
    },
    stats::{ArmUnits, Mean},
};

/// A mean that is better lower or higher, with values between −10 and 10.
fn rating(better: Better) -> Metric {
    let (mde, cap) = (Some(Effect::Relative(0.05)), Some(10.0));
    Metric { better, mde, cap, ..Metric::new(Role::Goal, MetricKind::Mean) }
}

fn values(n: u64, mean: f64, sd: f64) -> Option<Sample> {
    if n == 0 {
        return Some(Sample::Mean(Mean::default()));
    }
    let m2 = sd * sd * (n - 1) as f64;
    Some(Sample::Mean(Mean { n, mean, m2, min: -10.0, max: 10.0, rejected: 0 }))
}

fn with_errors(goal: Metric) -> Policy {
    policy(&[("errors", Metric { ceiling: Some(0.01), ..errors() }), ("rating", goal)])
}

fn rated(units: u64, control: Option<Sample>, treatment: Option<Sample>) -> Epoch {
    epoch(
        units,
        vec![
            ("errors", measured(proportion(units, 3), proportion(units, 3))),
            ("rating", measured(control, treatment)),
        ],
    )
}

#[test]
fn arms_of_none_one_and_two_units() {
    let policy = with_errors(rating(Better::Higher));
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 2), (1, 20_000), (20_000, 1)] {
        let at = snapshot(3 * DAY, vec![rated(20_000, values(a, 1.0, 1.0), values(b, 2.0, 1.0))]);
        let verdict = judge(&policy, &at);
        assert_eq!(
            (verdict.decision, verdict.reason),
            (Decision::InsufficientData, Reason::TooFew),
            "{a} {b}: {}",
            verdict.sentence
        );
    }
}

#[test]
fn arms_without_variance() {
    let policy = with_errors(rating(Better::Higher));
    for (a, b) in [
        ((1.0, 0.0), (1.0, 0.0)),
        ((1.0, 0.0), (2.0, 0.0)),
        ((1.0, 0.0), (1.5, 1.0)),
        ((1.0, 1.0), (2.0, 0.0)),
    ] {
        let at = rated(20_000, values(20_000, a.0, a.1), values(20_000, b.0, b.1));
        let verdict = judge(&policy, &snapshot(3 * DAY, vec![at]));
        let told = (verdict.decision, verdict.reason);
        assert_eq!(told, (Decision::InsufficientData, Reason::TooFew), "{a:?} {b:?}");
        assert!(verdict.sentence.contains("values are all the same"), "{}", verdict.sentence);
    }
    // Different constants are left to the tests that need no variance.
    let latency = crate::common::policy(&[("latency", latency())]);
    let constant = |value: f64| histogram(std::iter::repeat_n(value, 1_000));
    let at = |treated| {
        let epoch = epoch(1_000, vec![("latency", measured(constant(0.1), constant(treated)))]);
        judge(&latency, &snapshot(3 * DAY, vec![epoch])).decision
    };
    assert_eq!((at(0.1), at(0.3)), (Decision::Promote, Decision::Rollback));
    let events = crate::common::policy(&[("errors", errors())]);
    let at = |treated| {
        let epoch =
            epoch(1_000, vec![("errors", measured(proportion(1_000, 0), proportion(1_000, treated)))]);
        judge(&events, &snapshot(3 * DAY, vec![epoch])).decision
    };
    assert_eq!((at(0), at(1_000)), (Decision::Hold, Decision::Rollback));
}

/// A lift is relative to the size of the baseline, whatever its sign, and to nothing where it is about 0.
#[test]
fn baselines_below_and_at_zero() {
    for (better, treated, decision) in [
        (Better::Higher, -1.8, Decision::Promote),
        (Better::Higher, -2.2, Decision::Hold),
        (Better::Lower, -2.2, Decision::Promote),
        (Better::Lower, -1.8, Decision::Hold),
    ] {
        let epoch = rated(20_000, values(20_000, -2.0, 1.0), values(20_000, treated, 1.0));
        let verdict = judge(&with_errors(rating(better)), &snapshot(3 * DAY, vec![epoch]));
        assert_eq!(verdict.decision, decision, "{better:?} {treated}: {}", verdict.sentence);
        let goal = verdict.tests.iter().find(|test| test.purpose == Purpose::Goal).unwrap();
        assert_eq!(
            goal.relative.unwrap() > 0.0,
            treated > -2.0,
            "the sign of the lift is that of the change"
        );
    }
    let mut absolute = rating(Better::Higher);
    absolute.mde = Some(Effect::Absolute(0.05));
    let epoch = rated(20_000, values(20_000, 0.0, 1.0), values(20_000, 0.2, 1.0));
    let verdict = judge(&with_errors(absolute), &snapshot(3 * DAY, vec![epoch]));
    let goal = verdict.tests.iter().find(|test| test.purpose == Purpose::Goal).unwrap();
    assert_eq!((verdict.decision, goal.relative), (Decision::Promote, None));
}

/// 1:999: few units see little, and nothing is faked by the ratio.
#[test]
fn one_unit_in_a_thousand() {
    let split = |bad: u64, units: u64| {
        let mut epoch =
            epoch(0, vec![("errors", measured(proportion(999_000, 999), proportion(units, bad)))]);
        epoch.shares = Shares { control: 0.999, treatment: 0.001, ..Shares::default() };
        epoch.units = ArmUnits { control: 999_000, treatment: units, ..ArmUnits::default() };
        judge(&policy(&[("errors", errors())]), &snapshot(3 * DAY, vec![epoch]))
    };
    assert_eq!(split(1, 1_000).decision, Decision::Hold);
    assert_eq!(split(0, 1_000).decision, Decision::Hold);
    assert_eq!(split(12, 1_000).decision, Decision::Rollback);
    assert_eq!(split(1, 1_400).reason, Reason::Srm);
}

/// Its targets are gone, or its share is 0: nothing arrives any more, and what was seen is not forgotten.
#[test]
fn a_candidate_that_is_taken_away() {
    let judge = Judge::new(policy(&[("errors", errors()), ("conversion", goal())])).unwrap();
    let good = epoch(
        20_000,
        vec![
            ("errors", measured(proportion(20_000, 300), proportion(20_000, 300))),
            ("conversion", measured(proportion(20_000, 4_000), proportion(20_000, 4_600))),
        ],
    );
    let mut gone = epoch(
        5_000,
        vec![
            ("errors", measured(proportion(5_000, 75), None)),
            ("conversion", measured(proportion(5_000, 1_000), None)),
        ],
    );
    gone.id = "2".to_owned();
    gone.units = ArmUnits { control: 5_000, ..ArmUnits::default() };
    gone.shares = Shares { control: 1.0, ..Shares::default() };
    let (verdict, _) = judge.judge(&snapshot(3 * DAY, vec![good.clone(), gone.clone()]), State::default());
    assert_eq!((verdict.decision, verdict.reason), (Decision::InsufficientData, Reason::NoData));
    let mut bad = good;
    bad.metrics.insert("errors".to_owned(), measured(proportion(20_000, 300), proportion(20_000, 700)));
    let (verdict, state) = judge.judge(&snapshot(DAY, vec![bad.clone()]), State::default());
    assert_eq!(verdict.decision, Decision::Rollback);
    let (verdict, _) = judge.judge(&snapshot(3 * DAY, vec![bad, gone]), state);
    assert_eq!(verdict.decision, Decision::Rollback, "while nothing arrives");
}

/// What was to be promoted, and waits for approval, is watched like any other.
#[test]
fn a_candidate_that_waits_is_rolled_back_too() {
    let judge = Judge::new(policy(&[("errors", errors()), ("conversion", goal())])).unwrap();
    let at = |elapsed, errors| {
        let units = 20_000;
        let epoch = epoch(
            units,
            vec![
                ("errors", measured(proportion(units, 300), proportion(units, errors))),
                ("conversion", measured(proportion(units, 4_000), proportion(units, 4_800))),
            ],
        );
        snapshot(elapsed, vec![epoch])
    };
    let (first, state) = judge.judge(&at(3 * DAY, 300), State::default());
    assert_eq!((first.decision, first.action), (Decision::Promote, Action::Candidate));
    let (then, _) = judge.judge(&at(3 * DAY + 1, 600), state);
    assert_eq!((then.decision, then.action), (Decision::Rollback, Action::Rollback));
}

/// Outcomes come later, and targets start cold: nothing is promoted before a window and the warm-up have passed, and a
/// step does not wait for goals whose windows are open.
#[test]
fn delayed_outcomes_and_a_cold_start() {
    let window = Metric { window_s: 5 * DAY, ..goal() };
    let late = Policy { warm_up_s: DAY, ..policy(&[("errors", errors()), ("conversion", window)]) };
    let units = 20_000;
    let errors = || ("errors", measured(proportion(units, 300), proportion(units, 300)));
    let complete = epoch(
        units,
        vec![errors(), ("conversion", measured(proportion(units, 4_000), proportion(units, 4_800)))],
    );
    let at = |elapsed| judge(&late, &snapshot(elapsed, vec![complete.clone()]));
    assert_eq!((at(6 * DAY - 1).decision, at(6 * DAY - 1).reason), (Decision::Hold, Reason::Cycle));
    assert_eq!(at(6 * DAY).decision, Decision::Promote);
    let open = epoch(units, vec![errors(), ("conversion", measured(proportion(0, 0), proportion(0, 0)))]);
    let open = snapshot(DAY, vec![open]);
    assert_eq!(judge(&late, &at_step(open.clone(), StepConditions::default())).reason, Reason::Step);
    assert_ne!(judge(&late, &open).decision, Decision::Promote);
}

/// A source that is lost for good: its data stay, and the gap is no success.
#[test]
fn a_source_that_is_lost() {
    let judge = Judge::new(policy(&[("errors", errors())])).unwrap();
    let units = 20_000;
    let at = |elapsed, age| {
        let mut at = snapshot(
            elapsed,
            vec![epoch(units, vec![("errors", measured(proportion(units, 300), proportion(units, 300)))])],
        );
        at.data_age_s = age;
        at
    };
    let (before, state) = judge.judge(&at(3 * DAY, 0), State::default());
    assert_eq!(before.decision, Decision::Promote);
    let (during, state) = judge.judge(&at(3 * DAY + 6 * HOUR, 6 * HOUR), state);
    assert_eq!((during.decision, during.reason), (Decision::InsufficientData, Reason::Stale));
    let (after, _) = judge.judge(&at(4 * DAY, 0), state);
    assert_eq!(after.decision, Decision::Promote, "{}", after.sentence);
}
