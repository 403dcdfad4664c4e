use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use halftone_compiler::target::Protocol;

use super::super::testing::{resources, ruleset, snapshot, target};
use super::super::{ProxySettings, RulesetRoutes};
use super::*;

const TIMING: Timing = Timing {
    answer: Duration::from_secs(5),
    grace: Duration::from_secs(2),
    settle: Duration::from_millis(500),
};

/// A proxy at the other end of the stream, with a clock that stands still unless told otherwise.
struct Proxy {
    stream: Stream,
    now: Instant,
    /// What it got and has not answered.
    inbox: Vec<Push>,
    names: BTreeMap<Kind, Vec<String>>,
    nonces: BTreeMap<Kind, String>,
    versions: BTreeMap<Kind, String>,
}

fn short(name: &str) -> &str {
    name.strip_prefix("halftone/d/").unwrap_or(name)
}

impl Proxy {
    fn new(resources: &Arc<Resources>) -> Self {
        Self {
            stream: Stream::new(Form::StateOfTheWorld, TIMING, Arc::clone(resources)),
            now: Instant::now(),
            inbox: Vec::new(),
            names: BTreeMap::new(),
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    /// A proxy like Envoy that has taken all of `resources`.
    fn settled(resources: &Arc<Resources>) -> Self {
        let mut proxy = Self::new(resources);
        proxy.subscribe(Kind::Cluster, &[]);
        proxy.subscribe(Kind::Route, &["halftone"]);
        proxy.subscribe(Kind::Filter, &["halftone"]);
        proxy.obey();
        assert_eq!(proxy.stream.covered(), Some(resources.revision()));
        proxy
    }

    fn send(&mut self, kind: Kind, error: Option<&str>) {
        let request = Request {
            kind,
            subscription: Subscription::Whole {
                names: self.names.get(&kind).cloned().unwrap_or_default(),
                version: self.versions.get(&kind).cloned().unwrap_or_default(),
            },
            nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            error: error.map(str::to_owned),
        };
        self.stream.request(self.now, request);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(push) = self.stream.poll(self.now) {
            self.inbox.push(push);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.poll();
    }

    fn publish(&mut self, resources: &Arc<Resources>) {
        self.stream.publish(Arc::clone(resources));
        self.poll();
    }

    /// Names are those of the targets, without what they have in common.
    fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        let full = |name: &&str| match kind {
            Kind::Endpoint | Kind::Cluster => format!("halftone/d/{name}"),
            Kind::Route | Kind::Filter => (*name).to_owned(),
        };
        self.names.insert(kind, names.iter().map(full).collect());
        self.send(kind, None);
    }

    /// What has arrived: kind and names.
    fn got(&self) -> Vec<(Kind, Vec<&str>)> {
        let names =
            |push: &Push| push.resources.iter().map(|resource| short(&resource.name).to_owned()).collect();
        let leak = |names: Vec<String>| names.into_iter().map(|name| &*name.leak()).collect();
        self.inbox.iter().map(|push| (push.kind, leak(names(push)))).collect()
    }

    /// Takes the oldest unanswered push out of the inbox.
    fn next(&mut self) -> Push {
        assert!(!self.inbox.is_empty(), "nothing has arrived");
        let push = self.inbox.remove(0);
        self.nonces.insert(push.kind, push.nonce.clone());
        push
    }

    fn ack(&mut self) -> Push {
        let push = self.next();
        self.versions.insert(push.kind, push.version.clone());
        self.send(push.kind, None);
        push
    }

    fn nack(&mut self) -> Push {
        let push = self.next();
        self.send(push.kind, Some("refused"));
        push
    }

    /// As Envoy: clusters are ACKed only when their endpoints are there.
    fn ack_like_envoy(&mut self) -> Vec<Push> {
        let push = self.next();
        if push.kind != Kind::Cluster {
            self.versions.insert(push.kind, push.version.clone());
            self.send(push.kind, None);
            return vec![push];
        }
        self.versions.insert(push.kind, push.version.clone());
        let names: Vec<String> = push.resources.iter().map(|resource| resource.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(|name| short(name)).collect();
        let before = self.inbox.len();
        if self.names.contains_key(&Kind::Endpoint) || !names.is_empty() {
            self.subscribe(Kind::Endpoint, &names);
        }
        let mut seen = vec![push];
        if self.inbox.len() > before {
            let at = self.inbox.iter().position(|push| push.kind == Kind::Endpoint).unwrap();
            let push = self.inbox.remove(at);
            self.nonces.insert(push.kind, push.nonce.clone());
            self.versions.insert(push.kind, push.version.clone());
            self.send(push.kind, None);
            seen.push(push);
        }
        self.send(Kind::Cluster, None);
        seen
    }

    /// Answers all like Envoy, until there is nothing more; returns what came.
    fn obey(&mut self) -> Vec<Push> {
        let mut seen = Vec::new();
        while !self.inbox.is_empty() {
            seen.extend(self.ack_like_envoy());
        }
        seen
    }
}

fn kinds(pushes: &[Push]) -> Vec<Kind> {
    pushes.iter().map(|push| push.kind).collect()
}

fn names(push: &Push) -> Vec<&str> {
    push.resources.iter().map(|resource| short(&resource.name)).collect()
}

#[test]
fn xds_first_connection_goes_step_by_step() {
    let resources = resources(1, &[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::new(&resources);
    proxy.subscribe(Kind::Cluster, &[]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"])]);
    proxy.subscribe(Kind::Filter, &["halftone"]);
    proxy.subscribe(Kind::Route, &["halftone"]);
    assert_eq!(proxy.inbox.len(), 1, "routes and filter wait for the clusters");
    // An ACK of the clusters is not enough: they have no endpoints yet.
    proxy.ack();
    assert_eq!(proxy.got(), []);
    proxy.subscribe(Kind::Endpoint, &["a", "b"]);
    assert_eq!(proxy.got(), [(Kind::Endpoint, vec!["a", "b"])]);
    proxy.ack();
    assert_eq!(proxy.got(), [(Kind::Route, vec!["halftone"])]);
    assert_eq!(proxy.stream.covered(), None);
    proxy.ack();
    assert_eq!(proxy.got(), [(Kind::Filter, vec!["halftone"])]);
    proxy.ack();
    assert_eq!(proxy.got(), []);
    assert_eq!(proxy.stream.covered(), Some(1));
    assert_eq!(proxy.stream.deadline(), None);
    for kind in Kind::ALL {
        let version = resources.version(kind);
        let standing = proxy.stream.standing(kind);
        assert_eq!((standing.sent.as_ref(), standing.acked.as_ref()), (Some(&version), Some(&version)));
    }
}

#[test]
fn xds_only_the_filter_is_answered_at_once() {
    let mut proxy = Proxy::new(&resources(1, &[("a", 1)]));
    proxy.subscribe(Kind::Filter, &["halftone"]);
    assert_eq!(kinds(&proxy.inbox), [Kind::Filter]);
    proxy.ack();
    assert_eq!(proxy.stream.covered(), Some(1));
    proxy.publish(&resources(2, &[("a", 1), ("b", 2)]));
    assert_eq!(kinds(&proxy.inbox), [Kind::Filter]);
}

#[test]
fn xds_the_filter_waits_for_a_late_route_subscription_but_not_for_ever() {
    let resources = resources(1, &[("a", 1)]);
    let connect = || {
        let mut proxy = Proxy::new(&resources);
        proxy.subscribe(Kind::Cluster, &[]);
        proxy.obey();
        proxy.subscribe(Kind::Filter, &["halftone"]);
        assert_eq!(proxy.got(), []);
        proxy
    };
    let mut proxy = connect();
    proxy.subscribe(Kind::Route, &["halftone"]);
    assert_eq!(kinds(&proxy.obey()), [Kind::Route, Kind::Filter]);

    let mut proxy = connect();
    assert_eq!(proxy.stream.deadline(), Some(proxy.now + TIMING.settle));
    proxy.wait(TIMING.settle);
    assert_eq!(kinds(&proxy.obey()), [Kind::Filter]);
}

#[test]
fn xds_no_targets_at_all_is_answered_too() {
    let mut proxy = Proxy::new(&resources(1, &[]));
    proxy.subscribe(Kind::Cluster, &[]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec![])]);
    proxy.subscribe(Kind::Route, &["halftone"]);
    proxy.subscribe(Kind::Filter, &["halftone"]);
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster, Kind::Route, Kind::Filter]);
    // And the first target ever arrives.
    proxy.publish(&resources(2, &[("a", 1)]));
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster, Kind::Endpoint, Kind::Route, Kind::Filter]);
}

