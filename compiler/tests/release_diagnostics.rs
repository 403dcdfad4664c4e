//! What is wrong with a release is said of the release: it is not in the text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Code, Diagnostic, Release, compile_released, render};

const TEXT: &str = "version: v1
targets: {v1: , v2: , v3: }
default: v1
layers: {models: }
rules:
- {name: gold, condition: user.tier == 'gold', target: v3}
- {name: trial, layer: models, range: [0.5, 0.8], target: v3}
experiments:
- {name: prompt, layer: models, range: [0.8, 1], arms: [{name: short}, {name: long}]}
";

fn release() -> Release {
    Release {
        name: "ramp".into(),
        epoch: 1,
        condition: None,
        layer: None,
        range: None,
        before: None,
        stable: "v1".into(),
        candidates: vec!["v2".into()],
        dropped: Vec::new(),
        share: 0.1,
        control: 0.1,
    }
}

fn released(text: &str, releases: &[Release]) -> Vec<Diagnostic> {
    match compile_released(text, "test", releases) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => problems,
    }
}

/// Code and message, and what to do.
fn told(problems: &[Diagnostic]) -> Vec<String> {
    let tell = |problem: &Diagnostic| {
        let help = problem.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
        format!("{} {}{help}", problem.code.as_str(), problem.message)
    };
    problems.iter().map(tell).collect()
}

type Edit = fn(&mut Release);

#[test]
fn each_problem_names_its_release_and_what_to_do() {
    let condition: Edit = |r| r.condition = Some("user.tier == 'pro' &&\n 1 + 'x' == 2".into());
    let cases: &[(Edit, &str)] = &[
        (
            |r| r.name = "a b".into(),
            "E0204 release `a b`: its name has a character that names may not have | use letters, digits, `.`, `_` and `-`, starting with a letter or a digit",
        ),
        (
            |r| r.name = "gold".into(),
            "E0205 release `gold`: there is a rule, an experiment or a release of this name already | give each its own name",
        ),
        (
            |r| r.name = "prompt".into(),
            "E0205 release `prompt`: there is a rule, an experiment or a release of this name already | give each its own name",
        ),
        (|r| r.epoch = 0, "E0203 release `ramp`: its epoch is 0 | epochs count from 1"),
        (|r| r.candidates = vec![], "E0203 release `ramp`: it has no candidates | name at least one target"),
        (
            |r| r.candidates = vec!["v2".into(), "v2".into()],
            "E0205 release `ramp`: there is a candidate `v2` already | name each once",
        ),
        (
            |r| r.candidates = vec!["v1".into()],
            "E0203 release `ramp`: `v1` is its stable target and a candidate | a candidate is another target",
        ),
        (
            |r| r.candidates = vec!["v4".into()],
            "E0207 release `ramp`: there is no target `v4` | known are: v1, v2, v3",
        ),
        (|r| r.stable = "v9".into(), "E0207 release `ramp`: there is no target `v9` | known are: v1, v2, v3"),
        (
            |r| r.share = 1.5,
            "E0206 release `ramp`: the share 1.5 is not a number from 0 to 1 | 0.1 means 10 % of the eligible units",
        ),
        (
            |r| r.control = f64::NAN,
            "E0206 release `ramp`: the control NaN is not a number from 0 to 1 | 0.1 means 10 % of the eligible units",
        ),
        (
            |r| (r.candidates, r.share) = (vec!["v2".into(), "v3".into()], 0.6),
            "E0206 release `ramp`: 2 candidates with 0.6 each have more than all | `share` is that of each candidate; make it smaller",
        ),
        (
            |r| (r.share, r.control) = (0.6, 0.5),
            "E0206 release `ramp`: the candidates' shares and the control are more than the 1 of the buckets that belong to the release | make one of them smaller, or the range larger",
        ),
        (
            |r| r.share = 1.0,
            "E0206 release `ramp`: the candidates' shares and the control are more than the 1 of the buckets that belong to the release | make one of them smaller, or the range larger",
        ),
        (
            |r| r.share = 1e-9,
            "W0408 release `ramp`: the share 1e-9 counts as 1 of 1000000 buckets | write 0 if nobody is meant, and at least 0.000001 otherwise",
        ),
        (
            |r| r.range = Some([0.0, 0.5]),
            "E0203 release `ramp`: a range is a part of a layer, but no layer is named | name the `layer`",
        ),
        (
            |r| (r.layer, r.range) = (Some("models".into()), Some([0.3, 0.3])),
            "E0203 release `ramp`: the range is empty | [0.2, 0.5] are the buckets from 20 % to 50 %",
        ),
        (
            |r| (r.layer, r.range) = (Some("models".into()), Some([0.1, 7.0])),
            "E0206 release `ramp`: the end 7 is not a number from 0 to 1 | 0.1 means 10 % of the eligible units",
        ),
        (
            |r| (r.layer, r.range) = (Some("models".into()), Some([0.4, 0.45])),
            "E0206 release `ramp`: the candidates' shares and the control are more than the 0.05 of the buckets that belong to the release | make one of them smaller, or the range larger",
        ),
        (
            |r| r.layer = Some("model".into()),
            "E0211 release `ramp`: there is no layer `model` | did you mean `models`?; a new one is declared under `layers`",
        ),
        (
            |r| r.before = Some("golf".into()),
            "E0211 release `ramp`: there is no rule `golf` | did you mean `gold`?; `before` names a rule of the text",
        ),
        (
            |r| r.condition = Some("user.tier = 'pro'".into()),
            "E0301 release `ramp`, column 11 of its condition: '=' has no meaning here | write `==` to compare",
        ),
        (|r| r.condition = Some(String::new()), "E0301 release `ramp`, column 1 of its condition: "),
        (
            |r| r.condition = Some("user.tier == ".into()),
            "E0301 release `ramp`, column 14 of its condition: ",
        ),
        (condition, "E0305 release `ramp`, line 2, column 2 of its condition: "),
        (
            |r| r.condition = Some("x".repeat(20_000)),
            "E0102 release `ramp`: the condition has 20000 bytes, more than the 16384 allowed | shorten it",
        ),
        (
            |r| r.condition = Some("1 == 2".into()),
            "W0401 release `ramp`: it can never match: its condition is false for every request | remove it, or correct the condition",
        ),
    ];
    for (edit, expected) in cases {
        let mut release = release();
        edit(&mut release);
        let mut problems = released(TEXT, &[release]);
        // The experiment beside it is told of in a warning of its own.
        problems.retain(|problem| problem.code != Code::OverlappingExperiments);
        let told = told(&problems);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:#?}\n{expected}");
        assert_eq!((problems[0].place.line, problems[0].place.column), (1, 1));
        // It can be shown: its place is one in the text.
        assert!(render("test.yaml", TEXT, &problems).contains("version: v1"));
    }
}

