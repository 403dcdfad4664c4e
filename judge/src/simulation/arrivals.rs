use super::version::Served;
use crate::{
    policy::{Epoch, Measurement, Sample, Shares},
    stats::{ArmUnits, Mean, Proportion},
};

/// What is known of units only later, and told at looks.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcomes {
    pub(super) units: u64,
    pub(super) converted: u64,
    pub(super) costly: u64,
}

impl Outcomes {
    fn add(&mut self, other: &Self) {
        self.units += other.units;
        self.converted += other.converted;
        self.costly += other.costly;
    }

    fn conversion(&self) -> Proportion {
        Proportion { n: self.units, k: self.converted }
    }

    /// Of values that are 0 or 1.
    fn cost(&self) -> Mean {
        let mean = self.costly as f64 / self.units.max(1) as f64;
        let m2 = self.costly as f64 * (1.0 - mean);
        Mean { n: self.units, mean, m2, min: 0.0, max: 1.0, rejected: 0 }
    }
}

/// A metric's sample of an arm, with so many latencies of 0 and infinite ones more.
type SampleOf = dyn Fn(&Served, &Outcomes, (u64, u64)) -> Sample;

/// What arrives in an interval, or arrived in an epoch: control, treatment, rest.
#[derive(Clone, Default)]
pub(super) struct Arrivals {
    pub(super) served: [Served; 3],
    told: [Outcomes; 3],
}

impl Arrivals {
    /// Nothing is told yet.
    pub(super) fn of(served: [Served; 3]) -> Self {
        Self { served, told: <[Outcomes; 3]>::default() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.served.iter_mut().zip(&other.served).for_each(|(sum, more)| sum.add(more));
    }

    /// What a look tells of the units that came before.
    pub(super) fn tell(&mut self, outcomes: &[Outcomes; 3]) {
        self.told.iter_mut().zip(outcomes).for_each(|(sum, more)| sum.add(more));
    }

    pub(super) fn units(&self) -> [u64; 3] {
        let [control, treatment, rest] = &self.served;
        [control.units, treatment.units, rest.units]
    }

    /// The epoch, when `now` has come, too, in the worst order: all failures of the candidate first, its units
    /// infinitely slow, and those of stable without failures and in no time. Each of that makes all evidence grow, and its
    /// opposite makes it shrink, so that the evidence of no moment in between is larger.
    pub(super) fn worst(&self, now: &Self, shares: &Shares, id: &str) -> Epoch {
        let mut worst = self.clone();
        let [_, before, _] = &mut worst.served;
        let [_, failed, _] = &now.served;
        before.units += failed.failed;
        before.failed += failed.failed;
        let [control, treatment, rest] = now.units();
        // The failures are already infinite latencies.
        worst.epoch_with(shares, id, [(control, 0), (0, treatment - failed.failed), (rest, 0)])
    }

    pub(super) fn epoch(&self, shares: &Shares, id: &str) -> Epoch {
        self.epoch_with(shares, id, [(0, 0); 3])
    }

    /// With latencies of 0 and infinite ones more in each arm.
    fn epoch_with(&self, shares: &Shares, id: &str, more: [(u64, u64); 3]) -> Epoch {
        let measured = |sample: &SampleOf| {
            let arms = self.served.iter().zip(&self.told).zip(more);
            let mut samples = arms.map(|((served, told), more)| sample(served, told, more));
            let (control, treatment) = (samples.next(), samples.next());
            Measurement { control, treatment, rest: samples.next().filter(|_| shares.rest > 0.0) }
        };
        let errors =
            measured(&|served, _, _| Sample::Proportion(Proportion { n: served.units, k: served.failed }));
        let latency =
            measured(&|served, _, (zero, infinite)| Sample::Histogram(served.histogram(zero, infinite)));
        let conversion = measured(&|_, told, _| Sample::Proportion(told.conversion()));
        let cost = measured(&|_, told, _| Sample::Mean(told.cost()));
        let metrics = [("errors", errors), ("latency", latency), ("conversion", conversion), ("cost", cost)];
        let [control, treatment, rest] = self.units();
        Epoch {
            id: id.to_owned(),
            shares: shares.clone(),
            units: ArmUnits { control, treatment, rest, ..ArmUnits::default() },
            metrics: metrics.map(|(name, metric)| (name.to_owned(), metric)).into(),
        }
    }
}
