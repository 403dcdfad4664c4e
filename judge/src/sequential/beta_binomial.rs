//! The beta-binomial e-value: k successes in n trials against a share p, with the alternative's share drawn from
//! Beta(pc, (1 − p)c). The engine of the event-share, quantile and sample-ratio tests.

use crate::{
    error::{Error, Result, positive, probability},
    special::{
        beta::{Ratio, Seen},
        ln_one_minus_exp,
        roots::sign_change,
    },
    stats::Proportion,
};

/// What stands for "no evidence at all": e^−700 is the last that floating point tells from 0.
const NO_EVIDENCE: f64 = -700.0;

/// c for a sample of `t_opt` at level `alpha_opt`: max(t_opt/(L + ln(1 + L)) − 1, .001), L = 2 ln(1/α_opt).
///
/// Source: Howard, Ramdas, McAuliffe, Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence
/// sequences"; confseq.
///
/// # Errors
/// When `t_opt` is not above 0 or `alpha_opt` is no probability.
pub fn tuning(t_opt: f64, alpha_opt: f64) -> Result<f64> {
    positive("t_opt", t_opt)?;
    let l = -2.0 * probability("alpha_opt", alpha_opt)?.ln();
    Ok((t_opt / (l + l.ln_1p()) - 1.0).max(1e-3))
}

/// The e-value of one null share and one prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaBinomial {
    p: f64,
    c: f64,
    /// a ln p + b ln(1 − p) − lnB(a, b) of the prior.
    ln_factor: f64,
    /// ln of the prior's mass above and below p.
    ln_above: f64,
    ln_below: f64,
}

impl BetaBinomial {
    /// Null share `p`, prior weight `c`.
    ///
    /// # Errors
    /// When `p` is no probability, or `c` not above 0.
    pub fn new(p: f64, c: f64) -> Result<Self> {
        probability("the null share", p)?;
        positive("the prior weight", c)?;
        let prior = Seen::new(p, p * c, (1.0 - p) * c, 0.0);
        let (ln_above, ln_below) = (prior.ln_upper(), prior.mirrored().ln_upper());
        let new = Self { p, c, ln_factor: prior.ln_factor(), ln_above, ln_below };
        if [new.ln_factor, ln_above, ln_below].iter().all(|number| number.is_finite()) {
            Ok(new)
        } else {
            Err(Error::range("the null share", p, "further from 0 and 1"))
        }
    }

    /// The null share p.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.p
    }

    /// Beta(a + k, b + n − k), seen from p.
    fn posterior(&self, k: f64, n: f64) -> Seen {
        // One rounding only: k and np are close, and large.
        let excess = -n.mul_add(self.p, -k);
        Seen::new(
            self.p,
            self.p.mul_add(self.c, k),
            (1.0 - self.p).mul_add(self.c, n - k),
            excess / (n + self.c),
        )
    }

    /// ln E(k; n, p, c) = lnB(a + k, b + n − k) − lnB(a, b) − k ln p − (n − k) ln(1 − p): evidence that the share is not p.
    /// For real `k`, so that its minimum can be found.
    #[must_use]
    pub fn ln_e(&self, k: f64, n: f64) -> f64 {
        self.ln_factor - self.posterior(k, n).ln_factor()
    }

    /// G⁺ = ln E + ln P(θ > p | data) − ln P(θ > p): evidence that the share is above p, valid for all shares up to p. It
    /// grows with k.
    #[must_use]
    pub fn ln_e_above(&self, k: f64, n: f64) -> f64 {
        self.one_sided(self.posterior(k, n).ratio(), k, n) - self.ln_above
    }

    /// G⁻: evidence that the share is below p. It falls as k grows.
    #[must_use]
    pub fn ln_e_below(&self, k: f64, n: f64) -> f64 {
        let posterior = match self.posterior(k, n).ratio() {
            Ratio::Upper(ratio) => Ratio::Lower(ratio),
            Ratio::Lower(ratio) => Ratio::Upper(ratio),
        };
        self.one_sided(posterior, k, n) - self.ln_below
    }

    /// ln E + ln of the posterior tail, which is named `Upper` here. Where that tail is the small one, the factor that
    /// both contain cancels.
    fn one_sided(&self, tail: Ratio, k: f64, n: f64) -> f64 {
        let ln_e = match tail {
            Ratio::Upper(ratio) => self.ln_factor + ratio,
            Ratio::Lower(ratio) => {
                let ln_factor = self.posterior(k, n).ln_factor();
                self.ln_factor - ln_factor + ln_one_minus_exp((ln_factor + ratio).min(-f64::MIN_POSITIVE))
            }
        };
        if ln_e.is_nan() { NO_EVIDENCE } else { ln_e.max(NO_EVIDENCE) }
    }

    /// The real k > np with ln E = ln(1/α): the boundary as a count.
    ///
    /// # Errors
    /// When `alpha` is no probability, or no count up to n gets there.
    pub fn count_bound(&self, n: f64, alpha: f64) -> Result<f64> {
        let wanted = -probability("alpha", alpha)?.ln();
        if self.ln_e(n, n).is_nan() || self.ln_e(n, n) < wanted {
            return Err(Error::too_few("even if all trials were successes"));
        }
        Ok(sign_change(n * self.p, n, 1e-12 * n, |k| self.ln_e(k, n) - wanted))
    }
}

