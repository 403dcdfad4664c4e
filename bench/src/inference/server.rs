//! A `halftone-inference` with flags of its own.

use anyhow::Result;
use halftone_tests::{Paths, Process, command};
use std::{net::SocketAddr, time::Duration};

const READY: Duration = Duration::from_secs(30);

/// Serves `digits:2`; ends when it is dropped.
pub(super) struct Server {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) async fn start(
        paths: &Paths,
        folder: &tempfile::TempDir,
        name: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let ready = folder.path().join(format!("{name}.ready"));
        let mut command = command(&paths.inference);
        command.args(["--listen", "127.0.0.1:0", "--serve", "digits:2", "--log", "warn", "--ready-file"]);
        command.arg(&ready).arg("--models").arg(&paths.models).arg("--ort").arg(&paths.onnxruntime);
        command.args(flags);
        let mut process = Process::start(name, command, folder.path())?;
        let address = process.wait_until(READY, async || std::fs::read_to_string(&ready).ok()).await?;
        Ok(Self { process, address: address.trim().parse()? })
    }

    pub(super) fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }
}
