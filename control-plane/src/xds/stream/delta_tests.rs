//! What is particular to the delta form; the rest is shared, and tested in `tests` and `model`.

use super::super::testing::resources;
use super::*;

struct Proxy {
    stream: Stream,
    now: Instant,
}

type Got = (Kind, Vec<String>, Vec<String>);

fn full(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Endpoint | Kind::Cluster if name != "*" => format!("halftone/d/{name}"),
        _ => name.to_owned(),
    }
}

fn got(kind: Kind, resources: &[&str], removed: &[&str]) -> Got {
    let names = |names: &[&str]| names.iter().map(|name| full(kind, name)).collect();
    (kind, names(resources), names(removed))
}

impl Proxy {
    fn new(resources: &Arc<Resources>) -> Self {
        let stream = Stream::new(Form::Delta, Timing::default(), Arc::clone(resources));
        Self { stream, now: Instant::now() }
    }

    /// One that has connected again and says to have all of `before`.
    fn returning(before: &Arc<Resources>, now: &Arc<Resources>) -> (Self, Vec<Got>) {
        let mut proxy = Self::new(now);
        let mut seen = Vec::new();
        for kind in Kind::ALL {
            let has: Vec<&Arc<Resource>> = match kind {
                Kind::Cluster => before.upstreams.values().map(|upstream| &upstream.cluster).collect(),
                Kind::Endpoint => {
                    before.upstreams.values().flat_map(|upstream| &upstream.endpoints).collect()
                }
                Kind::Route => vec![&before.route],
                Kind::Filter => vec![&before.filter],
            };
            let versions = has.iter().map(|resource| (resource.name.clone(), resource.version())).collect();
            let named = has.iter().filter(|_| kind != Kind::Cluster);
            let subscribe = named.map(|resource| resource.name.clone()).collect();
            let subscription = Subscription::Change { subscribe, unsubscribe: Vec::new(), versions };
            seen.extend(proxy.request(kind, subscription, "", None));
        }
        (proxy, seen)
    }

    fn request(
        &mut self,
        kind: Kind,
        subscription: Subscription,
        nonce: &str,
        error: Option<&str>,
    ) -> Vec<Got> {
        let error = error.map(str::to_owned);
        self.stream.request(self.now, Request { kind, subscription, nonce: nonce.to_owned(), error });
        self.poll().into_iter().map(|push| self.note(push)).collect()
    }

    fn change(&mut self, kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> Vec<Got> {
        let names = |names: &[&str]| names.iter().map(|name| full(kind, name)).collect();
        let (subscribe, unsubscribe) = (names(subscribe), names(unsubscribe));
        let subscription = Subscription::Change { subscribe, unsubscribe, versions: HashMap::new() };
        self.request(kind, subscription, "", None)
    }

    fn poll(&mut self) -> Vec<Push> {
        std::iter::from_fn(|| self.stream.poll(self.now)).collect()
    }

    fn note(&self, push: Push) -> Got {
        (push.kind, push.resources.iter().map(|resource| resource.name.clone()).collect(), push.removed)
    }

    fn answer(&mut self, kind: Kind, error: Option<&str>) -> Vec<Got> {
        let nonce = self.stream.channel(kind).nonce().unwrap_or_default().to_owned();
        let nothing =
            Subscription::Change { subscribe: Vec::new(), unsubscribe: Vec::new(), versions: HashMap::new() };
        self.request(kind, nothing, &nonce, error)
    }

    fn ack(&mut self, kind: Kind) -> Vec<Got> {
        self.answer(kind, None)
    }

    fn publish(&mut self, resources: &Arc<Resources>) -> Vec<Got> {
        self.stream.publish(Arc::clone(resources));
        self.poll().into_iter().map(|push| self.note(push)).collect()
    }

    fn settled(resources: &Arc<Resources>, names: &[&str]) -> Self {
        let mut proxy = Self::new(resources);
        proxy.change(Kind::Cluster, &[], &[]);
        proxy.change(Kind::Endpoint, names, &[]);
        proxy.change(Kind::Route, &["halftone"], &[]);
        proxy.change(Kind::Filter, &["halftone"], &[]);
        for kind in Kind::ALL {
            proxy.ack(kind);
        }
        assert_eq!(proxy.stream.covered(), Some(resources.revision()));
        proxy
    }
}

#[test]
fn xds_delta_sends_only_what_changed_in_the_same_order() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]), &["a", "b"]);
    let seen = proxy.publish(&resources(2, &[("b", 2), ("c", 3)]));
    assert_eq!(seen, [got(Kind::Cluster, &["c"], &[])], "the old ones stay");
    assert_eq!(proxy.change(Kind::Endpoint, &["c"], &[]), [got(Kind::Endpoint, &["c"], &[])]);
    assert_eq!(proxy.ack(Kind::Endpoint), []);
    assert_eq!(proxy.ack(Kind::Cluster), [got(Kind::Route, &["halftone"], &[])]);
    assert_eq!(proxy.ack(Kind::Route), [got(Kind::Filter, &["halftone"], &[])]);
    assert_eq!(proxy.ack(Kind::Filter), []);
    assert_eq!(proxy.stream.covered(), Some(2));
    proxy.now += Timing::default().grace;
    let pushes = proxy.poll();
    let seen: Vec<Got> = pushes.into_iter().map(|push| proxy.note(push)).collect();
    assert_eq!(seen, [got(Kind::Cluster, &[], &["a"])], "at last the old cluster goes");
    assert_eq!(proxy.change(Kind::Endpoint, &[], &["a"]), []);
    assert_eq!(proxy.ack(Kind::Cluster), [], "its endpoints were given up before");
}

