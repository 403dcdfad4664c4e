//! What is wrong with a text, where, and what to do.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use std::ops::Range;

/// A range of bytes in a text.
pub(crate) type Span = Range<usize>;

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal; )+) => {
        /// What kind of problem a diagnostic reports. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $( $(#[doc = $doc])+ $name, )+ }

        impl Code {
            /// The code as users see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$name => $code, )+ }
            }
        }
    };
}

codes! {
    /// The text is no YAML or JSON.
    Syntax = "E0101";
    /// The text or a part of it is larger or deeper than allowed.
    TooLarge = "E0102";
    /// A YAML feature that rulesets do not use: anchors, aliases, tags, several documents.
    UnsupportedYaml = "E0103";
    /// A key stands twice in one mapping.
    DuplicateKey = "E0104";
    /// A field that does not exist.
    UnknownField = "E0201";
    /// A required field is missing.
    MissingField = "E0202";
    /// A field's value has the wrong form.
    WrongForm = "E0203";
    /// A name with characters that names may not have.
    InvalidName = "E0204";
    /// A name that must be unique is not.
    DuplicateName = "E0205";
    /// A weight outside of 0 to 1.
    WeightOutOfRange = "E0206";
    /// A target that is not declared.
    UnknownTarget = "E0207";
    /// An address that is not an IP address with a port.
    InvalidEndpoint = "E0208";
    /// A header that rules must not read.
    ReservedHeader = "E0209";
    /// Rules or experiments of one layer that would take the same units.
    Overlap = "E0210";
    /// A layer, a rule, an experiment or an arm that does not exist.
    UnknownReference = "E0211";
    /// A ruleset that governs the same requests as another one.
    SameScope = "E0212";
    /// A duration or a count that is no such thing, or outside of what proxies can take.
    OutOfRange = "E0213";
    /// A release that no unit can reach, because of what is before it.
    Unreachable = "E0214";
    /// A condition that does not parse.
    ConditionSyntax = "E0301";
    /// A feature of CEL that is outside of the subset.
    UnsupportedFeature = "E0302";
    /// A name in a condition that means nothing.
    UnknownName = "E0303";
    /// A function that does not exist.
    UnknownFunction = "E0304";
    /// A value of the wrong type.
    TypeMismatch = "E0305";
    /// A number that its type cannot hold.
    NumberOutOfRange = "E0306";
    /// A condition that needs more stack or operations than the evaluator has.
    TooComplex = "E0307";
    /// A constant that is not what it should be: a time, a version, a network, a regular expression.
    InvalidConstant = "E0308";
    /// A rule that no request can take.
    NeverMatches = "W0401";
    /// `%` on a number that may be negative.
    NegativeRemainder = "W0402";
    /// `id % m < k` where a weight is meant.
    ModuloSplit = "W0403";
    /// A condition and a weight that split twice.
    SmallShare = "W0404";
    /// Two experiments that take the same units and know nothing of each other.
    OverlappingExperiments = "W0405";
    /// An expression that never has a value.
    NeverHasValue = "W0406";
    /// A target without endpoints beside others that have some.
    MissingEndpoints = "W0407";
    /// A share that is less than one bucket away from nobody or everybody.
    ShareOfABucket = "W0408";
    /// A header that is read because no attribute of that name is declared, but one of nearly that name.
    MisspeltAttribute = "W0409";
    /// Requests that no rule takes go to a target that is not among those declared.
    UndeclaredDefault = "W0410";
    /// A retry of what a backend may have worked on already.
    UnsafeRetry = "W0411";
    /// A setting of a target that has no effect.
    NoEffect = "W0412";
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It compiles, but will surprise.
    Warning,
    /// It does not compile.
    Error,
}

impl Code {
    /// How bad it is: codes that start with `W` are warnings.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line of the character after the last one.
    pub end_line: usize,
    /// Column of the character after the last one.
    pub end_column: usize,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem.
    pub code: Code,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    span: Span,
}

/// What stands behind a ruleset's text and is no part of it.
pub(crate) struct Appendix<'a> {
    /// Where it begins; what is before belongs to the text, or to the appendix before.
    pub(crate) start: usize,
    /// The release whose condition it is.
    pub(crate) release: &'a str,
}

