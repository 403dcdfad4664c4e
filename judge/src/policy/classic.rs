//! The policy of the requester's design document, made well defined. Not valid under repeated looks: every verdict of it
//! says how often it promotes a version that is no better.

use super::{
    config::{Effect, MetricKind, Policy, PolicyKind, Role},
    evidence::{Subject, fill},
    run::Run,
    sequential::worse_detail,
    state::{State, Status},
    stratified::{Stratified, Stratum, guard},
    verdict::{Action, Cause, Decision, Method, Purpose, Reason, Test, Verdict},
};
use crate::{
    error::Result,
    fixed::{
        Alternative, Comparison, holm, minimum_duration, relative_lift, required_information,
        two_proportions, welch,
    },
    sequential::crossing_probability,
    special::normal,
    stats::Proportion,
};
use std::f64::consts::LN_10;

/// Periods beyond which the figure of a schedule is that of its first ones.
const MOST_PERIODS: f64 = 1_000.0;

fn cause(reason: Reason, subject: Option<&str>, detail: impl Into<String>) -> Cause {
    Cause { reason, subject: subject.map(str::to_owned), detail: detail.into() }
}

/// One goal at a period's end, in its good direction.
struct Reading {
    name: String,
    /// Two-sided, adjusted by Holm.
    p: f64,
    /// Limits of the interval on the scale of the MDE.
    low: f64,
    high: f64,
    mde: f64,
    units: (u64, u64),
    test: Test,
}

