//! Two arms as CSV, a row per unit.

use anyhow::{Context, Result, bail};
use halftone_judge::{
    Policy, Snapshot,
    policy::{Epoch, Gate, Measurement, Metric, MetricKind, Sample, Shares},
    stats::{ArmUnits, Grid, Histogram, Mean, Proportion},
};
use std::collections::BTreeMap;

/// Values of a metric in one arm.
#[derive(Default)]
struct Column {
    values: Vec<f64>,
}

impl Column {
    fn sample(&self, metric: &Metric) -> Result<Sample> {
        Ok(match metric.kind {
            MetricKind::Event | MetricKind::Proportion => {
                let mut arm = Proportion::default();
                for value in &self.values {
                    arm.n += 1;
                    match value {
                        1.0 => arm.k += 1,
                        0.0 => {}
                        other => bail!("{other} is neither 0 nor 1"),
                    }
                }
                Sample::Proportion(arm)
            }
            MetricKind::Latency => Sample::Histogram(Histogram::of(Grid::default(), &self.values)),
            MetricKind::Mean => {
                let capped = self.values.iter().map(|value| metric.cap.map_or(*value, |cap| value.min(cap)));
                Sample::Mean(Mean::of(&capped.collect::<Vec<_>>()))
            }
            MetricKind::Cuped | MetricKind::Ratio => {
                bail!("pairs of values do not fit into a column: give JSON")
            }
        })
    }
}

/// A snapshot of two arms, at the last gate.
pub(super) fn snapshot(policy: &Policy, bytes: &[u8], elapsed_s: u64, share: f64) -> Result<Snapshot> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().context("there is no first row with names")?.clone();
    let Some(arm_at) = header.iter().position(|name| name == "arm") else {
        bail!("no column is called `arm`");
    };
    let mut columns: Vec<Option<(&str, &Metric, [Column; 2])>> = Vec::new();
    for name in &header {
        let metric = policy.metrics.get(name).map(|metric| (name, metric, <[Column; 2]>::default()));
        if metric.is_none() && name != "arm" {
            bail!("the policy has no metric `{name}`");
        }
        columns.push(metric);
    }
    let mut units = [0u64; 2];
    for record in reader.records() {
        let record = record?;
        let line = record.position().map(csv::Position::line).unwrap_or_default();
        let arm = match record.get(arm_at) {
            Some("control") => 0,
            Some("treatment") => 1,
            other => {
                bail!("line {line}: the arm is `{}`, not control or treatment", other.unwrap_or_default())
            }
        };
        if let Some(units) = units.get_mut(arm) {
            *units += 1;
        }
        for (column, cell) in columns.iter_mut().zip(&record) {
            let Some((name, _, arms)) = column else { continue };
            if cell.trim().is_empty() {
                continue;
            }
            let value: f64 = cell
                .trim()
                .parse()
                .with_context(|| format!("line {line}: `{cell}` in {name} is no number"))?;
            if let Some(arm) = arms.get_mut(arm) {
                arm.values.push(value);
            }
        }
    }
    let mut metrics = BTreeMap::new();
    for (name, metric, [control, treatment]) in columns.iter().flatten() {
        let of = |arm: &Column| arm.sample(metric).with_context(|| format!("column {name}")).map(Some);
        metrics.insert(
            (*name).to_owned(),
            Measurement { control: of(control)?, treatment: of(treatment)?, rest: None },
        );
    }
    let [control, treatment] = units;
    let epoch = Epoch {
        id: "csv".to_owned(),
        shares: Shares { control: 1.0 - share, treatment: share, ..Shares::default() },
        units: ArmUnits { control, treatment, ..ArmUnits::default() },
        metrics,
    };
    Ok(Snapshot { elapsed_s, data_age_s: 0, gate: Gate::Final, epochs: vec![epoch] })
}
