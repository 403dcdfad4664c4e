//! Tests that are looked at all the time: whether a metric is worse, and whether it is surely not worse.

use super::{
    config::{KillBaseline, Metric, MetricKind, Policy},
    snapshot::{Epoch, Measurement, Sample, Snapshot},
    state::State,
    stratified::{Stratified, Stratum, guard, stratum},
    verdict::{Method, Purpose, Test},
};
use crate::{
    error::{Error, Result},
    sequential::{BetaBinomial, EventShare, QuantileTest, beta_binomial, mixture_rho, one_sided_ln_e, p_of},
    stats::{Histogram, Merge, Proportion},
};
use std::borrow::Cow;

/// Prior weight of event shares.
const C: f64 = 1.0;
/// Units that quantile tests and ceilings are tuned for.
const T_OPT: f64 = 100.0;
const ALPHA_OPT: f64 = 0.05;
/// Quantiles further out than this need [`TAIL_UNITS`] units in each arm.
const TAIL: f64 = 0.97;
const TAIL_UNITS: f64 = 1_000.0;
/// Units at which confidence sequences are narrowest when the policy does not say.
pub(super) const N_STAR: f64 = 5_000.0;

/// A metric of a release, as one run sees it.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) policy: &'a Policy,
    pub(super) snapshot: &'a Snapshot,
    pub(super) name: &'a str,
    pub(super) metric: &'a Metric,
}

/// What each test of a kind may spend.
#[derive(Clone, Copy)]
pub(super) struct Spend {
    pub(super) purpose: Purpose,
    /// Level of one test, before it is shared among epochs.
    pub(super) alpha: f64,
}

/// The share of a test's level that belongs to epoch `index` of `steps` planned ones. All together at most 1, however
/// many epochs there are in the end: unplanned ones halve what is left of the last share.
fn epoch_share(index: usize, steps: u32) -> f64 {
    let planned = f64::from(steps.max(1));
    let late = (index + 1).saturating_sub(steps.max(1) as usize);
    if index + 1 < steps.max(1) as usize {
        1.0 / planned
    } else {
        0.5f64.powf((late + 1).min(1_000) as f64) / planned
    }
}

