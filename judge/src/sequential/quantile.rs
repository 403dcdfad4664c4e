use super::{BetaBinomial, beta_binomial};
use crate::{
    error::{Error, Result, probability},
    stats::{Grid, Histogram},
};

/// The two-sample test of equal q-quantiles of Howard and Ramdas, two-sided for reports and one-sided for decisions.
/// Nothing is assumed of the distribution: only how many values are at most x.
///
/// Source: Howard, Ramdas (2022), "Sequential estimation of quantiles with applications to A/B testing and best-arm
/// identification"; confseq's `QuantileABTest`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileTest(BetaBinomial);

/// Values of one arm in ascending order: where they are, and how many are at most there.
struct Cumulated {
    /// (position, values at most there): buckets, with 0 before and +∞ behind them.
    steps: Vec<(i64, f64)>,
    n: f64,
}

const ZERO: i64 = i64::MIN;
const INFINITE: i64 = i64::MAX;

impl Cumulated {
    /// With all buckets moved up by `shift`: 0 and +∞ stay what they are.
    fn new(histogram: &Histogram, shift: i32) -> Result<Self> {
        let n = histogram.total()? as f64;
        let buckets =
            histogram.counts.iter().map(|(index, count)| (i64::from(*index) + i64::from(shift), *count));
        let all = [(ZERO, histogram.zero)].into_iter().chain(buckets).chain([(INFINITE, histogram.infinite)]);
        let mut sum = 0;
        let steps = all
            .filter(|(_, count)| *count > 0)
            .map(|(position, count)| {
                sum += count;
                (position, sum as f64)
            })
            .collect();
        Ok(Self { steps, n })
    }
}

impl QuantileTest {
    /// Of the `q`-quantile, tuned for `t_opt` values at level `alpha_opt`: 100 and .05 by default.
    ///
    /// # Errors
    /// When a parameter is outside of its range.
    pub fn new(q: f64, t_opt: f64, alpha_opt: f64) -> Result<Self> {
        Ok(Self(BetaBinomial::new(probability("q", q)?, beta_binomial::tuning(t_opt, alpha_opt)?)?))
    }

    /// ln E that treatment's quantile is more than 1 + `tolerance` times control's. Valid for all distributions whose
    /// quantiles are not: min over buckets i of [G⁻(values of treatment up to the upper edge of i) + G⁺(values of
    /// control up to its lower edge)], control moved up by ceil(ln(1 + δ)/ln γ) buckets.
    ///
    /// Wide buckets cost power, never validity. 0 without values in an arm.
    ///
    /// # Errors
    /// When the grids differ, a count overflows, or `tolerance` is negative.
    pub fn ln_e_slower(&self, control: &Histogram, treatment: &Histogram, tolerance: f64) -> Result<f64> {
        let grid = shared_grid(control, treatment)?;
        let shift = grid.shift(ratio(tolerance)?, true);
        Ok(self.ln_e_above(&Cumulated::new(treatment, 0)?, &Cumulated::new(control, shift)?))
    }

    /// ln E that treatment's quantile is less than 1 + `margin` times control's: the test of non-inferiority. Control
    /// is moved up by floor(ln(1 + margin)/ln γ) buckets.
    ///
    /// # Errors
    /// As [`Self::ln_e_slower`].
    pub fn ln_e_not_slower(&self, control: &Histogram, treatment: &Histogram, margin: f64) -> Result<f64> {
        let grid = shared_grid(control, treatment)?;
        let shift = grid.shift(ratio(margin)?, false);
        Ok(self.ln_e_above(&Cumulated::new(control, shift)?, &Cumulated::new(treatment, 0)?))
    }

    /// ln E that the quantile of `slow` is above that of `fast`: the least of f(i) = G⁻(slow up to bucket i) +
    /// G⁺(fast below bucket i). Between two values of `slow` the first term stays and the second grows, so that only
    /// buckets with a value of `slow`, and the place before all, can be the least.
    fn ln_e_above(&self, slow: &Cumulated, fast: &Cumulated) -> f64 {
        if slow.n == 0.0 || fast.n == 0.0 {
            return 0.0;
        }
        let mut places = Vec::with_capacity(slow.steps.len() + 1);
        places.push((0.0, 0.0));
        let mut behind = fast.steps.iter().peekable();
        let mut below = 0.0;
        for (position, up_to) in &slow.steps {
            while let Some((_, count)) = behind.next_if(|(other, _)| other < position) {
                below = *count;
            }
            places.push((*up_to, below));
        }
        self.least(&places, slow.n, fast.n)
    }

