//! Bad input: each problem gets its code and its place, all in one pass.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Code, LinkError, Member, compile, compile_file, conflicts, link, render};

/// The codes and places of a text's problems, and the part of the text that each one marks.
fn problems(text: &str) -> Vec<(Code, String)> {
    let Err(diagnostics) = compile(text, "test") else { return vec![] };
    let marked = |d: &halftone_compiler::Diagnostic| {
        let line = text.lines().nth(d.place.line - 1).unwrap_or_default();
        let end =
            if d.place.end_line == d.place.line { d.place.end_column - 1 } else { line.chars().count() };
        line.chars().take(end).skip(d.place.column - 1).collect::<String>()
    };
    diagnostics.iter().map(|d| (d.code, marked(d))).collect()
}

#[track_caller]
fn assert_problem(text: &str, code: Code, marked: &str) {
    assert_eq!(problems(text), [(code, marked.to_string())], "{text}");
}

fn with_condition(condition: &str) -> String {
    format!("version: v1\nrules:\n  - name: r\n    condition: {condition}\n    target: v2\n")
}

fn with_field(field: &str) -> String {
    format!("version: v1\nrules:\n  - name: r\n    {field}\n    target: v2\n")
}

#[test]
fn yaml() {
    assert_problem("", Code::Syntax, "");
    assert_problem("version: v1\nrules: [", Code::Syntax, "");
    assert_problem("version: v1\nrules:\n\t- x", Code::Syntax, "");
    assert_problem("just text", Code::WrongForm, "just text");
    assert_problem("version: v1\nversion: v1\nrules: []", Code::DuplicateKey, "version");
    assert_problem("version: v1\nrules: &a []", Code::UnsupportedYaml, "&a [");
    assert_problem("version: !!str v1\nrules: []", Code::UnsupportedYaml, "!!str v1");
    assert_problem("version: v1\nrules: []\n---\nversion: v1", Code::UnsupportedYaml, "---");
    assert_problem(&format!("version: v1\nrules: {}", "[".repeat(20)), Code::TooLarge, "[");
    // The parser has a bound of its own for what is absurd.
    assert_problem(&format!("version: v1\nrules: {}", "[".repeat(10_000)), Code::Syntax, "");
    assert_problem(&"x".repeat((4 << 20) + 1), Code::TooLarge, "");
}

#[test]
fn fields() {
    assert_problem("rules: []", Code::MissingField, "");
    assert_problem("version: v2\nrules: []", Code::WrongForm, "v2");
    assert_problem("version: v1\nrulez: []\nrules: []", Code::UnknownField, "rulez");
    assert_problem("version: v1", Code::MissingField, "");
    assert_problem("version: v1\nrules: 3", Code::WrongForm, "3");
    assert_problem(&with_field("weigth: 0.1"), Code::UnknownField, "weigth");
    for weight in ["1.5", "-0.1", ".nan", "NaN", "inf", "10%", "lots"] {
        assert_problem(&with_field(&format!("weight: {weight}")), Code::WeightOutOfRange, weight);
    }
    assert_problem(&with_field("weight: [1]"), Code::WrongForm, "[1]");
    // A template whose variable is empty must not send everybody to the canary.
    for empty in ["weight:", "weight: ~", "weight: null"] {
        assert_problem(&with_field(empty), Code::WrongForm, "weight");
    }
    assert_problem(&with_field("condition:"), Code::WrongForm, "condition");
    assert_problem("version: v1\nrules:", Code::WrongForm, "rules");
    assert_problem("version: v1\nrules:\n  - target: v2", Code::MissingField, "");
    assert_problem("version: v1\nrules:\n  - {name: a b, target: v2}", Code::InvalidName, "a b");
    assert_problem(
        "version: v1\nrules:\n  - {name: a, target: v2}\n  - {name: a, target: v2}",
        Code::DuplicateName,
        "a",
    );
    assert_problem(
        "version: v1\ntargets: {v1: , v3: }\ndefault: v1\nrules:\n  - {name: a, target: v2}",
        Code::UnknownTarget,
        "v2",
    );
    assert_problem("version: v1\ntargets: {v1: }\ndefault: v7\nrules: []", Code::UnknownTarget, "v7");
    assert_problem("version: v1\nname: other\nrules: []", Code::InvalidName, "other");
    assert_problem(
        "version: v1\ntargets:\n  v1: {endpoints: [localhost]}\nrules: []",
        Code::InvalidEndpoint,
        "localhost",
    );
    assert_problem("version: v1\nmatch: {hosts: [a/b]}\nrules: []", Code::WrongForm, "a/b");
    assert_problem("version: v1\nmatch: {hosts: ['a.com:80']}\nrules: []", Code::WrongForm, "'a.com:80'");
    assert_problem("version: v1\nmatch: {hosts: ['[::1]', '[a]']}\nrules: []", Code::WrongForm, "'[a]'");
    for host in ["...", "a..b", ".a", "*", "*.", "*.[::1]", "*.10.0.0.1"] {
        let host = format!("'{host}'");
        assert_problem(
            &format!("version: v1\nmatch: {{hosts: [{host}]}}\nrules: []"),
            Code::WrongForm,
            &host,
        );
    }
    for host in ["example.com.", "_a.b-c", "10.0.0.1", "'[::1]'", "'*.example.com'"] {
        assert_eq!(problems(&format!("version: v1\nmatch: {{hosts: [{host}]}}\nrules: []")), [], "{host}");
    }
    assert_problem("version: v1\nmatch: {path_prefixes: [v2]}\nrules: []", Code::WrongForm, "v2");
    for query in ["''", "'a=b'", "'a&b'", "'a#b'"] {
        let text = format!("version: v1\nattributes: {{a: {{query: {query}}}}}\nrules: []");
        assert_problem(&text, Code::InvalidName, query);
    }
    for name in ["in", "true", "false", "null", "if", "while", "if.x"] {
        let text = format!("version: v1\nattributes: {{{name}: {{header: h}}}}\nrules: []");
        assert_problem(&text, Code::InvalidName, name);
    }
    // What conditions can use may be declared.
    let text = "version: v1\nattributes: {has: {header: h}, a.if: {header: i}, a.in: {header: j}}\nrules:\n  - {name: r, condition: has == a.if && a.`in` != 'x', target: v2}";
    assert_eq!(problems(text), []);
    assert_problem("version: v1\nattributes: {a: {type: int}}\nrules: []", Code::MissingField, "a");
    assert_problem("version: v1\nattributes: {a: {cookie: 'a=b'}}\nrules: []", Code::InvalidName, "'a=b'");
    assert_problem("version: v1\nattributes: {a: {cookie: c, header: d}}\nrules: []", Code::WrongForm, "c");
    assert_problem(
        "version: v1\nattributes: {a: {header: h, type: integer}}\nrules: []",
        Code::WrongForm,
        "integer",
    );
    assert_problem(
        "version: v1\nattributes: {a: {header: X-Halftone-Target}}\nrules: []",
        Code::ReservedHeader,
        "X-Halftone-Target",
    );
}