impl<'a> Subject<'a> {
    /// Epochs that measured it.
    fn measured(&self) -> impl Iterator<Item = (usize, &'a Epoch, &'a Measurement)> + use<'a> {
        let name = self.name;
        let epochs = self.snapshot.epochs.iter().enumerate();
        epochs.filter_map(move |(index, epoch)| Some((index, epoch, epoch.metrics.get(name)?)))
    }

    /// Strata of all epochs from `first` on.
    pub(super) fn strata(&self, first: usize) -> Result<Vec<Stratum>> {
        let epochs = self.snapshot.epochs.iter().skip(first);
        epochs.filter_map(|epoch| stratum(self.metric, self.name, epoch).transpose()).collect()
    }

    /// # Errors
    /// When a sample is malformed, or not of the metric's kind.
    pub(super) fn sound(&self) -> Result<()> {
        match self.metric.kind {
            MetricKind::Event => {
                self.measured().try_for_each(|(_, epoch, data)| self.events(epoch, data, true).map(drop))
            }
            MetricKind::Latency => self.measured().try_for_each(|(_, _, data)| {
                let Some((a, b)) = histograms(data, true)? else { return Ok(()) };
                a.total()?;
                b.total()?;
                if a.grid == b.grid {
                    Ok(())
                } else {
                    Err(Error::Mismatch { what: "grids of histograms".to_owned() })
                }
            }),
            _ => self.strata(0).map(drop),
        }
    }

    /// All tests whether it is worse than tolerated. An empty list is no data, and no pass.
    pub(super) fn worse(&self, spend: Spend, state: &mut State) -> Result<Vec<Test>> {
        let mut tests = match self.metric.kind {
            MetricKind::Event => self.worse_events(spend)?,
            MetricKind::Latency => self.slower(spend)?,
            _ => self.worse_mean(spend)?.into_iter().collect(),
        };
        for test in &mut tests {
            let key = self.key(test);
            let ln_e = test.ln_e.unwrap_or_default();
            let highest = state.evidence.get(&key).copied().unwrap_or(0.0).max(ln_e);
            state.evidence.insert(key, highest);
            test.highest_ln_e = Some(highest);
            test.p = Some(p_of(highest));
            test.reached = highest >= test.threshold;
        }
        Ok(tests)
    }

    fn key(&self, test: &Test) -> String {
        let mut key =
            format!("{}/{}", if test.purpose == Purpose::Signal { "signal" } else { "kill" }, self.name);
        if test.method == Method::Ceiling {
            key.push_str("/ceiling");
        }
        if let Some(q) = test.quantile {
            key.push_str(&format!("/q{q}"));
        }
        if let Some(epoch) = &test.epoch {
            key.push('/');
            key.push_str(epoch);
        }
        key
    }

    fn test(&self, spend: Spend, method: Method, ln_e: f64, alpha: f64) -> Test {
        let test = Test::new(self.name, spend.purpose, method, alpha);
        Test { ln_e: Some(ln_e), p: Some(p_of(ln_e)), reached: ln_e >= test.threshold, ..test }
    }

    /// Counts of treatment and of those it is compared with, and treatment's share among them.
    fn events(&self, epoch: &Epoch, measurement: &Measurement, all_stable: bool) -> Result<Option<Counts>> {
        let proportion = |sample: &Option<Sample>| match sample {
            None => Ok(None),
            Some(Sample::Proportion(arm)) => arm.check().map(|()| Some(*arm)),
            Some(_) => Err(Error::malformed("this kind of metric needs a proportion")),
        };
        let Some(treatment) = proportion(&measurement.treatment)? else { return Ok(None) };
        let shares = &epoch.shares;
        let control = proportion(&measurement.control)?.filter(|_| shares.control > 0.0);
        let rest = proportion(&measurement.rest)?.filter(|_| shares.rest > 0.0 && all_stable);
        let stable = match (control, rest) {
            (Some(control), Some(rest)) => Some((control.merge(&rest)?, shares.control + shares.rest)),
            (Some(control), None) => Some((control, shares.control)),
            (None, Some(rest)) => Some((rest, shares.rest)),
            (None, None) => None,
        };
        let stable = stable.filter(|_| shares.treatment > 0.0);
        Ok(Some(Counts {
            treatment,
            stable: stable.map(|(stable, share)| (stable, shares.treatment / (shares.treatment + share))),
        }))
    }

    /// The evidence of all epochs: by the share of bad events that treatment has, and by
    /// its rate alone where there is a ceiling. Epochs multiply: of units without an event nothing was seen yet.
    fn event_tests(
        &self,
        spend: Spend,
        all_stable: bool,
        by_share: impl Fn(f64, u64, u64) -> Result<f64>,
        by_rate: impl Fn(&BetaBinomial, f64, f64) -> f64,
    ) -> Result<Vec<Test>> {
        let (mut share, mut compared) = (0.0, None::<(Proportion, Proportion)>);
        let (mut rate, mut alone) = (0.0, Proportion::default());
        let ceiling = self.metric.ceiling;
        let ceiling =
            ceiling.map(|ceiling| BetaBinomial::new(ceiling, beta_binomial::tuning(T_OPT, ALPHA_OPT)?));
        let ceiling = ceiling.transpose()?;
        for (_, epoch, measurement) in self.measured() {
            let Some(counts) = self.events(epoch, measurement, all_stable)? else { continue };
            if let Some((stable, pi)) = counts.stable {
                let m = stable.k.checked_add(counts.treatment.k).ok_or(Error::Overflow)?;
                share += by_share(pi, counts.treatment.k, m)?;
                let (a, b) = compared.unwrap_or_default();
                compared = Some((a.merge(&stable)?, b.merge(&counts.treatment)?));
            }
            alone = alone.merge(&counts.treatment)?;
            if let Some(test) = &ceiling {
                rate += by_rate(test, counts.treatment.k as f64, counts.treatment.n as f64);
            }
        }
        let mut tests = Vec::new();
        if let Some((stable, treatment)) = compared {
            let mut test = self.test(spend, Method::EventShare, share, spend.alpha);
            (test.n_control, test.n_treatment) = (stable.k, treatment.k);
            self.describe(&mut test)?;
            tests.push(test);
        }
        if ceiling.is_some() && alone.n > 0 {
            let mut test = self.test(spend, Method::Ceiling, rate, spend.alpha);
            (test.estimate, test.n_treatment) = (alone.share(), alone.n);
            tests.push(test);
        }
        Ok(tests)
    }

    fn worse_events(&self, spend: Spend) -> Result<Vec<Test>> {
        let all_stable = self.policy.kill_baseline == KillBaseline::AllStable;
        let by_share = |pi, k, m| EventShare::new(pi, self.metric.tolerance(), C)?.ln_e_worse(k, m);
        self.event_tests(spend, all_stable, by_share, BetaBinomial::ln_e_above)
    }

    /// The stratified difference against the concurrent control, for people.
    fn describe(&self, test: &mut Test) -> Result<()> {
        let difference = Stratified::of(&self.strata(0)?);
        if difference.information > 0.0 {
            test.estimate = Some(difference.difference);
            test.relative = difference.relative();
        }
        Ok(())
    }

    fn slower(&self, spend: Spend) -> Result<Vec<Test>> {
        let all_stable = self.policy.kill_baseline == KillBaseline::AllStable;
        let mut tests = Vec::new();
        for (index, epoch, measurement) in self.measured() {
            let Some((stable, treatment)) = histograms(measurement, all_stable)? else { continue };
            let (n_control, n_treatment) = (stable.total()?, treatment.total()?);
            if n_control == 0 || n_treatment == 0 {
                continue;
            }
            for q in self.metric.quantiles() {
                if *q > TAIL && (n_control.min(n_treatment) as f64) < TAIL_UNITS {
                    continue;
                }
                let ln_e = quantile_test(*q)?.ln_e_slower(&stable, treatment, self.metric.tolerance())?;
                let alpha = spend.alpha * epoch_share(index, self.policy.steps);
                let mut test = self.test(spend, Method::Quantile, ln_e, alpha);
                describe_quantile(&mut test, *q, epoch, &stable, treatment);
                tests.push(test);
            }
        }
        Ok(tests)
    }

    /// Means have no exact test: a confidence sequence, once its guards hold.
    fn worse_mean(&self, spend: Spend) -> Result<Option<Test>> {
        let strata = self.strata(0)?;
        if guard(self.metric, &strata).is_err() {
            return Ok(None);
        }
        let all = Stratified::of(&strata);
        let tolerated = self.metric.tolerance() * all.control_mean.abs();
        let worse = -(self.metric.better().sign() * all.difference + tolerated);
        self.by_mixture(spend, &all, worse)
    }

    /// Evidence that `excess`, with the standard error of `all`, is above 0.
    fn by_mixture(&self, spend: Spend, all: &Stratified, excess: f64) -> Result<Option<Test>> {
        if all.se <= 0.0 {
            return Ok(None);
        }
        let n = all.n_control as f64 + all.n_treatment as f64;
        let rho = mixture_rho(self.policy.n_star.unwrap_or(N_STAR), 2.0 * spend.alpha.min(0.4))?;
        let ln_e = one_sided_ln_e(excess / all.se * n.sqrt(), n, rho)?;
        let mut test = self.test(spend, Method::ConfidenceSequence, ln_e, spend.alpha);
        fill(&mut test, self.metric, all);
        Ok(Some(test))
    }

    /// Tests that it is surely not worse than its margin, all of which have to be reached. An empty list is no data, and
    /// no pass. `z` is the bound of this look for means; without one, a confidence sequence.
    pub(super) fn not_worse(
        &self,
        z: Option<f64>,
        first: usize,
    ) -> Result<std::result::Result<Vec<Test>, String>> {
        let spend = Spend { purpose: Purpose::NonInferior, alpha: self.policy.alpha.non_inferior };
        match self.metric.kind {
            MetricKind::Event => self.not_worse_events(spend),
            MetricKind::Latency => self.not_slower(spend),
            _ => {
                let strata = self.strata(first)?;
                if let Err(missing) = guard(self.metric, &strata) {
                    return Ok(Err(missing));
                }
                let all = Stratified::of(&strata);
                let margin = self.metric.margin() * all.control_mean.abs();
                let excess = self.metric.better().sign() * all.difference + margin;
                let Some(z) = z else {
                    let test = self.by_mixture(spend, &all, excess)?;
                    return Ok(test.map(|test| vec![test]).ok_or_else(|| "no variance".to_owned()));
                };
                let mut test = self.test(spend, Method::GroupSequential, 0.0, spend.alpha);
                fill(&mut test, self.metric, &all);
                (test.ln_e, test.p) = (None, None);
                test.z = Some(excess / all.se).filter(|z| z.is_finite());
                test.threshold = z;
                test.reached = test.z.is_some_and(|excess| excess > z);
                let half = z * all.se;
                (test.low, test.high) = (Some(all.difference - half), Some(all.difference + half));
                Ok(Ok(vec![test]))
            }
        }
    }

    fn not_worse_events(&self, spend: Spend) -> Result<std::result::Result<Vec<Test>, String>> {
        // Either will do: below an acceptable rate, nobody minds the ratio. Both together get the level once.
        let ways = 1.0 + f64::from(u8::from(self.metric.ceiling.is_some()));
        let spend = Spend { alpha: spend.alpha / ways, ..spend };
        let by_share = |pi, k, m| EventShare::new(pi, self.metric.margin(), C)?.ln_e_not_worse(k, m);
        let mut tests = self.event_tests(spend, false, by_share, BetaBinomial::ln_e_below)?;
        if tests.is_empty() {
            return Ok(Err("no data of both arms".to_owned()));
        }
        if let Some(passed) = tests.iter().position(|test| test.reached) {
            tests = tests.into_iter().skip(passed).take(1).collect();
        }
        Ok(Ok(tests))
    }

    fn not_slower(&self, spend: Spend) -> Result<std::result::Result<Vec<Test>, String>> {
        let current = self.snapshot.epochs.last();
        let measured = current.and_then(|epoch| Some((epoch, epoch.metrics.get(self.name)?)));
        let Some((epoch, measurement)) = measured else { return Ok(Err("no data of this epoch".to_owned())) };
        let Some((control, treatment)) = histograms(measurement, false)? else {
            return Ok(Err("no data of both arms in this epoch".to_owned()));
        };
        let mut tests = Vec::new();
        for q in self.metric.promote_quantiles() {
            let ln_e = quantile_test(*q)?.ln_e_not_slower(&control, treatment, self.metric.margin())?;
            let mut test = self.test(spend, Method::Quantile, ln_e, spend.alpha);
            describe_quantile(&mut test, *q, epoch, &control, treatment);
            tests.push(test);
        }
        Ok(Ok(tests))
    }
}

