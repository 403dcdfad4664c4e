//! A model of a proxy against the stream, with everything that can happen happening at random: delays in both
//! directions, bursts of revisions, refusals, silence, lost connections. What must hold at every moment: no route
//! on the proxy leads to a cluster that is missing or has no endpoints, and no filter is taken before its routes. It
//! speaks both forms of the protocol.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::super::testing::resources;
use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

struct Proxy {
    form: Form,
    clusters: BTreeMap<String, u64>,
    /// Clusters that have endpoints, and which. A proxy may lose its stream after a cluster changed and before the
    /// endpoints came again, and say that it has the old ones; that is not part of the model.
    ready: BTreeMap<String, u64>,
    routes: Option<Arc<Resources>>,
    filter: Option<Arc<Resources>>,
    nonces: HashMap<Kind, String>,
    versions: HashMap<Kind, String>,
    /// The clusters whose endpoints it wants; `None` before the first time.
    endpoints: Option<BTreeSet<String>>,
}

impl Proxy {
    fn new(form: Form) -> Self {
        Self {
            form,
            clusters: BTreeMap::new(),
            ready: BTreeMap::new(),
            routes: None,
            filter: None,
            nonces: HashMap::new(),
            versions: HashMap::new(),
            endpoints: None,
        }
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Cluster => Vec::new(),
            Kind::Endpoint => self.endpoints.iter().flatten().cloned().collect(),
            Kind::Route | Kind::Filter => vec!["halftone".to_owned()],
        }
    }

    /// What it has, as it says when it connects again.
    fn has(&self, kind: Kind) -> HashMap<String, String> {
        let version = |(name, hash): (&String, &u64)| (name.clone(), format!("{hash:016x}"));
        let one = |resource: &Arc<Resource>| HashMap::from([(resource.name.clone(), resource.version())]);
        match kind {
            Kind::Cluster => self.clusters.iter().map(version).collect(),
            Kind::Endpoint => self.ready.iter().map(version).collect(),
            Kind::Route => self.routes.as_ref().map(|has| one(&has.route)).unwrap_or_default(),
            Kind::Filter => self.filter.as_ref().map(|has| one(&has.filter)).unwrap_or_default(),
        }
    }

    /// The first request of a stream.
    fn open(&self, kind: Kind) -> Request {
        let subscription = match self.form {
            Form::StateOfTheWorld => self.whole(kind),
            Form::Delta => Subscription::Change {
                subscribe: self.names(kind),
                unsubscribe: Vec::new(),
                versions: self.has(kind),
            },
        };
        Request { kind, subscription, nonce: String::new(), error: None }
    }

    fn whole(&self, kind: Kind) -> Subscription {
        let version = self.versions.get(&kind).cloned().unwrap_or_default();
        Subscription::Whole { names: self.names(kind), version }
    }

    /// A request that answers what came last, and changes the subscription.
    fn request(&self, kind: Kind, subscribe: Vec<String>, unsubscribe: Vec<String>) -> Request {
        let subscription = match self.form {
            Form::StateOfTheWorld => self.whole(kind),
            Form::Delta => Subscription::Change { subscribe, unsubscribe, versions: HashMap::new() },
        };
        Request {
            kind,
            subscription,
            nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            error: None,
        }
    }

    fn answer(&self, kind: Kind, error: Option<&str>) -> Request {
        let request = self.request(kind, Vec::new(), Vec::new());
        Request { error: error.map(str::to_owned), ..request }
    }

    /// Takes a response as Envoy does, and says what Envoy says.
    fn take(&mut self, push: &Push, refuse: bool, world: &World) -> Vec<Request> {
        self.nonces.insert(push.kind, push.nonce.clone());
        if refuse {
            return vec![self.answer(push.kind, Some("refused"))];
        }
        self.versions.insert(push.kind, push.version.clone());
        let mut requests = Vec::new();
        match push.kind {
            Kind::Cluster => requests.extend(self.take_clusters(push)),
            Kind::Endpoint => {
                let new = push.resources.iter().map(|resource| (resource.name.clone(), resource.hash));
                self.ready.extend(new.filter(|(name, _)| self.clusters.contains_key(name)));
                for name in &push.removed {
                    assert!(!self.clusters.contains_key(name), "{name} lost its endpoints");
                }
            }
            Kind::Route => self.routes = Some(Arc::clone(&world.by_route[&push.resources[0].hash])),
            Kind::Filter => {
                let resources = &world.by_filter[&push.resources[0].hash];
                let routes = self.routes.as_ref().map(|routes| routes.route.hash);
                assert_eq!(routes, Some(resources.route.hash), "the filter came before its routes");
                self.filter = Some(Arc::clone(resources));
            }
        }
        requests.push(self.answer(push.kind, None));
        requests
    }

    /// The answer is what it asks for endpoints, if anything.
    fn take_clusters(&mut self, push: &Push) -> Option<Request> {
        let mut new = match self.form {
            Form::StateOfTheWorld => BTreeMap::new(),
            Form::Delta => self.clusters.clone(),
        };
        new.extend(push.resources.iter().map(|resource| (resource.name.clone(), resource.hash)));
        if self.form == Form::Delta {
            for name in &push.removed {
                new.remove(name);
            }
        }
        self.ready.retain(|name, _| new.get(name).is_some_and(|hash| self.clusters.get(name) == Some(hash)));
        self.clusters = new;
        let wanted: BTreeSet<String> = self.clusters.keys().cloned().collect();
        if self.endpoints.is_none() && wanted.is_empty() {
            return None;
        }
        let before = self.endpoints.replace(wanted.clone()).unwrap_or_default();
        let difference = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
        let (subscribe, unsubscribe): (Vec<_>, Vec<_>) =
            (difference(&wanted, &before), difference(&before, &wanted));
        if self.form == Form::Delta && subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        let request = self.request(Kind::Endpoint, subscribe, unsubscribe);
        // In delta, only an answer names a response.
        let nonce = if self.form == Form::Delta { String::new() } else { request.nonce };
        Some(Request { nonce, ..request })
    }

    fn check(&self) {
        let Some(routes) = &self.routes else { return };
        for name in routes.upstreams.keys() {
            assert!(
                self.ready.contains_key(name),
                "a route leads to {name}, which is not ready: {:?}",
                self.ready
            );
        }
    }
}