#[test]
fn xds_a_change_makes_before_it_breaks() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]));
    let second = resources(2, &[("b", 3), ("c", 4)]);
    proxy.publish(&second);
    // The union of old and new, and the new endpoints of what stays.
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b", "c"]), (Kind::Endpoint, vec!["b"])]);
    let seen = proxy.obey();
    assert_eq!(
        kinds(&seen),
        [Kind::Cluster, Kind::Endpoint, Kind::Endpoint, Kind::Route, Kind::Filter],
        "{seen:?}"
    );
    assert_eq!(proxy.stream.covered(), Some(2));
    // The old cluster stays for the grace, then goes.
    assert_eq!(proxy.stream.deadline(), Some(proxy.now + TIMING.grace));
    proxy.wait(TIMING.grace - Duration::from_millis(1));
    assert_eq!(proxy.got(), []);
    proxy.wait(Duration::from_millis(1));
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["b", "c"])]);
    assert_eq!(proxy.inbox[0].version, second.version(Kind::Cluster));
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster]);
    assert_eq!(proxy.stream.deadline(), None);
}

#[test]
fn xds_routes_wait_for_endpoints_and_clusters_both() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("a", 1), ("b", 2)]));
    proxy.subscribe(Kind::Endpoint, &["a", "b"]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"]), (Kind::Endpoint, vec!["b"])]);
    let clusters = proxy.next();
    proxy.ack();
    assert_eq!(proxy.got(), [], "endpoints alone are not enough");
    proxy.nonces.insert(Kind::Cluster, clusters.nonce);
    proxy.send(Kind::Cluster, None);
    assert_eq!(kinds(&proxy.inbox), [Kind::Route]);
}

