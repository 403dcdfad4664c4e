use super::{Random, Share};
use crate::{
    error::{Error, Result},
    policy::{
        Action, Baseline, ClassicSettings, Decision, Effect, Epoch, Gate, Judge, Measurement, Metric,
        MetricKind, Policy, PolicyKind, Reason, Role, Sample, Shares, Snapshot, State, StepConditions,
    },
    stats::{ArmUnits, Histogram, Mean, Merge, Proportion},
};

/// What is true of the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// Its conversion, when stable's is .3. The plan looks for .045 more.
    pub conversion: f64,
    /// Its rate of errors, when stable's is .03.
    pub errors: f64,
    /// Factor on stable's latency, a lognormal with σ = .5.
    pub latency: f64,
    /// Planned looks.
    pub looks: u32,
    /// Ticks of the kill tests for each planned look.
    pub ticks: u32,
}

impl Scenario {
    /// A candidate that is like stable: 56 looks.
    #[must_use]
    pub fn same() -> Self {
        Self { conversion: 0.3, errors: 0.03, latency: 1.0, looks: 56, ticks: 1 }
    }
}

/// How releases ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Promoted for good.
    pub promoted: u32,
    /// Rolled back.
    pub rolled_back: u32,
    /// Invalid.
    pub invalid: u32,
    /// Ended without an effect, or still running when the simulation ended.
    pub ended: u32,
    /// Sum over all runs of the information at the end.
    pub information: f64,
}

impl Outcome {
    /// All runs.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.promoted + self.rolled_back + self.invalid + self.ended
    }

    /// Share of the runs that were promoted.
    #[must_use]
    pub fn promotions(&self) -> Share {
        Share { k: self.promoted, n: self.runs() }
    }

    /// Share of the runs that were rolled back.
    #[must_use]
    pub fn rollbacks(&self) -> Share {
        Share { k: self.rolled_back, n: self.runs() }
    }
}

/// Which way of ending a run counts for.
type Counter = fn(&mut Outcome) -> &mut u32;

const BASE: f64 = 0.3;
const ERRORS: f64 = 0.03;
const MDE: f64 = 0.045;

/// Units per look and arm, so that the plan is done after 56 looks: 4·H_max = 4·1.101·11.68·.21/.045² = 5333.
const UNITS: u64 = 5_400 / 56 / 2;

/// Looks of the ramp before the last gate, at 5 % of a traffic twenty times as large as an arm.
const RAMP: u32 = 4;

/// Units of an epoch by arm: control, treatment, rest.
#[derive(Clone, Default)]
struct Arms([ArmData; 3]);

#[derive(Clone, Default)]
struct ArmData {
    units: u64,
    errors: u64,
    converted: u64,
    latency: Histogram,
}

impl ArmData {
    fn draw(&mut self, units: u64, errors: f64, conversion: f64, latency: f64, random: &mut Random) {
        self.units += units;
        self.errors += random.binomial(units, errors);
        self.converted += random.binomial(units, conversion);
        (0..units).for_each(|_| self.latency.push(0.1 * latency * random.lognormal(0.5)));
    }
}

impl Arms {
    fn epoch(&self, id: &str, shares: Shares) -> Epoch {
        let [control, treatment, rest] = &self.0;
        let has_rest = shares.rest > 0.0;
        let measurement = |of: &dyn Fn(&ArmData) -> Sample| Measurement {
            control: Some(of(control)),
            treatment: Some(of(treatment)),
            rest: has_rest.then(|| of(rest)),
        };
        let metrics = [
            ("errors", measurement(&|arm| Sample::Proportion(Proportion { n: arm.units, k: arm.errors }))),
            (
                "conversion",
                measurement(&|arm| Sample::Proportion(Proportion { n: arm.units, k: arm.converted })),
            ),
            ("latency", measurement(&|arm| Sample::Histogram(arm.latency.clone()))),
        ];
        Epoch {
            id: id.to_owned(),
            shares,
            units: ArmUnits {
                control: control.units,
                treatment: treatment.units,
                rest: rest.units,
                ..ArmUnits::default()
            },
            metrics: metrics.map(|(name, metric)| (name.to_owned(), metric)).into(),
        }
    }
}

