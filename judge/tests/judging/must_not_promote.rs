//! Cases that other judges pass.

use crate::common::*;
use halftone_judge::{
    Policy,
    policy::{Decision, Measurement, Metric, StepConditions},
    sequential::EventShare,
    stats::ArmUnits,
};
use serde_json::Value;

/// A release in which everything else is as good as it gets.
fn with(
    name: &str,
    metric: Metric,
    units: u64,
    measurement: Measurement,
) -> (Policy, halftone_judge::Snapshot) {
    let mut policy = policy(&[("conversion", goal()), ("errors", errors()), ("latency", latency())]);
    policy.metrics.insert(name.to_owned(), metric);
    let mut epoch = epoch(
        20_000,
        vec![
            ("conversion", measured(proportion(20_000, 4_000), proportion(20_000, 4_800))),
            ("errors", measured(proportion(20_000, 400), proportion(20_000, 400))),
            ("latency", measured(latencies(20_000, 0.1), latencies(20_000, 0.1))),
        ],
    );
    epoch.metrics.insert(name.to_owned(), measurement);
    if units < 20_000 {
        epoch.units = ArmUnits { control: units, treatment: units, ..ArmUnits::default() };
    }
    (policy, snapshot(3 * DAY, vec![epoch]))
}

fn refused(name: &str, metric: Metric, units: u64, measurement: Measurement) {
    let (policy, at) = with(name, metric, units, measurement);
    for gate in [at.clone(), at_step(at, StepConditions::default())] {
        let verdict = judge(&policy, &gate);
        assert_ne!(verdict.decision, Decision::Promote, "{name}: {}", verdict.sentence);
    }
}

#[test]
fn everything_else_is_as_good_as_it_gets() {
    let (policy, at) =
        with("other", errors(), 20_000, measured(proportion(20_000, 400), proportion(20_000, 400)));
    assert_eq!(judge(&policy, &at).decision, Decision::Promote);
    assert_eq!(judge(&policy, &at_step(at, StepConditions::default())).decision, Decision::Promote);
}

fn kayenta(name: &str) -> (Vec<f64>, Vec<f64>) {
    let vectors: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    let row = vectors.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    let arm = |key: &str| row["input"][key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(row["expected"]["verdict"], "Pass", "that is what it is about");
    (arm("control"), arm("treatment"))
}

#[test]
fn sparse_errors_against_none() {
    let (control, treatment) = kayenta("kayenta_blind_spot_sparse_errors");
    let count = |values: &[f64]| values.iter().sum::<f64>() as u64;
    let metric = measured(proportion(600, count(&control)), proportion(600, count(&treatment)));
    refused("errors", errors(), 20_000, metric);
}

#[test]
fn seven_of_ten_points_a_hundred_times_as_high() {
    let (control, treatment) = kayenta("kayenta_blind_spot_7_of_10_points_x100");
    refused("latency", latency(), 10, measured(histogram(control), histogram(treatment)));
}

#[test]
fn a_change_of_shape() {
    let (control, treatment) = kayenta("kayenta_blind_spot_shape_change");
    refused("latency", latency(), 15, measured(histogram(control), histogram(treatment)));
}

#[test]
fn no_data_stale_data_and_missing_values() {
    refused("errors", errors(), 20_000, measured(None, None));
    refused("errors", errors(), 20_000, measured(proportion(20_000, 400), None));
    refused("errors", errors(), 20_000, measured(proportion(0, 0), proportion(0, 0)));
    refused("latency", latency(), 20_000, measured(histogram([]), histogram([])));
    refused("latency", latency(), 20_000, measured(latencies(20_000, 0.1), histogram([f64::NAN; 20_000])));
    let (policy, mut at) = with("other", errors(), 20_000, measured(proportion(9, 4), proportion(9, 4)));
    at.data_age_s = 10_000;
    assert_eq!(judge(&policy, &at).decision, Decision::InsufficientData);
}

/// Ten requests, one failure: a huge percentage, and no evidence.
#[test]
fn one_failure_at_low_traffic_neither_passes_nor_fails() {
    let (policy, at) = with("errors", errors(), 20_000, measured(proportion(10, 0), proportion(10, 1)));
    assert_eq!(judge(&policy, &at).decision, Decision::Hold);
}

/// gbstats 0.8.0 says p = 1 for 0 of 1000 against 50 of 1000.
#[test]
fn zero_in_control_is_data() {
    let (policy, at) =
        with("errors", errors(), 20_000, measured(proportion(1_000, 0), proportion(1_000, 50)));
    assert_eq!(judge(&policy, &at).decision, Decision::Rollback);
    assert!(EventShare::new(0.5, 0.0, 1.0).unwrap().ln_e_worse(50, 50).unwrap() > 30.0);
}
