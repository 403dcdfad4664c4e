//! Shadow trials, looked at all the time.

use super::{BetaBinomial, ConfidenceSequence, Sides, asymptotic_cs};
use crate::{
    error::{Error, Result},
    stats::{Mean, PairedOutcomes},
};

/// ln E that the candidate's answer is the bad one in more than half of the pairs in which the versions disagree:
/// G⁺(b; b + c, ½, 1). McNemar's test at every moment; exact, and with no assumption on how often answers are bad.
///
/// Source: the beta-binomial of [`BetaBinomial`](super::BetaBinomial).
///
/// # Errors
/// When a count overflows.
pub fn paired_outcomes_ln_e(pairs: &PairedOutcomes) -> Result<f64> {
    let disagree = pairs.only_control.checked_add(pairs.only_treatment).ok_or(Error::Overflow)?;
    Ok(BetaBinomial::new(0.5, 1.0)?.ln_e_above(pairs.only_treatment as f64, disagree as f64))
}

/// The asymptotic confidence sequence of the mean of paired differences (candidate − stable).
///
/// Source: as [`asymptotic_cs`](super::asymptotic_cs).
///
/// # Errors
/// When there are fewer than two pairs, the differences do not vary, or a parameter is outside of its range.
pub fn paired_differences_cs(
    differences: &Mean,
    alpha: f64,
    n_star: f64,
    sides: Sides,
) -> Result<ConfidenceSequence> {
    differences.check()?;
    let variance = differences.variance().ok_or_else(|| Error::too_few("fewer than 2 pairs"))?;
    let n = differences.n as f64;
    asymptotic_cs(differences.mean, (variance / n).sqrt(), n, alpha, n_star, sides)
}
