//! Header maps: where they are, what is read, what a change does.

use crate::wat_filter::{NONE, WatFilter, said};
use halftone_filter_host::Action;

const IMPORTS: &str = r#"
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_size" (func $map_size (param i32 i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
"#;

/// Names at 0 and 16, a value at 32; answers go to 48 (address) and 52 (size).
const ITEMS: &str = r#"
    (data (i32.const 0) "X-In")
    (data (i32.const 16) "X-Out")
    (data (i32.const 32) "fresh")
    (func $get_in (param $map i32) (result i32)
        (call $get (local.get $map) (i32.const 0) (i32.const 4) (i32.const 48) (i32.const 52)))
    (func $set_out (param $map i32) (result i32)
        (call $replace (local.get $map) (i32.const 16) (i32.const 5) (i32.load (i32.const 48))
            (i32.load (i32.const 52))))"#;

fn filter() -> WatFilter {
    WatFilter { imports: IMPORTS, items: ITEMS, ..WatFilter::default() }
}

#[test]
fn a_value_is_read_and_a_header_replaced() {
    let mut filter = WatFilter {
        request: "(call $say (call $get_in (i32.const 0))) (call $say (call $set_out (i32.const 0))) (i32.const 0)",
        ..filter()
    }
    .running();
    let headers: [(&[u8], &[u8]); 4] =
        [(b"X-OUT", b"old"), (b"x-in", b"\xFF\0"), (b"x-In", b"second"), (b"x-out", b"older")];
    let outcome = filter.request(&headers).unwrap();
    assert_eq!(said(&mut filter), [0, 0]);
    assert_eq!(outcome.action, Action::Continue);
    assert_eq!(outcome.request_header("x-out"), Some(&b"\xFF\0"[..]));
    let names: Vec<_> = outcome.request_headers.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, [b"x-in", b"x-in", &b"x-out"[..]]);
}

#[test]
fn an_absent_header_is_not_found_and_an_empty_one_is() {
    let mut filter = WatFilter {
        request: "
            (i32.store (i32.const 48) (i32.const 77))
            (call $say (call $get_in (i32.const 0)))
            (call $say (i32.eq (i32.load (i32.const 48)) (i32.const 77)))
            (i32.const 0)",
        ..filter()
    }
    .running();
    filter.request(&[("other", "")]).unwrap();
    assert_eq!(said(&mut filter), [1, 1]);
    // The address of nothing is null, and nothing is allocated for it.
    let outcome = filter.request(&[("x-in", "")]).unwrap();
    assert_eq!(said(&mut filter), [0, 0]);
    assert_eq!(outcome.usage.allocations, 0);
}