#[test]
fn conditions() {
    for (condition, code, marked) in [
        ("user.id =< 3", Code::ConditionSyntax, "="),
        ("user.id <", Code::ConditionSyntax, ""),
        ("(user.id < 3", Code::ConditionSyntax, ""),
        ("user.id < 3)", Code::ConditionSyntax, ")"),
        ("user.id < 99999999999999999999", Code::ConditionSyntax, "99999999999999999999"),
        ("n.a == 9223372036854775808", Code::NumberOutOfRange, "9223372036854775808"),
        ("user.id == \"42\"", Code::TypeMismatch, "user.id == \"42\""),
        ("user.id < 1.5", Code::TypeMismatch, "user.id < 1.5"),
        ("user.id", Code::TypeMismatch, "user.id"),
        ("-user.id < 3", Code::TypeMismatch, "user.id"),
        ("1.5 % 2.0 < 1.0", Code::TypeMismatch, "1.5"),
        ("request.path + request.path == 'a'", Code::UnsupportedFeature, "request.path"),
        ("'!user.id'", Code::TypeMismatch, "user.id"),
        ("!user.id", Code::UnsupportedYaml, "!user.id"),
        ("a.b == 'x' || a.b == 3", Code::TypeMismatch, "a.b == 3"),
        ("\"a.b ? 1 : 'x'\"", Code::TypeMismatch, "a.b ? 1 : 'x'"),
        ("a.b in ['x', 3]", Code::TypeMismatch, "3"),
        ("usr == 3", Code::UnknownName, "usr"),
        ("request.pth == 'x'", Code::UnknownName, "request.pth"),
        (
            "request.headers['x-halftone-target'] == 'v2'",
            Code::ReservedHeader,
            "request.headers['x-halftone-target']",
        ),
        ("halftone.target == 'v2'", Code::ReservedHeader, "halftone.target"),
        ("request.path.startWith('/')", Code::UnknownFunction, "startWith"),
        ("request.path.startsWith(1)", Code::TypeMismatch, "1"),
        ("size(1) == 1", Code::TypeMismatch, "1"),
        ("size() == 1", Code::TypeMismatch, "size()"),
        ("request.path.matches('(')", Code::InvalidConstant, "'('"),
        ("request.path.matches(request.host)", Code::UnsupportedFeature, "request.host"),
        ("cidr(a.b, '10.0.0.1/8')", Code::InvalidConstant, "'10.0.0.1/8'"),
        ("semver(a.b) > semver('1.2')", Code::InvalidConstant, "'1.2'"),
        ("now > timestamp('tomorrow')", Code::InvalidConstant, "'tomorrow'"),
        ("now - 3 > now", Code::TypeMismatch, "now - 3"),
        ("now.getHours('Mars') > 3", Code::InvalidConstant, "'Mars'"),
        ("bucket(user.id, 's', 0) == 1", Code::InvalidConstant, "0"),
        ("user.id in [1, 2].map(x, x + 1)", Code::UnsupportedFeature, "map"),
        ("type(user.id) == int", Code::UnsupportedFeature, "type"),
        ("a.b.lowerAscii() == 'x'", Code::UnsupportedFeature, "lowerAscii"),
        ("string(user.id) == '7'", Code::UnsupportedFeature, "user.id"),
        ("1 == 1u", Code::TypeMismatch, "1 == 1u"),
        ("1 + 1u == 2u", Code::TypeMismatch, "1 + 1u"),
        ("1 == 1.0", Code::TypeMismatch, "1 == 1.0"),
        ("'[1, \"a\"] == []'", Code::TypeMismatch, "\"a\""),
        ("'[a.b] == [\"x\"]'", Code::UnsupportedFeature, "[a.b]"),
        ("\"{'a': 1, 'a': 2}['a'] == 1\"", Code::DuplicateKey, "'a'"),
        ("while == 1", Code::ConditionSyntax, "while"),
        ("a.b < now", Code::TypeMismatch, "a.b"),
        ("(now - now).getHours('+02:00') == 1", Code::TypeMismatch, "now - now"),
        ("null == null", Code::UnsupportedFeature, "null"),
        ("{}", Code::WrongForm, "{}"),
        (".true", Code::ConditionSyntax, "true"),
        (". 5 == 1", Code::ConditionSyntax, "5"),
        ("in == 1", Code::ConditionSyntax, "in"),
        ("a.in == 1", Code::ConditionSyntax, "in"),
        ("if.a == 1", Code::ConditionSyntax, "if"),
        ("size('a',) == 1", Code::ConditionSyntax, ")"),
        ("-(9223372036854775808) < n.a", Code::NumberOutOfRange, "9223372036854775808"),
        ("-9223372036854775809 < n.a", Code::NumberOutOfRange, "-9223372036854775809"),
        ("user.id > -1", Code::TypeMismatch, "-1"),
        ("request.query[''] == 'x'", Code::InvalidName, "request.query['']"),
    ] {
        let found = problems(&with_condition(condition));
        assert!(found.contains(&(code, marked.into())), "{condition}: {found:?}");
    }
}

