//! Releases that never were: what the methods and the policies do when the truth is known.
//!
//! Everything is seeded, so that a figure can be computed again. Tests run them small, `halftone judge simulate` runs
//! them large. Data are drawn by look, as sufficient statistics, wherever that has the same distribution.

mod arrivals;
mod classic;
mod exact;
mod false_calls;
mod random;
mod release;
mod rollback;
mod sample_ratio;
mod version;

pub use classic::simulate_classic;
pub use exact::{PromoteRow, paths, peeking, power_curves, promote_table};
pub use false_calls::{Data, Rule, false_calls};
pub use random::Random;
pub use release::{End, Outcome, Released, Scenario, Ticks, simulate_release};
pub use rollback::{Clusters, Fault, Latency, RollbackSpeed, false_rollbacks, latency_speed, rollback_speed};
pub use sample_ratio::{srm_false_alarms, srm_speed};

/// k of n runs, as a share with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Runs in which it happened.
    pub k: u32,
    /// All runs.
    pub n: u32,
}

impl Share {
    /// k/n.
    #[must_use]
    pub fn value(self) -> f64 {
        f64::from(self.k) / f64::from(self.n.max(1))
    }

    /// √(p(1 − p)/n) at a nominal p: what a figure may miss by chance.
    #[must_use]
    pub fn error_at(self, p: f64) -> f64 {
        (p * (1.0 - p) / f64::from(self.n.max(1))).sqrt()
    }

    /// Whether it is at most `p`, with three standard errors of slack.
    #[must_use]
    pub fn is_at_most(self, p: f64) -> bool {
        self.value() <= p + 3.0 * self.error_at(p)
    }
}

/// The q-quantile of values; NaN when there are none.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let index = ((values.len() as f64 * q).ceil() as usize).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_order_statistics() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&mut values, 0.5), quantile(&mut values, 0.95)), (50.0, 95.0));
        assert!(quantile(&mut [], 0.5).is_nan());
        assert!(
            Share { k: 53, n: 10_000 }.is_at_most(0.005) && !Share { k: 80, n: 10_000 }.is_at_most(0.005)
        );
    }
}
