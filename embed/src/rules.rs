//! The rules of one revision.

use crate::{Context, ContextError, HttpRequest, content::Loaded};
use arc_swap::Guard;
use halftone_compiler::{Explanation, explain};
use halftone_rules::{Decision, Request, Timestamp, VerifiedBundle};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The rules that were in force when [`Engine::rules`](crate::Engine::rules) was called. They stay the same however
/// often the engine's are replaced.
///
/// Meant to be held for a request, across `await` too. Whoever holds it keeps its revision in memory.
pub struct Rules(pub(crate) Guard<Arc<Loaded>>);

impl Rules {
    /// The revision; 0 before anything was loaded.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.bundle().bundle().revision
    }

    /// The names of the rulesets, in ascending order.
    pub fn rulesets(&self) -> impl Iterator<Item = &str> {
        self.bundle().bundle().rulesets.iter().map(|ruleset| ruleset.name.as_str())
    }

    /// A context for the ruleset of this name; its `match` is not asked.
    ///
    /// # Errors
    /// When there is no such ruleset; the error says what exists.
    pub fn context(&self, ruleset: &str) -> Result<Context<'_>, ContextError> {
        Context::named(self.bundle(), ruleset)
    }

    /// A context for the ruleset that governs the request by its `match`, with the request in it.
    ///
    /// # Errors
    /// When no ruleset governs it.
    pub fn context_for(&self, request: HttpRequest) -> Result<Context<'_>, ContextError> {
        let ruleset = self.bundle().governing(&request).ok_or(ContextError::Ungoverned)?;
        Ok(Context::new(self.bundle(), ruleset).request(request))
    }

    /// Decides for a request of any kind at the time `now`; `None` when no ruleset governs it.
    #[must_use]
    pub fn decide(&self, request: &impl Request, now: Timestamp) -> Option<Decision<'_>> {
        self.bundle().decide(request, now, &mut ())
    }

    /// Decides as [`decide`](Self::decide) does and explains it, rule by rule. It takes much longer.
    #[must_use]
    pub fn explain(&self, request: &impl Request, now: Timestamp) -> Option<Explanation> {
        explain(self.bundle(), request, now)
    }

    /// The rules themselves.
    #[must_use]
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.0.bundle
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

/// The system's time, for rules that depend on it.
#[must_use]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}
