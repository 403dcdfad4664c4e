//! Regular expressions: RE2's syntax and meaning, compiled to an automaton.

mod re2;

use halftone_rules::{bundle::Automaton, limits::MAX_AUTOMATON_BYTES};
use regex_automata::{
    MatchKind,
    dfa::{StartKind, dense},
    nfa::thompson,
};
use regex_syntax::{ast, hir::translate::TranslatorBuilder};

/// Bytes that the making of an automaton may use. Expressions that need more are refused.
const MAX_WORK_BYTES: usize = 2 << 20;
/// Levels of groups in an expression.
const MAX_NESTING: u32 = 50;

/// Compiles an expression that searches anywhere in a text. The error says what is wrong, and where in the
/// expression when that is known.
pub(crate) fn compile(pattern: &str) -> Result<Automaton, String> {
    let mut tree = ast::parse::ParserBuilder::new()
        .nest_limit(MAX_NESTING)
        .octal(true)
        .build()
        .parse(pattern)
        .map_err(|error| re2::describe(&error))?;
    re2::check(pattern, &tree)?;
    re2::give_meaning(&mut tree);
    let hir = TranslatorBuilder::new()
        .build()
        .translate(pattern, &tree)
        .map_err(|error| re2::at(error.span(), error.kind()))?;
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
            epoch: 0,
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
            (r"^\x41\x{42}\103\0$", "ABC\0", true),
            (r"^\<\>\_$", "<>_", true),
            (r"^\p{^Greek}[\p{^Greek}\d]\P{^Greek}$", "a1α", true),
            (r"^\pN\p{Lu}\p{Any}$", "1Äx", true),
            ("^(?P<a>x)(?<b>y)(?:a*)*$", "xyaa", true),
            ("^(a{31}b){32}$", &format!("{}b", "a".repeat(31)).repeat(32), true),
            ("^[[:word:]]+$", "a_1", true),
        ] {
            assert_eq!(finds(pattern, text), expected, "{pattern:?} in {text:?}");
        }
    }

    #[test]
    fn what_re2_reads_otherwise_is_refused() {
        let nested = "those of nested ones multiplied";
        let brace = "a brace that is no repetition: write `\\{`";
        let class = "it has general categories, for example `\\p{Lu}`, and scripts, for example `\\p{Greek}`";
        for (pattern, problem) in [
            ("(", "unclosed group (character 1)".into()),
            (
                "(?=a)",
                "look-around, including look-ahead and look-behind, is not supported (character 1)".into(),
            ),
            ("*", "there is nothing to repeat (character 1)".into()),
            ("(*)", "there is nothing to repeat (character 2)".into()),
            (r"\Z", r"`\Z` is not known (character 1)".into()),
            (r"a\Qb\E", r"`\Q` is left out: put a `\` before each character instead (character 2)".into()),
            (r"\1", r"RE2 has no backreference `\1` (character 1)".into()),
            (r"[\7]", r"RE2 has no backreference `\7` (character 2)".into()),
            (
                "ab**",
                "RE2 has no `**`: put what the first one repeats into a group, `(?:a*)*` (character 3)"
                    .into(),
            ),
            (
                "x*+",
                "RE2 has no `*+`: put what the first one repeats into a group, `(?:a*)*` (character 2)"
                    .into(),
            ),
            (
                "x{2}{3}",
                "RE2 has no `{2}{3}`: put what the first one repeats into a group, `(?:a*)*` (character 2)"
                    .into(),
            ),
            (r"\u0041", r"RE2 has no `\u0041`: write `\x{41}` (character 1)".into()),
            (r"[\U00000041-Z]", r"RE2 has no `\U00000041`: write `\x{41}` (character 2)".into()),
            (
                r"\p{Script=Greek}",
                r"RE2 has no class `\p{Script=Greek}`: write `\p{Greek}` (character 1)".into(),
            ),
            (r"\p{Letter}", format!(r"RE2 has no class `\p{{Letter}}`: {class} (character 1)")),
            (r"[\p{greek}]", format!(r"RE2 has no class `\p{{greek}}`: {class} (character 2)")),
            (r"\pX", format!(r"RE2 has no class `\pX`: {class} (character 1)")),
            ("[a&&b]", "RE2 has no operation `&&` on classes: write the character once (character 2)".into()),
            ("[a--b]", "RE2 has no operation `--` on classes: write the character once (character 2)".into()),
            ("[a~~b]", "RE2 has no operation `~~` on classes: write the character once (character 2)".into()),
            ("[a[b]]", r"RE2 has no class within a class: write `\[` for the character (character 3)".into()),
            ("(?x)a", "RE2 has no flag `x`: it has `i`, `m`, `s` and `U` (character 3)".into()),
            ("(?-u:a)", "RE2 has no flag `u`: it has `i`, `m`, `s` and `U` (character 4)".into()),
            ("(?R)a", "RE2 has no flag `R`: it has `i`, `m`, `s` and `U` (character 3)".into()),
            ("(?<a.b>x)", "RE2 has no group name `a.b`: write letters, digits and `_` (character 4)".into()),
            (r"\b{start}", r"RE2 has no `\b{start}` (character 1)".into()),
            ("a{1001}", format!("more than 1000 repetitions, {nested} (character 2)")),
            ("(a{40}b){40}", format!("more than 1000 repetitions, {nested} (character 3)")),
            (
                "a{ 2 }",
                "a brace that is no repetition: write it without blanks, or `\\{` (character 2)".into(),
            ),
            ("a{,2}", format!("{brace} (character 3)")),
            ("a{", format!("{brace} (character 2)")),
            ("[b-a]", "invalid character class range, the start must be <= the end (character 2)".into()),
        ] {
            assert_eq!(compile(pattern).err(), Some(problem), "{pattern}");
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
