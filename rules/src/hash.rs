//! The two hashes of a unit. Both are frozen: the same input gives the same value for ever.

use xxhash_rust::xxh3::xxh3_64;

/// `MurmurHash3`, x86, 32 bits (Austin Appleby, public domain), over bytes that come in parts.
///
/// The state can be copied: what is hashed first is hashed once for all that follows.
#[derive(Clone, Copy, Debug)]
pub struct Murmur3 {
    hash: u32,
    /// Up to three bytes that do not fill a block yet, first byte lowest.
    block: u32,
    length: u32,
}

impl Murmur3 {
    /// The state before the first byte.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self { hash: seed, block: 0, length: 0 }
    }

    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        let missing = (self.length.wrapping_neg() & 3) as usize;
        let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        for byte in head {
            self.byte(*byte);
        }
        // From here on the bytes lie on whole blocks; `rest` is empty when they never did.
        let mut blocks = rest.chunks_exact(4);
        for block in &mut blocks {
            let block = block.first_chunk::<4>().map_or(0, |block| u32::from_le_bytes(*block));
            self.mix_in(block);
            self.length = self.length.wrapping_add(4);
        }
        for byte in blocks.remainder() {
            self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.block |= u32::from(byte) << (8 * (self.length & 3));
        self.length = self.length.wrapping_add(1);
        if self.length & 3 == 0 {
            self.mix_in(self.block);
            self.block = 0;
        }
    }

    fn mix_in(&mut self, block: u32) {
        self.hash = (self.hash ^ mix(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }

    /// The hash of all bytes so far.
    #[must_use]
    pub fn finish(self) -> u32 {
        // The mix of an empty tail is zero and changes nothing.
        let mut hash = self.hash ^ mix(self.block) ^ self.length;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

fn mix(block: u32) -> u32 {
    block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
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

    fn murmur3_x86_32(parts: &[&[u8]], seed: u32) -> u32 {
        let mut state = Murmur3::new(seed);
        parts.iter().for_each(|part| state.update(part));
        state.finish()
    }

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
