//! The policy `sequential`, check by check in the order in which they count.

use crate::common::*;
use halftone_judge::{
    Judge, Policy, State, Verdict,
    policy::{
        Action, Decision, Effect, Horizon, Metric, MetricKind, PromoteWhen, Reason, Role, Shares,
        StepConditions, choose,
    },
    stats::ArmUnits,
};
use std::collections::BTreeMap;

fn told(verdict: &Verdict) -> (Decision, Reason) {
    (verdict.decision, verdict.reason)
}

/// Errors, latency and conversion, with a candidate that converts at `treated` instead of 20 %.
fn release(units: u64, errors: (u64, u64), treated: u64) -> halftone_judge::policy::Epoch {
    let n = u32::try_from(units).unwrap();
    epoch(
        units,
        vec![
            ("errors", measured(proportion(units, errors.0), proportion(units, errors.1))),
            ("latency", measured(latencies(n, 0.1), latencies(n, 0.1))),
            ("conversion", measured(proportion(units, units / 5), proportion(units, treated))),
        ],
    )
}

fn three() -> Policy {
    policy(&[("errors", errors()), ("latency", latency()), ("conversion", goal())])
}

#[test]
fn a_better_candidate_is_promoted_at_a_planned_look() {
    let sound = snapshot(3 * DAY, vec![release(20_000, (300, 300), 4_600)]);
    let verdict = judge(&three(), &sound);
    assert_eq!(told(&verdict), (Decision::Promote, Reason::Goal), "{verdict:#?}");
    assert_eq!((verdict.action, verdict.subject.as_deref()), (Action::Candidate, Some("conversion")));
    assert!(verdict.look_due && verdict.looks == 1);
    assert!(verdict.information.unwrap() > 0.1 && verdict.alpha_spent.unwrap() <= 0.01);
    assert!(verdict.sentence.starts_with("Promote after 3 days: conversion: better"), "{}", verdict.sentence);
    // Not before a whole cycle.
    let early = judge(&three(), &snapshot(DAY - 1, vec![release(20_000, (300, 300), 4_600)]));
    assert_eq!(told(&early), (Decision::Hold, Reason::Cycle));
    // Not between two looks.
    let judge = Judge::new(three()).unwrap();
    let (_, state) = judge.judge(&snapshot(2 * DAY, vec![release(2_000, (30, 30), 400)]), State::default());
    let (between, _) = judge.judge(&snapshot(2 * DAY + 5, vec![release(20_000, (300, 300), 4_600)]), state);
    assert_eq!(told(&between), (Decision::Hold, Reason::Collecting));
    assert!(!between.look_due);
}

#[test]
fn kill_tests_count_before_everything_else() {
    let bad = release(2_000, (2, 60), 400);
    // Also when the sample ratio is wrong, the data are stale, or there is no control any more.
    let mut mismatched = bad.clone();
    mismatched.units = ArmUnits { control: 9_000, treatment: 2_000, ..ArmUnits::default() };
    for epoch in [bad.clone(), mismatched] {
        for age in [0, DAY] {
            let mut at = snapshot(60, vec![epoch.clone()]);
            at.data_age_s = age;
            let verdict = judge(&three(), &at);
            assert_eq!(told(&verdict), (Decision::Rollback, Reason::Worse));
            assert_eq!((verdict.action, verdict.subject.as_deref()), (Action::Rollback, Some("errors")));
        }
    }
    let verdict = judge(&three(), &snapshot(60, vec![bad.clone()]));
    assert_eq!(
        verdict.sentence,
        "Roll back: errors is worse in the candidate: 60 of 62 units with a bad event had the candidate (10^14 to 1 \
         against chance)."
    );
    // Only explicitly off.
    let off = Policy { kill: false, ..three() };
    assert_ne!(judge(&off, &snapshot(60, vec![bad])).decision, Decision::Rollback);
}

#[test]
fn evidence_is_remembered() {
    let judge = Judge::new(three()).unwrap();
    let (first, state) = judge.judge(&snapshot(60, vec![release(2_000, (2, 60), 400)]), State::default());
    assert_eq!(first.decision, Decision::Rollback);
    // Bytes of the state survive a restart, and a threshold once crossed stays so.
    let state: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    let (again, _) = judge.judge(&snapshot(70, vec![release(4_000, (60, 60), 800)]), state);
    assert_eq!(again.decision, Decision::Rollback);
}

