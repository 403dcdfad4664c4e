//! The normal distribution: tails by their own function, never as 1 − cdf, which is 0 from z = 8.3 on.

use crate::error::{Result, probability};
use libm::erfc;
use statrs::distribution::{ContinuousCDF, Normal};
use std::f64::consts::{LN_10, SQRT_2};

/// ½ ln 2π.
pub(crate) const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// From here on the continued fraction of the tail has converged after [`TERMS`] terms.
const FAR: f64 = 4.0;
const TERMS: u32 = 80;

/// Density φ(z) = exp(−z²/2)/√(2π).
#[must_use]
pub fn density(z: f64) -> f64 {
    (-0.5 * z * z - HALF_LN_TAU).exp()
}

/// Upper tail 1 − Φ(z) = ½ erfc(z/√2); 0 below about 1e-308, where [`ln_upper_tail`] goes on.
#[must_use]
pub fn upper_tail(z: f64) -> f64 {
    0.5 * erfc(z / SQRT_2)
}

/// Lower tail Φ(z), as accurate as [`upper_tail`].
#[must_use]
pub fn lower_tail(z: f64) -> f64 {
    upper_tail(-z)
}

/// Mills' ratio (1 − Φ(z))/φ(z) for z ≥ [`FAR`]: 1/(z + 1/(z + 2/(z + 3/(z + …)))) (Laplace), from its end.
fn mills_far(z: f64) -> f64 {
    let mut below = z;
    for term in (1..=TERMS).rev() {
        below = z + f64::from(term) / below;
    }
    1.0 / below
}

/// Mills' ratio (1 − Φ(z))/φ(z).
pub(crate) fn mills(z: f64) -> f64 {
    if z >= FAR { mills_far(z) } else { upper_tail(z) / density(z) }
}

/// ln(1 − Φ(z)), for any z: −z²/2 stays finite long after the tail has underflowed.
///
/// Source: Laplace's continued fraction, Abramowitz & Stegun 26.2.14.
#[must_use]
pub fn ln_upper_tail(z: f64) -> f64 {
    if z >= FAR {
        -0.5 * z * z - HALF_LN_TAU + mills_far(z).ln()
    } else if z < -1.0 {
        (-upper_tail(-z)).ln_1p()
    } else {
        upper_tail(z).ln()
    }
}

/// log10(1 − Φ(z)).
#[must_use]
pub fn log10_upper_tail(z: f64) -> f64 {
    ln_upper_tail(z) / LN_10
}

/// ln of the two-sided p value 2(1 − Φ(|z|)).
#[must_use]
pub fn ln_two_sided(z: f64) -> f64 {
    (std::f64::consts::LN_2 + ln_upper_tail(z.abs())).min(0.0)
}

/// Quantile z with 1 − Φ(z) = `p`. Exact to the last digits for p down to 1e-300.
///
/// # Errors
/// When `p` is not strictly between 0 and 1.
pub fn upper_quantile(p: f64) -> Result<f64> {
    probability("a tail probability", p)?;
    let near = -Normal::standard().inverse_cdf(p);
    if p > 0.5 {
        return Ok(near);
    }
    // One step of Newton's method on the logarithm mends the last digits.
    Ok(near + (ln_upper_tail(near) - p.ln()) * mills(near))
}

/// z with 1 − Φ(z) = α/2: what a two-sided test at level α compares |Z| with.
///
/// # Errors
/// When `alpha` is not strictly between 0 and 1.
pub fn two_sided_quantile(alpha: f64) -> Result<f64> {
    probability("alpha", alpha)?;
    upper_quantile(alpha / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Continued fraction and series in decimal arithmetic of 60 digits.
    #[test]
    #[allow(clippy::approx_constant, reason = "the value at zero happens to be a half")]
    fn tails_go_down_to_1e_minus_300_and_beyond() {
        for (z, log10) in [
            (0.0, -0.301_029_995_663_981_2),
            (1.5, -1.175_176_721_614_816_4),
            (3.9, -4.317_887_934_714_023),
            (10.0, -23.118_053_405_486_076),
            (37.0, -299.242_181_178_609_94),
            (100.0, -2_173.871_542_869_034_4),
        ] {
            let computed = log10_upper_tail(z);
            assert!((computed - log10).abs() < 1e-11 * log10.abs().max(1.0), "{z}: {computed}");
        }
        assert!(ln_upper_tail(1e100).is_finite() && ln_upper_tail(-1e100).abs() == 0.0);
        // Both forms meet where one takes over.
        for edge in [FAR, -1.0] {
            let (left, right) = (ln_upper_tail(edge - 1e-9), ln_upper_tail(edge + 1e-9));
            assert!((left - right).abs() < 1e-8, "{edge}: {left} {right}");
        }
    }

    #[test]
    fn quantile_and_tail_are_inverse() {
        for p in [1e-300, 1e-100, 1e-12, 1e-3, 0.3, 0.5, 0.7, 0.999_999] {
            let z = upper_quantile(p).unwrap();
            assert!((ln_upper_tail(z) - p.ln()).abs() < 1e-11 * p.ln().abs().max(0.1), "{p}: {z}");
        }
        for p in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(upper_quantile(p).is_err(), "{p}");
        }
    }
}
