//! From places in a condition to places in the YAML that holds it.

use crate::diagnostic::Span;

/// Where each character of a scalar's value stands in the text.
///
/// YAML may quote, escape, fold and indent a value, so the two do not run in step. Each character that
/// is not blank is found by looking for its next occurrence; that is exact for everything but exotic
/// escapes, where a place is off by a few characters.
pub(crate) struct SourceMap {
    /// For each byte of the value, its offset in the text; one more for the end.
    offsets: Vec<usize>,
}

impl SourceMap {
    /// The map of a `value` that the scalar at `span` of `text` holds.
    pub(crate) fn new(text: &str, span: &Span, value: &str) -> Self {
        let end = span.end.min(text.len());
        let mut at = span.start;
        let mut offsets = Vec::with_capacity(value.len() + 1);
        for wanted in value.chars() {
            let rest = text.get(at..end).unwrap_or_default();
            let found = rest.find(wanted).filter(|_| !wanted.is_whitespace());
            let place = at + found.unwrap_or(0);
            offsets.extend(std::iter::repeat_n(place, wanted.len_utf8()));
            if found.is_some() {
                at = place + wanted.len_utf8();
            } else if wanted.is_whitespace() && rest.starts_with(wanted) {
                at += wanted.len_utf8();
            }
        }
        offsets.push(at);
        Self { offsets }
    }

    /// The place in the text of a place in the value.
    pub(crate) fn locate(&self, span: &Span) -> Span {
        let offset = |index: usize| self.offsets.get(index).or(self.offsets.last()).copied().unwrap_or(0);
        let start = offset(span.start);
        // The end of the last character, not the start of the one after it: blanks may lie between.
        let end = if span.end > span.start { offset(span.end - 1) + 1 } else { start };
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
