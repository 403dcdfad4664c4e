//! How a target is spoken to, in Envoy's terms.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::CommonLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck,
};
use envoy_types::pb::envoy::config::core::v3::{
    HealthCheck, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions,
    RoutingPriority,
};
use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::v3::{CodecClientType, Int64Range, Percent};
use envoy_types::util::pack_any;
use halftone_compiler::target::{self, Concurrency, Probe, Protocol, Retries, RetryOn};

use super::wire::{duration, number};

/// Kept-alive connections close before common servers (five seconds is usual) close them: a request that is sent
/// into a closing connection cannot be retried safely.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Per cluster and proxy. Envoy's 1024 would turn a burst on a fast model into 503s; overload is for the backend
/// to report, not for a default to guess.
const MAX_CONCURRENT: u32 = 65_536;

/// Envoy's 3 would give up most of the requests that a restarting backend refuses at once.
const MAX_RETRIES: u32 = 1_024;

/// No endpoint is left out for longer, unless the target says so.
const MAX_EJECTION: Duration = Duration::from_secs(30);

/// The limits of a cluster.
pub(super) fn circuit_breakers(limits: Concurrency) -> CircuitBreakers {
    let thresholds = |priority: RoutingPriority| Thresholds {
        priority: priority.into(),
        max_connections: number(limits.connections.unwrap_or(MAX_CONCURRENT)),
        max_pending_requests: number(limits.pending.unwrap_or(MAX_CONCURRENT)),
        max_requests: number(limits.requests.unwrap_or(MAX_CONCURRENT)),
        max_retries: number(MAX_RETRIES),
        ..Thresholds::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds(RoutingPriority::Default), thresholds(RoutingPriority::High)],
        ..CircuitBreakers::default()
    }
}

/// An endpoint that cannot be connected to is left out for a while. Without this it attracts requests: nothing is
/// under way on it, so it always has the shortest queue. What a backend answers is none of our business here, unless
/// the target says so. When more than half of the endpoints are out, Envoy uses all of them again.
pub(super) fn outlier_detection(settings: &target::OutlierDetection) -> OutlierDetection {
    let enforcing = if settings.consecutive_5xx.is_some() { 100 } else { 0 };
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: number(2),
        enforcing_consecutive_local_origin_failure: number(100),
        enforcing_local_origin_success_rate: number(0),
        consecutive_5xx: settings.consecutive_5xx.and_then(number),
        enforcing_consecutive_5xx: number(enforcing),
        enforcing_consecutive_gateway_failure: number(0),
        enforcing_success_rate: number(0),
        interval: Some(duration(Duration::from_secs(1))),
        base_ejection_time: Some(duration(settings.base_ejection)),
        // Envoy refuses one that is shorter than the base.
        max_ejection_time: Some(duration(MAX_EJECTION.max(settings.base_ejection))),
        max_ejection_percent: number(settings.max_ejected),
        ..OutlierDetection::default()
    }
}

/// Envoy's health check for ours.
pub(super) fn health_check(settings: &target::HealthCheck, protocol: Protocol) -> HealthCheck {
    let checker = match &settings.probe {
        Probe::Http(path) => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            path: path.clone(),
            codec_client_type: match protocol {
                Protocol::Http1 | Protocol::SameAsClient => CodecClientType::Http1.into(),
                Protocol::Http2 => CodecClientType::Http2.into(),
            },
            expected_statuses: vec![Int64Range { start: 200, end: 300 }],
            // Without this, one bad answer would do, whatever the threshold says.
            retriable_statuses: vec![Int64Range { start: 100, end: 600 }],
            ..HttpHealthCheck::default()
        }),
        Probe::Grpc(service) => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.clone(),
            ..GrpcHealthCheck::default()
        }),
    };
    HealthCheck {
        timeout: Some(duration(settings.timeout)),
        interval: Some(duration(settings.interval)),
        // Otherwise a target that nobody has used yet is asked once a minute.
        no_traffic_interval: Some(duration(settings.interval)),
        healthy_threshold: number(settings.healthy_after),
        unhealthy_threshold: number(settings.unhealthy_after),
        health_checker: Some(checker),
        ..HealthCheck::default()
    }
}

