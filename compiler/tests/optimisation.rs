//! What the compiler optimises changes nothing: guards and the index over them, shared predicates, folding and
//! fused operations decide as each rule by itself, in order, as it is written.
#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

mod random;

use halftone_compiler::{Compiled, Optimisation, compile_with, link};
use halftone_rules::{
    EvalError, Observer, Outcome, Ruleset, Timestamp, VerifiedBundle, bundle::Guard, codec, isa::AttributeId,
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

/// How rules and experiments came out. A verified program has no faults.
#[derive(Debug, Default, PartialEq)]
struct Outcomes(Vec<(&'static str, usize, String)>);

impl Outcomes {
    fn add(&mut self, what: &'static str, index: usize, outcome: Outcome) {
        assert_ne!(outcome, Outcome::Error(EvalError::Fault), "{what} {index}");
        // Of several errors, which is the first depends on where the guard stood.
        let kind = match outcome {
            Outcome::Error(_) => "error".into(),
            other => format!("{other:?}"),
        };
        self.0.push((what, index, kind));
    }
}

impl Observer for Outcomes {
    fn rule(&mut self, _: &Ruleset, index: usize, outcome: Outcome) {
        self.add("rule", index, outcome);
    }

    fn experiment(&mut self, _: &Ruleset, index: usize, outcome: Outcome) {
        self.add("experiment", index, outcome);
    }

    fn unknown(&mut self, _: &Ruleset, AttributeId(id): AttributeId, error: EvalError) {
        assert_ne!(error, EvalError::Fault, "attribute {id}");
    }
}

fn compiled(text: &str, optimisation: Optimisation) -> Result<Compiled, TestCaseError> {
    compile_with(text, "test", optimisation)
        .map_err(|problems| TestCaseError::fail(format!("{:#?}\n{text}", problems.first())))
}

/// Also through the bundle's bytes.
fn verified(compiled: &Compiled) -> VerifiedBundle {
    let bundle = link(1, [compiled]).expect("one ruleset links");
    codec::decode(&codec::encode(&bundle).expect("encodes")).expect("what the compiler makes verifies")
}

/// How often the corpus has what the test is about.
#[derive(Debug, Default)]
struct Reached(BTreeMap<&'static str, usize>);

impl Reached {
    fn count(&mut self, what: &'static str, reached: bool) {
        *self.0.entry(what).or_default() += usize::from(reached);
    }

    fn ruleset(&mut self, ruleset: &Ruleset) {
        let guards: Vec<Guard> = ruleset.rules.iter().filter_map(|rule| rule.guard).collect();
        let ways: HashSet<_> = guards.iter().map(|g| (g.attribute(), index_of(g))).collect();
        self.count("rulesets", true);
        self.count("rulesets with guards", !guards.is_empty());
        self.count("rulesets with several indexes", ways.len() > 1);
        self.count("rulesets with guarded and unguarded rules", guards.len() < ruleset.rules.len());
        self.count("rulesets with predicates", !ruleset.predicates.is_empty());
        for (what, way) in [("value guards", 0), ("prefix guards", 1), ("range guards", 2)] {
            self.count(what, guards.iter().any(|guard| index_of(guard) == way));
        }
    }
}

/// Guards of one attribute and one number are found by one index.
fn index_of(guard: &Guard) -> u8 {
    match guard {
        Guard::Equals(..) | Guard::OneOf(..) => 0,
        Guard::StartsWith(..) => 1,
        Guard::Between(..) => 2,
    }
}

#[test]
fn the_optimised_form_decides_as_each_rule_by_itself() {
    let requests = prop::collection::vec((random::requests(), random::moments()), 48);
    // A fixed seed: the corpus is the same in every run. PROPTEST_CASES makes it longer.
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let reached = RefCell::new(Reached::default());
    let checked = runner.run(&(random::rulesets(), requests), |(text, requests)| {
        let optimised = compiled(&text, Optimisation::Full)?;
        let plain = compiled(&text, Optimisation::None)?;
        let mut reached = reached.borrow_mut();
        reached.ruleset(&optimised.ruleset);
        let [fast, naive] = [&optimised, &plain].map(verified);
        for (request, now) in &requests {
            let mut outcomes = [Outcomes::default(), Outcomes::default()];
            let expected = naive.decide_by_each_rule(request, *now, &mut outcomes[0]);
            let decision = fast.decide(request, *now, &mut Outcomes::default());
            prop_assert_eq!(&decision, &expected, "{:?} at {:?}\n{}", request, now, text);
            let by_each_rule = fast.decide_by_each_rule(request, *now, &mut outcomes[1]);
            prop_assert_eq!(&outcomes[1], &outcomes[0], "{:?} at {:?}\n{}", request, now, text);
            prop_assert_eq!(
                &by_each_rule,
                &expected,
                "without the index: {:?} at {:?}\n{}",
                request,
                now,
                text
            );

            let expected = expected.expect("the ruleset governs every request");
            let rule = optimised.ruleset.rules.iter().find(|rule| Some(rule.name.as_str()) == expected.rule);
            reached.count("decisions", true);
            reached.count("decisions by a rule", rule.is_some());
            reached.count("decisions by a guarded rule", rule.is_some_and(|rule| rule.guard.is_some()));
            reached.count("decisions for an arm", expected.arm.is_some());
            reached.count("decisions with experiments", expected.experiments().next().is_some());
            reached.count("decisions by an override", expected.overridden);
            reached.count("decisions for a unit held out", expected.held_out);
        }
        Ok(())
    });
    let reached = reached.into_inner();
    checked.unwrap_or_else(|error| panic!("{error}\n{reached:#?}"));
    for (what, of, percent) in [
        ("rulesets with guards", "rulesets", 80),
        ("rulesets with several indexes", "rulesets", 50),
        ("rulesets with guarded and unguarded rules", "rulesets", 90),
        ("rulesets with predicates", "rulesets", 90),
        ("value guards", "rulesets", 50),
        ("prefix guards", "rulesets", 20),
        ("range guards", "rulesets", 30),
        ("decisions by a rule", "decisions", 50),
        ("decisions by a guarded rule", "decisions", 20),
        ("decisions for an arm", "decisions", 5),
        ("decisions with experiments", "decisions", 20),
        ("decisions by an override", "decisions", 5),
        ("decisions for a unit held out", "decisions", 5),
    ] {
        assert!(reached.0[what] * 100 >= reached.0[of] * percent, "too few {what}: {reached:#?}");
    }
}

/// Each of these rules would enter a whole list into the index; most are tried instead.
#[test]
fn rules_that_share_a_long_list_are_all_found() {
    let list = (0..2_000).map(|n| format!("{n}.5")).collect::<Vec<_>>().join(", ");
    let rules = (0..100)
        .map(|n| format!("  - {{name: r{n}, condition: 'x in [{list}] && y == {n}', target: v2}}\n"))
        .collect::<String>();
    let text = format!(
        "version: v1\nattributes: {{x: {{header: x, type: double}}, y: {{header: y, type: int}}}}\nrules:\n{rules}"
    );
    let bundle = verified(&compiled(&text, Optimisation::Full).expect("compiles"));
    assert_eq!(bundle.bundle().rulesets[0].lists.len(), 1);
    for (x, y, expected) in [
        ("1999.5", "99", Some("r99")),
        ("0.5", "0", Some("r0")),
        ("0.5", "7", Some("r7")),
        ("2000.5", "7", None),
        ("NaN", "7", None),
    ] {
        let request = random::Headers(vec![("x", x.into()), ("y", y.into())]);
        let decision = bundle.decide(&request, Timestamp(0), &mut Outcomes::default());
        assert_eq!(decision.and_then(|decision| decision.rule), expected, "{x} {y}");
    }
}
