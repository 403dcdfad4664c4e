use super::{Random, Share, random::count};
use crate::{
    error::{Error, Result},
    fixed::{Moments, relative_lift},
    policy::{
        Baseline, Decision, Effect, Epoch, Gate, Horizon, Judge, Measurement, Metric, MetricKind, Policy,
        Reason, Role, Sample, Shares, Snapshot, State,
    },
    sequential::{Boundary, Sides, Spending, asymptotic_cs},
    stats::{ArmUnits, BUCKETS, Mean, Proportion, UnitBuckets},
};

/// What a unit's value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    /// 1 with this probability.
    Bernoulli(f64),
    /// e^(σ·normal).
    Lognormal(f64),
    /// Failures over requests, of units with 5·e^(σ·normal) requests, rounded up. Half of a bad unit's requests fail, and one
    /// unit in ten is bad; of the others' 1 % do. What has no guards takes requests for independent.
    Requests(f64),
}

/// Share of bad units, and which share of a unit's requests fails, when it is bad and when it is not.
const BAD: f64 = 0.1;
const FAILING: [f64; 2] = [0.5, 0.01];

impl Data {
    /// Mean, standard deviation and p99, which values are capped at.
    fn baseline(self) -> (f64, f64, f64) {
        match self {
            Self::Bernoulli(p) => (p, (p * (1.0 - p)).sqrt(), 1.0),
            Self::Lognormal(sigma) => {
                let square = sigma * sigma;
                let mean = (square / 2.0).exp();
                (mean, mean * square.exp_m1().sqrt(), (2.326_347_874 * sigma).exp())
            }
            // The plan is made for a number of units, whatever they vary by.
            Self::Requests(_) => (BAD * FAILING[0] + (1.0 - BAD) * FAILING[1], 1.0, 1.0),
        }
    }

    fn kind(self) -> MetricKind {
        match self {
            Self::Bernoulli(_) => MetricKind::Proportion,
            Self::Lognormal(_) => MetricKind::Mean,
            Self::Requests(_) => MetricKind::Ratio,
        }
    }
}

/// How a difference is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Planned looks, as the default policy takes them: capped values, and its guards.
    Planned,
    /// Planned looks with nothing else.
    PlannedUnguarded,
    /// A confidence sequence, as the policy uses it without a horizon.
    Open,
    /// A confidence sequence of the relative difference with nothing else, as others compute it.
    OpenUnguarded,
}

/// One arm.
#[derive(Clone, Default)]
struct Arm {
    ones: Proportion,
    mean: Mean,
    buckets: UnitBuckets,
}

impl Arm {
    fn draw(&mut self, data: Data, units: u64, cap: f64, random: &mut Random) {
        match data {
            Data::Bernoulli(p) => {
                self.ones.n += units;
                self.ones.k += random.binomial(units, p);
            }
            Data::Lognormal(sigma) => {
                (0..units).for_each(|_| self.mean.push(random.lognormal(sigma).min(cap)));
            }
            Data::Requests(sigma) => (0..units).for_each(|_| self.visit(sigma, random)),
        }
    }

    /// All requests of one unit.
    fn visit(&mut self, sigma: f64, random: &mut Random) {
        let [bad, good] = FAILING;
        let rate = if random.uniform() < BAD { bad } else { good };
        let requests = count((5.0 * random.lognormal(sigma)).ceil());
        let failed = random.binomial(requests, rate);
        self.ones.n += requests;
        self.ones.k += failed;
        self.buckets.units += 1;
        self.buckets.push(random.below(BUCKETS), failed as f64, requests as f64);
    }

    fn moments(&self, data: Data) -> Result<Moments> {
        match data {
            Data::Bernoulli(_) | Data::Requests(_) => Moments::of_proportion(&self.ones),
            Data::Lognormal(_) => Moments::of_mean(&self.mean),
        }
    }

    fn sample(&self, data: Data) -> Option<Sample> {
        Some(match data {
            Data::Bernoulli(_) => Sample::Proportion(self.ones),
            Data::Lognormal(_) => Sample::Mean(self.mean),
            Data::Requests(_) => Sample::Buckets(self.buckets.clone()),
        })
    }
}

