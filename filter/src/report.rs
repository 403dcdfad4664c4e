//! Tells the control plane which revision this worker has applied.
//!
//! What a proxy ACKs it has received; here each worker says what it runs. A report that is lost is made up for by the
//! next one, which comes every 15 s.

use crate::{
    calls,
    host::{self, CallId, LogLevel},
};
use serde::{Deserialize, Serialize};
use std::{cell::OnceCell, time::Duration};

/// Between reports that say the same.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After a report that did not arrive.
const RETRY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to tell.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receiver {
    /// The cluster of the control plane's xDS server.
    cluster: String,
}

/// What is told, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    /// The proxy's id, as it is in its bootstrap.
    node: &'a str,
    /// Names this worker as long as its VM lives.
    worker: &'a str,
    /// What it runs.
    revision: u64,
}

thread_local! {
    /// Of this VM, and so of this worker.
    static WORKER: OnceCell<String> = const { OnceCell::new() };
}

/// The reports of one configuration.
#[derive(Default)]
pub(crate) struct Reporter {
    /// When the next one is due, by the host's monotonic clock.
    due: Duration,
    told: Option<u64>,
    under_way: Option<CallId>,
}

impl Reporter {
    /// Reports when it is time.
    pub(crate) fn tick(&mut self, receiver: &Receiver, revision: u64, now: Duration) {
        if now < self.due && self.told == Some(revision) {
            return;
        }
        self.due = now.saturating_add(RETRY);
        let Ok(node) = host::property("xds\0node\0id") else { return };
        let Some(worker) = worker() else { return };
        let report = Report { node: &String::from_utf8_lossy(&node), worker: &worker, revision };
        let Ok(body) = serde_json::to_vec(&report) else { return };
        let headers = [
            (":method", "POST"),
            (":path", "/v1/applied"),
            (":authority", receiver.cluster.as_str()),
            ("content-type", "application/json"),
        ];
        self.told = Some(revision);
        match calls::send(&receiver.cluster, &headers, &body, TIMEOUT) {
            Ok(call) => self.under_way = Some(call),
            Err(status) => {
                let cluster = &receiver.cluster;
                host::log(LogLevel::Warn, &format!("{cluster} cannot be told the revision: {status}"));
            }
        }
    }

    /// Whether the answer was to a report.
    pub(crate) fn answered(&mut self, call: CallId, now: Duration) -> bool {
        if self.under_way != Some(call) {
            return false;
        }
        self.under_way = None;
        let taken = calls::status().is_some_and(|status| status < 300);
        self.due = now.saturating_add(if taken { HEARTBEAT } else { RETRY });
        true
    }
}

fn worker() -> Option<String> {
    WORKER.with(|worker| {
        if let Some(known) = worker.get() {
            return Some(known.clone());
        }
        let random = host::random::<8>().ok()?;
        Some(worker.get_or_init(|| format!("{:016x}", u64::from_le_bytes(random))).clone())
    })
}
