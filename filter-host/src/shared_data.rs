//! The key-value store that all instances of a virtual machine share; here there is one instance.

use crate::imports::Status;
use std::collections::BTreeMap;

/// How many bytes of keys and values the module may keep.
const MAX_BYTES: usize = 16 << 20;

/// Values with the version by which they can be replaced.
#[derive(Default)]
pub(crate) struct SharedData {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    bytes: usize,
    version: u32,
}

impl SharedData {
    pub(crate) fn get(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
        self.values.get(key).cloned().ok_or(Status::NotFound)
    }

    /// A `cas` of zero replaces whatever is there.
    pub(crate) fn set(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> Result<(), Status> {
        let old = match self.values.get(&key) {
            Some((_, current)) if cas != 0 && cas != *current => return Err(Status::CasMismatch),
            Some((old, _)) => key.len() + old.len(),
            None => 0,
        };
        let bytes = self.bytes - old + key.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(Status::InternalFailure);
        }
        self.bytes = bytes;
        // Zero means "unconditionally", so no value may have it.
        self.version = self.version.checked_add(1).unwrap_or(1);
        self.values.insert(key, (value, self.version));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_and_sets() {
        let mut data = SharedData::default();
        assert_eq!(data.get(b"k"), Err(Status::NotFound));
        data.set(b"k".to_vec(), b"1".to_vec(), 0).unwrap();
        let (_, cas) = data.get(b"k").unwrap();
        assert_eq!(data.set(b"k".to_vec(), b"2".to_vec(), cas + 1), Err(Status::CasMismatch));
        data.set(b"k".to_vec(), b"2".to_vec(), cas).unwrap();
        assert_eq!(data.get(b"k"), Ok((b"2".to_vec(), cas + 1)));
    }

    #[test]
    fn is_bounded_and_counts_what_it_replaces() {
        let mut data = SharedData::default();
        for _ in 0..10 {
            data.set(b"k".to_vec(), vec![0; MAX_BYTES - 1], 0).unwrap();
        }
        assert_eq!(data.set(b"x".to_vec(), Vec::new(), 0), Err(Status::InternalFailure));
    }
}
