//! A record of a log as a request.

use super::{
    field_map::{FieldMap, Part, is_headers},
    time,
};
use halftone_rules::Request;
use std::ops::Range;

/// The fields of one record, whatever the log's format. One is used for all records, so that its buffers
/// are allocated once.
///
/// How fields become a request is written down for users in [`super::HELP`].
#[derive(Debug)]
pub(super) struct Record<'m> {
    map: &'m FieldMap,
    /// Names and values, one after the other.
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    /// With the names of the objects around it, joined by dots.
    path: Range<usize>,
    /// The last part of the path, when the object around it holds headers.
    header: Option<Range<usize>>,
    value: Range<usize>,
}

/// What Envoy logs for a value that is not there.
const ABSENT: &[u8] = b"-";

/// Envoy keeps the path of the client here when a route rewrites it; the filter sees the client's.
const PATH: &[&str] = &["x-envoy-original-path", ":path", "path"];
const METHOD: &[&str] = &[":method", "method"];
const AUTHORITY: &[&str] = &[":authority", "authority", "host"];
const TIME: &[&str] = &["start_time", "timestamp", "time"];
const CLIENT_ADDRESS: &[&str] =
    &["downstream_remote_address", "client_address", "downstream_direct_remote_address"];
/// Fields with a meaning of their own are no headers.
const NO_HEADERS: &[&str] = &["method", "path", "authority", "host", "start_time", "timestamp", "time"];

impl<'m> Record<'m> {
    pub(super) fn new(map: &'m FieldMap) -> Self {
        Self { map, text: Vec::new(), fields: Vec::new() }
    }

    pub(super) fn map(&self) -> &'m FieldMap {
        self.map
    }

    /// Makes room for the next record.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    /// Adds a field. `object` is the path of the object around it, empty at the top.
    pub(super) fn push(&mut self, object: &str, name: &str, value: &[u8]) {
        if value == ABSENT {
            return;
        }
        let start = self.text.len();
        if !object.is_empty() {
            self.text.extend_from_slice(object.as_bytes());
            self.text.push(b'.');
        }
        let name_start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let end = self.text.len();
        self.text.extend_from_slice(value);
        // A column may be called `headers.x-user-id` in a format without objects.
        let header = if is_headers(object) {
            Some(name_start..end)
        } else {
            let prefix = name.split_once('.').filter(|(first, _)| object.is_empty() && is_headers(first));
            prefix.map(|(first, _)| name_start + first.len() + 1..end)
        };
        self.fields.push(Field { path: start..end, header, value: end..self.text.len() });
    }

    /// When the request was made, in nanoseconds since the Unix epoch, if the record tells.
    ///
    /// # Errors
    /// When the time cannot be read.
    pub(super) fn time(&self) -> Result<Option<i64>, String> {
        let Some(value) = self.part(&Part::Time, TIME) else { return Ok(None) };
        let text = String::from_utf8_lossy(value);
        match time::parse(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!(
                "the time {text:?} is neither RFC 3339 nor seconds or milliseconds since the epoch; \
                 `--map time=FIELD` names another field"
            )),
        }
    }

    /// The client's address, with its port where the log has it.
    #[allow(dead_code, reason = "rules cannot read it yet")]
    fn path(&self) -> Option<&[u8]> {
        let value = self.part(&Part::Path, PATH)?;
        Some(url(value).map_or(value, |(_, path)| path))
    }

    fn authority(&self) -> Option<&[u8]> {
        self.part(&Part::Authority, AUTHORITY)
            .or_else(|| url(self.part(&Part::Path, PATH)?).map(|(authority, _)| authority))
    }

    /// The field that the user named, or else the first of the usual ones.
    fn part(&self, part: &Part, usual: &[&str]) -> Option<&[u8]> {
        let mut named = self.map.fields(part).peekable();
        if named.peek().is_some() {
            return named.find_map(|field| self.field(field));
        }
        usual.iter().find_map(|name| {
            // A header called `time` is not the time of the request.
            let is_header = name.starts_with([':', 'x']) || *name == "host";
            self.find(|field| match &field.header {
                Some(header) => is_header && same_with_dashes(self.bytes(header), name.as_bytes()),
                None => same_with_dashes(self.bytes(&field.path), name.as_bytes()),
            })
        })
    }

    /// The field of that very path.
    fn field(&self, path: &str) -> Option<&[u8]> {
        self.find(|field| self.bytes(&field.path) == path.as_bytes())
    }

    fn find(&self, matches: impl Fn(&Field) -> bool) -> Option<&[u8]> {
        self.fields.iter().find(|field| matches(field)).map(|field| self.bytes(&field.value))
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }
}

impl Request for Record<'_> {
    fn client_address(&self) -> Option<&[u8]> {
        self.part(&Part::ClientAddress, CLIENT_ADDRESS)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":method" => return self.part(&Part::Method, METHOD),
            ":path" => return self.path(),
            ":authority" => return self.authority(),
            _ => {}
        }
        let mut named = self.map.header_fields(name).peekable();
        if named.peek().is_some() {
            return named.find_map(|field| self.field(field));
        }
        let find = |same: fn(&[u8], &[u8]) -> bool| {
            self.find(|field| match &field.header {
                Some(header) => same(self.bytes(header), name.as_bytes()),
                None => !NO_HEADERS.contains(&name) && same(self.bytes(&field.path), name.as_bytes()),
            })
        };
        find(<[u8]>::eq_ignore_ascii_case).or_else(|| find(same_with_dashes))
    }
}