#[test]
fn slow_candidates_are_rolled_back() {
    let slow = |median: f64| {
        let mut epoch = release(500, (5, 5), 100);
        epoch.metrics.insert("latency".to_owned(), measured(latencies(500, 0.1), latencies(500, median)));
        judge(&three(), &snapshot(60, vec![epoch]))
    };
    assert_eq!(told(&slow(0.2)), (Decision::Rollback, Reason::Worse));
    assert_eq!(slow(0.2).subject.as_deref(), Some("latency"));
    assert_ne!(slow(0.105).decision, Decision::Rollback, "within the tolerance of 10 %");
    assert_ne!(slow(0.05).decision, Decision::Rollback);
}

#[test]
fn data_that_cannot_be_trusted_are_invalid() {
    let mut one_sided = release(2_000, (20, 20), 400);
    one_sided.units.control = 2_400;
    let verdict = judge(&three(), &snapshot(DAY, vec![one_sided]));
    assert_eq!((told(&verdict), verdict.action), ((Decision::Invalid, Reason::Srm), Action::Pause));
    let mut both = release(2_000, (20, 20), 400);
    both.units.both = 50;
    assert_eq!(
        told(&judge(&three(), &snapshot(DAY, vec![both]))),
        (Decision::Invalid, Reason::Contamination)
    );
    let mut unassigned = release(2_000, (20, 20), 400);
    unassigned.shares = Shares { control: 1.0, treatment: 0.0, ..Shares::default() };
    assert_eq!(told(&judge(&three(), &snapshot(DAY, vec![unassigned]))), (Decision::Invalid, Reason::Srm));
}

#[test]
fn missing_data_are_never_a_pass() {
    assert_eq!(told(&judge(&three(), &snapshot(DAY, vec![]))), (Decision::InsufficientData, Reason::NoData));
    let mut silent = release(0, (0, 0), 0);
    silent.units = ArmUnits { control: 5, ..ArmUnits::default() };
    assert_eq!(
        told(&judge(&three(), &snapshot(DAY, vec![silent]))),
        (Decision::InsufficientData, Reason::NoData)
    );
    let mut stale = snapshot(3 * DAY, vec![release(20_000, (300, 300), 4_600)]);
    stale.data_age_s = 901;
    let verdict = judge(&three(), &stale);
    assert_eq!((told(&verdict), verdict.action), ((Decision::InsufficientData, Reason::Stale), Action::None));
    stale.data_age_s = 2 * DAY;
    assert_eq!(judge(&three(), &stale).action, Action::Pause, "waiting has a deadline");
    // A guardrail that says nothing blocks every PROMOTE, at a step as at the end.
    let mut mute = release(20_000, (300, 300), 4_600);
    mute.metrics.remove("errors");
    let mute = snapshot(3 * DAY, vec![mute]);
    let verdict = judge(&three(), &mute);
    assert_eq!(
        (told(&verdict), verdict.subject.as_deref()),
        ((Decision::Hold, Reason::MetricLeftOut), Some("errors"))
    );
    let verdict = judge(&three(), &at_step(mute, StepConditions::default()));
    assert_eq!(told(&verdict), (Decision::Hold, Reason::MetricLeftOut));
    let verdict = judge(&three(), &snapshot(3 * DAY, vec![release(100, (2, 2), 20)]));
    assert_eq!(told(&verdict), (Decision::InsufficientData, Reason::TooFew));
}

#[test]
fn one_malformed_metric_blocks_promote_and_not_rollback() {
    let mut sound = release(20_000, (300, 300), 4_600);
    sound.metrics.insert("latency".to_owned(), measured(proportion(1, 1), proportion(1, 1)));
    assert_eq!(
        told(&judge(&three(), &snapshot(3 * DAY, vec![sound]))),
        (Decision::Hold, Reason::MetricLeftOut)
    );
    let mut bad = release(2_000, (2, 60), 400);
    bad.metrics.insert("latency".to_owned(), measured(proportion(1, 2), proportion(1, 1)));
    assert_eq!(judge(&three(), &snapshot(60, vec![bad])).decision, Decision::Rollback);
    let nothing_sound = epoch(
        2_000,
        ["errors", "latency", "conversion"]
            .map(|name| (name, measured(proportion(1, 2), proportion(1, 2))))
            .into(),
    );
    assert_eq!(
        told(&judge(&three(), &snapshot(60, vec![nothing_sound]))),
        (Decision::Invalid, Reason::Input)
    );
}

