//! A bundle that the filter would refuse never leaves: the gate, on the real filter module and on
//! modules that are broken on purpose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, link};
use halftone_control_plane::{
    gate::{Gate, GateError},
    publisher::{PublishError, Publisher},
    store::SqliteStore,
    xds::ProxySettings,
};
use halftone_rules::codec;
use halftone_tests::Paths;
use std::sync::Arc;

/// The module that `scripts/build.sh` makes.
fn filter() -> Vec<u8> {
    std::fs::read(Paths::find().unwrap().filter).unwrap()
}

fn bundle() -> Vec<u8> {
    let ruleset =
        "version: v1\nrules:\n  - {name: canary, condition: user.id > 0, weight: 0.5, target: v2}\n";
    codec::encode(&link(3, [&compile(ruleset, "digits").unwrap()]).unwrap()).unwrap()
}

/// A module with the ABI's exports whose `on_configure` and `on_request_headers` do as told.
fn module(on_configure: &str, on_request_headers: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_configure") (param i32 i32) (result i32) {on_configure})
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {on_request_headers})
        )"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn a_good_bundle_passes_and_a_damaged_one_is_refused_with_the_filters_reason() {
    let gate = Gate::new(&filter()).unwrap();
    let good = bundle();
    gate.check(&good).unwrap();
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    let refused = gate.check(&damaged).unwrap_err();
    assert!(matches!(&refused, GateError::Refused(reason) if reason.contains("content hash")), "{refused}");
    let refused = gate.check(&good[..good.len() - 1]).unwrap_err();
    assert!(matches!(&refused, GateError::Refused(reason) if reason.contains("truncated")), "{refused}");
}

#[test]
fn a_filter_that_fails_on_a_bundle_stops_it() {
    let check =
        |on_configure, on_request| Gate::new(&module(on_configure, on_request)).unwrap().check(&bundle());
    assert!(matches!(check("i32.const 0", "i32.const 0"), Err(GateError::Refused(_))));
    assert!(matches!(check("unreachable", "i32.const 0"), Err(GateError::Failed(_))));
    assert!(matches!(check("(loop br 0) i32.const 1", "i32.const 0"), Err(GateError::TooLarge)));
    assert!(matches!(check("i32.const 1", "unreachable"), Err(GateError::Failed(_))));
    // It takes the bundle, but lets the spoofed target pass, or holds the request.
    assert!(matches!(check("i32.const 1", "i32.const 0"), Err(GateError::Stopped)));
    assert!(matches!(check("i32.const 1", "i32.const 1"), Err(GateError::Stopped)));
    assert!(Gate::new(b"\0asm\x01\0\0\0").is_err(), "an empty module is no filter");
}

#[tokio::test]
async fn what_the_gate_stops_is_neither_kept_nor_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Arc::new(SqliteStore::open(&folder.path().join("halftone.db")).unwrap());
    let settings = || ProxySettings::new("/filter.wasm");
    let refusing = Gate::new(&module("i32.const 0", "i32.const 0")).unwrap();
    let refused = Publisher::start(store(), refusing, settings());
    assert!(matches!(refused, Err(PublishError::Gate(_))));

    let (publisher, _) = Publisher::start(store(), Gate::new(&filter()).unwrap(), settings()).unwrap();
    let resources = publisher.resources();
    let invalid = "version: v1\nrules:\n  - {name: a, condition: user.id > 'x', target: v2}\n";
    let precondition = halftone_control_plane::publisher::Precondition::None;
    let refused = publisher.put("digits", invalid.into(), precondition, "test".into()).await;
    assert!(matches!(refused, Err(PublishError::Invalid(_))));
    assert!(!resources.has_changed().unwrap());
    assert_eq!(publisher.current().revision, 0);
    assert!(publisher.revisions(None, 10).await.unwrap().is_empty());
}
