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
/// When the `match` of two of them shares a host and a path prefix, so that both fit a request equally well.
pub fn link<'a>(
    revision: u64,
    rulesets: impl IntoIterator<Item = &'a Compiled>,
) -> Result<Bundle, LinkError> {
    let rulesets: Vec<_> = rulesets.into_iter().map(|compiled| compiled.ruleset.clone()).collect();
    let mut governed: HashMap<(&str, &str), &str> = HashMap::new();
    for ruleset in &rulesets {
        for (host, prefix) in combinations(&ruleset.scope) {
            if let Some(other) = governed.insert((host, prefix), &ruleset.name)
                && other != ruleset.name
            {
                return Err(LinkError { ruleset: ruleset.name.clone(), other: other.into() });
            }
        }
    }
    Ok(Bundle::new(revision, rulesets))
}

/// Every host with every path prefix; an empty one stands for all.
fn combinations(scope: &Scope) -> impl Iterator<Item = (&str, &str)> {
    fn or_all(patterns: &[String]) -> impl Iterator<Item = &str> + Clone {
        patterns.iter().map(String::as_str).chain(patterns.is_empty().then_some(""))
    }
    or_all(&scope.hosts).flat_map(|host| or_all(&scope.path_prefixes).map(move |prefix| (host, prefix)))
}
