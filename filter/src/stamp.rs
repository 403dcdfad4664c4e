//! What the filter writes on a request.

use crate::{
    configuration::Tracing,
    contexts::Root,
    headers::{CurrentRequest, Headers, is_ours},
    host::{self, HeaderMap},
};
use halftone_rules::{
    Decision, Request, Timestamp, baggage, context,
    headers::{CONTEXT, ROUTE, SCOPE_BOOTSTRAP, SCOPE_DECIDED, TARGET},
    trace,
};

/// What the response to a stamped request gets.
pub(crate) struct Stamped {
    /// The target's name.
    pub(crate) target: String,
    /// How the client is to keep its unit, when that is a new one.
    pub(crate) set_cookie: Option<String>,
}

/// Decides for the current request and stamps it.
pub(crate) fn request(root: &mut Root) -> Option<Stamped> {
    let Ok(pairs) = host::header_pairs(HeaderMap::Request) else {
        // Nothing is decided on headers that cannot be read; what a backend would believe still goes.
        host::remove_header(HeaderMap::Request, TARGET.as_bytes());
        host::remove_header(HeaderMap::Request, CONTEXT.as_bytes());
        host::set_header(HeaderMap::Request, ROUTE, SCOPE_BOOTSTRAP);
        return None;
    };
    let headers = Headers::new(pairs);
    let Root { settings, bundle, .. } = root;
    let now = match bundle {
        Some(_) => Timestamp(i64::try_from(host::now()).unwrap_or(i64::MAX)),
        None => Timestamp(0),
    };
    let request = CurrentRequest::new(&headers, settings, now);
    let decision = bundle.as_ref().and_then(|bundle| {
        #[cfg(feature = "envoy")]
        {
            let mut watch = crate::metrics::Watch::default();
            let decision = bundle.decide(&request, now, &mut watch)?;
            root.upkeep.counts.decided(bundle, &decision, &watch);
            Some(decision)
        }
        #[cfg(not(feature = "envoy"))]
        bundle.decide(&request, now, &mut ())
    });
    // Setting a header replaces all inbound copies; those that are not set have to go.
    let set: &[&str] = if decision.is_some() { &[TARGET, CONTEXT, ROUTE] } else { &[ROUTE] };
    let mut inbound = Inbound::default();
    for (name, value) in headers.iter() {
        if is_ours(name) {
            if !set.iter().any(|own| own.as_bytes() == name) {
                host::remove_header(HeaderMap::Request, name);
            }
        } else {
            inbound.keep(name, value);
        }
    }
    if inbound.nominates {
        host::set_header(HeaderMap::Request, CONNECTION, "upgrade");
    }
    let Some(decision) = decision else {
        host::set_header(HeaderMap::Request, ROUTE, SCOPE_BOOTSTRAP);
        if !inbound.baggage.is_empty() {
            stamp_baggage(&inbound, None);
        }
        return None;
    };
    decided(&decision, now);
    stamp_baggage(&inbound, Some(&decision));
    if settings.tracing == Tracing::Filter {
        continue_or_start_trace(&inbound);
    }
    let set_cookie = decision.new_unit.and_then(|cookie| Some(cookie.set_cookie(request.fresh_unit()?)));
    Some(Stamped { target: decision.target.to_owned(), set_cookie })
}

/// Takes away what a client says in our name after the body. Who joins trailers with headers would find it beside what
/// was decided.
pub(crate) fn trailers() {
    let Ok(pairs) = host::header_pairs(HeaderMap::RequestTrailers) else { return };
    for (name, _) in Headers::new(pairs).iter() {
        if is_ours(name) || STAMPED.contains(&name) {
            host::remove_header(HeaderMap::RequestTrailers, name);
        }
    }
}

/// The headers besides our own that say what was decided, and in which trace.
const STAMPED: [&[u8]; 3] =
    [baggage::HEADER.as_bytes(), trace::TRACEPARENT.as_bytes(), trace::TRACESTATE.as_bytes()];

/// The header that names headers which go no further than to the next hop. Envoy takes it, and them, away, but from a
/// request for an upgrade: there a client could have the next hop take ours away.
const CONNECTION: &str = "connection";

/// Whether a `connection` header asks for more than an upgrade.
fn nominates(connection: &[u8]) -> bool {
    connection
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|name| !name.eq_ignore_ascii_case(b"upgrade") && !name.eq_ignore_ascii_case(b"keep-alive"))
}

/// The request's headers about its trace, each of which can have come in several lines, and about its connection.
#[derive(Default)]
struct Inbound<'a> {
    traceparent: Vec<&'a [u8]>,
    tracestate: Vec<&'a [u8]>,
    baggage: Vec<&'a [u8]>,
    nominates: bool,
}

impl<'a> Inbound<'a> {
    fn keep(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"traceparent" => self.traceparent.push(value),
            b"tracestate" => self.tracestate.push(value),
            b"baggage" => self.baggage.push(value),
            b"connection" => self.nominates |= nominates(value),
            _ => {}
        }
    }
}

fn decided(decision: &Decision<'_>, now: Timestamp) {
    host::set_header(HeaderMap::Request, TARGET, decision.target);
    host::set_header(HeaderMap::Request, ROUTE, [SCOPE_DECIDED, "/", decision.ruleset].concat());
    host::set_header(HeaderMap::Request, CONTEXT, context::header_value(decision, now.unix_millis()));
    host::set_property(context::PROPERTY, context::access_log_value(decision));
}

/// Adds the decision to the client's baggage, where it travels further than headers of ours.
fn stamp_baggage(inbound: &Inbound<'_>, decision: Option<&Decision<'_>>) {
    let decision = decision.map(|decision| (decision.target, decision.revision));
    match baggage::header_value(inbound.baggage.iter().copied(), decision) {
        Some(value) => host::set_header(HeaderMap::Request, baggage::HEADER, value),
        None => host::remove_header(HeaderMap::Request, baggage::HEADER.as_bytes()),
    }
}

/// A valid `traceparent` is left alone, and so is its `tracestate`, unless that does not parse. Otherwise a trace
/// starts here; the `tracestate` of a trace that cannot be continued goes.
fn continue_or_start_trace(inbound: &Inbound<'_>) {
    let keeps_state = if let [traceparent] = inbound.traceparent.as_slice()
        && trace::is_valid_traceparent(traceparent)
    {
        trace::is_valid_tracestate(inbound.tracestate.iter().copied())
    } else if let Ok(random) = host::random() {
        host::set_header(HeaderMap::Request, trace::TRACEPARENT, trace::new_traceparent(&random));
        false
    } else {
        // Without randomness there is no trace, but there is an answer.
        true
    };
    if !keeps_state && !inbound.tracestate.is_empty() {
        host::remove_header(HeaderMap::Request, trace::TRACESTATE.as_bytes());
    }
}
