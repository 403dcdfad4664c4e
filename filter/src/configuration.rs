//! What the plugin is configured with: settings, a bundle, both or neither.
//!
//! The settings are a JSON object; a bundle's bytes may follow it. A proxy that is configured by hand or by another
//! mesh has JSON only, and there the bundle stands in the object, as base64. See `docs/filter.md`.

use crate::overrides::Overrides;
use base64::{Engine, engine::general_purpose::STANDARD};
use halftone_rules::{Decision, VerifiedBundle, codec};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::rc::Rc;

/// Settings that stay the same when other rules come.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Who starts and continues traces.
    pub(crate) tracing: Tracing,
    /// Which of the traces that begin here are sampled.
    pub(crate) trace_sample: TraceSample,
    /// Whose override tokens are taken.
    #[serde(rename = "override_keys")]
    pub(crate) overrides: Overrides,
    /// A bundle as base64.
    bundle: Option<String>,
    /// Where to fetch bundles from.
    #[cfg(feature = "envoy")]
    pub(crate) source: Option<crate::pull::Source>,
    /// Whom to tell what is applied.
    #[cfg(feature = "envoy")]
    pub(crate) report: Option<crate::report::Receiver>,
}

/// Who starts and continues traces.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tracing {
    /// The filter, as a participant of W3C Trace Context.
    #[default]
    Filter,
    /// The proxy's own tracer: it overwrites both headers anyway, after the filter.
    Proxy,
}

/// Which of the traces that begin in the filter are sampled: a share of each, from 0 to 1.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSample {
    /// Of requests that go to what there was before: no rule took them, or they are what a candidate is compared with.
    #[serde(deserialize_with = "share")]
    stable: f64,
    /// Of requests that a rule took.
    #[serde(deserialize_with = "share")]
    candidate: f64,
}

impl Default for TraceSample {
    fn default() -> Self {
        Self { stable: 1.0, candidate: 1.0 }
    }
}

impl TraceSample {
    /// The share of requests on which this was decided.
    pub(crate) fn of(&self, decision: &Decision<'_>) -> f64 {
        match (decision.rule, decision.arm) {
            (None, _) | (_, Some("control" | "rest")) => self.stable,
            _ => self.candidate,
        }
    }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(D::Error::custom(format_args!("{share} is no share of all, from 0 to 1")))
}

/// A configuration that can be put in force.
pub(crate) struct Configuration {
    pub(crate) settings: Rc<Settings>,
    pub(crate) bundle: Option<Rc<VerifiedBundle>>,
}

/// Reads a configuration. The error says what is wrong.
pub(crate) fn read(bytes: &[u8]) -> Result<Configuration, String> {
    let text = bytes.trim_ascii_start();
    if !text.starts_with(b"{") {
        let bundle = if bytes.is_empty() { None } else { Some(decode(bytes)?) };
        return Ok(Configuration { settings: Rc::default(), bundle });
    }
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Settings>();
    let mut settings = match values.next() {
        Some(Ok(settings)) => settings,
        Some(Err(error)) => return Err(format!("the settings: {error}")),
        None => Settings::default(),
    };
    let rest = text.get(values.byte_offset()..).unwrap_or_default().trim_ascii_start();
    let bundle = match (settings.bundle.take(), rest) {
        (Some(_), [_, ..]) => {
            return Err("there are two bundles: one in the settings, one behind them".into());
        }
        (Some(base64), []) => {
            let bytes = STANDARD.decode(base64.trim_ascii()).map_err(|error| format!("`bundle`: {error}"))?;
            Some(decode(&bytes)?)
        }
        (None, []) => None,
        (None, bytes) => Some(decode(bytes)?),
    };
    Ok(Configuration { settings: Rc::new(settings), bundle })
}

/// A bundle's bytes, verified.
pub(crate) fn decode(bytes: &[u8]) -> Result<Rc<VerifiedBundle>, String> {
    codec::decode(bytes).map(Rc::new).map_err(|error| error.to_string())
}
