//! Signatures by the scheme of Standard Webhooks (standardwebhooks.com): whoever has the secret knows that a message is from
//! here, and when it was sent.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::RequestBuilder;
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a secret begins with whose rest is the key in base64, as the scheme's libraries have it.
const PREFIX: &str = "whsec_";
/// Characters of a secret, and bytes of a key, at least.
const SHORTEST: usize = 16;

/// A secret. It is never shown.
#[derive(Clone)]
pub(super) struct Secret(Vec<u8>);

impl Secret {
    /// What stands in a file. After `whsec_` it is base64, otherwise the text is the key.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let key = match text.strip_prefix(PREFIX) {
            Some(rest) => BASE64_STANDARD
                .decode(rest)
                .map_err(|_| format!("the secret begins with {PREFIX}, and what follows is no base64"))?,
            None => text.as_bytes().to_vec(),
        };
        if key.len() < SHORTEST {
            return Err(format!("the secret is shorter than {SHORTEST} characters"));
        }
        Ok(Self(key))
    }

    /// A request with the message and its signature.
    pub(super) fn signed(&self, request: RequestBuilder, id: &str, body: String) -> RequestBuilder {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        request
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.signature(id, now, &body))
            .body(body)
    }

    fn signature(&self, id: &str, timestamp: u64, body: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemes_own_example_is_signed_as_it_says() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature =
            secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn short_and_malformed_secrets_are_refused() {
        for (text, why) in [
            ("fifteen-letters", "shorter than 16"),
            ("whsec_AAAA", "shorter than 16"),
            ("whsec_***", "no base64"),
            ("", "shorter than 16"),
        ] {
            assert!(Secret::new(text).err().unwrap().contains(why), "{text}");
        }
        assert_eq!(Secret::new(" sixteen-letters!\n").unwrap().0, b"sixteen-letters!");
    }
}
