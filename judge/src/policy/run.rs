//! One run: what all policies share.

use super::{
    config::{MetricKind, Policy, Role, Seconds},
    evidence::{Spend, Subject},
    snapshot::Snapshot,
    state::State,
    verdict::{Action, Cause, Decision, Method, Purpose, Reason, Test, Verdict},
};
use crate::sequential::{p_of, srm_ln_e};
use std::collections::{BTreeMap, BTreeSet};

/// Prior weight of the sample-ratio test: finds 5 % that are really 6 % within some 9,000 units.
pub(crate) const C_SRM: f64 = 1_000.0;

/// Share of the units in two arms from which on the data are not trusted, and the number that is no accident.
const CONTAMINATED: f64 = 0.01;
const CONTAMINATED_UNITS: u64 = 5;

/// A run on its way to a verdict.
pub(super) struct Run<'a> {
    pub(super) policy: &'a Policy,
    pub(super) hash: &'a str,
    pub(super) snapshot: &'a Snapshot,
    pub(super) state: State,
    pub(super) tests: Vec<Test>,
    pub(super) causes: Vec<Cause>,
    /// Metrics that are malformed.
    pub(super) left_out: BTreeMap<String, String>,
    pub(super) look_due: bool,
    pub(super) information: Option<f64>,
    pub(super) alpha_spent: Option<f64>,
    pub(super) remaining_s: Option<f64>,
    pub(super) warning: Option<String>,
    /// `classic`: how often it promotes a version that is no better, where that is known from the policy alone.
    pub(super) false_promotion: Option<f64>,
}

impl<'a> Run<'a> {
    pub(super) fn new(policy: &'a Policy, hash: &'a str, snapshot: &'a Snapshot, state: State) -> Self {
        Self {
            policy,
            hash,
            snapshot,
            state,
            tests: Vec::new(),
            causes: Vec::new(),
            left_out: BTreeMap::new(),
            look_due: false,
            information: None,
            alpha_spent: None,
            remaining_s: None,
            warning: None,
            false_promotion: None,
        }
    }

