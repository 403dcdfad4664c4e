//! Logs with one JSON object per line, as Envoy writes them.

use super::{
    super::lines::read_line,
    input::{Bad, MAX_RECORD_BYTES, Reader},
    record::Record,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    io::{BufReader, Read},
    rc::Rc,
};

/// Reads line by line. Empty lines are no records.
pub(super) struct JsonLines<R> {
    input: BufReader<R>,
    position: Rc<Cell<u64>>,
    line: Vec<u8>,
    number: u64,
}

impl<R: Read> JsonLines<R> {
    /// `position` counts the bytes that `input` has taken from its file.
    pub(super) fn new(input: R, position: Rc<Cell<u64>>) -> Self {
        Self { input: BufReader::with_capacity(64 << 10, input), position, line: Vec::new(), number: 0 }
    }
}

impl<R: Read> Reader for JsonLines<R> {
    fn next(&mut self, record: &mut Record<'_>) -> Result<bool, Bad> {
        loop {
            self.number += 1;
            record.clear();
            match read_line(&mut self.input, MAX_RECORD_BYTES, &mut self.line) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(Bad::Rest(format!("cannot be read further: {error}"))),
            }
            if self.line.len() > MAX_RECORD_BYTES {
                return Err(Bad::Record(format!("is longer than {MAX_RECORD_BYTES} bytes")));
            }
            let line = self.line.trim_ascii();
            // Some writers begin a file with a byte order mark.
            let line =
                if self.number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
            if line.is_empty() {
                continue;
            }
            let text = std::str::from_utf8(line).map_err(|_| Bad::Record("is not UTF-8".into()))?;
            return parse(text, record).map(|()| true).map_err(|error| Bad::Record(describe(&error)));
        }
    }

    fn line(&self) -> u64 {
        self.number
    }

    fn position(&self) -> u64 {
        self.position.get()
    }
}

fn parse(text: &str, record: &mut Record<'_>) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Object { path: "", record }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// The error with its column only: its line is always the first.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    format!("is no JSON object: {text} (column {})", error.column())
}

/// An object whose members are fields. Values are looked at only when they are needed, and numbers keep the
/// text that they have.
struct Object<'a, 'm> {
    path: &'a str,
    record: &'a mut Record<'m>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = members.next_key()? {
            let raw: &RawValue = members.next_value()?;
            self.field(&name, raw.get()).map_err(|error| A::Error::custom(format!("{name:?}: {error}")))?;
        }
        Ok(())
    }
}

