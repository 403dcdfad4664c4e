//! Every way in which a ruleset can give a request its target is told, and what does not follow is refused. The real evaluator
//! decides; what it said is handed over as the backend gets it.

use super::*;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_compiler::{Release, compile_released};
use halftone_proto::v1::{Participation, Reason};
use halftone_rules::{Bundle, Request, Timestamp, VerifiedBundle, context, unit_hash};
use prost::Message;

const RULES: &str = "version: v1
default: v1
holdout: 0.1
layers: {models: {seed: m}}
targets: {v1: {endpoints: ['127.0.0.1:1']}, v2: {endpoints: ['127.0.0.1:2']}, v3: {endpoints: ['127.0.0.1:3']}}
overrides:
- {units: ['1'], target: v3}
- {units: ['2'], rule: even, arm: b}
- {units: ['3'], rule: testers}
- {units: ['3', '4'], experiment: colour, arm: blue}
experiments:
- {name: colour, layer: models, range: [0.6, 1], arms: [{name: red}, {name: blue}]}
- {name: text, condition: 'user.group == \"test\"', arms: [{name: short}]}
- {name: all, arms: [{name: one}]}
rules:
- {name: testers, condition: 'user.group == \"test\"', target: v3}
- {name: layered, condition: 'user.group == \"layer\"', layer: models, range: [0.2, 0.6], weight: 0.3, target: v2}
- {name: even, condition: 'user.group == \"arms\"', weight: 0.5, seed: s, arms: [{name: a, target: v1}, {name: b, target: v2, split: 3}]}
- {name: compared, condition: 'user.group == \"compared\"', weight: 0.2, control: 0.2, target: v2}
";

fn release() -> Release {
    serde_json::from_str(
        r#"{"name": "canary", "epoch": 5, "condition": "user.group == \"release\"", "stable": "v1", "candidates": ["v2", "v3"],
            "share": 0.1, "control": 0.1}"#,
    )
    .unwrap()
}

struct User(String, &'static str, Option<&'static str>);

impl Request for User {
    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-user-id" => Some(self.0.as_bytes()).filter(|id| !id.is_empty()),
            "x-user-group" => Some(self.1.as_bytes()),
            ":path" => Some(b"/"),
            _ => None,
        }
    }

    fn demanded_target(&self, _: &str) -> Option<&str> {
        self.2
    }
}

fn ruleset() -> Ruleset {
    compile_released(RULES, "digits", &[release()]).unwrap().ruleset
}

fn decide(bundle: &VerifiedBundle, user: &User) -> EvaluationContext {
    let decision = bundle.decide(user, Timestamp(1_000_000), &mut ()).unwrap();
    let header = context::header_value(&decision, 1);
    EvaluationContext::decode(URL_SAFE_NO_PAD.decode(header).unwrap().as_slice()).unwrap()
}

/// What Envoy's log has of it.
fn logged(decided: &EvaluationContext) -> EvaluationContext {
    EvaluationContext { timestamp_ms: 0, unit_hash: 0, ..decided.clone() }
}

/// What the evaluator decides for all kinds of users, overrides and tokens.
fn all_decisions() -> Vec<EvaluationContext> {
    let bundle = VerifiedBundle::new(Bundle::new(1, vec![ruleset()])).unwrap();
    let groups = ["", "test", "layer", "arms", "compared", "release"];
    let users = (1..400).map(|user| user.to_string()).chain([String::new()]);
    let users = users.flat_map(|user| groups.map(|group| User(user.clone(), group, None)));
    let tokens = ["", "1", "2", "3", "4", "7"].map(|user| User(user.into(), "release", Some("v2")));
    users.chain(tokens).map(|user| decide(&bundle, &user)).collect()
}

