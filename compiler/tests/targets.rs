//! How a target is spoken to, as rulesets write it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{
    Code, Diagnostic, compile,
    target::{
        Concurrency, HealthCheck, Limits, OutlierDetection, Probe, Protocol, Retries, RetryOn, TargetSettings,
    },
};
use std::time::Duration;

/// A ruleset with one target.
fn ruleset(settings: &str) -> String {
    format!(
        "version: v1\ntargets: {{t: {{endpoints: [\"127.0.0.1:1\"], {settings}}}}}\ndefault: t\nrules: []\n"
    )
}

fn settings(text: &str) -> TargetSettings {
    compile(&ruleset(text), "r").unwrap().targets.remove(0).settings
}

/// The code of the only problem, and the part of the text that it marks.
#[track_caller]
fn problem(text: &str) -> (Code, String) {
    let found = match compile(text, "r") {
        Ok(compiled) => compiled.warnings,
        Err(diagnostics) => diagnostics,
    };
    let [Diagnostic { code, place, .. }] = found.as_slice() else { panic!("{text}: {found:?}") };
    let line = text.lines().nth(place.line - 1).unwrap();
    let marked = line.chars().take(place.end_column - 1).skip(place.column - 1);
    (*code, marked.collect())
}

#[test]
fn a_target_that_says_nothing_has_the_defaults() {
    let bare = "version: v1\ntargets: {t: {endpoints: [\"127.0.0.1:1\"]}}\ndefault: t\nrules: []\n";
    let compiled = compile(bare, "r").unwrap();
    assert_eq!(compiled.targets[0].settings, TargetSettings::default());
    assert_eq!(TargetSettings::default().timeout, Duration::from_secs(15));
    assert_eq!(compiled.warnings, []);
}