impl Run<'_> {
    /// Judges by the policy `classic`: the first row of its table that matches.
    pub(super) fn classic(mut self, worse: &[String], mismatch: Option<Cause>) -> (Verdict, State) {
        let minimum = self.minimum();
        self.warn(minimum);
        if let Some(name) = worse.first() {
            let main = cause(Reason::Worse, Some(name), worse_detail(&self, name));
            return self.verdict(Decision::Rollback, Action::Rollback, main);
        }
        if let Some(main) = mismatch {
            return self.verdict(Decision::Invalid, Action::Pause, main);
        }
        if let Some(main) = self.missing() {
            return self.verdict(Decision::InsufficientData, Action::None, main);
        }
        let mut readings = match self.readings() {
            Ok(readings) => readings,
            Err(main) => return self.verdict(Decision::InsufficientData, Action::None, main),
        };
        if !self.is_look_due() {
            let every = self.policy.look_every_s.max(1);
            self.remaining_s = Some((every - self.snapshot.elapsed_s % every) as f64);
            let main = cause(Reason::Collecting, None, "between two periods");
            return self.verdict(Decision::Hold, Action::None, main);
        }
        self.count_streaks(&readings);
        let (decision, action, main) = self.row(&readings, minimum);
        self.tests.extend(readings.drain(..).map(|reading| reading.test));
        self.verdict(decision, action, main)
    }

    /// Rows 5 to 13.
    fn row(&mut self, readings: &[Reading], minimum: f64) -> (Decision, Action, Cause) {
        let settings = self.policy.classic;
        let t = self.snapshot.elapsed_s as f64;
        let maximum = settings.maximum_s.map_or(3.0 * minimum, |seconds| seconds as f64);
        let significant = |reading: &&Reading| reading.p < settings.p;
        let find = |of: &dyn Fn(&Reading) -> bool| readings.iter().filter(significant).find(|r| of(r));
        let streak = |reading: &&Reading| {
            self.state.streaks.get(&reading.name).is_some_and(|streak| *streak >= settings.periods)
        };
        let status = self.state.status;
        let hold = |action, reason, subject: Option<&Reading>, detail: &str| {
            (Decision::Hold, action, cause(reason, subject.map(|reading| reading.name.as_str()), detail))
        };
        if let Some(harmed) = find(&|reading| reading.high < 0.0) {
            if settings.rollback_on_harm {
                let main = cause(Reason::RollbackReview, Some(&harmed.name), "significantly worse");
                return (Decision::Rollback, Action::Rollback, main);
            }
            return hold(
                Action::Pause,
                Reason::RollbackReview,
                Some(harmed),
                "significantly worse: roll back or resume",
            );
        }
        if let Some(odd) = find(&|reading| reading.low <= 0.0 && reading.high >= 0.0) {
            return hold(
                Action::Pause,
                Reason::Contradictory,
                Some(odd),
                "p is small, and the interval contains 0",
            );
        }
        if t < minimum {
            return hold(Action::None, Reason::Collecting, None, "the minimum duration has not passed");
        }
        if status != Status::Running
            && let Some(small) = find(&|reading| reading.low > 0.0 && reading.low < reading.mde)
        {
            self.state.status = Status::Degraded;
            return hold(
                Action::Freeze,
                Reason::DegradedToAb,
                Some(small),
                "better, but maybe by less than the MDE",
            );
        }
        let promote = |reason, reading: &Reading, detail: &str| {
            (Decision::Promote, Action::Candidate, cause(reason, Some(&reading.name), detail))
        };
        if t >= 1.5 * minimum
            && let Some(best) = readings.iter().find(streak)
        {
            let answer =
                promote(Reason::C2, best, "the lower limit was above the MDE for all periods asked for");
            self.state.status = Status::Candidate;
            return answer;
        }
        if let Some(best) = find(&|reading| reading.low > 0.0) {
            let answer = promote(Reason::C1, best, "significant, and the interval is above 0");
            self.state.status = Status::Candidate;
            return answer;
        }
        if t >= 1.5 * minimum && readings.iter().all(|reading| reading.p >= settings.alpha) {
            return hold(
                Action::Abort,
                Reason::Futile,
                None,
                "1.5 times the minimum duration without an effect",
            );
        }
        if t >= maximum {
            return hold(Action::Abort, Reason::Expired, None, "the maximum duration has passed");
        }
        if status != Status::Running {
            self.state.status = Status::Running;
            return hold(Action::Resume, Reason::Withdrawn, None, "the evidence of the candidate went away");
        }
        hold(Action::None, Reason::Collecting, None, "no result yet")
    }

    /// Goals with p adjusted by Holm and intervals at 1 − α/m.
    fn readings(&mut self) -> std::result::Result<Vec<Reading>, Cause> {
        let goals: Vec<&String> = self.policy.with_role(Role::Goal).map(|(name, _)| name).collect();
        let alpha = self.policy.classic.alpha / goals.len().max(1) as f64;
        let mut readings = Vec::with_capacity(goals.len());
        for name in goals {
            let Some(subject) = self.subject(name) else { continue };
            match subject.strata(self.state.spent_epochs) {
                Ok(strata) => {
                    if let Err(missing) = guard(subject.metric, &strata) {
                        return Err(cause(Reason::TooFew, Some(name), missing));
                    }
                    match subject.reading(&strata, alpha) {
                        Ok(reading) => readings.push(reading),
                        Err(error) => return Err(cause(Reason::TooFew, Some(name), error.to_string())),
                    }
                }
                Err(error) => self.leave_out(name, &error),
            }
        }
        if readings.is_empty() {
            return Err(cause(Reason::NoData, None, "no goal can be judged"));
        }
        let adjusted = holm(&readings.iter().map(|reading| reading.p).collect::<Vec<_>>());
        for (reading, p) in readings.iter_mut().zip(adjusted) {
            reading.p = p;
            reading.test.p = Some(p);
            reading.test.threshold = self.policy.classic.p;
            reading.test.reached = p < self.policy.classic.p;
        }
        Ok(readings)
    }

    /// A period counts when it follows the last one and brought units in both arms.
    fn count_streaks(&mut self, readings: &[Reading]) {
        let again = self.state.looks > 0 && self.snapshot.elapsed_s == self.state.looked_at_s;
        let next = self.period() == self.state.period + 1 || self.state.looks == 0;
        if !self.note_look() || again {
            return;
        }
        let units = readings.first().map(|reading| reading.units).unwrap_or_default();
        let before = self.state.period_units;
        let grown = units.0 > before.0 && units.1 > before.1;
        self.state.period_units = units;
        for reading in readings {
            let streak = self.state.streaks.entry(reading.name.clone()).or_default();
            *streak = if !(grown && reading.low > reading.mde) {
                0
            } else if next {
                streak.saturating_add(1)
            } else {
                1
            };
        }
    }

    /// t_min: declared, or from the plan at α = p, which is fixed at the first look. 0 units arrive in no time, so that
    /// without data it is one cycle.
    fn minimum(&mut self) -> f64 {
        if let Some(seconds) = self.policy.classic.minimum_s {
            return seconds as f64;
        }
        if self.state.planned_s.is_none() {
            let collecting = self.policy.planned_s.map(|s| s as f64).or_else(|| self.collecting());
            let (cycle, warm_up) = (self.policy.cycle_s as f64, self.policy.warm_up_s as f64);
            let window = self.policy.metrics.values().map(|metric| metric.window_s).max().unwrap_or_default();
            let least = |collecting| minimum_duration(collecting, window as f64, warm_up, cycle).ok();
            let Some(collecting) = collecting else { return least(0.0).unwrap_or(cycle) };
            // Measured when there is something to measure: at the first period's end.
            if self.period() == 0 {
                return least(collecting).unwrap_or(cycle);
            }
            self.state.planned_s = least(collecting);
        }
        self.state.planned_s.unwrap_or(self.policy.cycle_s as f64)
    }

    /// Seconds to collect the fixed sample of the slowest goal, as units arrived until now.
    fn collecting(&self) -> Option<f64> {
        let goals = self.policy.with_role(Role::Goal).filter_map(|(name, _)| self.subject(name));
        let times = goals.filter_map(|subject| {
            let measured = Stratified::of(&subject.strata(self.state.spent_epochs).ok()?);
            let (_, mde) = subject.plan(&measured, self.policy.classic.p, 1.0).ok()?;
            let variance = measured.unit_variance;
            let needed =
                required_information(variance, mde, self.policy.classic.p, self.policy.power, 1.0).ok()?;
            let seconds = self.snapshot.elapsed_s as f64 * needed / measured.information;
            seconds.is_finite().then_some(seconds)
        });
        times.fold(None, |most, seconds| Some(most.map_or(seconds, |most: f64| most.max(seconds))))
    }

    /// The line that every verdict of `classic` carries.
    fn warn(&mut self, minimum: f64) {
        let measured = || self.state.false_promotion.or_else(|| false_promotion(self.policy, minimum));
        let figure = self.false_promotion.or_else(measured);
        // Kept once the minimum is: until then it may change.
        if self.false_promotion.is_none() && self.state.planned_s.is_some() {
            self.state.false_promotion = figure;
        }
        let goals = self.policy.with_role(Role::Goal).count();
        let chance =
            figure.map(|figure| format!("{:.1} %", 100.0 * figure)).unwrap_or_else(|| "some %".to_owned());
        let each = if goals > 1 { "for each goal at most " } else { "" };
        self.warning = Some(format!(
            "not valid under repeated looks: on this schedule p < {} and an interval above 0 promote a version that is no \
             better in {each}{chance} of releases, not in {:.2} %",
            self.policy.classic.p,
            50.0 * self.policy.classic.p
        ));
    }
}

