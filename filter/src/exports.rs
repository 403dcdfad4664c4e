//! What the host calls. Only what is needed: each callback that a module exports costs every request.
#![allow(unsafe_code, reason = "exported names and memory for the host are the ABI")]

use crate::{
    contexts::{self, ContextId},
    host::{self, LogLevel},
    stamp,
};
use std::mem::MaybeUninit;

/// `Action::Continue`: the filter never holds a request.
const CONTINUE: u32 = 0;

unsafe extern "C" {
    /// Runs the constructors that the toolchain has collected.
    fn __wasm_call_ctors();
}

/// Called once for each VM, before anything else.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the linker provides it, and the host calls this function once.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|info| host::log(LogLevel::Critical, &info.to_string())));
}

/// Its presence says which ABI the module speaks.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for bytes that the host passes in. It belongs to whoever receives the bytes, see
/// [`host`]'s `owned_bytes`.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let bytes: Box<[MaybeUninit<u8>]> = Box::new_uninit_slice(size);
    Box::into_raw(bytes).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: ContextId, parent: ContextId) {
    contexts::create(id, parent);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: ContextId, size: usize) -> u32 {
    contexts::configure(id, size).into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: ContextId, _headers: u32, _end_of_stream: u32) -> u32 {
    contexts::request_headers(id);
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(_id: ContextId, _trailers: u32) -> u32 {
    stamp::trailers();
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: ContextId, _headers: u32, _end_of_stream: u32) -> u32 {
    contexts::response_headers(id);
    CONTINUE
}

#[cfg(feature = "envoy")]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(id: ContextId) {
    contexts::with_root(id, contexts::Root::tick);
}

/// `headers` is 0 when the call failed; then there is nothing to read, and whoever reads is told so.
#[cfg(feature = "envoy")]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    id: ContextId,
    call: u32,
    _headers: u32,
    body_size: usize,
    _trailers: u32,
) {
    contexts::with_root(id, |root| root.answered(host::CallId(call), body_size));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: ContextId) {
    contexts::delete(id);
}
