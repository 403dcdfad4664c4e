use super::{
    Alternative, Comparison, Moments,
    welch::{t_test, welch_df},
};
use crate::{
    error::{Error, Result, probability},
    stats::{Merge, Pair},
};
use serde::{Deserialize, Serialize};

/// How variances are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covariates {
    /// Any values: by n − 1.
    #[default]
    Continuous,
    /// 0 and 1 on both sides: by n.
    Binomial,
}

/// v_x, v_y and the covariance of an arm.
fn moments(arm: &Pair, kind: Covariates) -> Result<(f64, f64, f64)> {
    let (vx, vy, c) = arm.moments().ok_or_else(|| Error::too_few("fewer than 2 units in an arm"))?;
    let n = arm.n as f64;
    let scale = if kind == Covariates::Binomial { (n - 1.0) / n } else { 1.0 };
    Ok((vx * scale, vy * scale, c * scale))
}

/// θ = Cxy/Mxx of both arms together; 0 where the covariate never varies.
fn theta(control: &Pair, treatment: &Pair) -> Result<f64> {
    let both = control.merge(treatment)?;
    let theta = both.cxy / both.mxx;
    Ok(if theta.is_finite() { theta } else { 0.0 })
}

/// Both arms' outcomes less what a covariate from before the exposure explains: y' = y − θ(x − x̄), v' = v_y + θ²v_x − 2θc,
/// with x̄ the covariate's mean over both arms. The variance falls by 1 − corr².
///
/// Source: Deng, Xu, Kohavi, Walker (2013), "Improving the sensitivity of online controlled experiments".
///
/// # Errors
/// When an arm has fewer than two units or is malformed.
pub fn adjusted_moments(control: &Pair, treatment: &Pair) -> Result<(Moments, Moments)> {
    control.check()?;
    treatment.check()?;
    let theta = theta(control, treatment)?;
    let center = control.merge(treatment)?.mx;
    let adjusted = |arm: &Pair| {
        let (vx, vy, c) = moments(arm, Covariates::Continuous)?;
        let variance = (vy + theta * (theta * vx - 2.0 * c)).max(0.0);
        let adjusted = Moments { n: arm.n, mean: arm.my - theta * (arm.mx - center), variance };
        adjusted.check()?;
        Ok(adjusted)
    };
    Ok((adjusted(control)?, adjusted(treatment)?))
}

/// The relative difference after CUPED:
/// lift = ((m_yb − θm_xb) − (m_ya − θm_xa))/|m_ya|,
/// var = (v_yb + θ²v_xb − 2θc_b)/(n_b·m_ya²) + (v_ya·m_yb²/m_ya² − 2θc_a·m_yb/m_ya + θ²v_xa)/(n_a·m_ya²).
///
/// Source: Deng, Xu, Kohavi, Walker (2013), with the delta method, as GrowthBook's gbstats has it.
///
/// # Errors
/// When an arm has fewer than two units, the baseline is 0, or the variance is not above 0.
pub fn cuped_lift(control: &Pair, treatment: &Pair, kind: Covariates, alpha: f64) -> Result<Comparison> {
    probability("alpha", alpha)?;
    let theta = theta(control, treatment)?;
    let (vxa, vya, ca) = moments(control, kind)?;
    let (vxb, vyb, cb) = moments(treatment, kind)?;
    let base = control.my.abs();
    let ratio = treatment.my / control.my;
    let (na, nb) = (control.n as f64, treatment.n as f64);
    let of_treatment = (vyb + theta * (theta * vxb - 2.0 * cb)) / nb;
    let of_control = (vya * ratio * ratio + theta * (theta * vxa - 2.0 * ca * ratio)) / na;
    let se = (of_treatment + of_control).sqrt() / base;
    let estimate = ((treatment.my - theta * treatment.mx) - (control.my - theta * control.mx)) / base;
    let plain = |arm: &Pair, v: f64| Moments { n: arm.n, mean: arm.my, variance: v };
    let df = welch_df(
        &plain(control, vya + theta * (theta * vxa - 2.0 * ca)),
        &plain(treatment, vyb + theta * (theta * vxb - 2.0 * cb)),
    )?;
    t_test(estimate, se, df, alpha, Alternative::TwoSided)
}