#[test]
fn time_does_not_go_back() {
    let judge = Judge::new(three()).unwrap();
    let at = |elapsed| snapshot(elapsed, vec![release(2_000, (20, 20), 400)]);
    let (_, state) = judge.judge(&at(DAY), State::default());
    let (verdict, after) = judge.judge(&at(DAY - 1), state.clone());
    assert_eq!(told(&verdict), (Decision::Invalid, Reason::Input));
    assert_eq!(after, state, "a refused input changes nothing");
}

#[test]
fn a_signal_holds() {
    let mut policy = three();
    policy.metrics.insert("drift".to_owned(), Metric::new(Role::Signal, MetricKind::Event));
    let mut epoch = release(20_000, (300, 300), 4_600);
    epoch.metrics.insert("drift".to_owned(), measured(proportion(20_000, 10), proportion(20_000, 60)));
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![epoch]));
    assert_eq!(
        (told(&verdict), verdict.subject.as_deref()),
        ((Decision::Hold, Reason::Signal), Some("drift"))
    );
}

#[test]
fn a_step_widens_when_its_conditions_are_met() {
    let conditions =
        StepConditions { elapsed_s: 600, least_s: 600, least_units: 1_000, approved: Some(true) };
    let at = |conditions, errors| at_step(snapshot(600, vec![release(2_000, errors, 400)]), conditions);
    let verdict = judge(&three(), &at(conditions, (4, 4)));
    assert_eq!((told(&verdict), verdict.action), ((Decision::Promote, Reason::Step), Action::Widen));
    for waiting in [
        StepConditions { elapsed_s: 599, ..conditions },
        StepConditions { least_units: 2_001, ..conditions },
        StepConditions { approved: Some(false), ..conditions },
    ] {
        assert_eq!(told(&judge(&three(), &at(waiting, (4, 4)))), (Decision::Hold, Reason::Waiting));
    }
    // Not enough to roll back, too much to widen.
    assert_eq!(told(&judge(&three(), &at(conditions, (0, 6)))), (Decision::Hold, Reason::Suspect));
}

#[test]
fn a_promotion_needs_every_guardrail_to_be_non_inferior() {
    // Too few errors to say anything about their share.
    let few = judge(&three(), &snapshot(3 * DAY, vec![release(20_000, (3, 3), 4_600)]));
    assert_eq!(
        (told(&few), few.subject.as_deref()),
        ((Decision::Hold, Reason::GuardrailInconclusive), Some("errors"))
    );
    // Below an acceptable rate, nobody minds their share.
    let mut ceiling = three();
    ceiling.metrics.get_mut("errors").unwrap().ceiling = Some(0.01);
    for errors in [(3, 3), (0, 0)] {
        let verdict = judge(&ceiling, &snapshot(3 * DAY, vec![release(20_000, errors, 4_600)]));
        assert_eq!(told(&verdict), (Decision::Promote, Reason::Goal));
    }
    // A mean guardrail.
    let mut cost = three();
    let metric = Metric {
        cap: Some(2.0),
        better: halftone_judge::fixed::Better::Lower,
        ..Metric::new(Role::Guardrail, MetricKind::Mean)
    };
    cost.metrics.insert("cost".to_owned(), metric);
    for (treated, promoted) in [(1.0, true), (1.015, false)] {
        let mut epoch = release(40_000, (600, 600), 9_200);
        epoch.metrics.insert("cost".to_owned(), measured(mean(40_000, 1.0, 0.3), mean(40_000, treated, 0.3)));
        let verdict = judge(&cost, &snapshot(3 * DAY, vec![epoch]));
        assert_eq!(verdict.decision == Decision::Promote, promoted, "{treated}: {}", verdict.sentence);
    }
}

#[test]
fn a_hopeless_release_ends() {
    let hopeless = judge(&three(), &snapshot(3 * DAY, vec![release(30_000, (450, 450), 5_700)]));
    assert_eq!((told(&hopeless), hopeless.action), ((Decision::Hold, Reason::Futile), Action::Abort));
    let used = judge(&three(), &snapshot(3 * DAY, vec![release(60_000, (900, 900), 12_100)]));
    assert_eq!((told(&used), used.action), ((Decision::Hold, Reason::Horizon), Action::Abort));
    let late = Policy { planned_s: Some(2 * DAY), ..three() };
    let verdict = judge(&late, &snapshot(3 * DAY, vec![release(4_000, (60, 60), 820)]));
    assert_eq!((told(&verdict), verdict.action), ((Decision::Hold, Reason::Expired), Action::Abort));
    let verdict = judge(&three(), &snapshot(3 * DAY, vec![release(4_000, (60, 60), 820)]));
    assert_eq!(verdict.decision, Decision::Hold);
    assert!(verdict.remaining_s.unwrap() > DAY as f64);
}

