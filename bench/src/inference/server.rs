//! Servers that are measured, ours and others.

use anyhow::Result;
use halftone_tests::{Paths, Process, command};
use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

const READY: Duration = Duration::from_secs(30);

/// A server of inferences; ends when it is dropped.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Ours, which serves `digits:2`.
    pub(crate) async fn digits(
        paths: &Paths,
        folder: &tempfile::TempDir,
        name: &str,
        flags: &[&str],
    ) -> Result<Self> {
        Self::ours(paths, folder, name, &paths.models, &[&["--serve", "digits:2"], flags].concat()).await
    }

    /// Ours.
    pub(crate) async fn ours(
        paths: &Paths,
        folder: &tempfile::TempDir,
        name: &str,
        models: &Path,
        flags: &[&str],
    ) -> Result<Self> {
        let ready = folder.path().join(format!("{name}.ready"));
        let mut command = command(&paths.inference);
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        if !flags.contains(&"--log") {
            command.args(["--log", "warn"]);
        }
        command.arg("--models").arg(models).arg("--ort").arg(&paths.onnxruntime);
        command.args(flags);
        let mut process = Process::start(name, command, folder.path())?;
        let address = process.wait_until(READY, async || std::fs::read_to_string(&ready).ok()).await?;
        Ok(Self { process, address: address.trim().parse()? })
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// Another one, which answers on this port and path once it is ready.
    pub(crate) async fn peer(
        folder: &tempfile::TempDir,
        name: &str,
        command: Command,
        port: u16,
        path: &str,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut process = Process::start(name, command, folder.path())?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{address}{path}");
        let ready = async || client.get(&url).send().await.ok()?.error_for_status().ok();
        process.wait_until(READY, ready).await?;
        Ok(Self { process, address })
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }
}
