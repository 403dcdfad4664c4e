//! What a version's folder says about the server that has the model: `remote.json`.

use crate::{breaker::BreakerConfig, config::within};
use axum::http::Uri;
use serde::Deserialize;
use std::time::Duration;

/// Name of the file.
pub const FILE: &str = "remote.json";

/// Where a model is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteConfig {
    /// Where the server takes gRPC without TLS: `http://host:port`.
    pub url: String,
    /// The model's name there; when it is left out, that of the folder.
    pub model: Option<String>,
    /// Its version there; empty for the server's latest.
    pub version: String,
    /// How many connections are kept.
    pub connections: usize,
    /// After so long without an answer a request fails, whatever time it brought.
    pub timeout_ms: u64,
    /// How much may be tried again.
    pub retries: RetryConfig,
    /// When the server is left alone.
    pub breaker: BreakerConfig,
    /// How often the server is asked whether the model is ready.
    pub health_ms: u64,
}

/// How much may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Share of the requests.
    pub budget_percent: u32,
    /// Besides, so that few requests can be tried again too.
    pub min_per_second: u32,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: None,
            version: String::new(),
            connections: 2,
            timeout_ms: 5000,
            retries: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            health_ms: 1000,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { budget_percent: 10, min_per_second: 3 }
    }
}

impl RemoteConfig {
    /// Checks what the form alone does not say.
    ///
    /// # Errors
    /// What is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let expected = "expected http://host:port";
        let uri: Uri = self.url.parse().map_err(|e| format!("url is {:?} ({e}), {expected}", self.url))?;
        let is_plain = uri.scheme_str() == Some("http")
            && uri.path_and_query().is_none_or(|path| path == "/")
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !is_plain {
            return Err(format!("url is {:?}, {expected}", self.url));
        }
        within("connections", self.connections, 1..=64)?;
        within("timeout_ms", self.timeout_ms, 1..=600_000)?;
        within("retries.budget_percent", self.retries.budget_percent, 0..=100)?;
        within("retries.min_per_second", self.retries.min_per_second, 0..=10_000)?;
        within("health_ms", self.health_ms, 10..=3_600_000)?;
        self.breaker.policy().map(|_| ())
    }

    /// See [`Self::timeout_ms`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// See [`Self::health_ms`].
    #[must_use]
    pub fn health(&self) -> Duration {
        Duration::from_millis(self.health_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RemoteConfig, String> {
        let config: RemoteConfig = serde_json::from_str(json).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn a_url_is_enough() {
        let config = read(r#"{"url": "http://triton:8001"}"#).unwrap();
        let url = "http://triton:8001".to_owned();
        assert_eq!(config, RemoteConfig { url, ..RemoteConfig::default() });
    }

    #[test]
    fn says_what_is_wrong() {
        for (json, problem) in [
            ("{}", r#"url is "" (empty string), expected http://host:port"#),
            (r#"{"url": "https://a:1"}"#, r#"url is "https://a:1", expected http://host:port"#),
            (r#"{"url": "http://a:1/v2"}"#, r#"url is "http://a:1/v2", expected http://host:port"#),
            (r#"{"url": "http://u:p@a:1"}"#, r#"url is "http://u:p@a:1", expected http://host:port"#),
            (r#"{"url": "a:1"}"#, r#"url is "a:1", expected http://host:port"#),
            (r#"{"url": "http://a:1", "protocol": "rest"}"#, "unknown field `protocol`, expected one of"),
            (r#"{"url": "http://a:1", "connections": 0}"#, "connections is 0, expected 1 to 64"),
            (r#"{"url": "http://a:1", "timeout_ms": 0}"#, "timeout_ms is 0, expected 1 to 600000"),
            (r#"{"url": "http://a:1", "timeout_ms": -1}"#, "invalid value: integer `-1`, expected u64"),
            (
                r#"{"url": "http://a:1", "retries": {"budget_percent": 101}}"#,
                "retries.budget_percent is 101, expected 0 to 100",
            ),
            (r#"{"url": "http://a:1", "health_ms": 1}"#, "health_ms is 1, expected 10 to 3600000"),
            (
                r#"{"url": "http://a:1", "breaker": {"failure_percent": 0}}"#,
                "breaker.failure_percent is 0, expected 1 to 100",
            ),
            (
                r#"{"url": "http://a:1", "breaker": {"window_ms": 0}}"#,
                "breaker.window_ms is 0, expected 1 to 3600000",
            ),
            (
                r#"{"url": "http://a:1", "breaker": {"probes": 0}}"#,
                "invalid value: integer `0`, expected a nonzero u32",
            ),
        ] {
            let got = read(json).unwrap_err();
            assert!(got.starts_with(problem), "{got}");
        }
    }
}
