//! Normal mixtures: confidence sequences for means, and the mSPRT, which is one of them.

use crate::{
    error::{Error, Result, finite, positive, probability},
    special::{normal, roots::sign_change},
};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// Two limits at once, or each by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sides {
    /// Both limits hold together at level α.
    #[default]
    Two,
    /// Each limit holds by itself at level α.
    One,
}

/// An asymptotic confidence sequence at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceSequence {
    /// The estimate it is around.
    pub estimate: f64,
    /// Its standard error.
    pub se: f64,
    /// Lower limit.
    pub low: f64,
    /// Upper limit.
    pub high: f64,
    /// ln of the e-value against no difference; two-sided whatever the limits are.
    pub ln_e: f64,
    /// min(1, 1/E).
    pub p: f64,
}

/// The asymptotic confidence sequence of an estimate over `n` units in all: half-width
/// SE·√n·√(2(nρ² + 1)/(nρ)²·ln(√(nρ² + 1)/α)), ρ² = (−2 ln α + ln(1 − 2 ln α))/N*; with one side 2α in ρ² and
/// ln(1 + √(nρ² + 1)/(2α)) for the logarithm. ln E = ρ²S/(2(nρ² + 1)) − ½ ln(nρ² + 1), S = n·estimate²/SE².
///
/// `n_star` is the number of units at which it is narrowest relative to others. Valid for large n only: at small shares
/// and skewed data it promises too much unless the guards of the policy hold.
///
/// Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2021), "Time-uniform central limit theory and asymptotic
/// confidence sequences", as in GrowthBook.
///
/// # Errors
/// When the standard error or `n_star` is not above 0, there are no units, or `alpha` is no probability (below ½ for one
/// side).
pub fn asymptotic_cs(
    estimate: f64,
    se: f64,
    n: f64,
    alpha: f64,
    n_star: f64,
    sides: Sides,
) -> Result<ConfidenceSequence> {
    finite("the estimate", estimate)?;
    positive("the standard error", se)?;
    positive("the number of units", n)?;
    positive("N*", n_star)?;
    let level = probability("alpha", if sides == Sides::One { 2.0 * alpha } else { alpha })?;
    let rho2 = rho2(level, n_star);
    let grown = n * rho2 + 1.0;
    let ln = match sides {
        Sides::Two => (grown.sqrt() / level).ln(),
        Sides::One => (grown.sqrt() / level).ln_1p(),
    };
    let half = se * (2.0 * grown / (n * rho2) * ln).sqrt();
    let z = estimate / se;
    // S/n = z², so that nρ² is all that is needed.
    let ln_e = 0.5 * (n * rho2 * z * z / grown - grown.ln());
    let (low, high) = (estimate - half, estimate + half);
    if !(low.is_finite() && high.is_finite() && ln_e.is_finite()) {
        return Err(Error::malformed("an estimate too large for its standard error"));
    }
    Ok(ConfidenceSequence { estimate, se, low, high, ln_e, p: super::p_of(ln_e) })
}

/// ρ² of the sequence that is narrowest at `n_star` units.
fn rho2(alpha: f64, n_star: f64) -> f64 {
    let l = -2.0 * alpha.ln();
    (l + l.ln_1p()) / n_star
}

/// The same as a bound on |Z| at information time t: √((1 + r/t)(ln(1 + t/r) + 2 ln(1/α))), r = t_opt/(L + ln(1 + L)),
/// L = −2 ln α.
///
/// Source: as [`asymptotic_cs`].
///
/// # Errors
/// When a time is not above 0 or `alpha` no probability.
pub fn asymptotic_z_bound(t: f64, t_opt: f64, alpha: f64) -> Result<f64> {
    positive("the information time", t)?;
    positive("t_opt", t_opt)?;
    let r = 1.0 / rho2(probability("alpha", alpha)?, t_opt);
    Ok(((1.0 + r / t) * ((t / r).ln_1p() - 2.0 * alpha.ln())).sqrt())
}

/// ρ = v_opt/(L + ln(1 + L)), L = 2 ln(1/α_opt); for the one-sided mixture pass 2α_opt.
///
/// Source: Howard et al. (2021); confseq.
///
/// # Errors
/// When `v_opt` is not above 0 or `alpha_opt` no probability.
pub fn mixture_rho(v_opt: f64, alpha_opt: f64) -> Result<f64> {
    positive("v_opt", v_opt)?;
    Ok(1.0 / rho2(probability("alpha_opt", alpha_opt)?, v_opt))
}

