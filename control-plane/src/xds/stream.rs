//! The state machine of one proxy's stream. Pure: no I/O, no clock; the server feeds it and asks it what to send.
//!
//! Make before break. A revision is *rolled out* step by step, each step only after the proxy ACKed the one before:
//!
//! 1. clusters and endpoints: those of the revision, and all that routes the proxy may still have refer to;
//! 2. routes;
//! 3. the filter with its bundle, so that it never names a route that is not there;
//! 4. after a grace, the clusters again without those that no route refers to any more.
//!
//! Nothing is sent twice, and of each kind at most one response is unanswered. While one revision is being rolled
//! out, newer ones only replace each other as the next; a rollout ends when all is ACKed, or when a step is refused
//! or not answered in time. Then its later steps are left out, and the next revision starts from step 1. Because
//! a rollout is finished before the next begins, revisions that come faster than a proxy can take them delay
//! nothing: the proxy gets some of them, and the last one.
//!
//! Requests and pushes are protocol-neutral; [`super::sotw`] maps them to the state-of-the-world variant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{Channel, Content, Interest, KindStatus, Refusal, Reply};
use super::clusters;
use super::resource::{Kind, Resource, Resources, Upstream, Upstreams, version};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long an answer is awaited before the next revision goes ahead without it.
    pub(crate) answer: Duration,
    /// How long clusters outlive the last route to them, so that requests in flight can finish and be retried.
    pub(crate) grace: Duration,
    /// How long a proxy's other subscriptions are awaited when the answer to one depends on them.
    pub(crate) settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            grace: Duration::from_secs(2),
            settle: Duration::from_millis(500),
        }
    }
}

/// What a proxy says.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// The resources it wants now.
    pub(crate) names: Vec<String>,
    /// The version that it has, from this stream or an earlier one; empty if none.
    pub(crate) version: String,
    /// The response that it answers; empty in its first request.
    pub(crate) nonce: String,
    /// Why it refuses that response.
    pub(crate) error: Option<String>,
}

/// What to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Push {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) nonce: String,
    /// For clusters all there are, for other kinds those that the proxy lacks.
    pub(crate) resources: Vec<Arc<Resource>>,
}

/// What people may want to know; the server logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Acked { kind: Kind, version: String },
    Nacked { kind: Kind, version: String },
    Overdue { kind: Kind, version: String },
}

/// One proxy's stream.
#[derive(Debug)]
pub(crate) struct Stream {
    timing: Timing,
    /// What is being rolled out, or has been.
    current: Arc<Resources>,
    /// What comes next.
    latest: Arc<Resources>,
    channels: [Channel; 4],
    /// Clusters to which routes on the proxy may refer.
    referenced: Upstreams,
    /// Clusters to which no route refers any more, and until when they stay.
    retired: BTreeMap<String, (Arc<Upstream>, Instant)>,
    /// The clusters of the last CDS response: endpoints follow these, never the other way round.
    served: Upstreams,
    /// Until when the first answer for clusters waits for the endpoint subscription.
    hold_clusters: Option<Instant>,
    /// Until when a subscription to routes is expected. Meanwhile no filter is sent and no cluster retired.
    expect_routes: Option<Instant>,
    /// What this proxy refused on an earlier stream.
    refused_filter: Option<Refusal>,
    covered: Option<u64>,
    nonces: u64,
    events: Vec<Event>,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub(crate) fn new(timing: Timing, resources: Arc<Resources>) -> Self {
        Self {
            timing,
            current: Arc::clone(&resources),
            latest: resources,
            channels: Default::default(),
            referenced: Upstreams::new(),
            retired: BTreeMap::new(),
            served: Upstreams::new(),
            hold_clusters: None,
            expect_routes: None,
            refused_filter: None,
            covered: None,
            nonces: 0,
            events: Vec::new(),
        }
    }

    /// Recalls the filter configuration that this proxy refused on an earlier stream. Envoy takes the bytes it has
    /// just refused for unchanged when they come again, and ACKs them while it goes on running the old ones.
    pub(crate) fn recall(&mut self, refusal: Refusal) {
        self.refused_filter = Some(refusal);
    }

    /// Makes `resources` the next to be rolled out.
    pub(crate) fn publish(&mut self, resources: Arc<Resources>) {
        self.latest = resources;
    }

    /// Takes a request.
    pub(crate) fn request(&mut self, now: Instant, request: Request) {
        let kind = request.kind;
        let first = !self.channel(kind).opened();
        let channel = self.channel_mut(kind);
        match channel.answer(&request.nonce, request.error.as_deref()) {
            Reply::Stale => return,
            Reply::Subscription => {}
            Reply::Ack(version) => self.events.push(Event::Acked { kind, version }),
            Reply::Nack(version) => self.events.push(Event::Nacked { kind, version }),
        }
        self.channel_mut(kind).subscribe(kind, request.names);
        if first {
            self.opened(now, kind, &request.version);
        }
    }

