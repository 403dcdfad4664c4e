//! What the host tells about a request.

use crate::bundle::Source;

/// A request as the host sees it.
///
/// The evaluator asks for a source at most once per request and ruleset, and only when a rule needs it.
pub trait Request {
    /// The bytes that `source` names, exactly as the client sent them; `None` when the request does not
    /// carry them. Of a header that is repeated, the first one counts.
    fn read(&self, source: &Source) -> Option<&[u8]>;
}