#[test]
fn xds_what_did_not_change_is_not_sent() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(1, &[("a", 1)]));
    assert_eq!(proxy.got(), []);
    // Another bundle alone.
    proxy.publish(&resources(2, &[("a", 1)]));
    assert_eq!(kinds(&proxy.obey()), [Kind::Filter]);
    assert_eq!(proxy.stream.covered(), Some(2));
    // The same request again is no reason either.
    for kind in Kind::ALL {
        proxy.send(kind, None);
    }
    assert_eq!(proxy.got(), []);
}

#[test]
fn xds_a_revision_that_changes_only_endpoints_is_covered_without_the_filter() {
    let mut first = (*resources(1, &[("a", 1)])).clone();
    let mut second = (*resources(2, &[("a", 2)])).clone();
    second.filter = Arc::clone(&first.filter);
    first.upstreams.clone_from(&resources(1, &[("a", 1)]).upstreams);
    let mut proxy = Proxy::settled(&Arc::new(first));
    proxy.publish(&Arc::new(second));
    assert_eq!(proxy.got(), [(Kind::Endpoint, vec!["a"])]);
    assert_eq!(proxy.stream.covered(), Some(1));
    proxy.obey();
    assert_eq!(proxy.stream.covered(), Some(2));
}

#[test]
fn xds_endpoints_are_sent_again_when_their_cluster_changes() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]));
    let mut changed = (*resources(2, &[("a", 1), ("b", 2)])).clone();
    let old = &changed.upstreams["halftone/d/a"];
    let mut any = Any::decode(old.cluster.any.clone()).unwrap();
    any.value.extend_from_slice(&[0xb8, 0x01, 0x00]);
    let upstream =
        Upstream { cluster: Resource::new(old.cluster.name.clone(), &any), endpoints: old.endpoints.clone() };
    changed.upstreams.insert("halftone/d/a".to_owned(), Arc::new(upstream));
    proxy.publish(&Arc::new(changed));
    // Right after the clusters, without being asked, and only those.
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"]), (Kind::Endpoint, vec!["a"])]);
    // What Envoy asks meanwhile bears an old nonce and changes nothing.
    proxy.send(Kind::Endpoint, None);
    assert_eq!(proxy.inbox.len(), 2);
    let clusters = proxy.next();
    proxy.send(Kind::Cluster, None);
    assert_eq!(kinds(&proxy.inbox), [Kind::Endpoint], "the old ACK of the endpoints no longer counts");
    proxy.ack();
    assert_eq!(kinds(&proxy.obey()), [Kind::Filter]);
    assert_eq!(clusters.kind, Kind::Cluster);
}

