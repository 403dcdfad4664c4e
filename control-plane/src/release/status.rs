//! Where a release is, and what may happen to it there.

use super::{gate::Held, safety::Safety, shares::Shares, silence::Silence, spec::Spec};
use clap::ValueEnum;
use halftone_judge::{State, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was created, and takes no requests yet.
    Pending,
    /// It goes up its steps.
    Running,
    /// The judge would promote it; a person has to approve.
    Candidate,
    /// Its shares stay as they are until a person says what to do. It is still rolled back.
    Paused,
    /// A candidate is what stable was. In the watch that follows it is still rolled back.
    Promoted,
    /// It was taken back, because a candidate was worse or a person wanted it.
    RolledBack,
    /// It ended without a change.
    Aborted,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Candidate,
        Self::Paused,
        Self::Promoted,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Candidate => "candidate",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing is tried any more.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::RolledBack | Self::Aborted)
    }
}

/// What people may want of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Keep the shares as they are.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Approve the next step, or the promotion that the judge proposes.
    Approve,
    /// Promote whatever the judge says.
    Promote,
    /// End without a change.
    Abort,
    /// Return to stable.
    Rollback,
}

impl Command {
    /// Its word in paths and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
        }
    }
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

/// An interval in which a release's allocation did not change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number: the revision that began it.
    pub epoch: u64,
    /// The shares.
    pub shares: Shares,
    /// When it began: milliseconds since the Unix epoch, as all times here.
    pub since_ms: u64,
    /// When it ended.
    pub until_ms: Option<u64>,
    /// The candidates that have an arm in it, whether or not they were dropped.
    pub candidates: Vec<String>,
}

/// A candidate, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// It was taken back while others go on: its units are with stable.
    pub dropped: bool,
    /// What the judge remembers of it.
    pub judge: State,
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// When that was.
    #[serde(skip)]
    pub judged_at_ms: Option<u64>,
    /// What was heard of it last.
    #[serde(skip)]
    pub silence: Silence,
}

/// Where a release is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Counts its changes.
    pub generation: u64,
    /// When it was created.
    pub created_at_ms: u64,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub since_ms: u64,
    /// Why, for people.
    pub why: String,
    /// The phase that a pause goes back to.
    pub paused_in: Option<Phase>,
    /// The step of the ramp, from 0.
    pub step: usize,
    /// When it began.
    pub step_since_ms: u64,
    /// Whether a person approved what comes next.
    pub approved: bool,
    /// The candidate that was promoted, or is to be.
    pub winner: Option<String>,
    /// The watch after the promotion is over.
    pub settled: bool,
    /// What it waits for before it goes on, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Held>,
    /// Its epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Its candidates, by name.
    pub candidates: BTreeMap<String, Candidate>,
    /// How the return to stable went.
    pub safety: Option<Safety>,
}

impl Status {
    /// Of a new release.
    #[must_use]
    pub fn new(spec: &Spec, now_ms: u64) -> Self {
        Self {
            generation: 1,
            created_at_ms: now_ms,
            phase: Phase::Pending,
            since_ms: now_ms,
            why: "it was created".to_owned(),
            paused_in: None,
            step: 0,
            step_since_ms: now_ms,
            approved: false,
            winner: None,
            settled: false,
            gate: None,
            epochs: Vec::new(),
            candidates: spec.candidates.iter().map(|name| (name.clone(), Candidate::default())).collect(),
            safety: None,
        }
    }

    /// The shares that it is to have; `None` when it takes no requests.
    #[must_use]
    pub fn shares(&self, spec: &Spec) -> Option<Shares> {
        match self.phase {
            Phase::Pending | Phase::RolledBack | Phase::Aborted => None,
            Phase::Promoted if self.settled => Some(Shares::all()),
            Phase::Promoted => Some(Shares::of_watch(spec)),
            Phase::Paused if self.paused_in == Some(Phase::Pending) => None,
            Phase::Running | Phase::Candidate | Phase::Paused => Some(Shares::of_step(spec, self.step)),
        }
    }

    /// The candidates that have a share of their own.
    pub fn tried(&self) -> impl Iterator<Item = &str> {
        let promoted = self.phase == Phase::Promoted;
        self.candidates
            .iter()
            .filter(
                move |(name, candidate)| {
                    if promoted { self.winner.as_ref() == Some(*name) } else { !candidate.dropped }
                },
            )
            .map(|(name, _)| name.as_str())
    }

    /// Whether this is the last step.
    #[must_use]
    pub fn is_last_step(&self, spec: &Spec) -> bool {
        self.step + 1 >= spec.steps.len()
    }

    /// It is in another phase now.
    pub fn enter(&mut self, phase: Phase, why: impl Into<String>, now_ms: u64) {
        self.paused_in = (phase == Phase::Paused).then_some(self.phase);
        self.phase = phase;
        self.why = why.into();
        self.since_ms = now_ms;
        self.approved = false;
        self.gate = None;
    }

    /// The first step begins.
    pub fn start(&mut self, now_ms: u64) {
        self.enter(Phase::Running, "the first step began", now_ms);
        self.step_since_ms = now_ms;
    }

