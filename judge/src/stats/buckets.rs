use super::{Merge, add};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Number of unit buckets.
pub const BUCKETS: usize = 1024;

/// (Σ numerator, Σ denominator) by 1024 buckets of units: all that an honest variance of a ratio per request
/// needs when users send many requests each. The hash that chooses the bucket has to be independent of the one
/// that assigns the arm, or a 5 % arm fills 51 buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitBuckets {
    /// Distinct units.
    pub units: u64,
    /// Sums by bucket; either none or [`BUCKETS`] of them.
    pub sums: Vec<(f64, f64)>,
}

impl Default for UnitBuckets {
    fn default() -> Self {
        Self { units: 0, sums: vec![(0.0, 0.0); BUCKETS] }
    }
}

impl UnitBuckets {
    /// Adds what a unit of this bucket did; what is not finite is left out.
    pub fn push(&mut self, bucket: usize, numerator: f64, denominator: f64) {
        if let Some(sums) = self.sums.get_mut(bucket % BUCKETS)
            && numerator.is_finite()
            && denominator.is_finite()
        {
            sums.0 += numerator;
            sums.1 += denominator;
        }
    }

    /// Σ numerator and Σ denominator.
    #[must_use]
    pub fn totals(&self) -> (f64, f64) {
        self.sums.iter().fold((0.0, 0.0), |(y, x), (dy, dx)| (y + dy, x + dx))
    }

    /// Buckets with a denominator.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.sums.iter().filter(|(_, denominator)| *denominator > 0.0).count()
    }

    /// # Errors
    /// When there are not [`BUCKETS`] buckets, or one holds what is not finite or a negative denominator.
    pub fn check(&self) -> Result<()> {
        if self.sums.len() != BUCKETS {
            return Err(Error::malformed(format!("{} unit buckets instead of {BUCKETS}", self.sums.len())));
        }
        if self.sums.iter().any(|(y, x)| !y.is_finite() || !x.is_finite() || *x < 0.0) {
            return Err(Error::malformed(
                "a unit bucket that is no finite number, or a negative denominator",
            ));
        }
        Ok(())
    }
}

impl Merge for UnitBuckets {
    /// Adds bucket by bucket. The parts must hold different units.
    fn merge(&self, other: &Self) -> Result<Self> {
        if self.sums.len() != other.sums.len() {
            return Err(Error::Mismatch { what: "numbers of unit buckets".to_owned() });
        }
        let sums = self.sums.iter().zip(&other.sums).map(|((y, x), (dy, dx))| (y + dy, x + dx)).collect();
        Ok(Self { units: add(self.units, other.units)?, sums })
    }
}
