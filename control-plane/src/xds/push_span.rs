//! A revision on its way to one proxy, in the trace of whoever published it.

use super::resource::Resources;
use super::stream::Stream;
use halftone_telemetry::trace::Span;

/// A revision on its way to one proxy. When it is dropped before the proxy has answered, it was superseded, or the proxy is gone.
#[derive(Debug)]
pub(super) struct PushSpan {
    span: Span,
    revision: u64,
    answered: bool,
}

impl PushSpan {
    /// It was published a moment ago; nothing when that is not recorded.
    pub(super) fn begin(resources: &Resources, node: &str) -> Option<Self> {
        let mut span = resources.publication()?.stage("push");
        span.set("halftone.node", node);
        span.set("halftone.revision", i64::try_from(resources.revision()).unwrap_or(i64::MAX));
        Some(Self { span, revision: resources.revision(), answered: false })
    }

    /// Ends it when the proxy has taken or refused the revision.
    pub(super) fn unless_done(mut self, stream: &Stream) -> Option<Self> {
        if let Some(refused) = stream.refused().filter(|refused| refused.revision == self.revision) {
            self.answered = true;
            self.span.fail("refused", &refused.message);
            return None;
        }
        if stream.covered().is_some_and(|covered| covered >= self.revision) {
            self.answered = true;
            return None;
        }
        Some(self)
    }
}

impl Drop for PushSpan {
    fn drop(&mut self) {
        if !self.answered {
            self.span.fail("unanswered", "superseded, or the proxy is gone");
        }
    }
}
