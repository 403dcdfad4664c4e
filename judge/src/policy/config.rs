//! What a release wants judged, and how.

use super::state::MOST_LOOKS;
use crate::{fixed::Better, sequential::Spending};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Seconds. Times are counted from the first exposure of the release; the judge has no clock.
pub type Seconds = u64;

const HOUR: Seconds = 3_600;
const DAY: Seconds = 24 * HOUR;

/// Which rules lead to a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// Valid however often one looks.
    #[default]
    Sequential,
    /// p < .01 with a confidence interval above 0, every six hours; not valid under repeated looks.
    Classic,
}

/// Levels: how often each kind of wrong verdict may happen at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Levels {
    /// PROMOTE of a version that is no better; two-sided, shared by all goals and candidates.
    pub promote: f64,
    /// ROLLBACK of a version that is not worse; shared by all kill tests.
    pub kill: f64,
    /// HOLD for a signal that is not worse; shared by all signals.
    pub signal: f64,
    /// Calling a guardrail non-inferior that is not; one-sided, for each guardrail.
    pub non_inferior: f64,
    /// INVALID for a sound sample ratio.
    pub srm: f64,
    /// Not widening for a guardrail that is not worse; for each kill test.
    pub suspect: f64,
}

impl Default for Levels {
    fn default() -> Self {
        Self { promote: 0.01, kill: 0.01, signal: 0.05, non_inferior: 0.05, srm: 0.001, suspect: 0.2 }
    }
}

/// Whom the kill tests compare the candidate with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillBaseline {
    /// All units of stable: faster, as there are more of them.
    #[default]
    AllStable,
    /// Only the concurrent control.
    Control,
}

/// What the goals have to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromoteWhen {
    /// One of them is better, and none is worse.
    #[default]
    Superior,
    /// All of them are at most their margins worse.
    NonInferior,
}

/// Whether it is known beforehand how much data there will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Horizon {
    /// Group-sequential looks towards the planned information: more power.
    #[default]
    Known,
    /// A confidence sequence, which has no end.
    Unknown,
}

/// Settings of the policy `classic`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassicSettings {
    /// p has to be below.
    pub p: f64,
    /// 1 less the confidence of the interval.
    pub alpha: f64,
    /// Periods in a row with the lower limit above the MDE.
    pub periods: u32,
    /// The minimum duration; computed from the plan when left out.
    pub minimum_s: Option<Seconds>,
    /// When it ends without a result; three times the minimum when left out.
    pub maximum_s: Option<Seconds>,
    /// Roll back at significant harm instead of pausing for a review.
    pub rollback_on_harm: bool,
}

impl Default for ClassicSettings {
    fn default() -> Self {
        let (minimum_s, maximum_s) = (None, None);
        Self { p: 0.01, alpha: 0.05, periods: 3, minimum_s, maximum_s, rollback_on_harm: false }
    }
}

/// What a metric is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The change is made for it.
    Goal,
    /// Worse: roll back. Has to be non-inferior before the change is promoted.
    Guardrail,
    /// Worse: hold.
    Signal,
}

/// What a metric's values are, and with it the tests that apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// A bad event of a unit: error, timeout, NaN output, SLO miss. Data: units, and those with a first bad event.
    Event,
    /// A latency per unit. Data: histogram.
    Latency,
    /// Yes or no per unit: conversion. Data: units, and those with a yes.
    Proportion,
    /// A number per unit. Data: mean.
    Mean,
    /// A number per unit, with a covariate from before the exposure (CUPED). Data: pairs (covariate, value).
    Cuped,
    /// Numerator over denominator. Data: pairs (denominator, numerator) of units, or unit buckets.
    Ratio,
}

/// A difference that matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// As a share of the baseline's absolute value.
    Relative(f64),
    /// In the unit of the metric.
    Absolute(f64),
}

impl Effect {
    /// In the unit of the metric.
    #[must_use]
    pub fn absolute(self, baseline: f64) -> f64 {
        match self {
            Self::Relative(share) => share * baseline.abs(),
            Self::Absolute(value) => value,
        }
    }