#[test]
fn after_the_horizon_nothing_is_tested_any_more() {
    let judge = Judge::new(three()).unwrap();
    let (first, state) =
        judge.judge(&snapshot(3 * DAY, vec![release(60_000, (900, 900), 12_100)]), State::default());
    assert_eq!(first.reason, Reason::Horizon);
    // Better by chance later on: too late.
    let (later, _) = judge.judge(&snapshot(4 * DAY, vec![release(61_000, (900, 900), 14_000)]), state);
    assert_eq!((told(&later), later.action), ((Decision::Hold, Reason::Horizon), Action::Abort));
}

#[test]
fn without_a_horizon_a_confidence_sequence_decides() {
    let mut open = Policy { horizon: Horizon::Unknown, n_star: Some(20_000.0), ..three() };
    let goal = open.metrics.get_mut("conversion").unwrap();
    (goal.mde, goal.baseline) = (None, None);
    let at = |treated| judge(&open, &snapshot(3 * DAY, vec![release(20_000, (300, 300), treated)]));
    assert_eq!(told(&at(4_600)), (Decision::Promote, Reason::Goal));
    assert_eq!(told(&at(4_150)), (Decision::Hold, Reason::Collecting));
}

#[test]
fn non_inferior_can_be_all_that_is_asked_for() {
    let policy = Policy { promote_when: PromoteWhen::NonInferior, horizon: Horizon::Unknown, ..three() };
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![release(60_000, (900, 900), 12_000)]));
    // A margin of 2 % of 20 % needs more than that.
    assert_eq!(told(&verdict), (Decision::Hold, Reason::GuardrailInconclusive));
    let mut wide = policy.clone();
    wide.metrics.get_mut("conversion").unwrap().margin = Some(0.1);
    let verdict = judge(&wide, &snapshot(3 * DAY, vec![release(60_000, (900, 900), 12_000)]));
    assert_eq!(told(&verdict), (Decision::Promote, Reason::NonInferior));
    // Guardrails alone.
    let guardrails = crate::common::policy(&[("errors", errors())]);
    let verdict = judge(&guardrails, &snapshot(3 * DAY, vec![release(60_000, (900, 900), 0)]));
    assert_eq!(told(&verdict), (Decision::Promote, Reason::NonInferior));
}

#[test]
fn a_practical_effect_can_be_asked_for() {
    let policy = Policy { require_practical: true, ..three() };
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![release(40_000, (600, 600), 8_500)]));
    assert_eq!(told(&verdict), (Decision::Hold, Reason::NotPractical));
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![release(40_000, (600, 600), 9_200)]));
    assert_eq!(told(&verdict), (Decision::Promote, Reason::Goal));
}

#[test]
fn several_goals_share_the_level_and_none_may_be_worse() {
    let mut two = three();
    two.metrics.insert("rating".to_owned(), goal());
    let with_rating = |treated| {
        let mut epoch = release(20_000, (300, 300), 4_600);
        epoch
            .metrics
            .insert("rating".to_owned(), measured(proportion(20_000, 4_000), proportion(20_000, treated)));
        judge(&two, &snapshot(3 * DAY, vec![epoch]))
    };
    let verdict = with_rating(4_000);
    assert_eq!(
        (told(&verdict), verdict.subject.as_deref()),
        ((Decision::Promote, Reason::Goal), Some("conversion"))
    );
    assert!(
        verdict
            .tests
            .iter()
            .filter(|test| test.purpose == halftone_judge::policy::Purpose::Goal)
            .all(|test| test.alpha == 0.005)
    );
    assert_eq!(told(&with_rating(3_300)), (Decision::Hold, Reason::Contradictory));
}

#[test]
fn of_several_candidates_one_wins() {
    let each = Policy { candidates: 2, ..three() };
    let of = |treated| judge(&each, &snapshot(3 * DAY, vec![release(20_000, (300, 300), treated)]));
    let mut verdicts: BTreeMap<String, Verdict> = [("a", 4_600), ("b", 4_700), ("c", 4_000)]
        .map(|(name, treated)| (name.to_owned(), of(treated)))
        .into();
    choose(&mut verdicts);
    let reasons: Vec<_> = verdicts.values().map(|verdict| verdict.reason).collect();
    assert_eq!((reasons[0], reasons[1]), (Reason::Outperformed, Reason::Goal));
    assert_ne!(verdicts["c"].decision, Decision::Promote);
}

