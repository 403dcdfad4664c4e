//! Texts other than rulesets (policies, for example): YAML or JSON as values, with the places to report problems at.

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Span},
    yaml::{self, Kind, Node, Subject},
};
use serde_json::{Map, Number, Value};

/// A text as values that know their places.
#[derive(Debug)]
pub struct Tree<'a> {
    text: &'a str,
    root: Node,
}

impl<'a> Tree<'a> {
    /// Reads one document; problems speak of what it is.
    ///
    /// # Errors
    /// When the text is no YAML or JSON, or uses what rulesets may not use either.
    pub fn read(text: &'a str, subject: Subject) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Diagnostics::new(text);
        match yaml::parse(text, subject, &mut diagnostics) {
            Some(root) if !diagnostics.has_errors() => Ok(Self { text, root }),
            _ => Err(diagnostics.into_sorted()),
        }
    }

    /// All of it as JSON. Scalars without quotes are numbers, booleans and null where they can be.
    #[must_use]
    pub fn value(&self) -> Value {
        value(&self.root)
    }

    /// A problem with what is at `path` (keys and indices with dots between them), or with the nearest thing around it
    /// where there is none.
    #[must_use]
    pub fn problem(&self, path: &str, message: &str, help: Option<&str>) -> Vec<Diagnostic> {
        let mut diagnostics = Diagnostics::new(self.text);
        let span = self.place(path);
        match help {
            Some(help) => diagnostics.report_with_help(Code::WrongForm, &span, message, help),
            None => diagnostics.report(Code::WrongForm, &span, message),
        }
        diagnostics.into_sorted()
    }

    fn place(&self, path: &str) -> Span {
        let mut node = &self.root;
        let mut span = first_of(node);
        // serde writes indices in brackets.
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &node.kind {
                Kind::Mapping(entries) => {
                    let entry = entries.iter().find(|(key, _)| key.text == step);
                    entry.map(|(key, node)| (key.span.clone(), node))
                }
                Kind::Sequence(items) => {
                    let item = step.parse::<usize>().ok().and_then(|index| items.get(index));
                    item.map(|node| (node.span.clone(), node))
                }
                Kind::Scalar { .. } => None,
            };
            let Some((at, found)) = next else { break };
            node = found;
            span = match &node.kind {
                Kind::Scalar { .. } if !node.is_null() => node.span.clone(),
                _ => at,
            };
        }
        span
    }
}

/// The whole document is a place too large to point at.
fn first_of(node: &Node) -> Span {
    match &node.kind {
        Kind::Mapping(entries) => entries.first().map_or(node.span.clone(), |(key, _)| key.span.clone()),
        _ => node.span.clone(),
    }
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Mapping(entries) => Value::Object(
            entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect::<Map<_, _>>(),
        ),
        Kind::Sequence(items) => Value::Array(items.iter().map(value).collect()),
        Kind::Scalar { text, plain: true } => scalar(text),
        Kind::Scalar { text, .. } => Value::String(text.clone()),
    }
}

/// What a scalar without quotes means in YAML's core schema.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    // Only digits, a point and an exponent: `inf` and `nan` are words.
    let numeric = text.chars().all(|c| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
    let whole =
        text.parse::<u64>().ok().map(Number::from).or_else(|| text.parse::<i64>().ok().map(Number::from));
    let number = whole.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    match number {
        Some(number) if numeric => Value::Number(number),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Subject = Subject { one: "policy", many: "policies", start: "metrics:" };

    #[test]
    fn problems_speak_of_what_the_text_is() {
        for (text, told) in [
            ("", "a policy starts with `metrics:`"),
            ("a: 1\n---\nb: 2\n", "a text has one policy"),
            ("a: &x 1\n", "anchors are not supported in policies"),
            ("a: !x 1\n", "tags are not supported in policies"),
        ] {
            let found = format!("{:?}", Tree::read(text, POLICY).unwrap_err());
            assert!(found.contains(told) && !found.contains("ruleset"), "{text}: {found}");
        }
    }

    #[test]
    fn values_are_those_of_yaml() {
        let text = "a: 1\nb: -2\nc: 1e-3\nd: '7'\ne: [true, ~, inf, x]\nf: {g: 0.5}\n";
        let tree = Tree::read(text, POLICY).unwrap();
        let expected = serde_json::json!({
            "a": 1, "b": -2, "c": 0.001, "d": "7", "e": [true, null, "inf", "x"], "f": {"g": 0.5}
        });
        assert_eq!(tree.value(), expected);
        let place = |path| tree.problem(path, "wrong", None)[0].place;
        assert_eq!((place("f.g").line, place("f.g").column), (6, 8));
        assert_eq!((place("e[3]").line, place("e[3]").column), (5, 19));
        assert_eq!((place("f.h").line, place("f.h").column), (6, 1), "the nearest thing around it");
        assert!(Tree::read("a: [", POLICY).is_err() && Tree::read("a: 1\na: 2\n", POLICY).is_err());
    }
}
