//! What a request costs.

use crate::wat_filter::{NONE, WatFilter};

const ECHO: WatFilter = WatFilter {
    imports: r#"
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))"#,
    items: r#"(data (i32.const 0) "a")"#,
    create: "",
    vm_start: "(i32.const 1)",
    configure: "(i32.const 1)",
    request: "
        (drop (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12)))
        (drop (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12)))
        (call $replace (i32.const 0) (i32.const 0) (i32.const 1) (i32.load (i32.const 8)) (i32.load (i32.const 12)))",
    response: "(i32.const 0)",
    log: "",
    delete: "",
    allocate: "(i32.const 65536)",
};

#[test]
fn host_calls_are_counted_in_order() {
    let mut filter = ECHO.running();
    let usage = filter.request(&[("a", "b")]).unwrap().usage;
    let get = "proxy_get_header_map_value";
    assert_eq!(usage.calls(), [get, get, "proxy_replace_header_map_value"]);
    assert_eq!((usage.host_calls(), usage.count(get), usage.count("proxy_log")), (3, 2, 0));
    assert_eq!(usage.allocations, 2);
    // Create, request headers, log, delete; the filter has no `proxy_on_done`.
    assert_eq!(usage.callbacks, 4);
}

#[test]
fn the_same_request_costs_the_same_fuel() {
    let mut filter = ECHO.running();
    let mut fuel = |value: &str| filter.request(&[("a", value)]).unwrap().usage.fuel;
    let small = fuel("b");
    assert!((10..100).contains(&small), "{small}");
    assert_eq!(fuel("b"), small);
    assert_eq!(fuel(&"b".repeat(4096)), small);
    // Beyond 4 KiB the host charges for its own work: here two copies in and one out.
    assert_eq!(fuel(&"b".repeat(4096 + 1600)), small + 300);
}

#[test]
fn each_operation_is_accounted_for_alone() {
    let mut filter = ECHO.running();
    filter.request(&[("a", "b")]).unwrap();
    filter.configure(b"").unwrap();
    assert_eq!(filter.usage().host_calls(), 0);
    assert!(filter.usage().fuel > 0);
    assert_eq!(filter.request(NONE).unwrap().usage.host_calls(), 3);
}

#[test]
fn large_copies_use_up_the_budget() {
    let mut filter = WatFilter {
        imports: r#"(import "env" "proxy_get_buffer_bytes"
            (func $buffer (param i32 i32 i32 i32 i32) (result i32)))"#,
        request: "
            (loop (drop (call $buffer (i32.const 7) (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 4)))
                (br 0))
            (i32.const 0)",
        allocate: "(i32.const 65536)",
        ..WatFilter::default()
    }
    .running();
    filter.configure(&vec![0; 1 << 16]).unwrap();
    filter.settings_mut().fuel_per_call = 10_000_000;
    filter.request(NONE).unwrap_err();
    // Each copy costs about 3900 units; without the charge there would have been half a million.
    assert!(filter.usage().host_calls() < 3000);
}
