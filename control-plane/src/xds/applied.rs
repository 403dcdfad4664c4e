//! What proxies really run: each worker of each proxy says which revision its filter has applied.
//!
//! An ACK comes from a proxy's main thread and says that it took the bundle; its workers take it up a little later. They
//! report over the same port as xDS, where only proxies are.

use std::collections::{BTreeMap, HashMap};
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

/// More proxies than this are not remembered, and more workers of one are not either.
const MAX_PROXIES: usize = 20_000;
const MAX_WORKERS: usize = 1_024;
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

/// The workers that were heard of.
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

    /// Takes a report; false when there are too many workers already.
    fn heard(&mut self, report: Report, now: Instant, now_ms: u64) -> bool {
        let Report { node, worker, revision } = report;
        if self.0.len() >= MAX_PROXIES && !self.0.contains_key(&node) {
            self.0.retain(|_, workers| workers.values().any(|worker| worker.is_there(now)));
            if self.0.len() >= MAX_PROXIES {
                return false;
            }
        }
        let workers = self.0.entry(node).or_default();
        workers.retain(|_, worker| worker.is_there(now));
        if workers.len() >= MAX_WORKERS && !workers.contains_key(&worker) {
            return false;
        }
        let known = workers.entry(worker).or_insert(Worker { revision, since_ms: now_ms, heard: now });
        if known.revision != revision {
            known.since_ms = now_ms;
        }
        (known.revision, known.heard) = (revision, now);
        true
    }
}

impl Nodes {
    fn heard(&self, report: Report) -> bool {
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
    if nodes.heard(report) { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: &str, worker: usize, revision: u64) -> Report {
        Report { node: node.to_owned(), worker: worker.to_string(), revision }
    }

    fn revisions(workers: &Workers, node: &str, now: Instant) -> Vec<u64> {
        workers.of(node, now).iter().map(|worker| worker.revision).collect()
    }

    #[test]
    fn xds_workers_are_known_while_they_are_heard_of() {
        let mut workers = Workers::default();
        let start = Instant::now();
        assert!(workers.heard(report("a", 1, 7), start, 100));
        assert!(workers.heard(report("a", 2, 6), start + SILENCE, 200));
        assert_eq!(revisions(&workers, "a", start + SILENCE), [7, 6]);
        assert_eq!(revisions(&workers, "a", start + SILENCE * 2), [6]);
        assert!(revisions(&workers, "b", start).is_empty());

        assert!(workers.heard(report("a", 2, 6), start + SILENCE, 300));
        assert_eq!(workers.of("a", start + SILENCE)[1].since_ms, 200, "the same revision keeps its time");
        assert!(workers.heard(report("a", 2, 7), start + SILENCE, 400));
        assert_eq!(workers.of("a", start + SILENCE)[1].since_ms, 400);
    }

    #[test]
    fn xds_workers_are_bounded() {
        let mut workers = Workers::default();
        let start = Instant::now();
        for worker in 0..MAX_WORKERS {
            assert!(workers.heard(report("a", worker, 1), start, 0));
        }
        assert!(!workers.heard(report("a", MAX_WORKERS, 1), start, 0));
        assert!(workers.heard(report("a", 0, 2), start, 0), "who is known goes on");
        for node in 1..MAX_PROXIES {
            assert!(workers.heard(report(&format!("n{node}"), 0, 1), start, 0));
        }
        assert!(!workers.heard(report("one more", 0, 1), start, 0));
        let later = start + SILENCE * 2;
        assert!(workers.heard(report("one more", 0, 1), later, 0), "who is gone makes room");
        assert_eq!(workers.0.len(), 1);
    }
}
