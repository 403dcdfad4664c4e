use super::{
    Alternative, Comparison, Moments,
    welch::{t_test, welch_df},
};
use crate::error::{Error, Result, probability};

/// Standard errors that the baseline has to be away from 0 for a relative difference to mean something.
const LEAST_BASELINE: f64 = 5.0;

/// The relative difference (m_b − m_a)/|m_a| by the delta method: var = V_b/m_a² + V_a·m_b²/m_a⁴, V = v/n, with
/// Welch's degrees of freedom of the unscaled variances. Divided by |m_a|, so that better stays better when the
/// baseline is negative.
///
/// Source: the delta method; Deng, Knoblich, Lu (2018).
///
/// # Errors
/// As [`super::welch`]; and when the baseline is within 5 standard errors of 0, where only absolute differences
/// are meaningful.
pub fn relative_lift(control: &Moments, treatment: &Moments, alpha: f64) -> Result<Comparison> {
    probability("alpha", alpha)?;
    control.check()?;
    treatment.check()?;
    let base = control.mean.abs();
    if base == 0.0 || base < LEAST_BASELINE * control.variance_of_mean().sqrt() {
        return Err(Error::too_few("a baseline within 5 standard errors of 0: only absolute differences"));
    }
    if control.variance == 0.0 && treatment.variance == 0.0 && control.mean == treatment.mean {
        return Ok(Comparison::same_constants());
    }
    let df = welch_df(control, treatment)?;
    let (scaled_b, scaled_a) = (treatment.variance_of_mean(), control.variance_of_mean());
    let ratio = treatment.mean / control.mean;
    let se = (scaled_b + scaled_a * ratio * ratio).sqrt() / base;
    t_test((treatment.mean - control.mean) / base, se, df, alpha, Alternative::TwoSided)
}
