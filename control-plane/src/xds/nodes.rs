//! Which proxies are connected, and what each of them said.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use serde::Serialize;

use super::channel::{KindStatus, Refusal};
use super::resource::Kind;

/// How many refusals are remembered of proxies that are not connected. Beyond, one is dropped: the proxy then ACKs
/// what it had refused, as it would without this memory.
const REMEMBERED_REFUSALS: usize = 10_000;

/// A connected proxy. A proxy that is reconnecting can be listed twice for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// The id it gave itself in its bootstrap.
    pub id: String,
    /// The cluster (of proxies) it gave itself.
    pub cluster: String,
    /// What it is and of which version, such as `envoy 1.40.0`.
    pub user_agent: String,
    /// When it connected, in milliseconds since 1970.
    pub connected_since_ms: u64,
    /// The newest revision whose bundle, and all clusters and routes it needs, the proxy has ACKed. That is not
    /// proof of what its filter applied; the filter's own gauge is.
    pub revision: Option<u64>,
    /// What was sent and answered, by kind: `cds`, `eds`, `rds`, `ecds`.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// The connected proxies. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Nodes(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    streams: u64,
    connected: BTreeMap<u64, NodeStatus>,
    /// The filter configuration that a proxy refused last, by its id.
    refusals: HashMap<String, Refusal>,
}

impl Nodes {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connected proxies, by id and time of connection.
    pub fn list(&self) -> Vec<NodeStatus> {
        let mut nodes: Vec<NodeStatus> = self.lock().connected.values().cloned().collect();
        nodes.sort_by(|a, b| (&a.id, a.connected_since_ms).cmp(&(&b.id, b.connected_since_ms)));
        nodes
    }

    /// Lists a proxy until the returned entry is dropped.
    pub(super) fn connect(&self, node: Option<&Node>) -> Entry {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let status = NodeStatus {
            id: node.map_or_else(String::new, |node| node.id.clone()),
            cluster: node.map_or_else(String::new, |node| node.cluster.clone()),
            user_agent: node.map_or_else(String::new, user_agent),
            connected_since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            revision: None,
            kinds: BTreeMap::new(),
        };
        let id = status.id.clone();
        let mut registry = self.lock();
        registry.streams += 1;
        let stream = registry.streams;
        registry.connected.insert(stream, status);
        drop(registry);
        Entry { nodes: self.clone(), stream, id }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every change is complete before anything can panic, so a poisoned registry is as good as another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy's place in the registry.
#[derive(Debug)]
pub(super) struct Entry {
    nodes: Nodes,
    stream: u64,
    id: String,
}

impl Entry {
    /// The id the proxy gave itself.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The filter configuration it refused last, on whichever stream.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.nodes.lock().refusals.get(&self.id).cloned()
    }

    /// Replaces what is known of it.
    pub(super) fn update(&self, revision: Option<u64>, kinds: BTreeMap<Kind, KindStatus>) {
        let mut registry = self.nodes.lock();
        match kinds.get(&Kind::Filter) {
            Some(KindStatus { nacked: Some(refusal), .. }) => {
                if registry.refusals.len() >= REMEMBERED_REFUSALS
                    && !registry.refusals.contains_key(&self.id)
                    && let Some(id) = registry.refusals.keys().next().cloned()
                {
                    registry.refusals.remove(&id);
                }
                registry.refusals.insert(self.id.clone(), refusal.clone());
            }
            Some(KindStatus { acked: Some(_), .. }) => {
                registry.refusals.remove(&self.id);
            }
            _ => {}
        }
        if let Some(status) = registry.connected.get_mut(&self.stream) {
            status.revision = revision;
            status.kinds = kinds;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.nodes.lock().connected.remove(&self.stream);
    }
}

fn user_agent(node: &Node) -> String {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            build.version.as_ref().map_or_else(String::new, |version| {
                format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
            })
        }
        None => String::new(),
    };
    format!("{} {version}", node.user_agent_name).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::BuildVersion;
    use envoy_types::pb::envoy::r#type::v3::SemanticVersion;

    use super::*;

    fn node(id: &str) -> Node {
        let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
        let build = BuildVersion { version: Some(version), metadata: None };
        Node {
            id: id.to_owned(),
            cluster: "edge".to_owned(),
            user_agent_name: "envoy".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
            ..Node::default()
        }
    }

    fn refused(version: &str) -> BTreeMap<Kind, KindStatus> {
        let refusal = Refusal { version: version.to_owned(), message: "no".to_owned() };
        BTreeMap::from([(Kind::Filter, KindStatus { nacked: Some(refusal), ..KindStatus::default() })])
    }

    #[test]
    fn xds_nodes_are_listed_while_connected() {
        let nodes = Nodes::new();
        let b = nodes.connect(Some(&node("b")));
        let a = nodes.connect(Some(&node("a")));
        a.update(Some(7), BTreeMap::from([(Kind::Route, KindStatus::default())]));
        let list = nodes.list();
        assert_eq!(list.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(list[0].user_agent, "envoy 1.40.0");
        assert_eq!(list[0].revision, Some(7));
        drop(b);
        assert_eq!(nodes.list().len(), 1);
        drop(a);
        assert_eq!(nodes.list(), []);
    }

    #[test]
    fn xds_nodes_are_plain_json() {
        let nodes = Nodes::new();
        let entry = nodes.connect(Some(&node("a")));
        entry.update(Some(7), refused("v1"));
        let mut json = serde_json::to_value(nodes.list()).unwrap();
        assert!(json[0]["connected_since_ms"].take().is_u64());
        assert_eq!(
            json,
            serde_json::json!([{
                "id": "a", "cluster": "edge", "user_agent": "envoy 1.40.0", "connected_since_ms": null,
                "revision": 7,
                "kinds": {"ecds": {"sent": null, "acked": null, "nacked": {"version": "v1", "message": "no"}}},
            }])
        );
    }

    #[test]
    fn xds_refusals_outlive_the_stream_until_something_is_taken() {
        let nodes = Nodes::new();
        let first = nodes.connect(Some(&node("a")));
        assert_eq!(first.refusal(), None);
        first.update(None, refused("v1"));
        drop(first);
        let second = nodes.connect(Some(&node("a")));
        assert_eq!(second.refusal().unwrap().version, "v1");
        let acked = KindStatus { acked: Some("v2".to_owned()), ..KindStatus::default() };
        second.update(None, BTreeMap::from([(Kind::Filter, acked)]));
        assert_eq!(second.refusal(), None);
    }
}
