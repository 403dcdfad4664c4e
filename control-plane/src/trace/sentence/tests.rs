//! Every way in which a ruleset can give a request its target is told, and what does not follow is refused. The real evaluator
//! decides; what it said is handed over as the backend gets it.

use super::*;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_compiler::{Release, compile_released};
use halftone_rules::{Bundle, Request, Timestamp, VerifiedBundle, context};
use prost::Message;

const RULES: &str = "version: v1
default: v1
holdout: 0.1
layers: {models: {seed: m}}
targets: {v1: {endpoints: ['127.0.0.1:1']}, v2: {endpoints: ['127.0.0.1:2']}, v3: {endpoints: ['127.0.0.1:3']}}
overrides:
- {units: ['1'], target: v3}
- {units: ['2'], rule: even, arm: b}
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
            "x-user-id" => Some(self.0.as_bytes()),
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
    let decision = bundle.decide(user, Timestamp(0), &mut ()).unwrap();
    let header = context::header_value(&decision, 1);
    EvaluationContext::decode(URL_SAFE_NO_PAD.decode(header).unwrap().as_slice()).unwrap()
}

#[test]
fn every_way_to_a_target_is_told() {
    let bundle = VerifiedBundle::new(Bundle::new(1, vec![ruleset()])).unwrap();
    let mut seen: Vec<String> = Vec::new();
    for group in ["", "test", "layer", "arms", "compared", "release"] {
        for user in 1..400 {
            let decided = decide(&bundle, &User(user.to_string(), group, None));
            let (why, slot) = sentence(&decided, &ruleset()).unwrap_or_else(|e| panic!("{e}: {decided:?}"));
            let inside = slot
                .zip(decided.bucket)
                .is_none_or(|(slot, bucket)| (slot.start..slot.end).contains(&bucket));
            assert!(inside, "{why}");
            let bucket = decided.bucket.map(|bucket| format!("bucket {bucket} of 1000000"));
            seen.push(bucket.map_or(why.clone(), |bucket| why.replace(&bucket, "B")));
        }
    }
    let demanded = decide(&bundle, &User("7".into(), "", Some("v2")));
    seen.push(sentence(&demanded, &ruleset()).unwrap().0);
    seen.sort();
    seen.dedup();
    let held = "its condition held, and B";
    let mut expected = vec![
        "an override names the unit and gives it the target `v3`".to_owned(),
        "an override names the unit and gives it the rule `even`, arm `b`".to_owned(),
        "an override token of the request demanded the target `v2`".to_owned(),
        "the unit is among the 10 % that are held out of every rule, and goes to the default target `v1`"
            .to_owned(),
        "none of the 5 rules took it, so it goes to the default target `v1`".to_owned(),
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
fn what_does_not_follow_from_the_ruleset_is_not_explained() {
    let split = EvaluationContext {
        rule: "compared".into(),
        arm: "treatment".into(),
        target: "v2".into(),
        bucket: Some(199_999),
        reason: Reason::Split.into(),
        ..EvaluationContext::default()
    };
    sentence(&split, &ruleset()).unwrap();
    type Change = fn(&mut EvaluationContext);
    let changes: [(Change, &str); 9] = [
        (|of| of.rule = "gone".into(), "the ruleset had no rule `gone` then"),
        (|of| of.epoch = 7, "the rule `compared` was in epoch 0 then"),
        (|of| of.bucket = Some(200_000), "`compared` did not take the bucket 200000 then"),
        (|of| of.bucket = None, "`compared` split by buckets then"),
        (|of| of.arm = "control".into(), "`compared` had no arm `control` for this bucket then"),
        (|of| of.target = "v3".into(), "the ruleset sent such a request to the target `v2` then"),
        (|of| of.rule = "testers".into(), "`testers` asked for no bucket then"),
        (|of| of.rule.clear(), "the ruleset sent such a request to the target `v1` then"),
        (
            |of| {
                *of =
                    EvaluationContext { held_out: true, target: "v2".into(), ..EvaluationContext::default() }
            },
            "the ruleset sent such a request to the target `v1` then",
        ),
    ];
    for (change, problem) in changes {
        let mut other = split.clone();
        change(&mut other);
        assert_eq!(sentence(&other, &ruleset()).unwrap_err(), problem);
    }
    let none = Ruleset::pass_all("digits", "v1");
    let held_out = EvaluationContext { held_out: true, target: "v1".into(), ..EvaluationContext::default() };
    assert_eq!(sentence(&held_out, &none).unwrap_err(), "the ruleset held nobody out then");
}
