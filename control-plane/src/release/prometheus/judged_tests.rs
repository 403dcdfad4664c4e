//! How blocks are judged: what is found when, and how often what is not there. The figures of `docs/release.md`.

use super::blocks::{Block, Blocks, fold};
use halftone_judge::{
    Judge, Policy, Snapshot, State,
    policy::{Decision, Epoch, Gate, Measurement, Metric, MetricKind, Role, Sample, Shares, StepConditions},
    stats::ArmUnits,
};
use std::collections::BTreeMap;

/// Requests of the candidate and of stable in a block: 100 a second at a share of 5 %, for 15 s.
const REQUESTS: [u32; 2] = [75, 1_425];
/// A day has 5,760.
const LAST: u64 = 2_000;
/// Blocks from one look to the next.
const LOOK: u64 = 20;

/// SplitMix64: numbers that look like chance, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }

    /// Errors among so many requests.
    fn errors(&mut self, requests: u32, rate: f64) -> f64 {
        if requests < 100 {
            return (0..requests).filter(|_| self.next() < rate).count() as f64;
        }
        let (n, rate) = (f64::from(requests), rate.clamp(0.0, 1.0));
        (n * rate + (n * rate * (1.0 - rate)).sqrt() * self.normal()).round().clamp(0.0, n)
    }
}

/// Errors that come in spells: for some blocks their rate is three times as high, in one arm alone.
fn spells(random: &mut Random, in_one: &mut bool, rate: f64) -> f64 {
    // A spell lasts four blocks in the mean, and a tenth of the time.
    let ends = random.next() < 0.25;
    *in_one = if *in_one { !ends } else { random.next() < 0.25 / 9.0 };
    if *in_one { 3.0 * rate } else { rate }
}

/// The block at which a release is rolled back whose errors have these rates.
fn rolled_back(seed: u64, rates: [f64; 2], with_spells: bool) -> Option<u64> {
    let metric = Metric {
        better: halftone_judge::fixed::Better::Lower,
        ..Metric::new(Role::Guardrail, MetricKind::Ratio)
    };
    let policy = Policy { metrics: BTreeMap::from([("errors".to_owned(), metric)]), ..Policy::default() };
    let judge = Judge::new(policy).unwrap();
    let mut random = Random(seed);
    let (mut state, mut arms, mut spell) = (State::default(), [Blocks::new(), Blocks::new()], [false; 2]);
    for number in 0..LAST {
        // Load and trouble that both arms share.
        let load = 0.5 + random.next();
        for ((blocks, spell), (requests, rate)) in
            arms.iter_mut().zip(&mut spell).zip(REQUESTS.into_iter().zip(rates))
        {
            let rate = if with_spells { spells(&mut random, spell, rate) } else { rate };
            #[expect(clippy::cast_possible_truncation, reason = "some thousand at most")]
            let requests = (f64::from(requests) * load) as u32;
            let numerator = random.errors(requests, rate);
            blocks.insert(number, Block { numerator, denominator: f64::from(requests), resets: 0 });
        }
        if (number + 1) % LOOK != 0 {
            continue;
        }
        let [treatment, control] = [0, 1].map(|arm| Sample::Buckets(fold(&arms[arm], (0, number + 1))));
        let measured = Measurement { control: Some(control), treatment: Some(treatment), rest: None };
        let units = number + 1;
        let snapshot = Snapshot {
            elapsed_s: 15 * units,
            data_age_s: 0,
            gate: Gate::Step(StepConditions { least_s: 1_000_000, ..StepConditions::default() }),
            epochs: vec![Epoch {
                id: "1".to_owned(),
                shares: Shares { control: 0.5, treatment: 0.5, ..Shares::default() },
                units: ArmUnits { control: units, treatment: units, ..ArmUnits::default() },
                metrics: BTreeMap::from([("errors".to_owned(), measured)]),
            }],
        };
        let (verdict, after) = judge.judge(&snapshot, state);
        state = after;
        if verdict.decision == Decision::Rollback {
            return Some(units);
        }
    }
    None
}

/// Blocks until it is rolled back in the middle one of some releases; `None` when most are not.
fn median(rates: [f64; 2], with_spells: bool) -> Option<u64> {
    let mut found: Vec<u64> =
        (0..40).map(|seed| rolled_back(seed, rates, with_spells).unwrap_or(u64::MAX)).collect();
    found.sort_unstable();
    found.get(found.len() / 2).copied().filter(|blocks| *blocks < u64::MAX)
}

#[test]
fn a_fault_is_found_once_there_are_500_blocks() {
    assert_eq!(median([0.2, 0.01], false), Some(500));
    assert_eq!(median([0.2, 0.01], true), Some(500));
    assert_eq!(median([0.03, 0.01], true), Some(500));
    assert_eq!(median([0.0125, 0.01], false), Some(500));
}

#[test]
fn what_is_no_worse_is_not_rolled_back() {
    for with_spells in [false, true] {
        let false_calls =
            (0..300).filter(|seed| rolled_back(*seed, [0.01, 0.01], with_spells).is_some()).count();
        assert!(false_calls <= 9, "{false_calls} of 300");
        println!("with spells {with_spells}: {false_calls} of 300");
    }
}
