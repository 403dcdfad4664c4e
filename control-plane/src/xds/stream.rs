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
//! or not answered in time. Then its later steps are left out, and the next revision starts from step 1. If there is
//! none, the proxy that refused is brought back to what it had before, in the same steps. Those bytes are not the ones
//! that it refused: Envoy takes a filter configuration that it has just refused for unchanged when it comes again,
//! ACKs it, and gives it to every new listener. Because a rollout is finished before the next begins, revisions that come faster than a proxy can take them delay
//! nothing: the proxy gets some of them, and the last one.
//!
//! Both forms of the protocol share all of this: what a proxy should have next does not depend on how it is told.
//! [`super::sotw`] and [`super::delta`] map requests and pushes to messages. Here they differ in three places only:
//! how a subscription is changed, what a returning proxy says it has, and that only delta tells what is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{Channel, Refusal, Reply, Standing};
use super::clusters;
use super::form::Form;
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
    pub(crate) subscription: Subscription,
    /// The response that it answers; empty in its first request.
    pub(crate) nonce: String,
    /// Why it refuses that response.
    pub(crate) error: Option<String>,
}

/// What a proxy wants, and what it has.
#[derive(Debug, Clone)]
pub(crate) enum Subscription {
    /// As the state of the world says it.
    Whole {
        /// The resources it wants now.
        names: Vec<String>,
        /// The version that it has, from this stream or an earlier one; empty if none.
        version: String,
    },
    /// As delta says it.
    Change {
        /// What it wants in addition.
        subscribe: Vec<String>,
        /// What it no longer wants.
        unsubscribe: Vec<String>,
        /// The versions of what it has from an earlier stream, by name; in its first request only.
        versions: HashMap<String, String>,
    },
}

/// What to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Push {
    pub(crate) kind: Kind,
    /// The version of all that the proxy should have of this kind now.
    pub(crate) version: String,
    pub(crate) nonce: String,
    /// Those that the proxy lacks; in the state of the world, for clusters all there are.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// Names of which there is nothing, or nothing any more. The state of the world cannot tell them.
    pub(crate) removed: Vec<String>,
}

/// What a proxy refused of which revision, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) revision: u64,
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// What a proxy that opens a subscription has of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing: it is a new process, or never asked before.
    Nothing,
    /// What is current.
    Current,
    /// Something else, from this control plane or another.
    Other,
}

/// What people may want to know; the server logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Acked { kind: Kind, version: String },
    Nacked { kind: Kind, version: String, revision: u64 },
    Overdue { kind: Kind, version: String },
}