#[test]
fn xds_a_cluster_that_returns_gets_its_endpoints_again() {
    let both = resources(1, &[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::settled(&both);
    proxy.publish(&resources(2, &[("a", 1)]));
    proxy.obey();
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])]);
    // The proxy has let go of b, but its request to say so is still on its way.
    proxy.ack();
    proxy.publish(&both);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"]), (Kind::Endpoint, vec!["b"])]);
}

#[test]
fn xds_a_cluster_that_returns_must_be_taken_again() {
    let both = resources(1, &[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::settled(&both);
    proxy.publish(&resources(2, &[("a", 1)]));
    proxy.obey();
    proxy.wait(TIMING.grace);
    proxy.ack();
    proxy.publish(&both);
    assert_eq!(proxy.nack().kind, Kind::Cluster);
    assert_eq!(proxy.ack().kind, Kind::Endpoint);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])], "endpoints of a refused cluster are worth nothing");
}

#[test]
fn xds_one_answer_at_a_time_is_awaited_even_if_the_grace_ends() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]));
    proxy.publish(&resources(2, &[("a", 1)]));
    proxy.obey();
    proxy.publish(&resources(3, &[("a", 1), ("c", 3)]));
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b", "c"])]);
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.inbox.len(), 1);
    let seen = proxy.obey();
    assert_eq!(names(&seen[0]), ["a", "b", "c"]);
    assert!(seen[1..].iter().any(|push| push.kind == Kind::Cluster && names(push) == ["a", "c"]));
    assert_eq!(proxy.stream.covered(), Some(3));
}

#[test]
fn xds_a_target_that_returns_within_the_grace_is_never_gone() {
    let both = resources(1, &[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::settled(&both);
    proxy.publish(&resources(2, &[("a", 1)]));
    proxy.obey();
    proxy.publish(&both);
    let seen = proxy.obey();
    assert_eq!(kinds(&seen), [Kind::Route, Kind::Filter]);
    proxy.wait(TIMING.grace * 2);
    assert_eq!(proxy.got(), []);
}

#[test]
fn xds_revisions_in_between_are_skipped() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    for revision in 2..100 {
        proxy.publish(&resources(revision, &[("a", 1)]));
    }
    assert_eq!(kinds(&proxy.inbox), [Kind::Filter], "one is under way");
    proxy.ack();
    assert_eq!(proxy.stream.covered(), Some(2));
    assert_eq!(kinds(&proxy.inbox), [Kind::Filter], "and then the last");
    proxy.ack();
    assert_eq!(proxy.stream.covered(), Some(99));
    assert_eq!(proxy.got(), []);
}

#[test]
fn xds_revisions_faster_than_the_proxy_do_not_starve_it() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    let mut covered = Vec::new();
    for revision in 2..40_u16 {
        // Another target with each revision, and one answer of the proxy in between.
        proxy.publish(&resources(revision.into(), &[("a", 1), (&format!("t{revision}"), revision)]));
        proxy.ack_like_envoy();
        covered.push(proxy.stream.covered());
    }
    covered.dedup();
    assert!(covered.len() > 8, "{covered:?}");
    proxy.obey();
    assert_eq!(proxy.stream.covered(), Some(39));
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "t39"])]);
}

