//! One kind of resource on one stream: what the proxy asked for, what it was sent, what it took.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::interest::{Interest, WILDCARD};
use super::resource::{Kind, Resource, UNKNOWN};

/// What a proxy was sent and said of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The version that was sent last.
    pub(crate) sent: Option<String>,
    /// The version that was ACKed last.
    pub(crate) acked: Option<String>,
    /// The refusal of the version sent last; `None` again once the proxy ACKs a later one.
    pub(crate) nacked: Option<Refusal>,
}

/// A NACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The version that was refused.
    pub(crate) version: String,
    /// The proxy's reason, shortened.
    pub(crate) message: String,
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
    /// What the last response that was refused held, except for what the proxy had before.
    refused: Content,
    /// Names whose removal was sent and not ACKed: every further response repeats it.
    pub(super) gone: BTreeSet<String>,
    /// Names that were subscribed to and not answered: in the delta form each subscription is, even with the news
    /// that there is no such resource.
    pub(super) unanswered: BTreeSet<String>,
    /// Whether an answer is awaited even if there is nothing in it.
    pub(super) owed: bool,
    pub(super) standing: Standing,
    last: Option<Sent>,
}

impl Channel {
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
            self.gone.clear();
            // Names that were dropped or must be sent again meanwhile do not count as taken.
            let current = sent.content.iter().filter(|(name, hash)| self.delivered.get(*name) == Some(hash));
            self.acked.extend(current.map(|(name, hash)| (name.clone(), *hash)));
            self.standing.acked = Some(sent.version.clone());
            self.standing.nacked = None;
            return Reply::Ack(sent.version.clone());
        };
        if sent.state == Answer::Given {
            // It had taken it, and found out later that it cannot use it.
            self.acked.retain(|name, hash| sent.content.get(name) != Some(hash));
        }
        sent.state = Answer::Given;
        let refused = sent.content.iter().filter(|(name, hash)| self.acked.get(*name) != Some(hash));
        self.refused = refused.map(|(name, hash)| (name.clone(), *hash)).collect();
        self.standing.nacked = Some(Refusal { version: sent.version.clone(), message: shorten(message) });
        Reply::Nack(sent.version.clone())
    }

    /// Takes all that is wanted from now on, as the state of the world says it. The `version` that the proxy has
    /// does not say what it has of each name.
    pub(super) fn replace(&mut self, kind: Kind, names: Vec<String>) {
        self.owed |= !self.interest.asked();
        self.interest.replace(kind, names);
        self.drop_unwanted();
    }

    /// Takes what is wanted in addition and no longer, as delta says it. `versions` are those of the resources that
    /// the proxy has from an earlier stream; they come with the first request.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        subscribe: &[String],
        unsubscribe: &[String],
        versions: &HashMap<String, String>,
    ) {
        let all = self.interest.all();
        self.interest.change(kind, subscribe, unsubscribe);
        self.owed |= self.interest.all() && !all && versions.is_empty();
        self.drop_unwanted();
        // What is asked for again may have been let go of before, so it is sent again. What is no longer asked for by
        // name but covered by the wildcard is, too: the proxy cannot know which of both it came by.
        for name in subscribe.iter().chain(unsubscribe).filter(|name| *name != WILDCARD) {
            self.forget(name);
            if self.interest.covers(name) {
                self.unanswered.insert(name.clone());
            } else {
                self.unanswered.remove(name);
            }
        }
        for (name, version) in versions.iter().filter(|(name, _)| self.interest.covers(name)) {
            let hash = Resource::hash_of(version);
            self.delivered.insert(name.clone(), hash);
            self.acked.insert(name.clone(), hash);
            self.unanswered.remove(name);
        }
    }

    /// What is asked for again later must be sent again.
    fn drop_unwanted(&mut self) {
        self.delivered.retain(|name, _| self.interest.covers(name));
        self.acked.retain(|name, _| self.interest.covers(name));
        self.gone.retain(|name| self.interest.covers(name));
    }

    /// Notes a response: what it held, and which names it took away.
    pub(super) fn sent(
        &mut self,
        nonce: String,
        version: String,
        content: Content,
        removed: &[String],
        now: Instant,
    ) {
        for name in removed {
            self.forget(name);
            self.unanswered.remove(name);
            self.gone.insert(name.clone());
        }
        self.gone.retain(|name| !content.contains_key(name));
        // Until it answers, the proxy may have either; if it never does, for good.
        self.acked.retain(|name, hash| content.get(name).is_none_or(|new| new == hash));
        self.unanswered.retain(|name| !content.contains_key(name));
        self.delivered.extend(content.iter().map(|(name, hash)| (name.clone(), *hash)));
        self.owed = false;
        self.standing.sent = Some(version.clone());
        self.last = Some(Sent { nonce, version, content, at: now, state: Answer::Awaited });
    }

    /// The names that the proxy has, or waits for, of which there is nothing.
    pub(super) fn without(&mut self, exists: impl Fn(&str) -> bool) -> Vec<String> {
        self.gone.retain(|name| !exists(name));
        let names: BTreeSet<&String> = self.delivered.keys().chain(&self.unanswered).collect();
        names.into_iter().filter(|name| !exists(name)).cloned().collect()
    }

    /// Makes removals that were not ACKed be sent again.
    pub(super) fn retry_removals(&mut self) {
        self.unanswered.append(&mut self.gone);
    }

    /// Makes what was refused be sent again, or be removed if it is not wanted any more: the proxy may have an older
    /// one of it.
    pub(super) fn retry(&mut self) {
        for (name, refused) in std::mem::take(&mut self.refused) {
            if let Some(hash) = self.delivered.get_mut(&name).filter(|hash| **hash == refused) {
                *hash = UNKNOWN;
            }
        }
    }

    /// Forgets what was sent of one name, so that it is sent again.
    pub(super) fn forget(&mut self, name: &str) {
        self.delivered.remove(name);
        self.acked.remove(name);
    }
}

