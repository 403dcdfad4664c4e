//! Which proxies are connected, and what each of them said.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use serde::Serialize;
use tokio::sync::watch;

use super::applied::{WorkerStatus, Workers};
use super::channel::{Refusal, Standing};
use super::fleet::{Fleet, RefusedRevision};
use super::form::Form;
use super::resource::Kind;
use super::stream::Refused;
use crate::node_clusters::Audience;

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
    /// The form of the protocol that it speaks.
    pub form: Form,
    /// When it connected, in milliseconds since 1970, as all times here.
    pub connected_since_ms: u64,
    /// The newest revision whose bundle, and all clusters and routes it needs, the proxy has ACKed: it has received
    /// them. What its workers decide by is `applied`.
    pub revision: Option<u64>,
    /// Since when it has that revision.
    pub revision_since_ms: Option<u64>,
    /// The oldest revision that any of its workers decides by; missing when none has said so.
    pub applied: Option<u64>,
    /// Since when all of its workers decide by that one or a newer one.
    pub applied_since_ms: Option<u64>,
    /// What each of its workers has applied.
    pub workers: Vec<WorkerStatus>,
    /// When it last ACKed anything.
    pub last_ack_ms: Option<u64>,
    /// The revision that it refused last, until it takes one that is as new.
    pub refused: Option<RefusedRevision>,
    /// What was sent and answered, by the kinds it asked for: `cds`, `eds`, `rds`, `ecds`.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// What a proxy was sent and said of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KindStatus {
    /// The version that was sent last.
    pub sent: Option<String>,
    /// The version that was ACKed last.
    pub acked: Option<String>,
    /// The refusal of the version sent last; `None` again once the proxy ACKs a later one.
    pub nacked: Option<Nack>,
}

/// What a proxy refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nack {
    /// The version that was refused.
    pub version: String,
    /// The proxy's reason, shortened.
    pub message: String,
    /// When it was refused.
    pub since_ms: u64,
}

/// News of a proxy.
#[derive(Debug)]
pub(super) struct Report {
    /// The newest revision that it ACKed.
    pub(super) revision: Option<u64>,
    /// Whether it ACKed something since the last report.
    pub(super) acked: bool,
    /// The revision that it refused last.
    pub(super) refused: Option<Refused>,
    /// Of each kind that it asked for.
    pub(super) kinds: BTreeMap<Kind, Standing>,
}

/// The connected proxies. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    streams: u64,
    connected: BTreeMap<u64, NodeStatus>,
    /// The filter configuration that a proxy refused last, by its id.
    refusals: HashMap<String, Refusal>,
    pub(super) workers: Workers,
    /// How often a proxy refused a revision.
    refused: u64,
}

impl Registry {
    /// The connected proxies, with what their workers have applied.
    fn nodes(&self) -> impl Iterator<Item = NodeStatus> {
        let now = Instant::now();
        self.connected.values().map(move |node| {
            let workers = self.workers.of(&node.id, now);
            NodeStatus {
                applied: workers.iter().map(|worker| worker.revision).min(),
                applied_since_ms: workers.iter().map(|worker| worker.since_ms).max(),
                workers,
                ..node.clone()
            }
        })
    }
}

impl Nodes {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connected proxies, by id and time of connection.
    pub fn list(&self) -> Vec<NodeStatus> {
        let mut nodes: Vec<NodeStatus> = self.lock().nodes().collect();
        nodes.sort_by(|a, b| (&a.id, a.connected_since_ms).cmp(&(&b.id, b.connected_since_ms)));
        nodes
    }

    /// How far they are with a revision.
    pub fn fleet(&self, revision: u64) -> Fleet {
        Fleet::of(revision, self.lock().nodes())
    }

    /// When the last worker of all proxies took up a revision, or a newer one, in milliseconds since 1970; 0 where there is no
    /// proxy, `None` while one decides by an older one.
    pub fn applied_at_ms(&self, revision: u64) -> Option<u64> {
        let registry = self.lock();
        let mut proxies = registry.nodes().filter(|node| node.kinds.contains_key(&Kind::Filter));
        proxies.try_fold(0, |last, node| {
            let since = node.applied_since_ms.filter(|_| node.applied >= Some(revision));
            since.map(|since| last.max(since))
        })
    }

    /// What all of them have reached, and how often one refused.
    pub fn reached(&self) -> Reached {
        let registry = self.lock();
        let (mut acked, mut applied) = (Vec::new(), Vec::new());
        for node in registry.nodes().filter(|node| node.kinds.contains_key(&Kind::Filter)) {
            acked.push(node.revision);
            applied.push(node.applied);
        }
        // None is less than any.
        let least = |of: Vec<Option<u64>>| of.into_iter().min().flatten();
        Reached { acked: least(acked), applied: least(applied), refused: registry.refused }
    }

    /// How far those of an audience are with a revision.
    pub fn fleet_of(&self, revision: u64, audience: &Audience) -> Fleet {
        Fleet::of(revision, self.lock().nodes().filter(|node| audience.includes(&node.cluster)))
    }