    pub(crate) fn size(self) -> f64 {
        match self {
            Self::Relative(size) | Self::Absolute(size) => size,
        }
    }
}

/// What the metric was before the release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Mean, or proportion.
    pub mean: f64,
    /// Standard deviation of one unit; √(p(1 − p)) for proportions when left out.
    #[serde(default)]
    pub sd: Option<f64>,
}

/// How a metric is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What it is for.
    pub role: Role,
    /// What its values are.
    pub kind: MetricKind,
    /// Which way is good; events and latencies are better lower whatever is said here.
    #[serde(default)]
    pub better: Better,
    /// Kill and signal: only what is worse by more than this ratio. Events 0, latency .1, means 0.
    #[serde(default)]
    pub tolerance: Option<f64>,
    /// Non-inferior: at most this ratio worse. Events .5, latency .1, means .02.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Events: an absolute rate that is acceptable, and above which it is not.
    #[serde(default)]
    pub ceiling: Option<f64>,
    /// Latency: quantiles of the kill tests. p50, p95 and p99.
    #[serde(default)]
    pub quantiles: Option<Vec<f64>>,
    /// Latency: quantiles that have to be non-inferior. p50 and p95.
    #[serde(default)]
    pub promote_quantiles: Option<Vec<f64>>,
    /// Goals: the least effect worth finding.
    #[serde(default)]
    pub mde: Option<Effect>,
    /// Goals: the metric before the release. Measured on control at the first look when left out.
    #[serde(default)]
    pub baseline: Option<Baseline>,
    /// Means: the value at which the data are winsorised, fixed before the start (the baseline's p99).
    #[serde(default)]
    pub cap: Option<f64>,
    /// Means: the data are logarithms.
    #[serde(default)]
    pub log: bool,
    /// How long after its exposure a unit's value is complete.
    #[serde(default)]
    pub window_s: Seconds,
}

impl Metric {
    /// A metric with the defaults of its kind.
    #[must_use]
    pub fn new(role: Role, kind: MetricKind) -> Self {
        Self {
            role,
            kind,
            better: Better::Higher,
            tolerance: None,
            margin: None,
            ceiling: None,
            quantiles: None,
            promote_quantiles: None,
            mde: None,
            baseline: None,
            cap: None,
            log: false,
            window_s: 0,
        }
    }

    /// Which way is good.
    #[must_use]
    pub fn better(&self) -> Better {
        match self.kind {
            MetricKind::Event | MetricKind::Latency => Better::Lower,
            _ => self.better,
        }
    }

    pub(crate) fn tolerance(&self) -> f64 {
        self.tolerance.unwrap_or(if self.kind == MetricKind::Latency { 0.1 } else { 0.0 })
    }

    pub(crate) fn margin(&self) -> f64 {
        self.margin.unwrap_or(match self.kind {
            MetricKind::Event => 0.5,
            MetricKind::Latency => 0.1,
            _ => 0.02,
        })
    }

    pub(crate) fn quantiles(&self) -> &[f64] {
        self.quantiles.as_deref().unwrap_or(&[0.5, 0.95, 0.99])
    }

    pub(crate) fn promote_quantiles(&self) -> &[f64] {
        self.promote_quantiles.as_deref().unwrap_or(&[0.5, 0.95])
    }

    /// Tests that can find it worse.
    pub(crate) fn tests(&self) -> usize {
        match self.kind {
            MetricKind::Latency => self.quantiles().len(),
            MetricKind::Event => 1 + usize::from(self.ceiling.is_some()),
            _ => 1,
        }
    }
}

