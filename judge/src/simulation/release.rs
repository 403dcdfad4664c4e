use super::{
    Random, Share,
    arrivals::{Arrivals, Outcomes},
    quantile,
    version::Version,
};
use crate::{
    error::{Error, Result},
    fixed::two_proportions,
    policy::{
        Action, Baseline, C_SRM, Decision, Effect, Epoch, Gate, Judge, Metric, MetricKind, Policy, Reason,
        Role, Shares, Snapshot, State, StepConditions, planned_inflation,
    },
    sequential::{Spending, srm_ln_e},
    stats::Proportion,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is true of the candidate, and how it is released.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// How much better it converts, in multiples of the MDE.
    pub effect: f64,
    /// Its rate of errors, when stable's is .02.
    pub errors: f64,
    /// Factor on stable's latency, a lognormal with σ = .5.
    pub latency: f64,
    /// Factor on the share of the units that it really gets.
    pub routed: f64,
    /// Units between two looks.
    pub units: u64,
    /// Planned looks at the last gate, after a ramp that is as long as four.
    pub looks: u32,
    /// Ticks of one second between two of them.
    pub look_every_s: u64,
    /// Which ticks are judged.
    pub ticks: Ticks,
}

/// Which ticks are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// All.
    Every,
    /// Looks, and those at which the release could end. All others end in the same way as no tick: what arrives in an
    /// interval is judged as if it came in the worst order, and when even that would not end the release, nothing in
    /// between does.
    ThatCount,
}

impl Scenario {
    /// A candidate that is like stable: 56 looks in 14 days, and a unit every two seconds.
    #[must_use]
    pub fn same() -> Self {
        Self {
            effect: 0.0,
            errors: ERRORS,
            latency: 1.0,
            routed: 1.0,
            units: 10_800,
            looks: 56,
            look_every_s: 21_600,
            ticks: Ticks::ThatCount,
        }
    }

    /// The effect for which the plan needs the units of 56 looks: H_max = n/4 = R·(z + z)²·σ²/MDE².
    fn mde(&self) -> f64 {
        const QUANTILES: f64 = 2.575_829_303_548_901 + 0.841_621_233_572_914_3;
        let information = (56 * self.units) as f64 / 4.0;
        QUANTILES * (planned_inflation(Spending::default()) * BASE * (1.0 - BASE) / information).sqrt()
    }
}

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Promoted for good.
    Promoted,
    /// Rolled back.
    RolledBack,
    /// Its data were not trusted.
    Invalid,
    /// All information or time was used.
    Aborted,
    /// It was still running after the last look.
    Running,
}

/// One release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Released {
    /// How it ended.
    pub end: End,
    /// When, in seconds.
    pub at_s: u64,
    /// Units of the candidate until then.
    pub units: u64,
    /// Share of the planned information at the last look.
    pub information: f64,
    /// Whether p < .01 and better, looked at at every look, would have promoted it.
    pub naive: bool,
}

/// How releases ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome(pub Vec<Released>);

impl Outcome {
    /// Share of the releases that ended so.
    #[must_use]
    pub fn share(&self, end: End) -> Share {
        self.count(|release| release.end == end)
    }

    /// Share of the releases that the naive rule would have promoted.
    #[must_use]
    pub fn naive(&self) -> Share {
        self.count(|release| release.naive)
    }

    fn count(&self, is: impl Fn(&Released) -> bool) -> Share {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Share { k: count(self.0.iter().filter(|release| is(release)).count()), n: count(self.0.len()) }
    }

    /// Mean information at the end, 1 being all that was planned.
    #[must_use]
    pub fn information(&self) -> f64 {
        let sum: f64 = self.0.iter().map(|release| release.information.min(1.0)).sum();
        sum / self.0.len().max(1) as f64
    }

    /// Units of the candidate until the end: median and 95 % quantile.
    #[must_use]
    pub fn units(&self) -> (f64, f64) {
        let mut units: Vec<f64> = self.0.iter().map(|release| release.units as f64).collect();
        (quantile(&mut units, 0.5), quantile(&mut units, 0.95))
    }
}

const BASE: f64 = 0.3;
const ERRORS: f64 = 0.02;
const COSTLY: f64 = 0.5;
/// The ramp, in looks.
const RAMP: u64 = 4;

/// The default policy: a goal, planned for 56 looks, and errors, latency and a mean as guardrails.
fn policy(scenario: &Scenario) -> Policy {
    let goal = Metric {
        mde: Some(Effect::Absolute(scenario.mde())),
        baseline: Some(Baseline { mean: BASE, sd: None }),
        ..Metric::new(Role::Goal, MetricKind::Proportion)
    };
    let cost = Metric {
        cap: Some(1.0),
        margin: Some(0.05),
        better: crate::fixed::Better::Lower,
        ..Metric::new(Role::Guardrail, MetricKind::Mean)
    };
    let metrics = [
        ("conversion", goal),
        ("errors", Metric::new(Role::Guardrail, MetricKind::Event)),
        ("latency", Metric::new(Role::Guardrail, MetricKind::Latency)),
        ("cost", cost),
    ];
    Policy {
        metrics: metrics.map(|(name, metric)| (name.to_owned(), metric)).into(),
        steps: 2,
        look_every_s: scenario.look_every_s,
        cycle_s: 4 * scenario.look_every_s,
        ..Policy::default()
    }
}

