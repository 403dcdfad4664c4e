//! What a line of the access log says.

use crate::context::RequestContext;
use halftone_proto::v1::EvaluationContext;
use http::Method;
use prost::Message;
use std::{sync::Arc, time::Duration};

/// A request that was answered. It becomes text on the thread that writes the log: no request waits for that.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) context: Arc<RequestContext>,
    pub(crate) method: Method,
    pub(crate) path: Box<str>,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) duration: Duration,
}

/// What a line takes besides what clients can make long.
const BYTES: usize = 1 << 10;

impl Line {
    /// About what it takes of memory while it waits.
    pub(crate) fn bytes(&self) -> usize {
        let decided = self.context.evaluation.as_ref().map_or(0, Message::encoded_len);
        BYTES + self.method.as_str().len() + self.path.len() + decided
    }

    /// Logs it under the tracing target `access`.
    pub(crate) fn log(&self) {
        let served = self.context.served();
        let decided = self.context.evaluation.as_ref();
        // The prefix is that of the baggage members. A plain `target` would be a second key of that name in JSON
        // lines, whose `target` is tracing's.
        tracing::info!(
            target: "access",
            method = self.method.as_str(),
            path = &*self.path,
            status = self.status,
            // Of calls over gRPC that failed; those that did not have theirs in the trailers.
            grpc_status = self.grpc_status,
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            model = served.map(|served| &*served.model),
            version = served.map(|served| &*served.version),
            halftone.target = decided.and_then(|c| non_empty(&c.target)),
            halftone.ruleset = decided.and_then(|c| non_empty(&c.ruleset)),
            halftone.revision = decided.map(|c| c.revision),
            halftone.rule = decided.and_then(|c| non_empty(&c.rule)),
            halftone.unit_hash = decided.and_then(unit_hash),
            halftone.arm = decided.and_then(|c| non_empty(&c.arm)),
            halftone.epoch = decided.map(|c| c.epoch).filter(|epoch| *epoch > 0),
            halftone.bucket = decided.and_then(|c| c.bucket),
            halftone.reason = decided.map(|c| c.reason().as_str_name()),
            halftone.overridden = decided.map(|c| c.overridden).filter(|overridden| *overridden),
            halftone.held_out = decided.map(|c| c.held_out).filter(|held_out| *held_out),
            feature_version = self.context.feature_version(),
            model_output_hash = self.context.output_hash().map(hexadecimal),
            trace_id = self.context.trace_id().map(tracing::field::display),
            evaluation_id = self.context.parent.as_ref().map(|parent| tracing::field::display(parent.span_id())),
        );
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn unit_hash(context: &EvaluationContext) -> Option<String> {
    (context.unit_hash != 0).then(|| hexadecimal(context.unit_hash))
}

/// As a number it would lose digits in whatever reads JSON numbers as doubles.
fn hexadecimal(hash: u64) -> String {
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn what_a_client_makes_long_counts() {
        let bytes = |method: usize, path: usize| {
            let line = Line {
                context: Arc::new(RequestContext::read(&HeaderMap::new())),
                method: Method::from_bytes("M".repeat(method).as_bytes()).unwrap(),
                path: "p".repeat(path).into(),
                status: 404,
                grpc_status: None,
                duration: Duration::ZERO,
            };
            line.bytes()
        };
        assert_eq!(bytes(60_000, 1), bytes(1, 60_000));
        assert!(bytes(60_000, 60_000) > 120_000);
    }
}