/// All there ever was, to know what a hash stands for.
#[derive(Default)]
struct World {
    by_route: HashMap<u64, Arc<Resources>>,
    by_filter: HashMap<u64, Arc<Resources>>,
    revision: u64,
}

impl World {
    fn revise(&mut self, random: &mut Random) -> Arc<Resources> {
        self.revision += 1;
        let mut targets = Vec::new();
        for name in NAMES {
            if random.one_in(2) {
                targets.push((name, 1 + u16::from(random.one_in(3))));
            }
        }
        self.add(resources(self.revision, &targets))
    }

    fn add(&mut self, resources: Arc<Resources>) -> Arc<Resources> {
        self.by_route.insert(resources.route.hash, Arc::clone(&resources));
        self.by_filter.insert(resources.filter.hash, Arc::clone(&resources));
        resources
    }
}

struct Run {
    random: Random,
    world: World,
    now: Instant,
    stream: Stream,
    latest: Arc<Resources>,
    proxy: Proxy,
    to_proxy: VecDeque<Push>,
    to_stream: VecDeque<Request>,
    refusing: bool,
}

impl Run {
    fn new(form: Form, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut world = World::default();
        let latest = world.revise(&mut random);
        let mut run = Self {
            random,
            world,
            now: Instant::now(),
            stream: Stream::new(form, Timing::default(), Arc::clone(&latest)),
            latest,
            proxy: Proxy::new(form),
            to_proxy: VecDeque::new(),
            to_stream: VecDeque::new(),
            refusing: true,
        };
        run.connect();
        run
    }