/// A release while it runs.
struct Running<'a> {
    judge: &'a Judge,
    scenario: &'a Scenario,
    seed: u64,
    /// Stable's version, and the candidate's.
    versions: &'a [Version; 2],
    state: State,
    /// The epoch of the ramp, once it is over.
    ramp: Option<Epoch>,
    /// The current epoch.
    arrived: Arrivals,
    /// What is told at the next look.
    untold: [Outcomes; 3],
    at_s: u64,
    information: f64,
}

impl Running<'_> {
    /// The chance of an interval, whatever was asked of other intervals.
    fn random(&self, from: u64, to: u64, purpose: u8) -> Random {
        let mut name = [0; 17];
        name.iter_mut()
            .zip(from.to_le_bytes().into_iter().chain(to.to_le_bytes()).chain([purpose]))
            .for_each(|(byte, of)| *byte = of);
        Random::new(xxh3_64_with_seed(&name, self.seed))
    }

    fn is_look(&self, at_s: u64) -> bool {
        at_s.is_multiple_of(self.scenario.look_every_s)
    }

    fn shares(&self) -> Shares {
        let share = if self.ramp.is_none() { 0.05 } else { 0.5 };
        Shares { control: share, treatment: share, rest: 1.0 - 2.0 * share, others: Vec::new() }
    }

    fn id(&self) -> &'static str {
        if self.ramp.is_none() { "ramp" } else { "half" }
    }

    /// Draws who arrives, and in which arm: sticky hashing gives every unit its arm by chance.
    fn assign(&mut self, from: u64, to: u64) -> [u64; 3] {
        let mut random = self.random(from, to, 0);
        let share = self.shares().treatment;
        let all = self.scenario.units;
        let treatment = random.binomial(all, share * self.scenario.routed);
        let control = random.binomial(all - treatment, share / (1.0 - share));
        let units = [control, treatment, all - treatment - control];
        let better = BASE + self.scenario.effect * self.scenario.mde();
        self.untold =
            [(control, BASE), (treatment, better), (units[2], BASE)].map(|(units, conversion)| Outcomes {
                units,
                converted: random.binomial(units, conversion),
                costly: random.binomial(units, COSTLY),
            });
        units
    }

    fn serve(&self, from: u64, to: u64, units: [u64; 3]) -> Arrivals {
        let mut random = self.random(from, to, 1);
        let [stable, candidate] = self.versions;
        let [control, treatment, rest] = units;
        let mut of = |version: &Version, units| version.serve(units, &mut random);
        let served = [of(stable, control), of(candidate, treatment), of(stable, rest)];
        Arrivals::of(served)
    }

    /// Lets `now` arrive after `from` and until `to`. Says how the release ended, when it did.
    fn advance(&mut self, from: u64, to: u64, now: Arrivals) -> Result<Option<End>> {
        let tick = to == from + 1;
        let skipped = !tick && self.scenario.ticks == Ticks::ThatCount && !self.can_end(to, &now)?;
        if tick || skipped {
            self.arrived.add(&now);
            let look = self.is_look(to);
            if look {
                self.arrived.tell(&self.untold);
            }
            return Ok(if tick || look { self.judge_at(to) } else { None });
        }
        let middle = from + (to - from) / 2;
        let mut random = self.random(from, to, 2);
        let share = (middle - from) as f64 / (to - from) as f64;
        let halves = now.served.map(|served| served.split(share, &mut random));
        let [(a, d), (b, e), (c, f)] = halves;
        match self.advance(from, middle, Arrivals::of([a, b, c]))? {
            None => self.advance(middle, to, Arrivals::of([d, e, f])),
            ended => Ok(ended),
        }
    }

    /// Whether the release could end at a tick until `to` that is no look.
    fn can_end(&self, to: u64, now: &Arrivals) -> Result<bool> {
        let shares = self.shares();
        // At a step, nothing but the tests of every tick is computed. Of those, only errors and the current latencies can
        // have changed since the last tick that was judged.
        let step = Gate::Step(StepConditions::default());
        let mut epochs: Vec<Epoch> = self.ramp.iter().map(|ramp| only(ramp, &["errors"])).collect();
        epochs.push(only(&self.arrived.worst(now, &shares, self.id()), &["errors", "latency"]));
        let worst = Snapshot { elapsed_s: to, data_age_s: 0, gate: step, epochs };
        if self.judge.judge(&worst, State::default()).0.decision == Decision::Rollback {
            return Ok(true);
        }
        // ln E of the sample ratio is convex in the units: no moment in between exceeds all corners.
        let threshold = -self.judge.policy().alpha.srm.ln();
        let (least, more) = (self.arrived.units(), now.units());
        for corner in 0..8u32 {
            let at = |arm: u32, least: u64, more: u64| least + more * u64::from(corner >> arm & 1);
            let ([a, b, c], [x, y, z]) = (least, more);
            let units = [at(0, a, x), at(1, b, y), at(2, c, z)];
            if srm_ln_e(&units, &shares.cells(), C_SRM)? >= threshold {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges a tick.
    fn judge_at(&mut self, at_s: u64) -> Option<End> {
        let gate = match self.ramp {
            None => Gate::Step(StepConditions {
                elapsed_s: at_s,
                least_s: RAMP * self.scenario.look_every_s,
                // Whoever approves the step is there at looks.
                approved: Some(self.is_look(at_s)),
                ..StepConditions::default()
            }),
            Some(_) => Gate::Final,
        };
        let current = self.arrived.epoch(&self.shares(), self.id());
        let epochs = self.ramp.iter().cloned().chain([current]).collect();
        let at = Snapshot { elapsed_s: at_s, data_age_s: 0, gate, epochs };
        let (verdict, next) = self.judge.judge(&at, std::mem::take(&mut self.state));
        (self.state, self.at_s) = (next, at_s);
        self.information = verdict.information.unwrap_or(self.information);
        match (verdict.decision, verdict.action) {
            (Decision::Promote, Action::Widen) => {
                self.ramp = at.epochs.into_iter().next_back();
                self.arrived = Arrivals::default();
                None
            }
            (Decision::Promote, _) => Some(End::Promoted),
            (Decision::Rollback, _) => Some(End::RolledBack),
            (Decision::Invalid, _) => Some(End::Invalid),
            // Futility is not binding: it stops releases, and may not be counted on for the level.
            (Decision::Hold, Action::Abort) if verdict.reason != Reason::Futile => Some(End::Aborted),
            _ => None,
        }
    }

    /// Lets the release run to its end. The naive rule goes on looking at the same conversions.
    fn run(mut self) -> Result<Released> {
        let every = self.scenario.look_every_s;
        let (mut ended, mut naive) = (None, false);
        let mut pooled = [Proportion::default(); 2];
        for look in 0..RAMP + u64::from(self.scenario.looks) {
            let (from, to) = (look * every, (look + 1) * every);
            let units = self.assign(from, to);
            if self.ramp.is_some() {
                for (sum, told) in pooled.iter_mut().zip(&self.untold) {
                    *sum = Proportion { n: sum.n + told.units, k: sum.k + told.converted };
                }
                let [control, treatment] = &pooled;
                let test = two_proportions(control, treatment, 0.05)?;
                naive |= test.p < 0.01 && test.estimate > 0.0;
            }
            if ended.is_none() {
                let now = self.serve(from, to, units);
                ended = self.advance(from, to, now)?;
            }
        }
        let [_, units, _] = self.arrived.units();
        Ok(Released {
            end: ended.unwrap_or(End::Running),
            at_s: self.at_s,
            units: units + self.ramp.map_or(0, |ramp| ramp.units.treatment),
            information: self.information,
            naive,
        })
    }
}

/// An epoch with these metrics alone.
fn only(epoch: &Epoch, metrics: &[&str]) -> Epoch {
    let kept = metrics.iter().filter_map(|name| epoch.metrics.get_key_value(*name));
    Epoch {
        id: epoch.id.clone(),
        shares: epoch.shares.clone(),
        units: epoch.units.clone(),
        metrics: kept.map(|(name, metric)| (name.clone(), metric.clone())).collect(),
    }
}

/// Releases by the default policy as a whole, tick by tick: a ramp at 5 % with the rest of stable observed, then half and
/// half with planned looks at a goal; errors, latency and a mean are guardrails.
///
/// # Errors
/// When the policy has problems, which it has not.
pub fn simulate_release(
    scenario: &Scenario,
    runs: u32,
    seed: u64,
    mut each: impl FnMut(),
) -> Result<Outcome> {
    let judge = Judge::new(policy(scenario)).map_err(|problems| Error::malformed(format!("{problems:?}")))?;
    let versions = [Version::new(ERRORS, 1.0), Version::new(scenario.errors, scenario.latency)];
    let run = |run: u32| {
        let release = Running {
            judge: &judge,
            scenario,
            seed: seed.wrapping_add(u64::from(run)),
            versions: &versions,
            state: State::default(),
            ramp: None,
            arrived: Arrivals::default(),
            untold: <[Outcomes; 3]>::default(),
            at_s: 0,
            information: 0.0,
        };
        let released = release.run();
        each();
        released
    };
    (0..runs).map(run).collect::<Result<_>>().map(Outcome)
}