struct Counts {
    treatment: Proportion,
    /// Those it is compared with, and treatment's share among all compared units.
    stable: Option<(Proportion, f64)>,
}

fn quantile_test(q: f64) -> Result<QuantileTest> {
    QuantileTest::new(q, T_OPT, ALPHA_OPT)
}

/// What is compared with treatment's histogram, and that.
fn histograms(
    measurement: &Measurement,
    all_stable: bool,
) -> Result<Option<(Cow<'_, Histogram>, &Histogram)>> {
    fn histogram(sample: Option<&Sample>) -> Result<Option<&Histogram>> {
        match sample {
            None => Ok(None),
            Some(Sample::Histogram(arm)) => Ok(Some(arm)),
            Some(_) => Err(Error::malformed("this kind of metric needs a histogram")),
        }
    }
    let Some(treatment) = histogram(measurement.treatment.as_ref())? else { return Ok(None) };
    let control = histogram(measurement.control.as_ref())?;
    let rest = if all_stable { histogram(measurement.rest.as_ref())? } else { None };
    let stable = match (control, rest) {
        (Some(control), Some(rest)) => Some(Cow::Owned(control.merge(rest)?)),
        (one, other) => one.or(other).map(Cow::Borrowed),
    };
    Ok(stable.map(|stable| (stable, treatment)))
}