#[test]
fn xds_refused_clusters_stop_the_revision_but_not_the_next() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("b", 2)]));
    proxy.nack();
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])], "back, without the routes and the filter");
    assert_eq!(proxy.stream.standing(Kind::Cluster).nacked.as_ref().unwrap().message, "refused");
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster]);
    let refused = Refused { revision: 2, kind: Kind::Cluster, message: "refused".to_owned() };
    assert_eq!((proxy.stream.covered(), proxy.stream.refused()), (Some(1), Some(&refused)));
    proxy.wait(Duration::from_secs(60));
    assert_eq!(proxy.got(), []);
    proxy.publish(&resources(3, &[("a", 1), ("c", 3)]));
    let seen = proxy.obey();
    assert_eq!(names(&seen[0]), ["a", "c"], "what only the refused revision wanted is not kept");
    assert_eq!(kinds(&seen), [Kind::Cluster, Kind::Endpoint, Kind::Route, Kind::Filter]);
    assert_eq!(proxy.stream.covered(), Some(3));
}

#[test]
fn xds_going_back_after_a_refusal_repairs() {
    let first = resources(1, &[("a", 1)]);
    let mut proxy = Proxy::settled(&first);
    proxy.publish(&resources(2, &[("a", 1), ("b", 2)]));
    proxy.nack();
    proxy.publish(&resources(3, &[("a", 1)]));
    let seen = proxy.obey();
    assert_eq!(kinds(&seen), [Kind::Cluster, Kind::Filter]);
    assert_eq!(proxy.stream.covered(), Some(3));
    assert_eq!(proxy.stream.standing(Kind::Cluster).nacked, None);
}

#[test]
fn xds_refused_endpoints_stop_the_revision_but_not_the_next() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("a", 2)]));
    assert_eq!(proxy.nack().kind, Kind::Endpoint);
    assert_eq!(kinds(&proxy.obey()), [Kind::Endpoint], "those from before");
    proxy.publish(&resources(3, &[("a", 3)]));
    assert_eq!(kinds(&proxy.obey()), [Kind::Endpoint, Kind::Filter]);
}

#[test]
fn xds_refused_routes_keep_the_old_rules_and_all_clusters() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("b", 2)]));
    let clusters = proxy.ack_like_envoy();
    assert_eq!(kinds(&clusters), [Kind::Cluster, Kind::Endpoint]);
    assert_eq!(proxy.nack().kind, Kind::Route);
    assert_eq!(kinds(&proxy.inbox), [Kind::Route], "no filter, and the routes from before");
    proxy.wait(TIMING.grace * 2);
    assert_eq!(kinds(&proxy.inbox), [Kind::Route], "no cluster of routes that may be in use goes away");
    proxy.obey();
    assert_eq!(proxy.stream.covered(), Some(1));
    proxy.publish(&resources(3, &[("c", 3)]));
    let seen = proxy.obey();
    assert_eq!(names(&seen[0]), ["a", "b", "c"]);
    assert_eq!(proxy.stream.covered(), Some(3));
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["c"])]);
}

#[test]
fn xds_a_refused_filter_is_followed_by_the_one_before() {
    let first = resources(1, &[("a", 1)]);
    let mut proxy = Proxy::settled(&first);
    proxy.stream.events();
    let second = resources(2, &[("a", 1)]);
    proxy.publish(&second);
    assert_eq!(proxy.nack().kind, Kind::Filter);
    let version = second.version(Kind::Filter);
    assert_eq!(proxy.stream.events(), [Event::Nacked { kind: Kind::Filter, version, revision: 2 }]);
    assert_eq!(proxy.ack().version, first.version(Kind::Filter), "other bytes than those that it refused");
    proxy.wait(Duration::from_secs(60));
    proxy.publish(&resources(2, &[("a", 1)]));
    assert_eq!(proxy.got(), [], "what was refused is not tried again under its own revision");
    assert_eq!(proxy.stream.covered(), Some(1));
    assert_eq!(proxy.stream.refused().unwrap().revision, 2);
    proxy.publish(&resources(3, &[("a", 1)]));
    proxy.obey();
    assert_eq!((proxy.stream.covered(), proxy.stream.refused()), (Some(3), None));
}

