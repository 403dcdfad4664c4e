//! Resources as proxies receive them: named, typed, hashed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;
use halftone_telemetry::current::Current;
use prost::Message;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use super::snapshot::{ProxySettings, Snapshot, SnapshotError};
use super::{clusters, filter, routes};

/// The kinds of resource that we serve, in the order in which a change must reach a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// CDS: a cluster for each target.
    #[serde(rename = "cds")]
    Cluster,
    /// EDS: the endpoints of each cluster.
    #[serde(rename = "eds")]
    Endpoint,
    /// RDS: the one route configuration.
    #[serde(rename = "rds")]
    Route,
    /// ECDS: the filter with its bundle.
    #[serde(rename = "ecds")]
    Filter,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Route, Self::Filter];

    /// The type URL of its resources.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Filter => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// The kind with this type URL, if we serve it.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// One resource, packed. Immutable, and shared by all streams.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resource {
    /// The name by which proxies subscribe to it.
    pub(crate) name: String,
    /// Hash of its content: two resources of one name are the same if and only if their hashes are.
    pub(crate) hash: u64,
    /// Its `google.protobuf.Any`, encoded.
    pub(crate) any: Bytes,
}

/// Stands for the hash of what a proxy has of a resource, if anything, when that is not known.
pub(crate) const UNKNOWN: u64 = 0;

impl Resource {
    /// Names, hashes and encodes a packed message.
    pub(crate) fn new(name: String, any: &Any) -> Arc<Self> {
        let mut hasher = Xxh3Default::new();
        any.type_url.hash(&mut hasher);
        any.value.hash(&mut hasher);
        Arc::new(Self { name, hash: hasher.finish(), any: any.encode_to_vec().into() })
    }

    /// Its own version, for the delta form.
    pub(crate) fn version(&self) -> String {
        format!("{:016x}", self.hash)
    }

    /// The hash for which such a version stands.
    pub(crate) fn hash_of(version: &str) -> u64 {
        u64::from_str_radix(version, 16).unwrap_or(UNKNOWN)
    }
}

/// The version of a set of resources: a hash of their content and nothing else, so that a set which did not change
/// keeps its version over revisions, restarts and replicas. `resources` must come in the order of their names.
pub(crate) fn version<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> String {
    let mut hasher = Xxh3Default::new();
    for resource in resources {
        resource.name.hash(&mut hasher);
        resource.hash.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// A cluster and its endpoints: they come and go together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Upstream {
    /// The CDS resource.
    pub(crate) cluster: Arc<Resource>,
    /// The EDS resource of the same name. `None` for a cluster that only the proxy remembers.
    pub(crate) endpoints: Option<Arc<Resource>>,
}

/// Clusters by name.
pub(crate) type Upstreams = BTreeMap<String, Arc<Upstream>>;

/// Everything that proxies get for one revision. Immutable; publish a new one by a `watch` channel.
#[derive(Debug, Clone)]
pub struct Resources {
    revision: u64,
    /// The span in which they were published.
    publication: OnceLock<Current>,
    pub(crate) upstreams: Upstreams,
    /// Those of earlier revisions that are gone.
    pub(crate) past: Upstreams,
    pub(crate) route: Arc<Resource>,
    pub(crate) filter: Arc<Resource>,
}

impl Resources {
    /// Builds the resources. The same snapshot and settings give the same bytes.
    ///
    /// # Errors
    /// If a name is unusable or used twice.
    pub fn build(snapshot: &Snapshot, settings: &ProxySettings) -> Result<Self, SnapshotError> {
        snapshot.check()?;
        Ok(Self {
            revision: snapshot.revision,
            publication: OnceLock::new(),
            upstreams: clusters::upstreams(snapshot),
            past: clusters::past(snapshot),
            route: routes::resource(snapshot, settings),
            filter: filter::resource(&snapshot.bundle, settings)?,
        })
    }

    /// Says in which span they are published, before they are.
    pub(crate) fn published_in(&self, publication: Current) {
        let _ = self.publication.set(publication);
    }

    /// The span in which they were published; nothing when that is not recorded, or was before this process.
    pub(crate) fn publication(&self) -> Option<&Current> {
        self.publication.get()
    }

    /// The revision these resources are of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of one kind's complete set, as a proxy that has taken all of it reports it.
    pub fn version(&self, kind: Kind) -> String {
        version(self.all(kind))
    }

    /// Whether `versions`, by name, are those of one kind's complete set.
    pub(crate) fn has_versions(&self, kind: Kind, versions: &HashMap<String, String>) -> bool {
        let resources = self.all(kind);
        versions.len() == resources.len()
            && resources.iter().all(|resource| {
                versions
                    .get(&resource.name)
                    .is_some_and(|version| Resource::hash_of(version) == resource.hash)
            })
    }

    fn all(&self, kind: Kind) -> Vec<&Arc<Resource>> {
        match kind {
            Kind::Cluster => self.upstreams.values().map(|upstream| &upstream.cluster).collect(),
            Kind::Endpoint => {
                self.upstreams.values().filter_map(|upstream| upstream.endpoints.as_ref()).collect()
            }
            Kind::Route => vec![&self.route],
            Kind::Filter => vec![&self.filter],
        }
    }
}
