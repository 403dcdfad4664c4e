//! Planned looks at the goals.

use super::{
    config::{Baseline, Effect, Horizon, Metric, MetricKind, Seconds},
    evidence::{N_STAR, Subject, fill},
    state::{GoalState, State},
    stratified::{Stratified, guard},
    verdict::{Method, Purpose, Test},
};
use crate::{
    error::{Error, Result},
    fixed::required_information,
    sequential::{SAME_LOOK, Sides, Spending, asymptotic_cs},
    special::normal,
};

/// What one look at a goal found.
pub(super) struct Finding {
    pub(super) test: Test,
    /// Share of the planned information.
    pub(super) information: Option<f64>,
    /// What was spent of the level, both sides together.
    pub(super) spent: Option<f64>,
    /// It has crossed its bound, now or before, and is still better.
    pub(super) better: bool,
    /// It has crossed the bound of the other side.
    pub(super) worse: bool,
    /// The lower limit is above the MDE.
    pub(super) practical: bool,
    /// The upper limit is below the MDE.
    pub(super) futile: bool,
}

/// How much more information than a fixed sample a plan needs for the same power: measured by
/// [`inflation`](crate::sequential::inflation) with 56 looks at α = .01 and 80 % power, and interpolated for other
/// exponents. α and the number of looks hardly matter.
#[must_use]
pub fn planned_inflation(spending: Spending) -> f64 {
    const BY_EXPONENT: [(f64, f64); 9] = [
        (0.1, 1.632),
        (0.25, 1.437),
        (0.5, 1.302),
        (1.0, 1.187),
        (1.5, 1.133),
        (2.0, 1.101),
        (3.0, 1.064),
        (5.0, 1.033),
        (10.0, 1.010),
    ];
    let phi = match spending {
        Spending::ObrienFleming => return 1.035,
        Spending::Pocock => return 1.248,
        Spending::Power(phi) => phi,
    };
    let mut last = (0.0, 1.632);
    for (exponent, inflation) in BY_EXPONENT {
        if phi <= exponent {
            let share = (phi - last.0) / (exponent - last.0);
            return last.1 + share * (inflation - last.1);
        }
        last = (exponent, inflation);
    }
    last.1
}

/// The variance of one unit and the mean that a plan counts on.
fn planned_moments(metric: &Metric, measured: &Stratified) -> (f64, f64) {
    match metric.baseline {
        Some(Baseline { mean, sd: Some(sd) }) => (sd * sd, mean),
        Some(Baseline { mean, sd: None }) if metric.kind == MetricKind::Proportion => {
            (mean * (1.0 - mean), mean)
        }
        _ => (measured.unit_variance, measured.control_mean),
    }
}

