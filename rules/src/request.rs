//! What the host tells about a request, and where attributes are in it.

use crate::{
    anonymous::{self, AnonymousUnit, UnitCookie},
    bundle::{Attribute, Ruleset, Source},
    isa::AttributeId,
    limits::MAX_VALUE_BYTES,
    value::{EvalError, Value},
};

/// A request as the host sees it: its headers, with the pseudo-headers `:method`, `:path` and
/// `:authority` of HTTP/2, which every proxy has for HTTP/1 too.
///
/// The evaluator asks for an attribute at most once per request, and only when a rule needs it.
pub trait Request {
    /// The bytes of a header, exactly as the client sent them; `None` when the request does not carry it.
    /// Of a header that is repeated, the first one counts. `name` is in lower case.
    fn header(&self, name: &str) -> Option<&[u8]>;

    /// All headers in order, their names in lower case. Where a host has them in a list, one pass over it is cheaper
    /// than a search for each attribute. `None` when the host looks headers up by their names, or knows attributes
    /// without them.
    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        None::<std::iter::Empty<_>>
    }

    /// The address that the request's connection comes from, with or without a port.
    fn client_address(&self) -> Option<&[u8]> {
        None
    }

    /// A property of the proxy by the path of its name, in the proxy's form.
    fn property(&self, _path: &[String]) -> Option<&[u8]> {
        None
    }

    /// A fresh unit for a request that has none, where its ruleset asks for one. The host has the client keep it: see
    /// [`Decision::new_unit`](crate::Decision::new_unit). `None` when the host cannot do that.
    fn fresh_unit(&self) -> Option<&AnonymousUnit> {
        None
    }

    /// The target that somebody who may do so demands for this request in this ruleset: the host has checked the
    /// [token](crate::token).
    fn demanded_target(&self, _ruleset: &str) -> Option<&str> {
        None
    }

    /// The unit that the request brings: the attribute, or else the cookie that the ruleset keeps units in. An empty
    /// one is none.
    fn unit(&self, ruleset: &Ruleset) -> Option<&[u8]> {
        let attribute = ruleset.attributes.get(usize::from(ruleset.unit.0));
        let unit = attribute.and_then(|unit| self.attribute(unit)).filter(|unit| !unit.is_empty());
        unit.or_else(|| kept_unit(self, ruleset.unit_cookie.as_ref()?))
    }

    /// The value of an attribute, whose place in its ruleset is `id`. Hosts that have values instead of bytes answer
    /// here themselves; the value's type has to be the attribute's.
    fn value<'a>(&'a self, _id: AttributeId, attribute: &Attribute) -> Value<'a> {
        read(attribute, self.attribute(attribute))
    }

    /// The bytes of an attribute. Hosts that know attributes by their names answer here themselves.
    fn attribute(&self, attribute: &Attribute) -> Option<&[u8]> {
        match &attribute.source {
            Source::ClientAddress => self.client_address(),
            Source::Property(path) => self.property(path),
            source => within(source, self.header(source.header_name()?)?),
        }
    }
}

/// The unit that a client keeps for us.
pub(crate) fn kept_unit<'a>(request: &'a (impl Request + ?Sized), kept: &UnitCookie) -> Option<&'a [u8]> {
    // Not the first one, whatever it holds: another site of the same domain can have set a cookie of that name, which
    // would give the client a new unit with each request.
    cookies(request.header("cookie")?, kept.name.as_bytes()).find_map(anonymous::known)
}

/// What an attribute's bytes mean.
#[inline]
pub(crate) fn read<'a>(attribute: &Attribute, bytes: Option<&'a [u8]>) -> Value<'a> {
    match bytes {
        None => Value::Error(EvalError::Missing),
        Some(bytes) if bytes.len() > MAX_VALUE_BYTES => Value::Error(EvalError::TooLong),
        Some(bytes) if matches!(attribute.source, Source::Property(_)) => attribute.ty.parse_property(bytes),
        Some(bytes) => attribute.ty.parse(bytes),
    }
}

/// What a source finds in the header that it is read from.
#[inline]
pub(crate) fn within<'a>(source: &Source, header: &'a [u8]) -> Option<&'a [u8]> {
    match source {
        Source::Cookie(name) => cookie(header, name.as_bytes()),
        Source::Path => without_query(header),
        Source::Query(name) => parameter(header, name.as_bytes()),
        _ => Some(header),
    }
}

/// The path without the query.
pub(crate) fn path<R: Request + ?Sized>(request: &R) -> Option<&[u8]> {
    without_query(request.header(":path")?)
}

fn without_query(path: &[u8]) -> Option<&[u8]> {
    path.split(|&byte| byte == b'?').next()
}

/// The value of the first parameter of that name in the query of a path. Nothing is decoded: that would
/// need memory of its own for each request.
fn parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let question = path.iter().position(|&byte| byte == b'?')?;
    let query = path.get(question.checked_add(1)?..)?;
    let query = query.split(|&byte| byte == b'#').next()?;
    query.split(|&byte| byte == b'&').find_map(|pair| match pair.strip_prefix(name)? {
        [] => Some(&[][..]),
        rest => rest.strip_prefix(b"="),
    })
}

/// The value of the first cookie of that name, without quotes around it (RFC 6265, section 4.2.1).
fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies(header, name).next()
}

/// The values of all cookies of that name.
fn cookies<'a>(header: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    header.split(|&byte| byte == b';').filter_map(move |pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name)?;
        let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
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

    fn read(source: Source, request: &One) -> Option<&[u8]> {
        request.attribute(&Attribute { name: "a".into(), source, ty: crate::Type::String })
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let request = One(":path", b"/a?tier=gold&tier=free&x=1=2&flag&xtier=0&e=#tail=1");
        for (name, expected) in [
            ("tier", Some("gold")),
            ("x", Some("1=2")),
            ("flag", Some("")),
            ("e", Some("")),
            ("tail", None),
            ("ier", None),
            ("/a", None),
        ] {
            let found = read(Source::Query(name.into()), &request).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        assert_eq!(read(Source::Query("a".into()), &One(":path", b"/a")), None);
    }

    #[test]
    fn the_path_has_no_query() {
        for (path, expected) in [("/a?b=c?d", "/a"), ("/a", "/a"), ("?", ""), ("", "")] {
            let request = One(":path", path.as_bytes());
            assert_eq!(read(Source::Path, &request), Some(expected.as_bytes()), "{path}");
        }
        assert_eq!(read(Source::Path, &One("path", b"/")), None);
    }

    #[test]
    fn a_kept_unit_is_found_behind_other_cookies_of_its_name() {
        let kept = UnitCookie {
            name: "unit".into(),
            max_age_seconds: 0,
            same_site: anonymous::SameSite::Lax,
            secure: false,
        };
        let unit = |cookies| kept_unit(&One("cookie", cookies), &kept).map(String::from_utf8_lossy);
        let ours = "0123456789abcdef0123456789abcdef";
        assert_eq!(unit(b"unit=42; unit=\"0123456789abcdef0123456789abcdef\"").as_deref(), Some(ours));
        assert_eq!(
            unit(b"unit=0123456789abcdef0123456789abcdef; unit=ffffffffffffffffffffffffffffffff").as_deref(),
            Some(ours)
        );
        assert_eq!(unit(b"unit=42; unit="), None);
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
            let found = read(Source::Cookie(name.into()), &request).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        for name in ["d", "broken", "i", "nope"] {
            assert_eq!(read(Source::Cookie(name.into()), &request), None, "{name}");
        }
    }
}
