//! CDS and EDS: where targets live.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address, config_source,
    socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::util::pack_any;
use halftone_compiler::target::TargetSettings;

use super::resource::{Resource, Upstream, Upstreams};
use super::settings::{
    balancing_by_health, circuit_breakers, health_check, outlier_detection, protocol_options,
};
use super::snapshot::{RulesetRoutes, Snapshot};
use super::wire::duration;

/// What all our clusters' names begin with, so that they never meet the user's own.
const PREFIX: &str = "halftone/";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a proxy holds a cluster back for its endpoints. We send them at once; this bounds the harm if we die
/// in between.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of a target's cluster and of its endpoints.
pub(super) fn cluster_name(ruleset: &str, target: &str) -> String {
    format!("{PREFIX}{ruleset}/{target}")
}

/// The clusters of a snapshot: one for each target that has endpoints.
pub(super) fn upstreams(snapshot: &Snapshot) -> Upstreams {
    of(snapshot.rulesets.iter())
}

/// Those that it had lately and has no more.
pub(super) fn past(snapshot: &Snapshot) -> Upstreams {
    // Of two of one name the last one is kept: the newest.
    let mut past = of(snapshot.lately.iter().rev());
    for ruleset in &snapshot.rulesets {
        for target in ruleset.targets.iter().filter(|target| !target.endpoints.is_empty()) {
            past.remove(&cluster_name(&ruleset.name, &target.name));
        }
    }
    past
}

fn of<'a>(rulesets: impl Iterator<Item = &'a RulesetRoutes>) -> Upstreams {
    let targets = rulesets
        .flat_map(|ruleset| ruleset.targets.iter().map(move |target| (&ruleset.name, target)))
        .filter(|(_, target)| !target.endpoints.is_empty());
    targets
        .map(|(ruleset, target)| {
            let name = cluster_name(ruleset, &target.name);
            let asked = target.settings.health_check.is_some();
            let endpoints = pack_any(load_assignment(&name, &target.endpoints, asked));
            let cluster = cluster(&name, &target.settings, target.endpoints.len());
            let upstream = Upstream {
                cluster: Resource::new(name.clone(), &pack_any(cluster)),
                endpoints: Some(Resource::new(name.clone(), &endpoints)),
            };
            (name, Arc::new(upstream))
        })
        .collect()
}

/// A cluster that a proxy has from another control plane, or from so long ago that no snapshot knows it. Naming it in
/// CDS keeps it, with the endpoints the proxy already has. `None` if it was never ours.
pub(super) fn remembered(name: &str) -> Option<Arc<Upstream>> {
    name.starts_with(PREFIX).then(|| {
        // A name tells no settings. Where the target had some, the proxy warms the cluster anew from its cached
        // endpoints while the old one serves; for the moment between that and its new routes it has the defaults.
        let cluster = cluster(name, &TargetSettings::default(), 0);
        Arc::new(Upstream { cluster: Resource::new(name.to_owned(), &pack_any(cluster)), endpoints: None })
    })
}

fn cluster(name: &str, settings: &TargetSettings, endpoints: usize) -> Cluster {
    let limits = settings.limits.of(endpoints);
    let source = ConfigSource {
        initial_fetch_timeout: Some(duration(ENDPOINTS_TIMEOUT)),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(source),
            service_name: name.to_owned(),
        }),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        // Inference times vary widely, so the shortest queue beats taking turns.
        lb_policy: LbPolicy::LeastRequest.into(),
        common_lb_config: settings.health_check.as_ref().map(|_| balancing_by_health()),
        circuit_breakers: Some(circuit_breakers(limits)),
        health_checks: settings
            .health_check
            .iter()
            .map(|check| health_check(check, settings.protocol))
            .collect(),
        outlier_detection: Some(outlier_detection(&settings.outlier_detection)),
        typed_extension_protocol_options: HashMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(protocol_options(settings.protocol)),
        )]),
        // An endpoint that we drop is gone at once; what it is serving still finishes.
        ignore_health_on_host_removal: true,
        ..Cluster::default()
    }
}