    /// A new stream, with the proxy's subscriptions in the order in which Envoy repeats them.
    fn connect(&mut self) {
        self.to_proxy.clear();
        self.to_stream.clear();
        self.proxy.nonces.clear();
        self.stream = Stream::new(self.proxy.form, Timing::default(), Arc::clone(&self.latest));
        let mut kinds = vec![Kind::Cluster];
        if self.proxy.endpoints.is_some() {
            kinds.push(Kind::Endpoint);
        }
        kinds.extend(if self.random.one_in(2) {
            [Kind::Route, Kind::Filter]
        } else {
            [Kind::Filter, Kind::Route]
        });
        self.to_stream.extend(kinds.into_iter().map(|kind| self.proxy.open(kind)));
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => {
                if let Some(request) = self.to_stream.pop_front() {
                    self.stream.request(self.now, request);
                }
            }
            8..15 => {
                if let Some(push) = self.to_proxy.pop_front() {
                    let refuse = self.refusing && self.random.one_in(12);
                    self.to_stream.extend(self.proxy.take(&push, refuse, &self.world));
                    self.proxy.check();
                }
            }
            15..18 => self.now += Duration::from_millis(self.random.below(20)),
            18 => {
                if self.random.one_in(2) {
                    self.latest = self.world.revise(&mut self.random);
                    self.stream.publish(Arc::clone(&self.latest));
                }
            }
            _ => {
                if self.random.one_in(20) {
                    self.connect();
                } else if self.random.one_in(4) && self.no_hold() {
                    // Silence, long enough for some of the deadlines or all.
                    self.now += Duration::from_millis(self.random.below(7_000));
                }
            }
        }
        while let Some(push) = self.stream.poll(self.now) {
            self.to_proxy.push_back(push);
        }
        assert!(self.to_proxy.len() <= 12, "a slow proxy must not be flooded");
    }

    /// Whether the proxy has said all it has to say first. A proxy that takes longer than the hold to do so is not
    /// part of the model: nobody could know what it is going to say.
    fn no_hold(&self) -> bool {
        self.stream.hold_clusters.is_none()
            && self.stream.expect_routes.is_none()
            && self.to_stream.is_empty()
    }

    /// No more trouble: everything must arrive.
    fn finish(&mut self) {
        self.refusing = false;
        self.world.revision += 1;
        let targets = [("last", u16::try_from(self.world.revision).unwrap()), ("a", 9)];
        self.latest = self.world.add(resources(self.world.revision, &targets));
        self.stream.publish(Arc::clone(&self.latest));
        for _ in 0..400 {
            self.now += Duration::from_millis(100);
            while let Some(push) = self.stream.poll(self.now) {
                self.to_proxy.push_back(push);
            }
            for push in std::mem::take(&mut self.to_proxy) {
                self.to_stream.extend(self.proxy.take(&push, false, &self.world));
                self.proxy.check();
            }
            for request in std::mem::take(&mut self.to_stream) {
                self.stream.request(self.now, request);
            }
        }
        assert_eq!(self.stream.covered(), Some(self.world.revision));
        assert_eq!(self.proxy.filter.as_ref().map(|has| has.revision()), Some(self.world.revision));
        assert!(self.proxy.clusters.keys().eq(self.latest.upstreams.keys()), "{:?}", self.proxy.clusters);
        assert_eq!(self.stream.deadline(), None);
    }
}

fn run(form: Form) {
    for seed in 1..=1_000 {
        println!("seed {seed}");
        let mut run = Run::new(form, seed);
        for _ in 0..1_500 {
            run.step();
        }
        run.finish();
    }
}

#[test]
fn xds_no_request_can_be_lost_whatever_happens() {
    run(Form::StateOfTheWorld);
}

#[test]
fn xds_no_request_can_be_lost_in_delta_either() {
    run(Form::Delta);
}