#[test]
fn layers_arms_and_overrides() {
    let text = |rest: &str| format!("version: v1\nlayers: {{l: {{holdout: 0.1}}}}\n{rest}");
    for (rest, code, marked) in [
        ("rules:\n  - {name: a, layer: m, target: v2}", Code::UnknownReference, "m"),
        (
            "rules:\n  - {name: a, layer: l, target: v2}\n  - {name: b, layer: l, target: v2}",
            Code::Overlap,
            "b",
        ),
        (
            "rules:\n  - {name: a, layer: l, range: [0, 0.5], target: v2}\n  - {name: b, layer: l, range: [0.4, 1], target: v2}",
            Code::Overlap,
            "[0.4, 1]",
        ),
        ("rules:\n  - {name: a, range: [0, 0.5], target: v2}", Code::WrongForm, "[0, 0.5]"),
        ("rules:\n  - {name: a, layer: l, range: [0.5, 0.5], target: v2}", Code::WrongForm, "[0.5, 0.5]"),
        ("rules:\n  - {name: a, layer: l, seed: s, target: v2}", Code::WrongForm, "s"),
        ("rules:\n  - {name: a, weight: 0.7, control: 0.4, target: v2}", Code::WeightOutOfRange, "a"),
        ("rules:\n  - {name: a, target: v2, arms: [{name: x, target: v2}]}", Code::WrongForm, "v2"),
        ("rules:\n  - {name: a, arms: []}", Code::WrongForm, ""),
        ("rules:\n  - {name: a}", Code::MissingField, ""),
        ("rules:\n  - {name: a, arms: [{name: x, target: v2, split: 0}]}", Code::WrongForm, "0"),
        ("rules:\n  - {name: a, start: yesterday, target: v2}", Code::InvalidConstant, "yesterday"),
        (
            "rules:\n  - {name: a, start: 2026-01-02T00:00:00Z, end: 2026-01-01T00:00:00Z, target: v2}",
            Code::WrongForm,
            "2026-01-01T00:00:00Z",
        ),
        ("rules: []\noverrides: [{units: [1], rule: r}]", Code::UnknownReference, "r"),
        ("rules: []\noverrides: [{units: [1]}]", Code::WrongForm, ""),
        ("rules: []\noverrides: [{units: [1, 1], target: v2}]", Code::DuplicateName, "1"),
        (
            "rules:\n  - {name: a, control: 0.1, weight: 0.1, target: v2}\noverrides: [{units: [1], rule: a, arm: b}]",
            Code::UnknownReference,
            "b",
        ),
        ("rules: []\nexperiments: [{name: e}]", Code::MissingField, ""),
        ("rules: []\nexperiments: [{name: e, arms: [{name: x, target: v2}]}]", Code::UnknownField, "target"),
    ] {
        let found = problems(&text(rest));
        assert!(found.contains(&(code, marked.into())), "{rest}: {found:?}");
    }
}

#[test]
fn hostile_conditions_get_a_prompt_answer() {
    for condition in ["(", "!", "-", "a.", "[", "a?", "a[", "1+", "a==", "f("] {
        let text = with_condition(&format!("'{}'", condition.repeat(16_000 / condition.len())));
        assert!(!problems(&text).is_empty(), "{condition}");
    }
    let text = with_condition(&format!("'{}a'", "a.".repeat(5_000)));
    assert!(!problems(&text).is_empty());
    assert_eq!(problems(&with_condition(&format!("'{}'", "x".repeat(20_000))))[0].0, Code::TooLarge);
}

#[test]
fn places_are_whole_characters_whatever_the_text() {
    for condition in [
        "tenant.name == “acme”",
        "a.b ==\u{a0}'acme'",
        "a.b – 1 == 2",
        "a.b == é",
        "'é",
        "'\\é'",
        "é",
        "日本.語 == 1",
        "a.b == '日本' && é",
    ] {
        for text in [
            with_condition(&format!("\"{}\"", condition.replace('\\', "\\\\"))),
            with_condition(&format!(">\n      {}\n      {condition}", condition.replace(' ', "\n      "))),
            with_condition(condition),
        ] {
            let diagnostics = compile(&text, "test").unwrap_err();
            assert!(render("r.yaml", &text, &diagnostics).contains("error["), "{text}");
        }
    }
}

