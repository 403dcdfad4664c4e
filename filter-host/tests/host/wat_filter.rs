//! Hand-written filters: each test says only what is special about its own.

#![expect(clippy::unwrap_used, reason = "a test filter that cannot be made is a failed test")]

use halftone_filter_host::{FilterInstance, FilterModule, HostError};

/// The parts of a filter in WebAssembly text; what is not given does nothing and accepts everything.
///
/// There for all: `$log (level, pointer, len)`, `$say (number)`, which logs one character from which [`said`] gets
/// the number back, and `$heap`, the next address that the allocator gives. Addresses below 65536 are the test's own;
/// 65536 and up are the allocator's, in a memory of four pages.
#[derive(Clone, Copy)]
pub(crate) struct WatFilter {
    pub(crate) imports: &'static str,
    /// Functions and data.
    pub(crate) items: &'static str,
    /// With `$id` and `$root`.
    pub(crate) create: &'static str,
    /// With `$id` and `$size`; leaves a truth value.
    pub(crate) vm_start: &'static str,
    /// With `$id` and `$size`; leaves a truth value.
    pub(crate) configure: &'static str,
    /// With `$id` and `$count`; leaves an action.
    pub(crate) request: &'static str,
    /// With `$id` and `$count`; leaves an action.
    pub(crate) response: &'static str,
    /// With `$id`.
    pub(crate) log: &'static str,
    /// With `$id`.
    pub(crate) delete: &'static str,
    /// With `$size`; leaves an address.
    pub(crate) allocate: &'static str,
}

impl Default for WatFilter {
    fn default() -> Self {
        Self {
            imports: "",
            items: "",
            create: "",
            vm_start: "(i32.const 1)",
            configure: "(i32.const 1)",
            request: "(i32.const 0)",
            response: "(i32.const 0)",
            log: "",
            delete: "",
            allocate: "(global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get $size)))",
        }
    }
}

impl WatFilter {
    pub(crate) fn wasm(&self) -> Vec<u8> {
        let Self { imports, items, create, vm_start, configure, request, response, log, delete, allocate } =
            self;
        let text = format!(
            r#"(module
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            {imports}
            (memory (export "memory") 4)
            (global $heap (mut i32) (i32.const 65536))
            (func $say (param i32)
                (i32.store8 (i32.const 65535) (i32.add (local.get 0) (i32.const 48)))
                (drop (call $log (i32.const 2) (i32.const 65535) (i32.const 1))))
            {items}
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) {allocate})
            (func (export "proxy_on_context_create") (param $id i32) (param $root i32) {create})
            (func (export "proxy_on_vm_start") (param $id i32) (param $size i32) (result i32) {vm_start})
            (func (export "proxy_on_configure") (param $id i32) (param $size i32) (result i32) {configure})
            (func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param i32) (result i32)
                {request})
            (func (export "proxy_on_response_headers") (param $id i32) (param $count i32) (param i32) (result i32)
                {response})
            (func (export "proxy_on_log") (param $id i32) {log})
            (func (export "proxy_on_delete") (param $id i32) {delete}))"#
        );
        wat::parse_str(text).unwrap()
    }

    pub(crate) fn module(&self) -> FilterModule {
        FilterModule::new(&self.wasm()).unwrap()
    }

    /// Started and configured with nothing.
    pub(crate) fn running(&self) -> FilterInstance {
        let mut filter = self.module().start().unwrap();
        assert!(filter.configure(b"").unwrap());
        filter
    }

    /// The error with which the module is refused.
    pub(crate) fn refused(&self) -> HostError {
        FilterModule::new(&self.wasm()).unwrap_err()
    }
}

/// What the filter said with `$say`.
pub(crate) fn said(filter: &mut FilterInstance) -> Vec<u32> {
    filter
        .take_logs()
        .iter()
        .map(|line| line.message.chars().next().map_or(0, |first| u32::from(first) - 48))
        .collect()
}

/// No headers, for requests where none matter.
pub(crate) const NONE: &[(&str, &str)] = &[];
