use super::{Random, Share, quantile};
use crate::{
    error::Result,
    sequential::{EventShare, QuantileTest},
    stats::{Grid, Histogram},
};

/// Rates of a bad event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Of stable.
    pub stable: f64,
    /// Of the candidate.
    pub candidate: f64,
}

impl Fault {
    /// The faults of judge.md 7.3.
    pub const TABLE: [Self; 5] = [
        Self { stable: 0.001, candidate: 0.5 },
        Self { stable: 0.001, candidate: 0.2 },
        Self { stable: 0.001, candidate: 0.05 },
        Self { stable: 0.001, candidate: 0.01 },
        Self { stable: 0.01, candidate: 0.05 },
    ];
}

/// How fast a fault is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RollbackSpeed {
    /// Seconds: median and 95 % quantile.
    pub seconds: (f64, f64),
    /// Units of the candidate until then.
    pub units: (f64, f64),
}

/// One unit per request, as many requests a second as here, a share of them to the candidate; looked at every second.
const REQUESTS: u64 = 100;
const SHARE: f64 = 0.05;

/// How fast errors are found at level `alpha`, against all of stable or an equally large control.
///
/// # Errors
/// When a rate or `alpha` is no probability.
pub fn rollback_speed(
    fault: Fault,
    all_stable: bool,
    alpha: f64,
    runs: u32,
    seed: u64,
) -> Result<RollbackSpeed> {
    let mut random = Random::new(seed);
    let share = if all_stable { SHARE } else { 0.5 };
    let test = EventShare::new(share, 0.0, 1.0)?;
    let threshold = -alpha.ln();
    let (mut seconds, mut units) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (mut k, mut m, mut treated) = (0, 0, 0);
        let mut second = 0;
        loop {
            second += 1;
            let now = random.binomial(REQUESTS, SHARE);
            let others = if all_stable {
                REQUESTS - now
            } else {
                // Of those that are not the candidate's, as large a share is control.
                random.binomial(REQUESTS - now, SHARE / (1.0 - SHARE))
            };
            treated += now;
            let bad = random.binomial(now, fault.candidate);
            k += bad;
            m += bad + random.binomial(others, fault.stable);
            if test.ln_e_worse(k, m)? >= threshold || second >= 100_000 {
                break;
            }
        }
        seconds.push(f64::from(second));
        units.push(treated as f64);
    }
    Ok(summary(seconds, units))
}

fn summary(mut seconds: Vec<f64>, mut units: Vec<f64>) -> RollbackSpeed {
    RollbackSpeed {
        seconds: (quantile(&mut seconds, 0.5), quantile(&mut seconds, 0.95)),
        units: (quantile(&mut units, 0.5), quantile(&mut units, 0.95)),
    }
}

/// How much slower the candidate is, and by which quantiles that is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Factor on a lognormal latency with σ = .5.
    pub factor: f64,
    /// Quantiles; each gets its part of the level.
    pub quantiles: &'static [f64],
    /// What is tolerated.
    pub tolerance: f64,
}

impl Latency {
    /// The slow candidates of judge.md 7.3.
    pub const TABLE: [Self; 9] = [
        Self { factor: 5.0, quantiles: &[0.5, 0.95], tolerance: 0.0 },
        Self { factor: 5.0, quantiles: &[0.95], tolerance: 0.0 },
        Self { factor: 5.0, quantiles: &[0.5], tolerance: 0.0 },
        Self { factor: 2.0, quantiles: &[0.95], tolerance: 0.0 },
        Self { factor: 2.0, quantiles: &[0.5], tolerance: 0.0 },
        Self { factor: 2.0, quantiles: &[0.95], tolerance: 0.1 },
        Self { factor: 2.0, quantiles: &[0.5], tolerance: 0.1 },
        Self { factor: 1.5, quantiles: &[0.5], tolerance: 0.0 },
        Self { factor: 1.2, quantiles: &[0.5], tolerance: 0.0 },
    ];
}

/// How fast it is found that a candidate is slower, at level `alpha` for all quantiles together.
///
/// # Errors
/// When a quantile or `alpha` is no probability.
pub fn latency_speed(
    latency: Latency,
    all_stable: bool,
    alpha: f64,
    runs: u32,
    seed: u64,
) -> Result<RollbackSpeed> {
    let mut random = Random::new(seed);
    let tests: Vec<QuantileTest> =
        latency.quantiles.iter().map(|q| QuantileTest::new(*q, 100.0, 0.05)).collect::<Result<_>>()?;
    let threshold = -(alpha / tests.len().max(1) as f64).ln();
    let (mut seconds, mut units) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (mut stable, mut treated) = (empty(), empty());
        let (mut second, mut count) = (0, 0);
        let found = loop {
            second += 1;
            let now = random.binomial(REQUESTS, SHARE);
            let others = if all_stable {
                REQUESTS - now
            } else {
                random.binomial(REQUESTS - now, SHARE / (1.0 - SHARE))
            };
            (0..others).for_each(|_| stable.push(0.1 * random.lognormal(0.5)));
            (0..now).for_each(|_| treated.push(0.1 * latency.factor * random.lognormal(0.5)));
            count += now;
            let mut found = false;
            for test in &tests {
                found |= test.ln_e_slower(&stable, &treated, latency.tolerance)? >= threshold;
            }
            if found || second >= 600 {
                break found;
            }
        };
        // A run that does not end counts as the longest there is.
        seconds.push(if found { f64::from(second) } else { f64::INFINITY });
        units.push(if found { count as f64 } else { f64::INFINITY });
    }
    Ok(summary(seconds, units))
}

fn empty() -> Histogram {
    Histogram { grid: Grid::default(), ..Histogram::default() }
}

/// Whether bad events come one by one, or many from one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// One request per unit.
    None,
    /// A bad unit fails this often, and its first failure counts.
    FirstEvent(u64),
    /// A bad unit fails this often, and every failure counts: the mistake that the unit rules prevent.
    EveryEvent(u64),
}

/// Sound releases that the event test rolls back while it looks after every bad event, until `bad` units had one, at a
/// share of 5 % and level `alpha`. Looking at ticks is looking less often.
///
/// # Errors
/// When `alpha` is no probability.
pub fn false_rollbacks(clusters: Clusters, alpha: f64, bad: u32, runs: u32, seed: u64) -> Result<Share> {
    let mut random = Random::new(seed);
    let test = EventShare::new(SHARE, 0.0, 1.0)?;
    let threshold = -alpha.ln();
    let mut wrong = Share { k: 0, n: runs };
    let weight = match clusters {
        Clusters::EveryEvent(times) => times,
        Clusters::None | Clusters::FirstEvent(_) => 1,
    };
    for _ in 0..runs {
        let (mut k, mut m) = (0, 0);
        for _ in 0..bad {
            m += weight;
            // Evidence only grows with an event of the candidate.
            if random.uniform() < SHARE {
                k += weight;
                if test.ln_e_worse(k, m)? >= threshold {
                    wrong.k += 1;
                    break;
                }
            }
        }
    }
    Ok(wrong)
}