/// Equal versions that are called different, in either direction, at α = .05, with `units` in all and a `share` of them
/// in treatment.
///
/// # Errors
/// When a number is outside of its range.
pub fn false_calls(
    data: Data,
    share: f64,
    units: u64,
    looks: u32,
    rule: Rule,
    runs: u32,
    seed: u64,
) -> Result<Share> {
    const ALPHA: f64 = 0.05;
    let (_, _, p99) = data.baseline();
    let guarded = matches!(rule, Rule::Planned | Rule::Open);
    let cap = if guarded { p99 } else { f64::INFINITY };
    let judge = judge_of(data, rule, units, share)?;
    let mut boundary = Boundary::new(Spending::default(), ALPHA, true)?;
    let bounds: Vec<f64> =
        (1..=looks).map(|look| boundary.look(f64::from(look) / f64::from(looks))).collect::<Result<_>>()?;
    let mut random = Random::new(seed);
    let mut wrong = Share { k: 0, n: runs };
    for _ in 0..runs {
        let mut arms = [Arm::default(), Arm::default()];
        let mut state = State::default();
        for (look, bound) in (1u64..).zip(&bounds) {
            let now = units / u64::from(looks);
            let treated = random.binomial(now, share);
            for (arm, units) in arms.iter_mut().zip([now - treated, treated]) {
                arm.draw(data, units, cap, &mut random);
            }
            let [control, treatment] = &arms;
            let called = if guarded {
                let at = snapshot(data, control, treatment, share, look);
                let (verdict, next) = judge.judge(&at, state);
                state = next;
                verdict.decision == Decision::Promote || verdict.reason == Reason::Contradictory
            } else {
                let (Ok(a), Ok(b)) = (control.moments(data), treatment.moments(data)) else { continue };
                if rule == Rule::PlannedUnguarded {
                    let se = (a.variance_of_mean() + b.variance_of_mean()).sqrt();
                    se > 0.0 && ((b.mean - a.mean) / se).abs() >= *bound
                } else {
                    let n = (a.n + b.n) as f64;
                    let cs = relative_lift(&a, &b, ALPHA).and_then(|lift| {
                        asymptotic_cs(lift.estimate, lift.se, n, ALPHA, 5_000.0, Sides::Two)
                    });
                    cs.is_ok_and(|cs| cs.low > 0.0 || cs.high < 0.0)
                }
            };
            if called {
                wrong.k += 1;
                break;
            }
        }
    }
    Ok(wrong)
}

/// The policy with this data as its only goal, planned for all units.
fn judge_of(data: Data, rule: Rule, units: u64, share: f64) -> Result<Judge> {
    let (mean, sd, cap) = data.baseline();
    // The effect for which the plan needs exactly these units: H_max = R·(z + z)²·σ²/MDE².
    let information = units as f64 * share * (1.0 - share);
    let quantiles = 1.959_963_984_540_054 + 0.841_621_233_572_914_3;
    let mde = quantiles * sd * (crate::policy::planned_inflation(Spending::default()) / information).sqrt();
    let metric = Metric {
        mde: Some(Effect::Absolute(mde)),
        baseline: Some(Baseline { mean, sd: Some(sd) }),
        cap: matches!(data, Data::Lognormal(_)).then_some(cap),
        ..Metric::new(Role::Goal, data.kind())
    };
    let mut policy = Policy {
        horizon: if rule == Rule::Open { Horizon::Unknown } else { Horizon::Known },
        most_looks: 1_000,
        metrics: [("goal".to_owned(), metric)].into(),
        cycle_s: 1,
        ..Policy::default()
    };
    policy.alpha.promote = 0.05;
    Judge::new(policy).map_err(|problems| Error::malformed(format!("{problems:?}")))
}

fn snapshot(data: Data, control: &Arm, treatment: &Arm, share: f64, look: u64) -> Snapshot {
    let measurement =
        Measurement { control: control.sample(data), treatment: treatment.sample(data), rest: None };
    let epoch = Epoch {
        id: "1".to_owned(),
        shares: Shares { control: 1.0 - share, treatment: share, ..Shares::default() },
        // The sample ratio is not what is looked at here.
        units: ArmUnits { control: 10_000, treatment: treated(share), ..ArmUnits::default() },
        metrics: [("goal".to_owned(), measurement)].into(),
    };
    Snapshot { elapsed_s: look * 21_600, data_age_s: 0, gate: Gate::Final, epochs: vec![epoch] }
}

/// As many units of treatment as belong to 10,000 of control.
fn treated(share: f64) -> u64 {
    count((10_000.0 * share / (1.0 - share)).round())
}