#[test]
fn every_way_to_a_target_is_told() {
    let mut seen: Vec<String> = Vec::new();
    for decided in all_decisions() {
        let (why, slot) = sentence(&decided, &ruleset()).unwrap_or_else(|e| panic!("{e}: {decided:?}"));
        let inside =
            slot.zip(decided.bucket).is_none_or(|(slot, bucket)| (slot.start..slot.end).contains(&bucket));
        assert!(inside, "{why}");
        // Without the unit the same is said, or that it is one of several; of rules that did not take it less is known.
        let (without, _) =
            sentence(&logged(&decided), &ruleset()).unwrap_or_else(|e| panic!("{e}: {decided:?}"));
        let is_less = why.starts_with("none of the 5 rules took it (")
            && without.starts_with("none of the 5 rules took it (")
            && without.contains("or the request had no unit, or the unit is not in its share");
        assert!(
            without == why || is_less || without.starts_with("either ") && without.contains(&why),
            "{why}: {without}"
        );
        let bucket = decided.bucket.map(|bucket| format!("bucket {bucket} of 1000000"));
        seen.push(bucket.map_or(why.clone(), |bucket| why.replace(&bucket, "B")));
    }
    seen.sort();
    seen.dedup();
    let held = "its condition held, and B";
    let mut expected = vec![
        "an override names the unit and gives it the target `v3`".to_owned(),
        "an override names the unit and gives it the rule `even`, arm `b`".to_owned(),
        "an override names the unit and gives it the rule `testers`".to_owned(),
        "an override token of the request demanded the target `v2`".to_owned(),
        "the unit is among the 10 % that are held out of every rule, and goes to the default target `v1`"
            .to_owned(),
        "none of the 5 rules took it (`testers`: its condition did not hold; `layered`: its condition did not hold, or the unit is \
         not in its share of 30 %; `even`: its condition did not hold, or the unit is not in its share of 50 %; `compared`: its \
         condition did not hold, or the unit is not in its share of 40 %; `canary`: its condition did not hold), so it goes to the \
         default target `v1`"
            .to_owned(),
        "none of the 5 rules took it (`testers`: its condition did not hold; `layered`: the request had no unit; `even`: the \
         request had no unit; `compared`: the request had no unit; `canary`: the request had no unit), so it goes to the default \
         target `v1`"
            .to_owned(),
        "rule `testers`: its condition held, and it takes every such request".to_owned(),
        format!("rule `layered`: {held} in the layer `models` is in its share of 30 % (200000 to 499999)"),
        format!(
            "rule `even`: {held} under the seed \"s\" is below the share of its arms of 50 % (0 to 499999), of which a second \
             hash of the unit gives 25 % the arm `a`"
        ),
        format!(
            "rule `even`: {held} under the seed \"s\" is below the share of its arms of 50 % (0 to 499999), of which a second \
             hash of the unit gives 75 % the arm `b`"
        ),
        format!("rule `compared`: {held} is below the share of its arm `treatment` of 20 % (0 to 199999)"),
        format!("rule `compared`: {held} is in the share of its arm `control` of 20 % (800000 to 999999)"),
        format!(
            "release `canary`: {held} is below the share of its arms of 20 % (0 to 199999), of which a second hash of the unit \
             gives 50 % the arm `v2`"
        ),
        format!(
            "release `canary`: {held} is below the share of its arms of 20 % (0 to 199999), of which a second hash of the unit \
             gives 50 % the arm `v3`"
        ),
        format!("release `canary`: {held} is in the share of its arm `rest` of 70 % (200000 to 899999)"),
        format!("release `canary`: {held} is in the share of its arm `control` of 10 % (900000 to 999999)"),
    ];
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn an_override_in_a_log_without_units_is_one_of_several() {
    let told = |target: &str, rule: &str, arm: &str| {
        let decided = EvaluationContext {
            target: target.into(),
            rule: rule.into(),
            arm: arm.into(),
            reason: Reason::TargetingMatch.into(),
            overridden: true,
            ..EvaluationContext::default()
        };
        sentence(&decided, &ruleset()).map(|(sentence, _)| sentence)
    };
    let untold = "whose request it was is not told, so it cannot be said which";
    let named = "an override names the unit and gives it the";
    let demanded = "an override token of the request demanded the target";
    let either = format!("either {named} target `v3`, or {demanded} `v3`: {untold}");
    assert_eq!(told("v3", "", ""), Ok(either));
    assert_eq!(told("v2", "", ""), Ok(format!("{demanded} `v2`")), "no unit has such an override");
    assert_eq!(told("v2", "even", "b"), Ok(format!("{named} rule `even`, arm `b`")));
    // Units of an experiment's override are overridden wherever the rules send them.
    let ruled = "rule `testers`: its condition held, and it takes every such request";
    let either = format!("either {named} rule `testers`, or {ruled}: {untold}");
    assert_eq!(told("v3", "testers", ""), Ok(either));
    assert_eq!(told("v1", "even", "a"), Err("no override gave such a unit a rule then".into()));
}

type Change = fn(&mut EvaluationContext);

/// Each change of what the evaluator decided is refused for its reason.
#[track_caller]
fn assert_refused(ruleset: &Ruleset, decided: &EvaluationContext, changes: &[(Change, &str)]) {
    sentence(decided, ruleset).unwrap_or_else(|e| panic!("{e}: {decided:?}"));
    for (change, problem) in changes {
        let mut other = decided.clone();
        change(&mut other);
        assert_eq!(sentence(&other, ruleset).unwrap_err(), *problem, "{other:?}");
    }
}

/// The first of the decisions for which this holds.
#[track_caller]
fn first(holds: impl Fn(&EvaluationContext) -> bool) -> EvaluationContext {
    all_decisions().into_iter().find(holds).unwrap()
}

#[test]
fn what_does_not_follow_from_the_ruleset_is_not_explained() {
    let rules = ruleset();
    let split = EvaluationContext {
        bucket: Some(199_999),
        ..first(|of| of.rule == "compared" && of.arm == "treatment")
    };
    assert_refused(
        &rules,
        &split,
        &[
            (|of| of.rule = "gone".into(), "the ruleset had no rule `gone` then"),
            (|of| of.epoch = 7, "the rule `compared` was in epoch 0 then"),
            (|of| of.bucket = Some(200_000), "`compared` did not take the bucket 200000 then"),
            (|of| of.bucket = Some(BUCKETS), "`compared` did not take the bucket 1000000 then"),
            (|of| of.bucket = None, "`compared` split by buckets then"),
            (|of| of.arm = "control".into(), "`compared` had no arm `control` for this bucket then"),
            (|of| of.arm.clear(), "`compared` had no arm `` for this bucket then"),
            (|of| of.target = "v3".into(), "the ruleset sent such a request to the target `v2` then"),
            (|of| of.rule = "testers".into(), "`testers` asked for no bucket then"),
            (|of| of.rule.clear(), "a request that no rule took has no arm"),
            (|of| of.held_out = true, "a request that no rule took has no rule"),
            (|of| of.overridden = true, "no override gave such a unit a rule then"),
            (|of| of.unit_hash = 0, "`compared` split units then, and the request had none"),
            (|of| of.unit_hash = unit_hash(b"1"), "an override named this unit then"),
            (|of| of.unit_hash = unit_hash(b"4"), "an override named this unit then"),
            (|of| of.set_reason(Reason::TargetingMatch), "the reason of such a decision is SPLIT"),
            (|of| of.set_reason(Reason::Unspecified), "the reason of such a decision is SPLIT"),
            (|of| of.reason = 99, "the reason of such a decision is SPLIT"),
        ],
    );
    let matched = first(|of| of.rule == "testers" && !of.overridden);
    assert_refused(
        &rules,
        &matched,
        &[
            (|of| of.bucket = Some(7), "`testers` asked for no bucket then"),
            (|of| of.set_reason(Reason::Static), "the reason of such a decision is TARGETING_MATCH"),
            (|of| of.arm = "a".into(), "`testers` had no arm `a` for this bucket then"),
        ],
    );
    let release = first(|of| of.arm == "rest");
    assert_refused(
        &rules,
        &release,
        &[
            (|of| of.epoch = 4, "the rule `canary` was in epoch 5 then"),
            (|of| of.epoch = 0, "the rule `canary` was in epoch 5 then"),
        ],
    );
    let none = first(|of| of.rule.is_empty() && !of.held_out && !of.overridden);
    assert_refused(
        &rules,
        &none,
        &[
            (|of| of.target = "v2".into(), "the ruleset sent such a request to the target `v1` then"),
            (|of| of.bucket = Some(1), "a request that no rule took has no bucket"),
            (|of| of.epoch = 5, "a request that no rule took has no epoch"),
            (|of| of.arm = "a".into(), "a request that no rule took has no arm"),
            (|of| of.set_reason(Reason::Static), "the reason of such a decision is DEFAULT"),
            (|of| of.overridden = true, "the reason of such a decision is TARGETING_MATCH"),
        ],
    );
}

#[test]
fn overrides_and_the_holdout_are_not_believed_either() {
    let rules = ruleset();
    let held_out = first(|of| of.held_out && !of.overridden);
    assert_refused(
        &rules,
        &held_out,
        &[
            (|of| of.target = "v2".into(), "the ruleset sent such a request to the target `v1` then"),
            (|of| of.unit_hash = 0, "only units are held out, and the request had none"),
            (|of| of.bucket = Some(5), "a request that no rule took has no bucket"),
            (|of| of.set_reason(Reason::TargetingMatch), "the reason of such a decision is DEFAULT"),
            (|of| of.unit_hash = unit_hash(b"1"), "an override named this unit then"),
        ],
    );
    let named = first(|of| of.unit_hash == unit_hash(b"1"));
    assert_refused(
        &rules,
        &named,
        &[
            (|of| of.overridden = false, "an override named this unit then"),
            (|of| of.held_out = true, "an override comes before the holdout"),
            (|of| of.rule = "even".into(), "the override that names the unit gave it something else then"),
            (|of| of.target = "v9".into(), "the ruleset sent such a request to the target `v3` then"),
            (|of| of.set_reason(Reason::Default), "the reason of such a decision is TARGETING_MATCH"),
        ],
    );
    let forced = first(|of| of.unit_hash == unit_hash(b"2") && of.rule == "even");
    assert_refused(
        &rules,
        &forced,
        &[
            (|of| of.arm = "a".into(), "the override that names the unit gave it something else then"),
            (|of| of.target = "v1".into(), "the ruleset sent such a request to the target `v2` then"),
            (|of| of.bucket = Some(1), "an override asks for no bucket"),
            (|of| of.epoch = 5, "the rule `even` was in epoch 0 then"),
        ],
    );
    let demanded = first(|of| of.unit_hash == unit_hash(b"7") && of.overridden);
    assert_refused(
        &rules,
        &demanded,
        &[
            (|of| of.target = "v9".into(), "the ruleset had no target `v9` then"),
            (|of| of.bucket = Some(1), "a request that no rule took has no bucket"),
            (|of| of.held_out = true, "an override comes before the holdout"),
        ],
    );
    let none = Ruleset::pass_all("digits", "v1");
    let held_out = EvaluationContext { experiments: Vec::new(), ..held_out };
    assert_eq!(sentence(&held_out, &none).unwrap_err(), "the ruleset held nobody out then");
}

#[test]
fn experiments_are_not_believed_either() {
    let rules = ruleset();
    let part = |experiment: &str, arm: &str| Participation { experiment: experiment.into(), arm: arm.into() };
    let all = || vec![part("all", "one")];
    let check = |decided: &EvaluationContext, experiments: Vec<Participation>, problem: &str| {
        let other = EvaluationContext { experiments, ..decided.clone() };
        assert_eq!(sentence(&other, &rules).unwrap_err(), problem, "{other:?}");
    };
    let default = first(|of| of.rule.is_empty() && of.unit_hash != 0 && !of.overridden && !of.held_out);
    check(&default, vec![], "such a request took part in the experiment `all` then");
    check(&default, [all(), all()].concat(), "the ruleset had no experiment `all` there then");
    check(&default, vec![part("gone", "a")], "such a request took part in the experiment `all` then");
    check(
        &default,
        [all(), vec![part("gone", "a")]].concat(),
        "the ruleset had no experiment `gone` there then",
    );
    check(
        &default,
        vec![part("all", "two")],
        "the experiment `all` had no arm `two` for such a request then",
    );
    // The rule took a bucket of the same layer.
    let layered = first(|of| of.rule == "layered" && !of.overridden);
    check(
        &layered,
        [vec![part("colour", "red")], all()].concat(),
        "the experiment `colour` had no arm `red` for such a request then",
    );
    let held_out = first(|of| of.held_out && !of.overridden);
    check(&held_out, all(), "who is held out takes no part in the experiment `all`");
    let forced = first(|of| of.unit_hash == unit_hash(b"4"));
    let gave = "an override gave the unit another arm of the experiment `colour` then";
    check(&forced, [vec![part("colour", "red")], all()].concat(), gave);
    check(&forced, all(), "such a request took part in the experiment `colour` then");
    let nobody = first(|of| of.unit_hash == 0 && of.experiments == all());
    let no_unit = "the experiment `colour` split units then, and the request had none";
    check(&nobody, [vec![part("colour", "red")], all()].concat(), no_unit);
    // The backend's log does not have them.
    let logged = EvaluationContext { experiments: vec![], ..logged(&default) };
    sentence(&logged, &rules).unwrap();
}

#[test]
fn what_a_rule_before_took_is_not_explained() {
    const HEAD: &str = "version: v1\ndefault: v1\nlayers: {models: {}, thin: {holdout: 0.1}}\nrules:\n";
    let one = "- {name: one, condition: 'user.group == \"a\"', target: v2}\n";
    let decided = |rule: &str, bucket: Option<u32>, reason: Reason| EvaluationContext {
        timestamp_ms: 1_767_225_600_000,
        unit_hash: 7,
        rule: rule.into(),
        target: if rule.is_empty() { "v1" } else { "v2" }.into(),
        bucket,
        reason: reason.into(),
        ..EvaluationContext::default()
    };
    let (matched, default) =
        (decided("one", None, Reason::TargetingMatch), decided("", None, Reason::Default));
    let split = |bucket| decided("later", Some(bucket), Reason::Split);
    let later = "- {name: later, weight: 0.9, seed: s, target: v2}\n";
    let layered = "- {name: later, layer: models, range: [0.5, 1], target: v2}\n";
    let took = Err("`first` took every such request then");
    for (before, rules, decided, expected) in [
        ("target: v3", one, &matched, took),
        ("condition: 'true', target: v3", one, &matched, took),
        ("condition: 'false', target: v3", one, &matched, Ok(())),
        ("condition: 'user.group == \"a\"', target: v3", one, &matched, took),
        ("condition: 'user.group == \"b\"', target: v3", one, &matched, Ok(())),
        ("weight: 0.999999, target: v3", one, &matched, Ok(())),
        ("arms: [{name: a, target: v2}, {name: b, target: v3}]", one, &matched, took),
        ("layer: models, target: v3", one, &matched, took),
        ("layer: thin, target: v3", one, &matched, Ok(())),
        ("start: 2026-01-01T00:00:00Z, target: v3", one, &matched, took),
        ("start: 2026-01-01T00:00:01Z, target: v3", one, &matched, Ok(())),
        ("end: 2026-01-01T00:00:00Z, target: v3", one, &matched, Ok(())),
        ("target: v3", "", &default, took),
        ("condition: 'user.group == \"a\"', target: v3", "", &default, Ok(())),
        ("weight: 0.5, target: v3", "", &default, Ok(())),
        ("layer: models, target: v3", "", &default, took),
        // Of one seed, the bucket tells.
        ("weight: 0.3, seed: s, target: v3", later, &split(299_999), took),
        ("weight: 0.3, seed: s, target: v3", later, &split(300_000), Ok(())),
        ("weight: 0.3, seed: t, target: v3", later, &split(299_999), Ok(())),
        ("weight: 0.3, target: v3", later, &split(299_999), Ok(())),
        ("layer: models, range: [0, 0.5], target: v3", layered, &split(500_000), Ok(())),
    ] {
        let text = format!("{HEAD}- {{name: first, {before}}}\n{rules}");
        let ruleset =
            compile_released(&text, "digits", &[]).unwrap_or_else(|e| panic!("{text}: {e:?}")).ruleset;
        let found = sentence(decided, &ruleset).map(|_| ());
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{text}");
    }
    // A schedule, a condition or a holdout that lets nothing through.
    for (rule, problem) in [
        (
            "end: 2026-01-01T00:00:00Z, condition: 'user.group == \"a\"'",
            "`one` was not in force at that time",
        ),
        ("condition: 'false'", "the condition of `one` never held"),
        ("condition: '1 / 0 == 1'", "the condition of `one` never held"),
    ] {
        let text = format!("{HEAD}- {{name: one, {rule}, target: v2}}\n");
        let ruleset = compile_released(&text, "digits", &[]).unwrap().ruleset;
        assert_eq!(sentence(&matched, &ruleset).unwrap_err(), problem, "{text}");
    }
    let all = "version: v1\ndefault: v1\nholdout: 1\nrules:\n".to_owned() + one;
    let ruleset = compile_released(&all, "digits", &[]).unwrap().ruleset;
    assert_eq!(sentence(&matched, &ruleset).unwrap_err(), "the ruleset held every unit out then");
    sentence(&EvaluationContext { unit_hash: 0, ..matched }, &ruleset).unwrap();
}

/// Of each kind of rule that did not take a request it is said why, as far as that is certain.
#[test]
fn why_rules_did_not_take_a_request_is_told() {
    let told = |rules: &str, decided: &EvaluationContext| {
        let text = format!(
            "version: v1\ndefault: v1\nlayers: {{models: {{holdout: 0.4}}}}\ntargets: {{v1: {{endpoints: ['127.0.0.1:1']}}, v2: \
             {{endpoints: ['127.0.0.1:2']}}}}\nrules:\n{rules}"
        );
        let ruleset = compile_released(&text, "digits", &[]).unwrap().ruleset;
        sentence(decided, &ruleset).unwrap().0
    };
    let decided = EvaluationContext {
        timestamp_ms: 1_700_000_000_000,
        unit_hash: unit_hash(b"7"),
        ruleset: "digits".into(),
        target: "v1".into(),
        reason: Reason::Default.into(),
        ..EvaluationContext::default()
    };
    for (rule, because) in [
        ("target: v2, condition: 'user.id > 3'", "its condition did not hold"),
        ("target: v2, condition: 'false', weight: 0.1", "its condition did not hold"),
        ("target: v2, weight: 0.1", "the unit is not in its share of 10 %"),
        ("target: v2, layer: models, range: [0.1, 1]", "the unit is not in its share of 60 %"),
        ("target: v2, condition: 'user.id > 3', start: '2030-01-01T00:00:00Z'", "it was not in force"),
    ] {
        let expected =
            format!("the rule `one` did not take it ({because}), so it goes to the default target `v1`");
        assert_eq!(told(&format!("- {{name: one, {rule}}}\n"), &decided), expected);
    }
    let scheduled =
        "- {name: one, target: v2, condition: 'user.id > 3', weight: 0.1, start: '2020-01-01T00:00:00Z'}\n";
    assert!(
        told(scheduled, &decided)
            .contains("(its condition did not hold, or the unit is not in its share of 10 %)")
    );
    let all = "(it was not in force, or its condition did not hold, or the request had no unit, or the unit is not in its share of 10 %)";
    assert!(told(scheduled, &logged(&decided)).contains(all));
    let ten: String = (0..10)
        .map(|number| format!("- {{name: r{number}, target: v2, condition: 'user.id > {number}'}}\n"))
        .collect();
    let told = told(&ten, &decided);
    assert!(
        told.starts_with("none of the 10 rules took it (`r0`: its condition did not hold; `r1`: "),
        "{told}"
    );
    assert!(told.contains("; `r7`: its condition did not hold; and 2 more), so it goes to"), "{told}");
}
