//! What it costs to look at outputs, to hand over what was seen, and to gather it: in one thread, the best of many runs.

use anyhow::{Context, Result};
use halftone_inference::{
    checks::{Checks, ChecksConfig, Findings, hash, numbers},
    datatype::Elements,
    observations::{
        aggregator::Aggregator,
        handover::handover,
        record::{End, Record},
    },
    signature::Signature,
};
use halftone_telemetry::{
    context::{RequestContext, Served},
    outcome::Outcome,
};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs of each.
const RUNS: u32 = 50;
/// Inferences that are handed over in one run; as many as are told one by one in an interval.
const INFERENCES: u32 = 512;

fn best(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..RUNS).map(time).min().unwrap_or_default()
}

/// `context`: the header of a unit in an arm.
pub(super) fn run(context: &str) -> Result<()> {
    let values: Vec<f32> = (0..1_u32 << 18).map(|i| (i % 1000) as f32 / 1000.0).collect();
    let elements = || Elements::Float32(&values);
    println!("inference: looking at outputs, nanoseconds per KiB of FP32 of 1 MiB, best of {RUNS}");
    for (name, time) in [
        ("NaN and infinities", best(|| _ = black_box(numbers::any_not_finite(black_box(&elements()))))),
        ("range", best(|| _ = black_box(numbers::any_outside(black_box(&elements()), &(0.0..=1.0))))),
        ("hash", best(|| _ = black_box(hash::of([black_box(elements())])))),
    ] {
        println!("  {name:<28} {:>7.1}", time.as_secs_f64() * 1e9 / 1024.0);
    }
    let ten = values.get(..10).context("too few values")?;
    let small = best(|| {
        for _ in 0..1000 {
            let elements = black_box(Elements::Float32(ten));
            black_box(numbers::any_not_finite(&elements));
            black_box(hash::of([elements, Elements::Int64(&[7])]));
        }
    });
    println!("  a digit's outputs, NaN and hash: {:.0} ns", small.as_secs_f64() * 1e6);
    println!("inference: one inference, best of {RUNS} runs");
    handed_over(context, "not sampled", "00")?;
    handed_over(context, "of a sampled trace, the most of an interval", "01")
}

fn handed_over(context: &str, what: &str, flags: &str) -> Result<()> {
    let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let checks = Checks::new(&ChecksConfig::default(), &signature).map_err(anyhow::Error::msg)?;
    let (checks, mut aggregator) = (Arc::new(checks), Aggregator::default());
    let traceparent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
    let headers = [("x-halftone-context", context), ("traceparent", &traceparent)];
    let headers = headers.into_iter().map(|(name, value)| Ok((name.parse()?, value.parse()?)));
    let headers = headers.collect::<Result<_>>()?;
    let context = Arc::new(RequestContext::read(&headers));
    context.serve(Served { model: "digits".into(), version: "2".into(), hardware: "cpu" });
    context.begin_inference().end(Outcome::Ok);
    let (outbox, mut inbox) = handover();
    let (mut put, mut taken) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let begun = Instant::now();
        for _ in 0..INFERENCES {
            let (context, checks) = (Arc::clone(&context), Arc::clone(&checks));
            let findings = Findings { nan: Some(false), ..Findings::default() };
            outbox.put(Record { context, begun_ms: 1, answer: None, checks, end: End::Answered, findings });
        }
        put = put.min(begun.elapsed());
        let begun = Instant::now();
        while let Some(record) = inbox.take() {
            aggregator.take(&record);
        }
        taken = taken.min(begun.elapsed());
        aggregator.begin();
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(INFERENCES);
    println!("  {what}");
    println!("    handed over, in the request  {:>7.0} ns", each(put));
    println!("    gathered, behind it          {:>7.0} ns", each(taken));
    Ok(())
}
