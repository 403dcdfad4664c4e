//! Student's t distribution.

use super::{normal, roots::sign_change};
use crate::error::{Error, Result, probability};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Beyond this the tail of `statrs` loses digits, and the normal one is closer than 1e-8.
const NORMAL_FROM: f64 = 1e8;

/// Beyond this the expansion around the normal quantile is exact to 1e-11.
const EXPANSION_FROM: f64 = 1e4;

fn degrees(df: f64) -> Result<f64> {
    if df > 0.0 { Ok(df) } else { Err(Error::range("degrees of freedom", df, "above 0")) }
}

/// Upper tail P(T > `t`) with `df` degrees of freedom; infinite `df` is the normal distribution.
///
/// # Errors
/// When `df` is not above 0, or `t` is NaN.
pub fn upper_tail(t: f64, df: f64) -> Result<f64> {
    degrees(df)?;
    if t.is_nan() {
        return Err(Error::range("t", t, "a number"));
    }
    if df > NORMAL_FROM || t.is_infinite() {
        return Ok(normal::upper_tail(t));
    }
    let student =
        StudentsT::new(0.0, 1.0, df).map_err(|_| Error::range("degrees of freedom", df, "above 0"))?;
    Ok(student.sf(t))
}

/// ln of the upper tail. Where the tail itself underflows, by the equivalent normal deviate of Hill (1970),
/// z² = ν ln(1 + t²/ν)·(1 − 1/(4ν))², whose logarithm is right to some per cent.
///
/// # Errors
/// As [`upper_tail`].
pub fn ln_upper_tail(t: f64, df: f64) -> Result<f64> {
    let tail = upper_tail(t, df)?;
    if tail > 1e-290 && tail < 0.5 {
        return Ok(tail.ln());
    }
    if tail >= 0.5 {
        return Ok((-upper_tail(-t, df)?).ln_1p());
    }
    let z = (df * (t / df.sqrt()).hypot(1.0).ln() * 2.0).sqrt() * (1.0 - 0.25 / df.max(1.0));
    Ok(normal::ln_upper_tail(if df > NORMAL_FROM { t } else { z }))
}

/// Quantile t with P(T ≤ t) = `p`.
///
/// Above 1e4 degrees of freedom by the expansion t = z + (z³ + z)/(4ν) + (5z⁵ + 16z³ + 3z)/(96ν²) +
/// (3z⁷ + 19z⁵ + 17z³ − 15z)/(384ν³) (Abramowitz & Stegun 26.7.5), below by the root of the tail.
///
/// Source: Abramowitz, Stegun (1964), 26.7.5.
///
/// # Errors
/// When `p` is not strictly between 0 and 1 or `df` not above 0.
pub fn quantile(p: f64, df: f64) -> Result<f64> {
    probability("p", p)?;
    degrees(df)?;
    let (tail, sign) = if p < 0.5 { (p, -1.0) } else { (1.0 - p, 1.0) };
    if tail == 0.5 {
        return Ok(0.0);
    }
    let z = normal::upper_quantile(tail)?;
    if df == f64::INFINITY {
        return Ok(sign * z);
    }
    let near = expansion(z, df);
    if df > EXPANSION_FROM {
        return Ok(sign * near);
    }
    // The tail falls at least like the normal one for the bracket's lower end: t ≥ z.
    let mut high = near.max(1.0);
    while upper_tail(high, df)? > tail && high < 1e300 {
        high *= 4.0;
    }
    let wanted = tail.ln();
    let excess = |x: f64| upper_tail(x, df).map_or(f64::NAN, |q| q.max(f64::MIN_POSITIVE).ln() - wanted);
    let root = if high <= 1e3 {
        sign_change(0.0, high, 1e-13 * high, excess)
    } else {
        sign_change(0.0, high.ln(), 1e-15 * high.ln(), |x| excess(x.exp())).exp()
    };
    Ok(sign * root)
}

/// Abramowitz & Stegun 26.7.5, from the normal quantile `z`.
fn expansion(z: f64, df: f64) -> f64 {
    let square = z * z;
    let first = z * (square + 1.0) / 4.0;
    let second = z * ((5.0 * square + 16.0) * square + 3.0) / 96.0;
    let third = z * (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0;
    z + (first + (second + third / df) / df) / df
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed forms at 1 and 2 degrees of freedom, tables, and the expansion at many.
    #[test]
    fn the_quantile_is_right_where_statrs_is_not() {
        for (df, p, t) in [
            (1.0, 0.975, 12.706_204_736_174_7),
            (2.0, 0.975, 4.302_652_729_911_275),
            (10.0, 0.975, 2.228_138_851_964_939),
            (10.0, 0.025, -2.228_138_851_964_939),
            (1e5, 0.975, 1.959_987_707_534_609_5),
            (1e6, 0.975, 1.959_966_356_897_85),
            (1e7, 0.975, 1.959_964_221_767_205),
            (1e8, 0.975, 1.959_964_008_262_766_3),
            (1e15, 0.975, 1.959_963_984_540_056_7),
            (f64::INFINITY, 0.975, 1.959_963_984_540_054),
        ] {
            let computed = quantile(p, df).unwrap();
            assert!((computed - t).abs() < 1e-10 * t.abs(), "df {df}: {computed} instead of {t}");
        }
        // The expansion and the root agree where one takes over.
        for p in [0.6, 0.975, 0.9999, 1.0 - 1e-9] {
            let root = quantile(p, EXPANSION_FROM).unwrap();
            let series = expansion(normal::upper_quantile(1.0 - p).unwrap(), EXPANSION_FROM);
            assert!((root - series).abs() < 1e-10 * root, "{p}: {root} {series}");
        }
        assert!(quantile(0.5, 3.0).unwrap().abs() == 0.0);
        for (p, df) in [(0.0, 3.0), (1.0, 3.0), (f64::NAN, 3.0), (0.5, 0.0), (0.5, f64::NAN), (0.5, -1.0)] {
            assert!(quantile(p, df).is_err(), "{p} {df}");
        }
        assert!(quantile(1e-300, 0.5).unwrap().is_finite());
    }

    #[test]
    fn tails_stay_finite_in_logarithms() {
        assert!((upper_tail(2.0, 1e12).unwrap() - normal::upper_tail(2.0)).abs() < 1e-12);
        for df in [1.0, 30.0, 1e4, 1e9, f64::INFINITY] {
            let mut last = f64::INFINITY;
            for t in [-50.0, -1.0, 0.0, 1.0, 5.0, 50.0, 500.0] {
                let ln = ln_upper_tail(t, df).unwrap();
                assert!(ln.is_finite() && ln <= last, "{df} {t}: {ln}");
                last = ln;
            }
        }
        assert!(upper_tail(f64::NAN, 3.0).is_err());
    }
}