    pub(super) fn subject(&self, name: &'a str) -> Option<Subject<'a>> {
        let (policy, snapshot) = (self.policy, self.snapshot);
        policy.metrics.get(name).map(|metric| Subject { policy, snapshot, name, metric })
    }

    pub(super) fn cause(&mut self, reason: Reason, subject: Option<&str>, detail: impl Into<String>) {
        self.causes.push(Cause { reason, subject: subject.map(str::to_owned), detail: detail.into() });
    }

    pub(super) fn leave_out(&mut self, name: &str, error: &impl ToString) {
        self.left_out.entry(name.to_owned()).or_insert_with(|| error.to_string());
    }

    /// What of the input contradicts itself.
    pub(super) fn malformed(&self) -> Option<String> {
        let snapshot = self.snapshot;
        if snapshot.elapsed_s < self.state.elapsed_s {
            return Some(format!(
                "{} s since the first exposure, and {} s at the run before: time does not go back",
                snapshot.elapsed_s, self.state.elapsed_s
            ));
        }
        let mut names = BTreeSet::new();
        for epoch in &snapshot.epochs {
            if !names.insert(&epoch.id) {
                return Some(format!("two epochs are called `{}`", epoch.id));
            }
            let shares = epoch.shares.cells();
            let sound = shares.iter().all(|share| (0.0..=1.0).contains(share));
            if !sound || shares.iter().sum::<f64>() > 1.0 + 1e-9 {
                return Some(format!(
                    "shares of epoch `{}`: give numbers from 0 to 1, together at most 1",
                    epoch.id
                ));
            }
            if epoch.units.others.len() != epoch.shares.others.len() {
                return Some(format!(
                    "epoch `{}` has not as many other candidates as shares of them",
                    epoch.id
                ));
            }
        }
        None
    }

    /// A changed policy starts the look history again, on units that were not looked at yet.
    pub(super) fn notice_policy(&mut self) {
        if self.state.policy_hash == self.hash {
            return;
        }
        let first = self.state.policy_hash.is_empty();
        self.state.policy_hash = self.hash.to_owned();
        if first {
            return;
        }
        self.state.goals.clear();
        self.state.streaks.clear();
        self.state.non_inferior = super::state::Looks::default();
        self.state.looks = 0;
        self.state.planned_s = None;
        self.state.false_promotion = None;
        self.state.spent_epochs = self.snapshot.epochs.len();
        self.cause(
            Reason::PolicyChanged,
            None,
            "the policy changed: goals count again from the next epoch on",
        );
    }

    /// Notes the metrics that nothing can be computed from. They block PROMOTE, and not ROLLBACK by another.
    pub(super) fn leave_out_malformed(&mut self) {
        for (name, metric) in &self.policy.metrics {
            let subject = Subject { policy: self.policy, snapshot: self.snapshot, name, metric };
            if let Err(error) = subject.sound() {
                self.leave_out(name, &error);
            }
        }
    }

    /// Runs all tests of a role that find a metric worse. Says which metrics are.
    pub(super) fn worse(&mut self, role: Role) -> Vec<String> {
        let (purpose, level) = match role {
            Role::Signal => (Purpose::Signal, self.policy.alpha.signal),
            _ => (Purpose::Kill, self.policy.alpha.kill),
        };
        let all: usize = self.policy.with_role(role).map(|(_, metric)| metric.tests()).sum();
        let spend = Spend { purpose, alpha: level / all.max(1) as f64 };
        let mut worse = Vec::new();
        for (name, metric) in self.policy.with_role(role) {
            let subject = Subject { policy: self.policy, snapshot: self.snapshot, name, metric };
            match subject.worse(spend, &mut self.state) {
                Ok(tests) => {
                    if tests.iter().any(|test| test.reached) {
                        worse.push(name.clone());
                    }
                    self.tests.extend(tests);
                }
                Err(error) => self.leave_out(name, &error),
            }
        }
        worse
    }

    /// Whether units arrive by their shares and stay in their arms. Says what is wrong otherwise.
    pub(super) fn mismatch(&mut self) -> Option<Cause> {
        let threshold = -self.policy.alpha.srm.ln();
        let mut found = None;
        let (mut both, mut all) = (0u64, 0u64);
        for epoch in &self.snapshot.epochs {
            both = both.saturating_add(epoch.units.both);
            let cells = epoch.units.cells();
            all = cells.iter().fold(all, |sum, units| sum.saturating_add(*units));
            let mut shares = epoch.shares.cells();
            // The rest of stable has no share when its exposures are not observed.
            let rest_unseen =
                epoch.units.rest == 0 && epoch.metrics.values().all(|metric| metric.rest.is_none());
            if rest_unseen && let Some(rest) = shares.get_mut(2) {
                *rest = 0.0;
            }
            let of = |reason, detail: String| Cause { reason, subject: Some(epoch.id.clone()), detail };
            let ln_e = match srm_ln_e(&cells, &shares, C_SRM) {
                Ok(ln_e) => ln_e,
                // No shares and no units: nothing to compare.
                Err(_) if cells.iter().all(|units| *units == 0) => continue,
                Err(error) => {
                    found.get_or_insert(of(Reason::Srm, error.to_string()));
                    continue;
                }
            };
            let key = format!("srm/{}", epoch.id);
            let highest = self.state.evidence.get(&key).copied().unwrap_or(0.0).max(ln_e);
            self.state.evidence.insert(key, highest);
            let reached = highest >= threshold;
            if reached {
                let detail = format!("units {cells:?} do not come by the shares {shares:?}");
                found.get_or_insert(of(Reason::Srm, detail));
            }
            let srm = self.policy.alpha.srm;
            self.tests.push(Test {
                epoch: Some(epoch.id.clone()),
                ln_e: Some(ln_e),
                highest_ln_e: Some(highest),
                p: Some(p_of(highest)),
                reached,
                n_control: epoch.units.control,
                n_treatment: epoch.units.treatment,
                ..Test::new("units", Purpose::Srm, Method::DirichletMultinomial, srm)
            });
        }
        if both >= CONTAMINATED_UNITS && both as f64 > CONTAMINATED * all as f64 {
            let detail = format!("{both} of {all} units were seen in two arms");
            found.get_or_insert(Cause { reason: Reason::Contamination, subject: None, detail });
        }
        found
    }

    /// Whether the current epoch has data of both arms that are not too old. Says what is missing otherwise.
    pub(super) fn missing(&self) -> Option<Cause> {
        let cause = |reason, detail: String| Some(Cause { reason, subject: None, detail });
        let Some(epoch) = self.snapshot.epochs.last() else {
            return cause(Reason::NoData, "there is no epoch yet".to_owned());
        };
        if epoch.units.treatment == 0 || epoch.units.control == 0 {
            let arm = if epoch.units.treatment == 0 { "the candidate" } else { "the control" };
            return cause(Reason::NoData, format!("{arm} has no units in epoch `{}`", epoch.id));
        }
        let age = self.snapshot.data_age_s;
        if age > self.policy.stale_after_s {
            return cause(Reason::Stale, format!("the newest observation is {age} s old"));
        }
        None
    }

    /// Which period the run is in, and whether that asks for a look: the first run of each period does, and the same
    /// moment again gives the same answer.
    pub(super) fn is_look_due(&self) -> bool {
        let period = self.period();
        period > self.state.period || (period > 0 && self.snapshot.elapsed_s == self.state.looked_at_s)
    }

    pub(super) fn period(&self) -> u64 {
        self.snapshot.elapsed_s / self.policy.look_every_s.max(1)
    }

    /// Notes that a look is taken now. `true` unless it is the last one again.
    pub(super) fn note_look(&mut self) -> bool {
        let again = self.state.looks > 0 && self.snapshot.elapsed_s == self.state.looked_at_s;
        self.look_due = true;
        self.state.period = self.period();
        self.state.looked_at_s = self.snapshot.elapsed_s;
        if !again {
            self.state.looks = self.state.looks.saturating_add(1);
        }
        !again
    }

    /// Seconds that have to pass before anything is promoted for good.
    pub(super) fn least_duration(&self) -> Seconds {
        let window = self.policy.metrics.values().map(|metric| metric.window_s).max().unwrap_or_default();
        self.policy.cycle_s.max(window.saturating_add(self.policy.warm_up_s))
    }

    /// Whether the metric has no test but by the normal approximation.
    pub(super) fn is_mean(kind: MetricKind) -> bool {
        !matches!(kind, MetricKind::Event | MetricKind::Latency)
    }

    /// Ends the run.
    pub(super) fn verdict(mut self, decision: Decision, action: Action, main: Cause) -> (Verdict, State) {
        for (name, error) in std::mem::take(&mut self.left_out) {
            self.cause(Reason::MetricLeftOut, Some(&name), error);
        }
        self.causes.retain(|cause| *cause != main);
        self.causes.insert(0, main.clone());
        if main.reason != Reason::Input {
            self.state.elapsed_s = self.snapshot.elapsed_s;
        }
        let mut verdict = Verdict {
            decision,
            reason: main.reason,
            subject: main.subject,
            action,
            sentence: String::new(),
            causes: self.causes,
            tests: self.tests,
            looks: self.state.looks,
            look_due: self.look_due,
            information: self.information,
            alpha_spent: self.alpha_spent,
            remaining_s: self.remaining_s,
            policy_hash: self.hash.to_owned(),
            warning: self.warning,
        };
        verdict.sentence = super::sentence::sentence(&verdict, self.snapshot);
        (verdict, self.state)
    }
}
