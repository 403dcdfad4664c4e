//! Texts that are made to take the compiler down: each gets a prompt answer, of bounded size, with a code and a
//! place. `diagnostics.rs` has the mistakes that people make.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Code, compile, limits::MAX_DIAGNOSTICS, render};
use std::time::{Duration, Instant};

/// Generous, for a machine that does other things: what this is about takes minutes, or all memory.
const PROMPT: Duration = Duration::from_secs(5);
/// An answer is for people, and goes over the network.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// The first problem's code, line and column.
#[track_caller]
fn assert_refused(what: &str, text: &str, expected: (Code, usize, usize)) {
    let start = Instant::now();
    let problems = compile(text, "test").expect_err(&what[..what.floor_char_boundary(40)]);
    let rendered = render("r.yaml", text, &problems);
    assert!(start.elapsed() < PROMPT, "{what:.40} took {:?}", start.elapsed());
    let first = &problems[0];
    assert_eq!((first.code, first.place.line, first.place.column), expected, "{what:.40}: {}", first.message);
    assert!(problems.len() <= MAX_DIAGNOSTICS, "{what:.40}: {} problems", problems.len());
    assert!(rendered.len() <= MAX_ANSWER_BYTES, "{what:.40}: {} bytes", rendered.len());
    let harmful = |c: char| c.is_control() && c != '\n';
    assert!(!rendered.contains(harmful), "{what}: {rendered:?}");
    assert!(!problems.iter().any(|problem| problem.message.contains(harmful)), "{what}: {problems:?}");
}

fn with_condition(condition: &str) -> String {
    format!("version: v1\nrules:\n  - name: r\n    condition: {condition}\n    target: v2\n")
}

#[test]
fn yaml_that_is_nested_too_deep() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    for (what, value, expected) in [
        ("lists", deep("[", "]"), (Code::Syntax, 2, 263)),
        ("mappings", deep("{a: ", "}"), (Code::TooLarge, 2, 68)),
        ("lists and mappings", deep("[{a: ", "}]"), (Code::Syntax, 2, 644)),
        ("lists that do not end", deep("[", ""), (Code::Syntax, 2, 263)),
        ("keys that are lists", deep("? [", ""), (Code::Syntax, 2, 8)),
        ("lists by dashes", format!("\n{}x", "- ".repeat(10_000)), (Code::TooLarge, 3, 31)),
        (
            "mappings by lines",
            (0..1_500).map(|depth| format!("\n{}a:", " ".repeat(depth + 1))).collect(),
            (Code::TooLarge, 18, 17),
        ),
    ] {
        assert_refused(what, &format!("version: v1\nrules: {value}\n"), expected);
    }
}

#[test]
fn conditions_that_are_nested_too_deep() {
    for (open, column) in [
        ("(", 117),
        ("!", 117),
        ("-", 117),
        ("!(-", 117),
        ("[", 117),
        ("{1: ", 414),
        ("f(", 217),
        ("has(", 417),
        ("a[", 217),
        ("a.", 218),
        ("a ? ", 417),
        ("a ? b : ", 813),
        ("1 + ", 419),
        ("a == ", 519),
    ] {
        let condition = open.repeat(10_000.min(16_000 / open.len()));
        assert_refused(open, &with_condition(&format!("\"{condition}\"")), (Code::TooComplex, 4, column));
    }
}

