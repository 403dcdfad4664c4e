//! What came of a stream.

use crate::headers::HeaderPairs;

/// How many host calls are kept in order; beyond that they are only counted.
const MAX_ORDERED_CALLS: usize = 4096;

/// What the module told the proxy to do after a header callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on with the stream.
    Continue,
    /// Hold the stream. Envoy treats every answer but zero so.
    Pause,
}

impl Action {
    pub(crate) fn from_abi(action: u32) -> Self {
        if action == 0 { Self::Continue } else { Self::Pause }
    }
}

/// A response that the module sent instead of the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// HTTP status.
    pub status: u32,
    /// For the access log.
    pub details: Vec<u8>,
    /// Headers besides the status.
    pub headers: HeaderPairs,
    /// The body.
    pub body: Vec<u8>,
    /// The gRPC status, -1 for none.
    pub grpc_status: i32,
}

/// What a whole stream came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request's headers as the module left them.
    pub request_headers: HeaderPairs,
    /// The response's headers as the module left them; `None` if the stream had no response phase.
    pub response_headers: Option<HeaderPairs>,
    /// The answer to the request's headers.
    pub action: Action,
    /// The answer to the response's headers; [`Action::Continue`] if there were none.
    pub response_action: Action,
    /// The module's own response, if it sent one.
    pub local_response: Option<LocalResponse>,
    /// What the module published with `proxy_set_property`: path (segments joined by NUL) and value.
    pub properties: HeaderPairs,
    /// What the stream cost, from its creation to its deletion.
    pub usage: Usage,
}

impl Outcome {
    /// The first value of a request header, by lower-case name.
    pub fn request_header(&self, name: &str) -> Option<&[u8]> {
        first(&self.request_headers, name)
    }

    /// The first value of a response header, by lower-case name.
    pub fn response_header(&self, name: &str) -> Option<&[u8]> {
        first(self.response_headers.as_ref()?, name)
    }
}

fn first<'a>(pairs: &'a HeaderPairs, name: &str) -> Option<&'a [u8]> {
    pairs.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value.as_slice())
}

/// What one operation on an instance cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// wasmtime's fuel: about one unit per WebAssembly instruction, and one per byte of its bulk memory instructions.
    /// The host charges for itself only where it copies more than 4 KiB at once.
    pub fuel: u64,
    /// Calls of callbacks by the host, such as `proxy_on_request_headers`.
    pub callbacks: u64,
    /// Calls of the module's allocator, one for each value that the host hands over.
    pub allocations: u64,
    calls: Vec<&'static str>,
    counts: Vec<(&'static str, u64)>,
}

impl Usage {
    /// How many host functions the module called (WASI included).
    pub fn host_calls(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// How often the module called one host function.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    /// The host functions in the order in which they were called (the first 4096 calls).
    pub fn calls(&self) -> &[&'static str] {
        &self.calls
    }

    pub(crate) fn record(&mut self, name: &'static str) {
        if self.calls.len() < MAX_ORDERED_CALLS {
            self.calls.push(name);
        }
        match self.counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((name, 1)),
        }
    }
}