#[test]
fn xds_a_proxy_that_refuses_what_it_had_too_is_left_alone() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("a", 1)]));
    proxy.nack();
    proxy.nack();
    proxy.wait(Duration::from_secs(60));
    assert_eq!(proxy.got(), []);
    assert_eq!(proxy.stream.refused().unwrap().revision, 2);
    proxy.publish(&resources(3, &[("a", 1)]));
    assert_eq!(kinds(&proxy.obey()), [Kind::Filter]);
}

#[test]
fn xds_the_same_clusters_are_tried_again_with_the_next_revision() {
    let mut proxy = Proxy::new(&resources(1, &[("a", 1)]));
    proxy.subscribe(Kind::Cluster, &[]);
    proxy.nack();
    proxy.wait(Duration::from_secs(60));
    assert_eq!(proxy.got(), [], "there is nothing to go back to");
    proxy.publish(&resources(2, &[("a", 1)]));
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])]);
}

#[test]
fn xds_a_missing_answer_is_reported_once_and_blocks_only_its_revision() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.stream.events();
    let second = resources(2, &[("a", 1), ("b", 2)]);
    proxy.publish(&second);
    proxy.publish(&resources(3, &[("a", 1), ("c", 3)]));
    assert_eq!(proxy.inbox.len(), 1);
    assert_eq!(proxy.stream.deadline(), Some(proxy.now + TIMING.answer));
    proxy.wait(TIMING.answer);
    let version = second.version(Kind::Cluster);
    assert_eq!(proxy.stream.events(), [Event::Overdue { kind: Kind::Cluster, version }]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"]), (Kind::Cluster, vec!["a", "c"])]);
    // The late answer to the first is stale now.
    let late = proxy.next();
    proxy.send(Kind::Cluster, None);
    assert_eq!(late.version, second.version(Kind::Cluster));
    assert_eq!(kinds(&proxy.inbox), [Kind::Cluster]);
    proxy.obey();
    assert_eq!(proxy.stream.covered(), Some(3));
    assert!(!proxy.stream.events().iter().any(|event| matches!(event, Event::Overdue { .. })));
}

#[test]
fn xds_a_late_answer_continues_where_it_was() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("a", 1), ("b", 2)]));
    proxy.wait(TIMING.answer * 3);
    assert_eq!(kinds(&proxy.inbox), [Kind::Cluster]);
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster, Kind::Endpoint, Kind::Route, Kind::Filter]);
    assert_eq!(proxy.stream.covered(), Some(2));
}

#[test]
fn xds_routes_that_were_never_answered_keep_their_clusters() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("b", 2)]));
    proxy.ack_like_envoy();
    assert_eq!(kinds(&proxy.inbox), [Kind::Route]);
    proxy.wait(TIMING.answer);
    proxy.publish(&resources(3, &[("c", 3)]));
    proxy.next();
    let clusters = proxy.next();
    assert_eq!(names(&clusters), ["a", "b", "c"]);
}

#[test]
fn xds_an_old_ack_is_worth_nothing_once_other_routes_were_sent() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]));
    proxy.publish(&resources(2, &[("a", 1), ("b", 2)]));
    proxy.ack_like_envoy();
    assert_eq!(kinds(&proxy.inbox), [Kind::Route]);
    proxy.wait(TIMING.answer);
    // The routes of revision 1 again, but by now the proxy may have those of revision 2.
    proxy.publish(&resources(3, &[("a", 1)]));
    assert_eq!(kinds(&proxy.inbox), [Kind::Route, Kind::Route]);
    proxy.next();
    assert_eq!(proxy.nack().kind, Kind::Route);
    assert_eq!(proxy.got(), [], "no filter");
}