#[test]
fn literals_of_megabytes() {
    let ten = "x".repeat(10 << 20);
    let three = "x".repeat(3 << 20);
    for (what, text, expected) in [
        ("a list of a million", "- x\n".repeat(1_000_000), (Code::WrongForm, 1, 1)),
        ("a text of 10 MB", ten.clone(), (Code::TooLarge, 1, 1)),
        ("a literal of 10 MB", with_condition(&format!("\"s.t == '{ten}'\"")), (Code::TooLarge, 1, 1)),
        ("a literal of 3 MB", with_condition(&format!("\"s.t == '{three}'\"")), (Code::TooLarge, 4, 16)),
        (
            "a name of 3 MB",
            format!("version: v1\nrules:\n  - {{name: {three}, target: v2}}\n"),
            (Code::InvalidName, 3, 12),
        ),
        (
            "a target of 3 MB",
            format!("version: v1\nrules:\n  - {{name: r, target: {three}}}\n"),
            (Code::InvalidName, 3, 23),
        ),
        (
            "a field of 3 MB",
            format!("version: v1\n\"{three}\": 1\nrules: []\n"),
            (Code::Syntax, 2, (3 << 20) + 3),
        ),
        ("a version of 3 MB", format!("version: {three}\nrules: []\n"), (Code::WrongForm, 1, 10)),
        (
            "a weight of 3 MB",
            format!("version: v1\nrules:\n  - {{name: r, weight: {three}, target: v}}\n"),
            (Code::WeightOutOfRange, 3, 23),
        ),
        (
            "a number of 3 MB",
            format!("version: v1\nrules:\n  - {{name: r, weight: 9{}, target: v}}\n", "9".repeat(3 << 20)),
            (Code::WeightOutOfRange, 3, 23),
        ),
        (
            "a type of 3 MB",
            format!("version: v1\nattributes: {{a: {{header: h, type: {three}}}}}\nrules: []\n"),
            (Code::WrongForm, 2, 35),
        ),
        (
            "an attribute of 3 MB",
            format!("version: v1\nattributes: {{{three}: {{header: h}}}}\nrules: []\n"),
            (Code::InvalidName, 2, 14),
        ),
        (
            "a header of 3 MB",
            format!("version: v1\nattributes: {{a: {{header: {three}}}}}\nrules: []\n"),
            (Code::InvalidName, 2, 26),
        ),
        (
            "a constant of 3 MB",
            format!("version: v1\nattributes: {{a: {{constant: {three}, type: int}}}}\nrules: []\n"),
            (Code::TooLarge, 2, 28),
        ),
        ("a unit of 3 MB", format!("version: v1\nunit: {three}\nrules: []\n"), (Code::UnknownName, 2, 7)),
        (
            "a default of 3 MB",
            format!("version: v1\ntargets: {{v1: }}\ndefault: {three}\nrules: []\n"),
            (Code::InvalidName, 3, 10),
        ),
        (
            "a time of 3 MB",
            format!("version: v1\nrules:\n  - {{name: r, start: {three}, target: v}}\n"),
            (Code::InvalidConstant, 3, 22),
        ),
        (
            "an endpoint of 3 MB",
            format!("version: v1\ntargets: {{v: {{endpoints: [{three}]}}}}\nrules: []\n"),
            (Code::InvalidEndpoint, 2, 27),
        ),
        ("an identifier of 16 kB", with_condition(&"x".repeat(16_000)), (Code::UnknownName, 4, 16)),
        (
            "a number of 16 kB",
            with_condition(&format!("a.b == {}", "9".repeat(16_000))),
            (Code::ConditionSyntax, 4, 23),
        ),
        (
            "an expression of 16 kB",
            with_condition(&format!("\"a.b.matches('{}')\"", "(a".repeat(7_000))),
            (Code::InvalidConstant, 4, 29),
        ),
    ] {
        assert_refused(what, &text, expected);
    }
}

