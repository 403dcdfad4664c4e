//! Roots of monotone functions of one variable, in a bounded number of steps.

/// Evaluations after which a root is as good as it gets; halving alone needs 60 from 1 to 1e-18.
const STEPS: u32 = 200;

/// Where `f` changes its sign between `low` and `high`, to `tolerance` in the argument. The Illinois form of
/// false position, with a halving wherever that is too slow. An end whose sign is already the other one is
/// the answer, so that a bracket that holds no root yields the nearer end; NaN counts as no sign change.
pub(crate) fn sign_change(mut low: f64, mut high: f64, tolerance: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    let (mut at_low, mut at_high) = (f(low), f(high));
    if at_low == 0.0 || at_high == 0.0 || (at_low > 0.0) == (at_high > 0.0) {
        return if at_low.abs() <= at_high.abs() { low } else { high };
    }
    let mut width = (high - low).abs();
    for step in 0..STEPS {
        if (high - low).abs() <= tolerance {
            break;
        }
        let slope = (at_high - at_low) / (high - low);
        let secant = high - at_high / slope;
        let inside = secant > low.min(high) && secant < low.max(high);
        // Every third step the bracket has to have halved, or it is halved.
        let slow = step % 3 == 2 && (high - low).abs() > width / 2.0;
        if step % 3 == 2 {
            width = (high - low).abs();
        }
        let middle = if inside && !slow { secant } else { low + (high - low) / 2.0 };
        let at = f(middle);
        if at == 0.0 || middle == low || middle == high {
            return middle;
        }
        if (at > 0.0) == (at_high > 0.0) {
            (high, at_high) = (middle, at);
            at_low /= 2.0;
        } else {
            (low, at_low) = (middle, at);
            at_high /= 2.0;
        }
    }
    low + (high - low) / 2.0
}

/// Where the monotone step function `f` changes its sign, by halving alone: for functions that jump.
pub(crate) fn step_change(mut low: f64, mut high: f64, tolerance: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    let below = f(low) > 0.0;
    for _ in 0..STEPS {
        let middle = low + (high - low) / 2.0;
        if (high - low).abs() <= tolerance || middle == low || middle == high {
            break;
        }
        if (f(middle) > 0.0) == below { low = middle } else { high = middle }
    }
    low + (high - low) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_within_the_tolerance() {
        let cube = sign_change(0.0, 10.0, 1e-14, |x| x * x * x - 2.0);
        assert!((cube - 2f64.cbrt()).abs() < 1e-13, "{cube}");
        // Flat almost everywhere: false position alone would creep.
        let flat = sign_change(-1.0, 1.0, 1e-12, |x| (x - 0.3).powi(15));
        assert!((flat - 0.3).abs() < 1e-3, "{flat}");
        assert_eq!(sign_change(1.0, 2.0, 1e-9, |x| x), 1.0, "no root: the nearer end");
        assert!(sign_change(0.0, 1.0, 0.0, |_| f64::NAN).is_finite());
        let step = step_change(0.0, 1.0, 1e-12, |x| if x < 0.25 { 1.0 } else { -1.0 });
        assert!((step - 0.25).abs() < 1e-11);
    }
}
