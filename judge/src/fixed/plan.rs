//! How many units an effect takes, and how long.

use crate::{
    error::{Error, Result, positive, probability},
    special::{normal, roots::sign_change},
};

/// z_{1−α/2} + z_power.
fn quantiles(alpha: f64, power: f64) -> Result<f64> {
    probability("power", power)?;
    Ok(normal::two_sided_quantile(alpha)? - normal::upper_quantile(power)?)
}

/// Units of treatment for a difference `mde` of means: n_b = (z_{1−α/2} + z_power)²·(v_b + v_a/r)/MDE², with r = n_a/n_b
/// units of control for each. Two-sided `alpha`. Multiply by the inflation of a sequential plan.
///
/// Source: Chow, Shao, Wang (2008), "Sample size calculations in clinical research".
///
/// # Errors
/// When a level is no probability, `mde` or `ratio` not above 0, or a variance negative.
pub fn units_per_arm(
    control_variance: f64,
    treatment_variance: f64,
    mde: f64,
    ratio: f64,
    alpha: f64,
    power: f64,
) -> Result<f64> {
    positive("the minimum detectable effect", mde)?;
    positive("the ratio of the arms", ratio)?;
    let variance = positive("the variance", treatment_variance + control_variance / ratio)?;
    Ok(quantiles(alpha, power)?.powi(2) * variance / (mde * mde))
}

/// Information H_max = R·(z_{1−α/2} + z_power)²·σ²/MDE² that a sequential plan needs, in units of H = n_a·n_b/(n_a + n_b):
/// with equal arms a quarter of all units.
///
/// Source: Jennison, Turnbull (2000), "Group sequential methods".
///
/// # Errors
/// When a level is no probability, or another number not above 0.
pub fn required_information(variance: f64, mde: f64, alpha: f64, power: f64, inflation: f64) -> Result<f64> {
    positive("the minimum detectable effect", mde)?;
    positive("the inflation", inflation)?;
    positive("the variance", variance)?;
    positive("the information", inflation * quantiles(alpha, power)?.powi(2) * variance / (mde * mde))
}

/// Power of the two-sided z test of two proportions with `n` units per arm:
/// Φ((√n·|p1 − p2| − z_{1−α/2}·√(2p̄(1 − p̄)))/√(p1(1 − p1) + p2(1 − p2))), p̄ their mean.
///
/// Source: R's `power.prop.test`.
///
/// # Errors
/// When a proportion or `alpha` is no probability.
pub fn power_two_proportions(p1: f64, p2: f64, n: f64, alpha: f64) -> Result<f64> {
    probability("p1", p1)?;
    probability("p2", p2)?;
    positive("n", n)?;
    let middle = (p1 + p2) / 2.0;
    let z = normal::two_sided_quantile(alpha)?;
    let spread = (p1 * (1.0 - p1) + p2 * (1.0 - p2)).sqrt();
    Ok(normal::lower_tail((n.sqrt() * (p1 - p2).abs() - z * (2.0 * middle * (1.0 - middle)).sqrt()) / spread))
}

/// Units per arm with which [`power_two_proportions`] is `power`.
///
/// Source: R's `power.prop.test`.
///
/// # Errors
/// When a proportion or level is no probability, or the proportions are equal.
pub fn proportions_per_arm(p1: f64, p2: f64, alpha: f64, power: f64) -> Result<f64> {
    probability("power", power)?;
    power_two_proportions(p1, p2, 1.0, alpha)?;
    if p1 == p2 {
        return Err(Error::range("the difference of the proportions", 0.0, "other than 0"));
    }
    let excess = |ln_n: f64| power_two_proportions(p1, p2, ln_n.exp(), alpha).map_or(-1.0, |p| p - power);
    Ok(sign_change(0.0, 75.0, 1e-12, excess).exp())
}

/// Seconds that a fixed plan has to run: the time to collect its units, but at least one cycle (a day; a week where
/// declared) and the metric's window with the warm-up, rounded up to whole cycles, so that no hour of the day or day of the
/// week counts more than another.
///
/// Source: the requester's design document, as docs/judge.md makes it well defined.
///
/// # Errors
/// When a duration is negative or not finite, or `cycle` not above 0.
pub fn minimum_duration(collecting: f64, window: f64, warm_up: f64, cycle: f64) -> Result<f64> {
    positive("the cycle", cycle)?;
    let waiting = window + warm_up;
    if !(collecting >= 0.0 && waiting >= 0.0 && (collecting + waiting).is_finite()) {
        return Err(Error::range("a duration", collecting + waiting, "at least 0 and finite"));
    }
    // A whole number of cycles that was computed is not rounded up for its last bit.
    let cycles = (collecting.max(waiting) / cycle - 1e-9).ceil().max(1.0);
    Ok(cycles * cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of judge.md: 5 % baseline, α .05, 80 %.
    #[test]
    fn sizes_are_those_of_the_reference() {
        let p = 0.05;
        for (relative, per_arm, small_arm) in [(0.05, 122_000.0, 66_000.0), (0.10, 31_000.0, 17_000.0)] {
            let other = p * (1.0 + relative);
            let equal = proportions_per_arm(p, other, 0.05, 0.8).unwrap();
            assert!((equal / per_arm - 1.0).abs() < 0.01, "{equal}");
            let (va, vb) = (p * (1.0 - p), other * (1.0 - other));
            let small = units_per_arm(va, vb, p * relative, 19.0, 0.05, 0.8).unwrap();
            assert!((small / small_arm - 1.0).abs() < 0.03, "{small}");
        }
        // N for p < .01 is 1.49 times N for p < .05, and a plan for .05 has 58.9 % power at .01.
        let n = |alpha| units_per_arm(1.0, 1.0, 0.1, 1.0, alpha, 0.8).unwrap();
        assert!((n(0.01) / n(0.05) - 1.49).abs() < 0.005);
        let information = required_information(1.0, 0.1, 0.05, 0.8, 1.0).unwrap();
        assert!((4.0 * information - 2.0 * n(0.05)).abs() < 1e-6);
    }

    #[test]
    fn durations_are_whole_cycles() {
        let day = 86_400.0;
        for (collecting, window, expected) in [
            (0.0, 0.0, 1.0),
            (1.0, 0.0, 1.0),
            (day, 0.0, 1.0),
            (day + 10.0, 0.0, 2.0),
            (10.0, 2.5 * day, 3.0),
        ] {
            assert_eq!(minimum_duration(collecting, window, 0.0, day).unwrap(), expected * day);
        }
        for bad in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(minimum_duration(bad, 0.0, 0.0, day).is_err());
        }
    }
}
