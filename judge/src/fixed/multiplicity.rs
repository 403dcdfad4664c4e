//! Corrections for several tests.

/// NaN counts as no evidence.
fn clean(p: f64) -> f64 {
    if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) }
}

/// Indices of `p` from the smallest value to the largest.
fn order(p: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<_> = p.iter().map(|p| clean(*p)).enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order
}

/// Values by their indices, back in the order of the input.
fn in_input_order(mut adjusted: Vec<(usize, f64)>) -> Vec<f64> {
    adjusted.sort_by_key(|(index, _)| *index);
    adjusted.into_iter().map(|(_, p)| p).collect()
}

/// Adjusted p values min(1, m·p).
///
/// Source: Dunn (1961).
#[must_use]
pub fn bonferroni(p: &[f64]) -> Vec<f64> {
    let m = p.len() as f64;
    p.iter().map(|p| (clean(*p) * m).min(1.0)).collect()
}

/// Adjusted p values of Holm (1979): sorted p_(i)·(m − i + 1), running maximum, at most 1.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let m = p.len();
    let mut highest = 0.0f64;
    let adjust = |(rank, (index, p)): (usize, (usize, f64))| {
        highest = highest.max((p * (m - rank) as f64).min(1.0));
        (index, highest)
    };
    in_input_order(order(p).into_iter().enumerate().map(adjust).collect())
}

/// Adjusted p values of Benjamini and Hochberg (1995): p_(i)·m/i, running minimum from the largest. They bound the
/// share of false discoveries, not the chance of one: for exploratory reports only.
#[must_use]
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let m = p.len() as f64;
    let mut lowest = 1.0f64;
    let adjust = |(rank, (index, p)): (usize, (usize, f64))| {
        lowest = lowest.min(p * m / (rank + 1) as f64);
        (index, lowest)
    };
    in_input_order(order(p).into_iter().enumerate().rev().map(adjust).collect())
}

/// How many adjusted p values are at most `alpha`.
#[must_use]
pub fn rejections(adjusted: &[f64], alpha: f64) -> usize {
    adjusted.iter().filter(|p| **p <= alpha).count()
}