/// Whether a field that writes `_` for `-` means the header `name`: formats often allow no dash in a name.
fn same_with_dashes(field: &[u8], name: &[u8]) -> bool {
    field.len() == name.len()
        && field.iter().zip(name).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-'))
}

/// Authority and path of a whole URL.
fn url(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = value.strip_prefix(b"https://").or_else(|| value.strip_prefix(b"http://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((authority, if path.starts_with(b"/") { path } else { b"/" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request is, when the record has these fields.
    fn ask(mappings: &[&str], fields: &[(&str, &str)], name: &str) -> Option<String> {
        let map = FieldMap::new(mappings.iter().map(|mapping| mapping.parse().unwrap()).collect());
        let mut record = Record::new(&map);
        for (name, value) in fields {
            let (object, name) = name.rsplit_once('/').unwrap_or(("", name));
            record.push(object, name, value.as_bytes());
        }
        let found = match name {
            "time" => record.time().unwrap().map(|time| time.to_string().into_bytes()),
            "client" => record.client_address().map(<[u8]>::to_vec),
            name => record.header(name).map(<[u8]>::to_vec),
        };
        found.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn fields_are_parts_of_a_request() {
        for (fields, name, expected) in [
            (&[("method", "GET")][..], ":method", Some("GET")),
            (&[(":method", "GET")], ":method", Some("GET")),
            (&[("path", "/a?b"), ("x-envoy-original-path", "/c")], ":path", Some("/c")),
            (&[("path", "/a?b"), ("x_envoy_original_path", "-")], ":path", Some("/a?b")),
            (&[("path", "/a?b"), ("x_envoy_original_path", "/c")], ":path", Some("/c")),
            (&[("headers/:path", "/a")], ":path", Some("/a")),
            (&[("headers/path", "/a")], ":path", None),
            (&[("path", "https://h:1/a?b")], ":path", Some("/a?b")),
            (&[("path", "https://h:1/a?b")], ":authority", Some("h:1")),
            (&[("path", "http://h?b")], ":path", Some("/")),
            (&[("path", "http://h")], ":path", Some("/")),
            (&[("path", "http://h"), ("Host", "other")], ":authority", Some("other")),
            (&[("authority", "a"), ("host", "b")], ":authority", Some("a")),
            (&[("headers/host", "b")], ":authority", Some("b")),
            (&[("X-User-Id", "42")], "x-user-id", Some("42")),
            (&[("x_user_id", "42")], "x-user-id", Some("42")),
            (&[("x_user_id", "42")], "x_user_id", Some("42")),
            (&[("x_user_id", "42"), ("x-user-id", "43")], "x-user-id", Some("43")),
            (&[("x-user-id", "42")], "x_user_id", None),
            (&[("x-user-id", "-")], "x-user-id", None),
            (&[("x-user-id", "")], "x-user-id", Some("")),
            (&[("request_headers/X-User-Id", "42")], "x-user-id", Some("42")),
            (&[("headers.x-user-id", "42")], "x-user-id", Some("42")),
            (&[("headers/x.y", "42")], "x.y", Some("42")),
            (&[("labels/x-user-id", "42")], "x-user-id", None),
            (&[("time", "5")], "time", Some("5000000000")),
            (&[("headers/time", "5")], "time", None),
            (&[("start_time", "1970-01-01T00:00:00.001Z")], "time", Some("1000000")),
            (&[("host", "a")], "host", None),
            (&[("downstream_remote_address", "10.0.0.1:5")], "client", Some("10.0.0.1:5")),
        ] {
            assert_eq!(ask(&[], fields, name).as_deref(), expected, "{name} of {fields:?}");
        }
    }

    #[test]
    fn a_mapping_takes_the_place_of_the_usual_names() {
        for (mapping, fields, name, expected) in [
            ("path=url", &[("url", "/a"), ("path", "/b")][..], ":path", Some("/a")),
            ("path=url", &[("path", "/b")], ":path", None),
            ("host=site", &[("site", "a")], ":authority", Some("a")),
            ("method=verb", &[("verb", "PUT")], ":method", Some("PUT")),
            ("header:x-user-id=user", &[("user", "7"), ("x-user-id", "8")], "x-user-id", Some("7")),
            ("header:x-user-id=user", &[("User", "7")], "x-user-id", None),
            ("header:x-user-id=labels.user", &[("labels/user", "7")], "x-user-id", Some("7")),
            ("header:x-user-id=headers.user", &[("headers/user", "7")], "x-user-id", Some("7")),
            ("time=at", &[("at", "1"), ("time", "12 ms")], "time", Some("1000000000")),
            ("client_address=ip", &[("ip", "::1")], "client", Some("::1")),
        ] {
            assert_eq!(ask(&[mapping], fields, name).as_deref(), expected, "{mapping}: {name} of {fields:?}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_read_is_an_error() {
        let map = FieldMap::default();
        let mut record = Record::new(&map);
        record.push("", "time", b"12 ms");
        assert!(record.time().unwrap_err().contains("\"12 ms\""));
        record.clear();
        assert_eq!(record.time(), Ok(None));
    }
}
