//! What has to hold of any input.

use crate::common::*;
use halftone_judge::{
    Judge, Policy, Snapshot, State, Verdict,
    fixed::{self, Alternative, Better, Moments},
    policy::{
        ClassicSettings, Decision, Effect, Epoch, Gate, GoalState, Horizon, KillBaseline, Looks, Measurement,
        Metric, MetricKind, PolicyKind, PromoteWhen, Role, Sample, Shares, StepConditions,
    },
    sequential::{self, BetaBinomial, Boundary, EventShare, QuantileTest, Sides, Spending},
    special::{normal, student},
    stats::{
        ArmUnits, Counters, Grid, Histogram, Mean, Merge, Pair, PairedOutcomes, Proportion, UnitBuckets,
        merge_all,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Numbers of all sizes, and what is none.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -10.0..10.0f64,
        2 => 0.0..1.0f64,
        1 => any::<f64>(),
        1 => select(vec![0.0, -0.0, 1.0, 0.5, 1e-300, 1e15, 1e300, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..200u64,
        3 => 0..1_000_000u64,
        1 => 0..2_000_000_000_000_000u64,
        1 => select(vec![0, 1, 2, 1_000_000_000_000_000, u64::MAX - 1, u64::MAX]),
    ]
}

fn proportions() -> impl Strategy<Value = Proportion> {
    prop_oneof![
        6 => (count(), 0.0..=1.0f64).prop_map(|(n, share)| Proportion { n, k: ((n as f64 * share) as u64).min(n) }),
        1 => (count(), count()).prop_map(|(n, k)| Proportion { n, k }),
    ]
}

fn means() -> impl Strategy<Value = Mean> {
    prop_oneof![
        4 => vec(-100.0..100.0f64, 0..8).prop_map(|values| Mean::of(&values)),
        2 => (2..100_000u64, 0.1..10.0f64, 0.0..9.0f64).prop_map(|(n, mean, v)| Mean { n, mean, m2: v * n as f64, min: 0.0, max: 20.0, rejected: 0 }),
        1 => (count(), number(), number(), number(), number()).prop_map(|(n, mean, m2, min, max)| Mean { n, mean, m2, min, max, rejected: 0 }),
    ]
}

fn pairs() -> impl Strategy<Value = Pair> {
    prop_oneof![
        3 => vec((-100.0..100.0f64, -100.0..100.0f64), 0..8).prop_map(|values| Pair::of(&values)),
        1 => (count(), vec(number(), 5)).prop_map(|(n, x)| Pair { n, mx: x[0], my: x[1], mxx: x[2], myy: x[3], cxy: x[4] }),
    ]
}

fn histograms() -> impl Strategy<Value = Histogram> {
    let values = vec(prop_oneof![1e-5..100.0f64, number()], 0..40)
        .prop_map(|values| Histogram::of(Grid::default(), &values));
    let counts = vec((prop_oneof![3 => -500..500i32, 1 => any::<i32>()], count()), 0..6);
    prop_oneof![
        3 => values,
        1 => (counts, count(), count()).prop_map(|(counts, zero, infinite)| Histogram {
            counts: counts.into_iter().collect(), zero, infinite, ..Histogram::default()
        }),
        1 => Just(Histogram { grid: Grid::try_from(20_000).unwrap(), ..Histogram::default() }),
    ]
}

fn samples() -> impl Strategy<Value = Sample> {
    prop_oneof![
        4 => proportions().prop_map(Sample::Proportion),
        3 => histograms().prop_map(Sample::Histogram),
        3 => means().prop_map(Sample::Mean),
        1 => pairs().prop_map(Sample::Pair),
        1 => vec((number(), number()), 0..3).prop_map(|sums| Sample::Buckets(UnitBuckets { units: 3, sums })),
        1 => vec((0..1024usize, 0.0..5.0f64, 0.0..5.0f64), 0..400).prop_map(|all| {
            let mut buckets = UnitBuckets { units: all.len() as u64 * 9, ..UnitBuckets::default() };
            all.into_iter().for_each(|(bucket, y, x)| buckets.push(bucket, y, x));
            Sample::Buckets(buckets)
        }),
    ]
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn epochs() -> impl Strategy<Value = Epoch> {
    let share = || prop_oneof![3 => 0.0..0.5f64, 1 => select(vec![0.0, 0.5, 1.0]), 1 => number()];
    let measurement =
        (option::weighted(0.9, samples()), option::weighted(0.9, samples()), option::of(samples()))
            .prop_map(|(control, treatment, rest)| Measurement { control, treatment, rest });
    let units = (count(), count(), count(), 0..20u64);
    ("[12]", share(), share(), share(), units, vec((select(NAMES.to_vec()), measurement), 0..5)).prop_map(
        |(id, control, treatment, rest, units, metrics)| Epoch {
            id,
            shares: Shares { control, treatment, rest, others: Vec::new() },
            units: ArmUnits {
                control: units.0,
                treatment: units.1,
                rest: units.2,
                both: units.3,
                others: Vec::new(),
            },
            metrics: metrics.into_iter().map(|(name, metric)| (name.to_owned(), metric)).collect(),
        },
    )
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let gate = prop_oneof![
        Just(Gate::Final),
        (count(), count(), count()).prop_map(|(elapsed_s, least_s, least_units)| Gate::Step(
            StepConditions { elapsed_s, least_s, least_units, approved: Some(least_s % 2 == 0) }
        )),
    ];
    (prop_oneof![0..4_000_000u64, count()], prop_oneof![0..900u64, count()], gate, vec(epochs(), 0..3))
        .prop_map(|(elapsed_s, data_age_s, gate, epochs)| Snapshot { elapsed_s, data_age_s, gate, epochs })
}

fn metrics() -> impl Strategy<Value = Metric> {
    let kinds = [
        MetricKind::Event,
        MetricKind::Latency,
        MetricKind::Proportion,
        MetricKind::Mean,
        MetricKind::Cuped,
        MetricKind::Ratio,
    ];
    let settings =
        (option::of(0.0..3.0f64), option::of(0.01..3.0f64), option::of(0.001..0.5f64), any::<bool>());
    (select(vec![Role::Goal, Role::Guardrail, Role::Signal]), select(kinds.to_vec()), settings).prop_map(
        |(role, kind, (tolerance, margin, ceiling, flag))| {
            let event = matches!(kind, MetricKind::Event | MetricKind::Latency);
            Metric {
                tolerance,
                margin,
                ceiling: ceiling.filter(|_| kind == MetricKind::Event),
                mde: Some(if flag { Effect::Relative(0.1) } else { Effect::Absolute(0.1) }),
                better: if flag { Better::Higher } else { Better::Lower },
                cap: Some(20.0),
                ..Metric::new(if event && role == Role::Goal { Role::Guardrail } else { role }, kind)
            }
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    let switches = (any::<[bool; 6]>(), 1..20u32, 0..40_000u64);
    (vec(metrics(), 4), switches).prop_map(|(metrics, (flags, steps, every))| Policy {
        policy: if flags[0] { PolicyKind::Sequential } else { PolicyKind::Classic },
        horizon: if flags[1] { Horizon::Known } else { Horizon::Unknown },
        promote_when: if flags[2] { PromoteWhen::Superior } else { PromoteWhen::NonInferior },
        kill_baseline: if flags[3] { KillBaseline::AllStable } else { KillBaseline::Control },
        kill: flags[4],
        require_practical: flags[5],
        steps,
        look_every_s: every + 1,
        classic: ClassicSettings { minimum_s: flags[1].then_some(every), ..ClassicSettings::default() },
        metrics: NAMES.iter().map(|name| (*name).to_owned()).zip(metrics).collect(),
        ..Policy::default()
    })
}

/// Any history that can be stored, of this policy or another.
fn states() -> impl Strategy<Value = State> {
    let finite = || number().prop_filter("a number", |x| x.is_finite());
    let looks = vec(1e-4..0.5f64, 0..6).prop_map(|steps| {
        let mut t = 0.0;
        let add = |step| {
            t += step;
            t
        };
        steps.into_iter().map(add).collect::<Vec<f64>>()
    });
    let goal =
        (option::of(finite()), option::of(finite()), looks.clone(), any::<bool>(), option::of(finite()));
    let goal = goal.prop_map(|(max_information, mde, looks, won, low)| GoalState {
        max_information,
        mde,
        looks: Looks::try_from(looks).unwrap(),
        won,
        low,
        high: low,
    });
    let counters = (0..4_000_000u64, 0..2_000u32, 0..300u64, 0..5usize);
    (
        counters,
        vec((select(NAMES.to_vec()), goal), 0..4),
        looks,
        vec((select(NAMES.to_vec()), finite()), 0..4),
        any::<bool>(),
    )
        .prop_map(
            |((elapsed_s, looks, period, spent_epochs), goals, non_inferior, evidence, planned)| State {
                elapsed_s,
                looks,
                period,
                looked_at_s: elapsed_s,
                spent_epochs,
                planned_s: planned.then_some(elapsed_s as f64),
                goals: goals.into_iter().map(|(name, goal)| (name.to_owned(), goal)).collect(),
                non_inferior: Looks::try_from(non_inferior).unwrap(),
                evidence: evidence.into_iter().map(|(name, ln_e)| (format!("kill/{name}"), ln_e)).collect(),
                ..State::default()
            },
        )
}

/// All numbers are numbers. (JSON would hide NaN as null.)
fn is_sound(verdict: &Verdict, state: &State) -> bool {
    let numbers = verdict.tests.iter().flat_map(|test| {
        [
            test.estimate,
            test.relative,
            test.low,
            test.high,
            test.z,
            test.ln_e,
            test.highest_ln_e,
            test.p,
            Some(test.threshold),
            Some(test.alpha),
        ]
    });
    let others = [verdict.information, verdict.alpha_spent, verdict.remaining_s, state.planned_s];
    let kept = state.evidence.values().copied().map(Some);
    let looks = state.goals.values().flat_map(|goal| [goal.max_information, goal.mde, goal.low, goal.high]);
    numbers.chain(others).chain(kept).chain(looks).flatten().all(f64::is_finite)
        && verdict.tests.iter().all(|test| test.p.is_none_or(|p| (0.0..=1.0).contains(&p)))
        && !verdict.sentence.is_empty()
}

/// The same cases in every run, unless PROPTEST_RNG_SEED chooses others. The fuzz target looks further.
fn config() -> ProptestConfig {
    let rng_seed = match std::env::var_os("PROPTEST_RNG_SEED") {
        Some(_) => ProptestConfig::default().rng_seed,
        None => proptest::test_runner::RngSeed::Fixed(6),
    };
    ProptestConfig { cases: 400, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Any policy, data and history have a verdict, in numbers, that survives its JSON.
    #[test]
    fn there_is_always_a_verdict(
        policy in policies(), snapshots in vec(snapshots(), 1..4), history in option::of(states()), same in any::<bool>(),
    ) {
        if let Ok(judge) = Judge::new(policy) {
            let mut state = history.unwrap_or_default();
            if same {
                state.policy_hash = judge.hash().to_owned();
            }
            for snapshot in &snapshots {
                let (verdict, next) = judge.judge(snapshot, state.clone());
                prop_assert!(is_sound(&verdict, &next), "{verdict:#?}\n{next:#?}");
                let text = serde_json::to_string(&(&verdict, &next)).unwrap();
                let (verdict_again, state_again): (Verdict, State) = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&verdict_again, &verdict);
                prop_assert_eq!(&state_again, &next);
                // From the stored state, to the same bytes.
                let again = judge.judge(snapshot, serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap());
                prop_assert_eq!(serde_json::to_string(&(&again.0, &again.1)).unwrap(), text);
                state = next;
            }
        }
    }

    /// An arm without any data is never promoted.
    #[test]
    fn no_data_is_never_a_pass(policy in policies(), mut snapshot in snapshots(), arm in any::<bool>()) {
        if let Ok(judge) = Judge::new(policy) {
            for epoch in &mut snapshot.epochs {
                if arm { epoch.units.treatment = 0 } else { epoch.units.control = 0 }
                for metric in epoch.metrics.values_mut() {
                    if arm { metric.treatment = None } else { metric.control = None }
                }
            }
            prop_assert_ne!(judge.judge(&snapshot, State::default()).0.decision, Decision::Promote);
        }
    }

    /// Whatever functions are given, they answer with numbers or with an error.
    #[test]
    fn functions_answer_with_numbers(
        (a, b) in (proportions(), proportions()),
        (m, w) in (means(), means()),
        (p, q) in (pairs(), pairs()),
        (h, g) in (histograms(), histograms()),
        (x, y, z, u) in (number(), number(), number(), number()),
        values in vec(number(), 0..12),
        others in vec(number(), 0..12),
    ) {
        fn unsound(test: halftone_judge::Result<fixed::Comparison>) -> bool {
            test.is_ok_and(|t| {
                let numbers = [Some(t.estimate), Some(t.se), Some(t.statistic), t.df, Some(t.p), t.low, t.high];
                !numbers.into_iter().flatten().all(f64::is_finite) || !(0.0..=1.0).contains(&t.p) || t.log10_p.is_nan()
            })
        }
        prop_assert!(!unsound(fixed::two_proportions(&a, &b, x)));
        let shadow = PairedOutcomes { agree: a.n, only_control: b.n, only_treatment: b.k };
        prop_assert!(!unsound(fixed::mcnemar(&shadow, x)));
        prop_assert!(!unsound(fixed::paired_differences(&m, x)));
        for (m, w) in [(Moments::of_mean(&m), Moments::of_mean(&w)), (Moments::of_ratio(&p), Moments::of_ratio(&q))] {
            if let (Ok(m), Ok(w)) = (m, w) {
                prop_assert!(!unsound(fixed::welch(&m, &w, x, Alternative::TwoSided)));
                prop_assert!(!unsound(fixed::relative_lift(&m, &w, x)));
                let _ = fixed::non_inferiority(&m, &w, x, Better::Lower, y);
            }
        }
        prop_assert!(!unsound(fixed::cuped_lift(&p, &q, fixed::Covariates::Continuous, x)));
        if let Ok(log10) = fixed::fisher_exact(&a, &b) {
            prop_assert!(log10 <= 0.0, "{log10}");
        }
        let _ = (fixed::goodness_of_fit(&[a.n, b.n], &[x, y]), fixed::homogeneity(&[a, b]));
        let _ = fixed::mann_whitney(&values, &others, Alternative::Greater);
        let _ = fixed::shift_interval(&values, &others, x);
        prop_assert!(fixed::holm(&values).iter().chain(&fixed::bonferroni(&values)).chain(&fixed::benjamini_hochberg(&values))
            .all(|p| (0.0..=1.0).contains(p)));
        if let Ok(test) = BetaBinomial::new(x, y.abs()) {
            for ln_e in [test.ln_e_above(a.k.min(a.n) as f64, a.n as f64), test.ln_e_below(a.k.min(a.n) as f64, a.n as f64)] {
                prop_assert!(ln_e.is_finite());
            }
        }
        if let Ok(test) = EventShare::new(x, y, 1.0)
            && let Ok(ln_e) = test.ln_e_worse(a.k, a.n)
        {
            prop_assert!(ln_e.is_finite());
        }
        if let Ok(ln_e) = sequential::srm_ln_e(&[a.n, a.k, b.n], &[x, y, z], 1e3) {
            prop_assert!(ln_e.is_finite());
        }
        if let Ok(test) = QuantileTest::new(x, 100.0, 0.05) {
            for ln_e in [test.ln_e_slower(&h, &g, 0.1), test.ln_e_not_slower(&h, &g, 0.1)].into_iter().flatten() {
                prop_assert!(ln_e.is_finite());
            }
            let _ = (test.p_two_sided(&h, &g), test.p_two_sided_raw(&values, &others), test.interval(&h, 0.05));
        }
        if let Ok(cs) = sequential::asymptotic_cs(x, y, z, 0.05, u, Sides::Two) {
            prop_assert!(cs.low.is_finite() && cs.high.is_finite() && cs.ln_e.is_finite());
        }
        let _ = (sequential::one_sided_ln_e(x, y, z), sequential::one_sided_bound(x, y, z), sequential::msprt_ln_e(x, y, z, u));
        let _ = (normal::upper_quantile(x), student::quantile(x, y), student::upper_tail(x, y));
        let _ = fixed::proportions_per_arm(x, y, 0.05, 0.8);
        let _ = (sequential::crossing_probability(&values, &others, None, x), fixed::minimum_duration(x, y, z, u));
        let mut boundary = Boundary::new(Spending::Pocock, 0.05, true).unwrap();
        for t in &values {
            if let Ok(bound) = boundary.look(*t) {
                prop_assert!(bound.is_finite());
            }
        }
    }

    /// Merging is what counting everything at once is, however the values are cut.
    #[test]
    fn merging_is_counting_at_once(
        values in vec((-1e6..1e6f64, -1e3..1e3f64), 2..300),
        cuts in vec(0usize..300, 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % values.len()).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        let parts: Vec<_> = cuts.windows(2).map(|pair| &values[pair[0]..pair[1]]).collect();
        let first = |part: &[(f64, f64)]| part.iter().map(|(x, _)| *x).collect::<Vec<_>>();
        let whole = Mean::of(&first(&values));
        let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-12 * scale.max(1e-300);
        let scale = whole.m2 + 1e6;
        let mut order: Vec<Mean> = parts.iter().map(|part| Mean::of(&first(part))).collect();
        for _ in 0..2 {
            let merged = merge_all(&order).unwrap().unwrap();
            prop_assert_eq!((merged.n, merged.min, merged.max), (whole.n, whole.min, whole.max));
            prop_assert!(close(merged.mean, whole.mean, 1e6) && close(merged.m2, whole.m2, scale), "{merged:?} {whole:?}");
            order.reverse();
        }
        let whole = Pair::of(&values);
        let pairs: Vec<Pair> = parts.iter().map(|part| Pair::of(part)).collect();
        let merged = merge_all(&pairs).unwrap().unwrap();
        prop_assert!(close(merged.cxy, whole.cxy, (whole.mxx * whole.myy).sqrt() + 1e6) && close(merged.myy, whole.myy, whole.myy + 1e3));
        let whole = Histogram::of(Grid::default(), &first(&values));
        let histograms: Vec<_> = parts.iter().map(|part| Histogram::of(Grid::default(), &first(part))).collect();
        prop_assert_eq!(merge_all(&histograms).unwrap().unwrap(), whole);
    }

    /// Reports of counters in any order, any of them twice.
    #[test]
    fn counters_do_not_depend_on_the_order(reports in vec((0..3u8, 0..3u64, count()), 0..30), cut in 0usize..30) {
        let of = |reports: &[(u8, u64, u64)]| {
            let mut counters = Counters::default();
            reports.iter().for_each(|(source, life, value)| counters.report(&source.to_string(), *life, *value));
            counters
        };
        let (left, right) = reports.split_at(cut.min(reports.len()));
        let merged = of(right).merge(&of(left)).unwrap();
        prop_assert_eq!(&merged, &of(&reports));
        prop_assert_eq!(merged.merge(&of(left)).unwrap(), of(&reports));
    }

    /// With arms swapped and the direction reversed, Z is the same.
    #[test]
    fn z_does_not_know_the_names_of_the_arms(
        n in (500..50_000u64, 500..50_000u64), share in (0.1..0.9f64, 0.1..0.9f64), lower in any::<bool>(),
    ) {
        let arm = |n: u64, share: f64| proportion(n, (n as f64 * share) as u64);
        let (a, b) = (arm(n.0, share.0), arm(n.1, share.1));
        let z = |better, control: &Option<Sample>, treatment: &Option<Sample>| {
            let metric = Metric { better, mde: Some(Effect::Absolute(0.01)), baseline: None, ..goal() };
            let mut epoch = epoch(5, vec![("goal", measured(control.clone(), treatment.clone()))]);
            epoch.units = ArmUnits { control: 1_000, treatment: 1_000, ..ArmUnits::default() };
            let verdict = judge(&policy(&[("goal", metric)]), &snapshot(3 * DAY, vec![epoch]));
            verdict.tests.iter().find_map(|test| test.z)
        };
        let (better, other) = if lower { (Better::Lower, Better::Higher) } else { (Better::Higher, Better::Lower) };
        let (one, swapped) = (z(better, &a, &b).unwrap(), z(other, &b, &a).unwrap());
        prop_assert!((one - swapped).abs() <= 1e-9 * one.abs().max(1.0), "{one} {swapped}");
    }
}

#[test]
fn a_thousand_shards_are_one_stream() {
    let values: Vec<f64> =
        (0..100_000u32).map(|i| 1e3 + f64::from(i.wrapping_mul(2_654_435_761) % 1_000)).collect();
    let whole = Mean::of(&values);
    let mut shards: Vec<Mean> = values.chunks(100).map(Mean::of).collect();
    for _ in 0..3 {
        let merged = merge_all(&shards).unwrap().unwrap();
        assert!((merged.mean / whole.mean - 1.0).abs() < 1e-12 && (merged.m2 / whole.m2 - 1.0).abs() < 1e-12);
        shards.rotate_left(317);
        shards.reverse();
    }
    // The verdict does not depend on their order either.
    let part = |k: u64| Proportion { n: 20, k };
    let verdict = |order: &[Proportion]| {
        let arm = merge_all(order).unwrap().map(Sample::Proportion);
        let epoch = epoch(20_000, vec![("goal", measured(proportion(20_000, 4_000), arm))]);
        judge(&policy(&[("goal", goal())]), &snapshot(3 * DAY, vec![epoch]))
    };
    let mut parts: Vec<Proportion> = (0..1_000).map(|i| part(3 + i % 4)).collect();
    let first = verdict(&parts);
    parts.reverse();
    assert_eq!(verdict(&parts), first);
}

#[test]
fn counts_are_exact_at_1e15() {
    const HUGE: u64 = 1_000_000_000_000_000;
    let parts =
        [Proportion { n: HUGE, k: 1 }, Proportion { n: HUGE + 1, k: HUGE }, Proportion { n: 3, k: 2 }];
    assert_eq!(merge_all(&parts).unwrap(), Some(Proportion { n: 2 * HUGE + 4, k: HUGE + 3 }));
    assert!(Proportion { n: u64::MAX, k: 0 }.merge(&parts[0]).is_err());
    let epoch = epoch(
        HUGE,
        vec![
            ("goal", measured(proportion(HUGE, HUGE / 5), proportion(HUGE, HUGE / 5 + 100))),
            ("errors", measured(proportion(HUGE, HUGE / 100), proportion(HUGE, HUGE / 100 + 3))),
        ],
    );
    let policy = policy(&[("goal", goal()), ("errors", errors())]);
    let verdict = judge(&policy, &snapshot(3 * DAY, vec![epoch]));
    assert_eq!(verdict.decision, Decision::Hold, "{}", verdict.sentence);
}
