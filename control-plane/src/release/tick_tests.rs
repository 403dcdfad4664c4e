//! What releases do on what data, moment by moment.

#![allow(clippy::cast_possible_truncation, reason = "numbers of the tests, below a million")]

use super::{
    allocation::{allocation, epoch_of},
    history::History,
    prometheus::Readings,
    read,
    record::{Action, Replay},
    safety::Seen,
    snapshot::{Knowledge, OutcomesByMetric},
    spec::Spec,
    status::{Command, Phase, Status},
    tick::{Decided, Moment, is_in_force, tick},
};
use crate::ledger::{ArmObservations, ArmUnits, EpochObservations, ReleaseObservations, Statistics};
use halftone_compiler::Release;
use halftone_judge::{
    policy::{Decision, Reason},
    stats::{Grid, Histogram, Mean},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const BASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n\
    steps: [{share: 0.1, hold: {for: 10s, units: 50}}, {share: 0.5, hold: {for: 10s, units: 50}}]\n\
    watch: {for: 60s, control: 0.05}\n";
/// When the tests begin: milliseconds since the Unix epoch.
const START: u64 = 1_800_000_000_000;

/// What an arm's units did.
#[derive(Clone, Copy)]
struct Behaviour {
    errors: f64,
    latency: f64,
}

const WELL: Behaviour = Behaviour { errors: 0.02, latency: 0.05 };

/// A release in a world where everything that it wants is in force at once.
struct World {
    spec: Spec,
    status: Status,
    now_ms: u64,
    actual: Option<Release>,
    revision: u64,
    observed: BTreeMap<u64, EpochObservations>,
    decided: Vec<Decided>,
    started_ms: u64,
    history: History,
}

impl World {
    fn new(more: &str) -> Self {
        let kept = BASE
            .lines()
            .filter(|line| !more.lines().any(|other| other.split(':').next() == line.split(':').next()));
        let text = format!("{}\n{more}", kept.collect::<Vec<_>>().join("\n"));
        let spec = read(&text, Some("r")).unwrap();
        let status = Status::new(&spec, START);
        Self {
            spec,
            status,
            now_ms: START,
            actual: None,
            revision: 1,
            observed: BTreeMap::new(),
            decided: Vec::new(),
            started_ms: 0,
            history: History::default(),
        }
    }

    /// Observes units of each arm of the epoch in proportion to its share, `count` in all.
    fn observe(&mut self, count: u64, behaviour: impl Fn(&str) -> Behaviour) {
        let Some(epoch) = self.status.epochs.last() else { return };
        let shares = epoch.shares;
        let mut arms: Vec<(String, f64)> =
            epoch.candidates.iter().map(|name| (name.clone(), shares.candidate)).collect();
        arms.extend([("control".to_owned(), shares.control), ("rest".to_owned(), shares.rest)]);
        for (arm, share) in arms.into_iter().filter(|(_, share)| *share > 0.0) {
            self.observe_arm(&arm, (share * count as f64) as u64, behaviour(&arm));
        }
    }

    fn observe_arm(&mut self, arm: &str, count: u64, behaviour: Behaviour) {
        let number = self.status.epochs.last().unwrap().epoch;
        let now_ms = self.now_ms;
        let epoch = self.observed.entry(number).or_insert_with(|| EpochObservations {
            epoch: number,
            begun_ms: now_ms,
            ..EpochObservations::default()
        });
        epoch.ended_ms = now_ms;
        let arm = epoch.arms.entry(arm.to_owned()).or_default();
        let units = arm.units.units + count;
        let latencies: Vec<f64> =
            (0..units).map(|unit| behaviour.latency * (1.0 + unit as f64 / units as f64)).collect();
        let requests = Statistics {
            moments: Mean { n: 3 * units, ..Mean::default() },
            histogram: Histogram::default(),
            units: None,
        };
        let bad = |share: f64| (share * units as f64) as u64;
        *arm = ArmObservations {
            units: ArmUnits {
                units,
                both: 0,
                bad: BTreeMap::from([("error", bad(behaviour.errors)), ("nan", 0), ("range", 0)]),
                first_latency: Histogram::of(Grid::default(), &latencies),
            },
            statistics: BTreeMap::from([("error".to_owned(), requests)]),
        };
    }

    /// A moment later, with what follows from it.
    fn pass(&mut self, seconds: u64) {
        self.now_ms += 1_000 * seconds;
        let observed = ReleaseObservations {
            epochs: self.observed.values().cloned().collect(),
            ..ReleaseObservations::default()
        };
        self.history.push(self.now_ms, Arc::new(observed));
        let outcomes = OutcomesByMetric::new();
        let moment = Moment {
            known: Knowledge {
                history: &self.history,
                outcomes: &outcomes,
                prometheus: &Readings::default(),
                now_ms: self.now_ms,
            },
            actual: self.actual.as_ref(),
            answered: None,
            seen: Seen { applied_at_ms: Some(0), last_seen_ms: None, proxies: 1, started_ms: 0 },
            started_ms: self.started_ms,
        };
        let (next, decided) = tick(&self.spec, &self.status, &moment);
        self.status = next;
        for decided in &decided {
            if let Some(judged) = &decided.judged {
                let record = serde_json::to_string(judged).unwrap();
                let read: super::record::Judged = serde_json::from_str(&record).unwrap();
                assert_eq!(read.replay(), Replay::Identical, "{record}");
            }
        }
        self.decided.extend(decided);
        let wanted =
            self.status.shares(&self.spec).map(|shares| allocation(&self.spec, &self.status, shares, 0));
        if self.status.phase != Phase::Paused && !is_in_force(wanted.as_ref(), self.actual.as_ref()) {
            self.revision += 1;
            self.actual = wanted.map(|wanted| Release { epoch: self.revision, ..wanted });
            if let Some(last) = self.status.epochs.last_mut() {
                last.until_ms = Some(self.now_ms);
            }
            let epoch = self.actual.as_ref().map(|actual| epoch_of(actual, self.spec.width(), self.now_ms));
            self.status.epochs.extend(epoch);
        }
    }

    fn pass_with(&mut self, moments: u64, seconds: u64, units: u64, behaviour: impl Fn(&str) -> Behaviour) {
        for _ in 0..moments {
            self.observe(units, &behaviour);
            self.pass(seconds);
        }
    }

    fn actions(&self) -> Vec<Action> {
        self.decided.iter().map(|decided| decided.action).filter(|action| *action != Action::Note).collect()
    }

    fn last_reason(&self) -> Reason {
        self.status.candidates["v2"].verdict.as_ref().unwrap().reason
    }
}

fn well(_: &str) -> Behaviour {
    WELL
}

#[test]
fn a_sound_candidate_goes_up_is_proposed_and_settles() {
    let mut world = World::new("approval: auto\npolicy: {cycle_s: 30, look_every_s: 5}\n");
    world.pass(1);
    assert_eq!(world.status.phase, Phase::Running);
    world.pass_with(9, 1, 100, well);
    assert_eq!(world.status.step, 0, "ten seconds have not passed");
    world.pass_with(300, 1, 400, well);
    assert_eq!(world.actions(), [Action::Start, Action::Widen, Action::Promote, Action::Settle]);
    assert!(world.status.settled && world.status.winner.as_deref() == Some("v2"));
    let shares: Vec<f64> = world.status.epochs.iter().map(|epoch| epoch.shares.candidate).collect();
    assert_eq!(shares, [0.1, 0.5, 0.95, 1.0]);
}

#[test]
fn without_approval_it_waits_as_a_candidate_and_can_still_be_rolled_back() {
    let mut world = World::new("policy: {cycle_s: 30, look_every_s: 5}\n");
    world.pass_with(300, 1, 400, well);
    assert_eq!((world.status.phase, world.actions().len()), (Phase::Candidate, 3), "{:?}", world.actions());
    world.pass_with(60, 1, 400, |arm| if arm == "v2" { Behaviour { errors: 0.3, ..WELL } } else { WELL });
    assert_eq!(world.status.phase, Phase::RolledBack);
}

#[test]
fn a_fault_rolls_back_in_every_phase_with_a_candidate() {
    let faulty = |arm: &str| if arm == "v2" { Behaviour { errors: 0.5, ..WELL } } else { WELL };
    let slow = |arm: &str| if arm == "v2" { Behaviour { latency: 0.25, ..WELL } } else { WELL };
    for fault in [&faulty as &dyn Fn(&str) -> Behaviour, &slow] {
        for phase in [Phase::Running, Phase::Paused, Phase::Promoted] {
            let mut world = World::new("");
            world.pass_with(3, 1, 400, well);
            match phase {
                Phase::Paused => world.status.enter(Phase::Paused, "", world.now_ms),
                Phase::Promoted => world.status.promote("v2", "", world.now_ms),
                _ => {}
            }
            world.pass_with(40, 1, 400, fault);
            assert_eq!(world.status.phase, Phase::RolledBack, "{phase:?}: {:?}", world.last_reason());
            assert_eq!(world.actual, None);
            assert_eq!(world.last_reason(), Reason::Worse);
        }
    }
}

#[test]
fn one_of_two_candidates_is_taken_back_and_the_other_goes_on() {
    let steps =
        "steps: [{share: 0.1, hold: {for: 10s, units: 50}}, {share: 0.3, hold: {for: 10s, units: 50}}]\n";
    let mut world = World::new(&format!(
        "candidates: [v2, v3]\napproval: auto\npolicy: {{cycle_s: 30, look_every_s: 5}}\n{steps}"
    ));
    world.pass(1);
    let faulty = |arm: &str| if arm == "v3" { Behaviour { errors: 0.5, ..WELL } } else { WELL };
    world.pass_with(400, 1, 600, faulty);
    assert_eq!(
        world.actions(),
        [Action::Start, Action::Rollback, Action::Widen, Action::Promote, Action::Settle]
    );
    assert_eq!((world.status.phase, world.status.winner.as_deref()), (Phase::Promoted, Some("v2")));
    let dropped: Vec<bool> = world.status.candidates.values().map(|candidate| candidate.dropped).collect();
    assert_eq!(dropped, [false, true]);
}

#[test]
fn nothing_is_promoted_without_data_of_both_arms() {
    // No traffic at all.
    let mut world =
        World::new("policy: {cycle_s: 1, look_every_s: 1, data_deadline_s: 60}\napproval: auto\n");
    (0..50).for_each(|_| world.pass(1));
    assert_eq!(
        (world.status.step, world.status.phase, world.last_reason()),
        (0, Phase::Running, Reason::NoData)
    );
    (0..50).for_each(|_| world.pass(1));
    assert_eq!(world.status.phase, Phase::Paused, "no data until the deadline");
    // From the candidate only.
    {
        let mut world = World::new("policy: {cycle_s: 1, look_every_s: 1}\napproval: auto\n");
        world.pass(1);
        for _ in 0..100 {
            world.observe_arm("v2", 20, WELL);
            world.pass(1);
            assert_eq!(world.status.step, 0);
        }
        let decision = world.status.candidates["v2"].verdict.as_ref().unwrap().decision;
        assert!(matches!(decision, Decision::Invalid | Decision::InsufficientData), "{decision:?}");
    }
    // Stale.
    let mut world = World::new("policy: {cycle_s: 1, look_every_s: 1, stale_after_s: 3}\napproval: auto\n");
    world.pass_with(5, 1, 400, well);
    (0..60).for_each(|_| world.pass(1));
    assert_eq!((world.status.step, world.last_reason()), (0, Reason::Stale));
}

#[test]
fn a_candidate_that_nobody_hears_of_is_taken_back() {
    // From the start, and after it answered for a while, when all units were seen before.
    for begins_well in [false, true] {
        let mut world = World::new("steps: [{share: 0.1, hold: {for: 1h}}, {share: 0.5}]\n");
        world.pass(1);
        if begins_well {
            world.pass_with(20, 1, 400, well);
        }
        let mut seconds = 0;
        while world.status.phase == Phase::Running && seconds < 120 {
            seconds += 1;
            world.observe_arm("control", 3, WELL);
            world.pass(1);
            assert!(seconds > 29 || world.status.phase == Phase::Running, "it is patient");
        }
        assert_eq!(world.status.phase, Phase::RolledBack, "begins well: {begins_well}: {}", world.status.why);
        assert!(world.status.why.contains("nothing was heard of v2"), "{}", world.status.why);
    }
    // After a gap the candidate's backend comes back a little later.
    let mut world = World::new("steps: [{share: 0.1, hold: {for: 1h}}, {share: 0.5}]\n");
    world.pass(1);
    world.pass_with(20, 1, 400, well);
    (0..600).for_each(|_| world.pass(1));
    (0..20).for_each(|_| {
        world.observe_arm("control", 3, WELL);
        world.pass(1);
    });
    world.observe_arm("v2", 60, WELL);
    world.pass_with(60, 1, 400, well);
    assert_eq!(world.status.phase, Phase::Running, "{}", world.status.why);
    // Nobody is heard of: that says nothing of the candidate.
    let mut world = World::new("steps: [{share: 0.1, hold: {for: 1h}}, {share: 0.5}]\n");
    world.pass(1);
    world.pass_with(20, 1, 400, well);
    (0..600).for_each(|_| world.pass(1));
    assert_eq!(world.status.phase, Phase::Running);
}

#[test]
fn a_batch_from_another_time_makes_no_release_old() {
    let mut world = World::new("approval: auto\npolicy: {look_every_s: 60}\n");
    world.pass_with(3, 1, 400, well);
    world.observed.values_mut().for_each(|epoch| epoch.begun_ms = 1_000);
    world.pass_with(200, 1, 400, well);
    assert_eq!((world.status.phase, world.status.step), (Phase::Running, 1), "a day has not passed");
    assert!(world.status.candidates["v2"].judge.elapsed_s < 300);
}

#[test]
fn after_a_start_nothing_goes_on_by_what_was_known_before() {
    let mut world = World::new("");
    world.pass_with(5, 1, 600, well);
    // It was away for a minute, in which the time of the step passed.
    world.now_ms += 60_000;
    world.started_ms = world.now_ms;
    (0..5).for_each(|_| world.pass(1));
    assert_eq!(world.status.step, 0, "{}", world.status.why);
    world.pass_with(5, 1, 600, well);
    assert_eq!(world.status.step, 1, "{}", world.status.why);
}

#[test]
fn a_watch_that_sees_nothing_does_not_end() {
    let mut world = World::new("");
    world.pass_with(3, 1, 400, well);
    world.status.promote("v2", "", world.now_ms);
    (0..200).for_each(|_| world.pass(1));
    assert!(!world.status.settled, "nothing was seen of it");
    world.pass_with(5, 1, 400, well);
    assert!(world.status.settled);
}

#[test]
fn what_no_data_leads_to_is_the_releases_to_say() {
    for (word, phase) in [("pause", Phase::Paused), ("hold", Phase::Running), ("rollback", Phase::RolledBack)]
    {
        let mut world = World::new(&format!("policy: {{data_deadline_s: 60}}\non_no_data: {word}\n"));
        (0..200).for_each(|_| world.pass(1));
        assert_eq!(world.status.phase, phase, "{word}");
    }
}

#[test]
fn units_that_do_not_come_by_their_shares_pause_it() {
    let mut world = World::new("");
    world.pass(1);
    for _ in 0..400 {
        world.observe_arm("v2", 12, WELL);
        world.observe_arm("control", 8, WELL);
        world.observe_arm("rest", 80, WELL);
        world.pass(1);
    }
    assert_eq!((world.status.phase, world.last_reason()), (Phase::Paused, Reason::Srm));
}

#[test]
fn ramping_is_no_sample_ratio_mismatch() {
    let steps: Vec<String> = (1..=50)
        .map(|percent| format!("{{share: {}, hold: {{for: 0s, units: 1}}}}", f64::from(percent) / 100.0))
        .collect();
    let mut world = World::new(&format!("steps: [{}]\n", steps.join(", ")));
    world.pass_with(200, 1, 2_000, well);
    assert_eq!(world.status.step, 49, "{}", world.status.why);
    assert_eq!(world.status.phase, Phase::Running, "{}", world.status.why);
}

#[test]
fn a_backend_that_lies_is_never_believed() {
    let mut world = World::new("policy: {cycle_s: 1, look_every_s: 1}\napproval: auto\n");
    world.pass(1);
    for _ in 0..60 {
        world.observe(400, well);
        // More errors than units.
        for epoch in world.observed.values_mut() {
            let Some(arm) = epoch.arms.get_mut("v2") else { continue };
            arm.units.bad.insert("error", arm.units.units + 1);
        }
        world.pass(1);
        assert_eq!((world.status.step, world.status.phase), (0, Phase::Running));
    }
    assert_eq!(world.last_reason(), Reason::MetricLeftOut);
    // A clock that is far ahead, and then is not.
    let mut world = World::new("");
    world.pass_with(3, 1, 400, well);
    let before = world.status.candidates["v2"].judge.elapsed_s;
    world
        .observed
        .values_mut()
        .for_each(|epoch| (epoch.begun_ms, epoch.ended_ms) = (START + 3_600_000, START + 3_600_000));
    world.pass(1);
    assert!(world.status.candidates["v2"].judge.elapsed_s >= before, "time does not go back");
}

#[test]
fn other_rules_begin_another_epoch_and_a_refused_revision_pauses() {
    let mut world = World::new("");
    world.pass_with(3, 1, 400, well);
    world.revision += 1;
    world.actual.as_mut().unwrap().epoch = world.revision;
    world.pass(1);
    assert_eq!((world.status.phase, world.status.epochs.len()), (Phase::Running, 2));
    // The next step is refused by every proxy: what was before is in force again.
    let before = world.actual.clone();
    world.pass_with(30, 1, 400, well);
    assert_eq!(world.status.step, 1);
    world.actual = before;
    world.pass(1);
    assert_eq!(world.status.phase, Phase::Paused);
    let epochs = world.status.epochs.len();
    world.pass_with(5, 1, 400, well);
    assert_eq!(
        (world.status.phase, world.status.epochs.len()),
        (Phase::Paused, epochs),
        "it is noticed once"
    );
    let numbers: BTreeSet<u64> = world.status.epochs.iter().map(|epoch| epoch.epoch).collect();
    assert_eq!(numbers.len(), epochs, "each epoch is there once: {:?}", world.status.epochs);
    world.status.command(Command::Resume, "", &world.spec, world.now_ms).unwrap();
    world.pass_with(5, 1, 400, well);
    assert_eq!((world.status.phase, world.status.epochs.len()), (Phase::Running, epochs + 1));
    assert!(!matches!(world.last_reason(), Reason::Input | Reason::Srm), "{}", world.status.why);
}

#[test]
fn the_same_data_in_any_order_give_the_same_bytes() {
    let run = |order: [&str; 3]| {
        let mut world = World::new("");
        world.pass(1);
        for _ in 0..20 {
            for arm in order {
                world.observe_arm(arm, if arm == "rest" { 320 } else { 40 }, WELL);
            }
            world.pass(1);
        }
        serde_json::to_vec(&world.status).unwrap()
    };
    assert_eq!(run(["v2", "control", "rest"]), run(["rest", "control", "v2"]));
}
