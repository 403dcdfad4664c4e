//! Rulesets as they were, compiled: the last few are kept for whoever asks next. To compile the largest takes seconds.

use crate::store::Content;
use halftone_compiler::{Compiled, compile_released};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many are kept.
const KEPT: usize = 4;

/// A compiled ruleset; of one that does not compile any more the first reason.
pub(super) type Form = Result<Compiled, String>;

/// The last few that were asked for.
#[derive(Clone, Default)]
pub(crate) struct Forms(Arc<Mutex<VecDeque<Kept>>>);

struct Kept {
    ruleset: String,
    /// The revision of the change that left it so.
    revision: u64,
    form: Arc<Form>,
}

impl Forms {
    /// One that is kept.
    pub(super) fn get(&self, ruleset: &str, revision: u64) -> Option<Arc<Form>> {
        let mut kept = self.lock();
        let is_it = |of: &Kept| of.revision == revision && of.ruleset == ruleset;
        let at = kept.iter().position(is_it)?;
        // The one that was asked for last goes last.
        let found = kept.remove(at)?;
        let form = Arc::clone(&found.form);
        kept.push_back(found);
        Some(form)
    }

    /// Compiles one, and keeps it. The others may be asked for meanwhile.
    pub(super) fn compile(&self, ruleset: &str, revision: u64, content: &Content) -> Arc<Form> {
        let compiled = compile_released(&content.source, ruleset, &content.releases);
        let form = Arc::new(
            compiled
                .map_err(|problems| problems.first().map_or(String::new(), |first| first.message.clone())),
        );
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Kept { ruleset: ruleset.to_owned(), revision, form: Arc::clone(&form) });
        form
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_that_were_asked_for_are_kept() {
        let forms = Forms::default();
        let content = |source: &str| Content { source: source.to_owned(), releases: Vec::new() };
        let good = "version: v1\ndefault: v1\ntargets: {v1: {endpoints: ['127.0.0.1:1']}}\nrules: []\n";
        for revision in 1..=4 {
            assert!(forms.get("digits", revision).is_none());
            assert!(forms.compile("digits", revision, &content(good)).is_ok());
        }
        assert!(forms.get("digits", 1).is_some() && forms.get("other", 1).is_none());
        let bad = forms.compile("digits", 5, &content("version: v1\nrules: 7\n"));
        assert!(bad.is_err());
        let kept = [1, 2, 3, 4, 5].map(|revision| forms.get("digits", revision).is_some());
        assert_eq!(kept, [true, false, true, true, true], "the one that nobody asked for has gone");
    }
}