    /// The least of G⁻(s; n_s) + G⁺(f; n_f) over (s, f), both ascending. G⁻ falls and G⁺ grows along the list, so that a
    /// stretch is at least G⁻ of its end plus G⁺ of its start, and most stretches need no look inside.
    fn least(&self, places: &[(f64, f64)], slow: f64, fast: f64) -> f64 {
        let falling = |s: f64| self.0.ln_e_below(s, slow);
        let rising = |f: f64| self.0.ln_e_above(f, fast);
        let Some((first, last)) = places.first().zip(places.last()) else { return 0.0 };
        let start = (falling(first.0), rising(first.1));
        let end = (falling(last.0), rising(last.1));
        let mut least = (start.0 + start.1).min(end.0 + end.1);
        let mut stretches = vec![(0, start, places.len() - 1, end)];
        while let Some((from, start, to, end)) = stretches.pop() {
            let middle = from + (to - from) / 2;
            if middle == from || end.0 + start.1 >= least {
                continue;
            }
            let Some((s, f)) = places.get(middle) else { continue };
            let at = (falling(*s), rising(*f));
            least = least.min(at.0 + at.1);
            stretches.push((from, start, middle, at));
            stretches.push((middle, at, to, end));
        }
        least
    }

    /// p of equal quantiles, two-sided, from histograms: exp(−min over buckets of the least ln E that a place inside of
    /// the bucket allows). 1 without values in an arm.
    ///
    /// # Errors
    /// When the grids differ, or a count overflows.
    pub fn p_two_sided(&self, control: &Histogram, treatment: &Histogram) -> Result<f64> {
        shared_grid(control, treatment)?;
        Ok(self.p_of_steps(&Cumulated::new(control, 0)?, &Cumulated::new(treatment, 0)?))
    }

