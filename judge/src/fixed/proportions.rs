use super::Comparison;
use crate::{
    error::{Error, Result, probability},
    special::normal,
    stats::Proportion,
};
use std::f64::consts::LN_10;

/// The z test of two proportions: z = (p_b − p_a)/√(P(1 − P)(1/n_a + 1/n_b)) with P pooled, two-sided p, and the Wald
/// interval d ± z_{1−α/2}·√(p_a(1 − p_a)/n_a + p_b(1 − p_b)/n_b). `se` is the interval's.
///
/// The p value and the interval can contradict each other: one pools the variance, the other does not.
/// Source: Fleiss (1981), as R's `prop.test` without continuity correction.
///
/// # Errors
/// When an arm has no units or more events than units, or `alpha` is no probability.
pub fn two_proportions(control: &Proportion, treatment: &Proportion, alpha: f64) -> Result<Comparison> {
    probability("alpha", alpha)?;
    control.check()?;
    treatment.check()?;
    let (Some(pa), Some(pb)) = (control.share(), treatment.share()) else {
        return Err(Error::too_few("no units in an arm"));
    };
    let (na, nb) = (control.n as f64, treatment.n as f64);
    let pooled = (control.k as f64 + treatment.k as f64) / (na + nb);
    let null = (pooled * (1.0 - pooled) * (1.0 / na + 1.0 / nb)).sqrt();
    if null == 0.0 {
        // No events, or nothing else, in both arms.
        return Ok(Comparison::same_constants());
    }
    let estimate = pb - pa;
    let statistic = estimate / null;
    let se = (pa * (1.0 - pa) / na + pb * (1.0 - pb) / nb).sqrt();
    let half = normal::two_sided_quantile(alpha)? * se;
    let ln_p = normal::ln_two_sided(statistic);
    Ok(Comparison {
        estimate,
        se,
        statistic,
        df: None,
        p: ln_p.exp(),
        log10_p: ln_p / LN_10,
        low: Some(estimate - half),
        high: Some(estimate + half),
    })
}
