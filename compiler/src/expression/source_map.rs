//! From places in a condition to places in the YAML that holds it.

use crate::diagnostic::Span;

/// Where each character of a scalar's value stands in the text.
///
/// YAML may quote, escape, fold and indent a value, so the two do not run in step. Each character that
/// is not blank is found by looking for its next occurrence nearby; that is exact for everything but
/// exotic escapes, where a place is off by a few characters.
pub(crate) struct SourceMap {
    /// For each byte of the value, where its character stands in the text; one more for the end.
    places: Vec<Span>,
}

/// How far ahead a character is looked for: longer than an escape or an indentation, and short enough
/// that a value that cannot be found costs little.
const NEARBY: usize = 256;

impl SourceMap {
    /// The map of a `value` that the scalar at `span` of `text` holds.
    pub(crate) fn new(text: &str, span: &Span, value: &str) -> Self {
        let end = span.end.min(text.len());
        let mut at = span.start;
        let mut places = Vec::with_capacity(value.len() + 1);
        for wanted in value.chars() {
            let rest = text.get(at..end).unwrap_or_default();
            let nearby = &rest[..rest.floor_char_boundary(NEARBY)];
            let place = match nearby.find(wanted) {
                Some(found) if !wanted.is_whitespace() || found == 0 => {
                    at + found..at + found + wanted.len_utf8()
                }
                // Folded away, or written as an escape: the character at hand stands for it.
                _ => at..at + rest.chars().next().map_or(0, char::len_utf8),
            };
            if text.get(place.clone()).is_some_and(|found| found.starts_with(wanted)) {
                at = place.end;
            }
            places.extend(std::iter::repeat_n(place, wanted.len_utf8()));
        }
        places.push(at..at);
        Self { places }
    }

    /// The place in the text of a place in the value. Both ends lie between characters of the text.
    pub(crate) fn locate(&self, span: &Span) -> Span {
        let place = |index: usize| self.places.get(index).or(self.places.last()).cloned().unwrap_or(0..0);
        let start = place(span.start).start;
        // The end of the last character, not the start of the one after it: blanks may lie between.
        let end = if span.end > span.start { place(span.end - 1).end } else { start };
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_place_through_quotes_escapes_and_folds() {
        for (text, value) in [
            ("c: a == 'x'", "a == 'x'"),
            ("c: \"a == \\\"x\\\"\"", "a == \"x\""),
            ("c: >\n  a ==\n  'x'\n", "a == 'x'\n"),
            ("c: 'a == ''x'''", "a == 'x'"),
        ] {
            let map = SourceMap::new(text, &(3..text.len()), value);
            let at = value.find("==").unwrap();
            assert_eq!(&text[map.locate(&(at..at + 2))], "==", "{text}");
            let at = value.find('x').unwrap();
            assert_eq!(&text[map.locate(&(at..at + 1))], "x", "{text}");
        }
    }
}
