//! Header maps with Envoy's semantics, and the form in which pairs cross the boundary.

/// Names and values in order.
pub type HeaderPairs = Vec<(Vec<u8>, Vec<u8>)>;

/// How many headers a map may hold before the module's additions are refused.
const MAX_HEADERS: usize = 4096;
/// How many bytes of names and values a map may hold before the module's additions are refused.
const MAX_BYTES: usize = 1 << 20;
/// How many pairs one buffer may carry into the host (Envoy's limit).
const MAX_PAIRS: usize = 1024;

/// An ordered multimap from lower-case names to values.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderMap {
    pairs: HeaderPairs,
}

/// The map has no room for another header.
#[derive(Debug)]
pub(crate) struct Full;

impl HeaderMap {
    pub(crate) fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Self {
        let lower = |(name, value): &(N, V)| (name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec());
        Self { pairs: pairs.iter().map(lower).collect() }
    }

    pub(crate) fn into_pairs(self) -> HeaderPairs {
        self.pairs
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The bytes of all names and values, which is what Envoy calls the size of a map.
    pub(crate) fn byte_size(&self) -> usize {
        self.pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The first value only, as in Envoy.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.pairs
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Appends; pseudo-headers go before all others, as in Envoy.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Full> {
        if self.len() >= MAX_HEADERS || self.byte_size() + name.len() + value.len() > MAX_BYTES {
            return Err(Full);
        }
        let header = (name.to_ascii_lowercase(), value.to_vec());
        if name.starts_with(b":") {
            let end = self.pairs.iter().take_while(|(known, _)| known.starts_with(b":")).count();
            self.pairs.insert(end, header);
        } else {
            self.pairs.push(header);
        }
        Ok(())
    }

    /// Removes every copy and appends one.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), Full> {
        self.remove(name);
        self.add(name, value)
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.pairs.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Empty for an empty map; else a count, then the lengths of all pairs, then all pairs, each part ended by NUL.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.pairs.is_empty() {
            return Vec::new();
        }
        // Nothing that fits into a 32-bit memory has a length beyond u32.
        let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(4 + self.byte_size() + self.len() * 10);
        bytes.extend_from_slice(&word(self.len()));
        for (name, value) in &self.pairs {
            bytes.extend_from_slice(&word(name.len()));
            bytes.extend_from_slice(&word(value.len()));
        }
        for (name, value) in &self.pairs {
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(value);
            bytes.push(0);
        }
        bytes
    }

    /// The reverse of [`encode`](Self::encode); `None` for anything that it could not have written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let (count, rest) = word(bytes)?;
        if count > MAX_PAIRS {
            return None;
        }
        let (mut lengths, mut parts) = rest.split_at_checked(count * 8)?;
        let mut map = Self::default();
        for _ in 0..count {
            let (name, value);
            (name, lengths) = word(lengths)?;
            (value, lengths) = word(lengths)?;
            let name = part(&mut parts, name)?.to_ascii_lowercase();
            let value = part(&mut parts, value)?.to_vec();
            map.pairs.push((name, value));
        }
        Some(map)
    }
}

fn word(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*word)).ok()?, rest))
}

fn part<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(len)?;
    *rest = after.strip_prefix(b"\0")?;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        HeaderMap::from_pairs(pairs)
    }

    #[test]
    fn names_are_lower_case_and_compared_without_case() {
        let mut headers = map(&[("X-User-Id", "7"), ("x-user-ID", "8")]);
        assert_eq!(headers.get(b"x-USER-id"), Some(&b"7"[..]));
        headers.replace(b"X-User-Id", b"9").unwrap();
        assert_eq!(headers.pairs, [(b"x-user-id".to_vec(), b"9".to_vec())]);
        headers.remove(b"X-USER-ID");
        assert_eq!(headers.len(), 0);
    }

    #[test]
    fn pseudo_headers_stay_in_front() {
        let mut headers = map(&[(":method", "GET"), ("a", "1")]);
        headers.replace(b":path", b"/x").unwrap();
        headers.add(b"a", b"2").unwrap();
        let names: Vec<_> = headers.pairs.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [&b":method"[..], b":path", b"a", b"a"]);
    }

    #[test]
    fn pairs_survive_the_boundary() {
        let headers =
            HeaderMap::from_pairs(&[(&b":path"[..], &b"/"[..]), (b"bin", b"\xFF\0\xFE"), (b"", b"")]);
        let bytes = headers.encode();
        assert_eq!(bytes[..12], [3, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(HeaderMap::decode(&bytes).unwrap().pairs, headers.pairs);
        assert!(HeaderMap::default().encode().is_empty());
        assert_eq!(HeaderMap::decode(&[0; 4]).unwrap().len(), 0);
    }

    #[test]
    fn broken_pairs_are_refused_at_every_length() {
        let bytes = map(&[("a", "bc"), ("def", "")]).encode();
        for len in 1..bytes.len() {
            assert!(HeaderMap::decode(&bytes[..len]).is_none(), "{len}");
        }
        assert!(HeaderMap::decode(&[0xFF; 64]).is_none());
    }

    #[test]
    fn a_full_map_refuses_more() {
        let mut headers = HeaderMap::default();
        headers.add(b"a", &vec![0; MAX_BYTES - 1]).unwrap();
        headers.add(b"a", b"").unwrap_err();
    }
}
