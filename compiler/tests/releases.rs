//! Releases: rules beside a ruleset's text, for a controller that ramps candidates.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Compiled, Release, compile, compile_released, disassemble, explain, link};
use halftone_judge::{fixed::homogeneity, stats::Proportion};
use halftone_rules::{Decision, Request, Timestamp, VerifiedBundle};
use proptest::{
    collection::vec,
    option,
    prelude::{ProptestConfig as Config, Strategy},
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
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
        dropped: Vec::new(),
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

/// The arms that a population has in a release, in the order of its units.
fn arms(bundle: &VerifiedBundle, tier: &'static str, units: u32) -> Vec<String> {
    let arm = |unit: u32| decide(bundle, &unit.to_string(), tier).arm.unwrap_or("none").to_owned();
    (0..units).map(arm).collect()
}

fn counts(arms: &[String]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for arm in arms {
        *counts.entry(arm.as_str()).or_insert(0) += 1;
    }
    counts
}

/// Whether a count of a share of a population lies within six standard deviations.
#[track_caller]
fn assert_share(count: u64, units: u32, share: f64, what: &str) {
    let (count, units) = (f64::from(u32::try_from(count).unwrap()), f64::from(units));
    let spread = (units * share * (1.0 - share)).sqrt();
    assert!((count - units * share).abs() <= 6.0 * spread, "{what}: {count} of {units}, not {share}");
}

/// A ramp: how many candidates, the range of a layer, if it is in one, and for each step the part of the range that the
/// candidates have, and the part of what they leave that the control has.
fn ramp() -> impl Strategy<Value = (usize, Option<[f64; 2]>, Vec<(f64, f64)>)> {
    let share = |percent: u8| f64::from(percent) / 100.0;
    let range = option::of((0..50_u8, 55..=100_u8).prop_map(move |(start, end)| [share(start), share(end)]));
    let steps = vec((0.0..1.0, 0.0..=1.0), 3).prop_map(|mut steps: Vec<(f64, f64)>| {
        steps.push((0.0, 0.5));
        steps.push((1.0, 0.0));
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps
    });
    (1..4_usize, range, steps)
}

#[test]
fn no_ramp_takes_a_unit_from_its_candidate_and_all_arms_have_their_shares() {
    const UNITS: u32 = 100_000;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 16, failure_persistence: None, ..Config::default() }, rng);
    let text = "version: v1\nlayers: {models: }\nrules: []\n";
    let check = |(candidates, range, steps): (usize, Option<[f64; 2]>, Vec<(f64, f64)>)| {
        let names: Vec<String> = (0..candidates).map(|at| format!("candidate-{at}")).collect();
        let [start, end] = range.unwrap_or([0.0, 1.0]);
        let mut before: Vec<String> = vec!["rest".into(); UNITS as usize];
        for (part, control) in steps {
            let each = part * (end - start) / f64::from(u32::try_from(candidates).unwrap());
            // Less a bucket for what is rounded.
            let control = (control * (1.0 - part) * (end - start) - 3e-6).max(0.0);
            let ramp = Release {
                candidates: names.clone(),
                layer: range.map(|_| "models".into()),
                range,
                ..release("ramp", each, control)
            };
            let now = arms(&bundle(text, &[ramp]), "", UNITS);
            let counts = counts(&now);
            for name in &names {
                assert_share(counts.get(name.as_str()).copied().unwrap_or(0), UNITS, each, name);
            }
            assert_share(counts.get("control").copied().unwrap_or(0), UNITS, control, "control");
            assert_share(counts.get("none").copied().unwrap_or(0), UNITS, 1.0 - (end - start), "none");
            for (before, now) in before.iter().zip(&now) {
                assert!(!names.contains(before) || before == now, "{before} became {now}");
            }
            before = now;
        }
        Ok(())
    };
    runner.run(&ramp(), check).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn thirds_are_everybody() {
    let thirds =
        Release { candidates: ["a", "b", "c"].map(Into::into).to_vec(), ..release("thirds", 1.0 / 3.0, 0.0) };
    let found = arms(&bundle(TEXT, &[thirds]), "", 30_000);
    assert_eq!(counts(&found).into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_dropped_candidate_moves_its_units_to_stable_and_nobody_else() {
    let all = Release { candidates: ["a", "b", "c"].map(Into::into).to_vec(), ..release("three", 0.2, 0.2) };
    let one_less = Release { dropped: vec!["b".into()], ..all.clone() };
    let text = "version: v1\nrules: []\n";
    let (before, after) = (bundle(text, &[all]), bundle(text, &[one_less]));
    for unit in 1..=10_000 {
        let unit = unit.to_string();
        let (before, after) = (decide(&before, &unit, ""), decide(&after, &unit, ""));
        assert_eq!(before.arm, after.arm, "unit {unit}");
        let target = if before.arm == Some("b") { "v1" } else { before.target };
        assert_eq!(after.target, target, "unit {unit}");
    }
}

#[test]
fn halves_of_an_odd_range_fit_into_it() {
    let halves = Release {
        layer: Some("models".into()),
        range: Some([0.0, 0.333_333]),
        ..release("halves", 0.333_333 / 2.0, 0.333_333 / 2.0)
    };
    let compiled = compiled("version: v1\nlayers: {models: }\nrules: []\n", &[halves]);
    let slices = &compiled.ruleset.rules[0].enrolment.allocation.as_ref().unwrap().slices;
    let ends: Vec<_> = slices.iter().map(|slice| (slice.start, slice.end)).collect();
    assert_eq!(ends, [(0, 166_667), (166_667, 333_333)]);
}

/// Two releases, each for a tier of its own: so that each unit can be asked for both.
fn pair(layers: [Option<&str>; 2], ranges: [Option<[f64; 2]>; 2]) -> VerifiedBundle {
    let of = |name: &str, tier: &str, at: usize| Release {
        condition: Some(format!("user.tier == '{tier}'")),
        layer: layers[at].map(Into::into),
        range: ranges[at],
        ..release(name, 0.2, 0.2)
    };
    let text = "version: v1\nlayers: {one: , other: }\nrules: []\n";
    bundle(text, &[of("a", "first", 0), of("b", "second", 1)])
}

#[test]
fn two_releases_in_one_layer_never_share_a_unit() {
    let bundle = pair([Some("one"), Some("one")], [Some([0.0, 0.45]), Some([0.45, 1.0])]);
    let (first, second) = (arms(&bundle, "first", 100_000), arms(&bundle, "second", 100_000));
    for (unit, (a, b)) in first.iter().zip(&second).enumerate() {
        assert!((a == "none") != (b == "none"), "{unit}: {a} {b}");
    }
}

#[test]
fn in_different_layers_and_in_none_they_are_independent() {
    for layers in [[Some("one"), Some("other")], [None, None], [Some("one"), None]] {
        let bundle = pair(layers, [None, None]);
        let (first, second) = (arms(&bundle, "first", 100_000), arms(&bundle, "second", 100_000));
        for b in ["v2", "control", "rest"] {
            // Whatever their arm of the one, as many have this arm of the other.
            let of_arm = |a: &str| {
                let units = || first.iter().zip(&second).filter(|(first, _)| *first == a);
                let with = units().filter(|(_, second)| *second == b).count();
                Proportion { n: units().count() as u64, k: with as u64 }
            };
            let test = homogeneity(&["v2", "control", "rest"].map(of_arm)).unwrap();
            assert!(test.p > 0.001, "{layers:?} {b}: {test:?}");
        }
    }
}

#[test]
fn a_release_is_tried_before_the_rule_that_it_names_and_else_after_all() {
    let text = "version: v1\nrules:\n- {name: gold, condition: user.tier == 'gold', target: v3}\n- {name: free, condition: user.tier == 'free', target: v0}\n";
    let before = |rule: Option<&str>, name: &str| Release {
        before: rule.map(Into::into),
        condition: Some(format!("user.tier == '{name}'")),
        ..release(name, 0.5, 0.5)
    };
    let releases = [before(None, "last"), before(Some("free"), "first"), before(Some("free"), "second")];
    let compiled = compiled(text, &releases);
    let names: Vec<&str> = compiled.ruleset.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["gold", "first", "second", "free", "last"]);
}
