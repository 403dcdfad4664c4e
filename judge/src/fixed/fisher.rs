use crate::{
    error::{Error, Result},
    special::{gamma::ln_choose, ln_add, normal, roots::step_change},
    stats::Proportion,
};
use std::f64::consts::LN_10;

/// Relative slack within which two tables count as equally probable, as in R.
const SLACK: f64 = 1e-7;

/// Standard deviations of the table beyond which the normal tail takes over: summing would take too long, and
/// the difference is below a per cent of the logarithm.
const LARGEST_DEVIATION: f64 = 1e4;

/// log10 of the two-sided p value of Fisher's exact test: the sum of the probabilities of all tables with the
/// same margins that are at most as probable as the observed one. Summed in logarithms, so that it goes down to
/// 1e-1500 and beyond.
///
/// Tables whose count has a standard deviation above 10,000 are answered by the normal tail of the pooled z.
///
/// Source: Fisher (1922).
///
/// # Errors
/// When an arm has no units, or more events than units.
pub fn fisher_exact(control: &Proportion, treatment: &Proportion) -> Result<f64> {
    control.check()?;
    treatment.check()?;
    if control.n == 0 || treatment.n == 0 {
        return Err(Error::too_few("no units in an arm"));
    }
    let (na, nb) = (control.n as f64, treatment.n as f64);
    let events = control.k as f64 + treatment.k as f64;
    let all = na + nb;
    let (least, most) = ((events - na).max(0.0), events.min(nb));
    if least >= most {
        return Ok(0.0);
    }
    let observed = treatment.k as f64;
    let mean = events * (nb / all);
    let deviation = (mean * (1.0 - events / all) * (na / (all - 1.0))).sqrt();
    // Counts beyond 2^53 have no neighbours in floating point.
    if deviation > LARGEST_DEVIATION || all > 9e15 {
        let z = (observed - mean).abs() / deviation;
        return Ok(normal::ln_two_sided(z) / LN_10);
    }
    // The probability that k of the events fall in treatment.
    let ln_mass = |k: f64| ln_choose(nb, k) + ln_choose(na, events - k) - ln_choose(all, events);
    let threshold = ln_mass(observed) + SLACK;
    let mode = (((events + 1.0) * (nb + 1.0)) / (all + 2.0)).floor().clamp(least, most);
    if ln_mass(mode) <= threshold {
        // Nothing is more probable than what was observed.
        return Ok(0.0);
    }
    // From `start` away from the mode until nothing is added any more.
    let tail = |start: f64, step: f64| {
        let mut sum = f64::NEG_INFINITY;
        let mut k = start;
        while k >= least && k <= most {
            let mass = ln_mass(k);
            let next = ln_add(sum, mass);
            if next == sum {
                break;
            }
            sum = next;
            k += step;
        }
        sum
    };
    // On the other side of the mode: the first table that is as improbable as the observed one.
    let (own, other) = if observed >= mode { (1.0, -1.0) } else { (-1.0, 1.0) };
    let end = if other < 0.0 { least } else { most };
    let opposite = if ln_mass(end) > threshold {
        f64::NEG_INFINITY
    } else {
        let near = step_change(mode, end, 0.25, |k| ln_mass(k.round()) - threshold).round();
        // Halving ends within one of the edge.
        let first = [near - other, near, near + other]
            .into_iter()
            .find(|k| (k - mode) * other > 0.0 && ln_mass(*k) <= threshold);
        let first = first.unwrap_or(near);
        tail(first, other)
    };
    Ok((ln_add(tail(observed, own), opposite) / LN_10).min(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(control: (u64, u64), treatment: (u64, u64)) -> f64 {
        let arm = |(n, k)| Proportion { n, k };
        10f64.powf(fisher_exact(&arm(control), &arm(treatment)).unwrap())
    }

    #[test]
    fn small_tables_are_exact() {
        // Fisher's tea: 3 of 4 right. R: fisher.test(matrix(c(3, 1, 1, 3), 2)) 0.4857.
        assert!((p((4, 1), (4, 3)) - 34.0 / 70.0).abs() < 1e-12);
        assert!((p((4, 0), (4, 4)) - 2.0 / 70.0).abs() < 1e-12);
        assert!((p((4, 2), (4, 2)) - 1.0).abs() < 1e-12);
        assert!((p((1_000, 0), (1_000, 50)) / 9.5e-16 - 1.0).abs() < 0.01);
        assert!(p((5, 0), (7, 0)) == 1.0 && p((5, 5), (7, 7)) == 1.0);
    }

    /// Against the definition, table by table.
    #[test]
    fn it_is_the_sum_of_all_tables_as_improbable() {
        for (na, nb) in [(1u64, 1u64), (3, 9), (12, 5), (10, 10)] {
            for ka in 0..=na {
                for kb in 0..=nb {
                    let events = ka + kb;
                    let ways = |k: u64| {
                        (ln_choose(nb as f64, k as f64) + ln_choose(na as f64, (events - k) as f64)).exp()
                    };
                    let tables = events.saturating_sub(na)..=events.min(nb);
                    let all: f64 = tables.clone().map(ways).sum();
                    let extreme: f64 = tables.map(ways).filter(|w| *w <= ways(kb) * (1.0 + SLACK)).sum();
                    let computed = p((na, ka), (nb, kb));
                    assert!((computed - extreme / all).abs() < 1e-9, "{ka}/{na} {kb}/{nb}: {computed}");
                }
            }
        }
    }

    #[test]
    fn huge_tables_end() {
        let huge = Proportion { n: 1_000_000_000_000_000, k: 500_000_000_000_000 };
        let more = Proportion { k: 500_000_500_000_000, ..huge };
        assert!(fisher_exact(&huge, &huge).unwrap() > -1e-9);
        assert!(fisher_exact(&huge, &more).unwrap() < -10.0);
    }
}