#[cfg(test)]
impl Channel {
    /// The nonce of the last response.
    pub(super) fn nonce(&self) -> Option<&str> {
        self.last.as_ref().map(|sent| sent.nonce.as_str())
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
    fn xds_stale_nonces_change_nothing() {
        let now = Instant::now();
        let mut channel = Channel::default();
        channel.replace(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), &[], now);
        channel.sent("2".into(), "v2".into(), content(&[("a", 2)]), &[], now);
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
        channel.replace(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), &[], Instant::now());
        assert_eq!(channel.answer("1", None), Reply::Ack("v1".into()));
        assert_eq!(channel.answer("1", None), Reply::Subscription);
        // But a proxy may find out later that it cannot use what it took.
        assert_eq!(channel.answer("1", Some("no")), Reply::Nack("v1".into()));
        assert!(channel.acked.is_empty());
    }

    #[test]
    fn xds_a_late_answer_still_counts() {
        let mut channel = Channel::default();
        channel.replace(Kind::Endpoint, names(&["a"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), &[], Instant::now());
        assert_eq!(channel.give_up().as_deref(), Some("v1"));
        assert_eq!(channel.give_up(), None);
        assert!(!channel.waiting());
        assert_eq!(channel.answer("1", None), Reply::Ack("v1".into()));
        assert_eq!(channel.acked, content(&[("a", 1)]));
    }

    #[test]
    fn xds_unsubscribing_forgets() {
        let mut channel = Channel::default();
        channel.replace(Kind::Endpoint, names(&["a", "b"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1), ("b", 1)]), &[], Instant::now());
        channel.answer("1", None);
        channel.replace(Kind::Endpoint, names(&["b"]));
        assert_eq!(channel.delivered, content(&[("b", 1)]));
        assert_eq!(channel.acked, content(&[("b", 1)]));
    }

    #[test]
    fn xds_an_ack_does_not_cover_what_must_be_sent_again() {
        let mut channel = Channel::default();
        channel.replace(Kind::Endpoint, names(&["a", "b"]));
        channel.sent("1".into(), "v1".into(), content(&[("a", 1), ("b", 1)]), &[], Instant::now());
        channel.forget("a");
        channel.answer("1", None);
        assert_eq!(channel.acked, content(&[("b", 1)]));
    }

    #[test]
    fn xds_refusals_are_shortened_and_cleared_by_the_next_ack() {
        let mut channel = Channel::default();
        channel.replace(Kind::Filter, names(&["halftone"]));
        channel.sent("1".into(), "v1".into(), content(&[("halftone", 1)]), &[], Instant::now());
        channel.answer("1", Some(&"é".repeat(5_000)));
        let refusal = channel.standing.nacked.clone().unwrap();
        assert_eq!(refusal.version, "v1");
        assert_eq!(refusal.message.chars().count(), 1_001);
        assert_eq!(channel.standing.acked, None);
        channel.sent("2".into(), "v2".into(), content(&[("halftone", 2)]), &[], Instant::now());
        channel.answer("2", None);
        assert_eq!(channel.standing.nacked, None);
        assert_eq!(channel.standing.acked.as_deref(), Some("v2"));
    }

    #[test]
    fn xds_delta_answers_what_is_subscribed_to_again() {
        let mut channel = Channel::default();
        let nothing = HashMap::new();
        channel.change(Kind::Endpoint, &names(&["a", "b"]), &[], &nothing);
        channel.sent("1".into(), "v1".into(), content(&[("a", 1)]), &names(&["b"]), Instant::now());
        channel.answer("1", None);
        assert!(channel.unanswered.is_empty());
        assert_eq!(channel.acked, content(&[("a", 1)]));
        channel.change(Kind::Endpoint, &names(&["a"]), &[], &nothing);
        assert_eq!((&channel.delivered, &channel.acked), (&Content::new(), &Content::new()));
        channel.change(Kind::Endpoint, &[], &names(&["a"]), &nothing);
        assert!(channel.unanswered.is_empty(), "nobody waits for it any more");
    }

    #[test]
    fn xds_delta_knows_what_a_returning_proxy_has() {
        let mut channel = Channel::default();
        let versions = [("a", "000000000000000f"), ("b", "theirs"), ("c", "1")];
        let versions = versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        channel.change(Kind::Endpoint, &names(&["a", "b", "d"]), &[], &versions);
        assert_eq!(channel.delivered, content(&[("a", 15), ("b", 0)]), "of c it no longer wants to hear");
        assert_eq!(channel.acked, channel.delivered);
        assert_eq!(channel.unanswered, BTreeSet::from(["d".to_owned()]));
    }

    #[test]
    fn xds_delta_owes_an_answer_to_a_wildcard_of_a_proxy_that_has_nothing() {
        let nothing = HashMap::new();
        let mut channel = Channel::default();
        channel.change(Kind::Cluster, &[], &[], &nothing);
        assert!(channel.owed);
        channel.sent("1".into(), "v1".into(), Content::new(), &[], Instant::now());
        channel.change(Kind::Cluster, &[], &[], &nothing);
        assert!(!channel.owed);
        let mut returning = Channel::default();
        let versions = HashMap::from([("a".to_owned(), "1".to_owned())]);
        returning.change(Kind::Cluster, &[], &[], &versions);
        assert!(!returning.owed);
    }
}
