//! CDS and EDS: where targets live.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions,
    HttpProtocolOptions as CommonHttpOptions, RoutingPriority, SocketAddress, address, config_source,
    socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::util::pack_any;

use super::resource::{Resource, Upstream, Upstreams};
use super::snapshot::{Snapshot, UpstreamProtocol};
use super::wire::{duration, number};

/// What all our clusters' names begin with, so that they never meet the user's own.
const PREFIX: &str = "halftone/";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a proxy holds a cluster back for its endpoints. We send them at once; this bounds the harm if we die
/// in between.
const ENDPOINTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Kept-alive connections close before common servers (five seconds is usual) close them: a request that is sent
/// into a closing connection cannot be retried safely.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Per cluster and proxy. Envoy's 1024 would turn a burst on a fast model into 503s; overload is for the backend
/// to report, not for a default to guess.
const MAX_CONCURRENT: u32 = 65_536;

/// Envoy's 3 would give up most of the requests that a restarting backend refuses at once.
const MAX_RETRIES: u32 = 1_024;

/// The name of a target's cluster and of its endpoints.
pub(super) fn cluster_name(ruleset: &str, target: &str) -> String {
    format!("{PREFIX}{ruleset}/{target}")
}

/// The clusters of a snapshot: one for each target that has endpoints.
pub(super) fn upstreams(snapshot: &Snapshot) -> Upstreams {
    let targets = snapshot
        .rulesets
        .iter()
        .flat_map(|ruleset| ruleset.targets.iter().map(move |target| (&ruleset.name, target)))
        .filter(|(_, target)| !target.endpoints.is_empty());
    targets
        .map(|(ruleset, target)| {
            let name = cluster_name(ruleset, &target.name);
            let endpoints = pack_any(load_assignment(&name, &target.endpoints));
            let upstream = Upstream {
                cluster: Resource::new(name.clone(), &pack_any(cluster(&name, target.protocol))),
                endpoints: Some(Resource::new(name.clone(), &endpoints)),
            };
            (name, Arc::new(upstream))
        })
        .collect()
}

/// A cluster that a proxy has from an earlier control plane and that no snapshot of ours knows. Naming it in CDS
/// keeps it, with the endpoints the proxy already has. `None` if it was never ours.
pub(super) fn remembered(name: &str) -> Option<Arc<Upstream>> {
    name.starts_with(PREFIX).then(|| {
        // Nearly always what the proxy has; if the target spoke another protocol, the proxy warms the cluster
        // anew from its cached endpoints.
        let cluster = cluster(name, UpstreamProtocol::default());
        Arc::new(Upstream { cluster: Resource::new(name.to_owned(), &pack_any(cluster)), endpoints: None })
    })
}

fn cluster(name: &str, protocol: UpstreamProtocol) -> Cluster {
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
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![thresholds(RoutingPriority::Default), thresholds(RoutingPriority::High)],
            ..CircuitBreakers::default()
        }),
        outlier_detection: Some(outlier_detection()),
        typed_extension_protocol_options: HashMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(protocol_options(protocol)),
        )]),
        // An endpoint that we drop is gone at once; what it is serving still finishes.
        ignore_health_on_host_removal: true,
        ..Cluster::default()
    }
}

fn thresholds(priority: RoutingPriority) -> Thresholds {
    Thresholds {
        priority: priority.into(),
        max_connections: number(MAX_CONCURRENT),
        max_pending_requests: number(MAX_CONCURRENT),
        max_requests: number(MAX_CONCURRENT),
        max_retries: number(MAX_RETRIES),
        ..Thresholds::default()
    }
}

/// An endpoint that cannot be connected to is left out for a while. Without this it attracts requests: nothing is
/// under way on it, so it always has the shortest queue. What a backend answers is none of our business here: a
/// release's verdict is about answers. When more than half of the endpoints are out, Envoy uses all of them again.
fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: number(2),
        enforcing_consecutive_local_origin_failure: number(100),
        enforcing_local_origin_success_rate: number(0),
        enforcing_consecutive_5xx: number(0),
        enforcing_consecutive_gateway_failure: number(0),
        enforcing_success_rate: number(0),
        interval: Some(duration(Duration::from_secs(1))),
        base_ejection_time: Some(duration(Duration::from_secs(2))),
        max_ejection_time: Some(duration(Duration::from_secs(30))),
        max_ejection_percent: number(100),
        ..OutlierDetection::default()
    }
}

fn protocol_options(protocol: UpstreamProtocol) -> HttpProtocolOptions {
    let http1 = Http1ProtocolOptions::default();
    let http2 = Http2ProtocolOptions::default();
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let options = match protocol {
        UpstreamProtocol::SameAsClient => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1),
                http2_protocol_options: Some(http2),
                ..UseDownstreamHttpConfig::default()
            })
        }
        UpstreamProtocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
    };
    HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpOptions {
            idle_timeout: Some(duration(IDLE_TIMEOUT)),
            ..CommonHttpOptions::default()
        }),
        upstream_protocol_options: Some(options),
        ..HttpProtocolOptions::default()
    }
}

fn load_assignment(name: &str, endpoints: &[SocketAddr]) -> ClusterLoadAssignment {
    // A set: Envoy would give an endpoint that is named twice a double share.
    let endpoints: BTreeSet<&SocketAddr> = endpoints.iter().collect();
    let locality = LocalityLbEndpoints {
        lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(endpoint: &SocketAddr) -> LbEndpoint {
    let socket = SocketAddress {
        address: endpoint.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(endpoint.port().into())),
        ..SocketAddress::default()
    };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
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
    use super::*;

    #[test]
    fn xds_clusters_are_eds_over_ads_with_room_for_bursts() {
        let cluster = cluster("halftone/digits/v1", UpstreamProtocol::default());
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
    fn xds_clusters_speak_what_the_target_speaks() {
        use UpstreamProtocolOptions::{ExplicitHttpConfig, UseDownstreamProtocolConfig};
        let options = |protocol| protocol_options(protocol).upstream_protocol_options.unwrap();
        assert!(matches!(options(UpstreamProtocol::SameAsClient), UseDownstreamProtocolConfig(_)));
        let ExplicitHttpConfig(http1) = options(UpstreamProtocol::Http1) else { panic!("explicit") };
        assert!(matches!(http1.protocol_config, Some(ProtocolConfig::HttpProtocolOptions(_))));
        let ExplicitHttpConfig(http2) = options(UpstreamProtocol::Http2) else { panic!("explicit") };
        assert!(matches!(http2.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_))));
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
        let assignment = load_assignment("halftone/digits/v1", &endpoints);
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
    fn xds_clusters_remembered_by_a_proxy_are_defined_as_they_were() {
        let snapshot = snapshot(1, vec![ruleset("digits", None, vec![target("v1", &[9001])])]);
        let original = &upstreams(&snapshot)["halftone/digits/v1"];
        let again = remembered("halftone/digits/v1").unwrap();
        assert_eq!(again.cluster, original.cluster);
        assert_eq!(again.endpoints, None);
        assert_eq!(remembered("someone-elses"), None);
    }
}