#[test]
fn everything_that_is_written_is_taken() {
    let found = settings(
        "protocol: same-as-client, timeout: 1m30s, \
         retries: {attempts: 2, on: [connect-failure, 5xx, 429], per_try_timeout: 500ms}, \
         health_check: {grpc: a.B, interval: 10s, timeout: 2s, healthy_after: 4, unhealthy_after: 5}, \
         outlier_detection: {consecutive_5xx: 6, base_ejection: 1h, max_ejected: 0.29}, \
         limits: {connections: 7, pending: 8, requests: 9, per_endpoint: {requests: 10}}",
    );
    let expected = TargetSettings {
        protocol: Protocol::SameAsClient,
        timeout: Duration::from_secs(90),
        retries: Retries {
            attempts: 2,
            on: vec![RetryOn::ConnectFailure, RetryOn::ServerError, RetryOn::Status(429)],
            per_try_timeout: Some(Duration::from_millis(500)),
        },
        health_check: Some(HealthCheck {
            probe: Probe::Grpc("a.B".into()),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy_after: 4,
            unhealthy_after: 5,
        }),
        outlier_detection: OutlierDetection {
            consecutive_5xx: Some(6),
            base_ejection: Duration::from_secs(3600),
            max_ejected: 29,
        },
        limits: Limits {
            total: Concurrency { connections: Some(7), pending: Some(8), requests: Some(9) },
            per_endpoint: Concurrency { requests: Some(10), ..Concurrency::default() },
        },
    };
    assert_eq!(found, expected);

    let found = settings("timeout: 0, health_check: {path: /ready}").health_check.unwrap();
    assert_eq!(found.probe, Probe::Http("/ready".into()));
    assert_eq!((found.interval, found.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
}

#[test]
fn what_proxies_would_not_take_is_an_error_with_a_place() {
    for (settings, code, marked) in [
        ("timeout: 15", Code::OutOfRange, "15"),
        ("timeout: soon", Code::OutOfRange, "soon"),
        ("timeout: -1s", Code::OutOfRange, "-1s"),
        ("timeout: 25h", Code::OutOfRange, "25h"),
        // A proxy would cut it off, and 0 is without limit.
        ("timeout: 100us", Code::OutOfRange, "100us"),
        ("timeout: [1s]", Code::WrongForm, "[1s]"),
        ("timeuot: 1s", Code::UnknownField, "timeuot"),
        ("protocol: grpc", Code::WrongForm, "grpc"),
        ("retries: {attempts: 11}", Code::OutOfRange, "11"),
        ("retries: {attempts: many}", Code::OutOfRange, "many"),
        ("retries: {on: [conect-failure]}", Code::WrongForm, "conect-failure"),
        ("retries: {on: [retriable-status-codes]}", Code::WrongForm, "retriable-status-codes"),
        ("retries: {on: [200]}", Code::WrongForm, "200"),
        ("retries: {on: [600]}", Code::WrongForm, "600"),
        ("retries: {on: []}", Code::WrongForm, "[]"),
        ("retries: {on: [429, 429]}", Code::DuplicateName, "429"),
        ("retries: {per_try_timeout: 0s}", Code::OutOfRange, "0s"),
        ("health_check: {}", Code::MissingField, ""),
        ("health_check: {path: /a, grpc: b}", Code::WrongForm, "b"),
        ("health_check: {path: ready}", Code::WrongForm, "ready"),
        ("health_check: {path: \"/a b\"}", Code::WrongForm, "\"/a b\""),
        ("health_check: {path: /a, interval: 1ms}", Code::OutOfRange, "1ms"),
        ("health_check: {path: /a, timeout: 0s}", Code::OutOfRange, "0s"),
        ("health_check: {path: /a, healthy_after: 0}", Code::OutOfRange, "0"),
        ("health_check: {grpc: a.B}", Code::WrongForm, "a.B"),
        ("protocol: http2, health_check: {grpc: \"a b\"}", Code::WrongForm, "\"a b\""),
        ("outlier_detection: {consecutive_5xx: 0}", Code::OutOfRange, "0"),
        ("outlier_detection: {base_ejection: 0s}", Code::OutOfRange, "0s"),
        ("outlier_detection: {max_ejected: 50%}", Code::WeightOutOfRange, "50%"),
        ("outlier_detection: {max_ejected: 0.005}", Code::OutOfRange, "0.005"),
        ("limits: {requests: 0}", Code::OutOfRange, "0"),
        ("limits: {requests: 1000001}", Code::OutOfRange, "1000001"),
        ("limits: {per_endpoint: {request: 1}}", Code::UnknownField, "request"),
        ("limits: {retries: 1}", Code::UnknownField, "retries"),
    ] {
        assert_eq!(problem(&ruleset(settings)), (code, marked.to_owned()), "{settings}");
    }
}

#[test]
fn what_will_surprise_is_a_warning() {
    for (settings, code, marked) in [
        ("retries: {on: [connect-failure, 5xx]}", Code::UnsafeRetry, "5xx"),
        ("retries: {on: [503]}", Code::UnsafeRetry, "503"),
        ("retries: {attempts: 0, on: [5xx]}", Code::NoEffect, "5xx"),
        ("retries: {per_try_timeout: 15s}", Code::NoEffect, "15s"),
        ("retries: {per_try_timeout: 1s}", Code::NoEffect, "1s"),
        ("outlier_detection: {consecutive_5xx: 5, max_ejected: 0}", Code::NoEffect, "5"),
    ] {
        assert_eq!(problem(&ruleset(settings)), (code, marked.to_owned()), "{settings}");
    }
    // 429 says that nothing was done.
    assert_eq!(compile(&ruleset("retries: {on: [429, refused-stream]}"), "r").unwrap().warnings, []);
    let elsewhere = "version: v1\ntargets: {t: {protocol: http2, timeout: 1s}}\ndefault: t\nrules: []\n";
    assert_eq!(problem(elsewhere), (Code::NoEffect, "protocol".into()));
}

#[test]
fn settings_are_given_by_what_they_are_meant_to_be() {
    let help =
        |settings: &str| compile(&ruleset(settings), "r").unwrap_err()[0].help.clone().unwrap_or_default();
    assert_eq!(help("timeuot: 1s"), "did you mean `timeout`?");
    assert_eq!(help("timeout: 15"), "write 15s if seconds are meant, 15ms if milliseconds");
    assert_eq!(help("retries: {on: [conect-failure]}"), "did you mean `connect-failure`?");
    assert_eq!(help("outlier_detection: {max_ejected: 50%}"), "write 0.5");
}