/// Texts under the size limit that once took time with the square of their size.
#[test]
fn large_texts_get_a_prompt_answer() {
    let start = std::time::Instant::now();
    let rules =
        |count: usize| (0..count).map(|n| format!("  - {{name: r{n}, target: t{n}}}\n")).collect::<String>();
    let list = (0..2_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let allowlists: String =
        (0..200).map(|n| format!("  - {{name: r{n}, condition: 'a.b in [{list}]', target: v2}}\n")).collect();
    let endpoints: String = (0..200_000).map(|n| format!("'10.0.0.1:{}',", n % 60_000 + 1)).collect();
    for text in [
        with_condition(&format!("\"{}\"", "\\u00e9".repeat(600_000))),
        format!("version: v1\nrules:\n{}", rules(100_000)),
        format!("version: v1\nrules:\n{allowlists}"),
        format!("version: v1\ntargets: {{t: {{endpoints: [{endpoints}]}}}}\nrules: []"),
        format!("version: v1\nrules: []\n{}", "a: 1\n".repeat(800_000)),
        format!(
            "version: v1\nrules:\n  - name: r\n{}",
            (0..300_000).map(|n| format!("    f{n}: 1\n")).collect::<String>()
        ),
        format!(
            "version: v1\ntargets:\n{}rules:\n{}",
            (0..50_000).map(|n| format!("  x{n}: \n")).collect::<String>(),
            rules(100)
        ),
    ] {
        let _ = compile(&text, "test");
    }
    // Each took from seconds to minutes; generous, because only the growth matters.
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn all_problems_are_reported_in_one_pass() {
    let text = "version: v1\nrules:\n  - name: a\n    condition: user.id == 'x'\n    weight: 7\n    target: v2\n  - name: b\n    condition: usr > 3\n    target: v2\n    extra: 1\n";
    let codes: Vec<Code> = problems(text).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, [Code::TypeMismatch, Code::WeightOutOfRange, Code::UnknownName, Code::UnknownField],);
}

#[test]
fn a_rendered_problem_shows_a_caret_at_its_place() {
    let text = with_condition("user.id == \"42\"");
    let rendered = render("rules.yaml", &text, &compile(&text, "test").unwrap_err());
    let expected = r#"error[E0305]: `==` needs values of one type, but these are uint and string
 --> rules.yaml:4:16
  |
4 |     condition: user.id == "42"
  |                ^^^^^^^^^^^^^^^
  = help: write the number without quotes"#;
    assert_eq!(normalise(&rendered), normalise(expected));
}

/// The first problem's message and help.
fn said(text: &str) -> (String, String) {
    let first = compile(text, "test").unwrap_err().swap_remove(0);
    (first.message, first.help.unwrap_or_default())
}

#[test]
fn texts_that_yaml_reads_as_something_else_need_quotes() {
    for (condition, quoted) in [
        ("a: b", "'a: b'"),
        ("a.b ? b.c : d.e", "'a.b ? b.c : d.e'"),
        ("a.b == \"x: y\"", "'a.b == \"x: y\"'"),
        ("\"x\" == a.b", "'\"x\" == a.b'"),
        ("'x' == a.b", "\"'x' == a.b\""),
        ("\"a\" in x.y && x.z == 'b'", "'\"a\" in x.y && x.z == ''b'''"),
        ("!a.b", "'!a.b'"),
        ("!has(a.b) && c.d == 1", "'!has(a.b) && c.d == 1'"),
        ("{a.b}", "'{a.b}'"),
        ("[a.b]", "'[a.b]'"),
        ("{1: 2}[1] == 2", "'{1: 2}[1] == 2'"),
        ("{\"a\": 1}[tenant] > 0", "'{\"a\": 1}[tenant] > 0'"),
        ("tenant == \"a: b\"", "'tenant == \"a: b\"'"),
        ("[1] == [1]", "'[1] == [1]'"),
        ("*a", "'*a'"),
        ("> 3", "'> 3'"),
        ("`a`", "'`a`'"),
    ] {
        let text = with_condition(condition);
        let help = format!("put the whole text into quotes: `condition: {quoted}`");
        assert_eq!(said(&text).1, help, "{text}");
        // What is advised is what was meant.
        let problems = problems(&with_condition(quoted));
        assert!(!problems.iter().any(|(code, _)| matches!(code, Code::Syntax | Code::WrongForm)), "{quoted}");
    }
    for (text, help) in [
        (
            with_condition("# a.b"),
            "a `#` starts a comment in YAML: put a text that starts with it into quotes",
        ),
        (
            with_condition("a.b == \"/a #b\""),
            "a ` #` starts a comment in YAML: put the whole condition into quotes",
        ),
        (
            "version: v1\nmatch: {hosts: [api.example.com, *.example.com]}\nrules: []".into(),
            "a text that starts with `*` needs quotes in YAML: `'*.example.com'`",
        ),
        (
            "version: v1\nmatch:\n  hosts:\n  - *.example.com\nrules: []".into(),
            "a text that starts with `*` needs quotes in YAML: `'*.example.com'`",
        ),
        (
            "version: v1\nrules:\n  - {name: r, condition: \"x\" == a.b, target: v2}".into(),
            "put the whole condition into quotes",
        ),
        (
            r#"{"version": "v1", "rules": [{"name": "r", "condition": "a.b == "x"", "target": "v2"}]}"#
                .into(),
            r#"within double quotes a double quote is written `\"`"#,
        ),
        (
            with_condition("a.b == 'x'\n      && c.d == 'a: b'"),
            "put the whole condition into single quotes, or write it on lines below `condition: |`",
        ),
        (
            with_condition("\n      \"beta\" in user.groups"),
            "put the whole condition into single quotes, or write it on lines below `condition: |`",
        ),
        (
            "version: v1\nrules: &a []".into(),
            "write the value out where it is needed; a text that starts with `&` or `*` needs quotes",
        ),
    ] {
        assert_eq!(said(&text).1, help, "{text}");
    }
    let (message, help) = said("version: v1\nrules: []\n---\nversion: v1\nrules: []");
    assert_eq!(message, "a text has one ruleset, but here a second document starts");
    assert_eq!(help, "put each ruleset into a file of its own");
    // Whoever reads files and uploads stops at the limit, so how much more there is is not said.
    let (message, _) = said(&"x".repeat((4 << 20) + 1));
    assert_eq!(message, "the text has more than the 4194304 bytes that are allowed");
}

#[test]
fn operators_of_other_languages_are_translated() {
    for (condition, help) in [
        ("a.b = 1", "write `==` to compare"),
        ("a.b === 1", "write `==` to compare"),
        ("a.b !== 1", "write `!=`"),
        ("a.b <> 1", "write `!=`"),
        ("a.b =< 1", "write `<=`"),
        ("a.b => 1", "write `>=`"),
        ("a.b =~ 'x'", "write text.matches(\"^expression$\")"),
        ("a.b == 1 and c.d == 2", "write `&&`"),
        ("a.b == 1 & c.d == 2", "write `&&`"),
        ("a.b == 1 OR c.d == 2", "write `||`"),
        ("a.b is 1", "write `==`"),
        ("not a.b", "write `!`"),
        ("not(a.b)", "write `!`"),
        ("a.b not in ['x']", "write `!` before the whole, for example !(a.b in [\"x\"])"),
        ("len(a.b) == 1", "write size(x)"),
        ("a.b == “x”", "write straight quotes: \" or '"),
        ("a.in == 1", "a field with the name of a word of CEL stands in backquotes: .`in`"),
    ] {
        assert_eq!(said(&with_condition(condition)).1, help, "{condition}");
    }
}

#[test]
fn what_lists_of_the_request_can_do_is_said() {
    let can = "write \"x\" in groups, or size(groups)";
    for (condition, message, help) in [
        ("groups[0] == 'a'", "`[]` does not work on a list of the request", can),
        ("groups == ['a']", "`==` does not work on a list of the request", "write 'a' in groups"),
        ("groups == groups", "`==` does not work on a list of the request", can),
        (
            "a.b == 'y' || 'a' != groups",
            "`!=` does not work on a list of the request",
            "write !('a' in groups)",
        ),
        ("groups.contains(a.b)", "`contains` does not work on a list of the request", can),
        (
            "groups in ['a']",
            "`in` looks for one value, but this is a list of the request",
            "write \"x\" in groups, joined by `||` for several",
        ),
        (
            "groups in []",
            "`in` looks for one value, but this is a list of the request",
            "write \"x\" in groups, joined by `||` for several",
        ),
    ] {
        let text = with_condition(condition)
            .replace("rules:", "attributes: {groups: {header: g, type: list}}\nrules:");
        assert_eq!(said(&text), (message.into(), help.into()), "{text}");
    }
}

#[test]
fn what_has_to_be_of_one_type_is_named() {
    for (condition, message) in [
        ("\"[1, 'a'] == [1]\"", "a list needs elements of one type, but these are int and string"),
        ("\"{1: 2, 'a': 2} == {1: 2}\"", "a map needs keys of one type, but these are int and string"),
        ("\"{1: 2, 2: 'a'} == {1: 2}\"", "a map needs values of one type, but these are int and string"),
        ("\"{1: 2}['a'] == 2\"", "a map needs keys of one type, but these are int and string"),
        ("\"[1]['a'] == 2\"", "`[]` on a list needs an int, but this is a string"),
        ("\"'a' in [1]\"", "`in` needs values of one type, but these are string and int"),
    ] {
        assert_eq!(said(&with_condition(condition)).0, message, "{condition}");
    }
}

#[test]
fn a_unit_is_named_as_an_attribute() {
    for (unit, help) in [
        ("x-user-id", "write `user.id`, which is the header x-user-id"),
        ("X-Tenant", "declare `attributes: {tenant: {header: x-tenant}}` and write `tenant`"),
        ("device-id", "declare `attributes: {device.id: {header: device-id}}` and write `device.id`"),
        ("x-1", "name an attribute, for example `user.id`; `attributes` says where it comes from"),
        ("'a b'", "name an attribute, for example `user.id`; `attributes` says where it comes from"),
        ("''", "name an attribute, for example `user.id`; `attributes` says where it comes from"),
        ("tenant", "an attribute that is not declared has the form `a.b` and means the header x-a-b"),
    ] {
        let text = format!("version: v1\nunit: {unit}\nrules: []");
        assert_problem(&text, Code::UnknownName, unit);
        assert_eq!(said(&text).1, help, "{unit}");
    }
    assert_eq!(problems("version: v1\nunit: request.headers.x-tenant\nrules: []"), []);
}

#[test]
fn times_that_cannot_be_are_told_the_range() {
    let (message, help) = said(&with_field("end: 9999-12-31T23:59:59Z"));
    assert_eq!(
        message,
        "times lie between 1677-09-21T00:12:44Z and 2262-04-11T23:47:16Z: they are nanoseconds in 64 bits"
    );
    assert_eq!(help, "write it like 2026-01-31T08:00:00Z, or leave `end` out if there is none");
    for time in ["2026-01-31 08:00:00Z", "2026-01-31t08:00:00Z", "2026-01-31T08:00Z", "2026-01-31T08:00:00"] {
        assert_problem(&with_field(&format!("start: {time}")), Code::InvalidConstant, time);
        let condition = with_condition(&format!("now > timestamp('{time}')"));
        assert_problem(&condition, Code::InvalidConstant, &format!("'{time}'"));
    }
}

#[test]
fn help_says_what_was_meant() {
    let declared = "attributes: {user.tier: {header: x-tier}, tenant: {header: x-t}, groups: {header: x-g, type: list}, debug: {query: d, type: bool}, client: {source: client_address}, app.version: {header: x-v}, min.version: {header: x-m, type: semver}}\nrules:";
    for (condition, help) in [
        (
            "user.id in ['1', '2']",
            "write the numbers without quotes, or declare `attributes: {user.id: {header: x-user-id, type: string}}`",
        ),
        ("user.id == 'alice'", "declare `attributes: {user.id: {header: x-user-id, type: string}}`"),
        ("user.id == '3'", "write the number without quotes"),
        ("tenant in ['a', 1]", "put the number into quotes"),
        ("tenant in [1, '2']", "write all numbers with quotes, or none"),
        ("tenant in [1, 2]", "put the numbers into quotes, or declare `tenant` with `type: int`"),
        ("request.headers['a'] == 3", "put the number into quotes, or convert: int(request.headers['a'])"),
        ("request.uri == '/'", "write `request.path`"),
        ("request.ip == '/'", "write `request.client_address`"),
        ("request.header['x'] == '/'", "did you mean `request.headers`?"),
        (
            "request.user == '/'",
            "a header is request.headers[\"x-user\"]; known are: request.path, request.method, request.host, request.client_address, request.headers, request.cookies, request.query",
        ),
        ("random() < 0.1", "a share of the units is the rule's `weight`: 0.1 takes a tenth of them"),
        (
            "hash(user.id) < 1",
            "a share of the units is the rule's `weight`; a bucket in a condition is bucket(user.id, \"seed\", 100)",
        ),
        ("now() > now", "write `now`, without parentheses"),
        ("user_id == 3", "did you mean `user.id`?"),
        ("groups == ['a']", "write 'a' in groups"),
        ("groups == 'beta'", "write 'beta' in groups"),
        ("groups != 'beta'", "write !('beta' in groups)"),
        ("groups.contains('beta')", "write 'beta' in groups"),
        ("groups in 'beta'", "write it the other way round: 'beta' in groups"),
        ("tenant in 'beta'", "write tenant in ['beta'], or tenant == 'beta'"),
        (
            "cidr(client, ['10.0.0.0/8'])",
            "write it once for each network, joined by `||`: cidr(a.b, \"10.0.0.0/8\") || cidr(a.b, \"fd00::/8\")",
        ),
        ("tenant.startsWith(['a'])", "write it once for each text, joined by `||`"),
        ("debug == 'true'", "write true without quotes"),
        ("debug == 'yes'", "declare `debug` with `type: string`"),
        ("debug == 1", "write true or false, or declare `debug` with `type: int`"),
        ("tenant == true", "put it into quotes, or declare `tenant` with `type: bool`"),
        (
            "app.version >= 2.4",
            "if it is a version, declare `app.version` with `type: semver` and write semver(\"2.4.0\")",
        ),
        ("min.version >= 2.4", "write semver(\"2.4.0\")"),
        ("now - duration('30d') > now", "the largest unit is the hour: write duration(\"720h\")"),
        ("now - duration('2w') > now", "the largest unit is the hour: write duration(\"336h\")"),
        ("now - duration('xd') > now", "write duration(\"1h30m\")"),
    ] {
        let text = with_condition(condition).replace("rules:", declared);
        assert_eq!(said(&text).1, help, "{condition}");
    }
    assert_eq!(said(&with_field("layer: ui")).1, "declare it: `layers: {ui: }`");
    let text = with_field("layer: ux").replace("rules:", "layers: {page: }\nrules:");
    assert_eq!(said(&text).1, "known are: page; a new one is declared under `layers`");
    // One problem, and not one for each part of the name.
    let text = with_condition("request.headers.x-user-id == '3'");
    assert_problem(&text, Code::UnknownName, "request.headers.x-user-id");
    assert_eq!(said(&text).1, "write request.headers[\"x-user-id\"]");
}

#[test]
fn the_use_that_gave_an_attribute_its_type_is_named() {
    let text = |first: &str, second: &str| {
        format!(
            "version: v1\nrules:\n- {{name: a, condition: \"{first}\", target: v2}}\n- {{name: b, condition: \"{second}\", target: v2}}\n"
        )
    };
    for (first, second, because) in [
        ("user.score > 5", "user.score < 0.5", "`user.score` is an int because of line 3; "),
        ("user.score > 0.5", "user.score < 5", "`user.score` is a double because of line 3; "),
        ("user.plan == 'a'", "user.plan == 3", "`user.plan` is a string because of line 3; "),
        (
            "has(user.score) && user.score in [1, 2]",
            "user.score < 0.5",
            "`user.score` is an int because of line 3; ",
        ),
    ] {
        let help = said(&text(first, second)).1;
        assert!(help.starts_with(because), "{first}, {second}: {help}");
    }
    let help = said(&with_condition("request.path == 3 || user.id == 'x'")).1;
    assert!(!help.contains("because"), "{help}");
}

#[test]
fn fields_that_would_mean_something_else_are_refused() {
    for (prefix, help) in
        [("/v2/*", "write `/v2`"), ("/v2*", "write `/v2`"), ("/*", "write `/`"), ("/a/**", "write `/a`")]
    {
        let text = format!("version: v1\nmatch: {{path_prefixes: ['{prefix}']}}\nrules: []");
        assert_problem(&text, Code::WrongForm, &format!("'{prefix}'"));
        assert_eq!(said(&text).1, help, "{prefix}");
    }
    for text in [
        "version: v1\nmatch: {hosts: []}\nrules: []",
        "version: v1\nmatch: {path_prefixes: []}\nrules: []",
        "version: v1\nrules: []\noverrides: [{units: [], target: v2}]",
    ] {
        assert_problem(text, Code::WrongForm, "[]");
    }
    assert_eq!(said("version: v1\nmatch: {hosts: a.com}\nrules: []").1, "write [a.com]");
    // One mistake is one problem.
    let text = with_field("layer: l\n    range: 0.5").replace("rules:", "layers: {l: }\nrules:");
    assert_problem(&text, Code::WrongForm, "0.5");
}

#[test]
fn what_is_too_much_is_told_where_it_begins() {
    let rules = |count: usize, condition: &dyn Fn(usize) -> String| {
        let rule = |n: usize| format!("- {{name: r{n}, condition: \"{}\", target: v2}}\n", condition(n));
        format!("version: v1\nrules:\n{}", (0..count).map(rule).collect::<String>())
    };
    for (text, line) in [
        (rules(80, &|n| format!("a.b{n} == 'x'")), 67),
        (rules(260, &|n| format!("a.b.matches('x{n}')")), 259),
    ] {
        let found = compile(&text, "test").unwrap_err();
        assert_eq!((found[0].code, found[0].place.line), (Code::TooLarge, line), "{}", found[0].message);
        assert!(found[0].help.is_some(), "{}", found[0].message);
    }
}

/// What the README shows is what is said.
#[test]
fn the_problem_in_the_readme_is_told_like_this() {
    let readme = include_str!("../../README.md");
    let (_, ruleset) = readme.split_once("/v1/rulesets/digits\nversion").unwrap();
    let (ruleset, _) = ruleset.split_once("\n$ ").unwrap();
    let mistaken = "rules: [{name: testers, condition: user.id < \"100\", target: v1}]";
    let text = format!("version{ruleset}").replace("rules: []", mistaken);
    let (_, shown) = readme.split_once("[\"rendered\"])'\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let rendered = render("digits", &text, &compile(&text, "digits").unwrap_err());
    let lines = |text: &str| text.trim_end().lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&rendered), lines(shown));
}