#[test]
fn places_count_characters_whatever_stands_before() {
    // The text ends within nothing, and so does the condition before.
    let text = "version: v1\nrules: [] # größe 日本";
    let open = |name: &str, condition: &str| Release {
        name: name.into(),
        condition: Some(condition.into()),
        ..release()
    };
    let releases = [open("first", "日本 == 'größe"), open("second", "user.tier == '日本' && 'größe")];
    let told = told(&released(text, &releases));
    assert!(told.iter().any(|told| told.starts_with("E0301 release `first`, column 1 ")), "{told:#?}");
    assert!(told.iter().any(|told| told.starts_with("E0301 release `second`, column 22 ")), "{told:#?}");
}

#[test]
fn names_of_arms_are_taken() {
    for name in ["control", "rest"] {
        let text = format!("version: v1\ntargets: {{v1: , v2: , {name}: }}\ndefault: v1\nrules: []\n");
        for release in [
            Release { stable: name.into(), ..release() },
            Release { candidates: vec![name.into()], ..release() },
        ] {
            let expected = format!(
                "E0203 release `ramp`: the target `{name}` has the name of an arm that releases have | give the target another name"
            );
            assert_eq!(told(&released(&text, &[release])), [expected]);
        }
    }
}

#[test]
fn an_overlap_is_told_where_the_later_range_stands() {
    let in_layer = |name: &str, range| Release {
        name: name.into(),
        layer: Some("models".into()),
        range: Some(range),
        share: 0.0,
        control: 0.0,
        ..release()
    };
    let help = "give each a part of its own, for example `range: [0, 0.5]` and `range: [0.5, 1]`";
    let problems = released(TEXT, &[in_layer("ramp", [0.0, 0.51])]);
    assert_eq!(told(&problems), [format!("E0210 `ramp` and `trial` overlap in the layer `models` | {help}")]);
    assert_eq!(problems[0].place.line, 7);
    let problems = released(TEXT, &[in_layer("a", [0.0, 0.3]), in_layer("b", [0.2, 0.5])]);
    let expected = format!("E0210 release `b`: `a` and `b` overlap in the layer `models` | {help}");
    assert_eq!(told(&problems), [expected]);
}