#[test]
fn a_changed_policy_starts_the_look_history_again() {
    let judge = Judge::new(three()).unwrap();
    let old = release(20_000, (300, 300), 4_300);
    let (_, state) = judge.judge(&snapshot(3 * DAY, vec![old.clone()]), State::default());
    assert!(!state.goals.is_empty());
    let mut other = three();
    other.alpha.promote = 0.02;
    let other = Judge::new(other).unwrap();
    let (verdict, state) = other.judge(&snapshot(3 * DAY + 10, vec![old.clone()]), state);
    assert!(verdict.causes.iter().any(|cause| cause.reason == Reason::PolicyChanged));
    assert_eq!(verdict.reason, Reason::TooFew, "looked-at units count no more for the goals");
    // Units of a new epoch do.
    let mut new = release(20_000, (300, 300), 4_600);
    new.id = "2".to_owned();
    let (verdict, _) = other.judge(&snapshot(6 * DAY, vec![old, new]), state);
    assert_eq!(told(&verdict), (Decision::Promote, Reason::Goal), "{verdict:#?}");
}

/// 1 % of 10,000 units at a base rate of 5 %, then 50 % at 10 %: pooled, z = 6.9 without any effect.
#[test]
fn ramps_do_not_fake_an_effect() {
    let mut conversion = goal();
    conversion.mde = Some(Effect::Relative(0.2));
    let policy = policy(&[("errors", errors()), ("conversion", conversion)]);
    let of = |id: &str, share: f64, (n_a, k_a): (u64, u64), (n_b, k_b): (u64, u64)| {
        let mut epoch = epoch(
            0,
            vec![
                ("errors", measured(proportion(n_a, n_a / 20), proportion(n_b, n_b / 20))),
                ("conversion", measured(proportion(n_a, k_a), proportion(n_b, k_b))),
            ],
        );
        epoch.id = id.to_owned();
        epoch.shares = Shares { control: 1.0 - share, treatment: share, ..Shares::default() };
        epoch.units = ArmUnits { control: n_a, treatment: n_b, ..ArmUnits::default() };
        epoch
    };
    let first = of("1", 0.01, (9_900, 495), (100, 5));
    let second = of("2", 0.5, (5_000, 500), (5_000, 500));
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![first, second]));
    let z = verdict.tests.iter().find(|test| test.metric == "conversion").and_then(|test| test.z);
    assert!(z.unwrap().abs() < 0.1 && verdict.decision == Decision::Hold, "{verdict:#?}");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let judge = Judge::new(three()).unwrap();
    let bytes = |(verdict, state): &(Verdict, State)| {
        (serde_json::to_vec(verdict).unwrap(), serde_json::to_vec(state).unwrap())
    };
    let mut warm = State::default();
    let mut cold = State::default();
    for look in 1..12 {
        let at = snapshot(look * 6 * HOUR, vec![release(800 * look, (12 * look, 12 * look), 164 * look)]);
        let (one, other) = (judge.judge(&at, warm.clone()), judge.judge(&at, cold.clone()));
        assert_eq!(bytes(&one), bytes(&other), "look {look}");
        // The same moment again, with the state of before or of after.
        assert_eq!(bytes(&judge.judge(&at, warm)), bytes(&one));
        let again = judge.judge(&at, one.1.clone());
        assert_eq!(
            (again.0.decision, again.0.reason, again.0.looks),
            (one.0.decision, one.0.reason, one.0.looks)
        );
        warm = one.1;
        // What a restart leaves: only the bytes.
        cold = serde_json::from_slice(&serde_json::to_vec(&other.1).unwrap()).unwrap();
    }
    assert_eq!(warm.goals["conversion"].looks.times().len(), 11);
}

#[test]
fn a_wrong_policy_is_told_field_by_field() {
    let mut wrong = three();
    wrong.alpha.kill = 0.0;
    wrong.metrics.get_mut("conversion").unwrap().mde = None;
    wrong.metrics.get_mut("errors").unwrap().ceiling = Some(2.0);
    wrong.metrics.get_mut("errors").unwrap().role = Role::Goal;
    let problems = Judge::new(wrong).unwrap_err();
    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    for field in ["alpha.kill", "metrics.conversion.mde", "metrics.errors.ceiling", "metrics.errors.role"] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
    assert!(Judge::new(Policy::default()).is_err(), "no metrics");
}
