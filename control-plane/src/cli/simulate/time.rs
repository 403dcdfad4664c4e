//! The time of a request, as logs write it.

use chrono::DateTime;

/// Nanoseconds since the Unix epoch.
///
/// RFC 3339, as Envoy's `%START_TIME%`; or a number since the epoch, with a fraction or without: seconds,
/// or milliseconds, microseconds or nanoseconds when it is too large for a time before the year 5138 in the
/// larger unit.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i64 = whole.parse().ok()?;
    // `+` is no digit, but `parse` takes it.
    if whole.starts_with('+') || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit: i64 = match number.unsigned_abs() {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let mut part = unit;
    let mut nanoseconds = 0;
    for digit in fraction.bytes().map(|digit| i64::from(digit - b'0')) {
        part /= 10;
        nanoseconds += digit * part;
    }
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    number.checked_mul(unit)?.checked_add(sign * nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_as_logs_write_them() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(second)),
            ("2026-07-01T12:30:00.250Z", Some(1_782_909_000 * second + 250_000_000)),
            ("2026-07-01 14:30:00.25+02:00", Some(1_782_909_000 * second + 250_000_000)),
            ("1782909000", Some(1_782_909_000 * second)),
            ("1782909000.25", Some(1_782_909_000 * second + 250_000_000)),
            ("1782909000250", Some(1_782_909_000 * second + 250_000_000)),
            ("1782909000250000", Some(1_782_909_000 * second + 250_000_000)),
            ("1782909000250000001", Some(1_782_909_000 * second + 250_000_001)),
            ("-1.5", Some(-1_500_000_000)),
            ("0", Some(0)),
            ("0.12345678901234", Some(123_456_789)),
            ("99999999999", None), // The year 5138: not in 64 bits of nanoseconds.
            ("12 ms", None),
            ("1e9", None),
            ("+5", None),
            ("", None),
            ("yesterday", None),
            ("2026-07-01", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
