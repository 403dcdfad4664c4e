//! The policy `classic`: each row of its table, and each gap that it closes.

use crate::common::*;
use halftone_judge::{
    Judge, Policy, State, Verdict,
    fixed::Better,
    policy::{Action, ClassicSettings, Decision, Effect, Epoch, Metric, PolicyKind, Reason, Status},
};

const PERIOD: u64 = 6 * HOUR;
const MINIMUM: u64 = 7 * DAY;

/// A goal in absolute terms: MDE .02.
fn conversion() -> Metric {
    Metric { mde: Some(Effect::Absolute(0.02)), ..goal() }
}

fn classic() -> Policy {
    let classic = ClassicSettings { minimum_s: Some(MINIMUM), ..ClassicSettings::default() };
    Policy {
        policy: PolicyKind::Classic,
        classic,
        ..policy(&[("conversion", conversion()), ("errors", errors())])
    }
}

/// 20 % in control, and `share` in treatment.
fn data(units: u64, share: f64) -> Epoch {
    let treated = (units as f64 * share).round() as u64;
    epoch(
        units,
        vec![
            ("conversion", measured(proportion(units, units / 5), proportion(units, treated))),
            ("errors", measured(proportion(units, units / 100), proportion(units, units / 100))),
        ],
    )
}

struct Release {
    judge: Judge,
    state: State,
}

impl Release {
    fn new(policy: Policy) -> Self {
        Self { judge: Judge::new(policy).unwrap(), state: State::default() }
    }

    fn at(&mut self, elapsed: u64, epoch: Epoch) -> Verdict {
        let (verdict, state) = self.judge.judge(&snapshot(elapsed, vec![epoch]), self.state.clone());
        self.state = state;
        verdict
    }
}

fn once(elapsed: u64, units: u64, share: f64) -> Verdict {
    Release::new(classic()).at(elapsed, data(units, share))
}

#[test]
fn rows_of_the_table_in_their_order() {
    let killed = {
        let mut epoch = data(2_000, 0.2);
        epoch.metrics.insert("errors".to_owned(), measured(proportion(2_000, 2), proportion(2_000, 60)));
        Release::new(classic()).at(60, epoch)
    };
    let mismatch = {
        let mut epoch = data(2_000, 0.2);
        epoch.units.control = 3_000;
        Release::new(classic()).at(60, epoch)
    };
    for (row, verdict, decision, reason, action) in [
        (2, killed, Decision::Rollback, Reason::Worse, Action::Rollback),
        (3, mismatch, Decision::Invalid, Reason::Srm, Action::Pause),
        (4, once(MINIMUM, 100, 0.2), Decision::InsufficientData, Reason::TooFew, Action::None),
        (5, once(PERIOD, 5_000, 0.15), Decision::Hold, Reason::RollbackReview, Action::Pause),
        (7, once(MINIMUM - PERIOD, 5_000, 0.25), Decision::Hold, Reason::Collecting, Action::None),
        (10, once(MINIMUM, 5_000, 0.25), Decision::Promote, Reason::C1, Action::Candidate),
        (11, once(MINIMUM * 3 / 2, 5_000, 0.2), Decision::Hold, Reason::Futile, Action::Abort),
        // .01 ≤ p < .05 goes on until the maximum.
        (12, once(MINIMUM * 3 / 2, 5_000, 0.219), Decision::Hold, Reason::Collecting, Action::None),
        (12, once(MINIMUM * 3, 5_000, 0.219), Decision::Hold, Reason::Expired, Action::Abort),
        (13, once(MINIMUM, 5_000, 0.2), Decision::Hold, Reason::Collecting, Action::None),
    ] {
        let told = (verdict.decision, verdict.reason, verdict.action);
        assert_eq!(told, (decision, reason, action), "row {row}: {}", verdict.sentence);
    }
    // Not between two periods.
    let mut release = Release::new(classic());
    release.at(MINIMUM, data(5_000, 0.2));
    assert_eq!(release.at(MINIMUM + 5, data(6_000, 0.3)).reason, Reason::Collecting);
}

#[test]
fn harm_can_be_rolled_back_at_once() {
    let mut policy = classic();
    policy.classic.rollback_on_harm = true;
    let verdict = Release::new(policy).at(PERIOD, data(5_000, 0.15));
    assert_eq!((verdict.decision, verdict.action), (Decision::Rollback, Action::Rollback));
}

#[test]
fn the_kill_side_goes_only_with_an_explicit_no() {
    let mut epoch = data(2_000, 0.2);
    epoch.metrics.insert("errors".to_owned(), measured(proportion(2_000, 2), proportion(2_000, 60)));
    let off = Policy { kill: false, ..classic() };
    assert_eq!(Release::new(off).at(60, epoch).decision, Decision::Hold);
}

