//! A hash of what a model gave: tells whether two answers are the same, without keeping them.

use crate::datatype::Elements;
use xxhash_rust::xxh3::Xxh3Default;

/// Elements that are written at once: as little-endian bytes they fit into a cache.
const CHUNK: usize = 4096;

/// xxh3-64 of the tensors' bytes in the protocol's binary form, one after the other.
#[must_use]
pub fn of<'a>(tensors: impl IntoIterator<Item = Elements<'a>>) -> u64 {
    let mut hash = Xxh3Default::new();
    let mut bytes = Vec::new();
    for elements in tensors {
        let count = elements.count();
        if count <= CHUNK || matches!(elements, Elements::String(_)) {
            bytes.clear();
            elements.encode(&mut bytes);
            hash.update(&bytes);
            continue;
        }
        for start in (0..count).step_by(CHUNK) {
            bytes.clear();
            elements.clone().part(start..count.min(start + CHUNK)).encode(&mut bytes);
            hash.update(&bytes);
        }
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn is_that_of_the_bytes() {
        let floats: Vec<f32> = (0..10_000_u16).map(f32::from).collect();
        let mut bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
        bytes.extend_from_slice(&7_i64.to_le_bytes());
        bytes.extend_from_slice(b"\x02\0\0\0ab");
        let tensors =
            [Elements::Float32(&floats), Elements::Int64(&[7]), Elements::String(vec!["ab".into()])];
        assert_eq!(of(tensors), xxh3_64(&bytes));
    }
}