    /// The next step begins.
    pub fn widen(&mut self, why: &str, now_ms: u64) {
        self.step += 1;
        self.step_since_ms = now_ms;
        self.enter(Phase::Running, why, now_ms);
    }

    /// A candidate becomes what stable was.
    pub fn promote(&mut self, winner: &str, why: impl Into<String>, now_ms: u64) {
        self.enter(Phase::Promoted, why, now_ms);
        self.winner = Some(winner.to_owned());
    }

    /// A candidate is taken back; with the last one the release is.
    pub fn roll_back(&mut self, candidate: &str, why: impl Into<String>, now_ms: u64) {
        let why = why.into();
        let others = self.tried().any(|other| other != candidate);
        if let Some(known) = self.candidates.get_mut(candidate) {
            known.dropped = true;
        }
        if others {
            self.why = why;
            if self.winner.as_deref() == Some(candidate) {
                // Nobody is proposed any more: the others go on.
                self.winner = None;
                match self.phase {
                    Phase::Candidate => self.phase = Phase::Running,
                    Phase::Paused => self.paused_in = Some(Phase::Running),
                    _ => {}
                }
            }
        } else {
            self.enter(Phase::RolledBack, why, now_ms);
        }
    }

    /// Whether the release may go on by another text.
    ///
    /// # Errors
    /// When that would change what was observed until now.
    pub fn may_become(&self, spec: &Spec, other: &Spec) -> Result<(), NotAllowed> {
        if self.phase.is_ended() || self.phase == Phase::Promoted {
            let message = format!("the release is {}: create another one", self.phase.name());
            return Err(NotAllowed(message));
        }
        let shape = |of: &Spec| {
            let names = [&of.ruleset, &of.stable].map(Clone::clone);
            (names, of.candidates.clone(), of.eligible.clone(), of.layer.clone(), of.range, of.before.clone())
        };
        let gone = |of: &Spec| of.steps.iter().take(self.step + 1).map(|step| step.share).collect::<Vec<_>>();
        let metrics = |of: &Spec| {
            let kinds =
                of.policy().metrics.iter().map(|(name, metric)| (name.clone(), metric.kind, metric.window_s));
            (kinds.collect::<Vec<_>>(), of.sources.clone())
        };
        for (same, what) in [
            (shape(spec) == shape(other), "ruleset, stable, candidates, eligible, layer, range and before"),
            (
                self.phase == Phase::Pending || gone(spec) == gone(other),
                "the shares of steps that were begun",
            ),
            (metrics(spec) == metrics(other), "which metrics there are, their kinds, windows and sources"),
        ] {
            if !same {
                let message =
                    format!("a release that was created keeps {what}: abort it and create another one");
                return Err(NotAllowed(message));
            }
        }
        Ok(())
    }