/// p is pooled and adjusted, the interval is neither: they can contradict each other.
#[test]
fn small_p_and_an_interval_around_0_is_contradictory() {
    let mut policy = classic();
    // An interval far wider than p asks for.
    policy.classic.alpha = 1e-6;
    let verdict = Release::new(policy).at(MINIMUM, data(5_000, 0.222));
    assert_eq!((verdict.reason, verdict.action), (Reason::Contradictory, Action::Pause));
}

#[test]
fn three_periods_above_the_mde_in_a_row() {
    let late = MINIMUM * 3 / 2;
    let mut release = Release::new(classic());
    for period in 0..2 {
        let verdict = release.at(late + period * PERIOD, data(5_000 + 100 * period, 0.25));
        assert_eq!(verdict.reason, Reason::C1, "C1 fires first when p is small");
        assert_eq!(release.state.streaks["conversion"], u32::try_from(period).unwrap() + 1);
    }
    let verdict = release.at(late + 2 * PERIOD, data(5_300, 0.25));
    assert_eq!((verdict.reason, release.state.streaks["conversion"]), (Reason::C2, 3));
    // A period without new units, and a gap, start again.
    release.at(late + 3 * PERIOD, data(5_300, 0.25));
    assert_eq!(release.state.streaks["conversion"], 0);
    release.at(late + 4 * PERIOD, data(5_400, 0.25));
    release.at(late + 6 * PERIOD, data(5_500, 0.25));
    assert_eq!(release.state.streaks["conversion"], 1);
    // Below the MDE as well.
    release.at(late + 7 * PERIOD, data(5_600, 0.21));
    assert_eq!(release.state.streaks["conversion"], 0);
}

#[test]
fn a_candidate_can_be_degraded_come_back_and_be_withdrawn() {
    let mut release = Release::new(classic());
    assert_eq!(release.at(MINIMUM, data(5_000, 0.25)).reason, Reason::C1);
    assert_eq!(release.state.status, Status::Candidate);
    let degraded = release.at(MINIMUM + PERIOD, data(6_000, 0.225));
    assert_eq!((degraded.reason, degraded.action), (Reason::DegradedToAb, Action::Freeze));
    assert_eq!(release.state.status, Status::Degraded);
    assert_eq!(release.at(MINIMUM + 2 * PERIOD, data(7_000, 0.25)).reason, Reason::C1);
    assert_eq!(release.state.status, Status::Candidate);
    let withdrawn = release.at(MINIMUM + 3 * PERIOD, data(8_000, 0.205));
    assert_eq!((withdrawn.reason, withdrawn.action), (Reason::Withdrawn, Action::Resume));
    assert_eq!(release.state.status, Status::Running);
}

#[test]
fn lower_can_be_better() {
    let mut policy = classic();
    policy.metrics.get_mut("conversion").unwrap().better = Better::Lower;
    assert_eq!(Release::new(policy.clone()).at(MINIMUM, data(5_000, 0.15)).reason, Reason::C1);
    assert_eq!(Release::new(policy).at(MINIMUM, data(5_000, 0.25)).reason, Reason::RollbackReview);
}

#[test]
fn several_goals_are_adjusted_for() {
    let mut policy = classic();
    policy.metrics.insert("rating".to_owned(), conversion());
    let mut epoch = data(5_000, 0.2215);
    let flat = measured(proportion(5_000, 1_000), proportion(5_000, 1_000));
    epoch.metrics.insert("rating".to_owned(), flat);
    // p is .0085 alone, and twice that with Holm.
    assert_eq!(once(MINIMUM, 5_000, 0.2215).reason, Reason::C1);
    assert_eq!(Release::new(policy).at(MINIMUM, epoch).reason, Reason::Collecting);
}

#[test]
fn every_verdict_says_what_the_rule_is_worth() {
    let mut long = classic();
    long.classic.maximum_s = Some(21 * DAY);
    long.classic.minimum_s = Some(PERIOD);
    let warning = Release::new(long).at(60, data(2_000, 0.2)).warning.unwrap();
    assert!(
        warning.contains("not valid under repeated looks") && warning.contains("5.1 % of releases"),
        "{warning}"
    );
    assert!(judge(&policy(&[("errors", errors())]), &snapshot(60, vec![data(2_000, 0.2)])).warning.is_none());
}

#[test]
fn the_minimum_duration_follows_from_the_plan() {
    let mut policy = classic();
    policy.classic.minimum_s = None;
    let mut release = Release::new(policy);
    // 9,344 units per arm find .02 of .2 at p < .01 with 80 %; 1,000 a day make it 10 whole days.
    release.at(PERIOD, data(250, 0.2));
    let days = release.state.planned_s.unwrap() / DAY as f64;
    assert_eq!(days, 10.0);
}
