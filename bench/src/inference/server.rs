//! Servers that are measured, ours and others.

use anyhow::Result;
use halftone_tests::{Paths, Process, command};
use std::{net::SocketAddr, path::Path, process::Command, time::Duration};
use tokio::net::TcpStream;

const READY: Duration = Duration::from_secs(30);

/// A server of inferences; ends when it is dropped.
pub(super) struct Server {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Ours, which serves `digits:2`.
    pub(super) async fn digits(
        paths: &Paths,
        folder: &tempfile::TempDir,
        name: &str,
        flags: &[&str],
    ) -> Result<Self> {
        Self::ours(paths, folder, name, &paths.models, &[&["--serve", "digits:2"], flags].concat()).await
    }

    /// Ours.
    pub(super) async fn ours(
        paths: &Paths,
        folder: &tempfile::TempDir,
        name: &str,
        models: &Path,
        flags: &[&str],
    ) -> Result<Self> {
        let ready = folder.path().join(format!("{name}.ready"));
        let mut command = command(&paths.inference);
        command.args(["--listen", "127.0.0.1:0", "--log", "warn", "--ready-file"]);
        command.arg(&ready).arg("--models").arg(models).arg("--ort").arg(&paths.onnxruntime);
        command.args(flags);
        let mut process = Process::start(name, command, folder.path())?;
        let address = process.wait_until(READY, async || std::fs::read_to_string(&ready).ok()).await?;
        Ok(Self { process, address: address.trim().parse()? })
    }

    /// Another one, which listens on this port once it is ready.
    pub(super) async fn peer(
        folder: &tempfile::TempDir,
        name: &str,
        command: Command,
        port: u16,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut process = Process::start(name, command, folder.path())?;
        process.wait_until(READY, async || TcpStream::connect(address).await.ok()).await?;
        Ok(Self { process, address })
    }

    pub(super) fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }
}
