//! A request's headers as bytes, read from the host in one call.

use crate::{configuration::Settings, host};
use halftone_rules::{Request, Timestamp, anonymous::AnonymousUnit, headers::PREFIX, token};
use std::cell::OnceCell;

/// Whether a header's name is one of ours, in any spelling that somebody behind the proxy may take for one: CGI and
/// whoever follows it make no difference between `x-halftone-target` and `x_halftone_target`.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    let alike = |(byte, own): (&u8, u8)| *byte == own || own == b'-' && !byte.is_ascii_alphanumeric();
    name.len() >= PREFIX.len() && name.iter().zip(PREFIX.bytes()).all(alike)
}

/// All headers of a request in the ABI's form: the number of headers; for each, the lengths of its name
/// and its value (all `u32`, little-endian); then the names and values, each with a zero byte after it.
pub(crate) struct Headers(Vec<u8>);

impl Headers {
    pub(crate) fn new(pairs: Vec<u8>) -> Self {
        Self(pairs)
    }

    /// Names and values in order. Ends early where the bytes are not in the form.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (sizes, mut data) = self.parts().unwrap_or_default();
        sizes.iter().map_while(move |[name_size, value_size]| {
            let (name, rest) = data.split_at_checked(size(*name_size)?)?;
            let (value, rest) = rest.get(1..)?.split_at_checked(size(*value_size)?)?;
            data = rest.get(1..)?;
            Some((name, value))
        })
    }

    /// The first value of a header, whose name is given in lower case as the host has it.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The sizes of names and values, and what they are the sizes of.
    fn parts(&self) -> Option<(&[[Size; 2]], &[u8])> {
        let (count, rest) = self.0.split_first_chunk()?;
        let sizes = size(*count)?.checked_mul(size_of::<[Size; 2]>())?;
        let (sizes, data) = rest.split_at_checked(sizes)?;
        let (sizes, _) = sizes.as_chunks::<{ size_of::<Size>() }>();
        let (sizes, _) = sizes.as_chunks::<2>();
        Some((sizes, data))
    }
}

/// A number in the ABI's form.
type Size = [u8; 4];

fn size(bytes: Size) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// The current request as the evaluator sees it: its headers, and what the host says when it is asked.
pub(crate) struct CurrentRequest<'a> {
    headers: &'a Headers,
    settings: &'a Settings,
    now: Timestamp,
    answers: Answers,
    fresh_unit: OnceCell<Option<AnonymousUnit>>,
}

impl<'a> CurrentRequest<'a> {
    pub(crate) fn new(headers: &'a Headers, settings: &'a Settings, now: Timestamp) -> Self {
        let (answers, fresh_unit) = (Answers::default(), OnceCell::new());
        Self { headers, settings, now, answers, fresh_unit }
    }

    fn ask(&self, path: &str) -> Option<&[u8]> {
        host::property(path).ok().map(|answer| self.answers.keep(answer))
    }
}

impl Request for CurrentRequest<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name.as_bytes())
    }

    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        Some(self.headers.iter())
    }

    fn client_address(&self) -> Option<&[u8]> {
        self.ask("source\0address")
    }

    fn property(&self, path: &[String]) -> Option<&[u8]> {
        self.ask(&path.join("\0"))
    }

    fn fresh_unit(&self) -> Option<&AnonymousUnit> {
        self.fresh_unit.get_or_init(|| host::random().ok().map(AnonymousUnit::new)).as_ref()
    }

    fn demanded_target(&self, ruleset: &str) -> Option<&str> {
        if self.settings.overrides.is_empty() {
            return None;
        }
        self.settings.overrides.demanded(self.headers.get(token::HEADER.as_bytes())?, ruleset, self.now)
    }
}

/// The host's answers during one request, kept as long as the request: the evaluator borrows them. A chain, so that
/// each stays in its place when the next one comes.
#[derive(Default)]
struct Answers(OnceCell<(Vec<u8>, Box<Self>)>);

impl Answers {
    fn keep(&self, answer: Vec<u8>) -> &[u8] {
        let mut end = self;
        while let Some((_, next)) = end.0.get() {
            end = next;
        }
        &end.0.get_or_init(|| (answer, Box::default())).0
    }
}
