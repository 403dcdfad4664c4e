//! What proxies really run: each worker of each proxy says which revision its filter has applied.
//!
//! An ACK comes from a proxy's main thread and says that it took the bundle; its workers take it up a little later. They
//! report over the same port as xDS, where only proxies are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::nodes::{Nodes, now_ms};

/// The path that the filter reports to (`filter/src/report.rs`).
const PATH: &str = "/v1/applied";

/// A worker that is not heard of for so long is gone. It reports every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// More workers of one proxy than this are not remembered.
const MAX_WORKERS: usize = 1_024;
/// Bytes of a worker's name; the filter's have 16.
const MAX_WORKER_NAME: usize = 64;
/// Bytes of a report. A proxy's id is in it.
const MAX_REPORT: usize = 4 << 10;

/// What a worker says.
#[derive(Debug, Deserialize)]
struct Report {
    node: String,
    worker: String,
    revision: u64,
}

/// A worker of a proxy, and what its filter has applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its name; a new one each time that the filter is loaded.
    pub worker: String,
    /// The revision that it decides by; 0: none yet.
    pub revision: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// The workers that were heard of, by their proxy's id. Only of proxies that have been connected: whoever reaches the port
/// cannot fill this with names.
#[derive(Debug, Default)]
pub(super) struct Workers(HashMap<String, BTreeMap<String, Worker>>);

#[derive(Debug)]
struct Worker {
    revision: u64,
    since_ms: u64,
    heard: Instant,
}

impl Worker {
    fn is_there(&self, now: Instant) -> bool {
        now.duration_since(self.heard) <= SILENCE
    }
}

impl Workers {
    /// The workers of a proxy.
    pub(super) fn of(&self, node: &str, now: Instant) -> Vec<WorkerStatus> {
        let workers = self.0.get(node).into_iter().flatten();
        workers
            .filter(|(_, worker)| worker.is_there(now))
            .map(|(name, worker)| WorkerStatus {
                worker: name.clone(),
                revision: worker.revision,
                since_ms: worker.since_ms,
            })
            .collect()
    }

    /// Listens to the workers of a proxy from now on; `connected` are the ids of all that are. Those that are gone are
    /// forgotten once they are as many.
    pub(super) fn expect<'a>(
        &mut self,
        node: &str,
        now: Instant,
        connected: impl ExactSizeIterator<Item = &'a str>,
    ) {
        if self.0.len() > connected.len() * 2 {
            let connected: HashSet<&str> = connected.collect();
            self.0.retain(|id, workers| {
                connected.contains(id.as_str()) || workers.values().any(|worker| worker.is_there(now))
            });
        }
        self.0.entry(node.to_owned()).or_default();
    }

    /// Forgets the workers of a proxy.
    pub(super) fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// Takes a report.
    fn heard(&mut self, report: Report, now: Instant, now_ms: u64) -> Result<(), Unheard> {
        let Report { node, worker, revision } = report;
        let workers = self.0.get_mut(&node).ok_or(Unheard::UnknownProxy)?;
        workers.retain(|_, worker| worker.is_there(now));
        let is_new = !workers.contains_key(&worker);
        if worker.len() > MAX_WORKER_NAME || is_new && workers.len() >= MAX_WORKERS {
            return Err(Unheard::TooMany);
        }
        let known = workers.entry(worker).or_insert(Worker { revision, since_ms: now_ms, heard: now });
        if known.revision != revision {
            known.since_ms = now_ms;
        }
        (known.revision, known.heard) = (revision, now);
        Ok(())
    }
}

/// Why a report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unheard {
    /// The proxy is not connected by xDS (yet); the worker tries again.
    UnknownProxy,
    /// The proxy has too many workers, or one with too long a name.
    TooMany,
}

impl Nodes {
    fn heard(&self, report: Report) -> Result<(), Unheard> {
        let taken = self.lock().workers.heard(report, Instant::now(), now_ms());
        self.changed();
        taken
    }
}

/// Takes the workers' reports.
pub(super) fn router(nodes: Nodes) -> Router {
    Router::new().route(PATH, post(take)).layer(DefaultBodyLimit::max(MAX_REPORT)).with_state(nodes)
}

