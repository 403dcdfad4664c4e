//! The two hashes of a unit. Both are frozen: the same input gives the same value for ever.

use xxhash_rust::xxh3::xxh3_64;

/// MurmurHash3, x86, 32 bits (Austin Appleby, public domain), over the concatenation of `parts`.
///
/// Taking parts spares the caller an allocation: the result is that of the joined bytes.
#[must_use]
pub fn murmur3_x86_32(parts: &[&[u8]], seed: u32) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |k: u32| k.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);

    let mut hash = seed;
    let mut length: u32 = 0;
    // Up to four bytes that do not fill a block yet, first byte lowest.
    let mut block: u32 = 0;
    for byte in parts.iter().copied().flatten() {
        block |= u32::from(*byte) << (8 * (length & 3));
        length = length.wrapping_add(1);
        if length & 3 == 0 {
            hash = (hash ^ mix(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
            block = 0;
        }
    }
    // The mix of an empty tail is zero and changes nothing.
    hash ^= mix(block);
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// What stands for a unit in observations: xxh3-64 of its bytes. It does not depend on any seed, so
/// that the same unit can be recognised across releases.
#[must_use]
pub fn unit_hash(unit: &[u8]) -> u64 {
    xxh3_64(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_agrees_with_the_published_vectors() {
        for (input, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("", 0xffff_ffff, 0x81f1_6f39),
            ("test", 0, 0xba6b_d213),
            ("test", 0x9747_b28c, 0x704b_81dc),
            ("Hello, world!", 0, 0xc036_3e43),
            ("Hello, world!", 0x9747_b28c, 0x2488_4cba),
            ("The quick brown fox jumps over the lazy dog", 0, 0x2e4f_f723),
            ("The quick brown fox jumps over the lazy dog", 0x9747_b28c, 0x2fa8_26cd),
        ] {
            assert_eq!(murmur3_x86_32(&[input.as_bytes()], seed), expected, "{input:?} seed {seed:#x}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parts_hash_like_their_concatenation(a: Vec<u8>, b: Vec<u8>, c: Vec<u8>) {
            let joined = [a.clone(), b.clone(), c.clone()].concat();
            proptest::prop_assert_eq!(murmur3_x86_32(&[&a, &b, &c], 0), murmur3_x86_32(&[&joined], 0));
        }
    }
}