/// With a health check, an endpoint has said itself that it is not well: it gets no request while another one is well.
/// Only when none is, all are used. Envoy's 50 % would send requests to the sick ones when they are the majority.
pub(super) fn balancing_by_health() -> CommonLbConfig {
    CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 1.0 }), ..CommonLbConfig::default() }
}

/// What a cluster speaks.
pub(super) fn protocol_options(protocol: Protocol) -> HttpProtocolOptions {
    let http1 = Http1ProtocolOptions::default();
    let http2 = Http2ProtocolOptions::default();
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let options = match protocol {
        Protocol::SameAsClient => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1),
                http2_protocol_options: Some(http2),
                ..UseDownstreamHttpConfig::default()
            })
        }
        Protocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
        Protocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
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

/// Which requests are sent once more, and where to.
pub(super) fn retry_policy(retries: &Retries) -> RetryPolicy {
    let other_host = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack_any(PreviousHostsPredicate {}))),
    };
    let statuses = retries.on.iter().filter_map(|on| match on {
        RetryOn::Status(status) => Some(u32::from(*status)),
        _ => None,
    });
    let statuses: Vec<u32> = statuses.collect();
    let words = retries.on.iter().filter_map(|on| on.word());
    let words = words.chain((!statuses.is_empty()).then_some("retriable-status-codes"));
    RetryPolicy {
        retry_on: words.collect::<Vec<_>>().join(","),
        retriable_status_codes: statuses,
        num_retries: number(retries.attempts),
        per_try_timeout: retries.per_try_timeout.map(duration),
        retry_host_predicate: vec![other_host],
        host_selection_retry_max_attempts: 10,
        // The only endpoint of a target may be restarting, so the second try waits a little longer.
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(duration(Duration::from_millis(50))),
            max_interval: Some(duration(Duration::from_millis(500))),
        }),
        ..RetryPolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xds_settings_speak_what_the_target_speaks() {
        use UpstreamProtocolOptions::{ExplicitHttpConfig, UseDownstreamProtocolConfig};
        let options = |protocol| protocol_options(protocol).upstream_protocol_options.unwrap();
        assert!(matches!(options(Protocol::SameAsClient), UseDownstreamProtocolConfig(_)));
        let ExplicitHttpConfig(http1) = options(Protocol::Http1) else { panic!("explicit") };
        assert!(matches!(http1.protocol_config, Some(ProtocolConfig::HttpProtocolOptions(_))));
        let ExplicitHttpConfig(http2) = options(Protocol::Http2) else { panic!("explicit") };
        assert!(matches!(http2.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_))));
    }

    #[test]
    fn xds_settings_retry_only_what_no_backend_has_seen_unless_told() {
        let policy = retry_policy(&Retries::default());
        assert_eq!(policy.retry_on, "connect-failure,refused-stream,reset-before-request");
        assert_eq!(policy.num_retries, number(4));
        assert_eq!(policy.per_try_timeout, None);

        let on = vec![RetryOn::Status(503), RetryOn::ConnectFailure, RetryOn::Status(429)];
        let policy =
            retry_policy(&Retries { attempts: 1, on, per_try_timeout: Some(Duration::from_secs(2)) });
        assert_eq!(policy.retry_on, "connect-failure,retriable-status-codes");
        assert_eq!(policy.retriable_status_codes, [503, 429]);
        assert_eq!(policy.per_try_timeout.unwrap().seconds, 2);
    }

    #[test]
    fn xds_settings_eject_for_answers_only_when_asked() {
        let mut settings = target::OutlierDetection::default();
        let detection = outlier_detection(&settings);
        assert_eq!(detection.enforcing_consecutive_5xx, number(0));
        assert_eq!(detection.enforcing_consecutive_local_origin_failure, number(100));
        settings.consecutive_5xx = Some(7);
        settings.base_ejection = Duration::from_secs(60);
        let detection = outlier_detection(&settings);
        assert_eq!(detection.consecutive_5xx, number(7));
        assert_eq!(detection.enforcing_consecutive_5xx, number(100));
        assert_eq!(detection.max_ejection_time.unwrap().seconds, 60, "Envoy refuses less than the base");
    }
}
