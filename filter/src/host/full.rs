//! Host calls that not every host has: timers, metrics, shared data, and calls to clusters.

use super::{Status, check, owned_bytes};
use std::time::Duration;

/// `BufferType::HttpCallResponseBody`
const CALL_RESPONSE_BODY: u32 = 4;
/// `MapType::HttpCallResponseHeaders`
const CALL_RESPONSE_HEADERS: u32 = 6;
/// `CLOCK_MONOTONIC`
const MONOTONIC: u32 = 1;

mod abi {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, offset: i64) -> u32;
        pub(super) fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub(super) fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            size: usize,
            cas: u32,
        ) -> u32;
        pub(super) fn proxy_http_call(
            upstream: *const u8,
            upstream_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout: u32,
            call: *mut u32,
        ) -> u32;
        pub(super) fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            limit: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    }
}

/// Since some moment in the past that is the same for all workers of the process. No change of the clock touches it.
pub(crate) fn monotonic() -> Duration {
    let mut time = 0;
    // SAFETY: a pointer to a living variable of the right type.
    match check(unsafe { abi::clock_time_get(MONOTONIC, 1_000_000, &raw mut time) }) {
        Ok(()) => Duration::from_nanos(time),
        Err(_) => Duration::ZERO,
    }
}

/// Asks for a tick of the current configuration each time the period is over.
pub(crate) fn set_tick_period(period: Duration) {
    let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no pointers. A host without ticks has none for us.
    unsafe { abi::proxy_set_tick_period_milliseconds(milliseconds) };
}

/// The kinds of metrics.
#[derive(Clone, Copy)]
pub(crate) enum MetricKind {
    Counter = 0,
    Gauge = 1,
}

/// A metric of the host.
#[derive(Clone, Copy)]
pub(crate) struct Metric(u32);

impl Metric {
    pub(crate) fn define(kind: MetricKind, name: &str) -> Result<Self, Status> {
        let mut id = 0;
        // SAFETY: pointer and length of a living string, and a pointer to a living variable.
        check(unsafe { abi::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
        Ok(Self(id))
    }

    pub(crate) fn increment(self, count: u64) {
        // SAFETY: no pointers.
        unsafe { abi::proxy_increment_metric(self.0, i64::try_from(count).unwrap_or(i64::MAX)) };
    }

    pub(crate) fn record(self, value: u64) {
        // SAFETY: no pointers.
        unsafe { abi::proxy_record_metric(self.0, value) };
    }
}

/// A value that all workers see, and by which it can be replaced.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    let mut cas = 0;
    // SAFETY: pointer and length of a living string; the others are pointers to living variables.
    let bytes = owned_bytes(|data, size| unsafe {
        abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
    })?;
    Ok((bytes, cas))
}

/// Sets a value that all workers see; with `cas` only if nobody else has since it was read.
pub(crate) fn set_shared_data(key: &str, value: &[u8], cas: Option<u32>) -> Result<(), Status> {
    // SAFETY: pointers and lengths of living slices.
    check(unsafe {
        abi::proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            cas.unwrap_or_default(),
        )
    })
}

/// A call to a cluster that is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallId(pub(crate) u32);

/// Sends a request; its headers in the ABI's form.
pub(crate) fn http_call(
    cluster: &str,
    headers: &[u8],
    body: &[u8],
    timeout: Duration,
) -> Result<CallId, Status> {
    let no_trailers = 0u32.to_le_bytes();
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let mut call = 0;
    // SAFETY: pointers and lengths of living slices, and a pointer to a living variable.
    check(unsafe {
        abi::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            no_trailers.as_ptr(),
            no_trailers.len(),
            milliseconds,
            &raw mut call,
        )
    })?;
    Ok(CallId(call))
}

/// A header of the answer that has come. Of a call that failed there is none, and the host says so.
pub(crate) fn call_response_header(name: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: pointer and length of a living string; the others are pointers to living variables.
    owned_bytes(|data, size| unsafe {
        abi::proxy_get_header_map_value(CALL_RESPONSE_HEADERS, name.as_ptr(), name.len(), data, size)
    })
}

/// The first `size` bytes of the answer that has come.
pub(crate) fn call_response_body(size: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: the pointers are those of living variables.
    owned_bytes(|data, length| unsafe {
        abi::proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, size, data, length)
    })
}
