//! The judge: cost per metric and tick, of a new look, and how many releases one core judges in a second.

use anyhow::{Result, anyhow};
use halftone_judge::{
    Judge, Policy, Snapshot, State,
    policy::{Baseline, Effect, Epoch, Gate, Measurement, Metric, MetricKind, Role, Sample, Shares},
    sequential::{Boundary, Spending},
    simulation::Random,
    stats::{ArmUnits, Grid, Histogram, Mean, Proportion},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const RELEASES: u32 = 1_000;
const RUNS: u32 = 5;
const DAY: u64 = 86_400;

/// A release with one metric of each kind, `units` in each arm and nine times as many in the rest of stable.
fn release(units: u64) -> Result<(Judge, Snapshot)> {
    let mut random = Random::new(1);
    let mut histogram = |units: u64| {
        let mut histogram = Histogram { grid: Grid::default(), ..Histogram::default() };
        // Counts of a large sample have the shape of a smaller one.
        let drawn = units.min(20_000);
        (0..drawn).for_each(|_| histogram.push(0.1 * random.lognormal(0.5)));
        histogram.counts.values_mut().for_each(|count| *count *= units / drawn);
        Some(Sample::Histogram(histogram))
    };
    let proportion =
        |units: u64, share: u64| Some(Sample::Proportion(Proportion { n: units, k: units / share }));
    let mean =
        |n: u64| Some(Sample::Mean(Mean { n, mean: 1.0, m2: n as f64, min: 0.0, max: 5.0, rejected: 0 }));
    let rest = 9 * units;
    let measurements = [
        ("errors", proportion(units, 100), proportion(units, 100), proportion(rest, 100)),
        ("latency", histogram(units), histogram(units), histogram(rest)),
        ("conversion", proportion(units, 5), proportion(units, 5), None),
        ("cost", mean(units), mean(units), None),
    ];
    let metrics = measurements
        .map(|(name, control, treatment, rest)| (name.to_owned(), Measurement { control, treatment, rest }));
    let shares = Shares { control: 1.0 / 11.0, treatment: 1.0 / 11.0, rest: 9.0 / 11.0, others: Vec::new() };
    let units = ArmUnits { control: units, treatment: units, rest, ..ArmUnits::default() };
    let epoch = Epoch { id: "1".to_owned(), shares, units, metrics: metrics.into() };
    let snapshot = Snapshot { elapsed_s: DAY, data_age_s: 0, gate: Gate::Final, epochs: vec![epoch] };
    let goal = Metric {
        mde: Some(Effect::Relative(0.02)),
        baseline: Some(Baseline { mean: 0.2, sd: None }),
        ..Metric::new(Role::Goal, MetricKind::Proportion)
    };
    let cost = Metric { cap: Some(5.0), ..Metric::new(Role::Guardrail, MetricKind::Mean) };
    let metrics = [
        ("errors", Metric::new(Role::Guardrail, MetricKind::Event)),
        ("latency", Metric::new(Role::Guardrail, MetricKind::Latency)),
        ("conversion", goal),
        ("cost", cost),
    ];
    let metrics = metrics.map(|(name, metric)| (name.to_owned(), metric)).into();
    let judge =
        Judge::new(Policy { metrics, ..Policy::default() }).map_err(|problems| anyhow!("{problems:?}"))?;
    Ok((judge, snapshot))
}

/// The same release with as many epochs, as a ramp has.
fn repeated(snapshot: &Snapshot, epochs: u32) -> Snapshot {
    let all = snapshot
        .epochs
        .iter()
        .flat_map(|epoch| (1..=epochs).map(|id| Epoch { id: id.to_string(), ..epoch.clone() }));
    Snapshot { epochs: all.collect(), ..snapshot.clone() }
}

/// The best of some runs.
fn best(mut run: impl FnMut()) -> Duration {
    let time = |()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    [(); RUNS as usize].map(time).into_iter().min().unwrap_or_default()
}

/// What one release costs at a tick between two looks, which is what most are.
fn tick(judge: &Judge, snapshot: Snapshot) -> Duration {
    let (_, state) = judge.judge(&snapshot, State::default());
    let tick = Snapshot { elapsed_s: DAY + 1, ..snapshot };
    let all = best(|| {
        for _ in 0..RELEASES {
            black_box(judge.judge(black_box(&tick), state.clone()));
        }
    });
    all / RELEASES
}

pub(crate) fn run() -> Result<()> {
    println!("judge: one core, a release of 4 metrics (errors, latency at 3 quantiles, conversion, cost)");
    for (units, epochs) in [(1_000, 1), (100_000, 1), (10_000_000, 1), (100_000, 6)] {
        let (judge, snapshot) = release(units)?;
        let each = tick(&judge, repeated(&snapshot, epochs)).as_secs_f64();
        println!(
            "  {units:>10} units per arm, {epochs} epochs: {:>7.1} us per metric and tick, {:>6.0} releases per second",
            each * 1e6 / 4.0,
            1.0 / each
        );
    }
    let (judge, snapshot) = release(100_000)?;
    let look = best(|| {
        black_box(judge.judge(black_box(&snapshot), State::default()));
    });
    println!("  a first look with everything: {:.2} ms", look.as_secs_f64() * 1e3);
    for looks in [56u32, 120] {
        let boundary = |looks: u32, of: u32| -> Result<Boundary> {
            let mut boundary = Boundary::new(Spending::default(), 0.01, true)?;
            for look in 1..=looks {
                boundary.look(f64::from(look) / f64::from(of))?;
            }
            Ok(boundary)
        };
        let warm = boundary(looks - 1, looks)?;
        let next = best(|| {
            let _ = black_box(warm.clone().look(1.0));
        });
        let cold = best(|| {
            let _ = black_box(boundary(looks, looks));
        });
        println!(
            "  bound of look {looks}: {:.3} ms when the last one is in memory, {:.1} ms from the stored times",
            next.as_secs_f64() * 1e3,
            cold.as_secs_f64() * 1e3
        );
    }
    Ok(())
}
