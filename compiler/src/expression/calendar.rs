//! Times and durations as conditions write them.

use halftone_rules::{Timestamp, time::SECOND};

/// Reads a point in time by RFC 3339.
///
/// # Errors
/// What is wrong, in words.
pub fn timestamp(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| format!("{text:?} is not a time by RFC 3339"))?;
    // jiff reads more than RFC 3339; what CEL does not read is refused.
    let has_form =
        text.len() >= 20 && text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
    if !has_form {
        return Err(format!("{text:?} is not a time by RFC 3339"));
    }
    i64::try_from(time.as_nanosecond())
        .map(Timestamp)
        .map_err(|_| "times lie between 1677-09-21 and 2262-04-11".into())
}

/// A time as RFC 3339 in UTC.
pub(crate) fn show_timestamp(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

/// Reads a duration: numbers with the units h, m, s, ms, us and ns. The error says what is wrong.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        let unit: i128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
            return Err(wrong());
        }
        let value = |text: &str| text.parse::<i128>().unwrap_or(0);
        let scale = 10i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        total = total.saturating_add(value(whole) * unit + value(fraction) * unit / scale);
        rest = next;
    }
    i64::try_from(if negative { -total } else { total })
        .map_err(|_| "durations have at most 292 years".into())
}

/// A duration as CEL shows it: seconds.
pub(crate) fn show_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let span = nanoseconds.unsigned_abs();
    let (whole, fraction) = (span / SECOND.unsigned_abs(), span % SECOND.unsigned_abs());
    let fraction = format!("{fraction:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}s"),
        fraction => format!("{sign}{whole}.{fraction}s"),
    }
}

/// Reads a time zone that needs no table: `UTC`, `Z` or an offset, `+02:00`. The answer is in nanoseconds.
pub(crate) fn zone(text: &str) -> Option<i64> {
    if matches!(text, "UTC" | "Z" | "") {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, below: i64| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|value: &i64| digits && *value < below)
    };
    Some(sign * (number(hours, 24)? * 3_600 + number(minutes, 60)? * 60) * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1h30m", Some(5_400 * SECOND)),
            ("-1.5h", Some(-5_400 * SECOND)),
            ("100ms", Some(SECOND / 10)),
            ("1us2ns", Some(1_002)),
            (".5s", Some(SECOND / 2)),
            ("1", None),
            ("", None),
            ("-", None),
            ("1d", None),
            ("s", None),
            ("1.2.3s", None),
            ("99999999h", None),
            ("1 h", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
        for (nanoseconds, text) in
            [(0, "0s"), (-1, "-0.000000001s"), (1_500_000_000, "1.5s"), (i64::MIN, "-9223372036.854775808s")]
        {
            assert_eq!(show_duration(nanoseconds), text);
        }
    }

    #[test]
    fn times() {
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z"), Ok(Timestamp(1_500_000_000)));
        assert_eq!(timestamp("1970-01-01T02:00:00+02:00"), Ok(Timestamp(0)));
        assert_eq!(show_timestamp(Timestamp(1_500_000_000)), "1970-01-01T00:00:01.5Z");
        for text in [
            "",
            "1970-01-01",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert!(timestamp(text).is_err(), "{text}");
        }
        assert_eq!(zone("+02:00"), Some(7_200 * SECOND));
        assert_eq!(zone("-11:30"), Some(-41_400 * SECOND));
        assert_eq!(zone("02:00"), Some(7_200 * SECOND));
        for text in ["Europe/Berlin", "+2", "25:00", "+02:60", "+-2:00"] {
            assert_eq!(zone(text), None, "{text}");
        }
    }
}
