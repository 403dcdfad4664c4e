//! A deliberate trap, for the test build that shows what becomes of a worker whose VM fails. Nothing that ships has it.

use crate::headers::Headers;

/// The header that asks for it.
const HEADER: &[u8] = b"x-test-trap";

/// Traps when the request asks for it.
pub(crate) fn if_asked(headers: &Headers) {
    if headers.get(HEADER).is_some() {
        std::arch::wasm32::unreachable();
    }
}