/// The default policy as a whole: a ramp step at 5 % with the rest of stable observed, then half and half with planned
/// looks at a goal, and errors and latency as guardrails with wide margins, so that the level of the goal is what promotes.
///
/// # Errors
/// When the policy has problems, which it has not.
pub fn simulate_release(
    scenario: &Scenario,
    runs: u32,
    seed: u64,
    mut each: impl FnMut(),
) -> Result<Outcome> {
    let goal = Metric {
        mde: Some(Effect::Absolute(MDE)),
        baseline: Some(Baseline { mean: BASE, sd: None }),
        ..Metric::new(Role::Goal, MetricKind::Proportion)
    };
    // Margins that a release of this size can show to be kept.
    let errors = Metric { margin: Some(3.0), ..Metric::new(Role::Guardrail, MetricKind::Event) };
    let latency = Metric {
        margin: Some(1.0),
        promote_quantiles: Some(vec![0.5]),
        ..Metric::new(Role::Guardrail, MetricKind::Latency)
    };
    let metrics = [("conversion", goal), ("errors", errors), ("latency", latency)];
    let policy = Policy {
        metrics: metrics.map(|(name, metric)| (name.to_owned(), metric)).into(),
        steps: 2,
        ..Policy::default()
    };
    let period = policy.look_every_s;
    let judge = Judge::new(policy).map_err(|problems| Error::malformed(format!("{problems:?}")))?;
    let mut outcome = Outcome::default();
    let ticks = scenario.ticks.max(1);
    for run in 0..runs {
        let mut random = Random::new(seed.wrapping_add(u64::from(run)));
        let (mut ramp, mut half) = (Arms::default(), Arms::default());
        let mut state = State::default();
        let mut information = 0.0;
        let mut end: Option<Counter> = None;
        for tick in 1..=(RAMP + scenario.looks) * ticks {
            let ramping = tick <= RAMP * ticks;
            let arms = if ramping { &mut ramp } else { &mut half };
            let due = |all: u64| spread(all, ticks, tick);
            // Sticky hashing gives every unit its arm by chance.
            let (treated, control, rest) = if ramping {
                let all = due(20 * UNITS);
                let treated = random.binomial(all, 0.05);
                let control = random.binomial(all - treated, 0.05 / 0.95);
                (treated, control, all - treated - control)
            } else {
                let all = due(2 * UNITS);
                let treated = random.binomial(all, 0.5);
                (treated, all - treated, 0)
            };
            let [of_control, of_treatment, of_rest] = &mut arms.0;
            of_control.draw(control, ERRORS, BASE, 1.0, &mut random);
            of_rest.draw(rest, ERRORS, BASE, 1.0, &mut random);
            of_treatment.draw(treated, scenario.errors, scenario.conversion, scenario.latency, &mut random);
            let mut epochs = vec![
                ramp.epoch("ramp", Shares { control: 0.05, treatment: 0.05, rest: 0.9, others: vec![] }),
            ];
            if !ramping {
                epochs.push(half.epoch("half", Shares { control: 0.5, treatment: 0.5, ..Shares::default() }));
            }
            let conditions = StepConditions { elapsed_s: 0, least_s: 1, ..StepConditions::default() };
            let at = Snapshot {
                elapsed_s: u64::from(tick) * period / u64::from(ticks),
                data_age_s: 0,
                gate: if ramping { Gate::Step(conditions) } else { Gate::Final },
                epochs,
            };
            let (verdict, next) = judge.judge(&at, state);
            state = next;
            information = verdict.information.unwrap_or(information);
            end = match (verdict.decision, verdict.action) {
                (Decision::Promote, Action::Candidate) => Some(|outcome| &mut outcome.promoted),
                (Decision::Rollback, _) => Some(|outcome| &mut outcome.rolled_back),
                (Decision::Invalid, _) => Some(|outcome| &mut outcome.invalid),
                // Futility is not binding: it stops releases, and may not be counted on for the level.
                (Decision::Hold, Action::Abort) if verdict.reason != Reason::Futile => {
                    Some(|outcome| &mut outcome.ended)
                }
                _ => None,
            };
            if end.is_some() {
                break;
            }
        }
        let counter: Counter = end.unwrap_or(|outcome| &mut outcome.ended);
        *counter(&mut outcome) += 1;
        outcome.information += information.min(1.0);
        each();
    }
    Ok(outcome)
}