#[test]
fn xds_subscriptions_may_change() {
    let resources = resources(1, &[("a", 1), ("b", 2), ("c", 3)]);
    let mut proxy = Proxy::new(&resources);
    proxy.subscribe(Kind::Endpoint, &["a"]);
    proxy.ack();
    proxy.subscribe(Kind::Endpoint, &["a", "b"]);
    assert_eq!(proxy.got(), [(Kind::Endpoint, vec!["b"])]);
    proxy.ack();
    proxy.subscribe(Kind::Endpoint, &["b"]);
    assert_eq!(proxy.got(), []);
    proxy.subscribe(Kind::Endpoint, &["a", "b"]);
    assert_eq!(proxy.got(), [(Kind::Endpoint, vec!["a"])]);
    proxy.ack();
    proxy.subscribe(Kind::Endpoint, &[]);
    proxy.subscribe(Kind::Endpoint, &["never-heard-of"]);
    assert_eq!(proxy.got(), []);
}

#[test]
fn xds_clusters_can_be_asked_for_by_name() {
    let mut proxy = Proxy::new(&resources(1, &[("a", 1), ("b", 2)]));
    proxy.subscribe(Kind::Cluster, &["b"]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["b"])]);
    proxy.ack();
    proxy.subscribe(Kind::Endpoint, &["b"]);
    proxy.ack();
    proxy.subscribe(Kind::Route, &["halftone"]);
    assert_eq!(kinds(&proxy.inbox), [Kind::Route], "a is none of its business");
    proxy.ack();
    proxy.subscribe(Kind::Cluster, &["a", "b"]);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b"])]);
}

#[test]
fn xds_other_names_of_routes_and_filters_are_left_to_others() {
    let mut proxy = Proxy::new(&resources(1, &[("a", 1)]));
    proxy.subscribe(Kind::Route, &["theirs"]);
    assert_eq!(proxy.got(), []);
    proxy.subscribe(Kind::Filter, &["theirs", "halftone"]);
    assert_eq!(proxy.got(), [(Kind::Filter, vec!["halftone"])]);
}

#[test]
fn xds_clusters_without_routes_of_ours_linger_too() {
    let mut proxy = Proxy::new(&resources(1, &[("a", 1)]));
    proxy.subscribe(Kind::Cluster, &[]);
    proxy.obey();
    proxy.publish(&resources(2, &[("b", 2)]));
    assert_eq!(names(&proxy.obey()[0]), ["a", "b"]);
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["b"])]);
}

/// A proxy that was settled on `before` connects again to a control plane that has `after`.
fn reconnect(before: &Arc<Resources>, after: &Arc<Resources>) -> Proxy {
    let old = Proxy::settled(before);
    let mut new = Proxy::new(after);
    new.versions = old.versions;
    new.names = old.names;
    new
}

#[test]
fn xds_a_returning_proxy_keeps_its_clusters_until_its_routes_are_new() {
    let after = resources(9, &[("b", 2), ("c", 3)]);
    let mut proxy = reconnect(&resources(1, &[("a", 1), ("b", 2)]), &after);
    proxy.send(Kind::Cluster, None);
    assert_eq!(proxy.got(), [], "it has yet to say which clusters it has");
    proxy.send(Kind::Endpoint, None);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a", "b", "c"]), (Kind::Endpoint, vec!["b"])]);
    proxy.send(Kind::Filter, None);
    proxy.send(Kind::Route, None);
    let seen = proxy.obey();
    assert_eq!(kinds(&seen[2..]), [Kind::Endpoint, Kind::Route, Kind::Filter]);
    assert_eq!(proxy.stream.covered(), Some(9));
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["b", "c"])]);
}

#[test]
fn xds_a_returning_proxy_keeps_clusters_of_earlier_revisions_as_they_are() {
    let with = |protocol, name: &str| -> RulesetRoutes {
        let mut target = target(name, &[1]);
        target.settings.protocol = protocol;
        ruleset("d", None, vec![target])
    };
    let settings = ProxySettings::new("filter.wasm");
    let build = |snapshot| Arc::new(Resources::build(&snapshot, &settings).unwrap());
    let before = build(snapshot(1, vec![with(Protocol::Http2, "a")]));
    let mut after = snapshot(9, vec![with(Protocol::Http1, "b")]);
    after.lately = vec![with(Protocol::Http2, "a"), with(Protocol::Http1, "a"), with(Protocol::Http2, "b")];
    let mut proxy = reconnect(&before, &build(after));
    proxy.send(Kind::Cluster, None);
    proxy.send(Kind::Endpoint, None);
    let clusters = proxy.next();
    assert_eq!(names(&clusters), ["a", "b"]);
    assert_eq!(
        clusters.resources[0], before.upstreams["halftone/d/a"].cluster,
        "Envoy sees that it is the same"
    );
    assert_eq!(proxy.got(), [(Kind::Endpoint, vec!["a"])], "and so it keeps its endpoints, too");
}

