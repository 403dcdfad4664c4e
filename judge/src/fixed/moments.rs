use crate::{
    error::{Error, Result},
    stats::{Mean, Pair, Proportion, UnitBuckets},
};
use serde::{Deserialize, Serialize};

/// Buckets below which their variance is not trusted.
const LEAST_BUCKETS: usize = 100;

/// One arm, as tests on means see it: n units, a mean, and the variance of one unit's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Units.
    pub n: u64,
    /// Mean (or proportion, or ratio).
    pub mean: f64,
    /// Variance v of one unit, so that the mean's is v/n.
    pub variance: f64,
}

impl Moments {
    /// p and p(1 − p).
    ///
    /// # Errors
    /// When there are no units, or more events than units.
    pub fn of_proportion(arm: &Proportion) -> Result<Self> {
        arm.check()?;
        let p = arm.share().ok_or_else(|| Error::too_few("no units"))?;
        Ok(Self { n: arm.n, mean: p, variance: p * (1.0 - p) })
    }

    /// The mean and M2/(n − 1).
    ///
    /// # Errors
    /// When the mean is malformed or of fewer than two values.
    pub fn of_mean(arm: &Mean) -> Result<Self> {
        arm.check()?;
        let variance = arm.variance().ok_or_else(|| Error::too_few("fewer than 2 units"))?;
        Ok(Self { n: arm.n, mean: arm.mean, variance })
    }

    /// R = m_y/m_x, v = v_y/m_x² + v_x·m_y²/m_x⁴ − 2c·m_y/m_x³ (delta method over units, Deng et al. 2018).
    ///
    /// # Errors
    /// When there are fewer than two units, the denominator's mean is 0, or the variance comes out negative.
    pub fn of_ratio(arm: &Pair) -> Result<Self> {
        let (vx, vy, c) = arm.moments().ok_or_else(|| Error::too_few("fewer than 2 units"))?;
        let ratio = arm.my / arm.mx;
        let variance = (vy + ratio * (vx * ratio - 2.0 * c)) / (arm.mx * arm.mx);
        if !ratio.is_finite() || !variance.is_finite() {
            return Err(Error::too_few("a ratio whose denominator is 0"));
        }
        if variance < -1e-9 * (vy.abs() / (arm.mx * arm.mx)) {
            return Err(Error::malformed("a ratio with a negative variance"));
        }
        Ok(Self { n: arm.n, mean: ratio, variance: variance.max(0.0) })
    }

    /// R = ΣY/ΣX over B unit buckets, var(R) = B/(B − 1)·Σ(Y_j − R·X_j)²/(ΣX)²; v is var(R) times the units. Honest
    /// about clusters: a user's requests are in one bucket.
    ///
    /// Source: Deng, Knoblich, Lu (2018), with buckets of units in the place of units.
    ///
    /// # Errors
    /// When fewer than 100 buckets have a denominator, or one is malformed.
    pub fn of_buckets(arm: &UnitBuckets) -> Result<Self> {
        arm.check()?;
        let filled = arm.filled();
        if filled < LEAST_BUCKETS {
            return Err(Error::too_few(format!("{filled} unit buckets of at least {LEAST_BUCKETS}")));
        }
        let (y, x) = arm.totals();
        let ratio = y / x;
        let squares: f64 = arm.sums.iter().map(|(y, x)| (y - ratio * x).powi(2)).sum();
        let buckets = arm.sums.len() as f64;
        let variance = buckets / (buckets - 1.0) * squares / (x * x) * arm.units as f64;
        if !ratio.is_finite() || !variance.is_finite() {
            return Err(Error::malformed("unit buckets that overflow"));
        }
        Ok(Self { n: arm.units, mean: ratio, variance })
    }

    /// v/n, the variance of the mean; infinite without units.
    #[must_use]
    pub fn variance_of_mean(&self) -> f64 {
        self.variance / self.n as f64
    }

    /// # Errors
    /// When a number is not finite, the variance negative, or there are no units.
    pub fn check(&self) -> Result<()> {
        if self.n == 0 {
            return Err(Error::too_few("no units"));
        }
        if !self.mean.is_finite() || !self.variance.is_finite() || self.variance < 0.0 {
            return Err(Error::malformed("a mean or a variance that is no finite number"));
        }
        Ok(())
    }
}