#[test]
fn xds_delta_tells_that_endpoints_go_with_their_cluster() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]), &["a", "b"]);
    assert_eq!(proxy.publish(&resources(2, &[("b", 2)])), [got(Kind::Route, &["halftone"], &[])]);
    proxy.ack(Kind::Route);
    proxy.ack(Kind::Filter);
    proxy.now += Timing::default().grace;
    assert_eq!(proxy.poll().len(), 1);
    assert_eq!(proxy.ack(Kind::Cluster), [got(Kind::Endpoint, &[], &["a"])]);
}

#[test]
fn xds_delta_answers_every_subscription() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]), &["a"]);
    let again = proxy.change(Kind::Endpoint, &["a", "nothing"], &[]);
    assert_eq!(again, [got(Kind::Endpoint, &["a"], &["nothing"])], "even if the version matches");
    proxy.ack(Kind::Endpoint);
    assert_eq!(proxy.change(Kind::Route, &["theirs"], &[]), [got(Kind::Route, &[], &["theirs"])]);
    assert_eq!(proxy.change(Kind::Filter, &["theirs"], &[]), [got(Kind::Filter, &[], &["theirs"])]);
    let named = proxy.change(Kind::Cluster, &["a", "nothing"], &[]);
    assert_eq!(named[0], got(Kind::Cluster, &["a"], &["nothing"]));
    proxy.ack(Kind::Cluster);
    assert_eq!(proxy.change(Kind::Cluster, &[], &[]), [], "no subscription, no answer");
    // The wildcard goes, the name stays.
    assert_eq!(proxy.change(Kind::Cluster, &[], &["*"]), []);
    proxy.ack(Kind::Endpoint);
    proxy.ack(Kind::Route);
    proxy.ack(Kind::Filter);
    assert_eq!(proxy.publish(&resources(2, &[("a", 1), ("b", 2)]))[0].0, Kind::Route);
}

#[test]
fn xds_delta_answers_a_wildcard_even_if_there_is_nothing() {
    let mut proxy = Proxy::new(&resources(1, &[]));
    assert_eq!(proxy.change(Kind::Cluster, &["*"], &[]), [got(Kind::Cluster, &[], &[])]);
    assert_eq!(proxy.ack(Kind::Cluster), []);
}

#[test]
fn xds_delta_takes_a_change_beside_a_stale_nonce() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1), ("b", 2)]), &["a", "b"]);
    let subscribe = vec![full(Kind::Endpoint, "b")];
    let change = Subscription::Change { subscribe, unsubscribe: Vec::new(), versions: HashMap::new() };
    let seen = proxy.request(Kind::Endpoint, change, "stale", Some("no"));
    assert_eq!(seen, [got(Kind::Endpoint, &["b"], &[])]);
    assert_eq!(proxy.stream.refused(), None);
}

#[test]
fn xds_delta_sends_a_returning_proxy_nothing_that_it_has() {
    let resources = resources(7, &[("a", 1), ("b", 2)]);
    let (proxy, seen) = Proxy::returning(&resources, &resources);
    assert_eq!(seen, []);
    assert_eq!(proxy.stream.covered(), Some(7));
    for kind in Kind::ALL {
        assert_eq!(proxy.stream.standing(kind).acked, Some(resources.version(kind)));
    }
    assert_eq!(proxy.stream.deadline(), None);
}

#[test]
fn xds_delta_sends_a_returning_proxy_what_differs() {
    let after = resources(9, &[("b", 2), ("c", 3)]);
    let (mut proxy, seen) = Proxy::returning(&resources(1, &[("a", 1), ("b", 2)]), &after);
    assert_eq!(seen, [got(Kind::Cluster, &["c"], &[])], "its routes may still lead to a");
    assert_eq!(proxy.change(Kind::Endpoint, &["c"], &[]), [got(Kind::Endpoint, &["c"], &[])]);
    proxy.ack(Kind::Endpoint);
    assert_eq!(proxy.ack(Kind::Cluster), [got(Kind::Route, &["halftone"], &[])]);
    assert_eq!(proxy.ack(Kind::Route), [got(Kind::Filter, &["halftone"], &[])]);
    proxy.ack(Kind::Filter);
    assert_eq!(proxy.stream.covered(), Some(9));
    proxy.now += Timing::default().grace;
    let pushes = proxy.poll();
    assert_eq!((pushes.len(), &pushes[0].removed[..]), (1, &[full(Kind::Cluster, "a")][..]));
    assert_eq!(proxy.ack(Kind::Cluster), [got(Kind::Endpoint, &[], &["a"])]);
}

#[test]
fn xds_delta_goes_back_after_a_refusal() {
    let mut proxy = Proxy::settled(&resources(1, &[("a", 1)]), &["a"]);
    assert_eq!(proxy.publish(&resources(2, &[("a", 1), ("b", 2)])), [got(Kind::Cluster, &["b"], &[])]);
    assert_eq!(proxy.answer(Kind::Cluster, Some("bad")), [got(Kind::Cluster, &[], &["b"])]);
    assert_eq!(proxy.ack(Kind::Cluster), []);
    assert_eq!(proxy.stream.refused().unwrap().revision, 2);
    // The same cluster in the next revision is tried again.
    assert_eq!(proxy.publish(&resources(3, &[("a", 1), ("b", 2)])), [got(Kind::Cluster, &["b"], &[])]);
}
