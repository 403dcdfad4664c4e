//! One Envoy with the filter, in front of backends that show what arrived.

use crate::{ControlPlane, Envoy, EnvoyOptions, Mirror, Paths};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// How to start an [`Edge`].
pub struct EdgeOptions<'a> {
    /// Worker threads of Envoy.
    pub workers: usize,
    /// More flags for `halftone serve`.
    pub serve: &'a [&'a str],
    /// More flags for `halftone envoy-bootstrap`.
    pub bootstrap: &'a [&'a str],
    /// Changes the bootstrap's text before Envoy reads it.
    pub edit: &'a dyn Fn(&str) -> String,
}

impl Default for EdgeOptions<'_> {
    fn default() -> Self {
        Self { workers: 1, serve: &[], bootstrap: &[], edit: &str::to_owned }
    }
}

/// A control plane, an Envoy, and a mirror for each of two targets and for what is not decided.
pub struct Edge {
    /// Ended first.
    pub envoy: Envoy,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The target `v1`.
    pub v1: Mirror,
    /// The target `v2`.
    pub v2: Mirror,
    /// What takes requests on which nothing is decided.
    pub elsewhere: Mirror,
    paths: Paths,
    folder: TempDir,
}

/// A bootstrap with which Envoy closes a connection at once when it has refused something on it. Usually it waits for a
/// second, and over HTTP/2 says nothing before: a thousand refused requests would take a thousand seconds.
#[must_use]
pub fn closing_soon(bootstrap: &str) -> String {
    let manager = "                codec_type: AUTO\n";
    bootstrap.replacen(manager, &format!("{manager}                delayed_close_timeout: 0.01s\n"), 1)
}

impl Edge {
    /// Starts it all.
    ///
    /// # Errors
    /// When something does not get ready.
    pub async fn start(options: EdgeOptions<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let mut paths = Paths::find()?;
        paths.serve_flags = options.serve.iter().map(Into::into).collect();
        let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
        let [v1, v2, elsewhere] =
            [Mirror::start("v1").await?, Mirror::start("v2").await?, Mirror::start("elsewhere").await?];
        let EdgeOptions { workers, bootstrap, edit, .. } = options;
        let envoy = EnvoyOptions {
            name: "envoy",
            workers,
            xds: control_plane.xds,
            xds_form: "sotw",
            default_endpoint: elsewhere.address,
            port: 0,
            admin: 0,
            edit_bootstrap: str::to_owned,
        };
        let edit = |text: &str| edit(&closing_soon(text));
        let envoy = Envoy::start_edited(&paths, folder.path(), &envoy, bootstrap, edit).await?;
        control_plane.wait_for_acks(0, 1).await?;
        Ok(Self { envoy, control_plane, v1, v2, elsewhere, paths, folder })
    }

    /// Ends Envoy in order, which then writes what it holds back. The answer is all that it has written.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn stop_envoy(self) -> Result<String> {
        let Self { envoy, folder, .. } = self;
        drop(envoy);
        Ok(std::fs::read_to_string(folder.path().join("envoy.log"))?)
    }

    /// The programs that it runs.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where logs and store are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `targets` of a ruleset: `v1` and `v2`, spoken to by HTTP/1.1.
    #[must_use]
    pub fn targets(&self) -> String {
        format!(
            "targets: {{v1: {{endpoints: [\"{}\"]}}, v2: {{endpoints: [\"{}\"]}}}}\n",
            self.v1.address, self.v2.address
        )
    }

    /// The same, spoken to by HTTP/2.
    #[must_use]
    pub fn targets_by_http2(&self) -> String {
        format!(
            "targets: {{v1: {{endpoints: [\"{}\"], protocol: http2}}, v2: {{endpoints: [\"{}\"], protocol: http2}}}}\n",
            self.v1.http2, self.v2.http2
        )
    }

    /// Uploads a ruleset with these targets and waits until every worker decides by it.
    ///
    /// # Errors
    /// When it is refused, or not applied in time.
    pub async fn publish(&self, name: &str, targets: &str, rest: &str) -> Result<u64> {
        let path = format!("/v1/rulesets/{name}?wait=applied&timeout=30s");
        let ruleset = format!("version: v1\n{targets}{rest}");
        let answer = self.control_plane.request(Method::PUT, &path, ruleset).await?;
        let status = answer.status();
        let answer: Value = answer.json().await?;
        ensure!(status.is_success(), "refused with {status}: {answer}");
        ensure!(answer["fleet"]["applied"] == 1, "not applied: {answer}");
        answer["revision"].as_u64().context("the answer has no revision")
    }
}