#[test]
fn misspelt_names_get_a_suggestion() {
    let help = |text: &str| compile(text, "test").unwrap_err()[0].help.clone().unwrap();
    assert_eq!(help(&with_field("weigth: 0.1")), "did you mean `weight`?");
    assert_eq!(help(&with_condition("request.pth == 'x'")), "did you mean `request.path`?");
    assert_eq!(help(&with_condition("request.path.startWith('/')")), "did you mean `startsWith`?");
    assert_eq!(
        help(
            "version: v1\ntargets: {canary: , stable: }\ndefault: stable\nrules:\n  - {name: a, target: canery}"
        ),
        "did you mean `canary`?"
    );
    assert_eq!(help(&with_field("weight: 10%")), "write 0.1");
}

#[test]
fn json_compiles_like_yaml() {
    let json = r#"{
	"version": "v1",
	"rules": [{"name": "r", "condition": "user.id == 42 && request.path != \"/\\u0041\"", "weight": 0.5, "target": "v2"}]
}"#;
    let yaml = "version: v1\nrules:\n- {name: r, condition: 'user.id == 42 && request.path != \"/A\"', weight: 0.5, target: v2}";
    assert_eq!(compile(json, "test").unwrap(), compile(yaml, "test").unwrap());
    // As two escapes, which is how many programs write what is behind U+FFFF.
    let json = r#"{"version": "v1", "rules": [{"name": "r", "condition": "a.b == '\ud83d\ude00 \u00e9'", "target": "v2"}]}"#;
    let plain = "version: v1\nrules: [{name: r, condition: \"a.b == '😀 é'\", target: v2}]";
    assert_eq!(compile(json, "test").unwrap(), compile(plain, "test").unwrap());
    // Places are those of the text as it stands; a backslash that is escaped starts no pair.
    assert_problem(&json.replace("v2", "v 2"), Code::InvalidName, "\"v 2\"");
    let escaped = json.replace(r"\ud83d", r"\\ud83d");
    assert_problem(&escaped, Code::Syntax, "");
}

