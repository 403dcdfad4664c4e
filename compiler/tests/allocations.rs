//! Deciding allocates nothing, whatever the condition does.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, link};
use halftone_rules::{Request, Timestamp, VerifiedBundle};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Headers(Vec<(&'static str, &'static [u8])>);

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn client_address(&self) -> Option<&[u8]> {
        Some(b"10.1.2.3:80")
    }
}

#[test]
fn a_decision_allocates_nothing() {
    let mut text = String::from(
        r#"
version: v1
holdout: 0.000001
layers: {l: {holdout: 0.000001}}
attributes:
  tier: {header: x-tier}
  n: {header: x-n, type: int}
  d: {header: x-d, type: double}
  v: {header: x-v, type: semver}
  groups: {header: x-groups, type: list}
  raw: {header: x-n, type: bytes}
overrides: [{units: [none], target: v9}]
experiments:
  - {name: e, layer: l, arms: [{name: a}, {name: b}]}
rules:
  - {name: text, condition: 'tier.contains("x") || tier.matches("^[a-f]+\\d$") || size(tier) > 99', target: v2}
  - {name: numbers, condition: 'n * 2 + 1 > 1000000 || d / 2.0 < 0.0 || int(d) % 7 == 6 || string(raw) == "8"', target: v2}
  - {name: versions, condition: 'v < semver("1.0.0") || "qa" in groups || tier in ["a", "b"]', target: v2}
  - {name: places, condition: 'cidr(request.client_address, "192.168.0.0/16") || {"gold": 1, "silver": 2}[tier] == 2', target: v2}
  - {name: time, condition: 'now.getFullYear() > 3000 || now - timestamp(0) > duration("99999h")', target: v2}
  - {name: buckets, condition: 'bucket(user.id, "s", 100) > 100 || bucket(n, "s", 7) > 8', target: v2}
  - {name: split, weight: 0.000001, control: 0.000001, target: v2}
"#,
    );
    for tenant in 0..100 {
        text += &format!(
            "  - {{name: t{tenant}, condition: 'tier == \"tenant-{tenant}\" && n > 0', target: v2}}\n"
        );
    }
    let compiled = compile(&text, "digits").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let bundle = VerifiedBundle::new(link(1, [&compiled]).unwrap()).unwrap();
    assert!(compiled.ruleset.rules.iter().any(|rule| rule.guard.is_some()), "nothing is indexed");
    let requests = [
        Headers(vec![]),
        Headers(vec![
            ("x-user-id", b"42"),
            ("x-tier", b"gold"),
            ("x-n", b"7"),
            ("x-d", b"2.5"),
            ("x-v", b"1.2.3-rc.1"),
            ("x-groups", b"a, b"),
        ]),
        Headers(vec![("x-user-id", b"\xff"), ("x-tier", b"\xff"), ("x-n", b"seven"), ("x-v", b"one")]),
    ];
    for request in &requests {
        let before = ALLOCATIONS.get();
        let decision = bundle.decide(request, Timestamp(1), &mut ());
        let after = ALLOCATIONS.get();
        assert_eq!(decision.map(|decision| decision.target), Some("default"));
        assert_eq!(after - before, 0, "allocations");
    }
}