    /// The newest revision below `revision` that a connected proxy of an audience has.
    pub fn newest_below(&self, revision: u64, audience: &Audience) -> Option<u64> {
        let registry = self.lock();
        let nodes = registry.connected.values().filter(|node| audience.includes(&node.cluster));
        nodes.filter_map(|node| node.revision).filter(|has| *has < revision).max()
    }

    /// Changes whenever something here does.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Lists a proxy until the returned entry is dropped. The workers of one that is new are not those that were heard of
    /// under its id before.
    pub(super) fn connect(&self, node: Option<&Node>, form: Form, is_new: bool) -> Entry {
        let status = NodeStatus {
            id: node.map_or_else(String::new, |node| node.id.clone()),
            cluster: node.map_or_else(String::new, |node| node.cluster.clone()),
            user_agent: node.map_or_else(String::new, user_agent),
            form,
            connected_since_ms: now_ms(),
            revision: None,
            revision_since_ms: None,
            applied: None,
            applied_since_ms: None,
            workers: Vec::new(),
            last_ack_ms: None,
            refused: None,
            kinds: BTreeMap::new(),
        };
        let id = status.id.clone();
        let mut registry = self.lock();
        if is_new && !registry.connected.values().any(|node| node.id == id) {
            registry.workers.forget(&id);
        }
        registry.streams += 1;
        let stream = registry.streams;
        registry.connected.insert(stream, status);
        let Registry { connected, workers, .. } = &mut *registry;
        workers.expect(&id, Instant::now(), connected.values().map(|node| node.id.as_str()));
        drop(registry);
        Entry { nodes: self.clone(), stream, id }
    }

