//! Joins compiled rulesets into the bundle of a revision.

use crate::Compiled;
use halftone_rules::{Bundle, Scope};
use std::collections::HashMap;

/// Why rulesets do not fit together.
#[derive(Debug, PartialEq, Eq)]
pub struct LinkError {
    /// The ruleset that cannot join.
    pub ruleset: String,
    /// The one that is in its way.
    pub other: String,
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rulesets {:?} and {:?} govern the same requests: give one of them another `match`, or delete it",
            self.other, self.ruleset
        )
    }
}

impl std::error::Error for LinkError {}

/// The bundle of all `rulesets`, whose names are distinct.
///
/// # Errors
/// When two of them have the same `match`, so that one could never govern a request.
pub fn link<'a>(
    revision: u64,
    rulesets: impl IntoIterator<Item = &'a Compiled>,
) -> Result<Bundle, LinkError> {
    let rulesets: Vec<_> = rulesets.into_iter().map(|compiled| compiled.ruleset.clone()).collect();
    let mut scopes: HashMap<Scope, &str> = HashMap::new();
    for ruleset in &rulesets {
        if let Some(other) = scopes.insert(normal(&ruleset.scope), &ruleset.name) {
            return Err(LinkError { ruleset: ruleset.name.clone(), other: other.into() });
        }
    }
    Ok(Bundle::new(revision, rulesets))
}

/// The same scope, whatever the order in which it was written.
fn normal(scope: &Scope) -> Scope {
    let mut scope = scope.clone();
    scope.hosts.sort();
    scope.path_prefixes.sort();
    scope
}
