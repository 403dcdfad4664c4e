//! Units for requests that bring none: a random one that the client keeps in a cookie.

use bincode::{Decode, Encode};
use std::fmt::Write;

/// The cookie that keeps the unit of a client that has no other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UnitCookie {
    /// Its name.
    pub name: String,
    /// For how many seconds the client keeps it; 0: until its session ends.
    pub max_age_seconds: u32,
    /// Which requests from other sites carry it.
    pub same_site: SameSite,
    /// Whether only encrypted connections carry it.
    pub secure: bool,
}

/// The attribute `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SameSite {
    /// Only requests that come from the same site carry it.
    Strict,
    /// So do links from other sites.
    Lax,
    /// All requests carry it.
    None,
}

impl SameSite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Strict, Self::Lax, Self::None];

    /// The value as a cookie has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// A unit of our making: 128 random bits as 32 hexadecimal digits. So many that no two clients get the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnonymousUnit([u8; 32]);

impl AnonymousUnit {
    /// The unit of these random bits.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        let mut digits = [0; 32];
        for (byte, pair) in random.iter().zip(digits.chunks_exact_mut(2)) {
            if let [high, low] = pair {
                (*high, *low) = (digit(byte >> 4), digit(byte & 0xF));
            }
        }
        Self(digits)
    }

    /// The unit's bytes, as the cookie and the buckets have it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.wrapping_add(nibble),
        _ => b'a'.wrapping_add(nibble).wrapping_sub(10),
    }
}

/// A cookie's value when it is a unit of our making. Whatever else stands there is taken for none, so that a cookie
/// cannot be used to carry arbitrary bytes into the rules' buckets.
pub(crate) fn known(value: &[u8]) -> Option<&[u8]> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (value.len() == 32 && value.iter().all(is_digit)).then_some(value)
}

impl UnitCookie {
    /// What may stand in a cookie's name (RFC 6265: a token).
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(token)
    }

    /// The value of the header `set-cookie` with which the client keeps the unit. No script can read it.
    #[must_use]
    pub fn set_cookie(&self, unit: &AnonymousUnit) -> String {
        let mut text = format!("{}={}; Path=/", self.name, String::from_utf8_lossy(unit.as_bytes()));
        if self.max_age_seconds > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "; Max-Age={}", self.max_age_seconds);
        }
        text.push_str("; HttpOnly; SameSite=");
        text.push_str(self.same_site.name());
        if self.secure {
            text.push_str("; Secure");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_hexadecimal_and_known_again() {
        let unit = AnonymousUnit::new(*b"\x00\x01\x9a\xbc\xde\xff\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0");
        assert_eq!(unit.as_bytes(), b"00019abcdeff102030405060708090a0");
        assert_eq!(known(unit.as_bytes()), Some(unit.as_bytes()));
        for other in [
            &b""[..],
            b"42",
            b"00019ABCDEFF102030405060708090A0",
            b"00019abcdeff102030405060708090a",
            b"00019abcdeff102030405060708090a00",
        ] {
            assert_eq!(known(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn the_cookie_says_how_it_is_kept() {
        let mut cookie = UnitCookie {
            name: "unit".into(),
            max_age_seconds: 3_600,
            same_site: SameSite::Lax,
            secure: true,
        };
        let unit = AnonymousUnit::new([0x11; 16]);
        let value = "11111111111111111111111111111111";
        assert_eq!(
            cookie.set_cookie(&unit),
            format!("unit={value}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
        );
        cookie = UnitCookie { max_age_seconds: 0, same_site: SameSite::Strict, secure: false, ..cookie };
        assert_eq!(cookie.set_cookie(&unit), format!("unit={value}; Path=/; HttpOnly; SameSite=Strict"));
    }
}
