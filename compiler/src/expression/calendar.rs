//! Times and durations as conditions write them.

use halftone_rules::{Timestamp, time::SECOND};

/// Reads a point in time by RFC 3339, with the letters in upper case and without leap seconds as CEL has it.
///
/// # Errors
/// What is wrong, in words.
pub fn timestamp(text: &str) -> Result<Timestamp, String> {
    let wrong = |problem: &str| format!("{text:?} is not a time by RFC 3339: {problem}");
    if let Some(problem) = form_problem(text.as_bytes()) {
        return Err(wrong(problem));
    }
    let out_of_range = || {
        "times lie between 1677-09-21T00:12:44Z and 2262-04-11T23:47:16Z: they are nanoseconds in 64 bits"
            .into()
    };
    // jiff's years end a day before those of RFC 3339.
    if text.starts_with("9999-12-3") {
        return Err(out_of_range());
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong("there is no such day or hour"))?;
    i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| out_of_range())
}

/// What keeps a text from having the form of a time.
fn form_problem(text: &[u8]) -> Option<&'static str> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    for (at, form) in FORM.iter().enumerate() {
        let fits = |byte: &u8| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
        if !text.get(at).is_some_and(fits) {
            return Some(match at {
                ..10 => "it starts with the date, as 2026-01-31",
                10 => "a `T` follows the date",
                _ => "hours, minutes and seconds follow the `T`, as 08:00:00",
            });
        }
    }
    if text.get(17..19) == Some(b"60") {
        return Some("seconds end at 59, there are no leap seconds");
    }
    let mut offset = text.get(FORM.len()..).unwrap_or_default();
    if let [b'.', fraction @ ..] = offset {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return Some("a fraction of a second has one to nine digits");
        }
        offset = fraction.get(digits..).unwrap_or_default();
    }
    let is_offset = match offset {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1 @ b'0'..=b'5', m2] => {
            [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) && [*h1, *h2] < *b"24"
        }
        _ => false,
    };
    (!is_offset).then_some("it ends with `Z` or an offset, as +02:00")
}

/// A time as RFC 3339 in UTC.
pub(crate) fn show_timestamp(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

/// Reads a duration: numbers with the units h, m, s, ms, us and ns. The answer is in nanoseconds.
///
/// # Errors
/// What is wrong, in words.
pub fn duration(text: &str) -> Result<i64, String> {
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
        assert_eq!(timestamp("1970-01-01T00:00:00.123456789-00:00"), Ok(Timestamp(123_456_789)));
        assert_eq!(timestamp("2262-04-11T23:47:16Z"), Ok(Timestamp(9_223_372_036 * SECOND)));
        assert_eq!(timestamp("1677-09-21T00:12:44Z"), Ok(Timestamp(-9_223_372_036 * SECOND)));
        for (text, problem) in [
            ("", "it starts with the date, as 2026-01-31"),
            ("tomorrow", "it starts with the date, as 2026-01-31"),
            ("+001970-01-01T00:00:00Z", "it starts with the date, as 2026-01-31"),
            ("19700101T000000Z", "it starts with the date, as 2026-01-31"),
            ("1970-01-01", "a `T` follows the date"),
            ("1970-01-01 00:00:00Z", "a `T` follows the date"),
            ("1970-01-01t00:00:00Z", "a `T` follows the date"),
            ("1970-01-01T00:00Z", "hours, minutes and seconds follow the `T`, as 08:00:00"),
            ("1970-01-01T000000Z", "hours, minutes and seconds follow the `T`, as 08:00:00"),
            ("1970-01-01T0:00:00Z", "hours, minutes and seconds follow the `T`, as 08:00:00"),
            ("2016-12-31T23:59:60Z", "seconds end at 59, there are no leap seconds"),
            ("1970-01-01T00:00:00.Z", "a fraction of a second has one to nine digits"),
            ("1970-01-01T00:00:00.1234567890Z", "a fraction of a second has one to nine digits"),
            ("1970-01-01T00:00:00", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00z", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00,5Z", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+02", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+0200", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+24:00", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+02:60", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+02:00:00", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00+01:00[Europe/Berlin]", "it ends with `Z` or an offset, as +02:00"),
            ("1970-01-01T00:00:00Z ", "it ends with `Z` or an offset, as +02:00"),
            ("1970-13-01T00:00:00Z", "there is no such day or hour"),
            ("1970-02-29T00:00:00Z", "there is no such day or hour"),
            ("1970-01-01T24:00:00Z", "there is no such day or hour"),
        ] {
            let expected = format!("{text:?} is not a time by RFC 3339: {problem}");
            assert_eq!(timestamp(text), Err(expected));
        }
        for text in
            ["0000-01-01T00:00:00Z", "1677-09-21T00:12:43Z", "2262-04-11T23:47:17Z", "9999-12-31T23:59:59Z"]
        {
            let problem = timestamp(text).unwrap_err();
            assert!(problem.starts_with("times lie between 1677-09-21T00:12:44Z and "), "{text}: {problem}");
        }
        assert_eq!(zone("+02:00"), Some(7_200 * SECOND));
        assert_eq!(zone("-11:30"), Some(-41_400 * SECOND));
        assert_eq!(zone("02:00"), Some(7_200 * SECOND));
        for text in ["Europe/Berlin", "+2", "25:00", "+02:60", "+-2:00"] {
            assert_eq!(zone(text), None, "{text}");
        }
    }
}