/// A name in a condition is short, whatever it stands for.
#[test]
fn constants_that_grow() {
    let with_constant = |bytes: usize, condition: &str| {
        let declared = format!("attributes: {{c: {{constant: {}}}}}\nrules:", "x".repeat(bytes));
        with_condition(condition).replace("rules:", &declared)
    };
    let balanced = (0..11).fold("c".to_owned(), |sum, _| format!("({sum}+{sum})"));
    let chain = |joint: &str| vec!["c"; 90].join(joint);
    for (what, text, expected) in [
        ("a constant", with_constant(8_193, "a.b == c"), (Code::TooLarge, 2, 28)),
        ("a literal", with_condition(&format!("a.b == '{}'", "x".repeat(8_193))), (Code::TooLarge, 4, 23)),
        ("bytes", with_condition(&format!("\"a.b == b'{}'\"", "x".repeat(8_193))), (Code::TooLarge, 4, 24)),
        ("a balanced sum", with_constant(8_000, &format!("size({balanced}) == 1")), (Code::TooLarge, 5, 32)),
        ("a chain", with_constant(8_000, &format!("a.b == {}", chain("+"))), (Code::TooLarge, 5, 23)),
        ("bytes of a sum", with_constant(8_000, "bytes(c) + bytes(c) == b''"), (Code::TooLarge, 5, 16)),
        ("a list", with_constant(8_000, &format!("a.b in [{}]", chain(","))), (Code::TooLarge, 5, 23)),
        ("a sum of lists", with_constant(8_000, "'a.b in [c] + [c] + [c]'"), (Code::TooLarge, 5, 24)),
        ("a map", with_constant(8_000, "'{1: c, 2: c, 3: c}[a.b] == c'"), (Code::TooLarge, 5, 17)),
        // What cannot be made is refused, also where it would not matter.
        ("what does not count", with_constant(8_000, "true || c + c == c"), (Code::TooLarge, 5, 24)),
    ] {
        assert_refused(what, &text, expected);
    }
    assert!(compile(&with_constant(8_192, "a.b == c || a.b in [c, 'x']"), "test").is_ok());

    let rules = |condition: &dyn Fn(usize) -> String| {
        let rule = |n| format!("- {{name: r{n}, condition: '{}', target: v}}\n", condition(n));
        let constant =
            format!("version: v1\nattributes: {{c: {{constant: {}}}}}\nrules:\n", "x".repeat(8_000));
        constant + &(0..1_000).map(rule).collect::<String>()
    };
    let different = rules(&|n| format!("a.b == c + \"{n}\""));
    assert_refused("different constants", &different, (Code::TooLarge, 528, 28));
    let names = vec!["c"; 60].join(",");
    let lists = rules(&|_| format!("a.b in [{names}]"));
    assert_refused("lists of one constant", &lists, (Code::TooLarge, 4, 33));
    // Each use shares the one text.
    let start = Instant::now();
    assert!(compile(&rules(&|_| "a.b == c || a.b.contains(c)".into()), "test").is_ok());
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

/// Texts of some megabytes, of which each part is compared with each other one.
#[test]
fn comparisons_that_repeat() {
    let equalities = vec!["a.b==1"; 1_700].join("&&");
    let rules: String = (0..100)
        .map(|n| format!("- {{name: r{n}, condition: 'a.c == {n} && {equalities}', target: v}}\n"))
        .collect();
    let text = format!("version: v1\nrules:\n{rules}");
    let start = Instant::now();
    let compiled = compile(&text, "test");
    assert!(start.elapsed() < PROMPT, "{:?} for {:?}", start.elapsed(), compiled.is_ok());

    let entries: Vec<String> = (0..1_100).map(|n| format!("{n}:1")).collect();
    let map = entries.join(",");
    let rules: String = (0..100)
        .map(|n| format!("- {{name: r{n}, condition: '{{{map}}}=={{{map}}}', target: v}}\n"))
        .collect();
    let text = format!("version: v1\nrules:\n{rules}");
    let start = Instant::now();
    assert!(compile(&text, "test").is_ok());
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

#[test]
fn aliases_that_multiply() {
    let mut bomb = String::from("version: v1\na: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, other) in ('b'..='z').zip('a'..) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{other}"); 9].join(", "));
    }
    assert_refused("a bomb", &bomb, (Code::UnsupportedYaml, 2, 4));
    assert_refused("an alias of nothing", "version: v1\nrules: *a\n", (Code::Syntax, 2, 8));
    assert_refused("an alias of itself", "version: v1\nrules: &a [*a]\n", (Code::UnsupportedYaml, 2, 8));
    assert_refused("a merge", "version: v1\nrules: []\n<<: {default: v1}\n", (Code::UnknownField, 3, 1));
}

#[test]
fn characters_that_do_not_belong() {
    for (what, text, expected) in [
        ("NUL alone", "\0".to_owned(), (Code::Syntax, 1, 1)),
        ("NUL behind", "version: v1\nrules: []\n\0".to_owned(), (Code::Syntax, 3, 1)),
        ("NUL in a value", "version: v\x001\nrules: []\n".to_owned(), (Code::Syntax, 1, 11)),
        ("NUL in a condition", with_condition("\"a.b == 'x' \\0\""), (Code::ConditionSyntax, 4, 28)),
        (
            "NUL in a name",
            with_condition("\"true\"").replace("name: r", "name: \"r\\0\""),
            (Code::InvalidName, 3, 11),
        ),
        (
            "NUL in a header",
            "version: v1\nattributes: {a: {header: \"h\\0\"}}\nrules: []\n".to_owned(),
            (Code::InvalidName, 2, 26),
        ),
        (
            "an escape character",
            "version: v1\nrules: []\n\x1b[2J: 1\n".to_owned(),
            (Code::UnknownField, 3, 1),
        ),
        (
            "an escaped escape character",
            "version: v1\nrules: []\n\"\\e[2J\": 1\n".to_owned(),
            (Code::UnknownField, 3, 1),
        ),
        ("half a surrogate pair", with_condition("\"a.b == '\\ud800'\""), (Code::Syntax, 4, 16)),
        ("half a surrogate pair in CEL", with_condition("a.b == '\\ud800'"), (Code::ConditionSyntax, 4, 24)),
    ] {
        assert_refused(what, &text, expected);
    }
}