    /// The next response to send, if there is one. To be called until there is none, after anything happened and
    /// at the [`deadline`](Self::deadline).
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Push> {
        self.expire(now);
        loop {
            self.settle(now);
            let push = self
                .clusters(now)
                .or_else(|| self.endpoints(now))
                .or_else(|| self.routes(now))
                .or_else(|| self.filter(now));
            if push.is_some() {
                return push;
            }
            if Arc::ptr_eq(&self.current, &self.latest) || self.channels.iter().any(Channel::waiting) {
                return None;
            }
            self.current = Arc::clone(&self.latest);
        }
    }

    /// When [`poll`](Self::poll) must be called even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let answers =
            self.channels.iter().filter_map(Channel::waiting_since).map(|at| at + self.timing.answer);
        let retirements = self.retired.values().map(|(_, until)| *until);
        answers.chain(retirements).chain(self.hold_clusters).chain(self.expect_routes).min()
    }

    /// What happened since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What the proxy was sent and said.
    pub(crate) fn status(&self, kind: Kind) -> &KindStatus {
        &self.channel(kind).status
    }

    /// The newest revision whose bundle, and all that it needs, the proxy has ACKed.
    pub(crate) fn covered(&self) -> Option<u64> {
        self.covered
    }

    fn channel(&self, kind: Kind) -> &Channel {
        &self.channels[kind as usize]
    }

    fn channel_mut(&mut self, kind: Kind) -> &mut Channel {
        &mut self.channels[kind as usize]
    }

    /// A first subscription. A `version` means that the proxy was connected before, here or elsewhere.
    fn opened(&mut self, now: Instant, kind: Kind, version: &str) {
        let settled = now + self.timing.settle;
        match kind {
            Kind::Cluster => {
                let known = version.is_empty() || version == self.current.version(Kind::Cluster);
                if !known && !self.channel(Kind::Endpoint).opened() {
                    // It has other clusters, and its routes may still lead there. Which ones, it will say when it
                    // subscribes to their endpoints.
                    self.hold_clusters = Some(settled);
                }
            }
            Kind::Endpoint => {
                self.hold_clusters = None;
                if !version.is_empty() && !self.channel(Kind::Cluster).ever_sent() {
                    self.keep_remembered();
                    self.expect_routes(settled);
                }
            }
            Kind::Route => self.expect_routes = None,
            Kind::Filter => {
                let name = self.current.filter.name.clone();
                let current = self.current.version(Kind::Filter);
                let refused = self.refused_filter.take().filter(|refusal| {
                    // Without a version it is a new process, which has refused nothing yet.
                    refusal.version == current && !version.is_empty() && version != current
                });
                if let Some(refusal) = refused {
                    let hash = self.current.filter.hash;
                    let channel = self.channel_mut(Kind::Filter);
                    channel.delivered.insert(name, hash);
                    channel.status.nacked = Some(refusal);
                }
                // A proxy that has its clusters from us will most likely ask for routes, too.
                if self.channel(Kind::Cluster).opened() {
                    self.expect_routes(settled);
                }
            }
        }
    }

    fn expect_routes(&mut self, until: Instant) {
        if !self.channel(Kind::Route).opened() {
            self.expect_routes = Some(until);
        }
    }

    /// Keeps the clusters of ours that a returning proxy has, whatever revision it gets next, until its routes are
    /// new.
    fn keep_remembered(&mut self) {
        let Interest::Names(names) = &self.channels[Kind::Endpoint as usize].interest else { return };
        for name in names {
            let known = self.current.upstreams.get(name).cloned();
            if let Some(upstream) = known.or_else(|| clusters::remembered(name)) {
                self.referenced.insert(name.clone(), upstream);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let passed = |hold: &Option<Instant>| hold.is_some_and(|until| until <= now);
        if passed(&self.hold_clusters) {
            self.hold_clusters = None;
        }
        if passed(&self.expect_routes) {
            self.expect_routes = None;
        }
        self.retired.retain(|_, (_, until)| *until > now);
        for kind in Kind::ALL {
            let answer = self.timing.answer;
            let channel = self.channel_mut(kind);
            if channel.waiting_since().is_some_and(|at| at + answer <= now)
                && let Some(version) = channel.give_up()
            {
                self.events.push(Event::Overdue { kind, version });
            }
        }
    }

    /// Notes how far the rollout has come.
    fn settle(&mut self, now: Instant) {
        if !self.routes_taken() {
            return;
        }
        let until = now + self.timing.grace;
        let current = &self.current.upstreams;
        for (name, upstream) in std::mem::replace(&mut self.referenced, current.clone()) {
            if !current.contains_key(&name) {
                self.retired.insert(name, (upstream, until));
            }
        }
        let filter = &self.current.filter;
        if self.channel(Kind::Filter).acked.get(&filter.name) == Some(&filter.hash) {
            self.covered = Some(self.current.revision());
        }
    }

    /// All clusters that the proxy should have now.
    fn wanted(&self) -> Upstreams {
        let retired = self.retired.iter().map(|(name, (upstream, _))| (name.clone(), Arc::clone(upstream)));
        let mut wanted: Upstreams = retired.collect();
        for upstreams in [&self.referenced, &self.current.upstreams] {
            wanted.extend(upstreams.iter().map(|(name, upstream)| (name.clone(), Arc::clone(upstream))));
        }
        wanted
    }

    /// Whether the proxy has every cluster of the current revision, ready to serve.
    fn clusters_taken(&self) -> bool {
        let (clusters, endpoints) = (self.channel(Kind::Cluster), self.channel(Kind::Endpoint));
        self.current.upstreams.iter().all(|(name, upstream)| {
            let has_cluster = clusters.acked.get(name) == Some(&upstream.cluster.hash);
            let hash = upstream.endpoints.as_ref().map(|endpoints| endpoints.hash);
            let has_endpoints = endpoints.acked.get(name).copied() == hash;
            if clusters.opened() {
                // Envoy may ACK a cluster before it has asked for the endpoints, so both are required.
                !clusters.interest.covers(name) || (has_cluster && has_endpoints)
            } else {
                !endpoints.interest.covers(name) || has_endpoints
            }
        })
    }

    /// Whether the proxy has the current routes, or has routes of its own.
    fn routes_taken(&self) -> bool {
        let (routes, route) = (self.channel(Kind::Route), &self.current.route);
        let taken =
            !routes.interest.covers(&route.name) || routes.acked.get(&route.name) == Some(&route.hash);
        taken && self.expect_routes.is_none() && self.clusters_taken()
    }

    fn clusters(&mut self, now: Instant) -> Option<Push> {
        let channel = self.channel(Kind::Cluster);
        if channel.waiting() || self.hold_clusters.is_some() {
            return None;
        }
        let (opened, first) = (channel.opened(), !channel.ever_sent());
        let wanted = self.wanted();
        let resources: Vec<Arc<Resource>> = wanted
            .iter()
            .filter(|(name, _)| channel.interest.covers(name))
            .map(|(_, upstream)| Arc::clone(&upstream.cluster))
            .collect();
        self.served = wanted;
        let content: Content =
            resources.iter().map(|resource| (resource.name.clone(), resource.hash)).collect();
        // Even an empty answer is one: the proxy waits for it before it starts to serve.
        if !opened || (!first && content == self.channel(Kind::Cluster).delivered) {
            return None;
        }

        let [clusters, endpoints, ..] = &mut self.channels;
        for (name, hash) in &content {
            if clusters.delivered.get(name) != Some(hash) {
                // A new or changed cluster starts without endpoints, even if the proxy had them before.
                endpoints.forget(name);
            }
        }
        clusters.acked.retain(|name, hash| content.get(name) == Some(hash));
        clusters.delivered.clear();
        let version = version(&resources);
        Some(self.push(now, Kind::Cluster, version, resources))
    }

    fn endpoints(&mut self, now: Instant) -> Option<Push> {
        let channel = self.channel(Kind::Endpoint);
        if channel.waiting() || !channel.opened() {
            return None;
        }
        let all = || self.served.values().filter_map(|upstream| upstream.endpoints.as_ref());
        let lacking: Vec<Arc<Resource>> = all()
            .filter(|resource| channel.interest.covers(&resource.name))
            .filter(|resource| channel.delivered.get(&resource.name) != Some(&resource.hash))
            .cloned()
            .collect();
        if lacking.is_empty() {
            return None;
        }
        let version = version(all());
        Some(self.push(now, Kind::Endpoint, version, lacking))
    }

    fn routes(&mut self, now: Instant) -> Option<Push> {
        let route = Arc::clone(&self.current.route);
        if !self.lacks(Kind::Route, &route) || !self.clusters_taken() {
            return None;
        }
        // From now on the proxy may use these. What it refuses stays here until it takes another.
        let upstreams = &self.current.upstreams;
        self.referenced.extend(upstreams.iter().map(|(name, upstream)| (name.clone(), Arc::clone(upstream))));
        Some(self.push(now, Kind::Route, self.current.version(Kind::Route), vec![route]))
    }

    fn filter(&mut self, now: Instant) -> Option<Push> {
        let filter = Arc::clone(&self.current.filter);
        if !self.lacks(Kind::Filter, &filter) || !self.routes_taken() {
            return None;
        }
        Some(self.push(now, Kind::Filter, self.current.version(Kind::Filter), vec![filter]))
    }

    fn lacks(&self, kind: Kind, resource: &Resource) -> bool {
        let channel = self.channel(kind);
        !channel.waiting()
            && channel.interest.covers(&resource.name)
            && channel.delivered.get(&resource.name) != Some(&resource.hash)
    }

    fn push(&mut self, now: Instant, kind: Kind, version: String, resources: Vec<Arc<Resource>>) -> Push {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let content = resources.iter().map(|resource| (resource.name.clone(), resource.hash)).collect();
        self.channel_mut(kind).sent(nonce.clone(), version.clone(), content, now);
        Push { kind, version, nonce, resources }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
