//! Releases of a running control plane.

use crate::ControlPlane;
use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between two looks at a release.
const LOOK: Duration = Duration::from_millis(50);

impl ControlPlane {
    /// Creates a release, or replaces its text.
    ///
    /// # Errors
    /// When it is refused, with the answer.
    pub async fn put_release(&self, name: &str, text: impl Into<String>) -> Result<Value> {
        let path = format!("/v1/releases/{name}");
        let answer = self.request(Method::PUT, &path, text.into()).await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "{status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// A release with all that is known of it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn release(&self, name: &str) -> Result<Value> {
        self.get(&format!("/v1/releases/{name}")).await
    }

    /// Tells a release to do something: the status of the answer, and what it says.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn command(&self, name: &str, command: &str) -> Result<(u16, Value)> {
        let answer = self.request(Method::POST, &format!("/v1/releases/{name}:{command}"), "").await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// The decision records of a release, oldest first.
    ///
    /// # Errors
    /// When there is no such release.
    pub async fn decisions(&self, name: &str) -> Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let before = match all.last().and_then(|record| record["id"].as_str()) {
                Some(id) => format!("&before={id}"),
                None => String::new(),
            };
            let page = self.get(&format!("/v1/releases/{name}/decisions?limit=100{before}")).await?;
            let page = page["decisions"].as_array().context("a list of records")?;
            if page.is_empty() {
                all.reverse();
                return Ok(all);
            }
            all.extend(page.iter().cloned());
        }
    }

    /// Waits until a release is as wanted. `see` is told of each look at it.
    ///
    /// # Errors
    /// When it is not within the time; with what it decided until then.
    pub async fn wait_for_release(
        &self,
        name: &str,
        within: Duration,
        mut see: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let now = self.release(name).await?;
            if see(&now) {
                return Ok(now);
            }
            if start.elapsed() > within {
                let decisions = self.decisions(name).await?;
                let all: Vec<String> = decisions
                    .iter()
                    .map(|record| format!("{} {}: {}", record["at_ms"], record["action"], record["why"]))
                    .collect();
                bail!("after {within:?} {name} is {}\n{now:#}\n{}", now["phase"], all.join("\n"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