#[test]
fn keys_that_stand_twice() {
    let many: String = (0..50_000).map(|_| "a: 1\n").collect();
    for (what, text, expected) in [
        ("a field", "version: v1\nrules: []\nrules: []\n".to_owned(), (Code::DuplicateKey, 3, 1)),
        ("a field of a rule", with_condition("true\n    condition: false"), (Code::DuplicateKey, 5, 5)),
        ("a quoted field", "version: v1\nrules: []\n\"rules\": []\n".to_owned(), (Code::DuplicateKey, 3, 1)),
        (
            "JSON",
            "{\"version\": \"v1\", \"rules\": [], \"rules\": []}".to_owned(),
            (Code::DuplicateKey, 1, 32),
        ),
        (
            "an attribute",
            "version: v1\nattributes: {a: {header: h}, a: {header: h}}\nrules: []\n".to_owned(),
            (Code::DuplicateKey, 2, 30),
        ),
        ("a target", "version: v1\ntargets: {a: , a: }\nrules: []\n".to_owned(), (Code::DuplicateKey, 2, 16)),
        ("many", format!("version: v1\nrules: []\n{many}"), (Code::DuplicateKey, 4, 1)),
        ("a map's key", with_condition("\"{'a': 1, 'a': 2}['a'] == 1\""), (Code::DuplicateKey, 4, 26)),
    ] {
        assert_refused(what, &text, expected);
    }
}

#[test]
fn expressions_that_explode() {
    let matches = |pattern: &str| with_condition(&format!("'a.b.matches(r\"{pattern}\")'"));
    for pattern in [
        "(a|b)*a(a|b){30}",
        "((a{100}){100}){100}",
        "(x+x+)+y{1000}{1000}",
        r"(\pL{1,500}x){900}",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^a]{900}a{900}",
        &"(".repeat(10_000),
        &"(?i)größe[^x]{9}".repeat(900),
    ] {
        assert_refused(pattern, &matches(pattern), (Code::InvalidConstant, 4, 29));
    }
    // Many at once, each of which takes its time.
    let rules: String = (0..1_000)
        .map(|n| {
            format!("  - {{name: r{n}, condition: 'a.b.matches(\"(a|b)*a(a|b){{30}}x{n}\")', target: v2}}\n")
        })
        .collect();
    assert_refused(
        "many expressions",
        &format!("version: v1\nrules:\n{rules}"),
        (Code::InvalidConstant, 3, 40),
    );
    // What makes engines that backtrack hang is nothing special to an automaton.
    for pattern in ["(a+)+$", "(x+x+)+y", &"a|".repeat(7_000), &"[a-z]*".repeat(2_000)] {
        let start = Instant::now();
        assert!(compile(&matches(pattern), "test").is_ok(), "{pattern}");
        assert!(start.elapsed() < PROMPT, "{pattern} took {:?}", start.elapsed());
    }
}

/// Each wrong name is compared with those that are right.
#[test]
fn many_names_that_are_nearly_right() {
    let name = |n: usize| format!("{}{n:05}", "x".repeat(60));
    let attributes: String = (0..30_000).map(|n| format!("  {}: {{header: h}}\n", name(n))).collect();
    let rules: String = (40_000..40_200)
        .map(|n| format!("  - {{name: r{n}, condition: {} == 'x', target: v}}\n", name(n)))
        .collect();
    let text = format!("version: v1\nattributes:\n{attributes}rules:\n{rules}");
    assert_refused("names", &text, (Code::UnknownName, 30_004, 31));
    let long = with_condition(&format!("{} == 'x'", "x".repeat(16_000)));
    let text = long.replace("rules:", &format!("attributes:\n{attributes}rules:"));
    assert_refused("a long name", &text, (Code::UnknownName, 30_005, 16));
}

/// A text on one line, as a program writes it.
#[test]
fn many_problems_on_one_long_line() {
    let rules: Vec<String> = (0..20_000)
        .map(|n| format!(r#"{{"name": "r{n}", "condition": "usr == {n}", "target": "v2"}}"#))
        .collect();
    let text = format!(r#"{{"version": "v1", "rules": [{}]}}"#, rules.join(", "));
    assert_refused("a long line", &text, (Code::UnknownName, 1, 58));
}
