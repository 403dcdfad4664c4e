//! Where a target is and how proxies speak to it: what a ruleset says under `targets`, in words that are no proxy's.

use std::{
    fmt::{self, Display, Formatter},
    net::SocketAddr,
    time::Duration,
};

/// A target: where it is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// The target's name.
    pub name: String,
    /// Addresses that serve it. Empty when whoever routes by the headers knows them.
    pub endpoints: Vec<SocketAddr>,
    /// How it is spoken to.
    pub settings: TargetSettings,
}

/// How a target is spoken to. The default is what a target that says nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// How long a request may take, retries included. Zero: no limit.
    pub timeout: Duration,
    /// Which requests are sent once more.
    pub retries: Retries,
    /// How endpoints are asked whether they are well; not at all when `None`.
    pub health_check: Option<HealthCheck>,
    /// Which endpoints are left out for a while.
    pub outlier_detection: OutlierDetection,
    /// How much each proxy sends at the same time.
    pub limits: Limits,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            timeout: Duration::from_secs(15),
            retries: Retries::default(),
            health_check: None,
            outlier_detection: OutlierDetection::default(),
            limits: Limits::default(),
        }
    }
}

/// The HTTP version that a proxy speaks to a target's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Always HTTP/1.1: for endpoints that cannot do HTTP/2 behind proxies that accept it.
    #[default]
    Http1,
    /// Always HTTP/2 in clear text.
    Http2,
    /// The version in which the request came: gRPC stays HTTP/2, plain REST stays HTTP/1.1. Needs endpoints that speak
    /// HTTP/2 in clear text if clients do.
    SameAsClient,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::SameAsClient];

    /// As rulesets write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::SameAsClient => "same-as-client",
        }
    }
}

/// Which requests are sent once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often at most, after the first time.
    pub attempts: u32,
    /// After what. The default is only what cannot have reached a backend: inference need not be idempotent, and a
    /// repeated request would count twice.
    pub on: Vec<RetryOn>,
    /// How long each try may take.
    pub per_try_timeout: Option<Duration>,
}

impl Default for Retries {
    fn default() -> Self {
        let on = RetryOn::WORDS.into_iter().filter(|on| on.is_safe()).collect();
        Self { attempts: 4, on, per_try_timeout: None }
    }
}

/// What a request is sent once more after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection could be made.
    ConnectFailure,
    /// The endpoint refused the HTTP/2 stream before it began to work on it.
    RefusedStream,
    /// The connection ended before any of the request was sent.
    ResetBeforeRequest,
    /// The connection ended without an answer, or a try took too long.
    Reset,
    /// An answer with 502, 503 or 504, or what [`Self::Reset`] has.
    GatewayError,
    /// An answer with any 5xx, or what [`Self::Reset`] has.
    ServerError,
    /// The gRPC status CANCELLED.
    GrpcCancelled,
    /// The gRPC status DEADLINE_EXCEEDED.
    GrpcDeadlineExceeded,
    /// The gRPC status INTERNAL.
    GrpcInternal,
    /// The gRPC status RESOURCE_EXHAUSTED.
    GrpcResourceExhausted,
    /// The gRPC status UNAVAILABLE.
    GrpcUnavailable,
    /// An answer with this status.
    Status(u16),
}

impl RetryOn {
    /// All that have a word.
    pub const WORDS: [Self; 11] = [
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::ResetBeforeRequest,
        Self::Reset,
        Self::GatewayError,
        Self::ServerError,
        Self::GrpcCancelled,
        Self::GrpcDeadlineExceeded,
        Self::GrpcInternal,
        Self::GrpcResourceExhausted,
        Self::GrpcUnavailable,
    ];

    /// As rulesets write it, and Envoy too; a status has none.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::Reset => "reset",
            Self::GatewayError => "gateway-error",
            Self::ServerError => "5xx",
            Self::GrpcCancelled => "cancelled",
            Self::GrpcDeadlineExceeded => "deadline-exceeded",
            Self::GrpcInternal => "internal",
            Self::GrpcResourceExhausted => "resource-exhausted",
            Self::GrpcUnavailable => "unavailable",
            Self::Status(_) => return None,
        })
    }

    /// Whether no backend can have worked on a request of which this came. 429 says just that.
    #[must_use]
    pub fn is_safe(self) -> bool {
        matches!(
            self,
            Self::ConnectFailure | Self::RefusedStream | Self::ResetBeforeRequest | Self::Status(429)
        )
    }

    /// Whether a try that took too long is one of those.
    #[must_use]
    pub fn has_timeouts(self) -> bool {
        matches!(self, Self::Reset | Self::GatewayError | Self::ServerError)
    }
}

impl Display for RetryOn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self, self.word()) {
            (Self::Status(status), _) => write!(f, "{status}"),
            (_, word) => f.write_str(word.unwrap_or_default()),
        }
    }
}

/// How endpoints are asked whether they are well. While one is, those that are not get no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How long after an answer the next question comes.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many good answers in a row bring an endpoint back.
    pub healthy_after: u32,
    /// How many bad answers in a row, or missing ones, take an endpoint out.
    pub unhealthy_after: u32,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path; any 2xx is good.
    Http(String),
    /// gRPC's health service about this service; an empty name stands for the whole server.
    Grpc(String),
}

/// Which endpoints are left out for a while, besides those that cannot be connected to or answer too late twice in a
/// row, which always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// After how many answers with a 5xx in a row; never when `None`: a release's verdict is about answers.
    pub consecutive_5xx: Option<u32>,
    /// For how long, times how often it has been left out.
    pub base_ejection: Duration,
    /// How many of the endpoints at most, in percent.
    pub max_ejected: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self { consecutive_5xx: None, base_ejection: Duration::from_secs(2), max_ejected: 100 }
    }
}

/// How much each proxy sends to a target at the same time; what is beyond is answered at once with 503. Both limits
/// hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whatever the number of endpoints.
    pub total: Concurrency,
    /// For each endpoint there is, so that it follows scaling. Who gets how much of it is up to the balancing.
    pub per_endpoint: Concurrency,
}

impl Limits {
    /// What holds for a target with so many endpoints.
    #[must_use]
    pub fn of(self, endpoints: usize) -> Concurrency {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
        let both = |total: Option<u32>, each: Option<u32>| {
            let scaled = each.map(|each| each.saturating_mul(endpoints));
            total.into_iter().chain(scaled).min()
        };
        Concurrency {
            connections: both(self.total.connections, self.per_endpoint.connections),
            pending: both(self.total.pending, self.per_endpoint.pending),
            requests: both(self.total.requests, self.per_endpoint.requests),
        }
    }
}

/// Things that go on at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concurrency {
    /// Connections.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests, those that wait among them.
    pub requests: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retried_unless_a_ruleset_says_so_cannot_have_reached_a_backend() {
        let words: Vec<_> = Retries::default().on.into_iter().filter_map(RetryOn::word).collect();
        assert_eq!(words, ["connect-failure", "refused-stream", "reset-before-request"]);
    }

    #[test]
    fn limits_follow_the_number_of_endpoints_up_to_the_total() {
        let requests = |requests| Concurrency { requests: Some(requests), ..Concurrency::default() };
        let limits = Limits { total: requests(50), per_endpoint: requests(20) };
        assert_eq!(limits.of(1), requests(20));
        assert_eq!(limits.of(2), requests(40));
        assert_eq!(limits.of(3), requests(50));
        assert_eq!(Limits::default().of(3), Concurrency::default());
    }
}
