//! Requests that the filter sends to a cluster of the proxy, and their answers.

use crate::host::{self, CallId, Status};
use std::time::Duration;

/// Sends a request; the answer comes by `proxy_on_http_call_response`, under the number that this returns.
///
/// # Errors
/// When there is no such cluster (yet), or the host sends nothing.
pub(crate) fn send(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<CallId, Status> {
    host::http_call(cluster, &serialized(headers), body, timeout)
}

/// The status of the answer that has come; `None` when there is none, because the call failed.
pub(crate) fn status() -> Option<u16> {
    std::str::from_utf8(&host::call_response_header(":status").ok()?).ok()?.parse().ok()
}

/// Headers in the ABI's form, see [`crate::headers::Headers`]. Lengths above 4 GiB do not exist in 32 bits.
fn serialized(headers: &[(&str, &str)]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = length(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend_from_slice(&length(name.len()));
        bytes.extend_from_slice(&length(value.len()));
    }
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}
