//! Which resources of a kind a proxy wants.

use std::collections::BTreeSet;

use super::resource::Kind;

/// Stands for all resources of a kind, in either form of the protocol.
pub(super) const WILDCARD: &str = "*";

/// Which resources of a kind a proxy wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interest {
    asked: bool,
    all: bool,
    names: BTreeSet<String>,
}

impl Interest {
    /// Whether the proxy ever asked for this kind.
    pub(super) fn asked(&self) -> bool {
        self.asked
    }

    /// Whether all there are are wanted.
    pub(super) fn all(&self) -> bool {
        self.all
    }

    /// Whether this resource is wanted.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    /// What is wanted by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    /// Takes all that is wanted from now on, as the state of the world says it.
    pub(super) fn replace(&mut self, kind: Kind, names: Vec<String>) {
        // Once names were given, empty means none.
        let implied = self.implied(kind, names.is_empty()) || (names.is_empty() && self.all);
        self.all = implied || names.iter().any(|name| name == WILDCARD);
        self.names = if self.all { BTreeSet::new() } else { names.into_iter().collect() };
        self.asked = true;
    }

    /// Takes what is wanted in addition and no longer, as delta says it. What is wanted by name is so beside a
    /// wildcard, too, and outlives it.
    pub(super) fn change(&mut self, kind: Kind, subscribe: &[String], unsubscribe: &[String]) {
        self.all |= self.implied(kind, subscribe.is_empty());
        self.asked = true;
        for name in unsubscribe {
            if name == WILDCARD {
                self.all = false;
            }
            self.names.remove(name);
        }
        for name in subscribe {
            if name == WILDCARD {
                self.all = true;
            } else {
                self.names.insert(name.clone());
            }
        }
    }

    /// An empty first request means all, but only for clusters.
    fn implied(&self, kind: Kind, empty: bool) -> bool {
        empty && kind == Kind::Cluster && !self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn xds_empty_names_mean_all_only_for_clusters_and_only_at_first() {
        let mut clusters = Interest::default();
        assert!(!clusters.asked());
        clusters.replace(Kind::Cluster, names(&[]));
        assert!(clusters.all());
        clusters.replace(Kind::Cluster, names(&[]));
        assert!(clusters.all());
        clusters.replace(Kind::Cluster, names(&["a"]));
        assert!(clusters.covers("a") && !clusters.covers("b"));
        clusters.replace(Kind::Cluster, names(&[]));
        assert!(!clusters.covers("a"));
        clusters.replace(Kind::Cluster, names(&["*"]));
        assert!(clusters.all());

        let mut routes = Interest::default();
        routes.replace(Kind::Route, names(&[]));
        assert!(routes.asked() && !routes.covers("halftone"));
    }

    #[test]
    fn xds_delta_wildcards_and_names_are_kept_apart() {
        let mut clusters = Interest::default();
        clusters.change(Kind::Cluster, &[], &[]);
        assert!(clusters.all());
        clusters.change(Kind::Cluster, &names(&["a"]), &[]);
        assert!(clusters.covers("a") && clusters.covers("b"));
        clusters.change(Kind::Cluster, &[], &names(&["*"]));
        assert!(clusters.covers("a") && !clusters.covers("b"));
        clusters.change(Kind::Cluster, &names(&["*"]), &names(&["a"]));
        assert!(clusters.all() && clusters.names().next().is_none());
        clusters.change(Kind::Cluster, &[], &names(&["*"]));
        assert!(!clusters.covers("a"));
        clusters.change(Kind::Cluster, &[], &[]);
        assert!(!clusters.all(), "only the first request may leave it out");

        for kind in [Kind::Endpoint, Kind::Route, Kind::Filter] {
            let mut others = Interest::default();
            others.change(kind, &[], &[]);
            assert!(others.asked() && !others.all());
        }
    }
}
