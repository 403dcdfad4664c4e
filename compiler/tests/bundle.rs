//! The bundle's bytes: what the compiler makes survives the trip, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, link};
use halftone_rules::{
    Bundle, VerifiedBundle,
    bundle::{Condition, Constant, Forced, Guard, Override, Space},
    codec,
    isa::{AttributeId, ConstantId, ListId, Op, PredicateId, Skip},
    limits::MAX_BUNDLE_BYTES,
    operator::{Binary, Unary},
};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

const RULES: &str = r#"
version: v1
match: {hosts: ["*.example.com"], path_prefixes: [/v2]}
attributes:
  tenant: {header: x-tenant}
targets:
  v1: {endpoints: ["127.0.0.1:8001"]}
  v2: {endpoints: ["127.0.0.1:8002", "[::1]:8002"]}
default: v1
rules:
  - {name: beta, condition: 'tenant in ["acme", "globex"] && user.id % 2 == 0', target: v2}
  - {name: canary, weight: 0.1, target: v2}
"#;

fn sample() -> Bundle {
    link(42, [&compile(RULES, "digits").unwrap()]).unwrap()
}

#[test]
fn a_bundle_survives_the_trip() {
    let bundle = sample();
    assert_eq!(codec::decode(&codec::encode(&bundle).unwrap()).unwrap().bundle(), &bundle);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let bytes = codec::encode(&sample()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(codec::decode(&damaged).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(codec::decode(&bytes[..length]).is_err(), "length {length}");
    }
    assert!(codec::decode(&[&bytes[..], &[0]].concat()).is_err());
}

/// In memory it is larger than a bundle may be in bytes.
#[test]
fn a_large_bundle_survives_the_trip() {
    let condition = (0..120).map(|n| format!("a.b != {n}")).collect::<Vec<_>>().join(" && ");
    let rules = (0..1_500).map(|n| format!("  - {{name: r{n}, condition: {condition}, target: v2}}\n"));
    let compiled = compile(&format!("version: v1\nrules:\n{}", rules.collect::<String>()), "large").unwrap();
    let bundle = link(1, [&compiled]).unwrap();
    assert!(size_of_val(bundle.rulesets[0].code.as_slice()) > MAX_BUNDLE_BYTES);
    assert_eq!(*codec::decode(&codec::encode(&bundle).unwrap()).unwrap().bundle(), bundle);
}

/// Programs that no compiler of ours makes.
#[test]
fn an_invalid_program_is_refused() {
    type Break = fn(&mut Bundle);
    fn slices(b: &mut Bundle) -> &mut Vec<halftone_rules::bundle::Slice> {
        &mut b.rulesets[0].rules[1].enrolment.allocation.as_mut().unwrap().slices
    }
    fn condition(b: &mut Bundle) -> &mut Option<Condition> {
        &mut b.rulesets[0].rules[0].enrolment.condition
    }
    let broken: [(&str, Break); 26] = [
        ("share", |b| slices(b)[0].end = 1_000_001),
        ("overlapping slices", |b| {
            let again = slices(b)[0].clone();
            slices(b).push(again);
        }),
        ("parts that are not the whole", |b| slices(b)[0].division[0].end = 999_999),
        ("part's arm", |b| slices(b)[0].division[0].arm = 1),
        ("no arm", |b| b.rulesets[0].rules[0].arms.clear()),
        ("layer", |b| b.rulesets[0].rules[1].enrolment.allocation.as_mut().unwrap().space = Space::Layer(0)),
        ("arm's target", |b| b.rulesets[0].rules[0].arms[0].target = 9),
        ("override", |b| b.rulesets[0].overrides.push(Override { unit: vec![1], forced: Forced::Target(9) })),
        ("guard", |b| b.rulesets[0].rules[0].guard = Some(Guard::Equals(AttributeId(0), ConstantId(0)))),
        ("unit", |b| b.rulesets[0].unit = AttributeId(9)),
        ("default", |b| b.rulesets[0].default = 9),
        ("range", |b| *condition(b) = Some(Condition { start: 5, length: u32::MAX })),
        ("empty condition", |b| *condition(b) = Some(Condition { start: 0, length: 0 })),
        ("constant", |b| b.rulesets[0].code[0] = Op::Constant(ConstantId(99))),
        ("attribute", |b| b.rulesets[0].code[0] = Op::Load(AttributeId(99))),
        ("list", |b| b.rulesets[0].code[0] = Op::TestIn(AttributeId(0), ListId(99))),
        ("underflow", |b| b.rulesets[0].code[0] = Op::And),
        ("jump", |b| b.rulesets[0].code[1] = Op::SkipIfFalse(Skip(1_000))),
        ("jump into another stack", |b| b.rulesets[0].code[1] = Op::SkipIfFalse(Skip(1))),
        ("type of a constant", |b| b.rulesets[0].constants[0] = Constant::Double(1.0)),
        ("operand", |b| b.rulesets[0].code[0] = Op::Unary(Unary::Size)),
        ("operands", |b| b.rulesets[0].code[0] = Op::Test(AttributeId(0), Binary::Add, ConstantId(0))),
        ("predicate in a predicate", |b| {
            let ruleset = &mut b.rulesets[0];
            ruleset.code[0] = Op::Predicate(PredicateId(0));
            ruleset.predicates = vec![Condition { start: 0, length: 1 }];
        }),
        ("name", |b| b.rulesets[0].targets[0] = "a\r\nx: y".into()),
        ("duplicate ruleset", |b| b.rulesets.push(b.rulesets[0].clone())),
        ("bucket function", |b| b.hash_version = 2),
    ];
    for (what, break_it) in broken {
        let mut bundle = sample();
        break_it(&mut bundle);
        assert!(VerifiedBundle::new(bundle.clone()).is_err(), "{what}");
        assert!(codec::decode(&codec::encode(&bundle).unwrap()).is_err(), "{what}");
    }
    let mut overlapping = sample();
    let ruleset = &mut overlapping.rulesets[0];
    ruleset.constants = vec![Constant::Bool(true)];
    ruleset.code = vec![Op::Constant(ConstantId(0))];
    ruleset.code.extend([Op::Unary(Unary::Not); 63]);
    ruleset.rules = (0..63u32)
        .map(|n| {
            let mut rule = ruleset.rules[1].clone();
            rule.name = format!("r{n}");
            rule.enrolment.condition = Some(Condition { start: 0, length: n + 1 });
            rule
        })
        .collect();
    let error = VerifiedBundle::new(overlapping.clone()).unwrap_err().to_string();
    assert!(error.ends_with("conditions overlap"), "{error}");
    // The same condition for all of them is no overlap.
    for rule in &mut overlapping.rulesets[0].rules {
        rule.enrolment.condition = Some(Condition { start: 0, length: 64 });
    }
    assert!(VerifiedBundle::new(overlapping).is_ok());
    let mut deep = sample();
    let ruleset = &mut deep.rulesets[0];
    ruleset.code = vec![Op::Constant(ConstantId(0)); 65];
    ruleset.rules[0].enrolment.condition = Some(Condition { start: 0, length: 65 });
    let error = VerifiedBundle::new(deep).unwrap_err().to_string();
    assert_eq!(
        error,
        "ruleset \"digits\": rule \"beta\": operation \"64\": more than 64 values on the stack"
    );
}

#[test]
fn two_rulesets_for_the_same_requests_do_not_link() {
    let (a, b) = (compile(RULES, "a").unwrap(), compile(RULES, "b").unwrap());
    let error = link(1, [&a, &b]).unwrap_err().to_string();
    assert!(error.contains("\"a\" and \"b\" govern the same requests"), "{error}");
    let with = |name: &str, hosts: &str| {
        compile(&format!("version: v1\nmatch: {{hosts: [{hosts}]}}\nrules: []"), name).unwrap()
    };
    assert!(link(1, [&with("a", "x.com, x.com")]).is_ok());
    assert!(link(1, [&with("a", "x.com"), &with("b", "x.com, x.com")]).is_err());
    assert!(link(1, [&with("a", "x.com, y.com"), &with("b", "y.com")]).is_err());
    let all = compile("version: v1\nrules: []", "c").unwrap();
    assert!(link(1, [&with("a", "x.com"), &with("b", "'*.x.com'"), &all]).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        prop_assert!(codec::decode(&bytes).is_err());
    }

    /// A header that is right around a payload that is not.
    #[test]
    fn any_payload_is_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..512)) {
        let mut bytes = codec::encode(&sample()).unwrap();
        let damaged_at = 26 + payload.len() % (bytes.len() - 26);
        bytes.truncate(damaged_at);
        bytes.extend_from_slice(&payload);
        let length = u32::try_from(bytes.len() - 26).unwrap();
        bytes[14..18].copy_from_slice(&length.to_le_bytes());
        let hash = xxh3_64(&[&bytes[..18], &bytes[26..]].concat());
        bytes[18..26].copy_from_slice(&hash.to_le_bytes());
        let _ = codec::decode(&bytes);
    }
}
