//! Who gets what: layers, holdouts, arms, controls, schedules, overrides, experiments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, link};
use halftone_rules::{Decision, Request, Timestamp, VerifiedBundle, bucket::Seed};

struct User(String);

impl Request for User {
    fn header(&self, name: &str) -> Option<&[u8]> {
        (name == "x-user-id" && !self.0.is_empty()).then_some(self.0.as_bytes())
    }
}

fn bundle(text: &str) -> VerifiedBundle {
    let compiled = compile(text, "digits").unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    VerifiedBundle::new(link(1, [&compiled]).unwrap()).unwrap()
}

/// What the users 0 to 19,999 get, in short.
fn assignments(text: &str, now: Timestamp, what: impl Fn(&Decision<'_>) -> String) -> Vec<String> {
    let bundle = bundle(text);
    let decide = |user: u32| {
        let user = User(user.to_string());
        what(&bundle.decide(&user, now, &mut ()).expect("governed"))
    };
    (0..20_000).map(decide).collect()
}

fn share(assignments: &[String], wanted: &str) -> f64 {
    let count = u32::try_from(assignments.iter().filter(|found| *found == wanted).count()).unwrap();
    f64::from(count) / f64::from(u32::try_from(assignments.len()).unwrap())
}

#[track_caller]
fn assert_share(assignments: &[String], wanted: &str, expected: f64) {
    let found = share(assignments, wanted);
    // Five standard deviations of a share of 20,000 are at most 1.8 %.
    assert!((found - expected).abs() < 0.018, "{wanted}: {found}, not {expected}");
}

fn arm(decision: &Decision<'_>) -> String {
    decision.arm.or(decision.rule).unwrap_or("default").to_owned()
}

const NOW: Timestamp = Timestamp(0);

#[test]
fn the_treatment_grows_from_the_start_and_the_control_from_the_end() {
    let text = |weight: f64| {
        format!(
            "version: v1\ndefault: v1\nrules: [{{name: r, weight: {weight}, control: {weight}, target: v2}}]"
        )
    };
    let (narrow, wide) = (assignments(&text(0.1), NOW, arm), assignments(&text(0.4), NOW, arm));
    for arm in ["treatment", "control"] {
        assert_share(&narrow, arm, 0.1);
        assert_share(&wide, arm, 0.4);
    }
    // Widening never moves a unit that is in.
    assert!(narrow.iter().zip(&wide).all(|(before, after)| before == "default" || before == after));
    let targets = assignments(&text(0.1), NOW, |decision| decision.target.to_owned());
    assert!(narrow.iter().zip(&targets).all(|(arm, target)| (arm == "treatment") == (target == "v2")));
}

#[test]
fn arms_divide_the_units_by_their_splits_and_stay_when_the_weight_grows() {
    let text = |weight: f64| {
        format!(
            "version: v1\nrules: [{{name: r, weight: {weight}, arms: [{{name: a, target: v1, split: 1}}, {{name: b, target: v2, split: 3}}]}}]"
        )
    };
    let (narrow, wide) = (assignments(&text(0.4), NOW, arm), assignments(&text(1.0), NOW, arm));
    assert_share(&narrow, "a", 0.1);
    assert_share(&narrow, "b", 0.3);
    assert_share(&wide, "a", 0.25);
    assert!(narrow.iter().zip(&wide).all(|(before, after)| before == "default" || before == after));
}

#[test]
fn exclusive_means_exclusive() {
    let text = "
version: v1
layers: {ranking: {holdout: 0.2}}
rules:
  - {name: r, layer: ranking, range: [0, 0.5], weight: 0.5, target: v2}
experiments:
  - {name: e, layer: ranking, range: [0.5, 1], arms: [{name: x}, {name: y}]}
  - {name: free, weight: 0.5, arms: [{name: z}]}
";
    let found = assignments(text, NOW, |decision| {
        let mut names: Vec<&str> = decision.rule.into_iter().collect();
        names.extend(decision.experiments().map(|part| part.experiment));
        names.join("+")
    });
    // Half of what the holdout leaves, each; the experiment outside of the layer takes half of everybody.
    let with = |name: &str| -> Vec<String> {
        found.iter().map(|names| names.split('+').any(|other| other == name).to_string()).collect()
    };
    let (r, e, free) = (with("r"), with("e"), with("free"));
    assert_share(&r, "true", 0.4);
    assert_share(&e, "true", 0.4);
    assert_share(&free, "true", 0.5);
    assert!(!r.iter().zip(&e).any(|(r, e)| r == "true" && e == "true"));
    // Independent of the layer: half of those in the rule, too.
    let both: Vec<String> =
        r.iter().zip(&free).filter(|(r, _)| *r == "true").map(|(_, free)| free.clone()).collect();
    let count = f64::from(u32::try_from(both.len()).unwrap());
    assert!((share(&both, "true") - 0.5).abs() < 2.5 / count.sqrt(), "{}", share(&both, "true"));
}

#[test]
fn a_holdout_keeps_units_out_of_everything() {
    let text = "
version: v1
holdout: 0.1
rules: [{name: all, target: v2}]
experiments: [{name: e, arms: [{name: x}]}]
";
    let found = assignments(text, NOW, |decision| {
        format!("{} {} {}", decision.target, decision.held_out, decision.experiments().count())
    });
    assert_share(&found, "default true 0", 0.1);
    assert_share(&found, "v2 false 1", 0.9);
    assert_eq!(found.iter().filter(|other| *other != "default true 0" && *other != "v2 false 1").count(), 0);
    // The same units as the documented seed says.
    let holdout = Seed::of_holdout("digits").ready();
    for (user, found) in found.iter().enumerate() {
        let held_out = holdout.bucket(user.to_string().as_bytes()) < 100_000;
        assert_eq!(found == "default true 0", held_out, "{user}");
    }
}

#[test]
fn a_schedule_counts_its_start_and_not_its_end() {
    let text = "
version: v1
rules: [{name: r, start: '1970-01-01T00:00:10Z', end: '1970-01-01T00:00:20Z', target: v2}]
";
    let bundle = bundle(text);
    for (seconds, expected) in [(9, "default"), (10, "v2"), (19, "v2"), (20, "default")] {
        let now = Timestamp(seconds * 1_000_000_000);
        assert_eq!(bundle.decide(&User("1".into()), now, &mut ()).unwrap().target, expected, "{seconds}");
    }
}

#[test]
fn an_override_beats_everything_and_is_marked() {
    let text = "
version: v1
holdout: 1
rules: [{name: r, condition: 'user.id > 100000', control: 0.1, weight: 0.1, target: v2}]
experiments: [{name: e, weight: 0, arms: [{name: x}, {name: y}]}]
overrides:
  - {units: [1], target: v9}
  - {units: [2], rule: r, arm: control}
  - {units: [3, 2], experiment: e, arm: y}
";
    let bundle = bundle(text);
    let found = |user: &str| {
        let user = User(user.into());
        let decision = bundle.decide(&user, NOW, &mut ()).unwrap();
        let experiments: Vec<String> =
            decision.experiments().map(|part| format!("{}={}", part.experiment, part.arm)).collect();
        format!(
            "{} {} {} {} {}",
            decision.target,
            arm(&decision),
            experiments.join(","),
            decision.overridden,
            decision.held_out
        )
    };
    assert_eq!(found("1"), "v9 default  true false");
    assert_eq!(found("2"), "default control e=y true false");
    assert_eq!(found("3"), "default default e=y true true");
    assert_eq!(found("4"), "default default  false true");
    assert_eq!(found(""), "default default  false false");
}

#[test]
fn without_a_unit_only_rules_without_a_split_match() {
    let text = "
version: v1
rules:
  - {name: split, weight: 0.999999, target: v2}
  - {name: arms, arms: [{name: a, target: v3}, {name: b, target: v3}]}
  - {name: all, target: v4}
";
    assert_eq!(bundle(text).decide(&User(String::new()), NOW, &mut ()).unwrap().target, "v4");
}
