//! What a bad module can do, and what is said about it.

use crate::wat_filter::{NONE, WatFilter, said};
use halftone_filter_host::{FilterModule, HostError, Settings};

#[test]
fn a_trap_is_an_error_with_the_last_log_line_and_the_instance_stays_down() {
    let mut filter = WatFilter {
        items: r#"(data (i32.const 0) "panicked at rules.rs:1:1\nno")"#,
        request: "(drop (call $log (i32.const 5) (i32.const 0) (i32.const 27))) unreachable",
        ..WatFilter::default()
    }
    .running();
    let error = filter.request(NONE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the filter module trapped in proxy_on_request_headers: wasm trap: wasm `unreachable` instruction executed; \
         its last log line: panicked at rules.rs:1:1 no"
    );
    assert!(matches!(filter.request(NONE), Err(HostError::Failed)));
    assert!(matches!(filter.configure(b""), Err(HostError::Failed)));
    assert_eq!(filter.take_logs().len(), 1);
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let module = WatFilter { configure: "(loop (br 0)) (i32.const 1)", ..WatFilter::default() }.module();
    let error = module.check(b"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the filter module used more than 50000000 units of fuel in proxy_on_configure"
    );
}

#[test]
fn an_endless_loop_in_the_allocator_too() {
    let mut filter = WatFilter {
        imports: r#"(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))"#,
        request: "(call $pairs (i32.const 0) (i32.const 0) (i32.const 4))",
        allocate: "(loop (br 0)) (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    let error = filter.request(&[("a", "b")]).unwrap_err();
    assert!(matches!(error, HostError::OutOfFuel { callback: "proxy_on_request_headers", .. }), "{error}");
}

#[test]
fn an_endless_loop_of_logging_neither_hangs_nor_fills_the_memory() {
    let module = WatFilter {
        configure: "(loop (drop (call $log (i32.const 2) (i32.const 0) (i32.const 65535))) (br 0)) (i32.const 1)",
        ..WatFilter::default()
    }
    .module();
    let mut filter = module.start().unwrap();
    filter.settings_mut().fuel_per_call = 5_000_000;
    let error = filter.configure(b"").unwrap_err();
    assert!(matches!(error, HostError::OutOfFuel { budget: 5_000_000, .. }));
    assert_eq!(filter.take_logs().len(), 1024);
}

#[test]
fn endless_recursion_is_a_trap() {
    let module = WatFilter {
        items: "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))",
        configure: "(call $deeper (i32.const 0))",
        ..WatFilter::default()
    }
    .module();
    let error = module.check(b"").unwrap_err().to_string();
    assert!(error.ends_with("call stack exhausted"), "{error}");
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    // 16 MiB are fine, 64 MiB more are not; the module sees -1 and lives.
    let mut filter = WatFilter {
        request: "
            (call $say (i32.gt_s (memory.grow (i32.const 256)) (i32.const 0)))
            (call $say (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.request(NONE).unwrap();
    assert_eq!(said(&mut filter), [1, 1]);
}

#[test]
fn a_trap_after_refused_memory_says_so() {
    let module = WatFilter {
        configure: "(if (i32.lt_s (memory.grow (i32.const 65532)) (i32.const 0)) (then unreachable)) (i32.const 1)",
        ..WatFilter::default()
    }
    .module();
    let error = module.check(b"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the filter module asked for 4294967296 bytes of memory in proxy_on_configure; it may have 67108864"
    );
}

#[test]
fn a_module_that_starts_too_large_does_not_start() {
    let settings = Settings { memory_limit: 1 << 16, ..Settings::default() };
    let error = WatFilter::default().module().start_with(settings).unwrap_err();
    assert!(matches!(error, HostError::MemoryLimit { requested: 0x4_0000, limit: 0x1_0000, .. }), "{error}");
}

#[test]
fn unknown_imports_are_named() {
    let error =
        WatFilter { imports: r#"(import "env" "proxy_dance" (func (result i32)))"#, ..WatFilter::default() }
            .refused();
    assert_eq!(
        error.to_string(),
        "the filter module imports `env.proxy_dance`, which this host does not have"
    );
    let error =
        WatFilter { imports: r#"(import "wbindgen" "x" (global i32))"#, ..WatFilter::default() }.refused();
    assert!(matches!(error, HostError::UnknownImport { .. }));
}

#[test]
fn imports_under_another_signature_are_named() {
    for import in [
        r#"(import "env" "proxy_done" (func (param i32) (result i32)))"#,
        r#"(import "env" "proxy_done" (global i32))"#,
    ] {
        let error = WatFilter { imports: import, ..WatFilter::default() }.refused();
        assert!(matches!(error, HostError::WrongImport(_)));
        assert!(error.to_string().contains("proxy_done"), "{error}");
    }
}

#[test]
fn bytes_that_are_no_module_do_not_compile() {
    for bytes in [&b""[..], b"\0asm", b"not wasm at all", b"(module)"] {
        let error = FilterModule::new(bytes).unwrap_err();
        assert!(matches!(error, HostError::Compile(_)), "{error}");
    }
}

#[test]
fn missing_and_mistyped_exports_are_named() {
    let whole = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 0))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
    let error = |text: &str| FilterModule::new(&wat::parse_str(text).unwrap()).unwrap_err().to_string();
    FilterModule::new(&wat::parse_str(whole).unwrap()).unwrap().check(b"").unwrap();
    for (export, named) in [
        ("memory", "memory"),
        ("proxy_abi_version_0_2_1", "proxy_abi_version_0_2_1"),
        ("malloc", "proxy_on_memory_allocate"),
        ("proxy_on_context_create", "proxy_on_context_create"),
        ("proxy_on_configure", "proxy_on_configure"),
        ("proxy_on_request_headers", "proxy_on_request_headers"),
    ] {
        let without = whole.replace(&format!("\"{export}\""), "\"other\"");
        assert_eq!(error(&without), format!("the filter module does not export `{named}`"));
    }
    let mistyped =
        whole.replace("\"proxy_on_configure\") (param i32 i32)", "\"proxy_on_configure\") (param i64)");
    assert_eq!(
        error(&mistyped),
        "the filter module exports `proxy_on_configure` with another signature than `(i32, i32) -> (i32)`"
    );
}

#[test]
fn leaving_the_process_is_a_trap() {
    let error = WatFilter {
        imports: r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#,
        configure: "(call $exit (i32.const 3)) (i32.const 1)",
        ..WatFilter::default()
    }
    .module()
    .check(b"")
    .unwrap_err();
    assert_eq!(error.to_string(), "the filter module trapped in proxy_on_configure: it called proc_exit(3)");
}

#[test]
fn bad_pointers_are_answered_and_not_followed() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#,
        items: r#"(data (i32.const 0) "a")"#,
        request: "
            (call $say (call $log (i32.const 2) (i32.const 262143) (i32.const 2)))
            (call $say (call $log (i32.const 2) (i32.const -1) (i32.const -1)))
            (call $say (call $log (i32.const 6) (i32.const 0) (i32.const 0)))
            (call $say (call $get (i32.const 0) (i32.const -1) (i32.const 1) (i32.const 8) (i32.const 12)))
            (call $say (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const -4) (i32.const 12)))
            (call $say (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 262142)))
            (call $say (call $now (i32.const 262137)))
            (call $say (call $now (i32.const 262136)))
            (call $say (call $random (i32.const 262143) (i32.const 2)))
            (call $say (call $write (i32.const 1) (i32.const 262140) (i32.const 1) (i32.const 8)))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.request(&[("a", "b")]).unwrap();
    assert_eq!(said(&mut filter), [6, 6, 2, 6, 6, 6, 6, 0, 21, 21]);
}

#[test]
fn an_allocator_that_fails_or_lies_is_answered() {
    for address in ["(i32.const 0)", "(i32.const 262143)", "(i32.const -1)"] {
        let mut filter = WatFilter {
            imports: r#"(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))"#,
            request: "(call $say (call $pairs (i32.const 0) (i32.const 0) (i32.const 4))) (i32.const 0)",
            allocate: address,
            ..WatFilter::default()
        }
        .running();
        filter.request(&[("a", "b")]).unwrap();
        assert_eq!(said(&mut filter), [6], "{address}");
    }
}
