//! The controller dies between any two of its steps, and goes on without a repeated or a lost action.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_control_plane::{
    gate::Gate,
    hooks::Gatekeeper,
    ledger::{Ledger, Limits},
    publisher::Publisher,
    release::{Command, Controller, Phase, Precondition},
    store::{Change, Content, ReleaseWrite, Revision, SqliteStore, State, Store, StoreError},
    xds::{Nodes, ProxySettings},
};
use halftone_tests::{
    Paths,
    observed::{Request, batch, now_ms, series},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

const RULES: &str = "version: v1\ntargets: {v1: {endpoints: [\"127.0.0.1:1\"]}, v2: {endpoints: [\"127.0.0.1:2\"]}}\n\
                     default: v1\nrules: []\n";
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n\
                       steps:\n- {share: 0.1, hold: {for: 0s, units: 10}}\n- {share: 0.2, hold: {for: 0s, units: 10}}\n\
                       - {share: 0.4, hold: {for: 1h}}\n";

/// A store that dies at one of its writes, before or after it is durable.
struct Dying {
    store: SqliteStore,
    writes: AtomicUsize,
    dies_at: usize,
    after: bool,
}

impl Dying {
    fn write(&self, write: impl FnOnce(&SqliteStore) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let number = self.writes.fetch_add(1, SeqCst);
        if number > self.dies_at {
            return Err(StoreError::Incompatible("it is dead".into()));
        }
        if number == self.dies_at {
            if self.after {
                write(&self.store)?;
            }
            return Err(StoreError::Incompatible("it died".into()));
        }
        write(&self.store)
    }

    fn is_dead(&self) -> bool {
        self.writes.load(SeqCst) > self.dies_at
    }
}

impl Store for Dying {
    fn load(&self) -> Result<State, StoreError> {
        self.store.load()
    }

    fn commit(
        &self,
        revision: &Revision,
        content: Option<&Content>,
        release: Option<&ReleaseWrite>,
    ) -> Result<(), StoreError> {
        self.write(|store| store.commit(revision, content, release))
    }

    fn note(&self, release: &ReleaseWrite) -> Result<(), StoreError> {
        self.write(|store| store.note(release))
    }

    fn as_of(&self, ruleset: &str, revision: u64) -> Result<Option<Change>, StoreError> {
        self.store.as_of(ruleset, revision)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.store.check()
    }

    fn revisions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Revision>, StoreError> {
        self.store.revisions(before, limit)
    }

    fn records(
        &self,
        release: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.store.records(release, before, limit)
    }

    fn record_before(&self, release: &str, revision: u64) -> Result<Option<String>, StoreError> {
        self.store.record_before(release, revision)
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<String>, StoreError> {
        self.store.events(after, limit)
    }

    fn count_events(&self, after: u64) -> Result<u64, StoreError> {
        self.store.count_events(after)
    }

    fn newest_record(&self) -> Result<u64, StoreError> {
        self.store.newest_record()
    }

    fn delivered(&self, webhook: &str) -> Result<u64, StoreError> {
        self.store.delivered(webhook)
    }

    fn set_delivered(&self, webhook: &str, event: u64) -> Result<(), StoreError> {
        self.store.set_delivered(webhook, event)
    }

    fn record(&self, id: u64) -> Result<Option<String>, StoreError> {
        self.store.record(id)
    }
}

/// A control plane without its servers.
struct Process {
    store: Arc<Dying>,
    ledger: Arc<Ledger>,
    controller: Controller,
}

impl Process {
    fn start(folder: &Path, gate: &Gate, dies_at: usize, after: bool) -> Self {
        let store = SqliteStore::open(&folder.join("halftone.db")).unwrap();
        let store = Arc::new(Dying { store, writes: AtomicUsize::new(0), dies_at, after });
        let limits = Limits { keep_days: 30, max_units: 100_000, keep_traces: 1_000 };
        let settings = ProxySettings::new("/filter.wasm");
        let (publisher, stored) = Publisher::start(store.clone(), gate.clone(), settings).unwrap();
        let ledger = Arc::new(Ledger::open(&folder.join("ledger.db"), limits, publisher.names()).unwrap());
        let controller =
            Controller::start(publisher, Nodes::new(), ledger.clone(), Gatekeeper::default(), None, stored)
                .unwrap();
        Self { store, ledger, controller }
    }
}

/// Goes on until the release is as far as it can get, or the store dies. What to do next follows from what is there, as
/// clients that try again do.
async fn go_on(process: &Process, sequence: &mut u64) -> bool {
    let Process { store, ledger, controller } = process;
    let publisher = controller.publisher();
    if publisher.current().rulesets.is_empty() {
        let put = publisher.put("digits", RULES.into(), Precondition::None, "test".into());
        if put.await.is_err() {
            return false;
        }
    }
    let put = controller.put("canary", RELEASE.into(), Precondition::None, "test".into()).await;
    if put.is_err() {
        return false;
    }
    for _ in 0..40 {
        controller.tick_all(&halftone_telemetry::trace::Tracer::none()).await;
        if store.is_dead() {
            return false;
        }
        let looked = controller.release("canary").unwrap();
        let status = &looked.status;
        if let Some(epoch) = status.epochs.last().filter(|epoch| epoch.until_ms.is_none()) {
            // Units that were seen before are recognised, so it may be reported again.
            // By their shares, as far as they are of the first step.
            let arms = [("v2", 0u64, 20), ("control", 1_000, 20), ("rest", 2_000, 160)].map(
                |(arm, first, count)| {
                    let request =
                        |unit| Request { unit: first + unit, time_ms: now_ms(), latency: Some(0.01) };
                    series(epoch.epoch, arm, &(1..=count).map(request).collect::<Vec<_>>())
                },
            );
            *sequence += 1;
            ledger.report(batch(1, *sequence, arms.to_vec())).unwrap().await.unwrap();
        }
        let command = match (status.phase, status.step) {
            (Phase::Running, 2) => Some(Command::Pause),
            (Phase::Paused, _) => Some(Command::Promote),
            (Phase::Promoted, _) => Some(Command::Rollback),
            _ => None,
        };
        if let Some(command) = command
            && controller.command("canary", command, None, "test".into()).await.is_err()
        {
            return false;
        }
        if status.phase == Phase::RolledBack {
            return true;
        }
    }
    panic!("it does not get on: {:?}", controller.release("canary").unwrap().status);
}

/// What was done, in order, with the revision that each action made.
fn actions(store: &dyn Store) -> Vec<(String, Option<u64>)> {
    let records = store.records(Some("canary"), None, 1_000).unwrap();
    let mut actions: Vec<(u64, String, Option<u64>)> = records
        .iter()
        .map(|record| {
            let record: serde_json::Value = serde_json::from_str(record).unwrap();
            let id = record["id"].as_str().unwrap().parse().unwrap();
            (id, record["action"].as_str().unwrap().to_owned(), record["revision"].as_u64())
        })
        .filter(|(_, action, _)| action != "note")
        .collect();
    actions.sort();
    actions.into_iter().map(|(_, action, revision)| (action, revision)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_repeats_and_loses_nothing() {
    let gate = Gate::new(&std::fs::read(Paths::find().unwrap().filter).unwrap()).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let process = Process::start(whole.path(), &gate, usize::MAX, false);
    assert!(go_on(&process, &mut 0).await);
    let wanted = actions(&*process.store);
    let names: Vec<&str> = wanted.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(names, ["create", "start", "widen", "widen", "pause", "promote", "rollback"]);
    let writes = process.store.writes.load(SeqCst);
    for dies_at in 0..writes {
        for after in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut sequence = 0;
            let process = Process::start(folder.path(), &gate, dies_at, after);
            let finished = go_on(&process, &mut sequence).await;
            drop(process);
            let process = Process::start(folder.path(), &gate, usize::MAX, false);
            assert!(finished || go_on(&process, &mut sequence).await);
            assert_eq!(actions(&*process.store), wanted, "it died at write {dies_at}, after it: {after}");
            let revisions = process.store.revisions(None, 100).unwrap();
            assert_eq!(revisions.len(), 6, "the text, four allocations, and none: {revisions:?}");
        }
    }
}
