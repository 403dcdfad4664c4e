//! What the filter writes on a request.

use crate::{
    headers::{CurrentRequest, Headers},
    host::{self, HeaderMap},
};
use halftone_rules::{
    Decision, Timestamp, VerifiedBundle, context,
    headers::{CONTEXT, PREFIX, ROUTE, SCOPE_BOOTSTRAP, SCOPE_DECIDED, TARGET},
    trace,
};

/// Decides for the current request and stamps it; the answer is the target's name.
pub(crate) fn request(bundle: Option<&VerifiedBundle>) -> Option<String> {
    let Ok(pairs) = host::header_pairs(HeaderMap::Request) else {
        // Nothing is decided on headers that cannot be read; what a backend would believe still goes.
        host::remove_header(HeaderMap::Request, TARGET.as_bytes());
        host::remove_header(HeaderMap::Request, CONTEXT.as_bytes());
        host::set_header(HeaderMap::Request, ROUTE, SCOPE_BOOTSTRAP);
        return None;
    };
    let headers = Headers::new(pairs);
    let decision = bundle.and_then(|bundle| {
        let now = Timestamp(i64::try_from(host::now()).unwrap_or(i64::MAX));
        Some((bundle.decide(&CurrentRequest::new(&headers), now, &mut ())?, now))
    });
    // Setting a header replaces all inbound copies; those that are not set have to go.
    let set: &[&str] = if decision.is_some() { &[TARGET, CONTEXT, ROUTE] } else { &[ROUTE] };
    for (name, _) in headers.iter() {
        if name.starts_with(PREFIX.as_bytes()) && !set.iter().any(|own| own.as_bytes() == name) {
            host::remove_header(HeaderMap::Request, name);
        }
    }
    let Some((decision, now)) = decision else {
        host::set_header(HeaderMap::Request, ROUTE, SCOPE_BOOTSTRAP);
        return None;
    };
    decided(&decision, now);
    continue_or_start_trace(&headers);
    Some(decision.target.to_owned())
}

fn decided(decision: &Decision<'_>, now: Timestamp) {
    host::set_header(HeaderMap::Request, TARGET, decision.target);
    host::set_header(HeaderMap::Request, ROUTE, &format!("{SCOPE_DECIDED}/{}", decision.ruleset));
    host::set_header(HeaderMap::Request, CONTEXT, &context::header_value(decision, now.unix_millis()));
}

/// A valid `traceparent` is left alone. Otherwise a trace starts here; the `tracestate` of a trace that
/// cannot be continued goes.
fn continue_or_start_trace(headers: &Headers) {
    if headers.get(b"traceparent").is_some_and(trace::is_valid_traceparent) {
        return;
    }
    // Without randomness there is no trace, but there is an answer.
    if let Ok(random) = host::random() {
        host::set_header(HeaderMap::Request, "traceparent", &trace::new_traceparent(&random));
        if headers.get(b"tracestate").is_some() {
            host::remove_header(HeaderMap::Request, b"tracestate");
        }
    }
}
