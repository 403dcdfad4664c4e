//! Sticky bucketing: which share of the units takes a rule.
//!
//! Buckets are integers from 0 to [`BUCKETS`] − 1, computed by integer arithmetic only, so that every
//! implementation in every language agrees. `tests/bucket_vectors.csv` freezes version
//! [`HASH_VERSION`].

use crate::hash::murmur3_x86_32;

/// Number of buckets: a share is given in millionths.
pub const BUCKETS: u32 = 1_000_000;

/// Version of the bucket function. A bundle names the version it was compiled for.
pub const HASH_VERSION: u8 = 1;

/// Keeps `("ab", "c")` and `("a", "bc")` apart. ASCII unit separator; no seed or unit contains it by accident.
const SEPARATOR: &[u8] = &[0x1f];

/// The bucket of `unit` under `seed`, 0 to 999 999.
///
/// The hash is scaled by multiplication, not by modulo, so no bucket is favoured.
#[must_use]
pub fn bucket(seed: &[u8], unit: &[u8]) -> u32 {
    let hash = u64::from(murmur3_x86_32(&[seed, SEPARATOR, unit], 0));
    // Below 2^32 · 10^6 before the shift and below 10^6 after it: the cast loses nothing.
    #[allow(clippy::cast_possible_truncation)]
    let bucket = ((hash * u64::from(BUCKETS)) >> 32) as u32;
    bucket
}

/// The number of buckets, counted from 0 upwards, that a `weight` from 0 to 1 takes; `None` when the
/// weight is no number in that range.
///
/// A rule takes the buckets below this number, so a larger weight only ever adds units.
#[must_use]
pub fn share(weight: f64) -> Option<u32> {
    if !(0.0..=1.0).contains(&weight) {
        return None;
    }
    // At most 1e6 and not negative: the cast loses nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let share = (weight * f64::from(BUCKETS)).round() as u32;
    // Only 0 means nobody and only 1 everybody: the latter also takes requests without a unit.
    let split = weight > 0.0 && weight < 1.0;
    Some(if split { share.clamp(1, BUCKETS - 1) } else { share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_vectors() {
        let vectors = include_str!("../tests/bucket_vectors.csv");
        let mut checked = 0;
        for line in vectors.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [seed, unit, expected] = fields.as_slice() else { panic!("malformed line {line:?}") };
            assert_eq!(bucket(seed.as_bytes(), unit.as_bytes()), expected.parse().unwrap(), "{line}");
            checked += 1;
        }
        assert!(checked >= 20);
    }

    #[test]
    fn shares() {
        assert_eq!(share(0.0), Some(0));
        assert_eq!(share(0.1), Some(100_000));
        assert_eq!(share(0.3), Some(300_000));
        assert_eq!(share(1.0), Some(BUCKETS));
        assert_eq!(share(1e-9), Some(1));
        assert_eq!(share(0.999_999_9), Some(BUCKETS - 1));
        for bad in [-0.1, 1.000_000_1, f64::NAN, f64::INFINITY] {
            assert_eq!(share(bad), None, "{bad}");
        }
    }

    #[test]
    fn buckets_are_uniform() {
        // Chi-square over 100 cells of 1,000 sequential ids each; 149.4 is the 99.9 % point at 99 degrees.
        let mut cells = [0u32; 100];
        for id in 0..100_000 {
            cells[(bucket(b"digits/rule", id.to_string().as_bytes()) / 10_000) as usize] += 1;
        }
        let chi: f64 = cells.iter().map(|&n| (f64::from(n) - 1_000.0).powi(2) / 1_000.0).sum();
        assert!(chi < 149.4, "chi-square {chi}");
    }

    proptest::proptest! {
        #[test]
        fn widening_never_moves_a_unit_out(seed: Vec<u8>, unit: Vec<u8>, a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let (narrow, wide) = (share(a.min(b)).unwrap(), share(a.max(b)).unwrap());
            let bucket = bucket(&seed, &unit);
            proptest::prop_assert!(bucket < BUCKETS);
            proptest::prop_assert!(bucket >= narrow || bucket < wide);
        }
    }
}
