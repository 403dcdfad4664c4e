//! The rank-sum test of Mann, Whitney and Wilcoxon, on raw values: one shot, not mergeable, and blind to changes of
//! shape. It is here for reports, and for those who come from Kayenta; no default policy uses it.

use super::Alternative;
use crate::{
    error::{Error, Result, probability},
    special::{normal, roots::step_change},
};
use serde::{Deserialize, Serialize};

/// Pairs of values up to which exact probabilities are counted.
const EXACT_PAIRS: usize = 100_000;

/// Pairs of values up to which the median of all differences is taken.
const LARGEST_PAIRS: usize = 1 << 25;

/// The test of treatment against control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MannWhitney {
    /// U = R_x − n_x(n_x + 1)/2, the pairs in which treatment is larger (ties count half).
    pub u: f64,
    /// z of no shift, with the correction for continuity and ties.
    pub z: f64,
    /// Exact p value; `None` with ties or above 100,000 pairs of values.
    pub p_exact: Option<f64>,
    /// p value by z.
    pub p_asymptotic: f64,
}

/// The interval of Hodges and Lehmann for how far treatment is shifted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Median of all differences treatment − control.
    pub estimate: f64,
    /// Lower limit.
    pub low: f64,
    /// Upper limit.
    pub high: f64,
}

pub(super) fn check(control: &[f64], treatment: &[f64]) -> Result<()> {
    if control.is_empty() || treatment.is_empty() {
        return Err(Error::too_few("no values in an arm"));
    }
    if control.iter().chain(treatment).any(|value| !value.is_finite()) {
        return Err(Error::malformed("a value that is no finite number"));
    }
    if control.len().saturating_mul(treatment.len()) > LARGEST_PAIRS {
        return Err(Error::TooLarge { what: format!("more than {LARGEST_PAIRS} pairs of values") });
    }
    Ok(())
}

