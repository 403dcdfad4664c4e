//! What clients are told of a decision: its record without the numbers that it takes to compute it again.

use super::{record::Action, status::Phase};
use halftone_judge::policy::{Decision, Reason};
use serde::{Deserialize, Serialize};

/// A decision, in short. It is read from a record, also from one of an older build whose numbers are not understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct Event {
    /// The record's number, as a text. Later events have larger ones.
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
    /// The revision that the action made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// From the decision to return to stable until no proxy routed to a candidate, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_safe_ms: Option<u64>,
    /// The candidate that the judge spoke of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Its verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The verdict's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A record, as far as an event is made of it.
#[derive(Deserialize)]
struct Kept {
    id: String,
    release: String,
    at_ms: u64,
    by: String,
    action: Action,
    why: String,
    from: Phase,
    to: Phase,
    step: usize,
    revision: Option<u64>,
    time_to_safe_ms: Option<u64>,
    judged: Option<KeptJudged>,
}

#[derive(Deserialize)]
struct KeptJudged {
    candidate: String,
    verdict: KeptVerdict,
}

#[derive(Deserialize)]
struct KeptVerdict {
    decision: Decision,
    reason: Reason,
}

impl From<Kept> for Event {
    fn from(kept: Kept) -> Self {
        let (candidate, verdict) =
            kept.judged.map_or((None, None), |judged| (Some(judged.candidate), Some(judged.verdict)));
        let (decision, reason) =
            verdict.map_or((None, None), |verdict| (Some(verdict.decision), Some(verdict.reason)));
        Self {
            id: kept.id,
            release: kept.release,
            at_ms: kept.at_ms,
            by: kept.by,
            action: kept.action,
            why: kept.why,
            from: kept.from,
            to: kept.to,
            step: kept.step,
            revision: kept.revision,
            time_to_safe_ms: kept.time_to_safe_ms,
            candidate,
            decision,
            reason,
        }
    }
}
