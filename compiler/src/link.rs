//! Joins compiled rulesets into the bundle of a revision.

use crate::{
    Compiled,
    diagnostic::{Code, Diagnostic, Diagnostics, Span},
    yaml::{self, Kind},
};
use halftone_rules::{Bundle, Ruleset, Scope};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Why rulesets do not fit together.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Two have one name.
    SameName(String),
    /// Two govern the same requests.
    SameScope {
        /// The ruleset that cannot join.
        ruleset: String,
        /// The one that is in its way.
        other: String,
    },
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SameName(name) => write!(f, "there are two rulesets {name:?}: give each its own name"),
            Self::SameScope { ruleset, other } => write!(
                f,
                "rulesets {other:?} and {ruleset:?} govern the same requests: give one of them another `match`, or delete it"
            ),
        }
    }
}

impl std::error::Error for LinkError {}

/// The bundle of all `rulesets`.
///
/// # Errors
/// When two of them have one name, or their `match` shares a host and a path prefix, so that both fit a request equally
/// well.
pub fn link<'a>(
    revision: u64,
    rulesets: impl IntoIterator<Item = &'a Compiled>,
) -> Result<Bundle, LinkError> {
    let rulesets: Vec<Ruleset> = rulesets.into_iter().map(|compiled| compiled.ruleset.clone()).collect();
    // What is in one bundle meets, whichever proxies it is for.
    let everywhere = BTreeSet::new();
    let references: Vec<Placed<'_>> = rulesets.iter().map(|ruleset| (ruleset, &everywhere)).collect();
    if let Some(Clash { later, earlier, what }) = clashes(&references).into_iter().next() {
        let name =
            |at: usize| references.get(at).map(|(ruleset, _)| ruleset.name.clone()).unwrap_or_default();
        return Err(match what {
            Shared::Name => LinkError::SameName(name(later)),
            Shared::Scope(..) => LinkError::SameScope { ruleset: name(later), other: name(earlier) },
        });
    }
    Ok(Bundle::new(revision, rulesets))
}

/// A ruleset that is to be joined with others, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The name of its file.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What the text compiled to.
    pub compiled: &'a Compiled,
}

/// Why the members cannot be published together: what [`link`] refuses, with places, unless no proxy gets both. One list for each member, in their order.
#[must_use]
pub fn conflicts(members: &[Member<'_>]) -> Vec<Vec<Diagnostic>> {
    let rulesets: Vec<Placed<'_>> =
        members.iter().map(|member| (&member.compiled.ruleset, &member.compiled.node_clusters)).collect();
    let mut found: Vec<Diagnostics<'_>> =
        members.iter().map(|member| Diagnostics::new(member.text)).collect();
    for Clash { later, earlier, what } in clashes(&rulesets) {
        let (Some(diagnostics), Some(own), Some(other)) =
            (found.get_mut(later), members.get(later), members.get(earlier))
        else {
            continue;
        };
        let name = &other.compiled.ruleset.name;
        match what {
            Shared::Name => {
                let message = format!("there is a ruleset `{name}` already, in {}", other.file);
                let help = "give each its own `name`; one that is not written is the file's";
                diagnostics.report_with_help(Code::DuplicateName, &place(own.text, "name"), message, help);
            }
            Shared::Scope(host, prefix) => {
                let host = if host.is_empty() { "any host" } else { host };
                let paths = if prefix.is_empty() { "any path" } else { prefix };
                let message =
                    format!("`{name}` in {} governs the same requests: {host}, {paths}", other.file);
                let help = "give one of them another `match`: hosts, paths, or clusters of proxies";
                diagnostics.report_with_help(Code::SameScope, &place(own.text, "match"), message, help);
            }
        }
    }
    found.into_iter().map(Diagnostics::into_sorted).collect()
}

/// Where a field's value stands, on one line; the beginning of the text when it is not written.
fn place(text: &str, field: &str) -> Span {
    let fields = match yaml::parse(text, yaml::RULESET, &mut Diagnostics::new(text)).map(|root| root.kind) {
        Some(Kind::Mapping(fields)) => fields,
        _ => Vec::new(),
    };
    fields.into_iter().find(|(key, _)| key.text == field).map_or(0..0, |(key, node)| match node.kind {
        Kind::Scalar { .. } => node.span,
        _ => key.span,
    })
}

/// A ruleset that cannot be joined with one before it.
struct Clash<'a> {
    later: usize,
    earlier: usize,
    what: Shared<'a>,
}

enum Shared<'a> {
    Name,
    /// A host and a path prefix; an empty one stands for all.
    Scope(&'a str, &'a str),
}

/// A ruleset, and the clusters of proxies that it is for; none stands for all.
type Placed<'a> = (&'a Ruleset, &'a BTreeSet<String>);

/// Whether a proxy may get both.
fn meet(a: &BTreeSet<String>, b: &BTreeSet<String>) -> bool {
    a.is_empty() || b.is_empty() || !a.is_disjoint(b)
}

/// Each ruleset with those before it that have its name, or its scope on the same proxies, once.
fn clashes<'a>(rulesets: &[Placed<'a>]) -> Vec<Clash<'a>> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut governed: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    let mut clashes = Vec::new();
    for (later, (ruleset, clusters)) in rulesets.iter().enumerate() {
        let mut seen = HashSet::from([later]);
        let earlier = *names.entry(&ruleset.name).or_insert(later);
        if seen.insert(earlier) {
            clashes.push(Clash { later, earlier, what: Shared::Name });
        }
        for (host, prefix) in combinations(&ruleset.scope) {
            let others = governed.entry((host, prefix)).or_default();
            let meets = |at: &usize| rulesets.get(*at).is_some_and(|(_, theirs)| meet(clusters, theirs));
            if let Some(earlier) = others.iter().copied().find(meets)
                && seen.insert(earlier)
            {
                clashes.push(Clash { later, earlier, what: Shared::Scope(host, prefix) });
            }
            others.push(later);
        }
    }
    clashes
}

/// Every host with every path prefix; an empty one stands for all.
fn combinations(scope: &Scope) -> impl Iterator<Item = (&str, &str)> {
    fn or_all(patterns: &[String]) -> impl Iterator<Item = &str> + Clone {
        patterns.iter().map(String::as_str).chain(patterns.is_empty().then_some(""))
    }
    or_all(&scope.hosts).flat_map(|host| or_all(&scope.path_prefixes).map(move |prefix| (host, prefix)))
}
