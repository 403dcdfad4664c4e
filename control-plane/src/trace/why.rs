//! Why a request got its target: by the ruleset as it was in the revision that it was decided by, whatever became of it since.

use super::{
    forms::Forms,
    sentence::{Slot, sentence},
};
use crate::{
    release::Event,
    store::{Action, Change, Revision, Store, StoreError},
};
use halftone_compiler::{Compiled, Release, written};
use halftone_proto::{CLOCK_TOLERANCE_MS, v1::EvaluationContext};
use halftone_rules::bucket::BUCKETS;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a request got its target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// In a sentence.
    pub sentence: String,
    /// The change that brought the ruleset as it was then; missing when that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ruleset: Option<Origin>,
    /// The rule in the ruleset's text; missing when no rule of the text took it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<RuleText>,
    /// The buckets that the unit's is among; missing when the rule did not split.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub buckets: Option<Buckets>,
    /// The release that the rule is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub release: Option<OfRelease>,
}

/// A change of a ruleset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The revision that it made.
    pub revision: u64,
    /// When: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was done.
    pub action: Action,
    /// By whom.
    pub by: String,
}

/// A rule as its author wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleText {
    /// The line of the ruleset's text that it begins in.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A range of buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buckets {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// The share of all, from 0 to 1.
    pub share: f64,
}

/// A release in an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfRelease {
    /// What it took of the ruleset in that epoch.
    pub allocation: Release,
    /// The change that began the epoch; missing when it is not known any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub began: Option<Origin>,
    /// The decision that made that change, of this release or of another one of the ruleset: it has its `revision`. Where none did, as
    /// the ruleset was uploaded, the last one of this release before. Missing when it was deleted with its release.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<Event>,
}

/// Bytes of rulesets that are compiled for one answer: three of the largest, or hundreds of usual ones. A trace may have a hundred
/// requests, each decided by another revision.
const MOST_COMPILED: usize = 8 << 20;

/// Explains decisions by what a store knows.
pub(crate) struct Explainer<'a> {
    store: &'a dyn Store,
    forms: &'a Forms,
    /// Whether nobody waits for the answer any more.
    abandoned: &'a AtomicBool,
    /// The newest revision.
    newest: u64,
    /// Bytes of rulesets that were compiled.
    compiled: usize,
}

impl<'a> Explainer<'a> {
    /// # Errors
    /// When the store does not answer.
    pub(crate) fn new(
        store: &'a dyn Store,
        forms: &'a Forms,
        abandoned: &'a AtomicBool,
    ) -> Result<Self, StoreError> {
        let newest = store.revisions(None, 1)?.first().map_or(0, |newest| newest.revision);
        Ok(Self { store, forms, abandoned, newest, compiled: 0 })
    }

    /// Why a request got what was decided for it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) fn why(&mut self, decided: &EvaluationContext) -> Result<Why, StoreError> {
        let EvaluationContext { ruleset, revision, rule, .. } = decided;
        if *revision == 0 || *revision > self.newest {
            return Ok(Why::plain(format!(
                "revision {revision} is not known: the store of this control plane begins with 1 and ends with {}, so it was \
                 decided by rules of another one",
                self.newest
            )));
        }
        let change = self.store.as_of(ruleset, *revision)?;
        let Some(Change { revision: change, content: Some(content) }) = change else {
            return Ok(Why::plain(format!(
                "there was no ruleset `{ruleset}` in revision {revision} of this store, so it was decided by rules of another one"
            )));
        };
        let compiled = match self.forms.get(ruleset, change.revision) {
            Some(form) => form,
            None if self.abandoned.load(Ordering::Relaxed) => return Ok(Why::plain("nobody asks any more")),
            None if self.compiled > 0 && self.compiled + content.source.len() > MOST_COMPILED => {
                return Ok(Why::plain(
                    "this answer would take too long: more large rulesets decided than are compiled for one; ask for the evaluation by \
                     itself",
                ));
            }
            None => {
                self.compiled += content.source.len();
                self.forms.compile(ruleset, change.revision, &content)
            }
        };
        let explained = match &*compiled {
            Ok(compiled) => follows(decided, &change, compiled).map_err(|misfit| {
                format!("this does not follow from revision {revision} of this store: {misfit}")
            }),
            Err(problem) => {
                Err(format!("the ruleset of revision {revision} is not understood by this build: {problem}"))
            }
        };
        // Rules that did not decide it, as far as is known, are not shown as if they had.
        let is_explained = explained.is_ok();
        let (sentence, slot) = explained.unwrap_or_else(|problem| (problem, None));
        let text = written(&content.source, rule).filter(|_| is_explained);
        let is_it = |release: &Release| is_explained && decided.epoch > 0 && release.name == *rule;
        let release = content.releases.into_iter().find(is_it);
        Ok(Why {
            sentence,
            rule: text.map(|of| RuleText { line: of.line, text: of.text }),
            ruleset: Some(change.into()),
            buckets: slot.map(Buckets::from),
            release: release.map(|release| self.release(release)).transpose()?,
        })
    }

    fn release(&self, allocation: Release) -> Result<OfRelease, StoreError> {
        let epoch = allocation.epoch;
        let began = self.store.revisions(epoch.checked_add(1), 1)?.into_iter().next();
        let record = self.store.record_before(&allocation.name, epoch)?;
        let decision = record.and_then(|record| serde_json::from_str(&record).ok());
        Ok(OfRelease {
            allocation,
            began: began.filter(|began| began.revision == epoch).map(Origin::from),
            decision,
        })
    }
}

/// Why the rules that a change brought decided so.
///
/// # Errors
/// What does not follow from them.
fn follows(
    decided: &EvaluationContext,
    change: &Revision,
    compiled: &Compiled,
) -> Result<(String, Option<Slot>), String> {
    let EvaluationContext { timestamp_ms, .. } = decided;
    // A log has no time that could be compared.
    if *timestamp_ms > 0 && timestamp_ms.saturating_add(CLOCK_TOLERANCE_MS) < change.created_at_ms {
        return Err(
            "by the proxy's clock it was decided more than ten minutes before that ruleset was there".into(),
        );
    }
    sentence(decided, &compiled.ruleset)
}

impl Why {
    /// A sentence alone.
    pub(super) fn plain(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), ruleset: None, rule: None, buckets: None, release: None }
    }
}

impl From<Revision> for Origin {
    fn from(of: Revision) -> Self {
        Self { revision: of.revision, at_ms: of.created_at_ms, action: of.action, by: of.actor }
    }
}

impl From<Slot> for Buckets {
    fn from(Slot { start, end }: Slot) -> Self {
        let share = f64::from(end - start) / f64::from(BUCKETS);
        Self { first: start, last: end.saturating_sub(1), share }
    }
}
