//! Releases: rules beside a ruleset's text, for a controller that ramps candidates.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Compiled, Release, compile, compile_released, disassemble, explain, link};
use halftone_rules::{Decision, Request, Timestamp, VerifiedBundle};
use std::collections::BTreeMap;

/// A request with a unit, unless that is empty, and of a tier.
struct User(String, &'static str);

impl Request for User {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let value = match name {
            "x-user-id" => self.0.as_str(),
            "x-user-tier" => self.1,
            _ => "",
        };
        (!value.is_empty()).then_some(value.as_bytes())
    }
}

fn release(name: &str, share: f64, control: f64) -> Release {
    Release {
        name: name.into(),
        epoch: 7,
        condition: None,
        layer: None,
        range: None,
        before: None,
        stable: "v1".into(),
        candidates: vec!["v2".into()],
        share,
        control,
    }
}

fn compiled(text: &str, releases: &[Release]) -> Compiled {
    compile_released(text, "digits", releases).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn bundle(text: &str, releases: &[Release]) -> VerifiedBundle {
    VerifiedBundle::new(link(1, [&compiled(text, releases)]).unwrap()).unwrap()
}

fn decide<'b>(bundle: &'b VerifiedBundle, unit: &str, tier: &'static str) -> Decision<'b> {
    bundle.decide(&User(unit.into(), tier), Timestamp(0), &mut ()).expect("governed")
}

/// Rule, arm, target and epoch of a decision.
fn told<'b>(decision: &Decision<'b>) -> (Option<&'b str>, Option<&'b str>, &'b str, u64) {
    (decision.rule, decision.arm, decision.target, decision.epoch)
}

const TEXT: &str =
    "version: v1\ndefault: v0\nrules:\n- {name: gold, condition: user.tier == 'gold', target: v3}\n";

#[test]
fn without_releases_it_is_the_text_alone() {
    assert_eq!(compile_released(TEXT, "digits", &[]), compile(TEXT, "digits"));
}

#[test]
fn every_eligible_unit_gets_an_arm_and_who_has_no_unit_goes_on() {
    let mut release = release("v2-ramp", 0.25, 0.25);
    release.condition = Some("user.tier != 'free'".into());
    let bundle = bundle(TEXT, &[release]);
    let (mut arms, eligible) = (BTreeMap::<_, u32>::new(), "pro");
    for unit in 0..4_000 {
        let decision = decide(&bundle, &unit.to_string(), eligible);
        let (rule, arm, target, epoch) = told(&decision);
        assert_eq!((rule, epoch), (Some("v2-ramp"), 7));
        assert_eq!(target, if arm == Some("v2") { "v2" } else { "v1" });
        *arms.entry(arm.unwrap()).or_insert(0) += 1;
    }
    // Five standard deviations are 137.
    assert!(arms["v2"].abs_diff(1_000) < 137 && arms["control"].abs_diff(1_000) < 137, "{arms:?}");
    assert!(arms["rest"].abs_diff(2_000) < 158, "{arms:?}");

    for (unit, tier, expected) in [
        // The text's rule is before it.
        ("1", "gold", (Some("gold"), None, "v3", 0)),
        ("1", "free", (None, None, "v0", 0)),
        ("", "pro", (None, None, "v0", 0)),
    ] {
        assert_eq!(told(&decide(&bundle, unit, tier)), expected, "{unit:?} {tier}");
    }
}

#[test]
fn once_settled_it_takes_everybody() {
    let bundle = bundle(TEXT, &[release("v2-ramp", 1.0, 0.0)]);
    for unit in ["", "1"] {
        assert_eq!(told(&decide(&bundle, unit, "pro")), (Some("v2-ramp"), Some("v2"), "v2", 7));
    }
    let listing = disassemble(bundle.bundle()).to_string();
    assert!(listing.contains("rule 1 v2-ramp -> v2 (v2), epoch 7"), "{listing}");
    let explained = explain(&bundle, &User("1".into(), "pro"), Timestamp(0)).unwrap();
    assert_eq!((explained.arm.as_deref(), explained.epoch), (Some("v2"), Some(7)));
}
