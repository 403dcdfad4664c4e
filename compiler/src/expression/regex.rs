//! Regular expressions: RE2's syntax and meaning, compiled to an automaton.

use halftone_rules::{bundle::Automaton, limits::MAX_AUTOMATON_BYTES};
use regex_automata::{
    MatchKind,
    dfa::{StartKind, dense},
    nfa::thompson,
};
use regex_syntax::{
    ast::{self, Ast, ClassSet, ClassSetItem, visit},
    hir::translate::TranslatorBuilder,
};

/// Bytes that the making of an automaton may use. Expressions that need more are refused.
const MAX_WORK_BYTES: usize = 2 << 20;
/// Repetitions that RE2 counts to.
const MAX_REPETITIONS: u32 = 1_000;
/// Levels of groups in an expression.
const MAX_NESTING: u32 = 50;

/// Compiles an expression that searches anywhere in a text. The error says what is wrong, and where in the
/// expression when that is known.
pub(crate) fn compile(pattern: &str) -> Result<Automaton, String> {
    let mut tree = ast::parse::ParserBuilder::new()
        .nest_limit(MAX_NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| describe(error.kind(), error.span()))?;
    visit(&tree, OnlyRe2)?;
    make_ascii(&mut tree);
    let hir = TranslatorBuilder::new()
        .build()
        .translate(pattern, &tree)
        .map_err(|error| describe(error.kind(), error.span()))?;
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .which_captures(thompson::WhichCaptures::None)
                .nfa_size_limit(Some(MAX_WORK_BYTES)),
        )
        .build_from_hir(&hir)
        .map_err(|_| too_large())?;
    // Whether there is a match is all that is asked, so where it ends need not be right.
    let dense = dense::Builder::new()
        .configure(
            dense::Config::new()
                .match_kind(MatchKind::All)
                .start_kind(StartKind::Unanchored)
                .determinize_size_limit(Some(MAX_WORK_BYTES))
                .dfa_size_limit(Some(MAX_WORK_BYTES)),
        )
        .build_from_nfa(&nfa)
        .map_err(|_| too_large())?;
    let dfa = dense.to_sparse().map_err(|_| too_large())?.to_bytes_little_endian();
    if dfa.len() > MAX_AUTOMATON_BYTES {
        return Err(too_large());
    }
    Ok(Automaton { pattern: pattern.into(), dfa })
}

fn too_large() -> String {
    format!("the expression makes an automaton larger than {} KiB", MAX_AUTOMATON_BYTES >> 10)
}

fn describe(kind: &impl std::fmt::Display, span: &ast::Span) -> String {
    format!("{kind} (character {})", span.start.column)
}

/// Refuses what `regex-syntax` reads and RE2 does not, or reads otherwise.
struct OnlyRe2;

impl ast::Visitor for OnlyRe2 {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), String> {
        match node {
            Ast::Flags(flags) => only_known_flags(&flags.flags),
            Ast::Group(group) => group.flags().map_or(Ok(()), only_known_flags),
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary => Ok(()),
                _ => Err(not_in_re2("this kind of boundary", &assertion.span)),
            },
            Ast::Repetition(repetition) => match &repetition.op.kind {
                ast::RepetitionKind::Range(range) if largest(range) > MAX_REPETITIONS => Err(format!(
                    "more than {MAX_REPETITIONS} repetitions (character {})",
                    repetition.op.span.start.column
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err(not_in_re2("operations on classes", &op.span))
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(class) => Err(not_in_re2("a class within a class", &class.span)),
            _ => Ok(()),
        }
    }
}

fn not_in_re2(what: &str, span: &ast::Span) -> String {
    format!("RE2 has no {what} (character {})", span.start.column)
}

fn only_known_flags(flags: &ast::Flags) -> Result<(), String> {
    let unknown = flags.items.iter().find(|item| {
        matches!(
            item.kind,
            ast::FlagsItemKind::Flag(ast::Flag::Unicode | ast::Flag::CRLF | ast::Flag::IgnoreWhitespace)
        )
    });
    unknown.map_or(Ok(()), |item| Err(not_in_re2("such flag", &item.span)))
}

fn largest(range: &ast::RepetitionRange) -> u32 {
    match *range {
        ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n) => n,
        ast::RepetitionRange::Bounded(low, high) => low.max(high),
    }
}

/// Gives `\d`, `\s`, `\w` and `\b` RE2's meaning: they are about ASCII only.
fn make_ascii(node: &mut Ast) {
    let replacement = match node {
        Ast::ClassPerl(class) => Some(Ast::class_bracketed(ast::ClassBracketed {
            span: class.span,
            negated: false,
            kind: ClassSet::Item(ascii_class(class)),
        })),
        Ast::Assertion(assertion)
            if matches!(
                assertion.kind,
                ast::AssertionKind::WordBoundary | ast::AssertionKind::NotWordBoundary
            ) =>
        {
            let span = assertion.span;
            let item = |kind| ast::FlagsItem { span, kind };
            let without_unicode = ast::Flags {
                span,
                items: vec![
                    item(ast::FlagsItemKind::Negation),
                    item(ast::FlagsItemKind::Flag(ast::Flag::Unicode)),
                ],
            };
            Some(Ast::group(ast::Group {
                span,
                kind: ast::GroupKind::NonCapturing(without_unicode),
                ast: Box::new(Ast::assertion(assertion.as_ref().clone())),
            }))
        }
        Ast::ClassBracketed(class) => {
            if let ClassSet::Item(item) = &mut class.kind {
                make_item_ascii(item);
            }
            None
        }
        Ast::Repetition(repetition) => {
            make_ascii(&mut repetition.ast);
            None
        }
        Ast::Group(group) => {
            make_ascii(&mut group.ast);
            None
        }
        Ast::Alternation(alternation) => {
            alternation.asts.iter_mut().for_each(make_ascii);
            None
        }
        Ast::Concat(concat) => {
            concat.asts.iter_mut().for_each(make_ascii);
            None
        }
        _ => None,
    };
    if let Some(replacement) = replacement {
        *node = replacement;
    }
}

