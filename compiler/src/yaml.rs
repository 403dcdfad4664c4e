//! YAML (and with it JSON) as a tree whose nodes know their places.

use crate::{
    diagnostic::{Code, Diagnostics, Span},
    limits::{MAX_TEXT_BYTES, MAX_YAML_DEPTH},
};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashSet;

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Kind {
    Scalar {
        text: String,
        /// Whether the scalar is written without quotes, so that it may mean a number, a boolean or null.
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Keys and values in order. Keys are scalars and stand once.
    Mapping(Vec<(Key, Node)>),
}

/// The key of an entry.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) text: String,
}

impl Node {
    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a scalar",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// A collection that is not complete yet.
enum Open {
    Sequence { start: usize, items: Vec<Node> },
    Mapping { start: usize, entries: Vec<(Key, Node)>, seen: HashSet<String>, key: Option<Key> },
}

/// Reads one document. `None` when the text is unusable; the reason is reported.
pub(crate) fn parse(text: &str, diagnostics: &mut Diagnostics<'_>) -> Option<Node> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the text has {} bytes, more than the {MAX_TEXT_BYTES} allowed", text.len());
        diagnostics.report(Code::TooLarge, &(0..0), message);
        return None;
    }
    let mut reader = Reader { offsets: Offsets::new(text), open: Vec::new(), root: None, diagnostics };
    for event in Parser::new_from_str(text) {
        if reader.diagnostics.is_full() {
            return None;
        }
        match event {
            Ok((event, span)) => {
                let span = reader.offsets.byte(span.start.index())..reader.offsets.byte(span.end.index());
                reader.event(event, span)?;
            }
            Err(error) => {
                let at = reader.offsets.byte(error.marker().index());
                reader.diagnostics.report(Code::Syntax, &(at..at), error.info());
                return None;
            }
        }
    }
    if reader.root.is_none() {
        reader.diagnostics.report_with_help(
            Code::Syntax,
            &(0..0),
            "the text is empty",
            "a ruleset starts with `version: v1`",
        );
    }
    reader.root
}

struct Reader<'a, 'b> {
    offsets: Offsets,
    open: Vec<Open>,
    root: Option<Node>,
    diagnostics: &'a mut Diagnostics<'b>,
}

impl Reader<'_, '_> {
    /// Takes one event; `None` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) if self.root.is_some() => {
                return self.unsupported("several documents in one text", &span);
            }
            Event::DocumentStart(_) => {}
            Event::Alias(_) => return self.unsupported("an alias", &span),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return self.unsupported("an anchor", &span);
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                let help = "a word that starts with `!` is a tag in YAML: put a text that starts like this into quotes";
                self.diagnostics.report_with_help(
                    Code::UnsupportedYaml,
                    &span,
                    "tags are not supported in rulesets",
                    help,
                );
                return None;
            }
            Event::Scalar(text, style, ..) => {
                let kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                return self.complete(Node { span, kind });
            }
            Event::SequenceStart(..) => {
                self.start(Open::Sequence { start: span.start, items: vec![] }, &span)?;
            }
            Event::MappingStart(..) => {
                self.start(
                    Open::Mapping { start: span.start, entries: vec![], seen: HashSet::new(), key: None },
                    &span,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop()? {
                    Open::Sequence { start, items } => {
                        Node { span: start..span.end, kind: Kind::Sequence(items) }
                    }
                    Open::Mapping { start, entries, .. } => {
                        Node { span: start..span.end, kind: Kind::Mapping(entries) }
                    }
                };
                return self.complete(node);
            }
        }
        Some(())
    }

    fn start(&mut self, open: Open, span: &Span) -> Option<()> {
        if self.open.len() >= MAX_YAML_DEPTH {
            let message = format!("nested more than {MAX_YAML_DEPTH} levels deep");
            self.diagnostics.report(Code::TooLarge, span, message);
            return None;
        }
        self.open.push(open);
        Some(())
    }

    /// Puts a complete node where it belongs.
    fn complete(&mut self, node: Node) -> Option<()> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, seen, key, .. }) => match key.take() {
                Some(key) => {
                    if !seen.insert(key.text.clone()) {
                        let message = format!("`{}` stands twice", key.text);
                        self.diagnostics.report_with_help(
                            Code::DuplicateKey,
                            &key.span,
                            message,
                            "keep one of the two",
                        );
                    } else {
                        entries.push((key, node));
                    }
                }
                None => match node.kind {
                    Kind::Scalar { text, .. } => {
                        *key = Some(Key { span: node.span, text });
                    }
                    _ => return self.unsupported("a key that is not a scalar", &node.span),
                },
            },
        }
        Some(())
    }

    fn unsupported(&mut self, what: &str, span: &Span) -> Option<()> {
        self.diagnostics.report_with_help(
            Code::UnsupportedYaml,
            span,
            format!("{what} is not supported in rulesets"),
            "write the value out where it is needed",
        );
        None
    }
}

/// From the parser's offsets, in characters, to offsets in bytes.
struct Offsets {
    /// Byte offset of each character, or nothing when all characters are single bytes.
    of_chars: Option<Vec<usize>>,
    end: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let of_chars = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self { of_chars, end: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        match &self.of_chars {
            None => index.min(self.end),
            Some(of_chars) => of_chars.get(index).copied().unwrap_or(self.end),
        }
    }
}
