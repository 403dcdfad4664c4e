//! Compiled bundles with changes that keep their form: what verifies decides every request, without a fault.
#![no_main]

use arbitrary::Arbitrary;
use bincode::{Decode, decode_from_slice};
use halftone_compiler::{compile, link};
use halftone_fuzz::{Headers, decides};
use halftone_rules::{Bundle, Timestamp, VerifiedBundle, bundle::Ruleset};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Those that the target `yaml` starts with too.
static BUNDLES: LazyLock<[Bundle; 4]> = LazyLock::new(|| {
    [
        include_str!("../seeds/yaml/conditions.yaml"),
        include_str!("../seeds/yaml/enrolment.yaml"),
        include_str!("../seeds/yaml/guards.yaml"),
        include_str!("../seeds/yaml/predicates.yaml"),
    ]
    .map(|text| link(1, [&compile(text, "fuzz").expect("compiles")]).expect("one ruleset links"))
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    bundle: u8,
    changes: Vec<Change<'a>>,
    requests: Vec<Vec<&'a [u8]>>,
    now: i64,
}

/// Another element at a place; the bytes are the element's as a bundle has them.
#[derive(Arbitrary, Debug)]
struct Change<'a> {
    part: Part,
    at: u16,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Part {
    Attribute,
    Constant,
    List,
    Map,
    Network,
    Op,
    AddOp,
    Predicate,
    Layer,
    Override,
    Rule,
    Guard,
    Enrolment,
    Condition,
    Allocation,
    Experiment,
    Unit,
    Default,
}

fn read<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    decode_from_slice(bytes, bincode::config::standard().with_limit::<4096>()).ok().map(|(value, _)| value)
}

fn replace<T: Decode<()>>(list: &mut [T], at: usize, bytes: &[u8]) -> Option<()> {
    let at = at.checked_rem(list.len())?;
    list[at] = read(bytes)?;
    Some(())
}

fn change(ruleset: &mut Ruleset, Change { part, at, bytes }: &Change<'_>) -> Option<()> {
    let at = usize::from(*at);
    let rule = at.checked_rem(ruleset.rules.len());
    match part {
        Part::Attribute => replace(&mut ruleset.attributes, at, bytes)?,
        Part::Constant => replace(&mut ruleset.constants, at, bytes)?,
        Part::List => replace(&mut ruleset.lists, at, bytes)?,
        Part::Map => replace(&mut ruleset.maps, at, bytes)?,
        Part::Network => replace(&mut ruleset.networks, at, bytes)?,
        Part::Op => replace(&mut ruleset.code, at, bytes)?,
        Part::AddOp => ruleset.code.insert(at.checked_rem(ruleset.code.len() + 1)?, read(bytes)?),
        Part::Predicate => replace(&mut ruleset.predicates, at, bytes)?,
        Part::Layer => replace(&mut ruleset.layers, at, bytes)?,
        Part::Override => replace(&mut ruleset.overrides, at, bytes)?,
        Part::Rule => replace(&mut ruleset.rules, at, bytes)?,
        Part::Guard => ruleset.rules[rule?].guard = read(bytes)?,
        Part::Enrolment => ruleset.rules[rule?].enrolment = read(bytes)?,
        Part::Condition => ruleset.rules[rule?].enrolment.condition = read(bytes)?,
        Part::Allocation => ruleset.rules[rule?].enrolment.allocation = read(bytes)?,
        Part::Experiment => replace(&mut ruleset.experiments, at, bytes)?,
        Part::Unit => ruleset.unit = read(bytes)?,
        Part::Default => ruleset.default = read(bytes)?,
    }
    Some(())
}

fuzz_target!(|input: Input<'_>| {
    let mut bundle = BUNDLES[usize::from(input.bundle) % BUNDLES.len()].clone();
    for wanted in &input.changes {
        // Bytes that are no such element change nothing.
        let _ = change(&mut bundle.rulesets[0], wanted);
    }
    if let Ok(bundle) = VerifiedBundle::new(bundle) {
        let requests: Vec<Headers<'_>> =
            input.requests.into_iter().take(16).map(|values| Headers { values }).collect();
        decides(&bundle, &requests, Timestamp(input.now));
    }
});