/// A decision policy. Everything has a default but the metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The rules.
    pub policy: PolicyKind,
    /// Levels.
    pub alpha: Levels,
    /// Power of the plan at the MDE.
    pub power: f64,
    /// How the level of the goals is spent over the looks.
    pub spending: Spending,
    /// Time between planned looks.
    pub look_every_s: Seconds,
    /// Planned looks at most.
    pub most_looks: u32,
    /// Whether it is known how much data there will be.
    pub horizon: Horizon,
    /// Units at which the confidence sequence is narrowest; the planned ones, or 5000, when left out.
    pub n_star: Option<f64>,
    /// How long the plan takes; measured at the first look when left out.
    pub planned_s: Option<Seconds>,
    /// What the goals have to show.
    pub promote_when: PromoteWhen,
    /// Whether the effect has to be above the MDE for sure, and not just above 0.
    pub require_practical: bool,
    /// A whole number of these has to pass before promotion: a day, or a week where days of the week differ.
    pub cycle_s: Seconds,
    /// Time at the start of a target that is left out.
    pub warm_up_s: Seconds,
    /// Age of the newest observation from which data are stale.
    pub stale_after_s: Seconds,
    /// How long to wait for data before a person has to look.
    pub data_deadline_s: Seconds,
    /// Planned steps of the ramp, among which the level of tests per epoch is shared.
    pub steps: u32,
    /// Candidates that are compared with the same control at the same time.
    pub candidates: u32,
    /// Whether the kill tests run. Only an explicit `false` turns them off.
    pub kill: bool,
    /// Whom they compare with.
    pub kill_baseline: KillBaseline,
    /// Settings of `classic`.
    pub classic: ClassicSettings,
    /// The metrics, by name.
    pub metrics: BTreeMap<String, Metric>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            policy: PolicyKind::Sequential,
            alpha: Levels::default(),
            power: 0.8,
            spending: Spending::default(),
            look_every_s: 6 * HOUR,
            most_looks: 120,
            horizon: Horizon::Known,
            n_star: None,
            planned_s: None,
            promote_when: PromoteWhen::Superior,
            require_practical: false,
            cycle_s: DAY,
            warm_up_s: 0,
            stale_after_s: 900,
            data_deadline_s: DAY,
            steps: 5,
            candidates: 1,
            kill: true,
            kill_baseline: KillBaseline::AllStable,
            classic: ClassicSettings::default(),
            metrics: BTreeMap::new(),
        }
    }
}

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The field, as a path with dots: `metrics.errors.margin`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Policy {
    /// 128 bits of its canonical JSON, in hexadecimal: what a verdict names as its policy.
    #[must_use]
    pub fn hash(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        format!("{:032x}", xxh3_128(&bytes))
    }

    /// Names of the metrics with a role.
    pub(crate) fn with_role(&self, role: Role) -> impl Iterator<Item = (&String, &Metric)> {
        self.metrics.iter().filter(move |(_, metric)| metric.role == role)
    }

    /// Everything that is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        let levels = &self.alpha;
        for (field, level) in [
            ("alpha.promote", levels.promote),
            ("alpha.kill", levels.kill),
            ("alpha.signal", levels.signal),
            ("alpha.non_inferior", levels.non_inferior),
            ("alpha.srm", levels.srm),
            ("alpha.suspect", levels.suspect),
            ("classic.p", self.classic.p),
            ("classic.alpha", self.classic.alpha),
        ] {
            problems.unless((1e-12..=0.5).contains(&level), field, "give a level from 1e-12 to 0.5");
        }
        problems.unless((0.5..=0.999).contains(&self.power), "power", "give a power from 0.5 to 0.999");
        if let Spending::Power(phi) = self.spending {
            problems.unless((0.1..=10.0).contains(&phi), "spending.power", "give an exponent from 0.1 to 10");
        }
        for (field, seconds) in [("look_every_s", self.look_every_s), ("cycle_s", self.cycle_s)] {
            problems.unless((1..=365 * DAY).contains(&seconds), field, "give seconds from 1 to a year");
        }
        problems.unless((1..=MOST_LOOKS).contains(&self.most_looks), "most_looks", "give 1 to 1000 looks");
        problems.unless((1..=1_000).contains(&self.steps), "steps", "give 1 to 1000 steps");
        problems.unless((1..=100).contains(&self.candidates), "candidates", "give 1 to 100 candidates");
        problems.unless(self.n_star.is_none_or(is_positive), "n_star", "give a number of units above 0");
        problems.unless(self.classic.periods > 0, "classic.periods", "give at least one period");
        problems.unless(!self.metrics.is_empty(), "metrics", "name at least one metric");
        problems.unless(
            self.with_role(Role::Signal).count() < self.metrics.len(),
            "metrics",
            "signals alone can promote nothing: name a goal or a guardrail",
        );
        if self.policy == PolicyKind::Classic {
            let goals = self.with_role(Role::Goal).count();
            problems.unless(goals > 0, "metrics", "the policy classic needs a goal");
        }
        for (name, metric) in &self.metrics {
            self.check_metric(name, metric, &mut problems);
        }
        problems.0
    }

    fn check_metric(&self, name: &str, metric: &Metric, problems: &mut Problems) {
        let field = |field: &str| format!("metrics.{name}.{field}");
        let within = |value: Option<f64>, most: f64| value.is_none_or(|value| (0.0..=most).contains(&value));
        problems.unless(within(metric.tolerance, 100.0), &field("tolerance"), "give a ratio from 0 to 100");
        problems.unless(
            within(metric.margin, 100.0) && metric.margin != Some(0.0),
            &field("margin"),
            "give a ratio above 0, up to 100: nothing is ever shown to be not worse at all",
        );
        problems.unless(
            metric.ceiling.is_none_or(|ceiling| (1e-9..1.0).contains(&ceiling)),
            &field("ceiling"),
            "give a rate between 0 and 1",
        );
        problems.unless(
            metric.ceiling.is_none() || metric.kind == MetricKind::Event,
            &field("ceiling"),
            "only events have a ceiling: count what is too slow as an event",
        );
        for (list, quantiles) in
            [("quantiles", &metric.quantiles), ("promote_quantiles", &metric.promote_quantiles)]
        {
            let sound = quantiles.as_ref().is_none_or(|quantiles| {
                (1..=10).contains(&quantiles.len()) && quantiles.iter().all(|q| (0.001..=0.9999).contains(q))
            });
            problems.unless(sound, &field(list), "give 1 to 10 quantiles from 0.001 to 0.9999");
        }
        problems.unless(metric.cap.is_none_or(f64::is_finite), &field("cap"), "give a finite number");
        let goal = metric.role == Role::Goal;
        problems.unless(
            metric.mde.is_none_or(|mde| is_positive(mde.size())),
            &field("mde"),
            "give an effect above 0",
        );
        let planned = self.policy == PolicyKind::Classic
            || (self.horizon == Horizon::Known && self.promote_when == PromoteWhen::Superior);
        problems.unless(
            !(goal && planned && metric.mde.is_none()),
            &field("mde"),
            "a goal needs the least effect worth finding, or `horizon: unknown`",
        );
        problems.unless(
            !(goal && matches!(metric.kind, MetricKind::Event | MetricKind::Latency)),
            &field("role"),
            "events and latencies are guardrails or signals: as a goal, give a proportion or a mean that is better lower",
        );
        problems.unless(
            metric.baseline.is_none_or(|baseline| {
                baseline.mean.is_finite()
                    && baseline.sd.is_none_or(is_positive)
                    && (baseline.sd.is_some()
                        || (metric.kind == MetricKind::Proportion && (0.0..=1.0).contains(&baseline.mean)))
            }),
            &field("baseline"),
            "give a mean and a standard deviation above 0; proportions need only a mean between 0 and 1",
        );
    }
}

fn is_positive(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

struct Problems(Vec<Problem>);

impl Problems {
    fn unless(&mut self, sound: bool, field: &str, message: &str) {
        if !sound {
            self.0.push(Problem { field: field.to_owned(), message: message.to_owned() });
        }
    }
}
