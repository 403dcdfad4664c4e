//! Special functions, accurate to where the judge needs them: counts of 1e15 and tails of 1e-300.
//!
//! `libm` has erfc and ln Γ, `statrs` the normal quantile and the tails of χ² and Student. What `statrs` gets
//! wrong is computed here: the Student quantile (off by 1e-4 at 1e6 degrees of freedom, and without an end from 1e8
//! on), the incomplete beta function at large parameters, and differences of ln Γ.

pub(crate) mod beta;
pub(crate) mod chi_square;
pub(crate) mod gamma;
pub mod normal;
pub(crate) mod quadrature;
pub(crate) mod roots;
pub mod student;

/// ln(e^a + e^b) without overflow. −∞ stands for a probability of 0.
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// ln(1 − e^x) for x ≤ 0, accurate at both ends.
pub(crate) fn ln_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}