/// Estimate: the ratio of the quantiles less one.
fn describe_quantile(test: &mut Test, q: f64, epoch: &Epoch, stable: &Histogram, treatment: &Histogram) {
    test.quantile = Some(q);
    test.epoch = Some(epoch.id.clone());
    test.n_control = stable.total().unwrap_or(u64::MAX);
    test.n_treatment = treatment.total().unwrap_or(u64::MAX);
    if let (Some(a), Some(b)) = (stable.quantile(q), treatment.quantile(q)) {
        test.estimate = Some(b - a).filter(|difference| difference.is_finite());
        test.relative = Some(b / a - 1.0).filter(|ratio| ratio.is_finite());
    }
}

/// What is known of a stratified difference.
pub(super) fn fill(test: &mut Test, metric: &Metric, all: &Stratified) {
    test.estimate = Some(all.difference);
    test.relative = all.relative();
    test.z = all.z(metric);
    (test.n_control, test.n_treatment) = (all.n_control, all.n_treatment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_never_spend_more_than_the_level() {
        for steps in [0, 1, 5, 1_000] {
            let sum: f64 = (0..3_000).map(|index| epoch_share(index, steps)).sum();
            assert!(sum <= 1.0 + 1e-12 && sum > 0.49, "{steps}: {sum}");
        }
    }
}
