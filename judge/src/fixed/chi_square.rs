use crate::{
    error::{Error, Result, positive},
    special::chi_square::upper_tail,
    stats::Proportion,
};
use serde::{Deserialize, Serialize};

/// A χ² test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChiSquare {
    /// The statistic.
    pub chi2: f64,
    /// Degrees of freedom.
    pub df: f64,
    /// p value.
    pub p: f64,
}

/// Whether counts have the proportions of `weights`: Σ(O − E)²/E, df = cells with a weight above 0, less one. One
/// look only: repeated at p < .001 it raises a false alarm in 2.6 % of sound releases within 1000 looks.
///
/// Source: Pearson (1900).
///
/// # Errors
/// When the numbers of cells differ, a weight is negative or none above 0, a cell of weight 0 holds units, or
/// there are none at all.
pub fn goodness_of_fit(observed: &[u64], weights: &[f64]) -> Result<ChiSquare> {
    if observed.len() != weights.len() {
        return Err(Error::Mismatch { what: "numbers of counts and weights".to_owned() });
    }
    if let Some(bad) = weights.iter().find(|weight| !(**weight >= 0.0 && weight.is_finite())) {
        return Err(Error::range("a weight", *bad, "at least 0"));
    }
    let sum = positive("the sum of the weights", weights.iter().sum())?;
    let total: f64 = observed.iter().map(|count| *count as f64).sum();
    if total == 0.0 {
        return Err(Error::too_few("no units"));
    }
    let mut chi2 = 0.0;
    let mut cells = 0.0;
    for (count, weight) in observed.iter().zip(weights) {
        if *weight > 0.0 {
            let expected = total * weight / sum;
            chi2 += (*count as f64 - expected).powi(2) / expected;
            cells += 1.0;
        } else if *count > 0 {
            return Err(Error::malformed("units in a cell of weight 0"));
        }
    }
    with_tail(chi2, cells - 1.0)
}

/// Whether several proportions are equal: Σ(k_i − n_i·P)²/(n_i·P(1 − P)) with P pooled, df = arms − 1.
///
/// Source: Pearson (1900).
///
/// # Errors
/// When there are fewer than two arms, or one has no units or more events than units.
pub fn homogeneity(arms: &[Proportion]) -> Result<ChiSquare> {
    arms.iter().try_for_each(Proportion::check)?;
    if arms.len() < 2 || arms.iter().any(|arm| arm.n == 0) {
        return Err(Error::too_few("fewer than 2 arms with units"));
    }
    let events: f64 = arms.iter().map(|arm| arm.k as f64).sum();
    let pooled = events / arms.iter().map(|arm| arm.n as f64).sum::<f64>();
    let df = (arms.len() - 1) as f64;
    if pooled <= 0.0 || pooled >= 1.0 {
        return Ok(ChiSquare { chi2: 0.0, df, p: 1.0 });
    }
    let term = |arm: &Proportion| {
        let n = arm.n as f64;
        (arm.k as f64 - n * pooled).powi(2) / (n * pooled * (1.0 - pooled))
    };
    with_tail(arms.iter().map(term).sum(), df)
}

fn with_tail(chi2: f64, df: f64) -> Result<ChiSquare> {
    let p = if df > 0.0 { upper_tail(chi2, df)? } else { 1.0 };
    Ok(ChiSquare { chi2, df, p })
}
