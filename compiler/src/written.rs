//! A rule as it stands in its ruleset's text.

use crate::{
    diagnostic::{Diagnostics, Span, line_and_column},
    yaml::{self, Kind, Node},
};

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The line that it begins in, from 1.
    pub line: usize,
    /// The part, as if it stood at the beginning of a line.
    pub text: String,
}

/// The rule of this name as its author wrote it; `None` when the text has none.
#[must_use]
pub fn written(text: &str, rule: &str) -> Option<Written> {
    let root = yaml::parse(text, yaml::RULESET, &mut Diagnostics::new(text))?;
    let Kind::Sequence(rules) = &field(&root, "rules")?.kind else { return None };
    let is_named = |node: &&Node| {
        let name = field(node, "name");
        name.is_some_and(|name| matches!(&name.kind, Kind::Scalar { text, .. } if text == rule))
    };
    let node = rules.iter().find(is_named)?;
    let span: Span = node.span.start..end(text, node);
    let (line, column) = line_and_column(text, span.start);
    let indent = column - 1;
    let outdented = |line: &str| {
        let blank = line.chars().take(indent).take_while(|c| *c == ' ').count();
        line.get(blank..).unwrap_or_default().to_owned()
    };
    let mut lines = text.get(span)?.trim_end().lines();
    let first = lines.next()?.to_owned();
    let all: Vec<String> = std::iter::once(first).chain(lines.map(outdented)).collect();
    Some(Written { line, text: all.join("\n") })
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Kind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// Where a node ends. A mapping or a list without brackets ends for YAML where the next thing begins, with all comments
/// between.
fn end(text: &str, node: &Node) -> usize {
    let brackets = text.get(node.span.start..).is_some_and(|rest| rest.starts_with(['{', '[']));
    let last = match &node.kind {
        Kind::Mapping(entries) => entries.last().map(|(_, node)| node),
        Kind::Sequence(items) => items.last(),
        Kind::Scalar { .. } => None,
    };
    last.filter(|_| !brackets).map_or(node.span.end, |last| end(text, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_as_they_were_written() {
        let block = "version: v1\nrules:\n  # First.\n  - name: one\n    condition: |\n      user.id > 7 &&\n        user.id < 9\n    target: v2\n\n  # Second.\n  - {name: \"two\", arms: [{name: a, target: v1}, {name: b, target: v2}]}\n  - target: v1\n    name: three\n    arms:\n      - name: a # an arm\n        target: v2\n# The end.\n";
        let json = "{\"version\": \"v1\", \"rules\": [\n{\"name\": \"one\",\n \"target\": \"v2\"}, {\"name\": \"é\"}]}";
        for (text, rule, line, expected) in [
            (block, "one", 4, "name: one\ncondition: |\n  user.id > 7 &&\n    user.id < 9\ntarget: v2"),
            (block, "two", 11, "{name: \"two\", arms: [{name: a, target: v1}, {name: b, target: v2}]}"),
            (block, "three", 12, "target: v1\nname: three\narms:\n  - name: a # an arm\n    target: v2"),
            (json, "one", 2, "{\"name\": \"one\",\n \"target\": \"v2\"}"),
            (json, "é", 3, "{\"name\": \"é\"}"),
        ] {
            assert_eq!(written(text, rule), Some(Written { line, text: expected.to_owned() }), "{rule}");
        }
        for text in [block, "", "rules: 7", "rules: [7, {name: [x]}]", "[", "- rules"] {
            assert_eq!(written(text, "x"), None, "{text}");
        }
    }
}