/// The figure of a policy that declares its minimum.
pub(super) fn declared_false_promotion(policy: &Policy) -> Option<f64> {
    let minimum = policy.classic.minimum_s.filter(|_| policy.policy == PolicyKind::Classic)?;
    false_promotion(policy, minimum as f64)
}

/// The chance that a version that is no better crosses at any period's end from the minimum to the maximum duration.
fn false_promotion(policy: &Policy, minimum: f64) -> Option<f64> {
    let every = policy.look_every_s.max(1) as f64;
    let maximum = policy.classic.maximum_s.map_or(3.0 * minimum, |seconds| seconds as f64);
    let first = (minimum / every).ceil().max(1.0);
    let last = (maximum / every).floor().min(first + MOST_PERIODS).max(first);
    let bound = normal::two_sided_quantile(policy.classic.p).ok()?;
    let mut times = Vec::new();
    let mut period = first;
    while period <= last {
        times.push(period / last);
        period += 1.0;
    }
    crossing_probability(&times, &vec![bound; times.len()], None, 0.0)
        .ok()
        .map(|crossing| crossing.total_upper())
}

impl Subject<'_> {
    /// p and interval at this moment, by the test for one look: exact forms for one epoch, stratified z for several.
    fn reading(&self, strata: &[Stratum], alpha: f64) -> Result<Reading> {
        let all = Stratified::of(strata);
        let relative = matches!(self.metric.mde, Some(Effect::Relative(_)));
        let mde = self.metric.mde.map_or(0.0, |mde| mde.size());
        let (comparison, interval, method) = match strata {
            [Stratum { control, treatment }] => {
                let (test, method) = if self.metric.kind == MetricKind::Proportion {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "saturates at n"
                    )]
                    let arm =
                        |n: u64, mean: f64| Proportion { n, k: ((n as f64 * mean).round() as u64).min(n) };
                    let (a, b) = (arm(control.n, control.mean), arm(treatment.n, treatment.mean));
                    (two_proportions(&a, &b, alpha)?, Method::TwoProportions)
                } else {
                    (welch(control, treatment, alpha, Alternative::TwoSided)?, Method::Welch)
                };
                let interval = if relative { relative_lift(control, treatment, alpha)? } else { test };
                (test, interval, method)
            }
            _ => {
                let half = normal::two_sided_quantile(alpha)?;
                let of = |estimate: f64, se: f64| {
                    let ln_p = normal::ln_two_sided(estimate / se);
                    let (low, high) = (Some(estimate - half * se), Some(estimate + half * se));
                    let (p, log10_p) = (ln_p.exp(), ln_p / LN_10);
                    Comparison { estimate, se, statistic: estimate / se, df: None, p, log10_p, low, high }
                };
                let test = of(all.difference, all.se);
                let lift = all.relative().zip(all.relative_se()).map(|(lift, se)| of(lift, se));
                let interval = if relative { lift.unwrap_or(test) } else { test };
                (test, interval, Method::StratifiedZ)
            }
        };
        let sign = self.metric.better().sign();
        let limits = (interval.low.unwrap_or(f64::NEG_INFINITY), interval.high.unwrap_or(f64::INFINITY));
        let (low, high) = if sign > 0.0 { limits } else { (-limits.1, -limits.0) };
        let mut test = Test {
            low: comparison.low,
            high: comparison.high,
            p: Some(comparison.p),
            threshold: alpha,
            ..Test::new(self.name, Purpose::Goal, method, alpha)
        };
        fill(&mut test, self.metric, &all);
        test.z = Some(sign * comparison.statistic).filter(|z| z.is_finite());
        Ok(Reading {
            name: self.name.to_owned(),
            p: comparison.p,
            low,
            high,
            mde,
            units: (all.n_control, all.n_treatment),
            test,
        })
    }
}
