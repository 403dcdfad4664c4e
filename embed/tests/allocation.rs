//! Reading and deciding take no memory.
#![allow(unsafe_code, reason = "an allocator that counts")]

use anyhow::{Context as _, Result};
use halftone_embed::{Engine, HttpRequest, Timestamp};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn readers_allocate_nothing() -> Result<()> {
    let ruleset = "
version: v1
attributes:
  tier: {header: x-tier}
rules:
  - {name: gold, condition: \"tier in ['gold', 'platinum'] && request.path.startsWith('/v2')\", target: v2}
  - {name: canary, weight: 0.5, target: v2}
default: v1
";
    let engine = Engine::from_ruleset(ruleset, "digits")?;
    let request = HttpRequest::new().header("x-tier", "free").header("x-user-id", "7").path("/v2/x");
    let held = engine.rules();
    let context = held.context("digits")?.set("tier", "platinum")?.request(request.clone());
    // The first access of a thread sets up what the next ones use.
    let decide = || -> Option<()> {
        engine.rules().decide(&request, Timestamp(0))?;
        context.decide().map(drop)
    };
    decide().context("no decision")?;
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        decide().context("no decision")?;
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    Ok(())
}