    /// Tells who waits for changes.
    pub(super) fn changed(&self) {
        self.0.changed.send_replace(());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every change is complete before anything can panic, so a poisoned registry is as good as another.
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all connected proxies have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The newest revision that every one has accepted.
    pub acked: Option<u64>,
    /// The newest revision that every worker of every one decides by.
    pub applied: Option<u64>,
    /// How often one refused a revision, since the start.
    pub refused: u64,
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
    pub(super) fn update(&self, report: Report) {
        let now = now_ms();
        let mut registry = self.nodes.lock();
        match report.kinds.get(&Kind::Filter) {
            Some(Standing { nacked: Some(refusal), .. }) => {
                if registry.refusals.len() >= REMEMBERED_REFUSALS
                    && !registry.refusals.contains_key(&self.id)
                    && let Some(id) = registry.refusals.keys().next().cloned()
                {
                    registry.refusals.remove(&id);
                }
                registry.refusals.insert(self.id.clone(), refusal.clone());
            }
            Some(Standing { acked: Some(_), .. }) => {
                registry.refusals.remove(&self.id);
            }
            _ => {}
        }
        if let Some(status) = registry.connected.get_mut(&self.stream) {
            if status.revision != report.revision {
                status.revision = report.revision;
                status.revision_since_ms = report.revision.map(|_| now);
            }
            if report.acked {
                status.last_ack_ms = Some(now);
            }
            let known = status.refused.take();
            let before = known.as_ref().map(|known| known.revision);
            status.refused = report.refused.map(|refused| refused.since(known, now));
            let refused = status.refused.as_ref().map(|refused| refused.revision);
            let is_news = refused.is_some() && refused != before;
            for (kind, standing) in report.kinds {
                let kind = status.kinds.entry(kind).or_default();
                kind.sent = standing.sent;
                kind.acked = standing.acked;
                kind.nacked = standing.nacked.map(|refusal| refusal.since(kind.nacked.take(), now));
            }
            registry.refused += u64::from(is_news);
        }
        drop(registry);
        self.nodes.changed();
    }
}

impl Refused {
    /// With its time: that of `known`, if that is the same revision.
    fn since(self, known: Option<RefusedRevision>, now: u64) -> RefusedRevision {
        let Self { revision, kind, message } = self;
        match known {
            Some(known) if known.revision == revision => known,
            _ => RefusedRevision { revision, kind, message, since_ms: now },
        }
    }
}

impl Refusal {
    /// With its time: that of `known`, if that is the same refusal.
    fn since(self, known: Option<Nack>, now: u64) -> Nack {
        let Self { version, message } = self;
        match known {
            Some(known) if known.version == version => known,
            _ => Nack { version, message, since_ms: now },
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.nodes.lock().connected.remove(&self.stream);
        self.nodes.changed();
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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

    fn report(revision: Option<u64>, kind: Kind, standing: Standing) -> Report {
        let acked = standing.acked.is_some();
        let refused = standing.nacked.as_ref().map(|refusal| Refused {
            revision: 8,
            kind,
            message: refusal.message.clone(),
        });
        Report { revision, acked, refused, kinds: BTreeMap::from([(kind, standing)]) }
    }

    fn refused(version: &str) -> Standing {
        let refusal = Refusal { version: version.to_owned(), message: "no".to_owned() };
        Standing { nacked: Some(refusal), ..Standing::default() }
    }

    fn acked(version: &str) -> Standing {
        Standing { acked: Some(version.to_owned()), ..Standing::default() }
    }

    fn connect(nodes: &Nodes, id: &str) -> Entry {
        nodes.connect(Some(&node(id)), Form::Delta, false)
    }

    #[test]
    fn xds_nodes_are_listed_while_connected() {
        let nodes = Nodes::new();
        let b = connect(&nodes, "b");
        let a = connect(&nodes, "a");
        a.update(report(Some(7), Kind::Route, acked("v1")));
        let list = nodes.list();
        assert_eq!(list.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(list[0].user_agent, "envoy 1.40.0");
        assert_eq!(list[0].revision, Some(7));
        assert!(list[0].last_ack_ms.is_some() && list[1].last_ack_ms.is_none());
        drop(b);
        assert_eq!(nodes.list().len(), 1);
        drop(a);
        assert_eq!(nodes.list(), []);
    }

    #[test]
    fn xds_nodes_are_plain_json() {
        let nodes = Nodes::new();
        let entry = connect(&nodes, "a");
        entry.update(report(Some(7), Kind::Filter, refused("v1")));
        let mut json = serde_json::to_value(nodes.list()).unwrap();
        assert!(json[0]["connected_since_ms"].take().is_u64());
        assert!(json[0]["revision_since_ms"].take().is_u64());
        assert!(json[0]["kinds"]["ecds"]["nacked"]["since_ms"].take().is_u64());
        assert!(json[0]["refused"]["since_ms"].take().is_u64());
        assert_eq!(
            json,
            serde_json::json!([{
                "id": "a", "cluster": "edge", "user_agent": "envoy 1.40.0", "form": "delta",
                "connected_since_ms": null, "revision": 7, "revision_since_ms": null, "last_ack_ms": null,
                "applied": null, "applied_since_ms": null, "workers": [],
                "refused": {"revision": 8, "kind": "ecds", "message": "no", "since_ms": null},
                "kinds": {"ecds": {
                    "sent": null, "acked": null,
                    "nacked": {"version": "v1", "message": "no", "since_ms": null},
                }},
            }])
        );
    }

    #[test]
    fn xds_a_fleet_counts_who_takes_the_rules_from_here() {
        let nodes = Nodes::new();
        let entries: Vec<Entry> = ["a", "b", "c", "d"].map(|id| connect(&nodes, id)).into();
        assert!(nodes.fleet(8).answered(), "none of them asked for rules");
        entries[0].update(report(Some(8), Kind::Filter, acked("v8")));
        entries[1].update(report(Some(7), Kind::Filter, refused("v8")));
        entries[2].update(report(Some(6), Kind::Filter, acked("v6")));
        entries[3].update(report(None, Kind::Route, acked("v1")));
        let fleet = nodes.fleet(8);
        assert_eq!((fleet.proxies, fleet.acked, fleet.nacked, fleet.pending), (3, 1, 1, 1));
        let behind: Vec<_> = fleet
            .behind
            .iter()
            .map(|node| (node.id.as_str(), node.revision, node.refused.is_some()))
            .collect();
        // "a" took it, but none of its workers has said that it decides by it.
        assert_eq!(behind, [("a", Some(8), false), ("b", Some(7), true), ("c", Some(6), false)]);
        assert_eq!((fleet.applied, fleet.applied()), (0, false));
        assert_eq!(nodes.newest_below(8, &Audience::All), Some(7));
        assert!(!fleet.answered());
        let (six, seven) = (nodes.fleet(6), nodes.fleet(7));
        assert!(six.answered());
        assert_eq!((seven.acked, seven.pending), (2, 1), "what is newer counts");
        drop(entries);
        assert_eq!(nodes.fleet(8).proxies, 0);
    }

    #[test]
    fn xds_a_refusal_keeps_its_time() {
        let refusal = || Refusal { version: "v1".to_owned(), message: "no".to_owned() };
        let first = refusal().since(None, 5);
        assert_eq!(first.since_ms, 5);
        assert_eq!(refusal().since(Some(first.clone()), 9).since_ms, 5);
        let other = Refusal { version: "v2".to_owned(), message: "no".to_owned() };
        assert_eq!(other.since(Some(first), 9).since_ms, 9);
    }

    #[test]
    fn xds_refusals_outlive_the_stream_until_something_is_taken() {
        let nodes = Nodes::new();
        let first = connect(&nodes, "a");
        assert_eq!(first.refusal(), None);
        first.update(report(None, Kind::Filter, refused("v1")));
        drop(first);
        let second = connect(&nodes, "a");
        assert_eq!(second.refusal().unwrap().version, "v1");
        second.update(report(None, Kind::Filter, acked("v2")));
        assert_eq!(second.refusal(), None);
    }
}
