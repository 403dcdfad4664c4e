//! What the judge answers, with every number behind it.

use serde::{Deserialize, Serialize};

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// Go on: widen, or make the candidate stable.
    Promote,
    /// Stay as it is.
    Hold,
    /// Return to stable.
    Rollback,
    /// There is too little to say anything.
    InsufficientData,
    /// The data cannot be trusted.
    Invalid,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A guardrail is worse than tolerated.
    Worse,
    /// The policy is wrong.
    Policy,
    /// The input is malformed.
    Input,
    /// Units do not arrive by the configured shares.
    Srm,
    /// More than 1 % of the units were seen in two arms.
    Contamination,
    /// An arm has no data.
    NoData,
    /// The newest data are too old.
    Stale,
    /// There are too few units for the methods that would decide.
    TooFew,
    /// A signal is worse than tolerated.
    Signal,
    /// A guardrail looks worse, though not enough to roll back: no widening.
    Suspect,
    /// All conditions of the step are met.
    Step,
    /// Conditions of the step are not met yet.
    Waiting,
    /// A goal is better.
    Goal,
    /// Everything is non-inferior, which is all the policy asks for.
    NonInferior,
    /// A goal is better, but a guardrail is not known to be non-inferior yet.
    GuardrailInconclusive,
    /// A goal is better, but maybe by less than the MDE.
    NotPractical,
    /// A whole cycle has not passed yet.
    Cycle,
    /// All planned information was used without a result.
    Horizon,
    /// Time ran out without a result.
    Expired,
    /// The MDE is out of reach.
    Futile,
    /// Data are being collected.
    Collecting,
    /// `classic`: significant harm, for a person to review.
    RollbackReview,
    /// `classic`: p and interval contradict each other.
    Contradictory,
    /// `classic`: a candidate whose effect may be below the MDE.
    DegradedToAb,
    /// `classic`: p < .01 and the interval above 0.
    C1,
    /// `classic`: the lower limit above the MDE for several periods.
    C2,
    /// `classic`: a candidate whose evidence went away.
    Withdrawn,
    /// Another candidate of the same release is better.
    Outperformed,
    /// A metric was left out, because it is malformed or missing.
    MetricLeftOut,
    /// The policy changed: the look history starts again with the next epoch.
    PolicyChanged,
}

/// What the verdict asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    None,
    /// The next step of the ramp.
    Widen,
    /// The release becomes `candidate`: it waits for approval, or is approved automatically.
    Candidate,
    /// Return to stable at once.
    Rollback,
    /// Stop and wait for a person.
    Pause,
    /// Keep the share as it is.
    Freeze,
    /// End without a change: keep stable.
    Abort,
    /// A candidate is running again.
    Resume,
}

/// What a test decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// ROLLBACK.
    Kill,
    /// HOLD.
    Signal,
    /// INVALID.
    Srm,
    /// PROMOTE: better.
    Goal,
    /// PROMOTE: not worse.
    NonInferior,
}

/// How it was tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Who has the bad events.
    EventShare,
    /// The rate of treatment alone, against a ceiling.
    Ceiling,
    /// Quantiles of histograms.
    Quantile,
    /// A confidence sequence of a difference of means.
    ConfidenceSequence,
    /// A planned look, by spending.
    GroupSequential,
    /// Dirichlet-multinomial against multinomial.
    DirichletMultinomial,
    /// Two-proportion z test at one look.
    TwoProportions,
    /// Welch's t test at one look.
    Welch,
    /// Stratified z test at one look.
    StratifiedZ,
}

/// One test, with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Name of the metric; `units` for the sample ratio.
    pub metric: String,
    /// What it decides about.
    pub purpose: Purpose,
    /// How.
    pub method: Method,
    /// The quantile, where it is one.
    pub quantile: Option<f64>,
    /// The epoch, where it stands alone.
    pub epoch: Option<String>,
    /// Difference treatment − control (events: rates; latencies: the ratio of the quantiles), in the unit of the metric.
    pub estimate: Option<f64>,
    /// The same relative to control.
    pub relative: Option<f64>,
    /// Lower limit of the estimate.
    pub low: Option<f64>,
    /// Upper limit of the estimate.
    pub high: Option<f64>,
    /// Z, where there is one; above 0 is better.
    pub z: Option<f64>,
    /// ln of the e-value.
    pub ln_e: Option<f64>,
    /// The highest ln of the e-value so far.
    pub highest_ln_e: Option<f64>,
    /// p value: valid at any time where it comes from an e-value.
    pub p: Option<f64>,
    /// What Z or ln E has to reach.
    pub threshold: f64,
    /// The level that the threshold comes from.
    pub alpha: f64,
    /// Whether it was reached.
    pub reached: bool,
    /// Units (events: those with a first bad event) of control or, where all of stable is compared, of all stable.
    pub n_control: u64,
    /// The same of treatment.
    pub n_treatment: u64,
}

impl Test {
    /// The p value for people: `1.20e-5`. The smallest ones are told as what they are below.
    #[must_use]
    pub fn shown_p(&self) -> Option<String> {
        self.p.map(|p| if p < 1e-300 { "< 1e-300".to_owned() } else { format!("{p:.2e}") })
    }

    /// Without numbers yet; the threshold of an e-value at level `alpha`.
    pub(super) fn new(metric: &str, purpose: Purpose, method: Method, alpha: f64) -> Self {
        Self {
            metric: metric.to_owned(),
            purpose,
            method,
            quantile: None,
            epoch: None,
            estimate: None,
            relative: None,
            low: None,
            high: None,
            z: None,
            ln_e: None,
            highest_ln_e: None,
            p: None,
            threshold: -alpha.ln(),
            alpha,
            reached: false,
            n_control: 0,
            n_treatment: 0,
        }
    }
}

/// A reason, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Why.
    pub reason: Reason,
    /// The metric, epoch or field.
    pub subject: Option<String>,
    /// What exactly, for people.
    pub detail: String,
}

/// The answer to one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The verdict.
    pub decision: Decision,
    /// Why; the first cause of `causes`.
    pub reason: Reason,
    /// What it is about.
    pub subject: Option<String>,
    /// What it asks to be done.
    pub action: Action,
    /// All of it in a sentence for people.
    pub sentence: String,
    /// Everything else that holds or is missing.
    pub causes: Vec<Cause>,
    /// All tests that were computed.
    pub tests: Vec<Test>,
    /// Planned looks taken until now.
    pub looks: u32,
    /// Whether this run was one.
    pub look_due: bool,
    /// Share of the planned information that is there.
    pub information: Option<f64>,
    /// What of the goals' level was spent, both sides together.
    pub alpha_spent: Option<f64>,
    /// Seconds until the planned information is expected.
    pub remaining_s: Option<f64>,
    /// Hash of the policy.
    pub policy_hash: String,
    /// What whoever reads the numbers has to know.
    pub warning: Option<String>,
}