/// How many of `all` units come with tick `tick`, when each look has `ticks`.
fn spread(all: u64, ticks: u32, tick: u32) -> u64 {
    let (ticks, at) = (u64::from(ticks), u64::from(tick % ticks));
    all * (at + 1) / ticks - all * at / ticks
}

/// Sound releases that `classic` makes a candidate, and that it pauses for harm, in the setting of judge.md 1.3: a period
/// of six hours, at least 7 and at most 21 days, no kill tests.
///
/// # Errors
/// When the policy has problems, which it has not.
pub fn simulate_classic(runs: u32, seed: u64, mut each: impl FnMut()) -> Result<(Share, Share)> {
    const DAY: u64 = 86_400;
    const UNITS: u64 = 200;
    let goal =
        Metric { mde: Some(Effect::Absolute(0.065)), log: true, ..Metric::new(Role::Goal, MetricKind::Mean) };
    let classic = ClassicSettings { minimum_s: Some(7 * DAY), ..ClassicSettings::default() };
    let policy = Policy {
        policy: PolicyKind::Classic,
        classic,
        kill: false,
        metrics: [("goal".to_owned(), goal)].into(),
        ..Policy::default()
    };
    let judge = Judge::new(policy).map_err(|problems| Error::malformed(format!("{problems:?}")))?;
    let (mut candidates, mut pauses) = (Share { k: 0, n: runs }, Share { k: 0, n: runs });
    for run in 0..runs {
        let mut random = Random::new(seed.wrapping_add(u64::from(run)));
        let mut arms = [Mean::default(), Mean::default()];
        let mut state = State::default();
        for look in 1..=84 {
            for arm in &mut arms {
                // The mean of so many standard normal values, with their expected spread.
                let mean = random.normal() / (UNITS as f64).sqrt();
                *arm = arm.merge(&Mean {
                    n: UNITS,
                    mean,
                    m2: (UNITS - 1) as f64,
                    min: -9.0,
                    max: 9.0,
                    rejected: 0,
                })?;
            }
            let [control, treatment] = arms.map(|arm| Some(Sample::Mean(arm)));
            let epoch = Epoch {
                id: "1".to_owned(),
                shares: Shares { control: 0.5, treatment: 0.5, ..Shares::default() },
                units: ArmUnits { control: look * UNITS, treatment: look * UNITS, ..ArmUnits::default() },
                metrics: [("goal".to_owned(), Measurement { control, treatment, rest: None })].into(),
            };
            let at =
                Snapshot { elapsed_s: look * DAY / 4, data_age_s: 0, gate: Gate::Final, epochs: vec![epoch] };
            let (verdict, next) = judge.judge(&at, state);
            state = next;
            match (verdict.decision, verdict.reason) {
                (Decision::Promote, _) => candidates.k += 1,
                (Decision::Hold, Reason::RollbackReview) => pauses.k += 1,
                (Decision::Hold, Reason::Futile | Reason::Expired) => {}
                _ => continue,
            }
            break;
        }
        each();
    }
    Ok((candidates, pauses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_bring_all_units() {
        for (all, ticks) in [(48, 1), (48, 7), (960, 360)] {
            assert_eq!((1..=ticks).map(|tick| spread(all, ticks, tick)).sum::<u64>(), all);
        }
    }
}
