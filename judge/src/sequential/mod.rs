//! Methods that stay valid however often one looks.
//!
//! An *e-value* is what a bet against the null hypothesis has multiplied its stake by. Under the null its expectation is
//! at most 1, at any moment one cares to stop, so that P(it ever reaches 1/α) ≤ α (Ville). They are kept as logarithms.

pub mod beta_binomial;
mod event_share;
mod group_sequential;
mod normal_mixture;
mod paired;
mod quantile;
mod spending;
mod srm;

pub use beta_binomial::BetaBinomial;
pub use event_share::{EventShare, tolerated_share};
pub use group_sequential::{
    Boundary, Characteristics, Crossing, Design, Look, SAME_LOOK, boundary, characteristics, classic_bounds,
    crossing_probability, inflation,
};
pub use normal_mixture::{
    ConfidenceSequence, Sides, asymptotic_cs, asymptotic_z_bound, mixture_bound, mixture_ln_e, mixture_rho,
    msprt_ln_e, one_sided_bound, one_sided_ln_e,
};
pub use paired::{paired_differences_cs, paired_outcomes_ln_e};
pub use quantile::QuantileTest;
pub use spending::Spending;
pub use srm::{dirichlet_multinomial_ln, multinomial_ln, srm_ln_e};

/// min(1, e^−x): the p value of the e-value whose logarithm is `ln_e`.
///
/// Source: Ville (1939).
#[must_use]
pub fn p_of(ln_e: f64) -> f64 {
    (-ln_e).exp().min(1.0)
}
