//! What has no need of chance: the recursion of group-sequential tests gives it to ten digits.

use super::Random;
use crate::{
    error::Result,
    sequential::{Design, Spending, asymptotic_z_bound, characteristics, crossing_probability},
    special::normal,
};

/// The chance that p < `p` with treatment better, at any of `looks` equally spaced looks, when it is no better.
///
/// # Errors
/// When `p` is no probability, or there are no looks.
pub fn peeking(p: f64, looks: u32) -> Result<f64> {
    let bound = normal::two_sided_quantile(p)?;
    let times: Vec<f64> = (1..=looks).map(|look| f64::from(look) / f64::from(looks)).collect();
    let upper = vec![bound; times.len()];
    Ok(crossing_probability(&times, &upper, None, 0.0)?.total_upper())
}

/// What a promote rule does, its plan sized for 80 % power of a fixed sample.
#[derive(Clone, Debug, PartialEq)]
pub struct PromoteRow {
    /// The rule.
    pub rule: String,
    /// Level of the plan, two-sided.
    pub alpha: f64,
    /// Chance to call a difference where there is none.
    pub false_calls: f64,
    /// Power at the MDE.
    pub power: f64,
    /// Mean sample at the stop, over the fixed sample: without an effect, at the MDE, and at twice the MDE.
    pub sample: [f64; 3],
    /// Power at twice the MDE.
    pub power_twice: f64,
}

/// A promote rule, and its two-sided bounds by look.
type Bounds = (String, Vec<f64>);

/// The promote rules that judge.md compares.
fn rules(alpha: f64, looks: u32) -> Result<Vec<Bounds>> {
    let count = looks as usize;
    let peek = |p: f64| Ok(vec![normal::two_sided_quantile(p)?; count]);
    let confidence = |star: f64| {
        (1..=looks).map(|look| asymptotic_z_bound(f64::from(look) / f64::from(looks), star, alpha)).collect()
    };
    let spending = |spending| Design::LanDeMets(spending).bounds(count, alpha);
    let rules: [(String, Result<Vec<f64>>); 7] = [
        (format!("peeking, p < {alpha}"), peek(alpha)),
        ("Lan-DeMets O'Brien-Fleming".to_owned(), spending(Spending::ObrienFleming)),
        ("Lan-DeMets power 2".to_owned(), spending(Spending::Power(2.0))),
        ("Lan-DeMets Pocock".to_owned(), spending(Spending::Pocock)),
        ("asymptotic CS, N* = N".to_owned(), confidence(1.0)),
        ("asymptotic CS, N* = N/2".to_owned(), confidence(0.5)),
        ("asymptotic CS, N* = N/4".to_owned(), confidence(0.25)),
    ];
    rules.into_iter().map(|(rule, bounds)| Ok((rule, bounds?))).collect()
}

/// What those rules do over `looks` equally spaced looks.
///
/// # Errors
/// When `alpha` is no probability, or there are no looks.
pub fn promote_table(alpha: f64, looks: u32) -> Result<Vec<PromoteRow>> {
    let drift = normal::two_sided_quantile(alpha)? - normal::upper_quantile(0.8)?;
    let rows = rules(alpha, looks)?.into_iter().map(|(rule, bounds)| {
        let none = characteristics(&bounds, 0.0)?;
        let at = characteristics(&bounds, drift)?;
        let twice = characteristics(&bounds, 2.0 * drift)?;
        Ok(PromoteRow {
            rule,
            alpha,
            false_calls: none.power,
            power: at.power,
            sample: [none.expected_time, at.expected_time, twice.expected_time],
            power_twice: twice.power,
        })
    });
    rows.collect()
}

/// The power of those rules by the size of the effect, in multiples of the MDE: (rule, power at each of `effects`).
///
/// # Errors
/// When `alpha` is no probability, or there are no looks.
pub fn power_curves(alpha: f64, looks: u32, effects: &[f64]) -> Result<Vec<(String, Vec<f64>)>> {
    let drift = normal::two_sided_quantile(alpha)? - normal::upper_quantile(0.8)?;
    let curve = |(rule, bounds): Bounds| {
        let power = effects.iter().map(|effect| Ok(characteristics(&bounds, effect * drift)?.upper));
        Ok((rule, power.collect::<Result<_>>()?))
    };
    rules(alpha, looks)?.into_iter().map(curve).collect()
}

/// Z of some releases by look, when the effect is that multiple of the MDE.
///
/// # Errors
/// When `alpha` is no probability.
pub fn paths(alpha: f64, looks: u32, effect: f64, number: u32, seed: u64) -> Result<Vec<Vec<f64>>> {
    let drift = effect * (normal::two_sided_quantile(alpha)? - normal::upper_quantile(0.8)?);
    let mut random = Random::new(seed);
    let step = 1.0 / f64::from(looks);
    let path = |_| {
        let mut sum = 0.0;
        let look = |look: u32| {
            sum += drift * step + step.sqrt() * random.normal();
            sum / (f64::from(look) * step).sqrt()
        };
        (1..=looks).map(look).collect()
    };
    Ok((0..number).map(path).collect())
}