fn normalise(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.trim_end().to_string())
        .filter(|line| !line.trim_matches([' ', '|']).is_empty())
        .collect()
}

/// The codes of what compiles, but will surprise.
fn warnings(text: &str) -> Vec<Code> {
    compile(text, "test").unwrap().warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn surprises_are_told() {
    let rules = |rules: &str| format!("version: v1\nrules:\n{rules}");
    for (text, expected) in [
        (rules("  - {name: a, weight: 0.1, target: v2}"), vec![]),
        (rules("  - {name: a, target: v2}\n  - {name: b, target: v3}"), vec![Code::NeverMatches]),
        (rules("  - {name: a, weight: 0, target: v2}"), vec![Code::NeverMatches]),
        // What only overrides give: nobody else gets it yet.
        (
            rules(
                "  - {name: a, weight: 0, target: v2}\n  - {name: b, condition: 1 == 2, target: v2}\n  - {name: c, target: v2}\n  - {name: d, target: v3}\noverrides:\n  - {units: [x], rule: a}\n  - {units: [y], rule: b}\n  - {units: [z], rule: d}",
            ),
            vec![],
        ),
        (
            rules(
                "  []\nexperiments:\n  - {name: e, weight: 0, arms: [{name: x}, {name: y}]}\noverrides:\n  - {units: [x], experiment: e, arm: x}",
            ),
            vec![],
        ),
        (
            rules("  - {name: a, weight: 0, target: v2}\noverrides:\n  - {units: [x], target: a}"),
            vec![Code::NeverMatches],
        ),
        (rules("  - {name: a, condition: user.id % 100 < 10, target: v2}"), vec![Code::ModuloSplit]),
        (
            rules("  - {name: a, condition: user.id % 100 < 10, weight: 0.1, target: v2}"),
            vec![Code::SmallShare],
        ),
        (
            rules("  - {name: a, condition: user.id % 2 == 0, weight: 0.5, target: v2}"),
            vec![Code::ModuloSplit],
        ),
        (
            rules("  - {name: a, condition: n.a % 7 > 3 && n.a > 0, target: v2}"),
            vec![Code::NegativeRemainder],
        ),
        (rules("  - {name: a, condition: user.id % 7 > 3, target: v2}"), vec![]),
        // Arms need a unit, so something is left over.
        (
            rules(
                "  - {name: a, arms: [{name: x, target: v2}, {name: y, target: v3}]}\n  - {name: b, target: v3}",
            ),
            vec![],
        ),
        (
            rules("  - {name: a, condition: 'true', target: v2}\n  - {name: b, target: v3}"),
            vec![Code::NeverMatches],
        ),
        (rules("  - {name: a, condition: 1 == 2, target: v2}"), vec![Code::NeverMatches]),
        (rules("  - {name: a, condition: 1 / 0 == 2, target: v2}"), vec![Code::NeverHasValue]),
        (
            rules("  - {name: a, condition: \"t.x == 'a' && t.x == 'b'\", target: v2}"),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  - {name: a, condition: \"t.x in ['a', 'b']\", target: v2}\n  - {name: b, condition: \"t.x == 'b' && t.y == 'c'\", target: v3}",
            ),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  - {name: a, condition: t.x == 'a', weight: 0.5, target: v2}\n  - {name: b, condition: t.x == 'a', target: v3}",
            ),
            vec![],
        ),
        // Equal values, written differently.
        (
            rules(
                "  - {name: a, condition: v.x == semver('1.0.0+a'), target: v2}\n  - {name: b, condition: v.x == semver('1.0.0+b') && t.y == 'c', target: v3}",
            ),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  - {name: a, condition: \"v.x in [semver('1.0.0'), semver('2.0.0+x')]\", target: v2}\n  - {name: b, condition: v.x == semver('2.0.0'), target: v3}",
            ),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  - {name: a, condition: v.x >= semver('1.0.0+a'), target: v2}\n  - {name: b, condition: v.x >= semver('1.0.0'), target: v3}",
            ),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  - {name: a, condition: v.x == semver('1.0.0-a'), target: v2}\n  - {name: b, condition: v.x == semver('1.0.0'), target: v3}",
            ),
            vec![],
        ),
        (
            rules(
                "  - {name: a, condition: d.x == 0.0, target: v2}\n  - {name: b, condition: \"d.x in [-0.0]\", target: v3}",
            ),
            vec![Code::NeverMatches],
        ),
        (
            rules(
                "  []\nexperiments:\n  - {name: e, condition: v.x == semver('1.0.0+a'), arms: [{name: x}, {name: y}]}\n  - {name: f, condition: v.x == semver('1.0.0'), arms: [{name: x}, {name: y}]}",
            ),
            vec![Code::OverlappingExperiments],
        ),
        // Shares that are less than a bucket away from 0 and from 1.
        (rules("  - {name: a, weight: 1e-7, target: v2}"), vec![Code::ShareOfABucket]),
        (rules("  - {name: a, weight: 0.99999999, target: v2}"), vec![Code::ShareOfABucket]),
        (rules("  - {name: a, weight: 0.1, control: 1e-9, target: v2}"), vec![Code::ShareOfABucket]),
        (rules("  - {name: a, weight: 0.000001, target: v2}"), vec![]),
        (rules("  - {name: a, weight: 0.1234567, target: v2}"), vec![]),
        // Targets that the proxy does not know beside some that it knows.
        (
            rules(
                "  - {name: a, weight: 0.1, target: v2}\ndefault: v1\ntargets: {v1: {endpoints: ['10.0.0.1:80']}, v2: , v3: }",
            ),
            vec![Code::MissingEndpoints],
        ),
        (
            rules(
                "  - {name: a, weight: 0.1, target: v2}\ndefault: v1\ntargets: {v1: , v2: {endpoints: ['10.0.0.1:80']}}",
            ),
            vec![],
        ),
        (rules("  - {name: a, weight: 0.1, target: v2}\ndefault: v1\ntargets: {v1: , v2: }"), vec![]),
        (
            rules(
                "  - {name: a, target: v2, weight: 0.5}\nexperiments:\n  - {name: e, arms: [{name: x}, {name: y}]}\n  - {name: f, arms: [{name: x}, {name: y}]}",
            ),
            vec![Code::OverlappingExperiments],
        ),
        (
            rules(
                "  - {name: a, target: v2, weight: 0.5}\nlayers: {l: }\nexperiments:\n  - {name: e, layer: l, range: [0, 0.5], arms: [{name: x}, {name: y}]}\n  - {name: f, layer: l, range: [0.5, 1], arms: [{name: x}, {name: y}]}",
            ),
            vec![],
        ),
    ] {
        assert_eq!(warnings(&text), expected, "{text}");
    }
    let documents = rules("  - {name: a, condition: user.id % 100 < 10, weight: 0.1, target: v2}");
    let warning = &compile(&documents, "test").unwrap().warnings[0];
    assert_eq!(
        warning.message,
        "the rule reaches about 1 % of the units: 10 % by the condition, and of those 10 % by the weight"
    );
    assert!(render("r.yaml", &documents, std::slice::from_ref(warning)).starts_with("warning[W0404]: "));
    let said = |text: &str| compile(text, "test").unwrap().warnings.swap_remove(0);
    let warning = said(&rules("  - {name: a, weight: 1e-7, target: v2}"));
    assert_eq!(warning.message, "the weight 1e-7 counts as 1 of 1000000 buckets");
    let text = rules(
        "  - {name: a, weight: 0.1, target: v2}\ndefault: v1\ntargets:\n  v1: {endpoints: ['10.0.0.1:80']}\n  v2:\n",
    );
    let warning = said(&text);
    assert_eq!(
        warning.message,
        "`v2` has no endpoints, but others have: the proxy sends its requests to `v1`"
    );
    assert_eq!((warning.place.line, warning.place.column), (7, 3));
}

