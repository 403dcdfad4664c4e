//! The life of a filter, and what it finds in it: clock, randomness, properties, metrics, shared data, standard output.

use crate::wat_filter::{NONE, WatFilter, said};
use halftone_filter_host::{LogLevel, LogLine, Settings};

/// Logs eight bytes as they are in memory.
const RAW: &str = r#"
    (func $raw (param $address i32) (drop (call $log (i32.const 2) (local.get $address) (i32.const 8))))"#;

#[test]
fn the_clock_stands_where_it_was_put() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $wasi_now (param i32 i64 i32) (result i32)))"#,
        items: RAW,
        request: "
            (drop (call $now (i32.const 0))) (call $raw (i32.const 0))
            (drop (call $wasi_now (i32.const 0) (i64.const 1) (i32.const 8))) (call $raw (i32.const 8))
            (call $say (call $wasi_now (i32.const 2) (i64.const 1) (i32.const 8)))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.settings_mut().now_ns = u64::from_le_bytes(*b"morning!");
    filter.request(NONE).unwrap();
    filter.settings_mut().now_ns = u64::from_le_bytes(*b"evening!");
    filter.request(NONE).unwrap();
    let lines: Vec<_> = filter.take_logs().into_iter().map(|line| line.message).collect();
    assert_eq!(lines, ["morning!", "morning!", "j", "evening!", "evening!", "j"]);
}

#[test]
fn randomness_repeats_from_the_same_seed() {
    let filter = WatFilter {
        imports: r#"
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))"#,
        items: r#"(data (i32.const 32) "r")"#,
        request: "
            (drop (call $random (i32.const 0) (i32.const 16)))
            (call $add (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 0) (i32.const 16))",
        ..WatFilter::default()
    };
    let mut filter = filter.running();
    let mut draw = |seed: Option<u64>| {
        if let Some(seed) = seed {
            filter.set_seed(seed);
        }
        filter.request(NONE).unwrap().request_header("r").unwrap().to_vec()
    };
    let (first, second) = (draw(None), draw(None));
    assert_ne!(first, second);
    assert_eq!((draw(Some(0)), draw(None)), (first.clone(), second));
    assert_ne!(draw(Some(1)), first);
}

#[test]
fn properties_come_from_the_settings_and_from_the_filter_itself() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))"#,
        items: r#"
            (data (i32.const 0) "source\00port") (data (i32.const 16) "mine") (data (i32.const 32) "12345678")
            (func $show (result i32)
                (drop (call $log (i32.const 2) (i32.load (i32.const 48)) (i32.load (i32.const 52)))) (i32.const 0))"#,
        vm_start: "
            (call $say (call $set (i32.const 16) (i32.const 4) (i32.const 32) (i32.const 8))) (i32.const 1)",
        request: "
            (call $say (call $get (i32.const 16) (i32.const 4) (i32.const 48) (i32.const 52)))
            (call $say (call $set (i32.const 16) (i32.const 4) (i32.const 32) (i32.const 8)))
            (call $say (call $get (i32.const 16) (i32.const 4) (i32.const 48) (i32.const 52)))
            (drop (call $show))
            (call $say (call $get (i32.const 0) (i32.const 11) (i32.const 48) (i32.const 52)))
            (call $show)",
        ..WatFilter::default()
    }
    .running();
    assert_eq!(said(&mut filter), [1]);
    filter.settings_mut().set_property(&["source", "port"], b"9");
    for _ in 0..2 {
        // What was published goes with its stream.
        let outcome = filter.request(NONE).unwrap();
        let lines: Vec<_> = filter.take_logs().into_iter().map(|line| line.message).collect();
        assert_eq!(lines, ["1", "0", "0", "12345678", "0", "9"]);
        assert_eq!(outcome.properties, [(b"mine".to_vec(), b"12345678".to_vec())]);
    }
}

const METRICS: WatFilter = WatFilter {
    imports: r#"
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))"#,
    items: r#"(data (i32.const 0) "revision") (data (i32.const 16) "seen")"#,
    create: "",
    vm_start: "
        (call $say (call $define (i32.const 1) (i32.const 0) (i32.const 8) (i32.const 32)))
        (call $say (call $define (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 36)))
        (i32.const 1)",
    configure: "(drop (call $record (i32.load (i32.const 32)) (i64.const 42))) (i32.const 1)",
    request: "(call $increment (i32.load (i32.const 36)) (i64.const 1))",
    response: "(i32.const 0)",
    log: "",
    delete: "",
    allocate: "(i32.const 0)",
};

#[test]
fn metrics_can_be_read_by_name() {
    let mut filter = METRICS.running();
    for _ in 0..3 {
        filter.request(NONE).unwrap();
    }
    assert_eq!((filter.metric("revision"), filter.metric("seen")), (Some(42), Some(3)));
    assert_eq!(filter.metric("unseen"), None);
}