impl Object<'_, '_> {
    fn field(&mut self, name: &str, raw: &str) -> serde_json::Result<()> {
        match raw.as_bytes().first() {
            Some(b'"') => {
                let Text(value) = serde_json::from_str(raw)?;
                self.record.push(self.path, name, value.as_bytes());
            }
            Some(b'{') => {
                let path =
                    if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
                if self.record.map().descends(&path) {
                    let object = Object { path: &path, record: self.record };
                    object.deserialize(&mut serde_json::Deserializer::from_str(raw))?;
                }
            }
            // No header has the value null, and a list is no value of one.
            Some(b'[' | b'n') | None => {}
            Some(_) => self.record.push(self.path, name, raw.as_bytes()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::field_map::FieldMap, *};
    use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
    use halftone_rules::Request;
    use std::io::Write;

    /// User ids and errors, with their lines.
    fn read(input: impl Read, mappings: &[&str]) -> Vec<(u64, Result<Option<String>, Bad>)> {
        let map = FieldMap::new(mappings.iter().map(|mapping| mapping.parse().unwrap()).collect());
        let mut record = Record::new(&map);
        let mut lines = JsonLines::new(input, Rc::default());
        let mut read = Vec::new();
        loop {
            let outcome = match lines.next(&mut record) {
                Ok(false) => return read,
                Ok(true) => {
                    Ok(record.header("x-user-id").map(|value| String::from_utf8(value.to_vec()).unwrap()))
                }
                Err(bad) => Err(bad),
            };
            let last = matches!(outcome, Err(Bad::Rest(_)));
            read.push((lines.line(), outcome));
            if last {
                return read;
            }
        }
    }

    fn value(text: &str) -> Result<Option<String>, Bad> {
        Ok(Some(text.into()))
    }

    #[test]
    fn values_become_text() {
        for (line, expected) in [
            (r#"{"x-user-id": "42"}"#, Some("42")),
            (r#"{"x-user-id": 42}"#, Some("42")),
            (r#"{"x-user-id": 123456789012345678901234}"#, Some("123456789012345678901234")),
            (r#"{"x-user-id": 1.50}"#, Some("1.50")),
            (r#"{"x-user-id": true}"#, Some("true")),
            (r#"{"x-user-id": "\u00e4\"b"}"#, Some("ä\"b")),
            (r#"{"x_user_id" : "" }"#, Some("")),
            (r#"{"x-user-id": null}"#, None),
            (r#"{"x-user-id": "-"}"#, None),
            (r#"{"x-user-id": [1]}"#, None),
            (r#"{"headers": {"X-User-Id": 42, "other": {"x": 1}}}"#, Some("42")),
            (r#"{"request_headers": {"x-user-id": "42"}}"#, Some("42")),
            (r#"{"other": {"x-user-id": "42"}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read(line.as_bytes(), &[]), [(1, Ok(expected.map(Into::into)))], "{line}");
        }
        let nested = r#"{"labels": {"user": {"id": 42}}}"#;
        let mapping = "header:x-user-id=labels.user.id";
        assert_eq!(read(nested.as_bytes(), &[mapping]), [(1, value("42"))]);
    }

    #[test]
    fn bad_lines_are_told_and_left_behind() {
        let long = format!("{{\"x-user-id\": \"{}\"}}\n", "x".repeat(MAX_RECORD_BYTES));
        let mut input = b"\xef\xbb\xbf{\"x-user-id\": 1}\r\n\n[1]\n{\"x-user-id\": \"\xff\"}\n".to_vec();
        input.extend_from_slice(b"{\"x-user-id\": 2} {}\n{\"x-user-id\": \"\\ud800\"}\n{\"x-user-id\"");
        input.push(b'\n');
        input.extend_from_slice(long.as_bytes());
        input.extend_from_slice(b"{\"x-user-id\": 3}");
        let read = read(&*input, &[]);
        let reasons: Vec<_> = read
            .iter()
            .map(|(line, outcome)| match outcome {
                Ok(user) => (*line, user.as_deref().unwrap_or_default()),
                Err(Bad::Record(reason)) => (*line, reason.as_str()),
                Err(Bad::Rest(reason)) => panic!("{reason}"),
            })
            .collect();
        for ((line, found), (expected_line, expected)) in reasons.iter().zip([
            (1, "1"),
            (3, "is no JSON object: invalid type: sequence, expected an object (column 0)"),
            (4, "is not UTF-8"),
            (5, "is no JSON object: trailing characters (column 18)"),
            (6, "is no JSON object: \"x-user-id\": "),
            (7, "is no JSON object: EOF while parsing an object (column 12)"),
            (8, "is longer than 1048576 bytes"),
            (9, "3"),
        ]) {
            assert!(*line == expected_line && found.starts_with(expected), "{line}: {found}");
        }
        assert_eq!(reasons.len(), 8);
    }

    #[test]
    fn compressed_logs_may_have_parts_and_be_cut_off() {
        let zip = |text: &str| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let whole = [zip("{\"x-user-id\": 1}\n"), zip("{\"x-user-id\": 2}\n")].concat();
        assert_eq!(read(MultiGzDecoder::new(&*whole), &[]), [(1, value("1")), (2, value("2"))]);
        let cut = &whole[..whole.len() - 4];
        let read = read(MultiGzDecoder::new(cut), &[]);
        assert!(matches!(read.last(), Some((_, Err(Bad::Rest(_))))), "{read:?}");
        assert_eq!(read[0], (1, value("1")));
    }
}