    /// What a person wants. Nothing has changed when it is refused.
    ///
    /// # Errors
    /// When the phase does not allow it; the message says what does.
    pub fn command(
        &mut self,
        command: Command,
        why: &str,
        spec: &Spec,
        now_ms: u64,
    ) -> Result<(), NotAllowed> {
        use Phase::{Aborted, Candidate, Paused, Pending, Promoted, RolledBack, Running};
        let refused = |instead: &str| {
            let (command, phase) = (command.name(), self.phase.name());
            Err(NotAllowed(format!("the release is {phase} and cannot take `{command}`: {instead}")))
        };
        let ended = "create another release to try again";
        match (command, self.phase) {
            (_, RolledBack | Aborted) => return refused(ended),
            (Command::Rollback, Pending) => return refused("nothing was changed yet; `abort` ends it"),
            (Command::Rollback, _) => {
                for candidate in self.candidates.values_mut() {
                    candidate.dropped = true;
                }
                self.enter(RolledBack, why, now_ms);
            }
            (Command::Abort | Command::Promote | Command::Pause, Promoted) => {
                return refused("the candidate is stable already; `rollback` takes it back");
            }
            (Command::Approve | Command::Resume, Promoted) => {
                return refused("there is nothing left to wait for");
            }
            (Command::Abort, _) => self.enter(Aborted, why, now_ms),
            (Command::Pause, Paused) => return refused("`resume` lets it go on"),
            (Command::Pause, Pending | Running | Candidate) => self.enter(Paused, why, now_ms),
            (Command::Resume, Paused) => {
                let back = self.paused_in.unwrap_or(Running);
                self.enter(back, why, now_ms);
            }
            (Command::Resume, _) => return refused("only a paused release is resumed"),
            (Command::Promote, Pending) => {
                return refused("it has not begun, and nothing is known of the candidate");
            }
            (Command::Promote, Paused) if self.paused_in == Some(Pending) => {
                return refused("it has not begun, and nothing is known of the candidate");
            }
            (Command::Promote, Running | Candidate | Paused) => {
                let tried: Vec<&str> = self.tried().collect();
                let winner = match (&self.winner, tried.as_slice()) {
                    (Some(winner), _) => winner.clone(),
                    (None, [only]) => (*only).to_owned(),
                    _ => {
                        return refused(
                            "there are several candidates, and none has won: roll it back, or wait",
                        );
                    }
                };
                self.promote(&winner, why, now_ms);
            }
            (Command::Approve, Candidate) => {
                let Some(winner) = self.winner.clone() else { return refused("no candidate has won") };
                self.promote(&winner, why, now_ms);
            }
            (Command::Approve, Running) => {
                let wants = spec.steps.get(self.step).is_some_and(|step| step.hold.approval);
                if !wants {
                    return refused("this step waits for no approval");
                }
                if self.approved {
                    return refused("it was approved already");
                }
                self.approved = true;
            }
            (Command::Approve, Pending | Paused) => return refused("`resume` it first"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::read;

    fn spec() -> Spec {
        let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n\
                    steps: [{share: 0.1, hold: {approval: true}}, {share: 0.5}]\n";
        read(text, Some("r")).unwrap()
    }

    fn at(phase: Phase) -> Status {
        let mut status = Status::new(&spec(), 0);
        if phase == Phase::Candidate {
            status.winner = Some("v2".to_owned());
        }
        match phase {
            Phase::Promoted => status.promote("v2", "", 1),
            Phase::Paused => {
                status.start(1);
                status.enter(Phase::Paused, "", 1);
            }
            other => status.enter(other, "", 1),
        }
        status
    }

    #[test]
    fn each_command_is_taken_where_it_makes_sense_and_refused_elsewhere() {
        use Command::*;
        use Phase as P;
        let all = [P::Pending, P::Running, P::Candidate, P::Paused, P::Promoted, P::RolledBack, P::Aborted];
        let table: [(Command, [Option<Phase>; 7]); 6] = [
            (Pause, [Some(P::Paused), Some(P::Paused), Some(P::Paused), None, None, None, None]),
            (Resume, [None, None, None, Some(P::Running), None, None, None]),
            (Approve, [None, Some(P::Running), Some(P::Promoted), None, None, None, None]),
            (Promote, [None, Some(P::Promoted), Some(P::Promoted), Some(P::Promoted), None, None, None]),
            (
                Abort,
                [Some(P::Aborted), Some(P::Aborted), Some(P::Aborted), Some(P::Aborted), None, None, None],
            ),
            (
                Rollback,
                [
                    None,
                    Some(P::RolledBack),
                    Some(P::RolledBack),
                    Some(P::RolledBack),
                    Some(P::RolledBack),
                    None,
                    None,
                ],
            ),
        ];
        for (command, outcomes) in table {
            for (phase, wanted) in all.into_iter().zip(outcomes) {
                let before = at(phase);
                let mut after = before.clone();
                match after.command(command, "because", &spec(), 2) {
                    Ok(()) => assert_eq!(Some(after.phase), wanted, "{command:?} while {phase:?}"),
                    Err(refused) => {
                        assert_eq!(wanted, None, "{command:?} while {phase:?}");
                        assert_eq!(after, before, "{command:?} while {phase:?}");
                        assert!(refused.0.contains(phase.name()) && refused.0.contains(command.name()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_pause_before_the_beginning_is_no_way_around_it() {
        let mut status = at(Phase::Pending);
        status.command(Command::Pause, "", &spec(), 2).unwrap();
        assert!(status.command(Command::Promote, "", &spec(), 3).is_err());
        status.command(Command::Resume, "", &spec(), 4).unwrap();
        assert_eq!(status.phase, Phase::Pending);
    }

    #[test]
    fn a_pause_goes_back_to_where_it_was() {
        for phase in [Phase::Pending, Phase::Running, Phase::Candidate] {
            let mut status = at(phase);
            let shares = status.shares(&spec());
            status.command(Command::Pause, "", &spec(), 2).unwrap();
            assert_eq!(status.shares(&spec()), shares, "a pause moves nobody");
            status.command(Command::Resume, "", &spec(), 3).unwrap();
            assert_eq!((status.phase, status.shares(&spec())), (phase, shares));
        }
    }

    #[test]
    fn one_of_several_candidates_can_be_taken_back() {
        let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2, v3]\nsteps: [{share: 0.2}]\n";
        let mut status = Status::new(&read(text, Some("r")).unwrap(), 0);
        status.start(1);
        status.roll_back("v3", "worse", 2);
        assert_eq!((status.phase, status.tried().collect::<Vec<_>>()), (Phase::Running, vec!["v2"]));
        // The one that was proposed: nobody can be promoted any more by that.
        let mut proposed = status.clone();
        proposed.candidates.get_mut("v3").unwrap().dropped = false;
        proposed.winner = Some("v2".to_owned());
        for phase in [Phase::Candidate, Phase::Paused] {
            let mut status = proposed.clone();
            status.enter(Phase::Candidate, "", 3);
            if phase == Phase::Paused {
                status.enter(Phase::Paused, "", 3);
            }
            status.roll_back("v2", "worse", 4);
            let back = if phase == Phase::Paused { status.paused_in } else { Some(status.phase) };
            assert_eq!((back, &status.winner), (Some(Phase::Running), &None));
        }
        status.roll_back("v2", "worse", 3);
        assert_eq!(status.phase, Phase::RolledBack);
    }
}
