//! A log that cannot be written, because its disk is full or its reader is gone, ends no program.

use anyhow::{Context, Result, ensure};
use halftone_tests::{Paths, command, digits, traffic};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// How long something may take. Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program whose every line of log fails; gives what it says when it is ready.
async fn start(mut command: Command, ready: &Path) -> Result<(Running, String)> {
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    let running = Running(command.arg("--ready-file").arg(ready).stderr(full).spawn()?);
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready) {
            return Ok((running, text));
        }
        ensure!(begun.elapsed() < PATIENCE, "it does not get ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends it as an operator would.
async fn stop(mut running: Running) -> Result<()> {
    kill(Pid::from_raw(running.0.id().try_into()?), Signal::SIGTERM)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = running.0.try_wait()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_control_plane_goes_on() -> Result<()> {
    let (paths, folder) = (Paths::find()?, tempfile::tempdir()?);
    let mut serve = command(&paths.halftone);
    serve
        .args(["serve", "--rest", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"));
    serve.arg("--filter").arg(&paths.filter);
    let (running, ready) = start(serve, &folder.path().join("ready")).await?;
    let ready: serde_json::Value = serde_json::from_str(&ready)?;
    let url = format!("http://{}/v1/rulesets/digits", ready["rest"].as_str().context("no address")?);
    for _ in 0..2 {
        let put = traffic::client()?.put(&url).body("version: v1\nrules: []\n").send().await?;
        ensure!(put.status().is_success(), "{}", put.text().await?);
    }
    stop(running).await
}

#[tokio::test]
async fn the_backend_goes_on() -> Result<()> {
    let (paths, folder) = (Paths::find()?, tempfile::tempdir()?);
    let mut inference = command(&paths.inference);
    inference.args(["--listen", "127.0.0.1:0", "--serve", "digits:2", "--models"]).arg(&paths.models);
    inference.arg("--ort").arg(&paths.onnxruntime);
    let (running, ready) = start(inference, &folder.path().join("ready")).await?;
    let url = format!("http://{}/v2/models/digits/infer", ready.trim());
    let digit = digits::test_set()?.swap_remove(0);
    for user in 0..20 {
        let exchange = traffic::send(&traffic::client()?, &url, user, &digit, Default::default()).await;
        ensure!(exchange.status == Ok(200), "{exchange:?}");
    }
    stop(running).await
}