fn load_assignment(name: &str, endpoints: &[SocketAddr], asked: bool) -> ClusterLoadAssignment {
    // A set: Envoy would give an endpoint that is named twice a double share.
    let endpoints: BTreeSet<&SocketAddr> = endpoints.iter().collect();
    let locality = LocalityLbEndpoints {
        lb_endpoints: endpoints.into_iter().map(|endpoint| lb_endpoint(endpoint, asked)).collect(),
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(endpoint: &SocketAddr, asked: bool) -> LbEndpoint {
    let socket = SocketAddress {
        address: endpoint.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(endpoint.port().into())),
        ..SocketAddress::default()
    };
    // Otherwise health checks name the cluster, and servers that look at the host refuse them for its slashes.
    let health_check_config =
        asked.then(|| HealthCheckConfig { hostname: endpoint.to_string(), ..HealthCheckConfig::default() });
    let endpoint = Endpoint {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        health_check_config,
        ..Endpoint::default()
    };
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ruleset, snapshot, target};
    use super::super::wire::number;
    use super::*;
    use halftone_compiler::TargetSpec;

    #[test]
    fn xds_clusters_are_eds_over_ads_with_room_for_bursts() {
        let cluster = cluster("halftone/digits/v1", &TargetSettings::default(), 1);
        assert_eq!(
            cluster.cluster_discovery_type,
            Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()))
        );
        let eds = cluster.eds_cluster_config.unwrap();
        assert_eq!(eds.service_name, "halftone/digits/v1");
        let source = eds.eds_config.unwrap();
        assert_eq!(source.resource_api_version, i32::from(ApiVersion::V3));
        assert_eq!(
            source.config_source_specifier,
            Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {}))
        );
        assert_eq!(source.initial_fetch_timeout.unwrap().seconds, 1);
        assert_eq!(cluster.connect_timeout.unwrap().seconds, 1);
        for thresholds in cluster.circuit_breakers.unwrap().thresholds {
            assert!(thresholds.max_requests.unwrap().value > 1024);
            assert!(thresholds.max_connections.unwrap().value > 1024);
            assert!(thresholds.max_pending_requests.unwrap().value > 1024);
        }
    }

    #[test]
    fn xds_clusters_exist_only_for_targets_with_endpoints() {
        let snapshot = snapshot(
            1,
            vec![
                ruleset("vision", None, vec![target("b", &[9002])]),
                ruleset("digits", None, vec![target("v2", &[]), target("v1", &[9001])]),
            ],
        );
        let upstreams = upstreams(&snapshot);
        assert_eq!(upstreams.keys().collect::<Vec<_>>(), ["halftone/digits/v1", "halftone/vision/b"]);
        for (name, upstream) in &upstreams {
            assert_eq!(&upstream.cluster.name, name);
            assert_eq!(&upstream.endpoints.as_ref().unwrap().name, name);
        }
    }

    #[test]
    fn xds_endpoints_are_a_sorted_set_of_addresses() {
        let endpoints =
            ["127.0.0.2:80", "[::1]:9000", "127.0.0.1:81", "127.0.0.2:80"].map(|text| text.parse().unwrap());
        let assignment = load_assignment("halftone/digits/v1", &endpoints, false);
        assert_eq!(assignment.cluster_name, "halftone/digits/v1");
        let [locality] = &assignment.endpoints[..] else { panic!("one locality") };
        let addresses: Vec<String> = locality
            .lb_endpoints
            .iter()
            .map(|endpoint| {
                let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
                    panic!("an endpoint");
                };
                let Some(address::Address::SocketAddress(socket)) = endpoint.address.clone().unwrap().address
                else {
                    panic!("a socket address");
                };
                let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
                    panic!("a port");
                };
                format!("{} {port}", socket.address)
            })
            .collect();
        assert_eq!(addresses, ["127.0.0.1 81", "127.0.0.2 80", "::1 9000"]);
    }

    #[test]
    fn xds_endpoints_that_are_asked_for_their_health_are_asked_by_their_own_names() {
        let endpoints = ["127.0.0.1:81".parse().unwrap()];
        let hostname = |asked| {
            let assignment = load_assignment("halftone/digits/v1", &endpoints, asked);
            let endpoint = assignment.endpoints[0].lb_endpoints[0].host_identifier.clone().unwrap();
            let lb_endpoint::HostIdentifier::Endpoint(endpoint) = endpoint else { panic!("an endpoint") };
            endpoint.health_check_config.map(|config| config.hostname)
        };
        assert_eq!(hostname(true).as_deref(), Some("127.0.0.1:81"));
        assert_eq!(hostname(false), None);
    }

    #[test]
    fn xds_clusters_have_limits_that_follow_their_endpoints() {
        let mut target = target("v1", &[9001, 9002]);
        target.settings.limits.per_endpoint.requests = Some(10);
        let requests = |target: &TargetSpec| {
            let cluster = cluster("c", &target.settings, target.endpoints.len());
            cluster.circuit_breakers.unwrap().thresholds[0].max_requests
        };
        assert_eq!(requests(&target), number(20));
        target.endpoints.pop();
        assert_eq!(requests(&target), number(10));
    }

    #[test]
    fn xds_clusters_remembered_by_a_proxy_are_defined_as_they_were() {
        let snapshot = snapshot(1, vec![ruleset("digits", None, vec![target("v1", &[9001])])]);
        let original = &upstreams(&snapshot)["halftone/digits/v1"];
        let again = remembered("halftone/digits/v1").unwrap();
        assert_eq!(again.cluster, original.cluster);
        assert_eq!(again.endpoints, None);
        assert_eq!(remembered("someone-elses"), None);
    }
}
