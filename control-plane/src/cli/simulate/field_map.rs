//! Which field of a log is which part of a request.

use std::str::FromStr;

/// A part of a request that a log may name in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Method,
    Path,
    Authority,
    Time,
    ClientAddress,
    /// A header, its name in lower case.
    Header(String),
}

/// `--map PART=FIELD`: the field that holds a part, instead of the usual ones.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    part: Part,
    field: String,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (part, field) = text.split_once('=').ok_or("write PART=FIELD, for example path=url")?;
        let part = match part {
            "method" | ":method" => Part::Method,
            "path" | ":path" => Part::Path,
            "authority" | ":authority" | "host" => Part::Authority,
            "time" => Part::Time,
            "client_address" => Part::ClientAddress,
            _ => match part.strip_prefix("header:") {
                Some(name) if !name.is_empty() => Part::Header(name.to_ascii_lowercase()),
                _ => {
                    return Err(format!(
                        "{part:?} is no part of a request: write method, path, authority, time, \
                         client_address, or header:NAME"
                    ));
                }
            },
        };
        Ok(Self { part, field: field.to_owned() })
    }
}

/// All mappings. The first of several for one part whose field is there counts.
#[derive(Debug, Default)]
pub(super) struct FieldMap(Vec<Mapping>);

/// Objects whose members are headers.
const HEADERS: [&str; 2] = ["headers", "request_headers"];

impl FieldMap {
    pub(super) fn new(mappings: Vec<Mapping>) -> Self {
        Self(mappings)
    }

    /// The fields that the user named for a part.
    pub(super) fn fields(&self, part: &Part) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |mapping| mapping.part == *part).map(|mapping| mapping.field.as_str())
    }

    /// The fields that the user named for a header.
    pub(super) fn header_fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let is = move |part: &Part| matches!(part, Part::Header(other) if other == name);
        self.0.iter().filter(move |mapping| is(&mapping.part)).map(|mapping| mapping.field.as_str())
    }

    /// Whether the members of the object `path` matter.
    pub(super) fn descends(&self, path: &str) -> bool {
        let below = |field: &str| field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        is_headers(path) || self.0.iter().any(|mapping| below(&mapping.field))
    }
}

/// Whether the members of an object are headers.
pub(super) fn is_headers(object: &str) -> bool {
    HEADERS.contains(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        let mapping: Mapping = "header:X-User-Id=labels.user".parse().unwrap();
        assert_eq!(mapping.part, Part::Header("x-user-id".into()));
        let map = FieldMap::new(vec![mapping]);
        assert_eq!(map.header_fields("x-user-id").collect::<Vec<_>>(), ["labels.user"]);
        for (path, descends) in
            [("labels", true), ("label", false), ("labels.user", false), ("headers", true), ("other", false)]
        {
            assert_eq!(map.descends(path), descends, "{path}");
        }
        for text in ["path", "query=q", "header:=x", ""] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }
}
