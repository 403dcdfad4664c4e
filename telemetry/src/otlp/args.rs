//! The flags of both binaries that say where spans and metrics go. Their environment variables are OpenTelemetry's own.

use axum::http::{HeaderName, HeaderValue, Uri, header};
use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};
use std::ffi::OsStr;

/// The variable with headers for the collector: a token, for example. No flag, so that it stands in no list of processes.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// Names of headers that say how messages are sent. Who sends them sets these; of two values no collector would take either.
const OF_THE_TRANSPORT: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

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
        value_parser = Address,
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
    #[arg(long, env = "OTEL_METRIC_EXPORT_INTERVAL", value_name = "MILLISECONDS", default_value = "60000", value_parser = interval, allow_negative_numbers = true, display_order = 800)]
    pub otlp_metrics_interval: u64,
}

/// OpenTelemetry has it that a variable that is set to nothing counts as unset.
fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "" | "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::Http),
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

/// Where spans and metrics go: what the settings come to.
#[derive(Debug)]
pub struct Collector {
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Milliseconds between two pushes of metrics; 0 for none.
    pub(super) metrics_interval: u64,
}

impl OtlpArgs {
    /// The collector; nothing when there is none. To be asked for before anything that takes long.
    ///
    /// # Errors
    /// What is wrong with the settings together, or with the headers of the environment; their values are not repeated.
    pub fn collector(&self) -> Result<Option<Collector>, String> {
        let Some(text) = self.otlp_endpoint.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if is_disabled() {
            tracing::info!("spans and metrics go nowhere: OTEL_SDK_DISABLED is true");
            return Ok(None);
        }
        let endpoint = text.trim_end_matches('/').to_owned();
        let path = address(text).map_err(|problem| format!("--otlp-endpoint: {problem}"))?.path().to_owned();
        if self.otlp_protocol == Protocol::Grpc && path != "/" {
            return Err("--otlp-endpoint: there is something behind the port, which only --otlp-protocol http/protobuf has a \
                        use for; give http://HOST:PORT"
                .into());
        }
        let headers = headers(&std::env::var(HEADERS).unwrap_or_default())?;
        let (protocol, metrics_interval) = (self.otlp_protocol, self.otlp_metrics_interval);
        Ok(Some(Collector { endpoint, protocol, headers, metrics_interval }))
    }
}

/// Whether the environment has it that nothing is sent, whatever else it says.
fn is_disabled() -> bool {
    std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Takes the address of a collector. A function would have what it refuses repeated, and there may be a password in it.
#[derive(Clone, Debug)]
struct Address;

impl TypedValueParser for Address {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        let text = value.to_str().unwrap_or("\u{fffd}");
        if text.is_empty() || is_disabled() {
            return Ok(text.to_owned());
        }
        address(text).map(|_| text.to_owned()).map_err(|problem| {
            let flag = arg.map(ToString::to_string).unwrap_or_default();
            let problem = format!("invalid value for '{flag}': {problem}\n");
            clap::Error::raw(ErrorKind::ValueValidation, problem).with_cmd(command)
        })
    }
}

/// Where a collector can be reached.
fn address(text: &str) -> Result<Uri, String> {
    if !text.contains("://") {
        let whole = format!("http://{text}");
        let hint = if address(&whole).is_ok() { &whole } else { "http://HOST:PORT" };
        return Err(format!("http:// is missing; give {hint}"));
    }
    let wrong = |problem: &str| format!("{problem}; give http://HOST:PORT");
    let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("only http is spoken; have a collector beside this program go on with TLS"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong(&format!("a password does not belong into it but, as a header, into {HEADERS}")));
    }
    if authority.host().is_empty() || authority.as_str() != authority.host() && uri.port_u16().is_none() {
        return Err(wrong("its host or port is none"));
    }
    if uri.query().is_some() {
        return Err(wrong("there is something behind the port"));
    }
    Ok(uri)
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
        let number = index + 1;
        let (name, value) =
            parse().ok_or_else(|| format!("{HEADERS}: header {number} is not of the form name=value"))?;
        if is_of_the_transport(&name) {
            return Err(format!(
                "{HEADERS}: header {number}, {name}, is for whoever sends the messages to set"
            ));
        }
        Ok((name, value))
    };
    members.enumerate().map(header).collect()
}

