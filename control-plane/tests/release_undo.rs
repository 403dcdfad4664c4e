//! What is taken back because every proxy refused it, and what that means to releases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_control_plane::{
    gate::Gate,
    hooks::Gatekeeper,
    ledger::{Ledger, Limits},
    publisher::Publisher,
    release::{Command, Controller, Precondition},
    store::{Action, SqliteStore},
    xds::{Nodes, ProxySettings},
};
use halftone_telemetry::trace::Tracer;
use halftone_tests::Paths;
use std::{path::Path, sync::Arc};

fn rules(default: &str) -> String {
    format!(
        "version: v1\ntargets: {{v1: {{endpoints: [\"127.0.0.1:1\"]}}, v2: {{endpoints: [\"127.0.0.1:2\"]}}}}\n\
         default: {default}\nrules: []\n"
    )
}

fn start(folder: &Path) -> (Publisher, Controller) {
    let store = Arc::new(SqliteStore::open(&folder.join("halftone.db")).unwrap());
    let gate = Gate::new(&std::fs::read(Paths::find().unwrap().filter).unwrap()).unwrap();
    let (publisher, stored) = Publisher::start(store, gate, ProxySettings::new("/filter.wasm")).unwrap();
    let limits = Limits { keep_days: 30, max_units: 1_000, keep_traces: 1_000 };
    let ledger = Arc::new(Ledger::open(&folder.join("ledger.db"), limits, publisher.names()).unwrap());
    let controller =
        Controller::start(publisher.clone(), Nodes::new(), ledger, Gatekeeper::default(), None, stored)
            .unwrap();
    (publisher, controller)
}

async fn put(publisher: &Publisher, default: &str) -> u64 {
    let put = publisher.put("digits", rules(default), Precondition::None, "test".into());
    put.await.unwrap().revision
}

/// As when proxies refuse everything for a while, and somebody tries again and again.
#[tokio::test]
async fn what_was_taken_back_is_not_taken_back_again() {
    let folder = tempfile::tempdir().unwrap();
    let (publisher, _controller) = start(folder.path());
    let good = put(&publisher, "v1").await;
    for tries in 1..=8u64 {
        let refused = put(&publisher, "v2").await;
        let undone = publisher.roll_back(refused, good).await.unwrap();
        assert_eq!(undone, Some(refused + 1), "one revision takes it back, at try {tries}");
        assert_eq!(publisher.current().rulesets["digits"].stored.content.source, rules("v1"));
    }
    let revisions = publisher.revisions(None, 100).await.unwrap();
    assert_eq!(revisions.len(), 17);
    assert_eq!(revisions.iter().filter(|of| of.action == Action::Rollback).count(), 8);
}

#[tokio::test]
async fn a_deleted_release_that_comes_back_with_a_revision_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let (publisher, controller) = start(folder.path());
    put(&publisher, "v1").await;
    let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";
    controller.put("canary", text.into(), Precondition::None, "test".into()).await.unwrap();
    controller.tick_all(&Tracer::none()).await;
    let taken = publisher.current().revision;
    let releases = || {
        let of = &publisher.current().rulesets["digits"].stored.content.releases;
        of.iter().map(|release| release.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(releases(), ["canary"]);
    controller.command("canary", Command::Abort, None, "test".into()).await.unwrap();
    controller.delete("canary", Precondition::None, false, "test".into()).await.unwrap();
    assert_eq!(releases(), Vec::<String>::new());
    let refused = publisher.current().revision;
    publisher.roll_back(refused, taken).await.unwrap();
    assert_eq!(releases(), ["canary"], "the revision before had it");
    controller.tick_all(&Tracer::none()).await;
    assert_eq!(releases(), Vec::<String>::new());
}
