use super::{Random, Share};
use crate::{
    error::{Error, Result},
    policy::{
        ClassicSettings, Decision, Effect, Epoch, Gate, Judge, Measurement, Metric, MetricKind, Policy,
        PolicyKind, Reason, Role, Sample, Shares, Snapshot, State,
    },
    stats::{ArmUnits, Mean, Merge},
};

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
