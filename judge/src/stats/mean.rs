use super::{Merge, add};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// n values by their mean and M2 = Σ(x − mean)². Never by Σx and Σx²: their difference loses all digits when the
/// mean is large against the spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// Number of finite values.
    pub n: u64,
    /// Their mean, in the unit of the metric.
    pub mean: f64,
    /// Σ(x − mean)², in the square of that unit.
    pub m2: f64,
    /// The smallest; 0 without values.
    #[serde(default)]
    pub min: f64,
    /// The largest; 0 without values.
    #[serde(default)]
    pub max: f64,
    /// Values that were no finite numbers. They are in none of the others.
    #[serde(default)]
    pub rejected: u64,
}

impl Mean {
    /// Of values one by one (Welford). NaN and ±∞ are counted apart.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sum = Self::default();
        values.iter().for_each(|value| sum.push(*value));
        sum
    }

    /// Takes one value more.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            self.rejected = self.rejected.saturating_add(1);
            return;
        }
        (self.min, self.max) =
            if self.n == 0 { (value, value) } else { (self.min.min(value), self.max.max(value)) };
        self.n = self.n.saturating_add(1);
        let before = value - self.mean;
        self.mean += before / self.n as f64;
        self.m2 += before * (value - self.mean);
    }

    /// From Σx and Σx², for data of others that come so. A rounding error below 0 becomes 0.
    ///
    /// # Errors
    /// When the sums are no finite numbers.
    pub fn from_sums(n: u64, sum: f64, sum_squares: f64) -> Result<Self> {
        if n == 0 {
            return Ok(Self::default());
        }
        let mean = sum / n as f64;
        let m2 = (sum_squares - sum * mean).max(0.0);
        let new = Self { n, mean, m2, min: f64::MIN, max: f64::MAX, rejected: 0 };
        new.check()?;
        Ok(new)
    }

    /// The sample variance M2/(n − 1); `None` below two values.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.n > 1).then(|| self.m2 / (self.n - 1) as f64)
    }

    /// # Errors
    /// When a number is not finite, M2 negative, or the mean outside of the range of the values.
    pub fn check(&self) -> Result<()> {
        if self.n == 0 {
            return if self.mean == 0.0 && self.m2 == 0.0 {
                Ok(())
            } else {
                Err(Error::malformed("a mean of no values"))
            };
        }
        if ![self.mean, self.m2, self.min, self.max].iter().all(|number| number.is_finite()) {
            return Err(Error::malformed("a mean, M2, minimum or maximum that is no finite number"));
        }
        if self.m2 < 0.0 {
            return Err(Error::malformed("a negative sum of squares"));
        }
        // Where the range is not told, both ends are 0.
        let told = self.min != 0.0 || self.max != 0.0;
        let slack = 1e-9 * self.min.abs().max(self.max.abs());
        if told && (self.mean < self.min - slack || self.mean > self.max + slack) {
            return Err(Error::malformed("a mean outside of the range of its values"));
        }
        Ok(())
    }
}

impl Merge for Mean {
    /// Chan, Golub, LeVeque (1983): mean = m₁ + d·n₂/n, M2 = M2₁ + M2₂ + d²·n₁n₂/n with d = m₂ − m₁.
    fn merge(&self, other: &Self) -> Result<Self> {
        let rejected = add(self.rejected, other.rejected)?;
        if self.n == 0 || other.n == 0 {
            let kept = if self.n == 0 { other } else { self };
            return Ok(Self { rejected, ..*kept });
        }
        let n = add(self.n, other.n)?;
        let (n1, n2, all) = (self.n as f64, other.n as f64, n as f64);
        let d = other.mean - self.mean;
        Ok(Self {
            n,
            // Weighted from both sides alike, so that a swap changes no bit.
            mean: self.mean * (n1 / all) + other.mean * (n2 / all),
            m2: self.m2 + other.m2 + d * d * (n1 / all) * n2,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            rejected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST StRD NumAcc4: Σx² − (Σx)²/n gives a negative variance here.
    #[test]
    fn a_large_mean_costs_no_digits() {
        let values: Vec<f64> =
            std::iter::once(10_000_000.2).chain([10_000_000.1, 10_000_000.3].repeat(500)).collect();
        for cut in [0, 1, 333, 1_001] {
            let (left, right) = values.split_at(cut);
            let whole = Mean::of(left).merge(&Mean::of(right)).unwrap();
            assert!((whole.mean - 10_000_000.2).abs() < 1e-8);
            assert!((whole.variance().unwrap().sqrt() - 0.1).abs() < 1e-8);
        }
    }

    #[test]
    fn what_is_no_number_is_counted_apart() {
        let mean = Mean::of(&[1.0, f64::NAN, 3.0, f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!((mean.n, mean.mean, mean.rejected, mean.min, mean.max), (2, 2.0, 3, 1.0, 3.0));
        for bad in [
            Mean { n: 1, mean: f64::NAN, ..Mean::default() },
            Mean { n: 2, m2: -1.0, ..Mean::default() },
            Mean { n: 2, mean: 5.0, min: 1.0, max: 2.0, ..Mean::default() },
            Mean { n: 0, mean: 5.0, ..Mean::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
