//! Shadow trials: both versions answer the same request, so each pair is its own control. That takes far fewer
//! requests than two groups of users.

use super::{Alternative, Comparison, welch::t_test};
use crate::{
    error::{Error, Result, probability},
    special::{gamma::ln_choose, ln_add, normal},
    stats::{Mean, PairedOutcomes},
};
use std::f64::consts::{LN_2, LN_10};

/// Disagreements up to which McNemar's test is summed exactly.
const EXACT_UP_TO: u64 = 100_000;

/// McNemar's exact test: of the b + c pairs in which the versions disagree, each side wins half when they are
/// equal. `estimate` is (b − c)/n with b the pairs in which only the candidate's answer was bad: above 0, the
/// candidate is worse. p is binomial and two-sided; from 100,000 disagreements on by the normal tail. The interval is
/// Wald's for paired proportions.
///
/// Source: McNemar (1947); Agresti, "Categorical data analysis", 11.1.
///
/// # Errors
/// When there are no pairs, a count overflows, or `alpha` is no probability.
pub fn mcnemar(pairs: &PairedOutcomes, alpha: f64) -> Result<Comparison> {
    probability("alpha", alpha)?;
    let disagree = pairs.only_control.checked_add(pairs.only_treatment).ok_or(Error::Overflow)?;
    let n = disagree.checked_add(pairs.agree).ok_or(Error::Overflow)? as f64;
    if n == 0.0 {
        return Err(Error::too_few("no pairs"));
    }
    if disagree == 0 {
        return Ok(Comparison::same_constants());
    }
    let (b, c, both) = (pairs.only_treatment as f64, pairs.only_control as f64, disagree as f64);
    let estimate = (b - c) / n;
    let se = ((both - (b - c) * (b - c) / n).max(0.0)).sqrt() / n;
    let statistic = (b - c) / both.sqrt();
    let ln_p = if disagree > EXACT_UP_TO {
        normal::ln_two_sided(statistic)
    } else {
        let least = pairs.only_treatment.min(pairs.only_control);
        let mass = |k: u64| ln_choose(both, k as f64) - both * LN_2;
        let tail = (0..=least).map(mass).fold(f64::NEG_INFINITY, ln_add);
        (LN_2 + tail).min(0.0)
    };
    let half = normal::two_sided_quantile(alpha)? * se;
    Ok(Comparison {
        estimate,
        se,
        statistic,
        df: None,
        p: ln_p.exp(),
        log10_p: ln_p / LN_10,
        low: Some(estimate - half),
        high: Some(estimate + half),
    })
}

/// Student's t test of the mean of paired differences (candidate − stable): t = mean/√(v/n), df = n − 1.
///
/// Source: Student (1908).
///
/// # Errors
/// When there are fewer than two pairs, or all differences are the same and not 0.
pub fn paired_differences(differences: &Mean, alpha: f64) -> Result<Comparison> {
    probability("alpha", alpha)?;
    differences.check()?;
    let variance = differences.variance().ok_or_else(|| Error::too_few("fewer than 2 pairs"))?;
    if variance == 0.0 && differences.mean == 0.0 {
        return Ok(Comparison::same_constants());
    }
    if variance == 0.0 {
        return Err(Error::too_few("differences that do not vary"));
    }
    let n = differences.n as f64;
    t_test(differences.mean, (variance / n).sqrt(), n - 1.0, alpha, Alternative::TwoSided)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_is_the_binomial_test_of_the_disagreements() {
        let pairs = PairedOutcomes { agree: 90, only_control: 1, only_treatment: 9 };
        let test = mcnemar(&pairs, 0.05).unwrap();
        // 2·(C(10,0) + C(10,1))/2^10
        assert!((test.p - 22.0 / 1024.0).abs() < 1e-12 && (test.estimate - 0.08).abs() < 1e-12);
        // Swapped arms: the same p, the other sign.
        let swapped = PairedOutcomes { only_control: 9, only_treatment: 1, ..pairs };
        let mirror = mcnemar(&swapped, 0.05).unwrap();
        assert!((mirror.p - test.p).abs() < 1e-15 && (mirror.estimate + test.estimate).abs() < 1e-15);
        assert!(mcnemar(&PairedOutcomes::default(), 0.05).is_err());
        // Exact and approximate agree where one takes over.
        let large =
            |excess: u64| PairedOutcomes { agree: 0, only_control: 49_500, only_treatment: 50_500 + excess };
        let (exact, normal) = (mcnemar(&large(0), 0.05).unwrap(), mcnemar(&large(1), 0.05).unwrap());
        assert!((exact.log10_p - normal.log10_p).abs() < 0.02, "{exact:?} {normal:?}");
    }

    #[test]
    fn paired_differences_are_a_t_test() {
        // R: t.test(sleep, paired = TRUE): t = -4.0621, df = 9, p = 0.002833.
        let differences = [-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4];
        let test = paired_differences(&Mean::of(&differences), 0.05).unwrap();
        assert!((test.statistic + 4.0621).abs() < 1e-4 && (test.p - 0.002_833).abs() < 1e-6, "{test:?}");
        assert!(paired_differences(&Mean::of(&[1.0, 1.0]), 0.05).is_err());
        assert_eq!(paired_differences(&Mean::of(&[0.0, 0.0]), 0.05).unwrap().p, 1.0);
    }
}
