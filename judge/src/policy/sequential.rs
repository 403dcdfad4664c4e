//! The default policy: e-values roll back at any moment, planned looks promote.

use super::{
    config::{PromoteWhen, Role},
    goal::{Finding, remaining},
    run::Run,
    snapshot::{Gate, Sample, StepConditions},
    state::State,
    stratified::guard,
    verdict::{Action, Cause, Decision, Purpose, Reason, Verdict},
};

fn cause(reason: Reason, subject: Option<&str>, detail: impl Into<String>) -> Cause {
    Cause { reason, subject: subject.map(str::to_owned), detail: detail.into() }
}

/// A bound with a level of 6e-16.
const NEVER: f64 = 8.0;

/// What the last gate asks for, and what of it is missing.
struct Final {
    /// The cause of a promotion, when everything holds.
    promote: Option<Cause>,
    /// What is missing, the most telling first.
    missing: Vec<Cause>,
    /// Why to stop without an effect.
    stop: Option<Cause>,
}

impl Run<'_> {
    /// Judges by the policy `sequential`; the order of the checks is that of docs/judge.md.
    pub(super) fn sequential(mut self, worse: &[String], mismatch: Option<Cause>) -> (Verdict, State) {
        if let Some(name) = worse.first() {
            let main = cause(Reason::Worse, Some(name), worse_detail(&self, name));
            return self.verdict(Decision::Rollback, Action::Rollback, main);
        }
        if let Some(main) = mismatch {
            return self.verdict(Decision::Invalid, Action::Pause, main);
        }
        if let Some(main) = self.missing() {
            let late = self.snapshot.data_age_s > self.policy.data_deadline_s;
            let action = if late { Action::Pause } else { Action::None };
            return self.verdict(Decision::InsufficientData, action, main);
        }
        let signals = self.worse(Role::Signal);
        if self.snapshot.gate == Gate::Final
            && let Some(main) = self.too_few()
        {
            return self.verdict(Decision::InsufficientData, Action::None, main);
        }
        if let Some(name) = signals.first() {
            let main = cause(Reason::Signal, Some(name), worse_detail(&self, name));
            return self.verdict(Decision::Hold, Action::None, main);
        }
        match self.snapshot.gate {
            Gate::Step(conditions) => self.step(conditions),
            Gate::Final => self.final_gate(),
        }
    }

    fn step(mut self, conditions: StepConditions) -> (Verdict, State) {
        let suspect = -self.policy.alpha.suspect.ln();
        let looks_worse = |test: &&super::verdict::Test| {
            test.purpose == Purpose::Kill && test.ln_e.is_some_and(|ln_e| ln_e >= suspect)
        };
        if let Some(name) = self.tests.iter().find(looks_worse).map(|test| test.metric.clone()) {
            let main = cause(Reason::Suspect, Some(&name), worse_detail(&self, &name));
            return self.verdict(Decision::Hold, Action::None, main);
        }
        if let Some((name, error)) = self.blocked() {
            let main = cause(Reason::MetricLeftOut, Some(&name), error);
            return self.verdict(Decision::Hold, Action::None, main);
        }
        let units = self.snapshot.epochs.last().map(|epoch| epoch.units.treatment.min(epoch.units.control));
        let units = units.unwrap_or_default();
        let mut waiting = Vec::new();
        if conditions.elapsed_s < conditions.least_s {
            let left = conditions.least_s - conditions.elapsed_s;
            waiting.push(format!("{left} s more"));
            self.remaining_s = Some(left as f64);
        }
        if units < conditions.least_units {
            waiting.push(format!("{units} of {} units in each arm", conditions.least_units));
        }
        if conditions.approved == Some(false) {
            waiting.push("an approval".to_owned());
        }
        if waiting.is_empty() {
            let main = cause(Reason::Step, None, "time, units and approval of the step are there");
            self.verdict(Decision::Promote, Action::Widen, main)
        } else {
            let main = cause(Reason::Waiting, None, waiting.join(", "));
            self.verdict(Decision::Hold, Action::None, main)
        }
    }

    /// A guardrail or goal that cannot be judged blocks every PROMOTE.
    fn blocked(&self) -> Option<(String, String)> {
        let mut bad = self.left_out.iter();
        let malformed = bad.next().map(|(name, error)| (name.clone(), error.clone()));
        malformed.or_else(|| {
            // Before the last gate goals may still be empty: their windows are open.
            let last = self.snapshot.gate == Gate::Final;
            let needed =
                self.policy.metrics.iter().filter(|(_, metric)| {
                    metric.role == Role::Guardrail || (last && metric.role == Role::Goal)
                });
            needed.map(|(name, _)| name).find(|name| !self.is_measured(name)).map(|name| {
                (
                    name.clone(),
                    "it has no data of both arms in the current epoch: missing is no pass".to_owned(),
                )
            })
        })
    }

    fn is_measured(&self, name: &str) -> bool {
        let current = self.snapshot.epochs.last().and_then(|epoch| epoch.metrics.get(name));
        let has_values = |sample: &Option<Sample>| sample.as_ref().is_some_and(Sample::has_values);
        current.is_some_and(|metric| has_values(&metric.control) && has_values(&metric.treatment))
    }

    /// What the normal approximation lacks, for goals and mean guardrails.
    fn too_few(&mut self) -> Option<Cause> {
        for (name, metric) in &self.policy.metrics {
            if metric.role == Role::Signal || !Self::is_mean(metric.kind) {
                continue;
            }
            let Some(subject) = self.subject(name) else { continue };
            let first = self.state.spent_epochs;
            match subject.strata(first) {
                Ok(strata) => {
                    if let Err(missing) = guard(metric, &strata) {
                        return Some(cause(Reason::TooFew, Some(name), missing));
                    }
                }
                Err(error) => self.leave_out(name, &error),
            }
        }
        None
    }

    fn final_gate(mut self) -> (Verdict, State) {
        if let Some((name, error)) = self.blocked() {
            let main = cause(Reason::MetricLeftOut, Some(&name), error);
            return self.verdict(Decision::Hold, Action::None, main);
        }
        let planned = self.planned();
        let expired = planned.is_some_and(|planned| self.snapshot.elapsed_s as f64 >= 1.5 * planned);
        let looks_left =
            self.state.looks < self.policy.most_looks || self.snapshot.elapsed_s == self.state.looked_at_s;
        if self.is_look_due() && looks_left {
            let found = self.look();
            if let Some(main) = found.promote {
                return self.verdict(Decision::Promote, Action::Candidate, main);
            }
            if let Some(main) = found.stop {
                self.causes.extend(found.missing);
                return self.verdict(Decision::Hold, Action::Abort, main);
            }
            if !expired {
                let mut missing = found.missing.into_iter();
                let main = missing.next().unwrap_or_else(|| cause(Reason::Collecting, None, "no result yet"));
                self.causes.extend(missing);
                return self.verdict(Decision::Hold, Action::None, main);
            }
        }
        if expired || !looks_left {
            let detail = if looks_left {
                "1.5 times the planned time has passed"
            } else {
                "all planned looks were taken"
            };
            let main = cause(Reason::Expired, None, detail);
            return self.verdict(Decision::Hold, Action::Abort, main);
        }
        let every = self.policy.look_every_s.max(1);
        let left = every - self.snapshot.elapsed_s % every;
        self.remaining_s = self.remaining_s.or(Some(left as f64));
        let main = cause(Reason::Collecting, None, format!("the next planned look is in {left} s"));
        self.verdict(Decision::Hold, Action::None, main)
    }

    /// How long the plan takes, in seconds.
    fn planned(&self) -> Option<f64> {
        self.policy.planned_s.map(|seconds| seconds as f64).or(self.state.planned_s)
    }

    /// A planned look at everything that has to hold before the candidate becomes stable.
    fn look(&mut self) -> Final {
        self.note_look();
        let mut missing = Vec::new();
        let (findings, ended) = self.look_at_goals(&mut missing);
        let no_worse = self.look_at_guardrails(&findings, &mut missing);
        let least = self.least_duration();
        if self.snapshot.elapsed_s < least {
            let left = least - self.snapshot.elapsed_s;
            missing.push(cause(Reason::Cycle, None, format!("a whole cycle takes {left} s more")));
        }
        let better: Vec<&Finding> = findings.iter().filter(|finding| finding.better).collect();
        let worse = findings.iter().find(|finding| finding.worse);
        let goals = self.policy.with_role(Role::Goal).count();
        let superior = self.policy.promote_when == PromoteWhen::Superior && goals > 0;
        let wanted = if superior {
            better
                .first()
                .map(|finding| cause(Reason::Goal, Some(&finding.test.metric), "better at this look"))
        } else {
            // Goals have to be non-inferior too, then, which is among the guardrails' tests.
            Some(cause(Reason::NonInferior, None, "nothing is worse than its margin"))
        };
        if let Some(worse) = worse {
            let detail = "significantly worse, whatever the other goals are";
            missing.insert(0, cause(Reason::Contradictory, Some(&worse.test.metric), detail));
        }
        if superior
            && self.policy.require_practical
            && !better.is_empty()
            && !better.iter().any(|f| f.practical)
        {
            missing.push(cause(Reason::NotPractical, None, "the effect may be smaller than the MDE"));
        }
        let stop = if superior && better.is_empty() {
            let used = |finding: &Finding| finding.information.is_some_and(|t| t >= 1.0);
            let used = ended + findings.iter().filter(|finding| used(finding)).count() == goals;
            let futile = findings.iter().filter(|finding| finding.futile).count() == goals;
            if used {
                Some(cause(Reason::Horizon, None, "all planned information was used without a result"))
            } else if futile {
                Some(cause(Reason::Futile, None, "an effect as large as the MDE is out of reach"))
            } else {
                None
            }
        } else {
            None
        };
        let goals_missing = superior && better.is_empty();
        if goals_missing {
            missing.push(cause(Reason::Collecting, None, "no goal is better yet"));
        }
        let complete = missing.is_empty() && no_worse;
        self.tests.extend(findings.into_iter().map(|finding| finding.test));
        Final { promote: wanted.filter(|_| complete), missing, stop }
    }

    /// Looks at the goals that can be looked at, and counts those whose planned information was used before.
    fn look_at_goals(&mut self, missing: &mut Vec<Cause>) -> (Vec<Finding>, usize) {
        let goals: Vec<&String> = self.policy.with_role(Role::Goal).map(|(name, _)| name).collect();
        // Holm: those that won leave their level to the others.
        let won =
            goals.iter().filter(|name| self.state.goals.get(**name).is_some_and(|goal| goal.won)).count();
        let level = self.policy.alpha.promote / f64::from(self.policy.candidates.max(1));
        let (mut findings, mut ended) = (Vec::new(), 0);
        for name in &goals {
            let Some(subject) = self.subject(name) else { continue };
            if self.policy.promote_when == PromoteWhen::NonInferior && subject.metric.mde.is_none() {
                // Without an effect to look for there is no plan, and nothing to find.
                continue;
            }
            let goal = self.state.goals.get(*name);
            let has_won = goal.is_some_and(|goal| goal.won);
            let open = goals.len() - won + usize::from(has_won);
            // All information was used at an earlier look: there is no further one.
            if goal.is_some_and(|goal| goal.looks.is_finished()) && !has_won && !self.is_last_look_again() {
                ended += 1;
                continue;
            }
            match subject.look(level / open.max(1) as f64, &mut self.state) {
                Ok(Ok(finding)) => findings.push(finding),
                Ok(Err(lacking)) => missing.push(cause(Reason::TooFew, Some(name), lacking)),
                Err(error) => {
                    missing.push(cause(Reason::MetricLeftOut, Some(name), error.to_string()));
                }
            }
        }
        if let Some(first) = findings.iter().find(|finding| finding.information.is_some()) {
            self.information = first.information;
            self.alpha_spent = first.spent;
            let left = first.information.and_then(|t| remaining(self.snapshot.elapsed_s, t));
            self.remaining_s = left;
            if self.state.planned_s.is_none() {
                self.state.planned_s = left.map(|left| left + self.snapshot.elapsed_s as f64);
            }
        }
        (findings, ended)
    }

    fn is_last_look_again(&self) -> bool {
        self.state.looks > 0 && self.snapshot.elapsed_s == self.state.looked_at_s
    }

    /// Whether everything that has to be non-inferior is.
    fn look_at_guardrails(&mut self, findings: &[Finding], missing: &mut Vec<Cause>) -> bool {
        let spending = self.policy.spending;
        let alpha = self.policy.alpha.non_inferior;
        let t = findings.iter().find_map(|finding| finding.information);
        // After all information was used there is no further look, only a bound that is never reached by chance.
        let z = t.map(|t| {
            let look = self.state.non_inferior.look(spending, alpha, false, t);
            look.map_or(NEVER, |(z, _)| z)
        });
        let goals_too = self.policy.promote_when == PromoteWhen::NonInferior;
        let mut passed = true;
        for (name, metric) in &self.policy.metrics {
            let needed = metric.role == Role::Guardrail || (goals_too && metric.role == Role::Goal);
            if !needed {
                continue;
            }
            let Some(subject) = self.subject(name) else { continue };
            match subject.not_worse(z, self.state.spent_epochs) {
                Ok(Ok(tests)) => {
                    if tests.is_empty() || tests.iter().any(|test| !test.reached) {
                        passed = false;
                        let detail = "not known yet to be at most its margin worse";
                        missing.push(cause(Reason::GuardrailInconclusive, Some(name), detail));
                    }
                    self.tests.extend(tests);
                }
                Ok(Err(lacking)) => {
                    passed = false;
                    missing.push(cause(Reason::TooFew, Some(name), lacking));
                }
                Err(error) => {
                    passed = false;
                    missing.push(cause(Reason::MetricLeftOut, Some(name), error.to_string()));
                }
            }
        }
        passed
    }
}

/// The test that says it most clearly.
pub(super) fn worse_detail(run: &Run<'_>, name: &str) -> String {
    let of_metric = run.tests.iter().filter(|test| test.metric == name && test.purpose != Purpose::Srm);
    let clearest = of_metric.max_by(|a, b| {
        let margin = |test: &super::verdict::Test| test.highest_ln_e.unwrap_or_default() - test.threshold;
        margin(a).total_cmp(&margin(b))
    });
    clearest.map(super::sentence::describe).unwrap_or_default()
}