#[test]
fn host_functions_can_be_taken_away() {
    let mut settings = Settings::default();
    settings.unimplemented.insert("proxy_define_metric".into());
    let mut filter = METRICS.module().start_with(settings).unwrap();
    assert_eq!(said(&mut filter), [12, 12]);
    assert_eq!(filter.usage().count("proxy_define_metric"), 2);
    assert_eq!(filter.metric("revision"), None);
}

#[test]
fn shared_data_is_replaced_by_version() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))"#,
        items: r#"(data (i32.const 0) "k")
            (func $get_k (result i32)
                (call $get (i32.const 0) (i32.const 1) (i32.const 48) (i32.const 52) (i32.const 56)))
            (func $set_k (param $cas i32) (result i32)
                (call $set (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (local.get $cas)))"#,
        request: "
            (call $say (call $get_k))
            (call $say (call $set_k (i32.const 0)))
            (call $say (call $get_k))
            (call $say (call $set_k (i32.add (i32.load (i32.const 56)) (i32.const 1))))
            (call $say (call $set_k (i32.load (i32.const 56))))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.request(NONE).unwrap();
    assert_eq!(said(&mut filter), [1, 0, 0, 8, 0]);
}

#[test]
fn what_only_a_proxy_can_do_is_unimplemented() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_http_call"
                (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))"#,
        items: r#"(data (i32.const 0) "clear_route_cache")"#,
        configure: "
            (call $say (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (call $say (call $foreign (i32.const 0) (i32.const 17) (i32.const 0) (i32.const 0) (i32.const 32)
                (i32.const 36)))
            (call $say (call $foreign (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 32)
                (i32.const 36)))
            (call $say (call $tick (i32.const 5000)))
            (i32.const 1)",
        ..WatFilter::default()
    }
    .running();
    assert_eq!(said(&mut filter), [12, 0, 1, 0]);
    assert_eq!(filter.tick_period_ms(), 5000);
}

#[test]
fn standard_output_and_error_are_log_lines() {
    let mut filter = WatFilter {
        imports: r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#,
        items: r#"(data (i32.const 0) "hello, ") (data (i32.const 8) "world\n")
            (data (i32.const 32) "\00\00\00\00\07\00\00\00\08\00\00\00\06\00\00\00")"#,
        request: "
            (call $say (call $write (i32.const 1) (i32.const 32) (i32.const 2) (i32.const 64)))
            (call $say (i32.load (i32.const 64)))
            (call $say (call $write (i32.const 2) (i32.const 40) (i32.const 1) (i32.const 64)))
            (call $say (call $write (i32.const 3) (i32.const 32) (i32.const 2) (i32.const 64)))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.request(NONE).unwrap();
    let line = |level, message: &str| LogLine { level, message: message.into() };
    let expected = [
        line(LogLevel::Info, "hello, world"),
        line(LogLevel::Info, "0"),
        line(LogLevel::Info, "="), // 13 bytes written
        line(LogLevel::Error, "world"),
        line(LogLevel::Info, "0"),
        line(LogLevel::Info, "8"),
    ];
    assert_eq!(filter.take_logs(), expected);
}

#[test]
fn a_reactor_is_initialised_and_a_command_is_started() {
    let reactor = r#"
        (func (export "main") (param i32 i32) (result i32) (call $say (i32.const 2)) (i32.const 0))
        (func (export "_start") (call $say (i32.const 3)))
        (func (export "_initialize") (call $say (i32.const 1)))"#;
    let mut filter = WatFilter { items: reactor, ..WatFilter::default() }.running();
    assert_eq!(said(&mut filter), [1, 2]);
    let command = r#"(func (export "_start") (call $say (i32.const 3)))"#;
    let mut filter = WatFilter { items: command, ..WatFilter::default() }.running();
    assert_eq!(said(&mut filter), [3]);
}

#[test]
fn a_stream_ends_with_log_done_and_delete() {
    let mut filter = WatFilter {
        items: r#"(func (export "proxy_on_done") (param i32) (result i32) (call $say (i32.const 4)) (i32.const 0))"#,
        create: "(call $say (i32.const 0))",
        request: "(call $say (local.get $count)) (i32.const 0)",
        response: "(call $say (local.get $count)) (i32.const 0)",
        log: "(call $say (i32.const 3))",
        delete: "(call $say (i32.const 5))",
        ..WatFilter::default()
    }
    .running();
    filter.take_logs();
    filter.request_with_response(&[("a", "b")], &[("c", "d"), ("e", "f")]).unwrap();
    assert_eq!(said(&mut filter), [0, 1, 2, 3, 4, 5]);
}
