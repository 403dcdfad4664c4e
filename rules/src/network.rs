//! Networks: what `cidr` asks about.

use bincode::{Decode, Encode};
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that share their first bits. IPv4 addresses are those that IPv6 maps them to, so that
/// `::ffff:10.0.0.1` is in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Network {
    address: u128,
    /// Number of bits that count, of 128.
    bits: u8,
}

/// Number of leading bits of an IPv4 address that is written as an IPv6 address.
const MAPPED: u8 = 96;

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address; `None` when it is neither, or when bits
    /// behind the prefix are set.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (offset, width): (u8, u8) = if address.is_ipv4() { (MAPPED, 32) } else { (0, 128) };
        let bits = match bits {
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok()?
            }
            Some(_) => return None,
            None => width,
        };
        if bits > width {
            return None;
        }
        let network = Self { address: number(address), bits: bits.checked_add(offset)? };
        (network.address & network.mask() == network.address).then_some(network)
    }

    /// Whether the network holds the address that the text is; `None` when the text is no address. A port
    /// behind it, as proxies write it, does not count.
    #[must_use]
    pub fn contains(&self, address: &str) -> Option<bool> {
        Some(number(parse_address(address)?) & self.mask() == self.address)
    }

    /// Whether the network is well formed.
    pub(crate) fn is_valid(&self) -> bool {
        self.bits <= 128 && self.address & self.mask() == self.address
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(self.bits))).unwrap_or(0)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = Ipv6Addr::from_bits(self.address);
        match address.to_ipv4_mapped() {
            Some(address) if self.bits >= MAPPED => write!(f, "{address}/{}", self.bits - MAPPED),
            _ => write!(f, "{address}/{}", self.bits),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // `192.0.2.1:80`, `[2001:db8::1]:80`, `[2001:db8::1]`
    text.parse::<std::net::SocketAddr>()
        .map(|address| address.ip())
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", Some(true)),
            ("10.0.0.0/8", "11.0.0.1", Some(false)),
            ("10.0.0.0/8", "::ffff:10.1.2.3", Some(true)),
            ("10.0.0.0/8", "10.1.2.3:4711", Some(true)),
            ("0.0.0.0/0", "255.255.255.255", Some(true)),
            ("0.0.0.0/0", "::1", Some(false)),
            ("::/0", "10.1.2.3", Some(true)),
            ("2001:db8::/32", "[2001:db8::7]:443", Some(true)),
            ("2001:db8::/32", "[2001:db9::7]", Some(false)),
            ("192.0.2.7", "192.0.2.7", Some(true)),
            ("192.0.2.7", "192.0.2.8", Some(false)),
            ("10.0.0.0/8", "10.0.0", None),
            ("10.0.0.0/8", "", None),
            ("10.0.0.0/8", "10.0.0.1, 192.0.2.1", None),
        ] {
            assert_eq!(Network::parse(network).unwrap().contains(address), expected, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/+8", "10/8", "a/8", "::1/64"]
        {
            assert_eq!(Network::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn it_prints_as_it_is_read() {
        for text in ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::/0", "0.0.0.0/0"] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
    }
}