/// Codes, places, messages and helps of what compiles, but will surprise.
fn warned(text: &str) -> Vec<(Code, usize, usize, String, String)> {
    let warnings = compile(text, "test").unwrap().warnings;
    let parts = |w: halftone_compiler::Diagnostic| {
        (w.code, w.place.line, w.place.column, w.message, w.help.unwrap_or_default())
    };
    warnings.into_iter().map(parts).collect()
}

#[test]
fn headers_that_are_read_by_mistake_are_told() {
    let text = |attributes: &str, condition: &str| {
        format!(
            "version: v1\nattributes: {{{attributes}}}\nrules:\n- {{name: r, condition: \"{condition}\", target: v2}}\n"
        )
    };
    let tier = "user.tier: {header: x-tier}";
    assert_eq!(
        warned(&text(tier, "user.teir == 'gold'")),
        [(
            Code::MisspeltAttribute,
            4,
            25,
            "`user.teir` is not declared, and so it is the header x-user-teir".into(),
            "did you mean `user.tier`? If not, declare `user.teir` under `attributes`".into(),
        )]
    );
    for (attributes, condition, misspelt) in [
        (tier, "has(usr.tier)", true),
        (tier, "User.tier == 'gold'", true),
        // The unit is used, and `user.id` has a meaning of its own.
        ("", "user.ID == '3'", true),
        ("", "User.id == '3'", true),
        ("", "user.plan == 'a' || user.plan == 'b' || user.plam == 'c'", true),
        ("user.id1: {header: a}, user.id2: {header: b}", "user.id1 == user.id2", false),
        ("user.tier: {header: a}, user.teir: {header: b}", "user.tier == user.teir", false),
        (tier, "user.type == 'x' && user.tier1 == 'y' && user.id2 == 'z' && user.ip == '1'", false),
        (tier, "user.tier == request.headers['x-user-teir'] && request.cookies['a'] == 'b'", false),
        ("", "a.b == request.headers['x-abc'] || a.b == request.headers['x-abd']", false),
    ] {
        let text = text(attributes, condition);
        let expected = if misspelt { vec![Code::MisspeltAttribute] } else { vec![] };
        assert_eq!(warnings(&text), expected, "{text}");
    }
    // Of two that are not declared, the one that is used less is the suspect, wherever it stands.
    let found = warned(&text("", "user.plam == 'c' || user.plan == 'a' || user.plan == 'b'"));
    assert!(found[0].3.starts_with("`user.plam`") && found.len() == 1, "{found:?}");
}

