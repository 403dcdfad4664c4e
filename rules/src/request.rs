//! What the host tells about a request, and where attributes are in it.

use crate::bundle::Source;

/// A request as the host sees it: its headers, with the pseudo-headers `:method`, `:path` and
/// `:authority` of HTTP/2, which every proxy has for HTTP/1 too.
///
/// The evaluator asks for a source at most once per request and ruleset, and only when a rule needs it.
pub trait Request {
    /// The bytes of a header, exactly as the client sent them; `None` when the request does not carry it.
    /// Of a header that is repeated, the first one counts. `name` is in lower case.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

impl Source {
    /// The bytes that the source names in a request.
    #[must_use]
    pub fn read<'a>(&self, request: &'a impl Request) -> Option<&'a [u8]> {
        match self {
            Self::Header(name) => request.header(name),
            Self::Cookie(name) => cookie(request.header("cookie")?, name.as_bytes()),
            Self::Path => request.header(":path")?.split(|&byte| byte == b'?').next(),
            Self::Method => request.header(":method"),
            Self::Host => request.header(":authority"),
        }
    }
}

/// The value of the first cookie of that name, without quotes around it (RFC 6265, section 4.2.1).
fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = header.split(|&byte| byte == b';').find_map(|pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name)?;
        rest.trim_ascii_start().strip_prefix(b"=")
    })?;
    let value = value.trim_ascii();
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(&'static str, &'static [u8]);
    impl Request for One {
        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == self.0).then_some(self.1)
        }
    }

    #[test]
    fn the_path_has_no_query() {
        for (path, expected) in [("/a?b=c?d", "/a"), ("/a", "/a"), ("?", ""), ("", "")] {
            let request = One(":path", path.as_bytes());
            assert_eq!(Source::Path.read(&request), Some(expected.as_bytes()), "{path}");
        }
        assert_eq!(Source::Path.read(&One("path", b"/")), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let request = One("cookie", b"id=; xid=0; uid=1; id=2; ID=3;sid = \"4\" ;broken; =5; last=6=7");
        for (name, expected) in [
            ("id", Some("")),
            ("xid", Some("0")),
            ("ID", Some("3")),
            ("sid", Some("4")),
            ("last", Some("6=7")),
        ] {
            let found = Source::Cookie(name.into()).read(&request).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        for name in ["d", "broken", "i", "nope"] {
            assert_eq!(Source::Cookie(name.into()).read(&request), None, "{name}");
        }
    }
}
