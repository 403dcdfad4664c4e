use super::{Alternative, Comparison, Moments};
use crate::{
    error::{Error, Result, probability},
    special::student,
};
use std::f64::consts::{LN_2, LN_10};

/// Degrees of freedom of Welch and Satterthwaite: (V_a + V_b)²/(V_a²/(n_a − 1) + V_b²/(n_b − 1)), V = v/n.
///
/// Source: Satterthwaite (1946), Welch (1947).
///
/// # Errors
/// When an arm has fewer than two units, or neither varies.
pub fn welch_df(control: &Moments, treatment: &Moments) -> Result<f64> {
    let (va, vb) = (control.variance_of_mean(), treatment.variance_of_mean());
    if control.n < 2 || treatment.n < 2 {
        return Err(Error::too_few("fewer than 2 units in an arm"));
    }
    let sum = va + vb;
    if sum <= 0.0 {
        return Err(Error::too_few("neither arm varies"));
    }
    // Divided by the sum first: squares of tiny variances underflow.
    let (wa, wb) = (va / sum, vb / sum);
    Ok(1.0 / (wa * wa / (control.n - 1) as f64 + wb * wb / (treatment.n - 1) as f64))
}

/// Welch's t test: t = d/√(V_a + V_b). One-sided alternatives have one tail and one limit, at `alpha`.
///
/// Source: Welch (1947); R's `t.test`.
///
/// # Errors
/// When an arm has fewer than two units or is malformed, `alpha` is no probability, or the arms are different
/// constants: then there is no variance to compare the difference with.
pub fn welch(
    control: &Moments,
    treatment: &Moments,
    alpha: f64,
    alternative: Alternative,
) -> Result<Comparison> {
    probability("alpha", alpha)?;
    control.check()?;
    treatment.check()?;
    if control.variance == 0.0 && treatment.variance == 0.0 && control.mean == treatment.mean {
        return Ok(Comparison::same_constants());
    }
    let df = welch_df(control, treatment)?;
    let se = (control.variance_of_mean() + treatment.variance_of_mean()).sqrt();
    t_test(treatment.mean - control.mean, se, df, alpha, alternative)
}

/// `estimate`/`se` as t with `df` degrees of freedom.
pub(super) fn t_test(
    estimate: f64,
    se: f64,
    df: f64,
    alpha: f64,
    alternative: Alternative,
) -> Result<Comparison> {
    let statistic = estimate / se;
    let no_number = || Error::malformed("a difference or standard error that is no finite number");
    // An infinite standard error would make the statistic 0, which is finite.
    if !statistic.is_finite() || !se.is_finite() || se <= 0.0 {
        return Err(no_number());
    }
    let tail = match alternative {
        Alternative::TwoSided => alpha / 2.0,
        Alternative::Greater | Alternative::Less => alpha,
    };
    let half = student::quantile(1.0 - tail, df)? * se;
    if !(estimate - half).is_finite() || !(estimate + half).is_finite() {
        return Err(no_number());
    }
    let ln_p = match alternative {
        Alternative::TwoSided => (LN_2 + student::ln_upper_tail(statistic.abs(), df)?).min(0.0),
        Alternative::Greater => student::ln_upper_tail(statistic, df)?,
        Alternative::Less => student::ln_upper_tail(-statistic, df)?,
    };
    Ok(Comparison {
        estimate,
        se,
        statistic,
        df: Some(df),
        p: ln_p.exp(),
        log10_p: ln_p / LN_10,
        low: (alternative != Alternative::Less).then_some(estimate - half),
        high: (alternative != Alternative::Greater).then_some(estimate + half),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_is_an_error_and_no_number() {
        let test = |estimate, se| t_test(estimate, se, 10.0, 0.05, Alternative::TwoSided);
        assert!(test(1.0, 1.0).is_ok());
        for (estimate, se) in
            [(1.0, f64::INFINITY), (1.0, 1e308), (1e308, 1e-300), (f64::NAN, 1.0), (1.0, 0.0)]
        {
            assert!(test(estimate, se).is_err(), "{estimate} {se}");
        }
    }
}