fn is_of_the_transport(name: &HeaderName) -> bool {
    OF_THE_TRANSPORT.contains(name) || name.as_str().starts_with("grpc-")
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
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        otlp: OtlpArgs,
    }

    /// Where the messages go, or what the program says.
    fn endpoint(line: &[&str]) -> Result<Option<String>, String> {
        let line = ["program"].iter().chain(line);
        let program = Program::try_parse_from(line).map_err(|error| error.to_string())?;
        Ok(program.otlp.collector()?.map(|collector| collector.endpoint))
    }

    #[test]
    fn endpoints() {
        let url = "http://127.0.0.1:4317";
        assert_eq!(endpoint(&[]), Ok(None));
        assert_eq!(endpoint(&["--otlp-endpoint", url]), Ok(Some(url.into())));
        assert_eq!(endpoint(&["--otlp-endpoint", &format!("{url}/")]), Ok(Some(url.into())));
        let (http, with_path) = ("--otlp-protocol=http/protobuf", format!("{url}/otlp"));
        assert_eq!(endpoint(&[http, "--otlp-endpoint", &format!("{with_path}/")]), Ok(Some(with_path)));
        assert_eq!(endpoint(&["--otlp-endpoint="]), Ok(None));
        for (url, problem) in [
            ("localhost:4317", "http:// is missing; give http://localhost:4317\n"),
            ("collector", "http:// is missing; give http://collector\n"),
            ("[::1]:4317/", "http:// is missing; give http://[::1]:4317/\n"),
            ("me:secret@collector:4317", "http:// is missing; give http://HOST:PORT\n"),
            ("no url", "http:// is missing; give http://HOST:PORT\n"),
            ("https://collector:4317", "only http is spoken"),
            ("http://me:secret@collector:4317", "a password does not belong"),
            ("http://collector:4317/v1/traces", "something behind the port, which only --otlp-protocol"),
            ("http://collector:4317?a", "something behind the port"),
            ("http://no url", "it is no URL"),
            ("http://127.0.0.1:99999", "its host or port is none"),
            ("http://:4317", "its host or port is none"),
        ] {
            let error = endpoint(&["--otlp-endpoint", url]).unwrap_err();
            assert!(error.contains(problem) && !error.contains("secret"), "{url}: {error}");
            assert!(error.contains("--otlp-endpoint"), "{url}: {error}");
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

    /// With one of them every message would fail.
    #[test]
    fn headers_that_say_how_messages_are_sent_are_refused() {
        for name in [
            "content-length",
            "Content-Type",
            "content-encoding",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "HOST",
            "te",
            "trailer",
            "upgrade",
            "grpc-timeout",
            "grpc-encoding",
            "proxy-connection",
        ] {
            let error = headers(&format!("api-key=a,{name}=secret")).unwrap_err();
            assert!(
                error.starts_with(&format!("{HEADERS}: header 2, {}, is", name.to_lowercase())),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
        headers("grpcx=1,content-x=2,authorization=Bearer%20a").unwrap();
    }

    #[test]
    fn what_is_set_to_nothing_counts_as_unset() {
        assert_eq!([protocol(""), protocol("http/protobuf")], [Ok(Protocol::Grpc), Ok(Protocol::Http)]);
        assert_eq!([interval(""), interval("0"), interval("86400000")], [Ok(60_000), Ok(0), Ok(86_400_000)]);
        for unknown in ["http", "http/json", "GRPC"] {
            protocol(unknown).unwrap_err();
        }
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