fn mixture(s: f64, v: f64, rho: f64) -> Result<()> {
    finite("the sum", s)?;
    positive("rho", rho)?;
    if v >= 0.0 && v.is_finite() { Ok(()) } else { Err(Error::range("the variance", v, "at least 0")) }
}

/// Robbins' two-sided normal mixture for a sum `s` with variance `v`: ln E = ½ ln(ρ/(v + ρ)) + s²/(2(v + ρ)).
///
/// Source: Robbins (1970).
///
/// # Errors
/// When a number is not finite, or ρ not above 0.
pub fn mixture_ln_e(s: f64, v: f64, rho: f64) -> Result<f64> {
    mixture(s, v, rho)?;
    Ok(-0.5 * (v / rho).ln_1p() + s / (v + rho) * s / 2.0)
}

/// The bound on |s|: √((v + ρ)(ln(1 + v/ρ) + 2 ln(1/α))).
///
/// Source: Robbins (1970).
///
/// # Errors
/// When a number is outside of its range.
pub fn mixture_bound(v: f64, rho: f64, alpha: f64) -> Result<f64> {
    mixture(0.0, v, rho)?;
    Ok(((v + rho) * ((v / rho).ln_1p() - 2.0 * probability("alpha", alpha)?.ln())).sqrt())
}

/// The one-sided normal mixture: ln E = ½ ln(4ρ/(v + ρ)) + s²/(2(v + ρ)) + ln Φ(s/√(v + ρ)).
///
/// Source: Howard et al. (2021), proposition 6; confseq.
///
/// # Errors
/// When a number is not finite, or ρ not above 0.
pub fn one_sided_ln_e(s: f64, v: f64, rho: f64) -> Result<f64> {
    mixture(s, v, rho)?;
    let z = s / (v + rho).sqrt();
    // s² and ln Φ cancel far below 0, where Mills' ratio is what is left.
    let rest = if z < 0.0 {
        normal::mills(-z).ln() - normal::HALF_LN_TAU
    } else {
        0.5 * z * z + normal::ln_upper_tail(-z)
    };
    Ok(LN_2 - 0.5 * (v / rho).ln_1p() + rest)
}

/// The s at which [`one_sided_ln_e`] reaches ln(1/α).
///
/// Source: Howard et al. (2021); confseq.
///
/// # Errors
/// When a number is outside of its range.
pub fn one_sided_bound(v: f64, rho: f64, alpha: f64) -> Result<f64> {
    let wanted = -probability("alpha", alpha)?.ln();
    // Φ ≥ ½ for s ≥ 0, so that the two-sided bound at α is beyond this one.
    let high = mixture_bound(v, rho, alpha)?;
    Ok(sign_change(0.0, high, 1e-13 * high, |s| {
        one_sided_ln_e(s, v, rho).map_or(f64::NAN, |ln_e| ln_e - wanted)
    }))
}

/// The mSPRT of two streams of `n` each with known σ, prior N(0, τ²) and mean difference d: the two-sided mixture with
/// ρ = 4σ⁴/τ², s = nd, v = 2σ²n, and no second method.
///
/// Source: Johari, Koomen, Pekelis, Walsh (2017), "Peeking at A/B tests".
///
/// # Errors
/// When a number is outside of its range.
pub fn msprt_ln_e(difference: f64, n: f64, sigma: f64, tau: f64) -> Result<f64> {
    positive("sigma", sigma)?;
    positive("tau", tau)?;
    positive("n", n)?;
    let variance = sigma * sigma;
    mixture_ln_e(n * difference, 2.0 * variance * n, 4.0 * variance * variance / (tau * tau))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_and_evidence_say_the_same() {
        for n in [10.0, 1e3, 1e7] {
            let bound = asymptotic_z_bound(n, 5_000.0, 0.01).unwrap();
            let at = asymptotic_cs(bound, 1.0, n, 0.01, 5_000.0, Sides::Two).unwrap();
            assert!(at.low.abs() < 1e-9 && (at.ln_e - 100f64.ln()).abs() < 1e-9, "{at:?}");
        }
        let s = one_sided_bound(50.0, 20.0, 0.05).unwrap();
        assert!((one_sided_ln_e(s, 50.0, 20.0).unwrap() - 20f64.ln()).abs() < 1e-9);
        assert!(one_sided_ln_e(-1e9, 50.0, 20.0).unwrap() < -10.0);
        assert!(asymptotic_cs(0.0, 0.0, 10.0, 0.05, 100.0, Sides::Two).is_err());
        assert!(asymptotic_cs(0.0, 1.0, 10.0, 0.6, 100.0, Sides::One).is_err());
    }
}
