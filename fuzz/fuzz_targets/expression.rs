//! A condition's text in a ruleset of its own: an answer, and the same result with and without optimisation.
#![no_main]

use halftone_compiler::{Optimisation, compile_with, link, render};
use halftone_fuzz::{requests, survives};
use halftone_rules::{EvalError, Observer, Outcome, Ruleset, Timestamp, VerifiedBundle};
use libfuzzer_sys::fuzz_target;

const ATTRIBUTES: &str = "
  n: {header: n, type: int}
  u: {header: u, type: uint}
  d: {header: d, type: double}
  b: {header: b, type: bool}
  s: {header: s}
  raw: {header: raw, type: bytes}
  v: {header: v, type: semver}
  groups: {header: groups, type: list}
  ip: {source: client_address}
  claim: {property: a.claim, type: double}
  limit: {constant: 5, type: int}
";

/// How the only rule comes out; an error whatever its reason.
#[derive(Default)]
struct Only(Option<Result<bool, ()>>);

impl Observer for Only {
    fn rule(&mut self, _: &Ruleset, _: usize, outcome: Outcome) {
        assert_ne!(outcome, Outcome::Error(EvalError::Fault));
        self.0 = Some(match outcome {
            Outcome::Taken { .. } => Ok(true),
            Outcome::Error(_) => Err(()),
            _ => Ok(false),
        });
    }
}

fuzz_target!(|condition: &str| {
    // As JSON has it, so that every character arrives.
    let quoted = serde_json::to_string(condition).expect("a string is JSON");
    let text = format!(
        "version: v1\nattributes:{ATTRIBUTES}rules: [{{name: r, condition: {quoted}, target: v2}}]\n"
    );
    let forms = [Optimisation::Full, Optimisation::None].map(|optimisation| {
        compile_with(&text, "fuzz", optimisation)
            .map(|compiled| {
                let bundle = link(1, [&compiled]).expect("one ruleset links");
                VerifiedBundle::new(bundle).expect("what the compiler makes verifies")
            })
            .map_err(|problems| render("fuzz.yaml", &text, &problems))
    });
    let [Ok(optimised), Ok(plain)] = forms else { return };
    survives(&optimised);
    for request in requests() {
        let [optimised, plain] = [&optimised, &plain].map(|bundle| {
            let mut only = Only::default();
            let _ = bundle.decide(&request, Timestamp(1_700_000_000_000_000_000), &mut only);
            only.0
        });
        assert_eq!(optimised, plain, "{condition}");
    }
});
