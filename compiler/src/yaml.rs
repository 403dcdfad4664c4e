//! YAML (and with it JSON) as a tree whose nodes know their places.

use crate::{
    diagnostic::{Code, Diagnostics, Span},
    limits::{MAX_TEXT_BYTES, MAX_YAML_DEPTH},
};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::IgnoredAny;
use std::{borrow::Cow, collections::HashSet};

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

/// What a text is, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// What one text holds: `ruleset`.
    pub one: &'static str,
    /// More than one of them.
    pub many: &'static str,
    /// What its first line can be.
    pub start: &'static str,
}

/// A ruleset.
pub(crate) const RULESET: Subject = Subject { one: "ruleset", many: "rulesets", start: "version: v1" };

/// Reads one document. `None` when the text is unusable; the reason is reported.
pub(crate) fn parse(text: &str, subject: Subject, diagnostics: &mut Diagnostics<'_>) -> Option<Node> {
    if text.len() > MAX_TEXT_BYTES {
        // How many there are is not known: whoever reads texts stops here.
        let message = format!("the text has more than the {MAX_TEXT_BYTES} bytes that are allowed");
        diagnostics.report(Code::TooLarge, &(0..0), message);
        return None;
    }
    let (parsed, offsets) = match joined_surrogates(text) {
        Some((joined, of_chars)) => {
            (Cow::Owned(joined), Offsets { of_chars: Some(of_chars), end: text.len() })
        }
        None => (Cow::Borrowed(text), Offsets::new(text)),
    };
    let mut reader = Reader { offsets, open: Vec::new(), root: None, subject, diagnostics };
    for event in Parser::new_from_str(&parsed) {
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
                match quoting_help(text, at) {
                    Some(help) => {
                        reader.diagnostics.report_with_help(Code::Syntax, &(at..at), error.info(), help);
                    }
                    None => reader.diagnostics.report(Code::Syntax, &(at..at), error.info()),
                }
                return None;
            }
        }
    }
    if reader.root.is_none() {
        let help = format!("a {} starts with `{}`", subject.one, subject.start);
        reader.diagnostics.report_with_help(Code::Syntax, &(0..0), "the text is empty", help);
    }
    reader.root
}

struct Reader<'a, 'b> {
    offsets: Offsets,
    open: Vec<Open>,
    root: Option<Node>,
    subject: Subject,
    diagnostics: &'a mut Diagnostics<'b>,
}

impl Reader<'_, '_> {
    /// Takes one event; `None` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) if self.root.is_some() => {
                let one = self.subject.one;
                let message = format!("a text has one {one}, but here a second document starts");
                return self.unsupported(&message, &span, &format!("put each {one} into a file of its own"));
            }
            Event::DocumentStart(_) => {}
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                let help = quoting_help(self.diagnostics.text(), span.start)
                    .unwrap_or_else(|| "a text that starts with `!` needs quotes in YAML".into());
                let message = format!("tags are not supported in {}", self.subject.many);
                return self.unsupported(&message, &span, &help);
            }
            Event::Alias(_) => return self.shared("aliases", &span),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return self.shared("anchors", &span);
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
                    _ => return self.unsupported("a key is not a scalar", &node.span, "keys are names"),
                },
            },
        }
        Some(())
    }

    /// Reports YAML's ways to use one value in several places.
    fn shared(&mut self, what: &str, span: &Span) -> Option<()> {
        let help = "write the value out where it is needed; a text that starts with `&` or `*` needs quotes";
        self.unsupported(&format!("{what} are not supported in {}", self.subject.many), span, help)
    }

    fn unsupported(&mut self, message: &str, span: &Span, help: &str) -> Option<()> {
        self.diagnostics.report_with_help(Code::UnsupportedYaml, span, message, help);
        None
    }
}

/// What to do about a text that YAML reads as something else, because it has no quotes around it.
fn quoting_help(text: &str, at: usize) -> Option<String> {
    let (before, rest) = (text.get(..at)?, text.get(at..)?);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    let (key, value) = line.trim_start_matches([' ', '-']).split_once(": ").unwrap_or_default();
    let value = value.trim();
    let misread = !value.starts_with(['[', '{', '&'])
        && (value.contains(": ") || value.starts_with(['"', '\'', '|', '>', '?', '-']));
    let first = rest.chars().next();
    if key == "condition" || misread && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        Some(format!("put the whole text into quotes: `{key}: {}`", quoted(value)))
    } else if let Some(first @ ('*' | '&' | '!' | '%' | '@' | '`')) = first {
        let word = rest.split([' ', ',', ']', '}', '\r', '\n']).next()?;
        Some(format!("a text that starts with `{first}` needs quotes in YAML: `{}`", quoted(word)))
    } else {
        // On a line of its own below the field.
        let above = before.get(..start)?.lines().rev().find(|line| !line.trim().is_empty());
        let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
        let field = before.get(..start)?.lines().rev().find(|line| {
            !line.trim().is_empty()
                && line.trim_start_matches([' ', '-']).split_once(':').is_some_and(|(key, _)| {
                    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                })
        });
        if let (Some(_), Some(field)) = (above, field)
            && field.trim_start_matches([' ', '-']).starts_with("condition:")
            && indent(line) > indent(field)
        {
            return Some(
                "put the whole condition into single quotes, or write it on lines below `condition: |`"
                    .into(),
            );
        }
        // On a line with several fields: the one that the place is in.
        let (_, behind) = before.get(start..)?.rsplit_once("condition")?;
        let help = if behind.starts_with('"') {
            "within double quotes a double quote is written `\\\"`"
        } else {
            "put the whole condition into quotes"
        };
        (!behind.contains(", ")).then(|| help.into())
    }
}

/// A text in quotes, as YAML reads it.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains('\'') && !text.contains(['"', '\\']) {
        format!("\"{text}\"")
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// JSON writes a character behind U+FFFF as two escapes, `\ud83d\ude00`, which YAML does not know. The text with the
/// characters themselves, and the places of its characters in the original one; `None` when there is nothing to join.
fn joined_surrogates(text: &str) -> Option<(String, Vec<usize>)> {
    // In JSON every escape is in a text; elsewhere a backslash may stand for itself.
    if !text.contains(r"\u") || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let mut joined = String::with_capacity(text.len());
    let mut of_chars = Vec::with_capacity(text.len());
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        of_chars.push(at);
        if c != '\\' {
            joined.push(c);
        } else if let Some(pair) = text.get(at..).and_then(surrogate_pair) {
            joined.push(pair);
            // Of the twelve characters of the pair, the first is taken already.
            chars.nth(10);
        } else if let Some((at, escaped)) = chars.next() {
            of_chars.push(at);
            joined.extend([c, escaped]);
        }
    }
    (joined.len() < text.len()).then_some((joined, of_chars))
}

/// The character of the two escapes that a text starts with.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(r"\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    char::decode_utf16([unit(0)?, unit(6)?]).next()?.ok().filter(|c| *c > '\u{ffff}')
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
