//! From samples of counters to what each block of time added.

use halftone_judge::stats::UnitBuckets;
use std::collections::BTreeMap;

/// Longer than this nobody looked: what a counter gained meanwhile belongs to no known block. Also how far back
/// Prometheus itself looks for a sample.
const GAP_MS: u64 = 5 * 60_000;
/// The same for long blocks.
const GAP_BLOCKS: u64 = 4;
/// Runs of blocks that an epoch is folded into at most, each twice as long when there would be more: so 120 at least, of which
/// the judge needs 100. As long as that allows, for trouble that lasts for some blocks.
const MOST_RUNS: u64 = 240;

/// A value of a counter, and when it had it: milliseconds since the Unix epoch.
pub(super) type Sample = (u64, f64);

/// What happened in a block of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Block {
    /// What the numerators gained.
    pub(super) numerator: f64,
    /// What the denominators gained.
    pub(super) denominator: f64,
    /// Denominators that began again.
    pub(super) resets: u64,
}

/// Blocks by number: block b is the time after b lengths since the Unix epoch, up to and with b + 1 lengths. One that is
/// missing was not seen.
pub(super) type Blocks = BTreeMap<u64, Block>;

/// Which of the two a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Numerator,
    Denominator,
}

/// How time is cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Length of a block in milliseconds, above 0.
    pub(super) block_ms: u64,
    /// When epochs began: what a counter gained across such a moment belongs to neither.
    pub(super) epochs: Vec<u64>,
}

impl Cut {
    /// Between two samples that still belong together.
    pub(super) fn gap_ms(&self) -> u64 {
        GAP_MS.max(GAP_BLOCKS.saturating_mul(self.block_ms))
    }

    /// The block of a moment.
    pub(super) fn block(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(1) / self.block_ms
    }

    /// The blocks that count for an epoch: whole ones, without the first, in which proxies begin to take it up.
    pub(super) fn of_epoch(&self, since_ms: u64, until_ms: u64) -> (u64, u64) {
        let first = since_ms.div_ceil(self.block_ms) + 1;
        (first, (until_ms / self.block_ms).max(first))
    }

    /// Adds what a series gained to the blocks from number `from` on. `samples` ascend in time. As Prometheus has it, a
    /// series begins with its first sample, which is no gain; what was lost between the last sample and a reset is not known.
    pub(super) fn add(&self, blocks: &mut Blocks, part: Part, samples: &[Sample], from: u64) {
        let usable = || samples.iter().filter(|(_, value)| value.is_finite());
        for ((before_ms, before), (at_ms, value)) in usable().zip(usable().skip(1)) {
            let number = self.block(*at_ms);
            let is_gap = at_ms.saturating_sub(*before_ms) > self.gap_ms();
            let straddles = self.epochs.iter().any(|since| before_ms < since && since <= at_ms);
            if number < from || is_gap || straddles {
                continue;
            }
            let block = blocks.entry(number).or_default();
            let is_reset = value < before;
            let gain = if is_reset { *value } else { value - before };
            match part {
                Part::Numerator => block.numerator += gain,
                Part::Denominator => {
                    block.denominator += gain;
                    block.resets += u64::from(is_reset);
                }
            }
        }
    }
}

/// Blocks from `first` up to before `end` as the judge takes units: in up to 240 runs of neighbours, so that what lasts for
/// some blocks is one accident and not many.
pub(super) fn fold(blocks: &Blocks, (first, end): (u64, u64)) -> UnitBuckets {
    let mut folded = UnitBuckets::default();
    let mut length = 1;
    while (end - first).div_ceil(length) > MOST_RUNS {
        length *= 2;
    }
    for (number, block) in blocks.range(first..end) {
        let run = usize::try_from((number - first) / length).unwrap_or_default();
        folded.push(run, block.numerator, block.denominator);
        folded.units += u64::from(block.denominator > 0.0);
    }
    folded
}

