//! Sticky bucketing: which share of the units takes a rule.
//!
//! Buckets are integers from 0 to [`BUCKETS`] − 1, computed by integer arithmetic only, so that every
//! implementation in every language agrees. `tests/bucket_vectors.csv` freezes version
//! [`HASH_VERSION`].

use crate::hash::Murmur3;

/// Number of buckets: a share is given in millionths.
pub const BUCKETS: u32 = 1_000_000;

/// Version of the bucket function. A bundle names the version it was compiled for.
pub const HASH_VERSION: u8 = 1;

/// Keeps `("ab", "c")` and `("a", "bc")` apart. ASCII unit separator; no seed or unit contains it by accident.
const SEPARATOR: &[u8] = &[0x1f];

/// A seed: what makes one split independent of another. It is hashed once, and goes on with each unit.
#[derive(Clone, Copy, Debug)]
pub struct Seed(Murmur3);

impl Seed {
    /// The seed that is the concatenation of `parts`.
    #[must_use]
    pub fn new(parts: &[&str]) -> Self {
        let mut state = Murmur3::new(0);
        for part in parts {
            state.update(part.as_bytes());
        }
        Self(state)
    }

    /// The seed of a rule or an experiment that does not name one.
    #[must_use]
    pub fn of_rule(ruleset: &str, rule: &str) -> Self {
        Self::new(&[ruleset, "/", rule])
    }

    /// The seed of a layer that does not name one.
    #[must_use]
    pub fn of_layer(ruleset: &str, layer: &str) -> Self {
        // No rule has this seed: names have no blanks.
        Self::new(&[ruleset, "/layer ", layer])
    }

    /// The seed of a ruleset's holdout.
    #[must_use]
    pub fn of_holdout(ruleset: &str) -> Self {
        Self::new(&[ruleset, "/holdout "])
    }

    /// The seed that continues this one: independent of it, and of every other continuation.
    #[must_use]
    pub fn then(self, what: &str) -> Self {
        let mut state = self.0;
        state.update(b" ");
        state.update(what.as_bytes());
        Self(state)
    }

    /// The seed of a layer's own holdout.
    #[must_use]
    pub fn holdout(self) -> Self {
        self.then("holdout")
    }

    /// The seed by which the units of a slice are divided among arms. Layers are shared, so the name of the
    /// rule is a part of it.
    #[must_use]
    pub fn division(self, rule: &str) -> Self {
        self.then("arms of").then(rule)
    }

    /// The seed followed by the separator, ready for units.
    #[must_use]
    pub fn ready(self) -> Bucketing {
        let mut state = self.0;
        state.update(SEPARATOR);
        Bucketing(state)
    }
}

/// Computes the buckets of units under one seed.
#[derive(Clone, Copy, Debug)]
pub struct Bucketing(Murmur3);

impl Bucketing {
    /// The bucket of `unit`, 0 to 999 999.
    #[must_use]
    pub fn bucket(self, unit: &[u8]) -> u32 {
        self.spread(unit, BUCKETS)
    }

    /// The bucket of `unit` when there are `buckets` of them.
    ///
    /// The hash is scaled by multiplication, not by modulo, so no bucket is favoured.
    #[must_use]
    pub fn spread(self, unit: &[u8], buckets: u32) -> u32 {
        let mut state = self.0;
        state.update(unit);
        let hash = u64::from(state.finish());
        // Below 2^32 · buckets before the shift and below `buckets` after it: the cast loses nothing.
        #[allow(clippy::cast_possible_truncation)]
        let bucket = ((hash * u64::from(buckets)) >> 32) as u32;
        bucket
    }
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

    fn bucket(seed: &str, unit: &[u8]) -> u32 {
        Seed::new(&[seed]).ready().bucket(unit)
    }

    #[test]
    fn frozen_vectors() {
        let vectors = include_str!("../tests/bucket_vectors.csv");
        let mut checked = 0;
        for line in vectors.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [seed, unit, expected] = fields.as_slice() else { panic!("malformed line {line:?}") };
            assert_eq!(bucket(seed, unit.as_bytes()), expected.parse().unwrap(), "{line}");
            checked += 1;
        }
        assert!(checked >= 20);
    }

    /// The seeds that nobody writes are frozen too: they are made of names.
    #[test]
    fn seeds_are_made_of_names() {
        let rule = Seed::of_rule("digits", "canary");
        let layer = Seed::of_layer("digits", "ranking");
        for (seed, text) in [
            (rule, "digits/canary"),
            (layer, "digits/layer ranking"),
            (Seed::of_holdout("digits"), "digits/holdout "),
            (layer.holdout(), "digits/layer ranking holdout"),
            (layer.division("canary"), "digits/layer ranking arms of canary"),
            (rule.division("canary"), "digits/canary arms of canary"),
        ] {
            for unit in ["", "42", "user-1234567"] {
                assert_eq!(seed.ready().bucket(unit.as_bytes()), bucket(text, unit.as_bytes()), "{text}");
            }
        }
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
            cells[(bucket("digits/rule", id.to_string().as_bytes()) / 10_000) as usize] += 1;
        }
        let chi: f64 = cells.iter().map(|&n| (f64::from(n) - 1_000.0).powi(2) / 1_000.0).sum();
        assert!(chi < 149.4, "chi-square {chi}");
    }

    proptest::proptest! {
        #[test]
        fn widening_never_moves_a_unit_out(seed: String, unit: Vec<u8>, a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let (narrow, wide) = (share(a.min(b)).unwrap(), share(a.max(b)).unwrap());
            let bucket = bucket(&seed, &unit);
            proptest::prop_assert!(bucket < BUCKETS);
            proptest::prop_assert!(bucket >= narrow || bucket < wide);
        }
    }
}
