//! What the filter decided for a request, as its headers tell.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::{headers::CONTEXT, trace::is_valid_traceparent};
use prost::Message;

/// The evaluation context of a request. A malformed one is as good as none: it must not cost an answer.
#[must_use]
pub fn evaluation_context(headers: &HeaderMap) -> Option<EvaluationContext> {
    let header = headers.get(CONTEXT)?;
    let decoded = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|e| e.to_string())
        .and_then(|message| EvaluationContext::decode(message.as_slice()).map_err(|e| e.to_string()));
    decoded.inspect_err(|error| tracing::debug!(error, "{CONTEXT} is malformed and ignored")).ok()
}

/// The trace that a request belongs to: the second part of a valid `traceparent`.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get("traceparent")?;
    is_valid_traceparent(header.as_bytes()).then_some(())?;
    header.to_str().ok()?.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use halftone_proto::v1::Reason;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn reads_what_the_filter_wrote() {
        let context = EvaluationContext {
            timestamp_ms: 1_700_000_000_000,
            ruleset: "digits".into(),
            revision: 7,
            rule: "user-id-mod100".into(),
            target: "v2".into(),
            unit_hash: u64::MAX,
            bucket: Some(0),
            reason: Reason::Split.into(),
            ..EvaluationContext::default()
        };
        let value = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
        assert_eq!(evaluation_context(&headers(CONTEXT, &value)), Some(context));
    }

    #[test]
    fn ignores_what_is_malformed() {
        for value in ["=", "not base64!", "_____w", "Cg"] {
            assert_eq!(evaluation_context(&headers(CONTEXT, value)), None, "{value}");
        }
        assert_eq!(evaluation_context(&HeaderMap::new()), None);
    }

    #[test]
    fn trace_ids() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(&headers("traceparent", valid)), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(trace_id(&headers("traceparent", "00-zz-b7ad6b7169203331-01")), None);
        assert_eq!(trace_id(&HeaderMap::new()), None);
    }
}
