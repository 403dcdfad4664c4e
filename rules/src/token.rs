//! Override tokens: whoever holds one, a tester for example, gets a target whatever the rules say.
//!
//! A token is the value of the header `x-halftone-override`:
//!
//! ```text
//! <ruleset>/<target>/<expires, seconds since 1970>.<signature, 64 bytes as unpadded base64url>
//! ```
//!
//! The signature is Ed25519's over [`signed`](Claims::signed). Here is the form of it; the filter checks the
//! signature, the command line makes it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The header that carries a token.
pub const HEADER: &str = "x-halftone-override";

/// No token is valid for longer than this. One that was lost is of no use some day, and one that claims more is not
/// even checked.
pub const MAX_LIFETIME_SECONDS: u64 = 31 * 24 * 3600;

/// Bytes of the longest token: two names, the separators, a time and a signature.
const MAX_BYTES: usize = 2 * crate::limits::MAX_NAME_BYTES + 128;

/// Stands before what is signed, so that a signature for something else is never one of these.
const DOMAIN: &str = "halftone override v1\n";

/// What a token demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// The ruleset in which it holds.
    pub ruleset: &'a str,
    /// The target that the request is to get.
    pub target: &'a str,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

impl Claims<'_> {
    fn text(&self) -> String {
        format!("{}/{}/{}", self.ruleset, self.target, self.expires)
    }

    /// What the signature is over.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        format!("{DOMAIN}{}", self.text()).into_bytes()
    }

    /// The token with its signature.
    #[must_use]
    pub fn token(&self, signature: &[u8; 64]) -> String {
        format!("{}.{}", self.text(), URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the token is in force at a time, in seconds since 1970.
    #[must_use]
    pub fn in_force(&self, now: u64) -> bool {
        now < self.expires && self.expires.saturating_sub(now) <= MAX_LIFETIME_SECONDS
    }
}

/// Takes a token apart; `None` for what is none. Nothing is known of the signature then but its form.
#[must_use]
pub fn parse(token: &[u8]) -> Option<(Claims<'_>, [u8; 64])> {
    if token.len() > MAX_BYTES {
        return None;
    }
    // Names may have dots, base64url has none.
    let (text, signature) = std::str::from_utf8(token).ok()?.rsplit_once('.')?;
    let mut parts = text.split('/');
    let (ruleset, target, expires) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = !expires.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !digits {
        return None;
    }
    let claims = Claims { ruleset, target, expires: expires.parse().ok()? };
    let mut bytes = [0; 64];
    let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes).ok()?;
    // What was signed is made of the claims anew, so they have to be what stands there: a time with leading zeros is
    // not the one that was signed.
    (length == bytes.len() && claims.text() == text).then_some((claims, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: Claims<'_> = Claims { ruleset: "digits.eu", target: "v2", expires: 1_800_000_000 };

    #[test]
    fn tokens_are_read_as_they_were_written() {
        let token = CLAIMS.token(&[7; 64]);
        assert!(token.starts_with("digits.eu/v2/1800000000.Bwc"), "{token}");
        assert_eq!(parse(token.as_bytes()), Some((CLAIMS, [7; 64])));
        assert_eq!(CLAIMS.signed(), b"halftone override v1\ndigits.eu/v2/1800000000");
    }

    #[test]
    fn what_is_not_a_token_is_none() {
        let token = CLAIMS.token(&[7; 64]);
        let (text, signature) = token.rsplit_once('.').unwrap();
        for other in [
            String::new(),
            "v2".into(),
            text.into(),
            format!("{text}."),
            format!("{text}.{}", &signature[1..]),
            format!("{text}.{signature}A"),
            format!("{text}.{signature}="),
            format!("{text}/x.{signature}"),
            format!("digits/v2/+1800000000.{signature}"),
            format!("digits/v2/01800000000.{signature}"),
            format!("digits/v2/99999999999999999999.{signature}"),
            format!("digits/v2.{signature}"),
            format!("{}/v2/1.{signature}", "x".repeat(1_000)),
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(parse(b"\xff/v2/1.x"), None);
    }

    #[test]
    fn tokens_are_in_force_for_a_bounded_time() {
        let at = |now| CLAIMS.in_force(now);
        assert!(at(1_799_999_999) && at(1_800_000_000 - MAX_LIFETIME_SECONDS));
        assert!(!at(1_800_000_000) && !at(1_800_000_000 - MAX_LIFETIME_SECONDS - 1) && !at(0));
    }
}
