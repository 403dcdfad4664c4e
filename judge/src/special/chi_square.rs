//! The χ² distribution.

use crate::error::{Error, Result};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Upper tail P(X > `x`) with `df` degrees of freedom.
///
/// # Errors
/// When `df` is not above 0 and finite, or `x` is NaN.
pub(crate) fn upper_tail(x: f64, df: f64) -> Result<f64> {
    if x.is_nan() {
        return Err(Error::range("chi-square", x, "a number"));
    }
    if x == f64::INFINITY {
        return Ok(0.0);
    }
    let distribution =
        ChiSquared::new(df).map_err(|_| Error::range("degrees of freedom", df, "above 0 and finite"))?;
    Ok(distribution.sf(x.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_has_its_closed_forms() {
        for x in [0.0, 0.1, 4.0, 100.0, 1_000.0] {
            let computed = upper_tail(x, 2.0).unwrap();
            assert!((computed - (-x / 2.0).exp()).abs() < 1e-13 + 1e-9 * computed, "{x}: {computed}");
        }
        assert!(upper_tail(f64::NAN, 2.0).is_err() && upper_tail(1.0, 0.0).is_err());
        assert!(upper_tail(f64::INFINITY, 3.0).unwrap() == 0.0);
    }
}
