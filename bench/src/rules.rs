//! How fast the evaluator decides, natively, on one core, beside its peers: the same rules as a tree of
//! closures, and in the interpreter of the crate `cel`.

mod closures;
mod count;
mod peer;

use crate::rulesets::{CANARY, TEN_RULES, bundle, headers, tenants};
use anyhow::{Context, Result, anyhow, ensure};
use closures::ClosureRules;
pub(crate) use count::probe;
use halftone_compiler::{Optimisation, compile, compile_with, link};
use halftone_rules::{
    Attribute, EvalError, Request, Timestamp, Value, VerifiedBundle, codec, isa::AttributeId,
};
use peer::CelRules;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Headers as the filter has them: in a list.
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

    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        Some(self.0.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }
}

/// Values as a service has them that decides for itself: read before, of their types.
struct Values<'a> {
    values: Vec<Value<'a>>,
    unit: Option<&'a [u8]>,
}

impl<'a> Values<'a> {
    /// What the first ruleset reads from the request.
    fn new(verified: &VerifiedBundle, request: &'a Headers) -> Result<Self> {
        let ruleset = verified.bundle().rulesets.first().context("no ruleset")?;
        let values =
            (0u16..).zip(&ruleset.attributes).map(|(id, other)| request.value(AttributeId(id), other));
        let unit = ruleset.attributes.get(usize::from(ruleset.unit.0)).context("no unit")?;
        Ok(Self { values: values.collect(), unit: request.attribute(unit) })
    }
}

impl Request for Values<'_> {
    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn value<'a>(&'a self, id: AttributeId, _attribute: &Attribute) -> Value<'a> {
        self.values.get(usize::from(id.0)).copied().unwrap_or(Value::Error(EvalError::Missing))
    }

    fn attribute(&self, _unit: &Attribute) -> Option<&[u8]> {
        self.unit
    }
}

/// What is measured: a ruleset by the name that [`ruleset`] takes, and whether the request's values are ready.
#[derive(Clone, Copy)]
struct Row(&'static str, bool);

impl Row {
    const ALL: [Self; 5] = [
        Self("1-rule", false),
        Self("10-rules", false),
        Self("10-rules", true),
        Self("10-tenants", false),
        Self("10000-tenants", false),
    ];

    fn from(self) -> &'static str {
        if self.1 { "values" } else { "headers" }
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

pub(crate) fn run() -> Result<()> {
    println!("rules: decisions on one core, the best of 50 interleaved runs");
    let counter = count::Counter::find();
    let request = Headers::new();
    println!("  ruleset        from     million/s   ns each   instructions   bundle");
    let mut instructions = Vec::new();
    for row in Row::ALL {
        let Row(name, ready) = row;
        let bytes = bundle(&ruleset(name)?)?;
        let verified = codec::decode(&bytes)?;
        let values = Values::new(&verified, &request)?;
        let [nanoseconds] = if ready {
            best_of([&mut || decide(&verified, &values)])
        } else {
            best_of([&mut || decide(&verified, &request)])
        };
        let counted = counter.as_ref().map(|counter| counter.per_decision(name, ready)).transpose()?;
        let shown = counted.map_or("-".into(), |count| format!("{count:.0}"));
        println!(
            "  {name:<14} {:<8} {:>9.2}  {nanoseconds:>8.0}   {shown:>12}   {} bytes",
            row.from(),
            1_000.0 / nanoseconds,
            bytes.len()
        );
        instructions.push(counted);
    }
    match instructions.as_slice() {
        [_, _, _, Some(few), Some(many)] => {
            println!("  10,000 tenants take {:.2} times the instructions of 10", many / few);
        }
        _ => println!("  instructions are counted by valgrind, which is not installed"),
    }
    peers(&request)?;
    load()
}

fn decide(verified: &VerifiedBundle, request: &impl Request) {
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
    let values = Values::new(&verified, request)?;
    let [ours, ready, closed, interpreted, prepared] = best_of([
        &mut || decide(&verified, request),
        &mut || decide(&verified, &values),
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
    let line = |engine: &str, took: f64, of: f64| {
        println!("  {engine:<34} {took:>7.0} ns   {:>6.2} times", took / of);
    };
    line("halftone", ours, ours);
    line("boxed closures", closed, ours);
    line("cel interpreter", interpreted, ours);
    line("halftone, values ready", ready, ready);
    line("cel interpreter, variables ready", prepared, ready);
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