/// Blocks from `first` up to before `end` in which both have requests.
pub(super) fn shared(a: &Blocks, b: &Blocks, (first, end): (u64, u64)) -> u64 {
    let has = |blocks: &Blocks, number| blocks.get(number).is_some_and(|block| block.denominator > 0.0);
    let both = a.range(first..end).filter(|(number, block)| block.denominator > 0.0 && has(b, number));
    u64::try_from(both.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000;

    fn cut() -> Cut {
        Cut { block_ms: 15 * SECOND, epochs: Vec::new() }
    }

    fn gained(cut: &Cut, samples: &[Sample], from: u64) -> Blocks {
        let mut blocks = Blocks::new();
        cut.add(&mut blocks, Part::Denominator, samples, from);
        blocks
    }

    fn total(blocks: &Blocks) -> f64 {
        blocks.values().map(|block| block.denominator).sum()
    }

    #[test]
    fn each_gain_is_in_the_block_of_its_later_sample() {
        let samples = [(10, 5.0), (15, 7.0), (16, 8.0), (46, 10.0)].map(|(at, value)| (at * SECOND, value));
        let blocks = gained(&cut(), &samples, 0);
        let of = |block| blocks.get(&block).map(|block: &Block| block.denominator);
        assert_eq!([of(0), of(1), of(2), of(3)], [Some(2.0), Some(1.0), None, Some(2.0)]);
    }

    #[test]
    fn resets_gaps_and_what_is_no_number_are_seen() {
        let samples = [(0, 5.0), (15, 9.0), (30, f64::NAN), (45, 2.0), (400, 50.0), (415, 51.0), (430, 50.0)];
        let blocks = gained(&cut(), &samples.map(|(at, value)| (at * SECOND, value)), 0);
        assert_eq!(total(&blocks), 4.0 + 2.0 + 1.0 + 50.0);
        assert_eq!(blocks.values().map(|block| block.resets).sum::<u64>(), 2);
        assert!(!blocks.contains_key(&cut().block(400 * SECOND)), "nobody saw it");
    }

    #[test]
    fn nothing_is_counted_across_the_beginning_of_an_epoch() {
        let cut = Cut { epochs: vec![20 * SECOND], ..cut() };
        let samples = [(0, 0.0), (15, 1.0), (30, 10.0), (45, 100.0)].map(|(at, value)| (at * SECOND, value));
        assert_eq!(total(&gained(&cut, &samples, 0)), 1.0 + 90.0);
        // The block after the first whole one, to the last that ended.
        assert_eq!(cut.of_epoch(20 * SECOND, 119 * SECOND), (3, 7));
        assert_eq!(cut.of_epoch(30 * SECOND, 30 * SECOND), (3, 3));
    }

    #[test]
    fn an_epoch_of_any_length_has_room() {
        for count in [1u64, 100, 240, 241, 500, 5_760, 80_640] {
            let block = Block { numerator: 1.0, denominator: 10.0, ..Block::default() };
            let blocks: Blocks = (7..7 + count).map(|number| (number, block)).collect();
            let folded = fold(&blocks, (7, 7 + count));
            assert_eq!((folded.units, folded.totals()), (count, (count as f64, 10.0 * count as f64)));
            let filled = folded.filled() as u64;
            assert!(filled <= 240 && filled >= count.min(120), "{count}: {filled}");
            assert_eq!(shared(&blocks, &Blocks::new(), (7, 7 + count)), 0);
            assert_eq!(shared(&blocks, &blocks, (7, 7 + count)), count);
        }
    }

    /// What a service counts: requests by 5 s, restarts and failed scrapes.
    fn life() -> impl Strategy<Value = Vec<(u32, bool, bool)>> {
        let event = (0u32..50, prop::bool::weighted(0.1), prop::bool::weighted(0.2));
        prop::collection::vec(event, 2..200)
    }

    /// The samples of a life; restarts happen right after a scrape that was read, so that nothing is lost.
    fn samples(life: &[(u32, bool, bool)]) -> (Vec<Sample>, f64) {
        let (mut value, mut requests) = (0.0, 0.0);
        let mut samples: Vec<Sample> = vec![(0, 0.0)];
        for (number, (count, restarts, missed)) in life.iter().enumerate() {
            let last = number + 1 == life.len();
            if *restarts && samples.last().is_some_and(|(at, _)| *at == 5 * SECOND * number as u64) {
                value = 0.0;
            }
            value += f64::from(*count);
            requests += f64::from(*count);
            if !missed || last {
                samples.push((5 * SECOND * (number as u64 + 1), value));
            }
        }
        (samples, requests)
    }

    proptest! {
        /// Resets below the value before are seen; the others cannot be told from a gain, whoever computes it.
        #[test]
        fn every_request_is_counted_once(mut life in life()) {
            // More in the first scrape than a service has after it begins again.
            life[0] = (1_000, false, false);
            let mut restarted = false;
            for event in &mut life {
                event.1 &= !restarted;
                restarted |= event.1;
                if event.1 {
                    event.2 = false;
                }
            }
            let (samples, requests) = samples(&life);
            prop_assert_eq!(total(&gained(&cut(), &samples, 0)), requests);
        }

        /// Read at once or in parts, before or after a restart: the same blocks.
        #[test]
        fn reading_in_parts_is_reading_at_once(life in life(), part in 1u64..40) {
            let (samples, _) = samples(&life);
            let cut = cut();
            let whole = gained(&cut, &samples, 0);
            let mut parts = Blocks::new();
            let last = cut.block(samples.last().unwrap().0);
            let mut from = 0;
            while from <= last {
                let begin_ms = from * cut.block_ms;
                let seen: Vec<Sample> = samples
                    .iter()
                    .filter(|(at, _)| *at + cut.gap_ms() >= begin_ms && cut.block(*at) < from + part)
                    .copied()
                    .collect();
                parts.extend(gained(&cut, &seen, from));
                from += part;
            }
            prop_assert_eq!(whole, parts);
        }

        /// The order in which series come does not matter, and each counts for itself.
        #[test]
        fn series_are_added_up(a in life(), b in life()) {
            let (a, b) = (samples(&a).0, samples(&b).0);
            let cut = cut();
            let (mut one, mut other) = (gained(&cut, &a, 0), gained(&cut, &b, 0));
            let sum = total(&one) + total(&other);
            cut.add(&mut one, Part::Denominator, &b, 0);
            cut.add(&mut other, Part::Denominator, &a, 0);
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(total(&one), sum);
        }

        /// No gain is negative, whatever the samples are, and folding loses none.
        #[test]
        fn nothing_is_ever_lost_below_zero(values in prop::collection::vec(0.0f64..1e6, 0..600)) {
            let at = |(index, value): (usize, f64)| (SECOND * 7 * index as u64, value);
            let samples: Vec<Sample> = values.into_iter().enumerate().map(at).collect();
            let blocks = gained(&cut(), &samples, 0);
            prop_assert!(blocks.values().all(|block| block.denominator >= 0.0));
            let folded = fold(&blocks, (0, 10_000));
            prop_assert!((folded.totals().1 - total(&blocks)).abs() <= 1e-9 * total(&blocks));
            prop_assert!(folded.check().is_ok());
        }
    }
}
