//! A real Prometheus server.

use crate::{Process, command, paths::fetched};
use anyhow::Result;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long it may take to get ready. Generous: the machine may be busy with something else.
const READY: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    folder: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts one with its data in `folder` that scrapes an address ten times a second.
    ///
    /// # Errors
    /// When it was not fetched, or does not get ready.
    pub async fn start(folder: &Path, scraped: SocketAddr) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
             scrape_configs:\n\
             - {{job_name: test, static_configs: [{{targets: [\"{scraped}\"]}}]}}\n\
             - {{job_name: envoy, metrics_path: /stats/prometheus, file_sd_configs: [{{files: [envoy.json]}}]}}\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config)?;
        Self::listen(folder, ([127, 0, 0, 1], 0).into()).await
    }

    /// Scrapes an Envoy, too, from now on.
    ///
    /// # Errors
    /// When its folder is gone.
    pub fn scrape_envoy(&self, admin: SocketAddr) -> Result<()> {
        // It watches the file, and must not see half of it.
        let written = self.folder.join("envoy.json.new");
        std::fs::write(&written, format!("[{{\"targets\": [\"{admin}\"]}}]"))?;
        Ok(std::fs::rename(written, self.folder.join("envoy.json"))?)
    }

    /// Kills it; the answer starts it again on the same data.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(self) -> Result<impl AsyncFnOnce() -> Result<Self>> {
        let Self { process, folder, address } = self;
        process.kill()?;
        Ok(async move || Self::listen(&folder, address).await)
    }

    async fn listen(folder: &Path, address: SocketAddr) -> Result<Self> {
        let mut command = command(&fetched("HALFTONE_TEST_PROMETHEUS", "prometheus/prometheus")?);
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        let log = folder.join("prometheus.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Process::start("prometheus", command, folder)?;
        let address = process
            .wait_until(READY, async || {
                let log = std::fs::read_to_string(&log).ok()?;
                log.find("Server is ready to receive web requests")?;
                let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
                line.split("address=").nth(1)?.trim().parse().ok()
            })
            .await?;
        Ok(Self { process, folder: folder.to_owned(), address })
    }
}
