use super::{Merge, add};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// k successes (or bad events) of n units. Exact for counts up to 2⁶⁴.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proportion {
    /// Units.
    pub n: u64,
    /// Units with the event.
    pub k: u64,
}

impl Proportion {
    /// # Errors
    /// When `k` exceeds `n`.
    pub fn new(n: u64, k: u64) -> Result<Self> {
        let new = Self { n, k };
        new.check()?;
        Ok(new)
    }

    /// # Errors
    /// When there are more events than units.
    pub fn check(&self) -> Result<()> {
        if self.k > self.n { Err(Error::MoreThanAll { k: self.k, n: self.n }) } else { Ok(()) }
    }

    /// k/n; `None` without units.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.n > 0).then(|| self.k as f64 / self.n as f64)
    }

    /// n − k; 0 for a malformed one.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.n.saturating_sub(self.k)
    }
}

impl Merge for Proportion {
    fn merge(&self, other: &Self) -> Result<Self> {
        Self::new(add(self.n, other.n)?, add(self.k, other.k)?)
    }
}
