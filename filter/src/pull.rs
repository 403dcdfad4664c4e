//! Fetches bundles from a cluster of the proxy: for meshes whose xDS is not ours.
//!
//! All workers of a process follow the same source. One of them, whoever holds the lease in shared data, asks the
//! server and puts what it got into shared data; the others take it from there. The last good bundle stays in force
//! whatever happens to the server.

use crate::{
    calls,
    configuration::decode,
    host::{self, CallId, LogLevel, Status},
};
use halftone_rules::{VerifiedBundle, codec::stored_content_hash};
use serde::Deserialize;
use std::{rc::Rc, time::Duration};

/// How often a worker looks whether there is something for it to do.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How long a worker that is not heard of keeps the lease.
const LEASE: Duration = Duration::from_secs(2);
/// How long the server may hold the answer when there is nothing new, in seconds.
const WAIT_SECONDS: u64 = 25;
/// The same, and the time that the answer takes.
const TIMEOUT: Duration = Duration::from_secs(WAIT_SECONDS + 5);
/// Between the beginnings of two requests to a server that holds its answers.
const PAUSE: Duration = Duration::from_secs(1);
/// The same to a server that does not, a file server for example.
const POLL: Duration = Duration::from_secs(5);
/// After failures: doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(15);
/// A server that holds its answers says so by this header.
const MAX_WAIT: &str = "x-halftone-max-wait";

/// Where bundles come from.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// The cluster.
    cluster: String,
    /// The path of the bundle, `/v1/bundle` of the control plane.
    #[serde(default = "default_path")]
    path: String,
    /// The host that the request names; the cluster's name when left out.
    authority: Option<String>,
}

fn default_path() -> String {
    "/v1/bundle".to_owned()
}

/// A worker that follows a source.
pub(crate) struct Follower {
    source: Source,
    /// Names this worker in the lease.
    me: [u8; 8],
    /// The version that was seen last in shared data, taken or not. It is the server's `etag`, or else made of the
    /// content.
    version: Vec<u8>,
    under_way: Option<CallId>,
    started: Duration,
    next: Duration,
    backoff: Duration,
}

/// What a step led to.
pub(crate) enum News {
    Nothing,
    Bundle(Rc<VerifiedBundle>),
}

impl Follower {
    /// `None` on a host without randomness.
    pub(crate) fn new(source: Source) -> Option<Self> {
        Some(Self {
            source,
            me: host::random().ok()?,
            version: Vec::new(),
            under_way: None,
            started: Duration::ZERO,
            next: Duration::ZERO,
            backoff: FIRST_BACKOFF,
        })
    }

    /// Takes what another worker has fetched, and fetches when it is this one's turn.
    pub(crate) fn tick(&mut self, now: Duration) -> News {
        let news = self.look();
        let holds = self.hold_lease(now);
        if self.under_way.is_some() && now > self.started.saturating_add(TIMEOUT.saturating_mul(2)) {
            // The host has forgotten to answer.
            self.under_way = None;
        }
        if holds && self.under_way.is_none() && now >= self.next {
            self.fetch(now);
        }
        news
    }

    /// Takes the answer, if it is to a request of ours.
    pub(crate) fn answered(&mut self, call: CallId, body_size: usize, now: Duration) -> Option<News> {
        if self.under_way != Some(call) {
            return None;
        }
        self.under_way = None;
        let held = host::call_response_header(MAX_WAIT).is_ok();
        let pause = if held { PAUSE } else { POLL };
        let problem = match calls::status() {
            Some(304) => None,
            Some(200) => match self.received(body_size) {
                Ok(bundle) => {
                    self.succeeded(pause);
                    return Some(News::Bundle(bundle));
                }
                Err(problem) => Some(problem),
            },
            Some(status) => Some(format!("it answered {status}")),
            None => Some("there is no answer".to_owned()),
        };
        match problem {
            None => self.succeeded(pause),
            Some(problem) => {
                let (cluster, path) = (&self.source.cluster, &self.source.path);
                host::log(
                    LogLevel::Warn,
                    &format!("no rules from {cluster}{path}: {problem}; the last ones stay"),
                );
                self.next = now.saturating_add(self.backoff);
                self.backoff = self.backoff.saturating_mul(2).min(LAST_BACKOFF);
            }
        }
        Some(News::Nothing)
    }

