//! Decision records: what was known, what followed from it, and what was done.

use super::status::{Command, Phase};
use halftone_judge::{Judge, Policy, Snapshot, State, Verdict};
use serde::{Deserialize, Serialize};

/// What a release did, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// Its number, as a text: it has more digits than numbers in JavaScript.
    pub id: String,
    /// The release.
    pub release: String,
    /// When: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who decided: `judge`, `controller`, or the address of a person.
    pub by: String,
    /// What was done.
    pub action: Action,
    /// Why, for people.
    pub why: String,
    /// Where the release was before.
    pub from: Phase,
    /// Where it is now.
    pub to: Phase,
    /// The step of the ramp, from 1, that it is in now.
    pub step: usize,
    /// The revision that the action made; missing when it changed no allocation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u64>,
    /// From the decision to return to stable until no proxy routed to a candidate, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_to_safe_ms: Option<u64>,
    /// What the judge said, with everything that it takes to have it say that again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub judged: Option<Judged>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The release was created.
    Create,
    /// Its text was replaced.
    Update,
    /// Nothing but noting a verdict.
    Note,
    /// The first step began.
    Start,
    /// The next step began.
    Widen,
    /// The candidate waits for approval.
    Propose,
    /// What comes next was approved.
    Approve,
    /// The candidate waits for nothing any more: it runs again.
    Withdraw,
    /// The candidate is what stable was.
    Promote,
    /// The watch after the promotion is over.
    Settle,
    /// The shares stay until a person says what to do.
    Pause,
    /// It goes on.
    Resume,
    /// It ended without a change.
    Abort,
    /// It was taken back.
    Rollback,
    /// No proxy routes to a candidate any more.
    Safe,
}

impl Action {
    /// What a command does that led to a phase.
    #[must_use]
    pub(super) fn of(command: Command, phase: Phase) -> Self {
        match command {
            Command::Pause => Self::Pause,
            Command::Resume => Self::Resume,
            Command::Approve if phase == Phase::Promoted => Self::Promote,
            Command::Approve => Self::Approve,
            Command::Promote => Self::Promote,
            Command::Abort => Self::Abort,
            Command::Rollback => Self::Rollback,
        }
    }
}

/// A verdict, and what it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// About which candidate.
    pub candidate: String,
    /// The policy.
    pub policy: Policy,
    /// What was known.
    pub snapshot: Snapshot,
    /// What was remembered.
    pub before: State,
    /// The verdict.
    pub verdict: Verdict,
    /// What is remembered now.
    pub after: State,
}

/// What a verdict is when it is computed again.
#[derive(Clone, Debug, PartialEq)]
pub enum Replay {
    /// The same, byte for byte.
    Identical,
    /// Another one.
    Different(Box<Verdict>),
    /// The policy is one that this build refuses.
    Refused(String),
}

impl Judged {
    /// Computes the verdict again, from the record alone.
    #[must_use]
    pub fn replay(&self) -> Replay {
        let judge = match Judge::new(self.policy.clone()) {
            Ok(judge) => judge,
            Err(problems) => {
                let problems =
                    problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message));
                return Replay::Refused(problems.collect::<Vec<_>>().join("; "));
            }
        };
        let (verdict, after) = judge.judge(&self.snapshot, self.before.clone());
        let bytes = |verdict: &Verdict, state: &State| serde_json::to_vec(&(verdict, state)).ok();
        if bytes(&verdict, &after) == bytes(&self.verdict, &self.after) {
            Replay::Identical
        } else {
            Replay::Different(Box::new(verdict))
        }
    }
}
