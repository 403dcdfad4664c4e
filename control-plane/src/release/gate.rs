//! Gates: other programs that are asked before a release goes on, and may hold it.

use super::{record::Action, spec::Spec, status::Status};
use serde::{Deserialize, Serialize};

/// What gates are asked: whether a release may go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The candidate that goes on.
    pub candidate: String,
    /// How: `widen`, `propose` or `promote`.
    pub action: Action,
    /// The step of the ramp, from 0, that it is in.
    pub step: usize,
    /// The share of the units that the candidate is to have; for a proposal, what it has.
    pub share: f64,
    /// Since when the release is where it is: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why, for people.
    pub verdict: String,
}

impl Question {
    /// Whether an answer to one is an answer to the other. Numbers in the verdict move without a change.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let of =
            |question: &Self| (question.candidate.clone(), question.action, question.step, question.since_ms);
        of(self) == of(other)
    }
}

/// What the gates say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of them let it go on.
    Open,
    /// One does not, or said nothing that could be understood: which, and why.
    Closed(String),
}

/// An answer, and what it is the answer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What was asked.
    pub question: Question,
    /// What was said.
    pub answer: Answer,
}

/// A release that waits for its gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What they are asked.
    pub question: Question,
    /// What it waits for, or who does not let it go on, and why.
    pub why: String,
    /// Whether a gate said no, or nothing that could be understood.
    pub refused: bool,
}

impl Held {
    /// Whether a proposal that waits is to be made when the gates agree. The judge speaks of it at a look only.
    #[must_use]
    pub(super) fn is_proposal(&self, status: &Status) -> bool {
        self.question.action != Action::Widen && self.question.since_ms == status.since_ms
    }
}

/// Whether the gates let a release go on; if not, it waits for them from here on. What a person approved needs none.
pub(super) fn passes(
    spec: &Spec,
    status: &mut Status,
    answered: Option<&Answered>,
    question: Question,
) -> bool {
    let approved = status.approved && question.action == Action::Widen;
    if spec.gates.is_empty() || approved {
        return true;
    }
    let answered = answered.filter(|answered| answered.question.is_same(&question));
    let (why, refused) = match answered.map(|answered| &answered.answer) {
        Some(Answer::Open) => return true,
        Some(Answer::Closed(why)) => (why.clone(), true),
        None => (format!("the answer of its gates: {}", spec.gates.join(", ")), false),
    };
    status.gate = Some(Held { question, why, refused });
    false
}
