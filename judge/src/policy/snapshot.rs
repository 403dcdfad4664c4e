//! What is known of a release at one moment.

use super::config::Seconds;
use crate::stats::{ArmUnits, Histogram, Mean, Pair, Proportion, UnitBuckets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A metric's statistic in one arm and epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sample {
    /// Units, and those with the event.
    Proportion(Proportion),
    /// A mean.
    Mean(Mean),
    /// Pairs.
    Pair(Pair),
    /// A histogram.
    Histogram(Histogram),
    /// Unit buckets.
    Buckets(UnitBuckets),
}

impl Sample {
    /// Whether it holds at least one usable value.
    pub(crate) fn has_values(&self) -> bool {
        match self {
            Self::Proportion(arm) => arm.n > 0,
            Self::Mean(arm) => arm.n > 0,
            Self::Pair(arm) => arm.n > 0,
            // A total beyond 64 bits is malformed, and told as that.
            Self::Histogram(arm) => arm.total().map_or(true, |total| total > 0),
            Self::Buckets(arm) => arm.filled() > 0,
        }
    }
}

/// A metric in all arms of one epoch. An arm without a sample has not reported: that is no 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The concurrent control.
    #[serde(default)]
    pub control: Option<Sample>,
    /// The candidate.
    #[serde(default)]
    pub treatment: Option<Sample>,
    /// The rest of stable.
    #[serde(default)]
    pub rest: Option<Sample>,
}

/// Configured shares of the eligible units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Of the concurrent control.
    pub control: f64,
    /// Of the candidate.
    pub treatment: f64,
    /// Of the rest of stable; 0 when its exposures are not observed.
    #[serde(default)]
    pub rest: f64,
    /// Of other candidates.
    #[serde(default)]
    pub others: Vec<f64>,
}

impl Shares {
    /// In the order of [`ArmUnits::cells`].
    pub(crate) fn cells(&self) -> Vec<f64> {
        [self.control, self.treatment, self.rest].into_iter().chain(self.others.iter().copied()).collect()
    }
}

/// An interval in which the allocation did not change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Its name; names of a release differ.
    pub id: String,
    /// Configured shares.
    pub shares: Shares,
    /// Distinct units that were exposed.
    pub units: ArmUnits,
    /// Statistics by metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, Measurement>,
}

/// What has to hold before the next step of the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepConditions {
    /// Time since the step began.
    pub elapsed_s: Seconds,
    /// Time that has to pass.
    pub least_s: Seconds,
    /// Units that each arm of the epoch has to have.
    pub least_units: u64,
    /// Whether a person approved; `None` when none has to.
    pub approved: Option<bool>,
}

impl Default for StepConditions {
    fn default() -> Self {
        Self { elapsed_s: 0, least_s: 0, least_units: 100, approved: None }
    }
}

/// What a PROMOTE would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Go on to the next step of the ramp.
    Step(StepConditions),
    /// Make the candidate stable.
    Final,
}

/// What is known of a release at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Time since the first exposure.
    pub elapsed_s: Seconds,
    /// Age of the newest observation.
    #[serde(default)]
    pub data_age_s: Seconds,
    /// What a PROMOTE would do.
    pub gate: Gate,
    /// Epochs, from the first to the current one.
    pub epochs: Vec<Epoch>,
}