#[test]
fn headers_are_added_and_removed() {
    let mut filter = WatFilter {
        request: "
            (call $say (call $remove (i32.const 0) (i32.const 0) (i32.const 4)))
            (call $say (call $remove (i32.const 0) (i32.const 0) (i32.const 4)))
            (call $say (call $add (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 5)))
            (call $say (call $add (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 2)))
            (i32.const 0)",
        ..filter()
    }
    .running();
    let outcome = filter.request(&[("x-in", "1"), ("keep", "2"), ("X-IN", "3")]).unwrap();
    assert_eq!(said(&mut filter), [0, 0, 0, 0]);
    let expected = [("keep", "2"), ("x-out", "fresh"), ("x-out", "fr")];
    assert_eq!(outcome.request_headers, expected.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn pairs_go_through_the_module_and_come_back() {
    let mut filter = WatFilter {
        request: "
            (call $say (call $pairs (i32.const 0) (i32.const 48) (i32.const 52)))
            (call $say (call $map_size (i32.const 0) (i32.const 56)))
            (call $say (i32.load (i32.const 56)))
            (call $say (call $set_pairs (i32.const 0) (i32.load (i32.const 48)) (i32.load (i32.const 52))))
            (i32.const 0)",
        ..filter()
    }
    .running();
    let outcome = filter.request(&[("a", "1"), ("bc", "23"), ("a", "")]).unwrap();
    assert_eq!(said(&mut filter), [0, 0, 7, 0]);
    let expected = [("a", "1"), ("bc", "23"), ("a", "")];
    assert_eq!(outcome.request_headers, expected.map(|(name, value)| (name.into(), value.into())));
    filter.request(NONE).unwrap();
    assert_eq!(said(&mut filter), [0, 0, 0, 0]);
}

#[test]
fn broken_pairs_change_nothing() {
    let mut filter = WatFilter {
        request: "
            (i32.store (i32.const 64) (i32.const -1))
            (call $say (call $set_pairs (i32.const 0) (i32.const 64) (i32.const 4)))
            (i32.const 0)",
        ..filter()
    }
    .running();
    let outcome = filter.request(&[("a", "1")]).unwrap();
    assert_eq!(said(&mut filter), [2]);
    assert_eq!(outcome.request_header("a"), Some(&b"1"[..]));
}

#[test]
fn each_map_is_there_in_its_own_callback_only() {
    let all_maps = "
        (call $say (call $get_in (i32.const 0)))
        (call $say (call $get_in (i32.const 2)))
        (call $say (call $get_in (i32.const 1)))
        (call $say (call $get_in (i32.const 99)))
        (call $say (call $set_out (i32.const 0)))
        (call $say (call $set_out (i32.const 2)))";
    let with_zero: &'static str = Box::leak(format!("{all_maps} (i32.const 0)").into_boxed_str());
    let with_one: &'static str = Box::leak(format!("{all_maps} (i32.const 1)").into_boxed_str());
    let mut filter = WatFilter {
        configure: with_one,
        request: with_zero,
        response: with_zero,
        log: all_maps,
        delete: all_maps,
        ..filter()
    }
    .running();
    assert_eq!(said(&mut filter), [2, 2, 2, 2, 2, 2]);

    let outcome = filter.request_with_response(&[("x-in", "q")], &[("x-in", "s")]).unwrap();
    let expected = [
        [0, 2, 2, 2, 0, 2], // request
        [2, 0, 2, 2, 2, 0], // response: Envoy takes the request's map away after `Continue`
        [0, 0, 1, 2, 2, 2], // log: both can be read, neither written
        [2, 2, 2, 2, 2, 2], // delete
    ];
    assert_eq!(said(&mut filter), expected.concat());
    assert_eq!(outcome.request_header("x-out"), Some(&b"q"[..]));
    assert_eq!(outcome.response_header("x-out"), Some(&b"s"[..]));

    let outcome = filter.request(&[("x-in", "q")]).unwrap();
    assert_eq!(said(&mut filter)[6..12], [0, 1, 1, 2, 2, 2]);
    assert_eq!(outcome.response_headers, None);
}

#[test]
fn a_filter_that_acts_for_its_root_context_has_no_headers() {
    let mut filter = WatFilter {
        imports: r#"
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_effective_context" (func $act_for (param i32) (result i32)))"#,
        items: r#"(func $get_in (result i32)
            (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 48) (i32.const 52)))
            (data (i32.const 0) "a")"#,
        request: "
            (call $say (call $act_for (i32.const 1))) (call $say (call $get_in))
            (call $say (call $act_for (i32.const 99))) (call $say (call $get_in))
            (call $say (call $act_for (local.get $id))) (call $say (call $get_in))
            (i32.const 0)",
        ..WatFilter::default()
    }
    .running();
    filter.request(&[("a", "1")]).unwrap();
    assert_eq!(said(&mut filter), [0, 2, 2, 2, 0, 0]);
}

#[test]
fn a_held_stream_has_no_response() {
    let mut filter = WatFilter { request: "(i32.const 1)", response: "unreachable", ..filter() }.running();
    let outcome = filter.request_with_response(NONE, &[("a", "b")]).unwrap();
    assert_eq!(outcome.action, Action::Pause);
    assert_eq!(outcome.response_headers, None);
}

#[test]
fn a_filter_can_answer_itself() {
    let mut filter = WatFilter {
        request: "
            (call $say (call $respond (i32.const 403) (i32.const 0) (i32.const 4) (i32.const 32) (i32.const 5)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0)",
        ..filter()
    }
    .running();
    let outcome = filter.request_with_response(NONE, &[("a", "b")]).unwrap();
    let response = outcome.local_response.unwrap();
    assert_eq!((response.status, response.grpc_status), (403, -1));
    assert_eq!((&response.details[..], &response.body[..]), (&b"X-In"[..], &b"fresh"[..]));
    assert_eq!(outcome.response_headers, None);
}
