//! One kind of resource on one stream: what the proxy asked for, what it was sent, what it took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;

use super::resource::Kind;

/// What a proxy said of one kind, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KindStatus {
    /// The version that was sent last.
    pub sent: Option<String>,
    /// The version that was ACKed last.
    pub acked: Option<String>,
    /// The refusal of the version sent last; `None` again once the proxy ACKs a later one.
    pub nacked: Option<Refusal>,
}

/// A NACK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The version that was refused.
    pub version: String,
    /// The proxy's reason, shortened.
    pub message: String,
}

/// Which resources of a kind a proxy wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Interest {
    /// It never asked.
    #[default]
    Never,
    /// All there are.
    All,
    /// These; none if it unsubscribed from all.
    Names(BTreeSet<String>),
}

impl Interest {
    /// Whether this resource is wanted.
    pub(super) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Never => false,
            Self::All => true,
            Self::Names(names) => names.contains(name),
        }
    }

    /// The interest after a request that named `names`.
    fn after(&self, kind: Kind, names: Vec<String>) -> Self {
        // An empty first request means all, but only for clusters; once names were given, empty means none.
        let implied = names.is_empty() && kind == Kind::Cluster && !matches!(self, Self::Names(_));
        if implied || names.iter().any(|name| name == "*") {
            return Self::All;
        }
        Self::Names(names.into_iter().collect())
    }
}

/// What a response held: name and hash of each resource.
pub(super) type Content = BTreeMap<String, u64>;

/// The last response of a kind.
#[derive(Debug, Clone)]
struct Sent {
    nonce: String,
    version: String,
    content: Content,
    at: Instant,
    state: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Not yet come.
    Awaited,
    /// Not come in time; it may still come.
    Overdue,
    /// ACK or NACK.
    Given,
}

/// How a request relates to what was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It answers an old response: to be ignored.
    Stale,
    /// It only (re)subscribes.
    Subscription,
    /// The last response was taken; its version.
    Ack(String),
    /// The last response was refused; its version.
    Nack(String),
}

/// The state of one kind on one stream.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) interest: Interest,
    /// Last sent hash of each name that the proxy still wants. What equals it is never sent again, be it ACKed,
    /// NACKed or unanswered.
    pub(super) delivered: Content,
    /// What the proxy certainly has of each such name: ACKed, and nothing else sent since.
    pub(super) acked: Content,
    pub(super) status: KindStatus,
    last: Option<Sent>,
}

impl Channel {
    /// Whether the proxy ever asked for this kind.
    pub(super) fn opened(&self) -> bool {
        self.interest != Interest::Never
    }

    /// Whether anything of this kind was sent.
    pub(super) fn ever_sent(&self) -> bool {
        self.last.is_some()
    }

    /// Whether a response is unanswered and not overdue. There is at most one, so that a slow proxy is never sent
    /// more than it can digest and only the latest state waits for it.
    pub(super) fn waiting(&self) -> bool {
        self.last.as_ref().is_some_and(|sent| sent.state == Answer::Awaited)
    }

    /// When the answer that is awaited has been sent for.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.last.as_ref().filter(|sent| sent.state == Answer::Awaited).map(|sent| sent.at)
    }

    /// Stops waiting; returns the version that nobody answered.
    pub(super) fn give_up(&mut self) -> Option<String> {
        let sent = self.last.as_mut().filter(|sent| sent.state == Answer::Awaited)?;
        sent.state = Answer::Overdue;
        Some(sent.version.clone())
    }

    /// Takes the answer in a request.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<&str>) -> Reply {
        // Before the first response a nonce can only be left over from another stream.
        let Some(sent) = self.last.as_mut().filter(|_| !nonce.is_empty()) else {
            return Reply::Subscription;
        };
        if sent.nonce != nonce {
            return Reply::Stale;
        }
        let Some(message) = error else {
            if sent.state == Answer::Given {
                return Reply::Subscription;
            }
            sent.state = Answer::Given;
            // Names that were dropped or must be sent again meanwhile do not count as taken.
            let current = sent.content.iter().filter(|(name, hash)| self.delivered.get(*name) == Some(hash));
            self.acked.extend(current.map(|(name, hash)| (name.clone(), *hash)));
            self.status.acked = Some(sent.version.clone());
            self.status.nacked = None;
            return Reply::Ack(sent.version.clone());
        };
        sent.state = Answer::Given;
        self.acked.retain(|name, hash| sent.content.get(name) != Some(hash));
        self.status.nacked = Some(Refusal { version: sent.version.clone(), message: shorten(message) });
        Reply::Nack(sent.version.clone())
    }

    /// Takes the subscription in a request.
    pub(super) fn subscribe(&mut self, kind: Kind, names: Vec<String>) {
        self.interest = self.interest.after(kind, names);
        // What is asked for again later must be sent again.
        self.delivered.retain(|name, _| self.interest.covers(name));
        self.acked.retain(|name, _| self.interest.covers(name));
    }

    /// Notes a response.
    pub(super) fn sent(&mut self, nonce: String, version: String, content: Content, now: Instant) {
        // Until it answers, the proxy may have either; if it never does, for good.
        self.acked.retain(|name, hash| content.get(name).is_none_or(|new| new == hash));
        self.delivered.extend(content.iter().map(|(name, hash)| (name.clone(), *hash)));
        self.status.sent = Some(version.clone());
        self.last = Some(Sent { nonce, version, content, at: now, state: Answer::Awaited });
    }

    /// Forgets what was sent of one name, so that it is sent again.
    pub(super) fn forget(&mut self, name: &str) {
        self.delivered.remove(name);
        self.acked.remove(name);
    }
}