impl Subject<'_> {
    /// The information that the goal's plan needs at `alpha`, and the MDE in the metric's unit.
    pub(super) fn plan(&self, measured: &Stratified, alpha: f64, inflation: f64) -> Result<(f64, f64)> {
        let (variance, mean) = planned_moments(self.metric, measured);
        let mde =
            self.metric.mde.ok_or_else(|| Error::malformed("a goal without a minimum detectable effect"))?;
        let mde = mde.absolute(mean);
        Ok((required_information(variance, mde, alpha, self.policy.power, inflation)?, mde))
    }

    /// Takes a planned look at a goal, at a level shared with the goals that have not won yet. Says what is missing where
    /// the normal approximation cannot be trusted yet.
    pub(super) fn look(&self, alpha: f64, state: &mut State) -> Result<std::result::Result<Finding, String>> {
        let strata = self.strata(state.spent_epochs)?;
        if let Err(missing) = guard(self.metric, &strata) {
            return Ok(Err(missing));
        }
        let all = Stratified::of(&strata);
        let Some(z) = all.z(self.metric) else { return Ok(Err("no variance".to_owned())) };
        let goal = state.goals.entry(self.name.to_owned()).or_default();
        let mut test = Test::new(self.name, Purpose::Goal, Method::GroupSequential, alpha);
        fill(&mut test, self.metric, &all);
        let mut finding = match self.policy.horizon {
            Horizon::Known => self.planned_look(&all, z, alpha, goal, test)?,
            Horizon::Unknown => self.open_look(&all, alpha, goal, test)?,
        };
        goal.won |= finding.test.reached;
        finding.better = goal.won && z > 0.0;
        let sign = self.metric.better().sign();
        let mde = goal.mde.or_else(|| match self.metric.mde {
            Some(Effect::Absolute(value)) => Some(value),
            Some(effect) => Some(effect.absolute(all.control_mean)),
            None => None,
        });
        if let (Some(low), Some(high), Some(mde)) = (finding.test.low, finding.test.high, mde) {
            let (worst, best) = if sign > 0.0 { (low, high) } else { (-high, -low) };
            finding.practical = worst > mde;
            finding.futile = best < mde;
        }
        Ok(Ok(finding))
    }

    fn planned_look(
        &self,
        all: &Stratified,
        z: f64,
        alpha: f64,
        goal: &mut GoalState,
        mut test: Test,
    ) -> Result<Finding> {
        if goal.max_information.is_none() {
            let (information, mde) = self.plan(all, alpha, planned_inflation(self.policy.spending))?;
            (goal.max_information, goal.mde) = (Some(information), Some(mde));
        }
        let planned = goal.max_information.unwrap_or(f64::INFINITY);
        let t = all.information / planned;
        let last = goal.looks.times().last().copied();
        // Beyond the last look a goal that won stays so, and nothing is tested any more.
        let over = last.is_some_and(|last| last >= 1.0 && t > last + SAME_LOOK);
        let t_look = last.filter(|_| over).unwrap_or(t);
        let (bound, spent) = goal.looks.look(self.policy.spending, alpha, true, t_look)?;
        let half = bound * all.se;
        (test.low, test.high) = (Some(all.difference - half), Some(all.difference + half));
        test.p = Some(normal::ln_two_sided(z).exp());
        test.threshold = bound;
        test.reached = z >= bound && !over;
        Ok(Finding {
            test,
            information: Some(t),
            spent: Some(2.0 * spent),
            better: false,
            worse: z <= -bound && !over,
            practical: false,
            futile: false,
        })
    }

    fn open_look(
        &self,
        all: &Stratified,
        alpha: f64,
        goal: &mut GoalState,
        mut test: Test,
    ) -> Result<Finding> {
        let n = all.n_control as f64 + all.n_treatment as f64;
        let n_star = self.policy.n_star.unwrap_or(N_STAR);
        let cs = asymptotic_cs(all.difference, all.se, n, alpha, n_star, Sides::Two)?;
        let low = goal.low.map_or(cs.low, |low| low.max(cs.low));
        let high = goal.high.map_or(cs.high, |high| high.min(cs.high));
        (goal.low, goal.high) = (Some(low), Some(high));
        test.method = Method::ConfidenceSequence;
        (test.low, test.high) = (Some(low), Some(high));
        (test.ln_e, test.p) = (Some(cs.ln_e), Some(cs.p));
        let sign = self.metric.better().sign();
        let (worst, best) = if sign > 0.0 { (low, high) } else { (-high, -low) };
        test.reached = worst > 0.0;
        Ok(Finding {
            test,
            information: None,
            spent: None,
            better: false,
            worse: best < 0.0,
            practical: false,
            futile: false,
        })
    }
}

/// Seconds until all planned information is expected, when it goes on arriving as until now.
pub(super) fn remaining(elapsed: Seconds, information: f64) -> Option<f64> {
    let seconds = elapsed as f64 * (1.0 - information).max(0.0) / information;
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequential::{Design, inflation};

    #[test]
    fn the_planned_inflation_is_what_is_measured() {
        for (spending, slack) in [
            (Spending::Power(0.5), 0.003),
            (Spending::Power(1.0), 0.003),
            (Spending::Power(1.5), 0.003),
            (Spending::Power(2.0), 0.003),
            (Spending::Power(3.0), 0.003),
            (Spending::Power(5.0), 0.003),
            (Spending::Power(10.0), 0.003),
            (Spending::Power(2.5), 0.01),
            (Spending::ObrienFleming, 0.003),
            (Spending::Pocock, 0.003),
        ] {
            let measured = inflation(Design::LanDeMets(spending), 56, 0.01, 0.8).unwrap();
            let planned = planned_inflation(spending);
            assert!((measured - planned).abs() < slack, "{spending:?}: {measured}, planned {planned}");
        }
    }
}
