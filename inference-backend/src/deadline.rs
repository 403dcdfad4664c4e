//! Until when a request's answer is of use, as its headers tell.

use axum::http::HeaderMap;
use std::time::{Duration, Instant};

/// What Envoy tells upstreams: the milliseconds after which it gives up.
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";
/// What gRPC's clients send: a number of up to eight digits and a unit.
const GRPC: &str = "grpc-timeout";

/// The earliest deadline of those that the headers tell. What is malformed, tells none: it must not cost an answer.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<Instant> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let envoy = text(ENVOY).and_then(milliseconds);
    let grpc = text(GRPC).and_then(grpc_timeout);
    let timeout = envoy.into_iter().chain(grpc).min()?;
    Instant::now().checked_add(timeout)
}

/// Zero is none, as in Envoy.
fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|&milliseconds| milliseconds > 0).map(Duration::from_millis)
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("6000000n", Some(6)),
            ("0m", Some(0)),
            ("999999999m", None),
            ("-1m", None),
            ("+1m", None),
            ("1", None),
            ("m", None),
            ("1.5S", None),
            ("", None),
            ("1é", None),
        ] {
            assert_eq!(grpc_timeout(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn the_earliest_counts() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            HeaderMap::from_iter(pairs)
        };
        let left =
            |pairs| of(&headers(pairs)).map(|deadline| deadline.saturating_duration_since(Instant::now()));
        assert_eq!(left(&[]), None);
        assert_eq!(left(&[(ENVOY, "0"), (GRPC, "soon")]), None);
        assert!(left(&[(ENVOY, "15000")]).unwrap() > Duration::from_secs(10));
        assert!(left(&[(ENVOY, "15000"), (GRPC, "1S")]).unwrap() <= Duration::from_secs(1));
        assert_eq!(left(&[(ENVOY, "18446744073709551616")]), None);
    }
}
