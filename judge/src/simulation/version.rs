use super::Random;
use crate::{
    special::normal,
    stats::{Grid, Histogram},
};

/// σ of ln latency.
const SIGMA: f64 = 0.5;
/// Median of stable's latency, in seconds.
const MEDIAN: f64 = 0.1;
/// Standard deviations of ln latency that have buckets of their own: beyond are 2e-9 of the units.
const FAR: f64 = 6.0;

/// How a version behaves.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Rate of units that get no answer.
    errors: f64,
    /// By bucket from `first` on: the chance to be in it for those that are in none before.
    chances: Vec<f64>,
    first: i32,
}

impl Version {
    /// With this rate of errors, and `factor` times stable's latency.
    pub(super) fn new(errors: f64, factor: f64) -> Self {
        let grid = Grid::default();
        let median = (MEDIAN * factor).ln();
        #[expect(clippy::cast_possible_truncation, reason = "a saturating cast of a small number")]
        let bucket = |deviations: f64| ((median + deviations * SIGMA) / grid.ln_gamma()).ceil() as i32;
        let (first, last) = (bucket(-FAR), bucket(FAR));
        let slower = |index: i32| {
            let edge = f64::from(index) * grid.ln_gamma();
            normal::upper_tail((edge - median) / SIGMA)
        };
        let mut before = 1.0;
        let chance = |index| {
            let behind = slower(index);
            let chance = if index == last { 1.0 } else { 1.0 - behind / before };
            before = behind;
            chance
        };
        Self { errors, chances: (first..=last).map(chance).collect(), first }
    }

    /// Outcomes of some units.
    pub(super) fn serve(&self, units: u64, random: &mut Random) -> Served {
        let failed = random.binomial(units, self.errors);
        let mut left = units - failed;
        let bucket = |chance: &f64| {
            let here = random.binomial(left, *chance);
            left -= here;
            here
        };
        Served { units, failed, first: self.first, answered: self.chances.iter().map(bucket).collect() }
    }
}

/// Units of one arm and what they got. A unit without an answer is infinitely slow.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) units: u64,
    pub(super) failed: u64,
    first: i32,
    answered: Vec<u64>,
}

impl Served {
    pub(super) fn add(&mut self, other: &Self) {
        self.units += other.units;
        self.failed += other.failed;
        self.first = other.first;
        self.answered.resize(other.answered.len().max(self.answered.len()), 0);
        self.answered.iter_mut().zip(&other.answered).for_each(|(sum, count)| *sum += count);
    }

    /// Those that come in the first part of an interval, and those that come after: each by chance, `share` of them
    /// first.
    pub(super) fn split(self, share: f64, random: &mut Random) -> (Self, Self) {
        let failed = random.binomial(self.failed, share);
        let early: Vec<u64> = self.answered.iter().map(|count| random.binomial(*count, share)).collect();
        let late = self.answered.iter().zip(&early).map(|(all, early)| all - early).collect();
        let units = failed + early.iter().sum::<u64>();
        (
            Self { units, failed, first: self.first, answered: early },
            Self {
                units: self.units - units,
                failed: self.failed - failed,
                first: self.first,
                answered: late,
            },
        )
    }

    /// Latencies, with `zero` and `infinite` ones more.
    pub(super) fn histogram(&self, zero: u64, infinite: u64) -> Histogram {
        let buckets = (self.first..).zip(&self.answered).filter(|(_, count)| **count > 0);
        Histogram {
            grid: Grid::default(),
            counts: buckets.map(|(index, count)| (index, *count)).collect(),
            zero,
            infinite: self.failed + infinite,
            ..Histogram::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_served_and_spread_without_losing_any() {
        let mut random = Random::new(1);
        let all = Version::new(0.1, 2.0).serve(100_000, &mut random);
        assert!((9_600..10_400).contains(&all.failed), "{}", all.failed);
        let median = Histogram { infinite: 0, ..all.histogram(0, 0) }.quantile(0.5).unwrap();
        assert!((median / 0.2 - 1.0).abs() < 0.03, "{median}");
        assert_eq!(all.histogram(0, 0).total().unwrap(), 100_000);
        let (mut early, late) = all.clone().split(0.25, &mut random);
        assert!((24_300..25_700).contains(&early.units), "{}", early.units);
        early.add(&late);
        assert_eq!((early.units, early.failed, &early.answered), (all.units, all.failed, &all.answered));
    }
}
