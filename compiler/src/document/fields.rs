//! Takes the fields of a mapping one by one and reports those that are left.

use super::shape::Shape;
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    suggest::did_you_mean,
    yaml::{Key, Kind, Node},
};

/// Whether a comment stands on the same line behind a place, and nothing else but a colon.
pub(crate) fn comment_follows(text: &str, place: usize) -> bool {
    text.get(place..).is_some_and(|rest| rest.trim_start_matches([':', ' ', '\t']).starts_with('#'))
}

/// The fields of a mapping.
pub(crate) struct Fields {
    entries: Vec<(Key, Node)>,
    span: Span,
    shape: &'static Shape,
    /// The names of the fields that are written.
    written: Vec<String>,
}

impl Fields {
    /// The fields of `node`; `None` when it is no mapping. Reports fields that the shape does not have.
    pub(crate) fn of(node: Node, shape: &'static Shape, diagnostics: &mut Diagnostics<'_>) -> Option<Self> {
        let span = node.span.clone();
        let found = node.describe();
        let Kind::Mapping(entries) = node.kind else {
            let what = shape.what;
            let message = format!("{what} is a mapping, but this is {found}");
            diagnostics.report_with_help(
                Code::WrongForm,
                &span,
                message,
                format!("its fields are: {}", shape.names().collect::<Vec<_>>().join(", ")),
            );
            return None;
        };
        for (key, node) in &entries {
            if diagnostics.is_full() {
                break;
            }
            let known = shape.names().any(|name| name == key.text);
            if node.is_null() && known {
                let message = format!("`{}` is empty", key.text);
                let help = if comment_follows(diagnostics.text(), key.span.end) {
                    "a `#` starts a comment in YAML: put a text that starts with it into quotes"
                } else {
                    "give it a value, or leave it out"
                };
                diagnostics.report_with_help(Code::WrongForm, &key.span, message, help);
            } else if !known {
                let message = format!("{} has no field `{}`", shape.what, key.text);
                let help = did_you_mean(&key.text, shape.names());
                diagnostics.report_with_help(Code::UnknownField, &key.span, message, help);
            }
        }
        let written = entries.iter().map(|(key, _)| key.text.clone()).collect();
        Some(Self { entries, span, shape, written })
    }

    /// Takes a field out. One that is written but empty has been reported.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Node> {
        debug_assert!(self.shape.names().any(|known| known == name));
        let at = self.entries.iter().position(|(key, _)| key.text == name)?;
        let (_, node) = self.entries.swap_remove(at);
        (!node.is_null()).then_some(node)
    }

    /// Whether a field is written, with a value or without.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.written.iter().any(|other| other == name)
    }

    /// Where the first field that has not been taken out stands.
    pub(crate) fn first_key(&self) -> Option<&Span> {
        self.entries.iter().map(|(key, _)| &key.span).min_by_key(|span| span.start)
    }

    /// Takes a field out, or reports that it is missing.
    pub(crate) fn required(&mut self, name: &str, diagnostics: &mut Diagnostics<'_>) -> Option<Node> {
        let written = self.has(name);
        let field = self.optional(name);
        if !written {
            // The whole mapping would be a long underline: its first character is place enough.
            let place = self.span.start..self.span.start;
            diagnostics.report(
                Code::MissingField,
                &place,
                format!("{} needs the field `{name}`", self.shape.what),
            );
        }
        field
    }
}
