use super::BetaBinomial;
use crate::error::{Error, Result, probability};

/// The share that treatment has of all bad events when its rate is 1 + `tolerance` times the others':
/// π' = π(1 + δ)/(π(1 + δ) + 1 − π).
///
/// # Errors
/// When `share` is no probability, or `tolerance` not above −1 and finite.
pub fn tolerated_share(share: f64, tolerance: f64) -> Result<f64> {
    probability("the share of treatment", share)?;
    if !(tolerance > -1.0 && tolerance.is_finite()) {
        return Err(Error::range("the tolerance", tolerance, "above -1"));
    }
    let raised = share * (1.0 + tolerance);
    Ok(raised / (raised + 1.0 - share))
}

/// Who has the bad events: of m units with a first bad event, k were treatment's, which has the share π of the compared
/// units. Whatever the rate of events is and however it changes over the day, each falls on treatment with probability
/// π when the versions are equally good; randomisation alone makes that exact. It works from the first event on,
/// with none in control, and needs no variance.
///
/// Source: Lindon, Malek (Netflix, 2022), "Anytime-valid inference for multinomial count data".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventShare(BetaBinomial);

impl EventShare {
    /// `share` of the compared units is treatment's; rates up to 1 + `tolerance` times the others' belong to the null
    /// hypothesis. `c` weighs the prior: 1 by default.
    ///
    /// # Errors
    /// When a parameter is outside of its range.
    pub fn new(share: f64, tolerance: f64, c: f64) -> Result<Self> {
        Ok(Self(BetaBinomial::new(tolerated_share(share, tolerance)?, c)?))
    }

    /// ln E of one epoch that treatment is worse than tolerated: G⁺(k; m, π', c). Logarithms of epochs add up.
    ///
    /// # Errors
    /// When `k` exceeds `m`.
    pub fn ln_e_worse(&self, k: u64, m: u64) -> Result<f64> {
        check(k, m)?;
        Ok(self.0.ln_e_above(k as f64, m as f64))
    }

    /// ln E of one epoch that treatment is not that much worse: G⁻(k; m, π', c). With the margin in place of the
    /// tolerance, it is the test of non-inferiority.
    ///
    /// # Errors
    /// When `k` exceeds `m`.
    pub fn ln_e_not_worse(&self, k: u64, m: u64) -> Result<f64> {
        check(k, m)?;
        Ok(self.0.ln_e_below(k as f64, m as f64))
    }

    /// The null share π'.
    #[must_use]
    pub fn null_share(&self) -> f64 {
        self.0.share()
    }
}

fn check(k: u64, m: u64) -> Result<()> {
    if k > m { Err(Error::MoreThanAll { k, n: m }) } else { Ok(()) }
}