    /// The same from raw values.
    ///
    /// # Errors
    /// When a value is NaN.
    pub fn p_two_sided_raw(&self, control: &[f64], treatment: &[f64]) -> Result<f64> {
        let mut all: Vec<(f64, bool)> =
            control.iter().map(|x| (*x, false)).chain(treatment.iter().map(|x| (*x, true))).collect();
        if all.iter().any(|(value, _)| value.is_nan()) {
            return Err(Error::malformed("a value that is not a number"));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let (mut seen_a, mut seen_b) = (0.0, 0.0);
        for (position, ties) in all.chunk_by(|x, y| x.0 == y.0).enumerate() {
            let treated = ties.iter().filter(|(_, treated)| *treated).count();
            seen_b += treated as f64;
            seen_a += (ties.len() - treated) as f64;
            let position = i64::try_from(position).unwrap_or(INFINITE);
            a.push((position, seen_a));
            b.push((position, seen_b));
        }
        let cumulated = |steps, n: usize| Cumulated { steps, n: n as f64 };
        Ok(self.p_of_steps(&cumulated(a, control.len()), &cumulated(b, treatment.len())))
    }

    fn p_of_steps(&self, a: &Cumulated, b: &Cumulated) -> f64 {
        if a.n == 0.0 || b.n == 0.0 {
            return 1.0;
        }
        let least = |n: f64| {
            let bottom = self.bottom(n);
            move |(low, high): (f64, f64)| self.0.ln_e(bottom.clamp(low, high), n)
        };
        let (of_a, of_b) = (least(a.n), least(b.n));
        let mut positions: Vec<i64> = a.steps.iter().chain(&b.steps).map(|(position, _)| *position).collect();
        positions.sort_unstable();
        positions.dedup();
        let (mut at_a, mut at_b) = (a.steps.iter().peekable(), b.steps.iter().peekable());
        let (mut low_a, mut low_b) = (0.0, 0.0);
        let mut smallest = f64::INFINITY;
        for position in positions {
            let high_a = at_a.next_if(|(other, _)| *other == position).map_or(low_a, |(_, count)| *count);
            let high_b = at_b.next_if(|(other, _)| *other == position).map_or(low_b, |(_, count)| *count);
            smallest = smallest.min(of_a((low_a, high_a)) + of_b((low_b, high_b)));
            (low_a, low_b) = (high_a, high_b);
        }
        super::p_of(smallest)
    }

    /// The real k that makes ln E(k; n) least: it is convex in k.
    fn bottom(&self, n: f64) -> f64 {
        let (mut low, mut high) = (0.0, n);
        for _ in 0..200 {
            let third = (high - low) / 3.0;
            if third <= 1e-9 * n {
                break;
            }
            let (left, right) = (low + third, high - third);
            if self.0.ln_e(left, n) < self.0.ln_e(right, n) { high = right } else { low = left }
        }
        low + (high - low) / 2.0
    }

    /// The confidence sequence of one quantile: the upper edges of the first and last bucket whose cumulated count is
    /// plausible, ln E(k(x); n, q, c) < ln(1/α); `None` for a limit beyond all values.
    ///
    /// # Errors
    /// When `alpha` is no probability, or a count overflows.
    pub fn interval(&self, arm: &Histogram, alpha: f64) -> Result<(Option<f64>, Option<f64>)> {
        let wanted = -probability("alpha", alpha)?.ln();
        let cumulated = Cumulated::new(arm, 0)?;
        let n = cumulated.n;
        let edge = |position: i64| match position {
            ZERO => Some(0.0),
            INFINITE => None,
            bucket => i32::try_from(bucket).ok().map(|index| arm.grid.upper_edge(index)),
        };
        let expected = n * self.0.share();
        // Counts up to the lower limit are too small to be a share of q, and from the upper limit on too large.
        let too_few = |k: f64| k < expected && self.0.ln_e(k, n) >= wanted;
        let too_many = |k: f64| k > expected && self.0.ln_e(k, n) >= wanted;
        let low = cumulated.steps.iter().rev().find(|(_, k)| too_few(*k)).and_then(|(x, _)| edge(*x));
        let high = cumulated.steps.iter().find(|(_, k)| too_many(*k)).and_then(|(x, _)| edge(*x));
        Ok((low, high))
    }
}

fn shared_grid(control: &Histogram, treatment: &Histogram) -> Result<Grid> {
    if control.grid == treatment.grid {
        Ok(control.grid)
    } else {
        Err(Error::Mismatch { what: "grids of histograms".to_owned() })
    }
}

fn ratio(tolerance: f64) -> Result<f64> {
    if tolerance >= 0.0 && tolerance.is_finite() {
        Ok(1.0 + tolerance)
    } else {
        Err(Error::range("the tolerance", tolerance, "at least 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = f64>) -> Histogram {
        Histogram::of(Grid::default(), &values.into_iter().collect::<Vec<_>>())
    }

    fn ladder(from: u32, factor: f64) -> Histogram {
        histogram((0..1_000).map(|step| f64::from(from + step) * factor))
    }

    /// The search leaves nothing out: against every bucket in turn.
    #[test]
    fn the_least_is_the_least_of_all() {
        let test = QuantileTest::new(0.5, 100.0, 0.05).unwrap();
        for (a, b) in [
            (ladder(1, 1.0), ladder(1, 1.2)),
            (ladder(500, 1.0), ladder(300, 2.0)),
            (ladder(9, 1.0), ladder(9, 1.0)),
        ] {
            let computed = test.ln_e_slower(&a, &b, 0.0).unwrap();
            let up_to =
                |h: &Histogram, edge: i32| h.counts.range(..=edge).map(|(_, n)| *n).sum::<u64>() as f64;
            let every = (-10..900).map(|i| {
                test.0.ln_e_below(up_to(&b, i), 1_000.0) + test.0.ln_e_above(up_to(&a, i - 1), 1_000.0)
            });
            let least = every.fold(f64::INFINITY, f64::min);
            assert!((computed - least).abs() < 1e-12, "{computed} {least}");
        }
    }

    #[test]
    fn only_slower_is_slower() {
        let test = QuantileTest::new(0.5, 100.0, 0.05).unwrap();
        let (fast, slow) = (ladder(1_000, 1.0), ladder(1_000, 2.0));
        assert!(test.ln_e_slower(&fast, &slow, 0.1).unwrap() > 20.0);
        assert!(test.ln_e_slower(&slow, &fast, 0.1).unwrap() < 0.0);
        assert!(test.ln_e_slower(&fast, &slow, 1.0).unwrap() < 0.0, "twice as slow is tolerated");
        assert!(test.ln_e_not_slower(&fast, &fast, 0.2).unwrap() > 3.0);
        assert!(test.ln_e_not_slower(&fast, &slow, 0.2).unwrap() < 0.0);
        // Units without an answer count as infinitely slow.
        let mut dead = fast.clone();
        dead.counts.clear();
        dead.infinite = 1_000;
        assert!(test.ln_e_slower(&fast, &dead, 0.1).unwrap() > 20.0);
        assert_eq!(test.ln_e_slower(&fast, &Histogram::default(), 0.1).unwrap(), 0.0);
        let other = Histogram { grid: Grid::try_from(20_000).unwrap(), ..Histogram::default() };
        assert!(test.ln_e_slower(&fast, &other, 0.1).is_err());
        let (low, high) = test.interval(&fast, 0.05).unwrap();
        assert!(
            low.unwrap() < 1_500.0 && high.unwrap() > 1_500.0 && high.unwrap() < 1_700.0,
            "{low:?} {high:?}"
        );
        assert_eq!(test.interval(&Histogram::default(), 0.05).unwrap(), (None, None));
    }

    /// Buckets of 2 % (γ = 1.02) give .0307 where raw data give .0055.
    #[test]
    fn buckets_cost_power_and_never_validity() {
        let test = QuantileTest::new(0.5, 100.0, 0.05).unwrap();
        let range = |from: u32| (from..from + 1_000).map(f64::from);
        let coarse =
            |from: u32| Histogram::of(Grid::try_from(9_901).unwrap(), &range(from).collect::<Vec<_>>());
        let by_buckets = test.p_two_sided(&coarse(1), &coarse(101)).unwrap();
        let raw =
            test.p_two_sided_raw(&range(1).collect::<Vec<_>>(), &range(101).collect::<Vec<_>>()).unwrap();
        assert!((raw - 0.005_494_7).abs() < 2e-6 && (by_buckets - 0.0307).abs() < 1e-3, "{raw} {by_buckets}");
    }
}
