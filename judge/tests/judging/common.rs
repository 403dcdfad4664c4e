//! Releases to judge.

use halftone_judge::{
    Judge, Policy, Snapshot, State, Verdict,
    policy::{
        Baseline, Effect, Epoch, Gate, Measurement, Metric, MetricKind, Role, Sample, Shares, StepConditions,
    },
    stats::{ArmUnits, Grid, Histogram, Mean, Proportion},
};

pub(crate) const HOUR: u64 = 3_600;
pub(crate) const DAY: u64 = 24 * HOUR;

pub(crate) fn proportion(n: u64, k: u64) -> Option<Sample> {
    Some(Sample::Proportion(Proportion { n, k }))
}

/// A mean of values between 0 and 2 with standard deviation `sd`.
pub(crate) fn mean(n: u64, mean: f64, sd: f64) -> Option<Sample> {
    let m2 = sd * sd * (n.max(1) - 1) as f64;
    Some(Sample::Mean(Mean { n, mean, m2, min: 0.0, max: 2.0, rejected: 0 }))
}

pub(crate) fn histogram(values: impl IntoIterator<Item = f64>) -> Option<Sample> {
    Some(Sample::Histogram(Histogram::of(Grid::default(), &values.into_iter().collect::<Vec<_>>())))
}

/// `n` latencies spread around `median` as evenly as a lognormal's quantiles are.
pub(crate) fn latencies(n: u32, median: f64) -> Option<Sample> {
    histogram((0..n).map(|i| {
        let share = (f64::from(i) + 0.5) / f64::from(n);
        median * (0.5 * -halftone_judge::special::normal::upper_quantile(share).unwrap()).exp()
    }))
}

pub(crate) fn measured(control: Option<Sample>, treatment: Option<Sample>) -> Measurement {
    Measurement { control, treatment, rest: None }
}

pub(crate) fn goal() -> Metric {
    let mde = Some(Effect::Relative(0.05));
    let baseline = Some(Baseline { mean: 0.2, sd: None });
    Metric { mde, baseline, ..Metric::new(Role::Goal, MetricKind::Proportion) }
}

pub(crate) fn errors() -> Metric {
    Metric::new(Role::Guardrail, MetricKind::Event)
}

pub(crate) fn latency() -> Metric {
    Metric::new(Role::Guardrail, MetricKind::Latency)
}

pub(crate) fn policy(metrics: &[(&str, Metric)]) -> Policy {
    let metrics = metrics.iter().map(|(name, metric)| ((*name).to_owned(), metric.clone())).collect();
    Policy { metrics, ..Policy::default() }
}

/// An epoch at 50/50 with as many units as told.
pub(crate) fn epoch(units: u64, metrics: Vec<(&str, Measurement)>) -> Epoch {
    Epoch {
        id: "1".to_owned(),
        shares: Shares { control: 0.5, treatment: 0.5, ..Shares::default() },
        units: ArmUnits { control: units, treatment: units, ..ArmUnits::default() },
        metrics: metrics.into_iter().map(|(name, metric)| (name.to_owned(), metric)).collect(),
    }
}

pub(crate) fn snapshot(elapsed_s: u64, epochs: Vec<Epoch>) -> Snapshot {
    Snapshot { elapsed_s, data_age_s: 0, gate: Gate::Final, epochs }
}

pub(crate) fn at_step(mut snapshot: Snapshot, conditions: StepConditions) -> Snapshot {
    snapshot.gate = Gate::Step(conditions);
    snapshot
}

/// A first run.
pub(crate) fn judge(policy: &Policy, snapshot: &Snapshot) -> Verdict {
    Judge::new(policy.clone()).unwrap().judge(snapshot, State::default()).0
}