async fn take(State(nodes): State<Nodes>, Json(report): Json<Report>) -> StatusCode {
    match nodes.heard(report) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(Unheard::UnknownProxy) => StatusCode::NOT_FOUND,
        Err(Unheard::TooMany) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Node;

    use super::super::form::Form;
    use super::*;

    fn report(node: &str, worker: usize, revision: u64) -> Report {
        Report { node: node.to_owned(), worker: worker.to_string(), revision }
    }

    fn revisions(workers: &Workers, node: &str, now: Instant) -> Vec<u64> {
        workers.of(node, now).iter().map(|worker| worker.revision).collect()
    }

    fn listening_to(nodes: &[&str], now: Instant) -> Workers {
        let mut workers = Workers::default();
        for node in nodes {
            workers.expect(node, now, nodes.iter().copied());
        }
        workers
    }

    #[test]
    fn xds_workers_are_known_while_they_are_heard_of() {
        let start = Instant::now();
        let mut workers = listening_to(&["a"], start);
        assert_eq!(workers.heard(report("a", 1, 7), start, 100), Ok(()));
        assert_eq!(workers.heard(report("a", 2, 6), start + SILENCE, 200), Ok(()));
        assert_eq!(revisions(&workers, "a", start + SILENCE), [7, 6]);
        assert_eq!(revisions(&workers, "a", start + SILENCE * 2), [6]);
        assert!(revisions(&workers, "b", start).is_empty());

        assert_eq!(workers.heard(report("a", 2, 6), start + SILENCE, 300), Ok(()));
        assert_eq!(workers.of("a", start + SILENCE)[1].since_ms, 200, "the same revision keeps its time");
        assert_eq!(workers.heard(report("a", 2, 7), start + SILENCE, 400), Ok(()));
        assert_eq!(workers.of("a", start + SILENCE)[1].since_ms, 400);
    }

    #[test]
    fn xds_workers_are_bounded() {
        let start = Instant::now();
        let mut workers = listening_to(&["a"], start);
        for worker in 0..MAX_WORKERS {
            assert_eq!(workers.heard(report("a", worker, 1), start, 0), Ok(()));
        }
        assert_eq!(workers.heard(report("a", MAX_WORKERS, 1), start, 0), Err(Unheard::TooMany));
        assert_eq!(workers.heard(report("a", 0, 2), start, 0), Ok(()), "who is known goes on");
        let long = Report { worker: "w".repeat(MAX_WORKER_NAME + 1), ..report("a", 0, 1) };
        assert_eq!(workers.heard(long, start + SILENCE * 2, 0), Err(Unheard::TooMany));
    }

    #[test]
    fn xds_only_the_workers_of_connected_proxies_are_heard() {
        let start = Instant::now();
        let mut workers = listening_to(&["a", "b"], start);
        assert_eq!(workers.heard(report("c", 0, 1), start, 0), Err(Unheard::UnknownProxy));
        assert_eq!(workers.heard(report("a", 0, 1), start, 0), Ok(()));
        // A connection that was lost for a moment: what runs is still known.
        workers.expect("c", start, std::iter::empty());
        assert_eq!(revisions(&workers, "a", start), [1]);
        assert_eq!(workers.heard(report("b", 0, 1), start, 0), Err(Unheard::UnknownProxy), "it is gone");
        workers.expect("c", start + SILENCE * 2, std::iter::empty());
        assert_eq!(workers.0.len(), 1, "who is not heard of is forgotten");
    }

    #[test]
    fn xds_a_proxy_that_starts_anew_has_none_of_its_old_workers() {
        let nodes = Nodes::new();
        let node = Node { id: "a".to_owned(), ..Node::default() };
        let connect = |is_new| nodes.connect(Some(&node), Form::StateOfTheWorld, is_new);
        let workers = || nodes.list().iter().map(|node| node.workers.len()).collect::<Vec<_>>();
        let first = connect(true);
        nodes.heard(report("a", 1, 7)).unwrap();
        drop(first);
        let again = connect(false);
        assert_eq!(workers(), [1], "only the connection was lost");
        let twin = connect(true);
        assert_eq!(workers(), [1, 1], "another proxy of that id is there");
        drop((again, twin));
        let _restarted = connect(true);
        assert_eq!(workers(), [0]);
        assert_eq!(nodes.heard(report("a", 2, 7)), Ok(()));
    }
}
