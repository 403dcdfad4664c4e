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
    #[cfg(feature = "trap")]
    crate::trap::if_asked(&headers);
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
    let mut inbound = Inbound::new(&headers);
    for (name, value) in headers.iter() {
        if inbound.keep(name, value) || !is_ours(name) {
            continue;
        }
        if name == ROUTE.as_bytes() {
            inbound.scope = inbound.scope.and(value);
        } else if decision.is_none() || ![TARGET, CONTEXT].iter().any(|own| own.as_bytes() == name) {
            host::remove_header(HeaderMap::Request, name);
        }
    }
    if inbound.nominates {
        host::set_header(HeaderMap::Request, CONNECTION, "upgrade");
    }
    let Some(decision) = decision else {
        if inbound.scope == Scope::Other {
            host::set_header(HeaderMap::Request, ROUTE, SCOPE_BOOTSTRAP);
        }
        if inbound.baggage > 0 {
            stamp_baggage(&inbound, None);
        }
        return None;
    };
    if inbound.scope != Scope::Unasked {
        host::set_header(HeaderMap::Request, ROUTE, [SCOPE_DECIDED, "/", decision.ruleset].concat());
    }
    decided(&decision, now);
    stamp_baggage(&inbound, Some(&decision));
    if settings.tracing == Tracing::Filter {
        continue_or_start_trace(&inbound, settings.trace_sample.of(&decision));
    }
    let set_cookie = decision.new_unit.and_then(|cookie| Some(cookie.set_cookie(request.fresh_unit()?)));
    Some(Stamped { target: decision.target.to_owned(), set_cookie })
}

/// The route scope that a request comes with. Where scopes are in use, the proxy has set the one of its bootstrap before
/// any filter; where routes match the target alone, there is none, and none is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// There is no such header.
    Unasked,
    /// The bootstrap's.
    Bootstrap,
    /// Whatever else a client can have sent.
    Other,
}

impl Scope {
    /// With one more header of that name.
    fn and(self, value: &[u8]) -> Self {
        match self {
            Self::Unasked if value == SCOPE_BOOTSTRAP.as_bytes() => Self::Bootstrap,
            _ => Self::Other,
        }
    }
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

/// What of the request's headers concerns the stamp: how many there are about its trace, each of which can have come in
/// several lines, its scope, and what is said about its connection.
struct Inbound<'a> {
    headers: &'a Headers,
    scope: Scope,
    /// The first one.
    traceparent: Option<&'a [u8]>,
    traceparents: usize,
    tracestate: usize,
    baggage: usize,
    /// Whether a `connection` header asks for more than an upgrade.
    nominates: bool,
}

impl<'a> Inbound<'a> {
    fn new(headers: &'a Headers) -> Self {
        Self {
            headers,
            scope: Scope::Unasked,
            traceparent: None,
            traceparents: 0,
            tracestate: 0,
            baggage: 0,
            nominates: false,
        }
    }

    /// Whether the header is one of these. Their lengths tell them from most others.
    #[inline]
    fn keep(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let count = match name.len() {
            7 if name == baggage::HEADER.as_bytes() => &mut self.baggage,
            10 if name == trace::TRACESTATE.as_bytes() => &mut self.tracestate,
            10 if name == CONNECTION.as_bytes() => {
                self.nominates |= nominates(value);
                return true;
            }
            11 if name == trace::TRACEPARENT.as_bytes() => {
                self.traceparent.get_or_insert(value);
                &mut self.traceparents
            }
            _ => return false,
        };
        *count = count.saturating_add(1);
        true
    }

    /// The values of a header, of which there are `count`.
    fn lines(&self, name: &str, count: usize) -> impl Iterator<Item = &'a [u8]> {
        let of_name = move |(other, value): (&[u8], &'a [u8])| (other == name.as_bytes()).then_some(value);
        self.headers.iter().filter_map(of_name).take(count)
    }
}

fn decided(decision: &Decision<'_>, now: Timestamp) {
    host::set_header(HeaderMap::Request, TARGET, decision.target);
    host::set_header(HeaderMap::Request, CONTEXT, context::header_value(decision, now.unix_millis()));
    host::set_property(context::PROPERTY, context::access_log_value(decision));
}

/// Adds the decision to the client's baggage, where it travels further than headers of ours.
fn stamp_baggage(inbound: &Inbound<'_>, decision: Option<&Decision<'_>>) {
    let decision = decision.map(|decision| (decision.target, decision.revision));
    match baggage::header_value(inbound.lines(baggage::HEADER, inbound.baggage), decision) {
        Some(value) => host::set_header(HeaderMap::Request, baggage::HEADER, value),
        None => host::remove_header(HeaderMap::Request, baggage::HEADER.as_bytes()),
    }
}

/// A valid `traceparent` is left alone, and so is its `tracestate`, unless that does not parse. Otherwise a trace
/// starts here, sampled if it is among such a share; the `tracestate` of a trace that cannot be continued goes.
fn continue_or_start_trace(inbound: &Inbound<'_>, share: f64) {
    let keeps_state = if let (Some(traceparent), 1) = (inbound.traceparent, inbound.traceparents)
        && trace::is_valid_traceparent(traceparent)
    {
        trace::is_valid_tracestate(inbound.lines(trace::TRACESTATE, inbound.tracestate))
    } else if let Ok(random) = host::random() {
        host::set_header(HeaderMap::Request, trace::TRACEPARENT, trace::new_traceparent(&random, share));
        false
    } else {
        // Without randomness there is no trace, but there is an answer.
        true
    };
    if !keeps_state && inbound.tracestate > 0 {
        host::remove_header(HeaderMap::Request, trace::TRACESTATE.as_bytes());
    }
}