/// A proxy's message can quote the whole configuration.
fn shorten(message: &str) -> String {
    const LIMIT: usize = 1_000;
    match message.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn content(pairs: &[(&str, u64)]) -> Content {
        pairs.iter().map(|(name, hash)| ((*name).to_owned(), *hash)).collect()
    }

    #[test]
    fn xds_empty_names_mean_all_only_for_clusters_and_only_at_first() {
        let mut clusters = Channel::default();
        clusters.subscribe(Kind::Cluster, names(&[]));
        assert_eq!(clusters.interest, Interest::All);
        clusters.subscribe(Kind::Cluster, names(&[]));
        assert_eq!(clusters.interest, Interest::All);
        clusters.subscribe(Kind::Cluster, names(&["a"]));
        assert!(clusters.interest.covers("a") && !clusters.interest.covers("b"));
        clusters.subscribe(Kind::Cluster, names(&[]));
        assert!(!clusters.interest.covers("a"));
        clusters.subscribe(Kind::Cluster, names(&["*"]));
        assert_eq!(clusters.interest, Interest::All);

        let mut routes = Channel::default();
        routes.subscribe(Kind::Route, names(&[]));
        assert!(routes.opened() && !routes.interest.covers("halftone"));
    }

    #[test]
    fn xds_stale_nonces_change_nothing() {
        let now = Instant::now();
        let mut channel = Channel::default();
        channel.subscribe(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), now);
        channel.sent("2".into(), "v2".into(), content(&[("a", 2)]), now);
        assert_eq!(channel.answer("1", None), Reply::Stale);
        assert_eq!(channel.answer("1", Some("no")), Reply::Stale);
        assert!(channel.waiting() && channel.acked.is_empty());
        assert_eq!(channel.answer("2", None), Reply::Ack("v2".into()));
        assert!(!channel.waiting());
        assert_eq!(channel.acked, content(&[("a", 2)]));
    }

    #[test]
    fn xds_a_nonce_from_another_stream_is_no_answer() {
        let mut channel = Channel::default();
        assert_eq!(channel.answer("77", None), Reply::Subscription);
    }

    #[test]
    fn xds_the_same_answer_twice_counts_once() {
        let mut channel = Channel::default();
        channel.subscribe(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), Instant::now());
        assert_eq!(channel.answer("1", None), Reply::Ack("v1".into()));
        assert_eq!(channel.answer("1", None), Reply::Subscription);
        // But a proxy may find out later that it cannot use what it took.
        assert_eq!(channel.answer("1", Some("no")), Reply::Nack("v1".into()));
        assert!(channel.acked.is_empty());
    }

    #[test]
    fn xds_a_late_answer_still_counts() {
        let mut channel = Channel::default();
        channel.subscribe(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), Instant::now());
        assert_eq!(channel.give_up().as_deref(), Some("v1"));
        assert_eq!(channel.give_up(), None);
        assert!(!channel.waiting());
        assert_eq!(channel.answer("1", None), Reply::Ack("v1".into()));
        assert_eq!(channel.acked, content(&[("a", 1)]));
    }

    #[test]
    fn xds_unsubscribing_forgets() {
        let mut channel = Channel::default();
        channel.subscribe(Kind::Endpoint, names(&["a", "b"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1), ("b", 1)]), Instant::now());
        channel.answer("1", None);
        channel.subscribe(Kind::Endpoint, names(&["b"]));
        assert_eq!(channel.delivered, content(&[("b", 1)]));
        assert_eq!(channel.acked, content(&[("b", 1)]));
    }

    #[test]
    fn xds_an_ack_does_not_cover_what_must_be_sent_again() {
        let mut channel = Channel::default();
        channel.subscribe(Kind::Endpoint, names(&["a", "b"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1), ("b", 1)]), Instant::now());
        channel.forget("a");
        channel.answer("1", None);
        assert_eq!(channel.acked, content(&[("b", 1)]));
    }

    #[test]
    fn xds_refusals_are_shortened_and_cleared_by_the_next_ack() {
        let mut channel = Channel::default();
        channel.subscribe(Kind::Filter, names(&["halftone"]));
        channel.sent("1".into(), "v1".into(), content(&[("halftone", 1)]), Instant::now());
        channel.answer("1", Some(&"é".repeat(5_000)));
        let refusal = channel.status.nacked.clone().unwrap();
        assert_eq!(refusal.version, "v1");
        assert_eq!(refusal.message.chars().count(), 1_001);
        assert_eq!(channel.status.acked, None);
        channel.sent("2".into(), "v2".into(), content(&[("halftone", 2)]), Instant::now());
        channel.answer("2", None);
        assert_eq!(channel.status.nacked, None);
        assert_eq!(channel.status.acked.as_deref(), Some("v2"));
    }
}
