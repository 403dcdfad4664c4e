//! Tests for one analysis at a sample size fixed beforehand. Repeated looks make their p values wrong: they are
//! for reports, for planning and for the policy `classic`, which says so.
//!
//! Everywhere a is control, b is treatment, and a difference is b − a.

mod chi_square;
mod cuped;
mod fisher;
mod kayenta;
mod lift;
mod mann_whitney;
mod moments;
mod multiplicity;
mod non_inferiority;
mod paired;
mod plan;
mod proportions;
mod welch;

pub use chi_square::{ChiSquare, goodness_of_fit, homogeneity};
pub use cuped::{Covariates, adjusted_moments, cuped_lift};
pub use fisher::fisher_exact;
pub use kayenta::{Classification, Effect, Kayenta, KayentaDirection, classify};
pub use lift::relative_lift;
pub use mann_whitney::{MannWhitney, Shift, mann_whitney, shift_interval, shifted_z};
pub use moments::Moments;
pub use multiplicity::{benjamini_hochberg, bonferroni, holm, rejections};
pub use non_inferiority::{Better, NonInferiority, non_inferiority};
pub use paired::{mcnemar, paired_differences};
pub use plan::{
    minimum_duration, power_two_proportions, proportions_per_arm, required_information, units_per_arm,
};
pub use proportions::two_proportions;
pub use welch::{welch, welch_df};

use serde::{Deserialize, Serialize};

/// Which differences count against the null hypothesis of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alternative {
    /// Both.
    #[default]
    TwoSided,
    /// Only treatment above control.
    Greater,
    /// Only treatment below control.
    Less,
}

/// A difference, or a lift, with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Treatment − control, in the unit of the metric; of a lift a ratio.
    pub estimate: f64,
    /// Its standard error.
    pub se: f64,
    /// z or t.
    pub statistic: f64,
    /// Degrees of freedom of t; `None` for z.
    pub df: Option<f64>,
    /// p value.
    pub p: f64,
    /// log10 of the p value, where p itself has underflowed.
    pub log10_p: f64,
    /// Lower limit; `None` where a one-sided test has none.
    pub low: Option<f64>,
    /// Upper limit; `None` where a one-sided test has none.
    pub high: Option<f64>,
}

impl Comparison {
    /// Two arms that never vary and are equal: no difference, and no doubt about it.
    fn same_constants() -> Self {
        let (low, high) = (Some(0.0), Some(0.0));
        Self { estimate: 0.0, se: 0.0, statistic: 0.0, df: None, p: 1.0, log10_p: 0.0, low, high }
    }
}