    fn succeeded(&mut self, pause: Duration) {
        self.backoff = FIRST_BACKOFF;
        self.next = self.started.saturating_add(pause);
    }

    /// A bundle from the server; it is given to the other workers if it is good.
    fn received(&mut self, size: usize) -> Result<Rc<VerifiedBundle>, String> {
        let bytes = host::call_response_body(size).map_err(|status| status.to_string())?;
        let bundle = decode(&bytes)?;
        // Without a tag the server is asked for the whole bundle each time, and the content tells the others what is new.
        // Not the revision: bundles of `halftone compile` all have the same one, unless it is told another.
        let tag = host::call_response_header("etag").ok().filter(|tag| !tag.is_empty());
        let version = tag.unwrap_or_else(|| {
            format!("\"{:016x}\"", stored_content_hash(&bytes).unwrap_or_default()).into_bytes()
        });
        // In this order: who sees the version finds the bundle.
        let _ = host::set_shared_data(&self.key("bundle"), &bytes, None);
        let _ = host::set_shared_data(&self.key("version"), &version, None);
        self.version = version;
        Ok(bundle)
    }

    /// What another worker has fetched since the last look.
    pub(crate) fn look(&mut self) -> News {
        let Ok((version, _)) = host::shared_data(&self.key("version")) else { return News::Nothing };
        if version == self.version {
            return News::Nothing;
        }
        self.version = version;
        let bundle = host::shared_data(&self.key("bundle")).ok().and_then(|(bytes, _)| decode(&bytes).ok());
        bundle.map_or(News::Nothing, News::Bundle)
    }

    fn fetch(&mut self, now: Duration) {
        self.started = now;
        let separator = if self.source.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}wait={WAIT_SECONDS}", self.source.path);
        let known = String::from_utf8_lossy(&self.version).into_owned();
        let authority = self.source.authority.as_deref().unwrap_or(&self.source.cluster);
        let mut headers = vec![(":method", "GET"), (":path", &path), (":authority", authority)];
        if !known.is_empty() {
            headers.push(("if-none-match", &known));
        }
        match calls::send(&self.source.cluster, &headers, &[], TIMEOUT) {
            Ok(call) => self.under_way = Some(call),
            // The cluster may not be there yet.
            Err(status) => {
                let (cluster, path) = (&self.source.cluster, &self.source.path);
                host::log(LogLevel::Warn, &format!("{cluster}{path} cannot be asked for rules: {status}"));
                self.next = now.saturating_add(FIRST_BACKOFF);
            }
        }
    }

    /// Takes or renews the lease; the answer is whether this worker has it.
    fn hold_lease(&self, now: Duration) -> bool {
        let key = self.key("lease");
        let cas = match host::shared_data(&key) {
            Ok((lease, cas)) => {
                let (holder, until) = lease.split_at_checked(self.me.len()).unwrap_or_default();
                let until = until.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                if holder != self.me && now < Duration::from_millis(until) {
                    return false;
                }
                Some(cas)
            }
            Err(Status::NOT_FOUND) => None,
            // A host without shared data has workers that know nothing of each other: each fetches for itself.
            Err(_) => return true,
        };
        let until = now.saturating_add(LEASE).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX).to_le_bytes();
        let lease: Vec<u8> = self.me.iter().chain(&until).copied().collect();
        host::set_shared_data(&key, &lease, cas).is_ok()
    }

    /// Shared data belongs to all configurations of the process that name the same VM id.
    fn key(&self, what: &str) -> String {
        format!("halftone {what} of {} {}", self.source.cluster, self.source.path)
    }
}
