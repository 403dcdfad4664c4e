//! Differences of ln Γ, which lose everything at large arguments when taken one by one.

use super::normal::HALF_LN_TAU;

/// From here on three terms of Stirling's series are exact to 1e-12.
pub(crate) const STIRLING_FROM: f64 = 20.0;

/// ln Γ(x) for x > 0.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    if x > 1e7 { (x - 0.5) * x.ln() - x + HALF_LN_TAU + stirling(x) } else { libm::lgamma(x) }
}

/// The rest of Stirling's formula, S(x) = 1/(12x) − 1/(360x³) + 1/(1260x⁵) − 1/(1680x⁷).
pub(crate) fn stirling(x: f64) -> f64 {
    let square = 1.0 / (x * x);
    (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / x
}

/// lnB(a, b) = ln Γ(a) + ln Γ(b) − ln Γ(a + b), without cancellation for one or two large arguments.
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    let sum = a + b;
    if small >= STIRLING_FROM {
        // a ln(a/N) + b ln(b/N) + ½ ln(2πN/(ab)) + S(a) + S(b) − S(N)
        let first = small * (small / sum).ln() + large * (-small / sum).ln_1p();
        let middle = 0.5 * ((sum / large).ln() - small.ln()) + HALF_LN_TAU;
        first + middle + (stirling(small) + stirling(large) - stirling(sum))
    } else if large >= STIRLING_FROM {
        // ln Γ(large) − ln Γ(N) by Stirling's formula.
        let difference = small - small * sum.ln() - (large - 0.5) * (small / large).ln_1p();
        libm::lgamma(small) + difference + (stirling(large) - stirling(sum))
    } else {
        libm::lgamma(small) + libm::lgamma(large) - libm::lgamma(sum)
    }
}

/// ln of the binomial coefficient n over k, for counts.
pub(crate) fn ln_choose(n: f64, k: f64) -> f64 {
    if k <= 0.0 || k >= n { 0.0 } else { -(n + 1.0).ln() - ln_beta(k + 1.0, n - k + 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln Γ by Stirling's series after a shift, in decimal arithmetic of 60 digits.
    #[test]
    fn ln_beta_is_accurate_from_tiny_to_huge() {
        for (a, b, expected) in [
            (0.5, 0.5, 1.144_729_885_849_400_2),
            (0.7, 12.0, -1.469_868_087_164_536_3),
            (5.0, 7.0, -7.745_002_803_515_839),
            (25.0, 30.0, -38.278_343_897_914_85),
            (0.5, 1e6, -6.335_390_211_057_437),
            (1e-3, 1e15, 6.872_640_108_988_943),
        ] {
            let computed = ln_beta(a, b);
            assert!(
                (computed - expected).abs() < 1e-12 * f64::abs(expected).max(1.0),
                "{a} {b}: {computed} instead of {expected}"
            );
        }
        let huge: f64 = ln_beta(3e14, 7e14) / -610_864_302_054_909.033_15;
        assert!((huge - 1.0).abs() < 1e-15);
        // The forms agree where one takes over from another.
        for (a, b) in [(0.3, STIRLING_FROM), (STIRLING_FROM, 1e9), (STIRLING_FROM, STIRLING_FROM)] {
            let (left, right) = (ln_beta(a * (1.0 - 1e-13), b), ln_beta(a, b * (1.0 - 1e-13)));
            assert!((left - right).abs() < 1e-10 * right.abs().max(1.0), "{a} {b}: {left} {right}");
        }
        assert!((ln_choose(52.0, 5.0) - 2_598_960f64.ln()).abs() < 1e-12);
    }
}
