//! The flags of both binaries that say where spans and metrics go. Their environment variables are OpenTelemetry's own.

use axum::http::{HeaderName, HeaderValue, Uri};
use clap::Args;

/// The variable with headers for the collector: a token, for example. No flag, so that it stands in no list of processes.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, port 4317 as a rule.
    #[default]
    Grpc,
    /// Protobuf over HTTP, port 4318 as a rule.
    Http,
}

/// Where spans and metrics go.
#[derive(Args, Clone, Debug)]
pub struct OtlpArgs {
    /// An OpenTelemetry collector that gets spans and metrics, http://HOST:PORT; without it nothing is sent. Headers for it, such as
    /// a token, are in OTEL_EXPORTER_OTLP_HEADERS.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        hide_env_values = true,
        display_order = 800
    )]
    pub otlp_endpoint: Option<String>,

    /// How the collector is spoken to: grpc, or http/protobuf.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_name = "PROTOCOL",
        value_parser = protocol,
        default_value = "grpc",
        display_order = 800
    )]
    pub otlp_protocol: Protocol,

    /// How often metrics are sent; 0 for never, where Prometheus reads them.
    #[arg(long, env = "OTEL_METRIC_EXPORT_INTERVAL", value_name = "MILLISECONDS", default_value = "60000", value_parser = interval, display_order = 800)]
    pub otlp_metrics_interval: u64,

    /// The share of traces that begin in this program and are recorded, from 0 to 1. Of those that come with a request, its
    /// `traceparent` says whether they are.
    #[arg(long, env = "HALFTONE_TRACE_SAMPLE", value_name = "SHARE", default_value_t = 1.0, value_parser = share, display_order = 800)]
    pub trace_sample: f64,

    /// How many requests per second are recorded, at most, whose traces begin in this program or in the filter before it; and as many
    /// more that a rule took, such as a candidate's. Traces that clients sample are not limited.
    #[arg(
        long,
        env = "HALFTONE_TRACE_LIMIT",
        value_name = "PER-SECOND",
        default_value_t = 200,
        display_order = 800
    )]
    pub trace_limit: u32,
}

/// OpenTelemetry has it that a variable that is set to nothing counts as unset.
fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "" | "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" | "http" => Ok(Protocol::Http),
        _ => Err("it is neither grpc nor http/protobuf".into()),
    }
}

/// Milliseconds, a day at most.
fn interval(text: &str) -> Result<u64, String> {
    const DAY: u64 = 86_400_000;
    if text.is_empty() {
        return Ok(60_000);
    }
    let interval = text.parse().ok().filter(|interval| *interval <= DAY);
    interval.ok_or_else(|| format!("it is no number of milliseconds up to {DAY}"))
}

/// A number from 0 to 1.
///
/// # Errors
/// When it is none.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it is a share of all, a number from 0 to 1".into())
}

impl OtlpArgs {
    /// The collector's address without a slash at its end; nothing when there is none.
    ///
    /// # Errors
    /// When it is no address that can be reached.
    pub(super) fn endpoint(&self) -> Result<Option<String>, String> {
        let disabled =
            std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(text) = self.otlp_endpoint.as_deref().filter(|text| !text.is_empty() && !disabled) else {
            return Ok(None);
        };
        let wrong = |problem: &str| format!("--otlp-endpoint: {problem}; give http://HOST:PORT");
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http is spoken; have a collector beside this program go on with TLS"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(&format!(
                "a password does not belong into it but, as a header, into {HEADERS}"
            )));
        }
        if authority.host().is_empty() || authority.as_str() != authority.host() && uri.port_u16().is_none() {
            return Err(wrong("its host or port is none"));
        }
        if uri.query().is_some() || (self.otlp_protocol == Protocol::Grpc && uri.path() != "/") {
            return Err(wrong("there is something behind the port"));
        }
        Ok(Some(text.trim_end_matches('/').to_owned()))
    }

    /// What goes with every message.
    ///
    /// # Errors
    /// When a header is wrong; its value is not repeated.
    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        headers(&std::env::var(HEADERS).unwrap_or_default())
    }
}

/// `name=value,name=value`, the values percent-encoded.
fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let header = |(index, member): (usize, &str)| {
        let parse = || {
            let (name, value) = member.split_once('=')?;
            let name = HeaderName::try_from(name.trim()).ok()?;
            let mut value = HeaderValue::from_bytes(&decode(value.trim())?).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        parse().ok_or_else(|| format!("{HEADERS}: header {} is not of the form name=value", index + 1))
    };
    members.enumerate().map(header).collect()
}

fn decode(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, otlp_protocol: Protocol) -> Result<Option<String>, String> {
        let otlp_endpoint = Some(url.to_owned());
        let (otlp_metrics_interval, trace_sample, trace_limit) = (0, 1.0, 1);
        OtlpArgs { otlp_endpoint, otlp_protocol, otlp_metrics_interval, trace_sample, trace_limit }.endpoint()
    }

    #[test]
    fn endpoints() {
        let url = "http://127.0.0.1:4317";
        assert_eq!(endpoint(url, Protocol::Grpc), Ok(Some(url.into())));
        assert_eq!(endpoint(&format!("{url}/"), Protocol::Grpc), Ok(Some(url.into())));
        assert_eq!(endpoint(&format!("{url}/otlp/"), Protocol::Http), Ok(Some(format!("{url}/otlp"))));
        assert_eq!(endpoint("", Protocol::Grpc), Ok(None));
        for (url, problem) in [
            ("127.0.0.1:4317", "give http://HOST:PORT"),
            ("https://collector:4317", "only http is spoken"),
            ("http://me:secret@collector:4317", "a password does not belong"),
            ("http://collector:4317/v1/traces", "something behind the port"),
            ("http://collector:4317?a", "something behind the port"),
            ("no url", "it is no URL"),
            ("http://127.0.0.1:99999", "its host or port is none"),
            ("http://:4317", "its host or port is none"),
        ] {
            let error = endpoint(url, Protocol::Grpc).unwrap_err();
            assert!(error.contains(problem) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn headers_of_the_environment() {
        let read = headers("api-key=a%20b%3D, x-tenant = t=1 ,").unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(read, [("api-key", &b"a b="[..]), ("x-tenant", b"t=1")]);
        for wrong in ["secret", "a=1,=secret", "a=secret%2", "a=secret%0a", "a=secret%zz"] {
            let error = headers(wrong).unwrap_err();
            assert!(error.starts_with(HEADERS) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_set_to_nothing_counts_as_unset() {
        assert_eq!([protocol(""), protocol("http/protobuf")], [Ok(Protocol::Grpc), Ok(Protocol::Http)]);
        assert_eq!([interval(""), interval("0"), interval("86400000")], [Ok(60_000), Ok(0), Ok(86_400_000)]);
        protocol("http/json").unwrap_err();
        interval("86400001").unwrap_err();
    }

    #[test]
    fn shares() {
        assert_eq!([share("0"), share("0.25"), share("1")], [Ok(0.0), Ok(0.25), Ok(1.0)]);
        for wrong in ["", "-0.1", "1.1", "NaN", "10%"] {
            share(wrong).unwrap_err();
        }
    }
}
