//! What a configuration says about a circuit breaker.

use crate::config::within;
use halftone_telemetry::breaker::Policy;
use serde::Deserialize;
use std::{num::NonZeroU32, time::Duration};

/// When a circuit breaker opens and closes; what is left out is as in [`Policy::default`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    consecutive: Option<NonZeroU32>,
    failure_percent: Option<u8>,
    minimum: Option<NonZeroU32>,
    window_ms: Option<u64>,
    open_ms: Option<u64>,
    probes: Option<NonZeroU32>,
    patience_ms: Option<u64>,
}

impl BreakerConfig {
    /// The policy.
    ///
    /// # Errors
    /// Which value is out of bounds.
    pub fn policy(self) -> Result<Policy, String> {
        let default = Policy::default();
        let time = |name: &str, given: Option<u64>, least: u64, default: Duration| match given {
            None => Ok(default),
            Some(ms) => within(&format!("breaker.{name}"), ms, least..=3_600_000).map(Duration::from_millis),
        };
        let percent = self.failure_percent.map_or(Ok(default.failure_percent), |percent| {
            within("breaker.failure_percent", percent, 1..=100)
        });
        Ok(Policy {
            consecutive: self.consecutive.unwrap_or(default.consecutive),
            failure_percent: percent?,
            minimum: self.minimum.unwrap_or(default.minimum),
            window: time("window_ms", self.window_ms, 1, default.window)?,
            open: time("open_ms", self.open_ms, 1, default.open)?,
            probes: self.probes.unwrap_or(default.probes),
            patience: time("patience_ms", self.patience_ms, 0, default.patience)?,
        })
    }
}
