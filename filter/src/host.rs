//! The host calls that the filter makes. None of them can panic: what the host refuses is an error.
#![allow(unsafe_code, reason = "the proxy-wasm ABI passes pointers")]

use std::fmt;

#[cfg(feature = "envoy")]
pub(crate) use full::{
    CallId, Metric, MetricKind, call_response_body, call_response_header, http_call, monotonic,
    set_shared_data, set_tick_period, shared_data,
};

/// A status of the proxy-wasm ABI other than 0, which is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(u32);

#[cfg(feature = "envoy")]
impl Status {
    pub(crate) const NOT_FOUND: Self = Self(1);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host status {}", self.0)
    }
}

/// Levels of the host's log.
#[derive(Clone, Copy)]
pub(crate) enum LogLevel {
    Info = 2,
    #[cfg(feature = "envoy")]
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// The header maps of a stream.
#[derive(Clone, Copy)]
pub(crate) enum HeaderMap {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
}

/// `BufferType::PluginConfiguration`
const PLUGIN_CONFIGURATION: u32 = 7;

#[cfg(feature = "envoy")]
#[path = "host/full.rs"]
mod full;

mod abi {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub(super) fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            limit: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        pub(super) fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn random_get(data: *mut u8, size: usize) -> u32;
    }
}

fn check(status: u32) -> Result<(), Status> {
    if status == 0 { Ok(()) } else { Err(Status(status)) }
}

/// Calls a function that answers with bytes in memory it allocated for us.
fn owned_bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Status> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size: usize = 0;
    check(call(&raw mut data, &raw mut size))?;
    if data.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the host got this memory from `proxy_on_memory_allocate`, which hands over a slice of
    // exactly the `size` that the host asked for, filled it, and gives its ownership to the caller.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and length of a living string. A message that the host does not take is lost.
    unsafe { abi::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Nanoseconds since the Unix epoch; 0 when the host has no clock.
pub(crate) fn now() -> u64 {
    let mut time = 0;
    // SAFETY: a pointer to a living variable of the right type.
    match check(unsafe { abi::proxy_get_current_time_nanoseconds(&raw mut time) }) {
        Ok(()) => time,
        Err(_) => 0,
    }
}

/// Random bytes from the host.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0; N];
    // SAFETY: pointer and length of a living array.
    check(unsafe { abi::random_get(bytes.as_mut_ptr(), N) })?;
    Ok(bytes)
}

/// The first `size` bytes of the configuration.
pub(crate) fn plugin_configuration(size: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: the pointers are those of living variables.
    owned_bytes(|data, length| unsafe {
        abi::proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, data, length)
    })
}

/// A property of the host. The parts of its name are joined by zero bytes. A property that does not exist is
/// an error too.
pub(crate) fn property(path: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: pointer and length of a living string; the others are pointers to living variables.
    owned_bytes(|data, size| unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Publishes a property of the stream. A host that has no properties refuses, and then nobody reads it.
pub(crate) fn set_property(path: &str, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    // SAFETY: pointers and lengths of living slices.
    unsafe { abi::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
}

/// All headers in the ABI's serialised form, see [`crate::headers::Headers`].
pub(crate) fn header_pairs(map: HeaderMap) -> Result<Vec<u8>, Status> {
    // SAFETY: the pointers are those of living variables.
    owned_bytes(|data, size| unsafe { abi::proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Sets a header, in place of all there are of this name. A host refuses only where there is no such
/// map, and then there is nothing to set.
pub(crate) fn set_header(map: HeaderMap, name: &str, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    // SAFETY: pointers and lengths of living slices.
    unsafe {
        abi::proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
}

/// Adds a header to those that there are of this name.
pub(crate) fn add_header(map: HeaderMap, name: &str, value: &str) {
    // SAFETY: pointers and lengths of living slices.
    unsafe {
        abi::proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    };
}

/// Removes all headers of this name.
pub(crate) fn remove_header(map: HeaderMap, name: &[u8]) {
    // SAFETY: pointer and length of a living slice.
    unsafe { abi::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
}