/// Collects the problems of one text, and of releases behind it.
pub(crate) struct Diagnostics<'a> {
    text: &'a str,
    /// In ascending order of their starts.
    appendices: Vec<Appendix<'a>>,
    found: Vec<Diagnostic>,
}

impl<'a> Diagnostics<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self::with_releases(text, Vec::new())
    }

    /// Of a text that goes on with a line feed and a condition for each of the releases. What is wrong with one of those
    /// is reported at the text's beginning, and says which release it is about.
    pub(crate) fn with_releases(text: &'a str, appendices: Vec<Appendix<'a>>) -> Self {
        Self { text, appendices, found: Vec::new() }
    }

    pub(crate) fn report(&mut self, code: Code, span: &Span, message: impl Into<String>) {
        self.push(code, span, &message.into(), None);
    }

    pub(crate) fn report_with_help(
        &mut self,
        code: Code,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(code, span, &message.into(), Some(&help.into()));
    }

    fn push(&mut self, code: Code, span: &Span, message: &str, help: Option<&str>) {
        if !self.is_full() {
            let (span, message) = match self.in_release(span) {
                Some(place) => (0..0, format!("{place}: {message}")),
                None => (span.clone(), message.to_owned()),
            };
            self.found.push(Diagnostic {
                severity: code.severity(),
                code,
                place: place(self.text, &span),
                message: brief(&message),
                help: help.map(brief),
                span,
            });
        }
    }

    /// Which release something is about, and where in its condition, in words; `None` for what stands in the text.
    fn in_release(&self, span: &Span) -> Option<String> {
        let at = self.appendices.partition_point(|appendix| appendix.start <= span.start).checked_sub(1)?;
        let Appendix { start, release } = self.appendices.get(at)?;
        let name = format!("release `{release}`");
        // The line feed stands for the release itself.
        let Some(offset) = span.start.checked_sub(start + 1) else { return Some(name) };
        let condition = self.text.get(start + 1..).unwrap_or_default();
        Some(match line_and_column(condition, offset) {
            (1, column) => format!("{name}, column {column} of its condition"),
            (line, column) => format!("{name}, line {line}, column {column} of its condition"),
        })
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Where something starts, in words.
    pub(crate) fn place_in_words(&self, span: &Span) -> String {
        let in_text = || format!("line {}", line_and_column(self.text, span.start).0);
        self.in_release(span).unwrap_or_else(in_text)
    }

    /// Whether whatever else is found is left out.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= crate::limits::MAX_DIAGNOSTICS
    }

    /// Replaces what the problem reported last says to do.
    pub(crate) fn advise(&mut self, help: &str) {
        if let Some(last) = self.found.last_mut() {
            last.help = Some(brief(help));
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.found.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All that was reported, in the order of the text.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|diagnostic| diagnostic.span.start);
        self.found
    }
}

/// Characters of a message that are shown at each of its ends.
const SHOWN: usize = 400;

/// A message that may quote the text: without the middle of what is long, and without control characters, which
/// terminals would obey.
fn brief(message: &str) -> String {
    let count = message.chars().count();
    let mut brief: String = message.chars().take(SHOWN).collect();
    if count > 2 * SHOWN {
        brief.push('…');
    }
    brief.extend(message.chars().skip(SHOWN.max(count.saturating_sub(SHOWN))));
    brief.replace(char::is_control, "\u{fffd}")
}

fn place(text: &str, span: &Span) -> Place {
    let (line, column) = line_and_column(text, span.start);
    let (end_line, end_column) = line_and_column(text, span.end);
    Place { line, column, end_line, end_column }
}

/// Both count from 1, columns in characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Shows the diagnostics as snippets of the text with a caret at each place, for people. `file` is the
/// name to show.
#[must_use]
pub fn render(file: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let renderer = Renderer::plain();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let annotation = AnnotationKind::Primary.span(diagnostic.span.clone());
        let snippet = Snippet::source(text).path(file).annotation(annotation);
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&diagnostic.message).id(diagnostic.code.as_str());
        let mut group = title.element(snippet);
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    out
}
