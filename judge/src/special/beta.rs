//! Tails of the Beta distribution in logarithms, for parameters from 1e-3 to 1e15.
//!
//! All of it is written around one quantity, the *factor* p^A (1 − p)^B / B(A, B): a tail is the factor times
//! a slowly varying ratio, and a beta-binomial e-value is a quotient of factors. Where a product of both is
//! wanted, the factor cancels on paper instead of in floating point.

use super::{
    gamma::{STIRLING_FROM, ln_beta, stirling},
    ln_one_minus_exp,
    normal::{HALF_LN_TAU, mills},
};

/// From here on Temme's expansion takes over from the continued fraction, whose length grows with the root.
const EXPANSION_FROM: f64 = 3e4;

/// The fraction needs about √max(A, B) terms where it is used at all.
const TERMS: u32 = 20_000;

/// Beta(A, B) seen from the point p.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    p: f64,
    a: f64,
    b: f64,
    /// A/(A + B) − p, which the caller knows without cancellation.
    gap: f64,
}

/// The tail that is not close to 1, divided by the factor; in logarithms.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ratio {
    Lower(f64),
    Upper(f64),
}

impl Seen {
    pub(crate) fn new(p: f64, a: f64, b: f64, gap: f64) -> Self {
        Self { p, a, b, gap }
    }

    /// A ln p + B ln(1 − p) − lnB(A, B).
    pub(crate) fn ln_factor(&self) -> f64 {
        let Self { p, a, b, .. } = *self;
        if a < STIRLING_FROM || b < STIRLING_FROM {
            return a * p.ln() + b * (-p).ln_1p() - ln_beta(a, b);
        }
        let sum = a + b;
        let rest = stirling(a) + stirling(b) - stirling(sum);
        -self.divergence() + 0.5 * (a.ln() + (b / sum).ln()) - HALF_LN_TAU - rest
    }

    /// (A + B)·KL(A/(A + B) ‖ p) = A ln(1 + d/p) + B ln(1 − d/(1 − p)), d = A/(A + B) − p; at least 0.
    fn divergence(&self) -> f64 {
        let Self { p, a, b, gap } = *self;
        (a * (gap / p).ln_1p() + b * (-gap / (1.0 - p)).ln_1p()).max(0.0)
    }

    /// The tail on the far side of the mean, over the factor.
    pub(crate) fn ratio(&self) -> Ratio {
        let Self { p, a, b, gap } = *self;
        if a.min(b) >= EXPANSION_FROM {
            return if gap > 0.0 {
                Ratio::Lower(Self::new(1.0 - p, b, a, -gap).ln_far_tail())
            } else {
                Ratio::Upper(self.ln_far_tail())
            };
        }
        // Where the fraction converges fast; the tail of this side is at most about a half.
        if p < (a + 1.0) / (a + b + 2.0) {
            Ratio::Lower(fraction(p, a, b).ln() - a.ln())
        } else {
            Ratio::Upper(fraction(1.0 - p, b, a).ln() - b.ln())
        }
    }

    /// ln of P(θ > p) over the factor, for p above the mean: the first two terms of Temme (1982), DLMF 8.18.9,
    /// with w²/2 = the divergence: φ(w)·(M(w) + 1/u − 1/w), u = √(N/(x₀(1 − x₀)))·(p − x₀). The next term is
    /// of the order 1/N.
    fn ln_far_tail(&self) -> f64 {
        let Self { a, b, gap, .. } = *self;
        let sum = a + b;
        let deviation = (a / sum * (b / sum)).sqrt();
        let w = (2.0 * self.divergence()).sqrt();
        let correction = if w < 0.01 {
            -(b - a) / sum / (3.0 * deviation * sum.sqrt())
        } else {
            deviation / (sum.sqrt() * -gap) - 1.0 / w
        };
        let rest = stirling(a) + stirling(b) - stirling(sum);
        (mills(w) + correction).max(f64::MIN_POSITIVE).ln() - 0.5 * (a.ln() + (b / sum).ln()) + rest
    }

    /// ln P(θ > p).
    pub(crate) fn ln_upper(&self) -> f64 {
        match self.ratio() {
            Ratio::Upper(ratio) => (self.ln_factor() + ratio).min(0.0),
            Ratio::Lower(ratio) => ln_one_minus_exp((self.ln_factor() + ratio).min(-f64::MIN_POSITIVE)),
        }
    }

    /// The same seen from the other side: successes and failures exchanged.
    pub(crate) fn mirrored(&self) -> Self {
        Self::new(1.0 - self.p, self.b, self.a, -self.gap)
    }
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22, Lentz's method).
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut product = d;
    for term in 1..=TERMS {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        product *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        product *= step;
        if (step - 1.0).abs() < 3e-16 {
            break;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(p: f64, a: f64, b: f64) -> Seen {
        Seen::new(p, a, b, a / (a + b) - p)
    }

    /// Closed forms: P(θ > p) = (1 − p)^b for a = 1, and sums of binomial probabilities.
    #[test]
    fn tails_have_their_closed_forms() {
        for (p, b) in [(0.1, 3.0), (0.5, 0.5), (0.9, 40.0), (1e-6, 1e3), (0.3, 5e3)] {
            let computed = seen(p, 1.0, b).ln_upper();
            let expected = b * f64::ln_1p(-p);
            assert!(
                (computed - expected).abs() < 1e-11 * expected.abs().max(1.0),
                "{p} {b}: {computed} {expected}"
            );
        }
        // P(Beta(3, 4) > .25) = P(Binomial(6, .25) ≤ 2)
        let binomial: f64 = [(0, 1.0), (1, 6.0), (2, 15.0)]
            .map(|(k, ways)| ways * 0.25f64.powi(k) * 0.75f64.powi(6 - k))
            .iter()
            .sum();
        assert!((seen(0.25, 3.0, 4.0).ln_upper() - binomial.ln()).abs() < 1e-14);
        let both = seen(0.25, 3.0, 4.0).ln_upper().exp() + seen(0.25, 3.0, 4.0).mirrored().ln_upper().exp();
        assert!((both - 1.0).abs() < 1e-14);
    }

    /// The fraction and the expansion, either side of where one takes over.
    #[test]
    fn fraction_and_expansion_agree() {
        for share in [0.5, 0.05, 0.9] {
            for z in [-30.0, -6.0, -1.0, -0.001, 0.0, 0.001, 0.5, 3.0, 12.0, 40.0] {
                let n = EXPANSION_FROM / f64::min(share, 1.0 - share);
                let p = share + z * (share * (1.0 - share) / n).sqrt();
                let below = 1.0 - 1e-9;
                let by_fraction = seen(p, share * n * below, (1.0 - share) * n * below).ln_upper();
                let above = 1.0 + 1e-9;
                let by_expansion = seen(p, share * n * above, (1.0 - share) * n * above).ln_upper();
                let off = (by_fraction - by_expansion).abs() / by_expansion.abs().max(1.0);
                assert!(off < 2e-6, "{share} {z}: {by_fraction} {by_expansion}");
            }
        }
    }

    #[test]
    fn nothing_is_lost_at_1e15() {
        for z in [-5.0, 0.0, 5.0] {
            let n: f64 = 1e15;
            let deviation = (0.25 / n).sqrt();
            let computed = Seen::new(0.5 + z * deviation, n / 2.0, n / 2.0, -z * deviation).ln_upper();
            let expected = crate::special::normal::ln_upper_tail(z);
            assert!((computed - expected).abs() < 1e-6, "{z}: {computed} {expected}");
        }
    }
}