#[test]
fn the_time_has_functions_and_no_fields() {
    for (condition, help) in [
        ("now.hour >= 22", "write `now.getHours()`"),
        ("now.getHours >= 22", "write `now.getHours()`"),
        ("now.minutes >= 22", "write `now.getMinutes()`"),
        ("now.year >= 22", "write `now.getFullYear()`"),
        ("now.day_of_week == 1", "write `now.getDayOfWeek()`"),
        (
            "now.zone == 'UTC'",
            "`now` is a timestamp: compare it, or write `now.getHours()`, `now.getDayOfWeek()` and the like",
        ),
    ] {
        let text = with_condition(condition);
        assert_eq!(said(&text).1, help, "{text}");
        assert_eq!(problems(&text), [(Code::UnknownName, condition.split(' ').next().unwrap().into())]);
    }
}

#[test]
fn targets_without_the_default_are_told() {
    let text = |rest: &str| format!("version: v1\ntargets: {{v1: , v2: }}\n{rest}");
    assert_eq!(
        warned(&text("rules: [{name: a, weight: 0.1, target: v2}]")),
        [(
            Code::UndeclaredDefault,
            2,
            11,
            "requests that no rule takes go to `default`, which is not among the targets".into(),
            "add `default: v1`, or, if `default` is meant, declare it: `targets: {default: , …}`".into(),
        )]
    );
    let all = "{name: all, target: v2}";
    for (rest, reached) in [
        ("rules: []".into(), true),
        ("rules: []\ndefault: v1".into(), false),
        (format!("rules: [{all}]"), false),
        (format!("rules: [{all}]\nholdout: 0.1"), true),
        (format!("rules: [{{name: a, weight: 0.1, control: 0.1, target: v2}}, {all}]"), true),
        (
            format!(
                "rules: [{{name: a, weight: 0.1, control: {{weight: 0.1, target: v1}}, target: v2}}, {all}]"
            ),
            false,
        ),
    ] {
        let expected = if reached { vec![Code::UndeclaredDefault] } else { vec![] };
        assert_eq!(warnings(&text(&rest)), expected, "{rest}");
    }
    assert_eq!(warnings("version: v1\nrules: []"), []);
    assert_eq!(warnings("version: v1\ntargets: {default: , v2: }\nrules: []"), []);
}

#[test]
fn rulesets_that_cannot_be_published_together_are_told_where() {
    let texts = [
        (
            "a.yaml",
            "version: v1\nname: chat\nmatch: {hosts: [a.example.com, b.example.com], path_prefixes: [/v2]}\nrules: []",
        ),
        (
            "b.yaml",
            "version: v1\nname: search\nmatch:\n  hosts: [b.example.com]\n  path_prefixes: [/v1, /v2]\nrules: []",
        ),
        ("c.yaml", "version: v1\nmatch: {hosts: [c.example.com]}\nname: chat\nrules: []"),
        ("other/a.yaml", "version: v1\nrules: []\n"),
        ("d.yaml", "version: v1\nname: d\nrules: []\n"),
        (
            "e.yaml",
            "version: v1\nname: e\nmatch: {hosts: [c.example.com], path_prefixes: [/v2]}\nrules: []\n",
        ),
    ];
    let compiled = texts.map(|(_, text)| compile_file(text, "a").unwrap());
    let members: Vec<Member<'_>> =
        texts.iter().zip(&compiled).map(|((file, text), compiled)| Member { file, text, compiled }).collect();
    let found: Vec<_> = conflicts(&members)
        .into_iter()
        .zip(texts)
        .flat_map(|(found, (file, _))| found.into_iter().map(move |problem| (file, problem)))
        .map(|(file, problem)| {
            (file, problem.code, problem.place.line, problem.place.column, problem.message)
        })
        .collect();
    let expected = [
        ("b.yaml", Code::SameScope, 3, 1, "`chat` in a.yaml governs the same requests: b.example.com, /v2"),
        ("c.yaml", Code::DuplicateName, 3, 7, "there is a ruleset `chat` already, in a.yaml"),
        (
            "d.yaml",
            Code::SameScope,
            1,
            1,
            "`a` in other/a.yaml governs the same requests: any host, any path",
        ),
    ];
    assert_eq!(
        found,
        expected.map(|(file, code, line, column, message)| (file, code, line, column, message.to_owned()))
    );
    let link = |some: &[usize]| link(1, some.iter().map(|at| &compiled[*at])).map(|_| ());
    assert_eq!(link(&[0, 3, 5]), Ok(()));
    assert_eq!(link(&[0, 2]), Err(LinkError::SameName("chat".into())));
    let error = link(&[0, 1]).unwrap_err();
    assert_eq!(error, LinkError::SameScope { ruleset: "search".into(), other: "chat".into() });
}
