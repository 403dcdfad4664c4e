//! How fast the evaluator decides, natively, on one core, beside its peers: the same rules as a tree of
//! closures, and in the interpreter of the crate `cel`.

mod closures;
mod count;
mod peer;

use crate::rulesets::{CANARY, TEN_RULES, bundle, headers, tenants};
use anyhow::{Result, anyhow, ensure};
use closures::ClosureRules;
pub(crate) use count::probe;
use halftone_compiler::{Optimisation, compile, compile_with, link};
use halftone_rules::{Request, Timestamp, VerifiedBundle, codec};
use peer::CelRules;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Headers as the filter has them: searched one by one.
pub(crate) struct Headers(Vec<(&'static str, &'static str)>);

impl Headers {
    pub(crate) fn new() -> Self {
        Self(headers())
    }
}

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_bytes())
    }
}

/// The rulesets that are measured, by the names that [`probe`] takes.
pub(crate) fn ruleset(name: &str) -> Result<String> {
    Ok(match name {
        "1-rule" => CANARY.into(),
        "10-rules" => TEN_RULES.into(),
        "10-tenants" => tenants(10),
        "10000-tenants" => tenants(10_000),
        other => return Err(anyhow!("there is no ruleset {other}")),
    })
}

const RULESETS: [&str; 4] = ["1-rule", "10-rules", "10-tenants", "10000-tenants"];

pub(crate) fn run() -> Result<()> {
    println!("rules: decisions on one core, the best of 50 interleaved runs");
    let counter = count::Counter::find();
    let request = Headers::new();
    println!("  ruleset         million/s   ns each   instructions   bundle");
    let mut instructions = Vec::new();
    for name in RULESETS {
        let bytes = bundle(&ruleset(name)?)?;
        let verified = codec::decode(&bytes)?;
        let [nanoseconds] = best_of([&mut || decide(&verified, &request)]);
        let counted = counter.as_ref().map(|counter| counter.per_decision(name)).transpose()?;
        let shown = counted.map_or("-".into(), |count| format!("{count:.0}"));
        println!(
            "  {name:<14} {:>10.2}  {nanoseconds:>8.0}   {shown:>12}   {} bytes",
            1_000.0 / nanoseconds,
            bytes.len()
        );
        instructions.push(counted);
    }
    match instructions.as_slice() {
        [_, _, Some(few), Some(many)] => {
            println!("  10,000 tenants take {:.2} times the instructions of 10", many / few);
        }
        _ => println!("  instructions are counted by valgrind, which is not installed"),
    }
    peers(&request)?;
    load()
}

fn decide(verified: &VerifiedBundle, request: &Headers) {
    black_box(verified.decide(black_box(request), Timestamp(0), &mut ()));
}

/// The ten rules in three engines, interleaved. All start from the request's headers.
fn peers(request: &Headers) -> Result<()> {
    let verified = codec::decode(&bundle(TEN_RULES)?)?;
    let plain =
        compile_with(TEN_RULES, "digits", Optimisation::None).map_err(|_| anyhow!("does not compile"))?;
    let closures = ClosureRules::new(&plain.ruleset)?;
    let cel = CelRules::new(&plain.ruleset, TEN_RULES)?;
    let expected = verified.decide(request, Timestamp(0), &mut ()).and_then(|decision| decision.rule);
    ensure!(closures.decide(request) == expected, "the closures decide otherwise");
    ensure!(cel.decide(request)? == expected, "the peer decides otherwise");
    let context = cel.context(request)?;
    let [ours, closed, interpreted, prepared] = best_of([
        &mut || decide(&verified, request),
        &mut || {
            black_box(closures.decide(black_box(request)));
        },
        &mut || {
            let _ = black_box(cel.decide(black_box(request)));
        },
        &mut || {
            let _ = black_box(cel.decide_with(black_box(&context)));
        },
    ]);
    println!("10 rules in other engines, in the same run");
    println!("  halftone                         {ours:>9.0} ns");
    println!("  boxed closures                   {closed:>9.0} ns   {:.2} times ours", closed / ours);
    println!(
        "  cel interpreter                  {interpreted:>9.0} ns   {:.0} times ours",
        interpreted / ours
    );
    println!("  cel interpreter, variables ready {prepared:>9.0} ns   {:.0} times ours", prepared / ours);
    Ok(())
}

/// What it takes until 10,000 rules can decide.
fn load() -> Result<()> {
    let text = tenants(10_000);
    let compiling =
        fastest(5, || compile(&text, "digits").map(drop).map_err(|_| anyhow!("does not compile")))?;
    let compiled = compile(&text, "digits").map_err(|_| anyhow!("does not compile"))?;
    let bytes = codec::encode(&link(1, [&compiled])?)?;
    let decoding = fastest(20, || codec::decode(&bytes).map(drop).map_err(Into::into))?;
    println!("10,000 rules");
    println!("  compile            {compiling:>8.1?}");
    println!("  bundle             {:>8} bytes", bytes.len());
    println!("  decode and verify  {decoding:>8.1?}");
    Ok(())
}

fn fastest(runs: u32, mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// Nanoseconds per call of each of the candidates in its fastest run. The runs take turns, so that what disturbs
/// the machine disturbs all of them.
fn best_of<const N: usize>(mut candidates: [&mut dyn FnMut(); N]) -> [f64; N] {
    const RUNS: u32 = 50;
    const RUN: Duration = Duration::from_millis(2);
    let mut best = [f64::INFINITY; N];
    for _ in 0..RUNS {
        for (candidate, best) in candidates.iter_mut().zip(&mut best) {
            let start = Instant::now();
            let mut calls = 0u32;
            while start.elapsed() < RUN {
                for _ in 0..16 {
                    candidate();
                }
                calls += 16;
            }
            *best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
        }
    }
    best
}
