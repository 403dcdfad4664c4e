//! Takes the fields of a mapping one by one and reports those that are left.

use crate::{
    diagnostic::{Code, Diagnostics, Span},
    suggest::did_you_mean,
    yaml::{Key, Kind, Node},
};

/// The fields of a mapping.
pub(crate) struct Fields {
    entries: Vec<(Key, Node)>,
    span: Span,
    /// What the mapping is, for messages: "a rule".
    what: &'static str,
    known: &'static [&'static str],
}

impl Fields {
    /// The fields of `node`; `None` when it is no mapping. Reports fields that are not `known`.
    pub(crate) fn of(
        node: Node,
        what: &'static str,
        known: &'static [&'static str],
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let span = node.span.clone();
        let found = node.describe();
        let Kind::Mapping(entries) = node.kind else {
            let message = format!("{what} is a mapping, but this is {found}");
            diagnostics.report_with_help(
                Code::WrongForm,
                &span,
                message,
                format!("its fields are: {}", known.join(", ")),
            );
            return None;
        };
        for (key, node) in &entries {
            if diagnostics.is_full() {
                break;
            }
            if node.is_null() && known.contains(&key.text.as_str()) {
                let message = format!("`{}` is empty", key.text);
                let help = "give it a value, or leave it out";
                diagnostics.report_with_help(Code::WrongForm, &key.span, message, help);
            } else if !known.contains(&key.text.as_str()) {
                let message = format!("{what} has no field `{}`", key.text);
                let help = did_you_mean(&key.text, known.iter().copied());
                diagnostics.report_with_help(Code::UnknownField, &key.span, message, help);
            }
        }
        Some(Self { entries, span, what, known })
    }

    /// Takes a field out. One that is written but empty has been reported.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Node> {
        debug_assert!(self.known.contains(&name));
        let at = self.entries.iter().position(|(key, _)| key.text == name)?;
        let (_, node) = self.entries.swap_remove(at);
        (!node.is_null()).then_some(node)
    }

    /// Takes a field out, or reports that it is missing.
    pub(crate) fn required(&mut self, name: &str, diagnostics: &mut Diagnostics<'_>) -> Option<Node> {
        let written = self.entries.iter().any(|(key, _)| key.text == name);
        let field = self.optional(name);
        if !written {
            // The whole mapping would be a long underline: its first character is place enough.
            let place = self.span.start..self.span.start;
            diagnostics.report(Code::MissingField, &place, format!("{} needs the field `{name}`", self.what));
        }
        field
    }
}
