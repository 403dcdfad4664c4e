//! RDS: from the filter's headers to clusters.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use envoy_types::util::pack_any;
use halftone_rules::headers::{ROUTE, SCOPE_DECIDED, TARGET};

use super::clusters::cluster_name;
use super::resource::Resource;
use super::snapshot::{ProxySettings, RulesetRoutes, Snapshot, TargetEndpoints};
use super::wire::{duration, number};

/// The resource, packed.
pub(super) fn resource(snapshot: &Snapshot, settings: &ProxySettings) -> Arc<Resource> {
    Resource::new(settings.route_config_name.clone(), &pack_any(configuration(snapshot, settings)))
}

fn configuration(snapshot: &Snapshot, settings: &ProxySettings) -> RouteConfiguration {
    let mut rulesets: Vec<&RulesetRoutes> = snapshot.rulesets.iter().collect();
    rulesets.sort_by_key(|ruleset| &ruleset.name);

    let mut routes: Vec<Route> =
        rulesets.into_iter().flat_map(|ruleset| ruleset_routes(ruleset, settings)).collect();
    // A ruleset that we no longer know, or a request that no ruleset governs.
    routes.push(fallback("fallback".to_owned(), Vec::new(), settings));

    let host = VirtualHost {
        name: settings.route_config_name.clone(),
        domains: vec!["*".to_owned()],
        routes,
        retry_policy: Some(retry_policy()),
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: settings.route_config_name.clone(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}

/// A route for each target that can serve, then one for all else that the ruleset governs: a target that has gone
/// while the proxy still runs the old rules lands there.
fn ruleset_routes(ruleset: &RulesetRoutes, settings: &ProxySettings) -> Vec<Route> {
    let mut targets: Vec<&TargetEndpoints> =
        ruleset.targets.iter().filter(|target| !target.endpoints.is_empty()).collect();
    targets.sort_by_key(|target| &target.name);

    let governed = exactly(ROUTE, format!("{SCOPE_DECIDED}/{}", ruleset.name));
    let mut routes: Vec<Route> = targets
        .iter()
        .map(|target| {
            let headers = vec![governed.clone(), exactly(TARGET, target.name.clone())];
            let name = format!("{}/{}", ruleset.name, target.name);
            to_cluster(name, headers, cluster_name(&ruleset.name, &target.name), target.timeout)
        })
        .collect();

    let default = targets.iter().find(|target| Some(&target.name) == ruleset.default.as_ref());
    let name = format!("{}/", ruleset.name);
    routes.push(match default {
        Some(target) => {
            to_cluster(name, vec![governed], cluster_name(&ruleset.name, &target.name), target.timeout)
        }
        None => fallback(name, vec![governed], settings),
    });
    routes
}

fn fallback(name: String, headers: Vec<HeaderMatcher>, settings: &ProxySettings) -> Route {
    to_cluster(name, headers, settings.fallback_cluster.clone(), settings.fallback_timeout)
}

fn to_cluster(name: String, headers: Vec<HeaderMatcher>, cluster: String, timeout: Duration) -> Route {
    let action = RouteAction {
        timeout: Some(duration(timeout)),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..RouteAction::default()
    };
    Route {
        name,
        r#match: Some(RouteMatch {
            headers,
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

fn exactly(header: &str, value: String) -> HeaderMatcher {
    let pattern = StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(value)),
        ..StringMatcher::default()
    };
    HeaderMatcher {
        name: header.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pattern)),
        ..HeaderMatcher::default()
    }
}

/// Only what cannot have reached a backend is tried again: inference need not be idempotent, and a repeated
/// request would count twice.
fn retry_policy() -> RetryPolicy {
    let other_host = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack_any(PreviousHostsPredicate {}))),
    };
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset-before-request".to_owned(),
        num_retries: number(4),
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
    use super::super::testing::{ruleset, snapshot, target};
    use super::*;

    /// `ROUTE,TARGET -> cluster timeout` for each route, in order.
    fn shape(snapshot: &Snapshot) -> Vec<String> {
        let settings = ProxySettings { fallback_timeout: Duration::from_secs(9), ..ProxySettings::new("f") };
        let configuration = configuration(snapshot, &settings);
        assert_eq!(configuration.name, "halftone");
        let [host] = &configuration.virtual_hosts[..] else { panic!("one virtual host") };
        assert_eq!(host.domains, ["*"]);
        host.routes.iter().map(describe).collect()
    }

    fn describe(route: &Route) -> String {
        let matches = route.r#match.as_ref().unwrap();
        assert_eq!(matches.path_specifier, Some(PathSpecifier::Prefix("/".to_owned())));
        let headers: Vec<String> = matches
            .headers
            .iter()
            .map(|matcher| match matcher.header_match_specifier.as_ref().unwrap() {
                HeaderMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(string_matcher::MatchPattern::Exact(value)),
                    ignore_case: false,
                }) => format!("{}={value}", matcher.name.trim_start_matches("x-halftone-")),
                other => panic!("{other:?}"),
            })
            .collect();
        let Some(route::Action::Route(action)) = &route.action else { panic!("{route:?}") };
        let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else {
            panic!("{action:?}")
        };
        let timeout = action.timeout.unwrap().seconds;
        format!("{} -> {cluster} {timeout}s", headers.join(" "))
    }

    #[test]
    fn xds_routes_go_from_most_to_least_specific_and_sorted() {
        let mut snapshot = snapshot(
            1,
            vec![
                ruleset("vision", Some("b"), vec![target("b", &[9002]), target("a", &[9001])]),
                ruleset("digits", None, vec![target("v1", &[9003])]),
            ],
        );
        snapshot.rulesets[0].targets[0].timeout = Duration::from_secs(30);
        assert_eq!(
            shape(&snapshot),
            [
                "route=xds/digits target=v1 -> halftone/digits/v1 5s",
                "route=xds/digits -> default 9s",
                "route=xds/vision target=a -> halftone/vision/a 5s",
                "route=xds/vision target=b -> halftone/vision/b 30s",
                "route=xds/vision -> halftone/vision/b 30s",
                " -> default 9s",
            ]
        );
    }

    #[test]
    fn xds_routes_leave_out_targets_without_endpoints_even_as_default() {
        let snapshot =
            snapshot(1, vec![ruleset("digits", Some("v1"), vec![target("v1", &[]), target("v2", &[9002])])]);
        assert_eq!(
            shape(&snapshot),
            [
                "route=xds/digits target=v2 -> halftone/digits/v2 5s",
                "route=xds/digits -> default 9s",
                " -> default 9s",
            ]
        );
    }

    #[test]
    fn xds_routes_retry_only_what_no_backend_has_seen() {
        let policy = retry_policy();
        assert_eq!(policy.retry_on, "connect-failure,refused-stream,reset-before-request");
        assert_eq!(policy.num_retries, number(4));
        assert_eq!(policy.per_try_timeout, None);
    }
}
