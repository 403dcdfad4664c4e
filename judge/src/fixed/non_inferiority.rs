use super::Moments;
use crate::{
    error::{Error, Result, probability},
    special::normal,
};
use serde::{Deserialize, Serialize};

/// Which way is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better: conversions, ratings.
    #[default]
    Higher,
    /// Less is better: errors, latency, cost.
    Lower,
}

impl Better {
    /// +1 or −1: times a difference of treatment − control, it is positive when treatment is better.
    #[must_use]
    pub fn sign(self) -> f64 {
        match self {
            Self::Higher => 1.0,
            Self::Lower => -1.0,
        }
    }
}

/// Whether treatment is at most a margin worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    /// Treatment − control.
    pub estimate: f64,
    /// The one limit at `alpha` that counts: the lower one where higher is better, else the upper one.
    pub limit: f64,
    /// What the limit has to be beyond: −margin·|m_a|, or +margin·|m_a| where lower is better.
    pub bound: f64,
    /// Whether it is.
    pub non_inferior: bool,
}

/// Fixed-sample non-inferiority of a mean: the limit d ∓ z_{1−α}·√(V_a + V_b) is beyond ∓`margin`·|m_a|.
///
/// Source: ICH E9 (1998), section 3.3.2: an interval that leaves out the margin.
///
/// # Errors
/// When an arm is malformed or `alpha` no probability, or `margin` is negative.
pub fn non_inferiority(
    control: &Moments,
    treatment: &Moments,
    margin: f64,
    better: Better,
    alpha: f64,
) -> Result<NonInferiority> {
    probability("alpha", alpha)?;
    control.check()?;
    treatment.check()?;
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(Error::range("margin", margin, "at least 0"));
    }
    let estimate = treatment.mean - control.mean;
    let se = (control.variance_of_mean() + treatment.variance_of_mean()).sqrt();
    let sign = better.sign();
    let limit = estimate - sign * normal::upper_quantile(alpha)? * se;
    let bound = -sign * margin * control.mean.abs();
    Ok(NonInferiority { estimate, limit, bound, non_inferior: sign * (limit - bound) > 0.0 })
}
