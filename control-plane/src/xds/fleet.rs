//! How far the connected proxies are with one revision.

use serde::Serialize;

use super::nodes::NodeStatus;
use super::resource::Kind;

/// How many proxies that are not there yet are named.
const MOST_NAMED: usize = 100;

/// How far the connected proxies are with one revision. Only those count that take the rules from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// The revision.
    pub revision: u64,
    /// How many proxies there are: the sum of the following.
    pub proxies: usize,
    /// How many ACKed it, or a newer one.
    pub acked: usize,
    /// How many refused it, or a newer one, and have an older one.
    pub nacked: usize,
    /// How many have not answered.
    pub pending: usize,
    /// Those that refused it or have not answered, at most a hundred of them.
    pub behind: Vec<Behind>,
}

/// A proxy that does not have the revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// The proxy's id.
    pub id: String,
    /// The revision that it has.
    pub revision: Option<u64>,
    /// Why it refused; missing when it has not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRevision>,
}

/// What a proxy refused of a revision, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedRevision {
    /// The revision.
    pub revision: u64,
    /// The kind of resource.
    pub kind: Kind,
    /// The proxy's reason, shortened.
    pub message: String,
    /// When it was refused, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Fleet {
    /// Counts.
    pub(super) fn of<'a>(revision: u64, nodes: impl Iterator<Item = &'a NodeStatus>) -> Self {
        let mut fleet = Self { revision, proxies: 0, acked: 0, nacked: 0, pending: 0, behind: Vec::new() };
        for node in nodes.filter(|node| node.kinds.contains_key(&Kind::Filter)) {
            fleet.proxies += 1;
            if node.revision.is_some_and(|has| has >= revision) {
                fleet.acked += 1;
                continue;
            }
            let refused = node.refused.as_ref().filter(|refused| refused.revision >= revision);
            if refused.is_some() {
                fleet.nacked += 1;
            } else {
                fleet.pending += 1;
            }
            if fleet.behind.len() < MOST_NAMED {
                fleet.behind.push(Behind {
                    id: node.id.clone(),
                    revision: node.revision,
                    refused: refused.cloned(),
                });
            }
        }
        fleet
    }

    /// Whether every proxy has answered.
    pub fn answered(&self) -> bool {
        self.pending == 0
    }
}
