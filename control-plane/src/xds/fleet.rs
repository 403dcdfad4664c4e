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
    /// How many of those decide by it, or by a newer one, on all of their workers.
    pub applied: usize,
    /// How many refused it, or a newer one, and have an older one.
    pub nacked: usize,
    /// How many have not answered.
    pub pending: usize,
    /// Those that refused it, have not answered, or have not applied it, at most a hundred of them.
    pub behind: Vec<Behind>,
}

/// A proxy that does not have the revision, or does not decide by it on all of its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// The proxy's id.
    pub id: String,
    /// The revision that it has.
    pub revision: Option<u64>,
    /// The oldest revision that any of its workers decides by; missing when none has said so.
    pub applied: Option<u64>,
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
    pub(super) fn of(revision: u64, nodes: impl Iterator<Item = NodeStatus>) -> Self {
        let mut fleet =
            Self { revision, proxies: 0, acked: 0, applied: 0, nacked: 0, pending: 0, behind: Vec::new() };
        for node in nodes.filter(|node| node.kinds.contains_key(&Kind::Filter)) {
            fleet.proxies += 1;
            let reached = |has: Option<u64>| has.is_some_and(|has| has >= revision);
            let refused = node.refused.filter(|refused| refused.revision >= revision);
            if reached(node.revision) {
                fleet.acked += 1;
                if reached(node.applied) {
                    fleet.applied += 1;
                    continue;
                }
            } else if refused.is_some() {
                fleet.nacked += 1;
            } else {
                fleet.pending += 1;
            }
            if fleet.behind.len() < MOST_NAMED {
                let NodeStatus { id, revision, applied, .. } = node;
                fleet.behind.push(Behind { id, revision, applied, refused });
            }
        }
        fleet
    }

    /// Whether every proxy has answered.
    pub fn answered(&self) -> bool {
        self.pending == 0
    }

    /// Whether every proxy has answered, and those that took it decide by it.
    pub fn applied(&self) -> bool {
        self.answered() && self.applied == self.acked
    }
}
