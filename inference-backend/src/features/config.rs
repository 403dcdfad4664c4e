//! What a model's configuration says about where inputs come from that the client does not send: `features` in
//! `config.json`.

use crate::{breaker::BreakerConfig, config::within};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Where inputs come from that the client does not send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Services that know features, by a name that inputs refer to.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceConfig>,
    /// By name of the model's input.
    pub inputs: BTreeMap<String, InputConfig>,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputConfig {
    /// From what the filter decided about the request.
    Context {
        /// Which part of that.
        attribute: String,
        /// What each of the attribute's values is for the model; without it the value itself.
        map: Option<BTreeMap<String, Value>>,
        /// For requests without the attribute, and for values that are not in the map.
        default: Value,
        /// Whether the client may send the input itself.
        #[serde(default, rename = "override")]
        overridable: bool,
    },
    /// From a service.
    Service {
        /// Its name in `services`.
        service: String,
        /// Where it is in the service's answer: a JSON pointer.
        field: String,
        /// When the service does not have it, or does not answer in time.
        fallback: Option<Value>,
        /// Whether the client may send the input itself.
        #[serde(default, rename = "override")]
        overridable: bool,
    },
}

/// A service that knows features.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// What is asked for, with attributes of the request in braces: `http://host/features/{unit_hash}`.
    pub url: String,
    /// Where the version of the features is in the answer: a JSON pointer.
    pub version: Option<String>,
    /// For how long an answer is good.
    pub ttl_ms: u64,
    /// For how long after that it is still used, while a new one is asked for.
    pub stale_ms: u64,
    /// How long a request waits for an answer, at most.
    pub timeout_ms: u64,
    /// How many answers are kept.
    pub entries: usize,
    /// How many bytes they may take.
    pub bytes: usize,
    /// When the service is left alone.
    pub breaker: BreakerConfig,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            version: None,
            ttl_ms: 1000,
            stale_ms: 0,
            timeout_ms: 20,
            entries: 10_000,
            bytes: 16 << 20,
            breaker: BreakerConfig::default(),
        }
    }
}

impl ServiceConfig {
    /// Checks what the form alone does not say.
    ///
    /// # Errors
    /// What is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        within("ttl_ms", self.ttl_ms, 0..=86_400_000)?;
        within("stale_ms", self.stale_ms, 0..=86_400_000)?;
        within("timeout_ms", self.timeout_ms, 1..=60_000)?;
        within("entries", self.entries, 1..=10_000_000)?;
        within("bytes", self.bytes, 1..=1 << 30)?;
        self.version.as_deref().map_or(Ok(()), |pointer| is_pointer("version", pointer))?;
        self.breaker.policy().map(|_| ())
    }

    /// See [`Self::ttl_ms`].
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// See [`Self::stale_ms`].
    #[must_use]
    pub fn stale(&self) -> Duration {
        Duration::from_millis(self.stale_ms)
    }

    /// See [`Self::timeout_ms`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Refuses what is no JSON pointer.
///
/// # Errors
/// That it is none.
pub(super) fn is_pointer(name: &str, pointer: &str) -> Result<(), String> {
    if pointer.is_empty() || pointer.starts_with('/') {
        return Ok(());
    }
    Err(format!("{name} is {pointer:?}, expected a JSON pointer such as \"/history\""))
}