/// U of treatment shifted down by `shift`, and Σ(τ³ − τ) over the ties.
fn ranks(control: &[f64], treatment: &[f64], shift: f64) -> (f64, f64) {
    let moved = treatment.iter().map(|x| (x - shift, true));
    let mut all: Vec<(f64, bool)> = moved.chain(control.iter().map(|y| (*y, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut ties, mut below) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let size = group.len() as f64;
        let rank = below + (size + 1.0) / 2.0;
        sum += rank * group.iter().filter(|(_, treated)| *treated).count() as f64;
        ties += size * size * size - size;
        below += size;
    }
    let n = treatment.len() as f64;
    (sum - n * (n + 1.0) / 2.0, ties)
}

/// z(μ) = (D − ½ sign D)/σ, D = U − n_x·n_y/2 for treatment less μ against control,
/// σ² = n_x·n_y/12·((N + 1) − Σ(τ³ − τ)/(N(N − 1))). It falls as μ rises. 0 when all values are equal.
///
/// Source: Mann, Whitney (1947).
///
/// # Errors
/// When an arm is empty, a value is not finite, or there are more than 2²⁵ pairs of values.
pub fn shifted_z(control: &[f64], treatment: &[f64], shift: f64) -> Result<f64> {
    check(control, treatment)?;
    Ok(z_of(control, treatment, shift))
}

pub(super) fn z_of(control: &[f64], treatment: &[f64], shift: f64) -> f64 {
    let (u, ties) = ranks(control, treatment, shift);
    let pairs = control.len() as f64 * treatment.len() as f64;
    let n = (control.len() + treatment.len()) as f64;
    let variance = pairs / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    let d = u - pairs / 2.0;
    if variance <= 0.0 || d == 0.0 { 0.0 } else { (d - 0.5 * d.signum()) / variance.sqrt() }
}

/// The test itself.
///
/// Source: Mann, Whitney (1947).
///
/// # Errors
/// As [`shifted_z`].
pub fn mann_whitney(control: &[f64], treatment: &[f64], alternative: Alternative) -> Result<MannWhitney> {
    check(control, treatment)?;
    let (u, ties) = ranks(control, treatment, 0.0);
    let z = z_of(control, treatment, 0.0);
    let pairs = control.len() * treatment.len();
    let exact =
        (ties == 0.0 && pairs <= EXACT_PAIRS).then(|| exact(control.len(), treatment.len(), u, alternative));
    let p_asymptotic = match alternative {
        Alternative::TwoSided => (2.0 * normal::upper_tail(z.abs())).min(1.0),
        Alternative::Greater => normal::upper_tail(z),
        Alternative::Less => normal::lower_tail(z),
    };
    Ok(MannWhitney { u, z, p_exact: exact, p_asymptotic })
}

/// Probabilities of U by counting: the coefficients of Π (1 − x^(n+i))/(1 − x^i), i = 1 … m.
fn exact(control: usize, treatment: usize, u: f64, alternative: Alternative) -> f64 {
    let (n, m) = (control.max(treatment), control.min(treatment));
    let mut ways = vec![0.0; control * treatment + 1];
    if let Some(first) = ways.first_mut() {
        *first = 1.0;
    }
    let at =
        |ways: &[f64], index: Option<usize>| index.and_then(|i| ways.get(i)).copied().unwrap_or_default();
    for i in 1..=m {
        for k in (0..ways.len()).rev() {
            let less = at(&ways, k.checked_sub(n + i));
            if let Some(way) = ways.get_mut(k) {
                *way -= less;
            }
        }
        for k in 0..ways.len() {
            let more = at(&ways, k.checked_sub(i));
            if let Some(way) = ways.get_mut(k) {
                *way += more;
            }
        }
        // Scaled on the way: the counts themselves overflow.
        let sum: f64 = ways.iter().sum();
        ways.iter_mut().for_each(|way| *way /= sum);
    }
    let upper: f64 = ways.iter().enumerate().filter(|(k, _)| *k as f64 >= u).map(|(_, way)| way).sum();
    let lower: f64 = ways.iter().enumerate().filter(|(k, _)| *k as f64 <= u).map(|(_, way)| way).sum();
    match alternative {
        Alternative::TwoSided => (2.0 * upper.min(lower)).min(1.0),
        Alternative::Greater => upper.min(1.0),
        Alternative::Less => lower.min(1.0),
    }
}

/// Median of all differences treatment − control.
pub(super) fn median_difference(control: &[f64], treatment: &[f64]) -> f64 {
    let mut all: Vec<f64> = treatment.iter().flat_map(|x| control.iter().map(move |y| x - y)).collect();
    let middle = all.len() / 2;
    let odd = all.len() % 2 == 1;
    if all.is_empty() {
        return 0.0;
    }
    let (below, upper, _) = all.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    lower + (upper - lower) / 2.0
}

/// All shifts that the test does not refuse at `confidence`: between the roots of z = ±z_{(1+confidence)/2}. z is a
/// step function; where it never gets there, the limit is the largest possible shift.
///
/// Source: Hodges, Lehmann (1963); R's `wilcox.test`, as spinnaker/kayenta uses it.
///
/// # Errors
/// As [`shifted_z`], and when `confidence` is not between 0 and 1.
pub fn shift_interval(control: &[f64], treatment: &[f64], confidence: f64) -> Result<Shift> {
    check(control, treatment)?;
    probability("confidence", confidence)?;
    let z = normal::upper_quantile((1.0 - confidence) / 2.0)?;
    let extreme =
        |values: &[f64], pick: fn(f64, f64) -> f64, from: f64| values.iter().copied().fold(from, pick);
    let (inf, sup) = (f64::INFINITY, f64::NEG_INFINITY);
    let least = extreme(treatment, f64::min, inf) - extreme(control, f64::max, sup);
    let most = extreme(treatment, f64::max, sup) - extreme(control, f64::min, inf);
    let tolerance = 1e-12 * least.abs().max(most.abs());
    let root = |wanted: f64| {
        let above = |shift: f64| z_of(control, treatment, shift) - wanted;
        // The end where there is none.
        if above(least) <= 0.0 {
            least
        } else if above(most) > 0.0 {
            most
        } else {
            step_change(least, most, tolerance, above)
        }
    };
    Ok(Shift { estimate: median_difference(control, treatment), low: root(z), high: root(-z) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all assignments of ranks.
    #[test]
    fn exact_probabilities_are_counted() {
        let (n, m) = (4usize, 3usize);
        let mut counts = vec![0.0; n * m + 1];
        for mask in 0u32..1 << (n + m) {
            if mask.count_ones() as usize == m {
                let ranks: usize = (0..n + m).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 1).sum();
                counts[ranks - m * (m + 1) / 2] += 1.0;
            }
        }
        let all: f64 = counts.iter().sum();
        for u in 0..counts.len() {
            let expected = counts[u..].iter().sum::<f64>() / all;
            assert!((exact(n, m, u as f64, Alternative::Greater) - expected).abs() < 1e-12, "{u}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        assert!(mann_whitney(&[], &[1.0], Alternative::TwoSided).is_err());
        assert!(mann_whitney(&[f64::NAN], &[1.0], Alternative::TwoSided).is_err());
        let long = vec![1.0; 10_000];
        assert!(matches!(shifted_z(&long, &long, 0.0), Err(Error::TooLarge { .. })));
        let all_equal = mann_whitney(&[1.0; 5], &[1.0; 5], Alternative::TwoSided).unwrap();
        assert_eq!((all_equal.z, all_equal.p_asymptotic, all_equal.p_exact), (0.0, 1.0, None));
    }
}
