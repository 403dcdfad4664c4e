//! The headers that a ruleset reads, found in one pass over all that a request has.

use crate::{bundle::Attribute, limits::MAX_ATTRIBUTES};
use arrayvec::ArrayVec;

/// Names of this length and more share a place in the table.
const LENGTHS: usize = 31;

/// What the headers of a request hold, at the places that [`WantedHeaders`] gives them.
pub(crate) type FoundHeaders<'a> = ArrayVec<Option<&'a [u8]>, MAX_ATTRIBUTES>;

/// The names of the headers that a ruleset's attributes come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedHeaders {
    names: Vec<Name>,
    /// The place of the first name of each length. Most headers are not wanted, and most of those are seen not to be by
    /// this alone.
    by_length: [Option<u8>; LENGTHS + 1],
    /// For each attribute, the place of its header in `names`.
    places: Vec<Option<u8>>,
}

#[derive(Clone, Debug)]
struct Name {
    name: Box<[u8]>,
    /// The place of another name of this length.
    next: Option<u8>,
}

impl WantedHeaders {
    /// The headers of the attributes, of which there are at most [`MAX_ATTRIBUTES`].
    pub(crate) fn new(attributes: &[Attribute]) -> Self {
        let mut wanted = Self::default();
        wanted.places =
            attributes.iter().map(|attribute| wanted.add(attribute.source.header_name()?)).collect();
        wanted
    }

    fn add(&mut self, name: &str) -> Option<u8> {
        let known = self.names.iter().position(|other| *other.name == *name.as_bytes());
        let place = u8::try_from(known.unwrap_or(self.names.len())).ok()?;
        if known.is_none() {
            let first = self.by_length.get_mut(name.len().min(LENGTHS))?;
            self.names.push(Name { name: name.as_bytes().into(), next: first.replace(place) });
        }
        Some(place)
    }

    /// The place of the header that an attribute comes from, when it comes from one.
    #[inline]
    pub(crate) fn place(&self, attribute: usize) -> Option<usize> {
        self.places.get(attribute).copied().flatten().map(usize::from)
    }

    /// Goes through a request's headers. Of one that is repeated, the first counts.
    pub(crate) fn find<'a>(
        &self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        found: &mut FoundHeaders<'a>,
    ) {
        found.extend(self.names.iter().take(MAX_ATTRIBUTES).map(|_| None));
        let found = found.as_mut_slice();
        for (name, value) in headers {
            let mut candidate = self.by_length.get(name.len().min(LENGTHS)).copied().flatten();
            while let Some(place) = candidate {
                let Some(wanted) = self.names.get(usize::from(place)) else { break };
                // The end first: names start alike.
                if wanted.name.last() == name.last() && *wanted.name == *name {
                    if let Some(slot @ None) = found.get_mut(usize::from(place)) {
                        *slot = Some(value);
                    }
                    break;
                }
                candidate = wanted.next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, Type};

    #[test]
    fn each_header_is_found_where_it_first_stands() {
        let long = "x-".to_owned() + &"long-".repeat(20);
        let header = |name: &str| Source::Header(name.into());
        let sources = [
            header("x-tenant"),
            Source::Cookie("id".into()),
            header("x-tier"),
            Source::ClientAddress,
            Source::Path,
            header(&long),
            Source::Query("q".into()),
            header("x-absent"),
            header(""),
        ];
        let attributes = sources.map(|source| Attribute { name: "a".into(), source, ty: Type::String });
        let wanted = WantedHeaders::new(&attributes);
        let headers = [
            ("x-tenanu", "0"),
            (long.as_str(), "1"),
            ("cookie", "2"),
            (":path", "3"),
            ("x-tenant", "4"),
            ("x-tenant", "5"),
            ("x-tier", "6"),
            (&(long.clone() + "er"), "7"),
            ("", "8"),
        ];
        let mut found = FoundHeaders::new();
        wanted.find(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &mut found);
        let values: Vec<Option<&[u8]>> =
            (0..attributes.len()).map(|at| found.get(wanted.place(at)?).copied().flatten()).collect();
        let expected =
            [Some("4"), Some("2"), Some("6"), None, Some("3"), Some("1"), Some("3"), None, Some("8")];
        assert_eq!(values, expected.map(|value| value.map(str::as_bytes)));
        assert_eq!(wanted.place(3), None, "no header has the client's address");
    }
}