/// One proxy's stream.
#[derive(Debug)]
pub(crate) struct Stream {
    form: Form,
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
    /// Clusters that were sent before the proxy asked for endpoints: those that it says to have then are not theirs.
    renewed: BTreeSet<String>,
    /// Until when the first answer for clusters waits for the endpoint subscription.
    hold_clusters: Option<Instant>,
    /// Until when a subscription to routes is expected. Meanwhile no filter is sent and no cluster retired.
    expect_routes: Option<Instant>,
    /// What this proxy refused on an earlier stream.
    refused_filter: Option<Refusal>,
    /// The newest state that the proxy had all of.
    good: Option<Arc<Resources>>,
    /// What it refused last, until it has all of a state that is as new.
    refused: Option<Refused>,
    nonces: u64,
    events: Vec<Event>,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub(crate) fn new(form: Form, timing: Timing, resources: Arc<Resources>) -> Self {
        Self {
            form,
            timing,
            current: Arc::clone(&resources),
            latest: resources,
            channels: Default::default(),
            referenced: Upstreams::new(),
            retired: BTreeMap::new(),
            served: Upstreams::new(),
            renewed: BTreeSet::new(),
            hold_clusters: None,
            expect_routes: None,
            refused_filter: None,
            good: None,
            refused: None,
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
        let reply = self.channel_mut(kind).answer(&request.nonce, request.error.as_deref());
        // The state of the world will be said again, in the answer to the newest response; a change will not.
        if reply == Reply::Stale && self.form == Form::StateOfTheWorld {
            return;
        }
        match reply {
            Reply::Stale | Reply::Subscription => {}
            Reply::Ack(version) => self.events.push(Event::Acked { kind, version }),
            Reply::Nack(version) => {
                let revision = self.current.revision();
                self.events.push(Event::Nacked { kind, version, revision });
                self.refuse(kind);
            }
        }
        let opening = (!self.channel(kind).interest.asked()).then(|| self.has(kind, &request.subscription));
        match request.subscription {
            Subscription::Whole { names, .. } => self.channel_mut(kind).replace(kind, names),
            Subscription::Change { subscribe, unsubscribe, mut versions } => {
                if kind == Kind::Endpoint {
                    versions.retain(|name, _| !self.renewed.contains(name));
                }
                self.channel_mut(kind).change(kind, &subscribe, &unsubscribe, &versions);
            }
        }
        if let Some(has) = opening {
            self.opened(now, kind, has);
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
            let goal = Arc::clone(self.goal());
            if Arc::ptr_eq(&self.current, &goal) || self.channels.iter().any(Channel::waiting) {
                return None;
            }
            if self.form == Form::Delta {
                // In the state of the world they are repeated anyway.
                self.channels.iter_mut().for_each(Channel::retry_removals);
            }
            if Arc::ptr_eq(&goal, &self.latest) {
                // The same again may be taken this time. Only of the filter that can never be known.
                for kind in [Kind::Cluster, Kind::Endpoint, Kind::Route] {
                    self.channel_mut(kind).retry();
                }
            }
            self.current = goal;
        }
    }

    /// What is to be rolled out next, or has been.
    fn goal(&self) -> &Arc<Resources> {
        match (&self.refused, &self.good) {
            (Some(refused), good) if refused.revision == self.latest.revision() => {
                good.as_ref().unwrap_or(&self.current)
            }
            _ => &self.latest,
        }
    }

    /// Notes that something of the current state was refused.
    fn refuse(&mut self, kind: Kind) {
        if self.refused.as_ref().is_some_and(|refused| refused.revision == self.latest.revision()) {
            // What it had before is refused, too: there is nothing left to try.
            return;
        }
        let message = self.channel(kind).standing.nacked.as_ref().map(|refusal| refusal.message.clone());
        let message = message.unwrap_or_default();
        self.refused = Some(Refused { revision: self.current.revision(), kind, message });
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
    pub(crate) fn standing(&self, kind: Kind) -> &Standing {
        &self.channel(kind).standing
    }

    /// Whether the proxy asked for this kind.
    pub(crate) fn asked(&self, kind: Kind) -> bool {
        self.channel(kind).interest.asked()
    }

    /// The newest revision whose bundle, and all that it needs, the proxy has ACKed.
    pub(crate) fn covered(&self) -> Option<u64> {
        self.good.as_ref().map(|good| good.revision())
    }

    /// The revision that the proxy refused last, until it has all of one that is as new.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    fn channel(&self, kind: Kind) -> &Channel {
        &self.channels[kind as usize]
    }

    fn channel_mut(&mut self, kind: Kind) -> &mut Channel {
        &mut self.channels[kind as usize]
    }

    /// What the proxy says to have, as far as it decides what must not be taken away.
    fn has(&self, kind: Kind, subscription: &Subscription) -> Has {
        match subscription {
            Subscription::Whole { version, .. } if version.is_empty() => Has::Nothing,
            Subscription::Whole { version, .. } if *version == self.current.version(kind) => Has::Current,
            Subscription::Change { versions, .. } if versions.is_empty() => Has::Nothing,
            Subscription::Change { versions, .. } if self.current.has_versions(kind, versions) => {
                Has::Current
            }
            Subscription::Whole { .. } | Subscription::Change { .. } => Has::Other,
        }
    }

    /// A first subscription. A proxy that has something was connected before, here or elsewhere.
    fn opened(&mut self, now: Instant, kind: Kind, has: Has) {
        let settled = now + self.timing.settle;
        if has == Has::Current {
            self.channel_mut(kind).standing.acked = Some(self.current.version(kind));
        }
        match kind {
            Kind::Cluster if self.form == Form::Delta => {
                if has != Has::Nothing {
                    self.keep_remembered(Kind::Cluster);
                    self.expect_routes(settled);
                }
            }
            Kind::Cluster => {
                if has == Has::Other && !self.channel(Kind::Endpoint).interest.asked() {
                    // It has other clusters, and its routes may still lead there. Which ones, it will say when it
                    // subscribes to their endpoints.
                    self.hold_clusters = Some(settled);
                }
            }
            Kind::Endpoint => {
                self.hold_clusters = None;
                self.renewed.clear();
                if has != Has::Nothing && !self.channel(Kind::Cluster).ever_sent() {
                    self.keep_remembered(Kind::Endpoint);
                    self.expect_routes(settled);
                }
            }
            Kind::Route => self.expect_routes = None,
            Kind::Filter => {
                let name = self.current.filter.name.clone();
                let current = self.current.version(Kind::Filter);
                // One that has nothing is a new process, which has refused nothing yet.
                let refused = self
                    .refused_filter
                    .take()
                    .filter(|refusal| refusal.version == current && has == Has::Other);
                if let Some(refusal) = refused {
                    let hash = self.current.filter.hash;
                    let channel = self.channel_mut(Kind::Filter);
                    channel.delivered.insert(name, hash);
                    channel.standing.nacked = Some(refusal);
                    self.refuse(Kind::Filter);
                }
                // A proxy that has its clusters from us will most likely ask for routes, too.
                if self.channel(Kind::Cluster).interest.asked() {
                    self.expect_routes(settled);
                }
            }
        }
    }

    fn expect_routes(&mut self, until: Instant) {
        if !self.channel(Kind::Route).interest.asked() {
            self.expect_routes = Some(until);
        }
    }

    /// Keeps the clusters of ours that a returning proxy has, by what it says of this kind, whatever revision it
    /// gets next, until its routes are new.
    fn keep_remembered(&mut self, kind: Kind) {
        let channel = &self.channels[kind as usize];
        for name in channel.interest.names().chain(channel.delivered.keys()) {
            // In delta what is not named stays as it is. The state of the world has to define it again.
            let past = (self.form == Form::StateOfTheWorld).then(|| self.current.past.get(name)).flatten();
            let known = self.current.upstreams.get(name).or(past).cloned();
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
            let revision = self.current.revision();
            self.refused.take_if(|refused| refused.revision <= revision);
            self.good = Some(Arc::clone(&self.current));
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
            if clusters.interest.asked() {
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
        if self.channel(Kind::Cluster).waiting() || self.hold_clusters.is_some() {
            return None;
        }
        let wanted = self.wanted();
        let [clusters, endpoints, ..] = &mut self.channels;
        let all: Vec<Arc<Resource>> = wanted
            .iter()
            .filter(|(name, _)| clusters.interest.covers(name))
            .map(|(_, upstream)| Arc::clone(&upstream.cluster))
            .collect();
        // What only the proxy remembers is never better than what it has.
        let lacks = |resource: &&Arc<Resource>| match clusters.delivered.get(&resource.name) {
            Some(hash) => wanted[&resource.name].endpoints.is_some() && *hash != resource.hash,
            None => true,
        };
        let lacking: Vec<Arc<Resource>> = all.iter().filter(lacks).cloned().collect();
        let removed: Vec<String> = clusters.without(|name| wanted.contains_key(name));
        self.served = wanted;
        // Even an empty answer is one: the proxy waits for it before it starts to serve.
        if !clusters.interest.asked() || (lacking.is_empty() && removed.is_empty() && !clusters.owed) {
            return None;
        }
        for resource in &lacking {
            // A new or changed cluster starts without endpoints, even if the proxy had them before.
            endpoints.forget(&resource.name);
            if !endpoints.interest.asked() {
                self.renewed.insert(resource.name.clone());
            }
        }
        self.renewed.retain(|name| self.served.contains_key(name));
        let version = version(&all);
        let resources = match self.form {
            Form::StateOfTheWorld => all,
            Form::Delta => lacking,
        };
        Some(self.push(now, Kind::Cluster, version, resources, removed))
    }

    fn endpoints(&mut self, now: Instant) -> Option<Push> {
        let [clusters, endpoints, ..] = &mut self.channels;
        if endpoints.waiting() || !endpoints.interest.asked() {
            return None;
        }
        let all = || self.served.values().filter_map(|upstream| upstream.endpoints.as_ref());
        let lacking: Vec<Arc<Resource>> = all()
            .filter(|resource| endpoints.interest.covers(&resource.name))
            .filter(|resource| endpoints.delivered.get(&resource.name) != Some(&resource.hash))
            .cloned()
            .collect();
        // Endpoints go with their cluster, so they go after it. Of a cluster that only the proxy remembers, the
        // endpoints are those that it has.
        let removed = match self.form {
            Form::Delta => {
                endpoints.without(|name| self.served.contains_key(name) || clusters.gone.contains(name))
            }
            Form::StateOfTheWorld => Vec::new(),
        };
        if lacking.is_empty() && removed.is_empty() {
            return None;
        }
        let version = version(all());
        Some(self.push(now, Kind::Endpoint, version, lacking, removed))
    }

    fn routes(&mut self, now: Instant) -> Option<Push> {
        let route = Arc::clone(&self.current.route);
        if !self.lacks(Kind::Route, &route) || !self.clusters_taken() {
            return self.strangers(now, Kind::Route, &route.name);
        }
        // From now on the proxy may use these. What it refuses stays here until it takes another.
        let upstreams = &self.current.upstreams;
        self.referenced.extend(upstreams.iter().map(|(name, upstream)| (name.clone(), Arc::clone(upstream))));
        Some(self.push(now, Kind::Route, self.current.version(Kind::Route), vec![route], Vec::new()))
    }

    fn filter(&mut self, now: Instant) -> Option<Push> {
        let filter = Arc::clone(&self.current.filter);
        if !self.lacks(Kind::Filter, &filter) || !self.routes_taken() {
            return self.strangers(now, Kind::Filter, &filter.name);
        }
        Some(self.push(now, Kind::Filter, self.current.version(Kind::Filter), vec![filter], Vec::new()))
    }

    fn lacks(&self, kind: Kind, resource: &Resource) -> bool {
        let channel = self.channel(kind);
        !channel.waiting()
            && channel.interest.covers(&resource.name)
            && channel.delivered.get(&resource.name) != Some(&resource.hash)
    }

    /// In the delta form, the answer to subscriptions to what is not ours: that there is no such thing.
    fn strangers(&mut self, now: Instant, kind: Kind, ours: &str) -> Option<Push> {
        let form = self.form;
        let channel = self.channel_mut(kind);
        if channel.waiting() || form != Form::Delta {
            return None;
        }
        let removed = channel.without(|name| name == ours);
        if removed.is_empty() {
            return None;
        }
        Some(self.push(now, kind, version([]), Vec::new(), removed))
    }

    fn push(
        &mut self,
        now: Instant,
        kind: Kind,
        version: String,
        resources: Vec<Arc<Resource>>,
        mut removed: Vec<String>,
    ) -> Push {
        let sent = |name: &String| resources.iter().any(|resource| resource.name == *name);
        let again: Vec<String> = self.channel(kind).gone.iter().filter(|name| !sent(name)).cloned().collect();
        removed.extend(again.into_iter().filter(|name| !removed.contains(name)).collect::<Vec<_>>());
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let content = resources.iter().map(|resource| (resource.name.clone(), resource.hash)).collect();
        self.channel_mut(kind).sent(nonce.clone(), version.clone(), content, &removed, now);
        Push { kind, version, nonce, resources, removed }
    }
}

#[cfg(test)]
mod delta_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