#[test]
fn xds_a_returning_proxy_keeps_its_clusters_even_if_the_first_revision_fails() {
    let mut proxy = reconnect(&resources(1, &[("a", 1), ("b", 2)]), &resources(9, &[("b", 2), ("c", 3)]));
    for kind in Kind::ALL {
        proxy.send(kind, None);
    }
    proxy.publish(&resources(10, &[("c", 3), ("d", 4)]));
    proxy.nack();
    proxy.ack();
    assert_eq!(proxy.got()[0], (Kind::Cluster, vec!["a", "b", "c", "d"]), "its routes may still lead to b");
}

#[test]
fn xds_a_returning_proxy_keeps_its_clusters_if_it_refuses_the_new_routes() {
    let mut proxy = reconnect(&resources(1, &[("a", 1)]), &resources(9, &[]));
    proxy.send(Kind::Cluster, None);
    proxy.send(Kind::Endpoint, None);
    proxy.ack();
    proxy.send(Kind::Route, None);
    assert_eq!(proxy.nack().kind, Kind::Route);
    proxy.wait(Duration::from_secs(60));
    assert_eq!(proxy.got(), []);
}

#[test]
fn xds_a_returning_proxy_without_our_routes_lets_its_old_clusters_go() {
    let mut proxy = reconnect(&resources(1, &[("a", 1)]), &resources(9, &[("b", 2)]));
    proxy.send(Kind::Cluster, None);
    proxy.send(Kind::Endpoint, None);
    assert_eq!(names(&proxy.obey()[0]), ["a", "b"]);
    proxy.wait(TIMING.settle);
    proxy.wait(TIMING.grace);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["b"])]);
}

#[test]
fn xds_a_returning_proxy_that_is_up_to_date_is_not_held_up() {
    let resources = resources(1, &[("a", 1)]);
    let mut proxy = reconnect(&resources, &resources);
    proxy.send(Kind::Cluster, None);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])]);
}

#[test]
fn xds_a_returning_proxy_without_clusters_is_held_up_only_shortly() {
    let mut proxy = reconnect(&resources(1, &[]), &resources(2, &[("a", 1)]));
    proxy.send(Kind::Cluster, None);
    assert_eq!(proxy.got(), []);
    assert_eq!(proxy.stream.deadline(), Some(proxy.now + TIMING.settle));
    proxy.wait(TIMING.settle);
    assert_eq!(proxy.got(), [(Kind::Cluster, vec!["a"])]);
}

#[test]
fn xds_a_returning_proxy_does_not_get_the_filter_it_refused() {
    let second = resources(2, &[("a", 1)]);
    let refusal = || Refusal { version: second.version(Kind::Filter), message: "bad".to_owned() };
    let mut proxy = reconnect(&resources(1, &[("a", 1)]), &second);
    proxy.stream.recall(refusal());
    for kind in Kind::ALL {
        proxy.send(kind, None);
    }
    assert_eq!(kinds(&proxy.obey()), [Kind::Cluster, Kind::Endpoint, Kind::Route]);
    assert_eq!(proxy.stream.standing(Kind::Filter).nacked, Some(refusal()));
    assert_eq!(proxy.stream.covered(), None);
    proxy.publish(&resources(3, &[("a", 1)]));
    assert_eq!(kinds(&proxy.obey()), [Kind::Filter]);

    // A new process under the same name has refused nothing.
    let mut proxy = Proxy::new(&second);
    proxy.stream.recall(refusal());
    proxy.subscribe(Kind::Filter, &["halftone"]);
    assert_eq!(kinds(&proxy.inbox), [Kind::Filter]);
}