#[test]
fn a_release_that_no_unit_reaches_is_refused() {
    let rules =
        |rules: &str| format!("version: v1\nlayers: {{full: , held: {{holdout: 0.1}}}}\nrules:\n- {rules}\n");
    let before = "write `before: all`, or narrow that rule";
    for (rule, condition) in [
        ("{name: all, target: v3}", None),
        (
            "{name: all, condition: user.tier == 'pro', target: v3}",
            Some("user.tier == 'pro' && user.id < 10"),
        ),
        // Requests without a unit pass these, and no others.
        ("{name: all, arms: [{name: a, target: v1}, {name: b, target: v3}]}", None),
        ("{name: all, control: 0.5, target: v3}", None),
        ("{name: all, layer: full, target: v3}", None),
    ] {
        let release = Release { condition: condition.map(Into::into), ..release() };
        let expected = format!(
            "E0214 release `ramp`: no unit reaches it: `all` before it takes every one that it could | {before}"
        );
        assert_eq!(told(&released(&rules(rule), std::slice::from_ref(&release))), [expected]);
        let release = Release { before: Some("all".into()), ..release };
        let problems = released(&rules(rule), &[release]);
        assert!(problems.iter().all(|problem| !problem.message.starts_with("release")), "{problems:#?}");
    }
    for rule in [
        "{name: some, weight: 0.999999, target: v3}",
        "{name: some, condition: user.tier == 'pro', target: v3}",
        "{name: some, layer: held, target: v3}",
        "{name: some, layer: full, range: [0, 0.9], target: v3}",
        "{name: some, start: 2026-01-01T00:00:00Z, target: v3}",
    ] {
        assert_eq!(told(&released(&rules(rule), &[release()])), [""; 0], "{rule}");
    }

    // Of two releases: the first takes all that it splits.
    let second = Release { name: "second".into(), ..release() };
    let expected = "E0214 release `second`: no unit reaches it: `ramp` before it takes every one that it could | narrow the condition of `ramp`, or put both into a layer, each with a range";
    assert_eq!(told(&released("version: v1\nrules: []\n", &[release(), second.clone()])), [expected]);
    // One that is through has what those without a unit leave over, or may be waiting for the other to go.
    let through = |name: &str| Release { name: name.into(), share: 1.0, control: 0.0, ..release() };
    let text = "version: v1\nrules: []\n";
    assert_eq!(told(&released(text, &[release(), through("second")])), [""; 0]);
    let expected = "W0401 release `second`: it can never match: `first` before it takes every request that it could | move it up, or narrow the other one";
    assert_eq!(told(&released(text, &[through("first"), through("second")])), [expected]);
    let expected = format!(
        "E0214 release `first`: no unit reaches it: `all` before it takes every one that it could | {before}"
    );
    assert_eq!(told(&released(&rules("{name: all, target: v3}"), &[through("first")])), [expected]);

    let pro = Release { condition: Some("user.tier == 'pro'".into()), ..release() };
    assert_eq!(told(&released("version: v1\nrules: []\n", &[pro, second])), [""; 0]);
}

#[test]
fn warnings_of_rules_hold_for_releases_and_of_rules_behind_them() {
    let text = "version: v1\nrules:\n- {name: behind, target: v3}\n";
    let settled = Release { before: Some("behind".into()), share: 1.0, control: 0.0, ..release() };
    let problems = released(text, &[settled]);
    let expected = "W0401 it can never match: `ramp` before it takes every request that it could | move it up, or narrow the other one";
    assert_eq!((told(&problems), problems[0].place.line), (vec![expected.to_owned()], 3));
    // While it splits, requests without a unit go on. At a share of 0 it still has its units.
    for share in [0.0, 0.5] {
        let splits = Release { before: Some("behind".into()), share, control: 0.0, ..release() };
        assert_eq!(told(&released(text, &[splits])), [""; 0]);
    }

    let text = "version: v1\nrules: []\nexperiments: [{name: e, arms: [{name: x}]}]\n";
    let expected = "W0405 units can be in `ramp` and `e` at the same time | if one can influence the other, put both into a layer, each with a range";
    assert_eq!(told(&released(text, &[release()])), [expected]);

    let text = "version: v1\ntargets: {v1: {endpoints: [\"10.0.0.1:80\"]}, v2: }\ndefault: v1\nrules: []\n";
    let expected = "W0407 `v2` has no endpoints, but others have: the proxy sends its requests to `v1` | give it endpoints, or leave out those of all if something else routes by x-halftone-target";
    assert_eq!(told(&released(text, &[release()])), [expected]);
}

#[test]
fn the_text_stands_without_its_releases() {
    let text = "version: v1\nrules: []\noverrides: [{units: [qa], rule: ramp, arm: v2}]\n";
    let problems = released(text, &[release()]);
    assert!(told(&problems)[0].starts_with("E0211 there is no rule `ramp`"), "{problems:#?}");

    // Problems of both are told in one pass, and a type that a release demands is said to be the release's.
    let text = "version: v1\nrules:\n- {name: r, condition: user.score > 3, weight: 2, target: v3}\n";
    let text_type = Release { condition: Some("user.score == 'high'".into()), ..release() };
    let told = told(&released(text, &[text_type]));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("E0305 release `ramp`, column "), "{told:#?}");
    assert!(told[0].contains("because of line 3"), "{told:#?}");
    assert!(told[1].starts_with("E0206 the weight 2 is not"), "{told:#?}");
}