/// The confidence sequence of a proportion: all p with ln E(k; n, p, c) < ln(1/α), an interval that holds the truth at
/// all times at once with probability 1 − α. Without trials it is [0, 1].
///
/// Source: Robbins (1970); confseq.
///
/// # Errors
/// When there are more events than units, `alpha` is no probability, or `c` not above 0.
pub fn bernoulli_cs(arm: &Proportion, alpha: f64, c: f64) -> Result<(f64, f64)> {
    /// The closest to 0 and 1 that roots are looked for.
    const EDGE: f64 = 1e-12;
    arm.check()?;
    let wanted = -probability("alpha", alpha)?.ln();
    positive("the prior weight", c)?;
    let Some(share) = arm.share() else { return Ok((0.0, 1.0)) };
    let (k, n) = (arm.k as f64, arm.n as f64);
    // Without the prior's tails, which only one-sided evidence needs.
    let excess = |p: f64| {
        let ln_factor = Seen::new(p, p * c, (1.0 - p) * c, 0.0).ln_factor();
        let test = BetaBinomial { p, c, ln_factor, ln_above: 0.0, ln_below: 0.0 };
        test.ln_e(k, n) - wanted
    };
    let middle = share.clamp(2.0 * EDGE, 1.0 - 2.0 * EDGE);
    let root = |edge: f64, end: f64| {
        if excess(edge) < 0.0 { end } else { sign_change(middle, edge, 1e-15, excess) }
    };
    Ok((root(EDGE, 0.0).min(share), root(1.0 - EDGE, 1.0).max(share)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition by its integral: a bet whose share is drawn from the prior's half above p.
    #[test]
    fn one_sided_evidence_is_the_integral_over_its_half() {
        for (k, n, p, c) in [(5, 6, 0.05, 1.0), (8, 20, 0.3, 4.0), (0, 30, 0.5, 11.6), (100, 190, 0.5, 11.6)]
        {
            let test = BetaBinomial::new(p, c).unwrap();
            let (a, b) = (p * c, (1.0 - p) * c);
            // Midpoints in the angle, which takes the poles at 0 and 1 away.
            let steps = 400_000;
            let (mut above, mut mass) = (0.0, 0.0);
            for step in 0..steps {
                let x = (f64::from(step) + 0.5) / f64::from(steps) * std::f64::consts::FRAC_PI_2;
                let (sin, cos) = (x.sin(), x.cos());
                let share = sin * sin;
                if share > p {
                    let prior = sin.powf(2.0 * a - 1.0) * cos.powf(2.0 * b - 1.0);
                    mass += prior;
                    above += prior * (share / p).powi(k) * ((1.0 - share) / (1.0 - p)).powi(n - k);
                }
            }
            let expected = (above / mass).ln();
            let computed = test.ln_e_above(f64::from(k), f64::from(n));
            assert!((computed - expected).abs() < 2e-3, "{k} of {n}, {p}: {computed} instead of {expected}");
        }
    }

    /// G⁺ must rise and G⁻ fall, or the composite null is not covered; also where one form takes over from another.
    #[test]
    fn one_sided_evidence_is_monotone_at_every_size() {
        for (p, c) in [(0.05, 1.0), (0.5, 11.6), (0.95, 11.6), (1e-6, 1.0)] {
            let test = BetaBinomial::new(p, c).unwrap();
            for n in [1.0, 10.0, 300.0, 1e4, 6e5, 1e6, 1e9, 1e12, 1e15f64] {
                let deviation = (n * p * (1.0 - p)).sqrt().max(1.0);
                let mut last = (f64::NEG_INFINITY, f64::INFINITY);
                let around = (-60..=60).map(|step| n * p + f64::from(step) / 4.0 * deviation);
                for k in [0.0].into_iter().chain(around).chain([n]).filter(|k| (0.0..=n).contains(k)) {
                    let k = k.floor();
                    let now = (test.ln_e_above(k, n), test.ln_e_below(k, n));
                    assert!(now.0.is_finite() && now.1.is_finite());
                    let slack = 1e-6;
                    assert!(
                        now.0 >= last.0 - slack && now.1 <= last.1 + slack,
                        "{p} {n} {k}: {last:?} {now:?}"
                    );
                    last = now;
                }
            }
        }
    }

    /// E is a martingale: its mean after the next trial is what it is now.
    #[test]
    fn evidence_is_a_fair_bet() {
        for p in [0.05, 0.5] {
            let test = BetaBinomial::new(p, 1.0).unwrap();
            for (k, n) in [(0.0, 0.0), (3.0, 7.0), (200.0, 1_000.0), (50_000.0, 1_000_000.0)] {
                let next = p * (test.ln_e(k + 1.0, n + 1.0) - test.ln_e(k, n)).exp()
                    + (1.0 - p) * (test.ln_e(k, n + 1.0) - test.ln_e(k, n)).exp();
                assert!((next - 1.0).abs() < 1e-9, "{p} {k} {n}: {next}");
            }
        }
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (p, c) in [(0.0, 1.0), (1.0, 1.0), (f64::NAN, 1.0), (0.5, 0.0), (0.5, f64::INFINITY)] {
            assert!(BetaBinomial::new(p, c).is_err(), "{p} {c}");
        }
        assert_eq!(bernoulli_cs(&Proportion::default(), 0.05, 1.0).unwrap(), (0.0, 1.0));
        for (n, k) in [(10, 0), (10, 10), (1, 1), (1_000_000_000_000_000, 1)] {
            let (low, high) = bernoulli_cs(&Proportion { n, k }, 0.05, 10.0).unwrap();
            let share = k as f64 / n as f64;
            assert!(0.0 <= low && low <= share && share <= high && high <= 1.0, "{k}/{n}: {low} {high}");
        }
    }
}