fn make_item_ascii(item: &mut ClassSetItem) {
    match item {
        ClassSetItem::Perl(class) => *item = ascii_class(class),
        ClassSetItem::Union(union) => union.items.iter_mut().for_each(make_item_ascii),
        _ => {}
    }
}

/// `\d` as `[0-9]`, and so on; negated ones as the rest of Unicode.
fn ascii_class(class: &ast::ClassPerl) -> ClassSetItem {
    let span = class.span;
    let ranges: &[(char, char)] = match class.kind {
        ast::ClassPerlKind::Digit => &[('0', '9')],
        ast::ClassPerlKind::Space => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        ast::ClassPerlKind::Word => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
    };
    let literal = |c| ast::Literal { span, kind: ast::LiteralKind::Verbatim, c };
    let range = |(start, end): &(char, char)| {
        ClassSetItem::Range(ast::ClassSetRange { span, start: literal(*start), end: literal(*end) })
    };
    let items = ranges.iter().map(range).collect();
    let set = ClassSet::Item(ClassSetItem::Union(ast::ClassSetUnion { span, items }));
    ClassSetItem::Bracketed(Box::new(ast::ClassBracketed { span, negated: class.negated, kind: set }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_rules::{
        Bundle, EvalError, Request, Timestamp, VerifiedBundle,
        bundle::{Arm, Condition, Constant, Enrolment, Rule, Ruleset},
        isa::{AutomatonId, ConstantId, Op},
    };

    struct Nothing;
    impl Request for Nothing {
        fn header(&self, _: &str) -> Option<&[u8]> {
            None
        }
    }

    fn finds(pattern: &str, text: &str) -> bool {
        let mut ruleset = Ruleset::pass_all("r", "no");
        ruleset.targets.push("yes".into());
        ruleset.automata = vec![compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))];
        ruleset.constants = vec![Constant::String(text.into())];
        ruleset.code = vec![Op::Constant(ConstantId(0)), Op::Match(AutomatonId(0))];
        let condition = Some(Condition { start: 0, length: 2 });
        ruleset.rules = vec![Rule {
            name: "rule".into(),
            guard: None,
            enrolment: Enrolment { condition, ..Enrolment::default() },
            arms: vec![Arm { name: String::new(), target: 1 }],
        }];
        let bundle = VerifiedBundle::new(Bundle::new(1, vec![ruleset])).expect("verifies");
        let decision = bundle.decide(&Nothing, Timestamp(0), &mut Never).expect("decides");
        decision.target == "yes"
    }

    struct Never;
    impl halftone_rules::Observer for Never {
        fn rule(&mut self, _: &Ruleset, _: usize, outcome: halftone_rules::Outcome) {
            assert_ne!(outcome, halftone_rules::Outcome::Error(EvalError::Fault));
        }
    }

    #[test]
    fn it_means_what_re2_means() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("b+", "abbc", true),
            ("^b", "ab", false),
            ("^ab$", "ab", true),
            ("^ab$", "ab\n", false),
            ("(?m)^b$", "a\nb\nc", true),
            ("a.c", "a\nc", false),
            ("(?s)a.c", "a\nc", true),
            ("(?i)GRÖSSE", "größe grösse", true),
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^\w+$", "größe", false),
            (r"^[\w\s]+$", "a b", true),
            (r"\s", "\u{a0}", false),
            (r"\S", "\u{a0}", true),
            (r"^[^\d]$", "ö", true),
            (r"\bgold\b", "a gold b", true),
            (r"\bgold\b", "marigold", false),
            (r"\bö", "ö", false),
            (r"^\p{Greek}+$", "αβγ", true),
            (r"^[[:alpha:]]+$", "ö", false),
            ("^.$", "ö", true),
            ("^a{2,3}$", "aaaa", false),
            ("x*y?$", "", true),
            (r"^v[0-9]+\.[0-9]+$", "v1.42", true),
        ] {
            assert_eq!(finds(pattern, text), expected, "{pattern:?} in {text:?}");
        }
    }

    #[test]
    fn what_re2_has_not_is_refused() {
        for pattern in [
            "(",
            "a**b{",
            r"(?=a)",
            r"\1",
            "[a&&b]",
            "[a[b]]",
            "(?x)a",
            "(?u)a",
            r"\b{start}",
            "a{1001}",
            "[b-a]",
            r"\Z",
            "*",
            r"\C",
        ] {
            let refused = compile(pattern);
            assert!(refused.is_err(), "{pattern}: {refused:?}");
        }
    }

    #[test]
    fn an_expression_that_explodes_is_refused_quickly() {
        for pattern in
            ["(a|b)*a(a|b){30}", "((a{100}){100}){100}", &"(".repeat(10_000), r"(\pL{1,500}x){900}"]
        {
            assert!(compile(pattern).is_err(), "{pattern:.40}");
        }
        // What makes backtracking engines hang is nothing special to an automaton.
        assert!(!finds("^(a+)+$", &format!("{}b", "a".repeat(5_000))));
    }
}
