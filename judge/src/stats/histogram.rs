use super::{Merge, add};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fixed logarithmic buckets: bucket i holds the values in (γ^(i−1), γ^i], γ = (1 + a)/(1 − a).
///
/// Fixed, so that histograms of all sources add up, and a shift by a ratio is a shift by whole buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Grid {
    /// The relative error a, in millionths.
    error_ppm: u32,
}

impl Default for Grid {
    /// 1 %: 806 buckets from 10 µs to 100 s.
    fn default() -> Self {
        Self { error_ppm: 10_000 }
    }
}

impl TryFrom<u32> for Grid {
    type Error = Error;

    fn try_from(error_ppm: u32) -> Result<Self> {
        if (1_000..=200_000).contains(&error_ppm) {
            Ok(Self { error_ppm })
        } else {
            Err(Error::range(
                "the error of a grid in millionths",
                f64::from(error_ppm),
                "from 1000 to 200000",
            ))
        }
    }
}

impl From<Grid> for u32 {
    fn from(grid: Grid) -> Self {
        grid.error_ppm
    }
}

impl Grid {
    /// ln γ.
    #[must_use]
    pub fn ln_gamma(self) -> f64 {
        let a = f64::from(self.error_ppm) / 1e6;
        a.ln_1p() - (-a).ln_1p()
    }

    /// The bucket of a value above 0: ceil(ln x/ln γ).
    #[must_use]
    pub fn index(self, value: f64) -> i32 {
        // At most 745/0.002: far inside of 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "a saturating cast of a number below a million")]
        let index = (value.ln() / self.ln_gamma()).ceil() as i32;
        index
    }

    /// The upper edge γ^i of bucket `index`, in the unit of the metric.
    #[must_use]
    pub fn upper_edge(self, index: i32) -> f64 {
        (f64::from(index) * self.ln_gamma()).exp()
    }

    /// Whole buckets in a ratio: ceil(ln(ratio)/ln γ), or floor.
    pub(crate) fn shift(self, ratio: f64, up: bool) -> i32 {
        let exact = ratio.max(f64::MIN_POSITIVE).ln() / self.ln_gamma();
        // A ratio that is meant to be whole buckets is not thrown off by its last bit.
        let rounded = exact.round();
        let whole = if (exact - rounded).abs() < 1e-9 {
            rounded
        } else if up {
            exact.ceil()
        } else {
            exact.floor()
        };
        #[expect(clippy::cast_possible_truncation, reason = "a saturating cast of a number below a million")]
        let whole = whole as i32;
        whole
    }
}

/// Counts of values by bucket, with what fits into none counted apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Relative error of the buckets, in millionths.
    #[serde(default)]
    pub grid: Grid,
    /// Counts by bucket; empty buckets are left out.
    #[serde(default, with = "pairs")]
    pub counts: BTreeMap<i32, u64>,
    /// Values that are 0: below the first bucket.
    #[serde(default)]
    pub zero: u64,
    /// Values that are +∞, for example the latency of a unit that got no answer: above the last bucket.
    #[serde(default)]
    pub infinite: u64,
    /// Negative values: no latencies, in no test.
    #[serde(default)]
    pub negative: u64,
    /// NaN: no latencies, in no test. A NaN output is a bad event of its own.
    #[serde(default)]
    pub nan: u64,
}

impl Histogram {
    /// Of values one by one.
    #[must_use]
    pub fn of(grid: Grid, values: &[f64]) -> Self {
        let mut histogram = Self { grid, ..Self::default() };
        values.iter().for_each(|value| histogram.push(*value));
        histogram
    }

    /// Counts one value.
    pub fn push(&mut self, value: f64) {
        let counter = if value.is_nan() {
            &mut self.nan
        } else if value < 0.0 {
            &mut self.negative
        } else if value == 0.0 {
            &mut self.zero
        } else if value == f64::INFINITY {
            &mut self.infinite
        } else {
            self.counts.entry(self.grid.index(value)).or_default()
        };
        *counter = counter.saturating_add(1);
    }

    /// Values that take part in quantiles: all but NaN and negative ones.
    ///
    /// # Errors
    /// When the sum exceeds 64 bits.
    pub fn total(&self) -> Result<u64> {
        self.counts.values().try_fold(add(self.zero, self.infinite)?, |sum, count| add(sum, *count))
    }

    /// The upper edge of the bucket that holds the q-quantile: 0 among zeros, +∞ among infinite values, `None`
    /// without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total().ok().filter(|total| *total > 0)?;
        let rank = (q.clamp(0.0, 1.0) * total as f64).ceil().max(1.0);
        let mut seen = self.zero;
        if seen as f64 >= rank {
            return Some(0.0);
        }
        for (index, count) in &self.counts {
            seen = seen.saturating_add(*count);
            if seen as f64 >= rank {
                return Some(self.grid.upper_edge(*index));
            }
        }
        Some(f64::INFINITY)
    }
}

impl Merge for Histogram {
    fn merge(&self, other: &Self) -> Result<Self> {
        if self.grid != other.grid {
            return Err(Error::Mismatch { what: "grids of histograms".to_owned() });
        }
        let mut counts = self.counts.clone();
        for (index, count) in &other.counts {
            let sum = counts.entry(*index).or_default();
            *sum = add(*sum, *count)?;
        }
        Ok(Self {
            grid: self.grid,
            counts,
            zero: add(self.zero, other.zero)?,
            infinite: add(self.infinite, other.infinite)?,
            negative: add(self.negative, other.negative)?,
            nan: add(self.nan, other.nan)?,
        })
    }
}

/// Bucket counts as a list of pairs: JSON objects have no numbers for keys.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(counts: &BTreeMap<i32, u64>, to: S) -> Result<S::Ok, S::Error> {
        counts.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<i32, u64>, D::Error> {
        let mut counts = BTreeMap::new();
        for (index, count) in Vec::<(i32, u64)>::deserialize(from)? {
            if counts.insert(index, count).is_some() {
                return Err(D::Error::custom(format!("bucket {index} is there twice")));
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        let grid = Grid::default();
        for value in [1e-300, 1e-5, 0.02, 1.0, 3.7, 100.0, 1e300] {
            let index = grid.index(value);
            let (low, high) = (grid.upper_edge(index - 1), grid.upper_edge(index));
            assert!(low < value * (1.0 + 1e-9) && value <= high * (1.0 + 1e-9), "{value}: {low} {high}");
        }
        // From 10 µs to 100 s, as judge.md counts them.
        assert_eq!(grid.index(100.0) - grid.index(1e-5), 806);
        assert_eq!((grid.shift(1.1, true), grid.shift(1.1, false), grid.shift(1.0, true)), (5, 4, 0));
        assert!(Grid::try_from(0).is_err() && Grid::try_from(2_000_000).is_err());
    }

    #[test]
    fn what_is_no_latency_is_counted_apart() {
        let values = [0.0, -0.0, -1.0, f64::NEG_INFINITY, f64::NAN, f64::INFINITY, 1.0, 2.0];
        let histogram = Histogram::of(Grid::default(), &values);
        assert_eq!((histogram.zero, histogram.negative, histogram.nan, histogram.infinite), (2, 2, 1, 1));
        assert_eq!(histogram.total().unwrap(), 5);
        assert_eq!(histogram.quantile(0.1), Some(0.0));
        assert_eq!(histogram.quantile(1.0), Some(f64::INFINITY));
        assert_eq!(Histogram::default().quantile(0.5), None);
        let json = serde_json::to_string(&histogram).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
        assert!(serde_json::from_str::<Histogram>(r#"{"counts": [[1, 2], [1, 3]]}"#).is_err());
    }
}
