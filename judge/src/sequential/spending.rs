use crate::{error::Result, special::normal};
use serde::{Deserialize, Serialize};
use std::f64::consts::E;

/// How much of the level may be spent by information time t (Lan, DeMets 1983).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spending {
    /// α·t^φ. 2 by default: nearly all power is left for the end, and large effects still stop early.
    Power(f64),
    /// 2 − 2Φ(z_{1−α/2}/√t): next to nothing early on, like O'Brien and Fleming.
    ObrienFleming,
    /// α·ln(1 + (e − 1)t): about the same at every look, like Pocock.
    Pocock,
}

impl Default for Spending {
    fn default() -> Self {
        Self::Power(2.0)
    }
}

impl Spending {
    /// What is spent of `alpha` by `t`, which is cut to [0, 1].
    ///
    /// # Errors
    /// When `alpha` is no probability.
    pub fn spent(self, alpha: f64, t: f64) -> Result<f64> {
        let t = if t > 0.0 { t.min(1.0) } else { 0.0 };
        Ok(match self {
            _ if t == 0.0 => 0.0,
            Self::Power(phi) => alpha * t.powf(phi),
            Self::ObrienFleming => 2.0 * normal::upper_tail(normal::two_sided_quantile(alpha)? / t.sqrt()),
            Self::Pocock => alpha * ((E - 1.0) * t).ln_1p(),
        })
    }
}
