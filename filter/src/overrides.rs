//! Override tokens: checked cheaply, and not too often.
//!
//! Checking a signature costs about as much as a hundred requests. Whoever sends tokens of the right form without a
//! valid signature must not get that for free: each worker checks only so many in a second. A token that was
//! found valid is remembered, so that a flood of others does not shut out who uses one already.

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use halftone_rules::{Timestamp, token};
use serde::{Deserialize, Deserializer, de::Error};
use std::{cell::RefCell, collections::VecDeque};

/// Keys at a time: the one in use, and those that it replaces or is replaced by.
const MAX_KEYS: usize = 4;
/// Signatures that a worker checks in a second at most.
const CHECKS_PER_SECOND: u32 = 20;
/// Valid tokens that a worker remembers.
const REMEMBERED: usize = 64;

thread_local! {
    /// Of this VM, and so of this worker: with new rules comes another configuration, and who uses a token goes on.
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// Whose tokens are taken. Public keys: there is no secret in a proxy's configuration.
#[derive(Default)]
pub(crate) struct Overrides {
    keys: Vec<VerifyingKey>,
}

#[derive(Default)]
struct Seen {
    /// Each with the key that has signed it, which need not be taken any more.
    valid: VecDeque<(VerifyingKey, Box<[u8]>)>,
    /// Seconds since 1970, and how many signatures were checked in that second.
    checked: (u64, u32),
}

impl Overrides {
    /// Whether any key is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The target that a valid token demands in the ruleset.
    pub(crate) fn demanded<'a>(&self, token: &'a [u8], ruleset: &str, now: Timestamp) -> Option<&'a str> {
        let (claims, signature) = token::parse(token)?;
        let now = now.unix_millis() / 1_000;
        if claims.ruleset != ruleset || !claims.in_force(now) {
            return None;
        }
        let is_valid = SEEN.with(|seen| {
            // No call in here comes back to this place.
            let mut seen = seen.try_borrow_mut().ok()?;
            if seen.knows(token, &self.keys) {
                return Some(());
            }
            if !seen.may_check(now) {
                return None;
            }
            let (signed, signature) = (claims.signed(), Signature::from_bytes(&signature));
            let key = self.keys.iter().find(|key| key.verify_strict(&signed, &signature).is_ok())?;
            seen.remember(token, *key);
            Some(())
        });
        is_valid.map(|()| claims.target)
    }
}

impl Seen {
    fn knows(&self, token: &[u8], keys: &[VerifyingKey]) -> bool {
        self.valid.iter().any(|(key, valid)| **valid == *token && keys.contains(key))
    }

    fn may_check(&mut self, now: u64) -> bool {
        let (second, count) = &mut self.checked;
        if *second != now {
            (*second, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= CHECKS_PER_SECOND
    }

    fn remember(&mut self, token: &[u8], key: VerifyingKey) {
        if self.valid.len() >= REMEMBERED {
            self.valid.pop_front();
        }
        self.valid.push_back((key, token.into()));
    }
}

impl<'de> Deserialize<'de> for Overrides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_KEYS {
            return Err(D::Error::custom(format_args!("`override_keys` has more than {MAX_KEYS} keys")));
        }
        let key = |text: &String| {
            let bytes = STANDARD.decode(text).ok()?;
            VerifyingKey::from_bytes(bytes.first_chunk::<32>().filter(|_| bytes.len() == 32)?).ok()
        };
        let keys = texts.iter().map(|text| {
            key(text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is no public key of Ed25519")))
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }
}
