use super::{Mean, Merge, add};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// n pairs (x, y): a covariate and an outcome (CUPED), or a denominator and a numerator (ratio metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Number of pairs.
    pub n: u64,
    /// Mean of x.
    pub mx: f64,
    /// Mean of y.
    pub my: f64,
    /// Σ(x − mx)².
    pub mxx: f64,
    /// Σ(y − my)².
    pub myy: f64,
    /// Σ(x − mx)(y − my).
    pub cxy: f64,
}

/// Σa, Σa² and such, as other systems hand them over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairSums {
    /// Σx.
    pub x: f64,
    /// Σy.
    pub y: f64,
    /// Σx².
    pub xx: f64,
    /// Σy².
    pub yy: f64,
    /// Σxy.
    pub xy: f64,
}

impl Pair {
    /// Of pairs (x, y) one by one.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let mut sum = Self::default();
        pairs.iter().for_each(|(x, y)| sum.push(*x, *y));
        sum
    }

    /// Takes one pair more; one with a value that is not finite is left out.
    pub fn push(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        self.n = self.n.saturating_add(1);
        let n = self.n as f64;
        let (dx, dy) = (x - self.mx, y - self.my);
        self.mx += dx / n;
        self.my += dy / n;
        self.mxx += dx * (x - self.mx);
        self.myy += dy * (y - self.my);
        self.cxy += dx * (y - self.my);
    }

    /// From sums; for data of others that come so. Not checked: sums that no values have can be asked for too.
    #[must_use]
    pub fn from_sums(n: u64, sums: &PairSums) -> Self {
        if n == 0 {
            return Self::default();
        }
        let count = n as f64;
        let (mx, my) = (sums.x / count, sums.y / count);
        let (mxx, myy, cxy) = (sums.xx - sums.x * mx, sums.yy - sums.y * my, sums.xy - sums.x * my);
        Self { n, mx, my, mxx, myy, cxy }
    }

    /// The outcomes alone.
    #[must_use]
    pub fn y(&self) -> Mean {
        Mean { n: self.n, mean: self.my, m2: self.myy, ..Mean::default() }
    }

    /// Sample variances of x and y and their covariance, by n − 1; `None` below two pairs.
    #[must_use]
    pub fn moments(&self) -> Option<(f64, f64, f64)> {
        let divisor = (self.n > 1).then(|| (self.n - 1) as f64)?;
        Some((self.mxx / divisor, self.myy / divisor, self.cxy / divisor))
    }

    /// # Errors
    /// When a number is not finite, a sum of squares negative, or the covariance larger than they allow.
    pub fn check(&self) -> Result<()> {
        let numbers = [self.mx, self.my, self.mxx, self.myy, self.cxy];
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Error::malformed("a mean or sum of products that is no finite number"));
        }
        if self.mxx < 0.0 || self.myy < 0.0 {
            return Err(Error::malformed("a negative sum of squares"));
        }
        // Cauchy and Schwarz, with room for rounding.
        if self.cxy.abs() > self.mxx.sqrt() * self.myy.sqrt() * (1.0 + 1e-6) + f64::MIN_POSITIVE {
            return Err(Error::malformed("a covariance larger than its variances allow"));
        }
        Ok(())
    }
}

impl Merge for Pair {
    /// As for [`Mean`], with Cxy = C₁ + C₂ + dx·dy·n₁n₂/n.
    fn merge(&self, other: &Self) -> Result<Self> {
        if self.n == 0 {
            return Ok(*other);
        }
        if other.n == 0 {
            return Ok(*self);
        }
        let n = add(self.n, other.n)?;
        let (w1, w2) = (self.n as f64 / n as f64, other.n as f64 / n as f64);
        let (dx, dy) = (other.mx - self.mx, other.my - self.my);
        let between = w1 * other.n as f64;
        Ok(Self {
            n,
            mx: self.mx * w1 + other.mx * w2,
            my: self.my * w1 + other.my * w2,
            mxx: self.mxx + other.mxx + dx * dx * between,
            myy: self.myy + other.myy + dy * dy * between,
            cxy: self.cxy + other.cxy + dx * dy * between,
        })
    }
}
