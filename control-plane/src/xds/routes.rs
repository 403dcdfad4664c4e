//! RDS: from the filter's headers to clusters.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use envoy_types::util::pack_any;
use halftone_compiler::target::{Retries, TargetSettings, TargetSpec};
use halftone_rules::headers::{ROUTE, SCOPE_DECIDED, TARGET};

use super::clusters::cluster_name;
use super::resource::Resource;
use super::settings::retry_policy;
use super::snapshot::{ProxySettings, RulesetRoutes, Snapshot};
use super::wire::duration;

/// After how long without a byte a proxy ends a request by default. With no limit of ours this one stays: it gets rid
/// of clients that are gone.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

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
        retry_policy: Some(retry_policy(&Retries::default())),
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
    let mut targets: Vec<&TargetSpec> =
        ruleset.targets.iter().filter(|target| !target.endpoints.is_empty()).collect();
    targets.sort_by_key(|target| &target.name);

    let governed = exactly(ROUTE, format!("{SCOPE_DECIDED}/{}", ruleset.name));
    let mut routes: Vec<Route> = targets
        .iter()
        .map(|target| {
            let headers = vec![governed.clone(), exactly(TARGET, target.name.clone())];
            let name = format!("{}/{}", ruleset.name, target.name);
            to_target(name, headers, ruleset, target)
        })
        .collect();

    let default = targets.iter().find(|target| Some(&target.name) == ruleset.default.as_ref());
    let name = format!("{}/", ruleset.name);
    routes.push(match default {
        Some(target) => to_target(name, vec![governed], ruleset, target),
        None => fallback(name, vec![governed], settings),
    });
    routes
}

fn fallback(name: String, headers: Vec<HeaderMatcher>, settings: &ProxySettings) -> Route {
    to_cluster(name, headers, settings.fallback_cluster.clone(), settings.fallback_timeout)
}

fn to_target(
    name: String,
    headers: Vec<HeaderMatcher>,
    ruleset: &RulesetRoutes,
    target: &TargetSpec,
) -> Route {
    let TargetSettings { timeout, retries, .. } = &target.settings;
    let mut route = to_cluster(name, headers, cluster_name(&ruleset.name, &target.name), *timeout);
    if let Some(route::Action::Route(action)) = &mut route.action
        && *retries != Retries::default()
    {
        action.retry_policy = Some(retry_policy(retries));
    }
    route
}

fn to_cluster(name: String, headers: Vec<HeaderMatcher>, cluster: String, timeout: Duration) -> Route {
    let action = RouteAction {
        timeout: Some(duration(timeout)),
        // The proxy's own bound would end the request before its time is over.
        idle_timeout: (timeout > STREAM_IDLE_TIMEOUT).then(|| duration(timeout)),
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
        snapshot.rulesets[0].targets[0].settings.timeout = Duration::from_secs(30);
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
    fn xds_routes_of_targets_that_say_so_have_retries_and_idle_timeouts_of_their_own() {
        let mut targets = vec![target("a", &[9001]), target("b", &[9002])];
        targets[1].settings.timeout = Duration::from_secs(600);
        targets[1].settings.retries.attempts = 1;
        let snapshot = snapshot(1, vec![ruleset("d", None, targets)]);
        let configuration = configuration(&snapshot, &ProxySettings::new("f"));
        let action = |at: usize| match configuration.virtual_hosts[0].routes[at].action.clone() {
            Some(route::Action::Route(action)) => action,
            other => panic!("{other:?}"),
        };
        assert_eq!((action(0).retry_policy, action(0).idle_timeout), (None, None), "what holds for all");
        assert_eq!(action(1).retry_policy.unwrap().num_retries.unwrap().value, 1);
        assert_eq!(action(1).idle_timeout.unwrap().seconds, 600);
    }
}
