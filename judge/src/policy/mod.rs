//! From statistics and a policy to a verdict.

mod candidates;
mod classic;
mod config;
mod evidence;
mod goal;
mod run;
mod sentence;
mod sequential;
mod snapshot;
mod state;
mod stratified;
mod verdict;

pub use candidates::choose;
pub use config::{
    Baseline, ClassicSettings, Effect, Horizon, KillBaseline, Levels, Metric, MetricKind, Policy, PolicyKind,
    Problem, PromoteWhen, Role, Seconds,
};
pub use goal::planned_inflation;
pub use snapshot::{Epoch, Gate, Measurement, Sample, Shares, Snapshot, StepConditions};
pub use state::{GoalState, Looks, State, Status};
pub use verdict::{Action, Cause, Decision, Method, Purpose, Reason, Test, Verdict};

pub(crate) use run::C_SRM;
use run::Run;

/// A policy that was checked, ready to judge.
#[derive(Clone, Debug)]
pub struct Judge {
    policy: Policy,
    hash: String,
    /// `classic` with a declared minimum: how often it promotes a version that is no better.
    false_promotion: Option<f64>,
}

impl Judge {
    /// # Errors
    /// With everything that is wrong with the policy.
    pub fn new(policy: Policy) -> Result<Self, Vec<Problem>> {
        let problems = policy.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let hash = policy.hash();
        let false_promotion = classic::declared_false_promotion(&policy);
        Ok(Self { policy, hash, false_promotion })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its hash, as verdicts name it.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Judges a release at one moment: a pure function. `state` is what the last run returned, or empty at the first; it
    /// has to be stored with the verdict. The same policy, snapshot and state give the same bytes.
    ///
    /// Whatever the input is, there is a verdict.
    #[must_use]
    pub fn judge(&self, snapshot: &Snapshot, state: State) -> (Verdict, State) {
        let mut run = Run::new(&self.policy, &self.hash, snapshot, state);
        run.false_promotion = self.false_promotion;
        if let Some(detail) = run.malformed() {
            let main = Cause { reason: Reason::Input, subject: None, detail };
            return run.verdict(Decision::Invalid, Action::Pause, main);
        }
        run.notice_policy();
        run.leave_out_malformed();
        let worse = if self.policy.kill { run.worse(Role::Guardrail) } else { Vec::new() };
        if run.left_out.len() == self.policy.metrics.len() {
            let detail = "all metrics are malformed".to_owned();
            let main = Cause { reason: Reason::Input, subject: None, detail };
            return run.verdict(Decision::Invalid, Action::Pause, main);
        }
        let mismatch = run.mismatch();
        match self.policy.policy {
            PolicyKind::Sequential => run.sequential(&worse, mismatch),
            PolicyKind::Classic => run.classic(&worse, mismatch),
        }
    }
}
