//! What is another thing for each cluster of proxies: their bundles, and all that goes with them.

use std::collections::{BTreeMap, BTreeSet};

/// One for each cluster of proxies that a ruleset names, and one for all others, which have the same.
#[derive(Clone, Debug)]
pub struct PerNodeCluster<T> {
    named: BTreeMap<String, T>,
    others: T,
}

impl<T> PerNodeCluster<T> {
    /// The same for all.
    pub fn same(all: T) -> Self {
        Self { named: BTreeMap::new(), others: all }
    }

    /// Makes one for each name, and one for the others.
    ///
    /// # Errors
    /// The first one of `make`.
    pub fn make<E>(
        names: BTreeSet<&str>,
        mut make: impl FnMut(Option<&str>) -> Result<T, E>,
    ) -> Result<Self, E> {
        let named = names.into_iter().map(|name| Ok((name.to_owned(), make(Some(name))?)));
        Ok(Self { named: named.collect::<Result<_, E>>()?, others: make(None)? })
    }

    /// What the proxies of a cluster have.
    pub fn of(&self, node_cluster: &str) -> &T {
        self.named.get(node_cluster).unwrap_or(&self.others)
    }

    /// What the proxies have whose clusters no ruleset names.
    pub fn others(&self) -> &T {
        &self.others
    }

    /// Each of them.
    pub fn each(&self, f: impl FnMut(&T)) {
        self.named.values().chain([&self.others]).for_each(f);
    }

    /// Something of each.
    pub fn map<U>(&self, f: impl Fn(&T) -> U) -> PerNodeCluster<U> {
        let named = self.named.iter().map(|(name, value)| (name.clone(), f(value))).collect();
        PerNodeCluster { named, others: f(&self.others) }
    }
}

/// Clusters of proxies that something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every proxy.
    All,
    /// Those of these clusters.
    Of(BTreeSet<String>),
}

impl Audience {
    /// Those of a ruleset, which names none when it is for all.
    pub fn of_ruleset(node_clusters: &BTreeSet<String>) -> Self {
        if node_clusters.is_empty() { Self::All } else { Self::Of(node_clusters.clone()) }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Of(mut one), Self::Of(mut other)) => {
                one.append(&mut other);
                Self::Of(one)
            }
            _ => Self::All,
        }
    }

    /// Whether the proxies of a cluster are among them.
    pub fn includes(&self, node_cluster: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(clusters) => clusters.contains(node_cluster),
        }
    }

    /// Whether there can be a proxy that is among both.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Of(one), Self::Of(other)) => !one.is_disjoint(other),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Audience {
        Audience::of_ruleset(&names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn clusters_that_nobody_names_have_what_the_others_have() {
        let all = PerNodeCluster::make(BTreeSet::from(["eu", "us"]), |name| Ok::<_, ()>(name.map(str::len)));
        let all = all.unwrap().map(|length| length.unwrap_or(0));
        assert_eq!((*all.of("eu"), *all.of("asia"), *all.of(""), *all.others()), (2, 0, 0, 0));
    }

    #[test]
    fn audiences_of_rulesets_are_joined_and_compared() {
        assert_eq!(of(&[]), Audience::All);
        assert_eq!(of(&["a"]).and(of(&["b"])), of(&["a", "b"]));
        assert_eq!(of(&["a"]).and(Audience::All), Audience::All);
        assert!(of(&["a"]).includes("a") && !of(&["a"]).includes("b") && Audience::All.includes("b"));
        assert!(of(&["a", "b"]).meets(&of(&["b"])) && !of(&["a"]).meets(&of(&["b"])));
        assert!(of(&["a"]).meets(&Audience::All));
    }
}
