//! How fast the evaluator decides, natively, on one core.

use crate::rulesets::{CANARY, TEN_RULES, bundle, headers};
use anyhow::Result;
use halftone_rules::{Request, Timestamp, codec};
use std::{hint::black_box, time::Instant};

/// Headers as the filter has them: searched one by one.
struct Headers(Vec<(&'static str, &'static str)>);

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_bytes())
    }
}

pub(crate) fn run() -> Result<()> {
    println!("rules: decisions on one core, the best of 50 runs");
    for (name, ruleset) in [("1 rule", CANARY), ("10 rules", TEN_RULES)] {
        let bytes = bundle(ruleset)?;
        let verified = codec::decode(&bytes)?;
        let request = Headers(headers());
        let nanoseconds = best_of(50, 20_000, || {
            black_box(verified.decide(black_box(&request), Timestamp(0), &mut ()));
        });
        println!(
            "  {name:<9} {:>8.2} million/s  ({nanoseconds:.0} ns each, bundle {} bytes)",
            1_000.0 / nanoseconds,
            bytes.len()
        );
    }
    Ok(())
}

/// Nanoseconds per call in the fastest of `runs` runs of `calls` calls.
fn best_of(runs: u32, calls: u32, mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    best
}
