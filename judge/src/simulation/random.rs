use crate::special::gamma::ln_choose;

/// xoshiro256++ (Blackman, Vigna 2019), seeded by SplitMix64: small, fast, and the same everywhere. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (the polar method of Marsaglia).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// e^(σ·normal), with median 1.
    pub fn lognormal(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal()).exp()
    }

    /// Successes in `n` trials. Exact: by waiting times where few are expected, else by inversion around the mode.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if p <= 0.0 || n == 0 {
            return 0;
        }
        let mean = n as f64 * p;
        if mean < 12.0 {
            return self.binomial_by_waiting(n, p);
        }
        // From the mode outwards, one step on each side in turn.
        let mode = ((n as f64 + 1.0) * p).floor();
        let odds = p / (1.0 - p);
        let n = n as f64;
        let at_mode = (ln_choose(n, mode) + mode * p.ln() + (n - mode) * (-p).ln_1p()).exp();
        let mut left = self.uniform() - at_mode;
        let (mut up, mut down) = ((mode, at_mode), (mode, at_mode));
        while left > 0.0 {
            let before = left;
            if up.0 < n {
                up = (up.0 + 1.0, up.1 * odds * (n - up.0) / (up.0 + 1.0));
                left -= up.1;
                if left <= 0.0 {
                    return count(up.0);
                }
            }
            if down.0 > 0.0 {
                down = (down.0 - 1.0, down.1 * down.0 / (odds * (n - down.0 + 1.0)));
                left -= down.1;
                if left <= 0.0 {
                    return count(down.0);
                }
            }
            if left == before {
                // What is left is rounding.
                break;
            }
        }
        count(mode)
    }

    fn binomial_by_waiting(&mut self, n: u64, p: f64) -> u64 {
        let rate = (-p).ln_1p();
        let (mut trials, mut successes) = (0.0, 0);
        loop {
            trials += (self.uniform().ln() / rate).floor() + 1.0;
            if trials > n as f64 {
                return successes;
            }
            successes += 1;
        }
    }

    /// Uniform among 0 … n − 1.
    pub fn below(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below n")]
        let index = (self.uniform() * n as f64) as usize;
        index
    }
}

/// A count that was computed, as one.
pub(super) fn count(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let value = value as u64;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_moments() {
        let mut random = Random::new(1);
        let runs = 40_000;
        let moments = |draw: &mut dyn FnMut() -> f64| {
            let values: Vec<f64> = (0..runs).map(|_| draw()).collect();
            let mean = values.iter().sum::<f64>() / f64::from(runs);
            (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(runs))
        };
        for (n, p) in
            [(20u64, 0.1), (1_000, 0.01), (1_000, 0.3), (100_000, 0.5), (50, 0.9), (2_000_000, 0.001)]
        {
            let (mean, variance) = moments(&mut || random.binomial(n, p) as f64);
            let (expected, spread) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - expected).abs() < 5.0 * (spread / f64::from(runs)).sqrt(), "{n} {p}: {mean}");
            assert!((variance / spread - 1.0).abs() < 0.05, "{n} {p}: {variance}");
        }
        let (mean, variance) = moments(&mut || random.normal());
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        // The reference implementation's first values for SplitMix64(0).
        assert_eq!(Random::new(0).0[0], 0xe220_a839_7b1d_cdaf);
        assert_eq!(
            (Random::new(7).next(), Random::new(7).next()),
            (Random::new(7).next(), Random::new(7).next())
        );
    }
}
