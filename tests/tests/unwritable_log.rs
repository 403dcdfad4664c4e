//! A log that cannot be written, because its disk is full or its reader hangs, ends no program and holds none up.

use anyhow::{Context, Result, ensure};
use halftone_tests::{Paths, command, digits, traffic};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long something may take. Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than a pipe and what programs keep of their lines have room for, in requests and changes that are logged.
const REQUESTS: u64 = 400;

/// Ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where every line fails.
fn full() -> Result<Stdio> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?.into())
}

/// Where nothing more can be written until somebody reads, which nobody does; with who would.
fn hung() -> Result<(Stdio, UnixStream)> {
    let (mut writer, reader) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    loop {
        match writer.write(&[b'.'; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Of what is left of room not even a byte.
    while writer.write(b".").is_ok() {}
    writer.set_nonblocking(false)?;
    Ok((OwnedFd::from(writer).into(), reader))
}

/// Starts a program; gives what it says when it is ready.
async fn start(mut command: Command, ready: &Path) -> Result<(Running, String)> {
    let running = Running(command.arg("--ready-file").arg(ready).spawn()?);
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

/// `halftone serve` in a folder.
fn control_plane(folder: &TempDir, log: &str) -> Result<Command> {
    let paths = Paths::find()?;
    let mut serve = command(&paths.halftone);
    serve
        .args(["serve", "--rest", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--log", log, "--data"])
        .arg(folder.path().join("data"));
    serve.arg("--filter").arg(&paths.filter);
    Ok(serve)
}

/// `halftone-inference`.
fn backend(log: &str) -> Result<Command> {
    let paths = Paths::find()?;
    let mut inference = command(&paths.inference);
    inference.args(["--listen", "127.0.0.1:0", "--serve", "digits:2", "--models"]).arg(&paths.models);
    inference.args(["--log", log, "--ort"]).arg(&paths.onnxruntime);
    Ok(inference)
}

/// What is asked of a control plane: changes.
async fn change(ready: &str, changes: u64) -> Result<()> {
    let ready: serde_json::Value = serde_json::from_str(ready)?;
    let url = format!("http://{}/v1/rulesets/digits", ready["rest"].as_str().context("no address")?);
    let client = traffic::client()?;
    for change in 0..changes {
        let text = format!("version: v1\ndefault: v{}\nrules: []\n", change % 2);
        let put = tokio::time::timeout(PATIENCE, client.put(&url).body(text).send());
        let put = put.await.with_context(|| format!("change {change} waits"))??;
        ensure!(put.status().is_success(), "{}", put.text().await?);
    }
    Ok(())
}

/// What is asked of a backend: inferences.
async fn infer(ready: &str, requests: u64) -> Result<()> {
    let url = format!("http://{}/v2/models/digits/infer", ready.trim());
    let (client, digit) = (traffic::client()?, digits::test_set()?.swap_remove(0));
    for user in 0..requests {
        let exchange = traffic::send(&client, &url, user, &digit, Default::default());
        let exchange = tokio::time::timeout(PATIENCE, exchange).await;
        let exchange = exchange.with_context(|| format!("request {user} waits"))?;
        ensure!(exchange.status == Ok(200), "{exchange:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_control_plane_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut serve = control_plane(&folder, "trace")?;
    serve.stderr(full()?);
    let (running, ready) = start(serve, &folder.path().join("ready")).await?;
    change(&ready, 2).await?;
    stop(running).await
}

#[tokio::test]
async fn the_backend_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut inference = backend("trace")?;
    inference.args(["--admin", "127.0.0.1:0"]).stderr(full()?);
    let (running, ready) = start(inference, &folder.path().join("ready")).await?;
    let (address, admin) = ready.trim().split_once('\n').context("no address for operators")?;
    infer(address, 20).await?;
    // None of the access log's lines comes through, and others go the same way.
    let begun = Instant::now();
    while dropped(admin, "unwritten").await? <= 20 {
        ensure!(begun.elapsed() < PATIENCE, "lines are lost without being counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(running).await
}

#[tokio::test]
async fn a_reader_that_hangs_holds_no_control_plane_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ((errors, _reader), (output, _other)) = (hung()?, hung()?);
    let mut serve = control_plane(&folder, "trace")?;
    serve.stderr(errors).stdout(output);
    let (running, ready) = start(serve, &folder.path().join("ready")).await?;
    change(&ready, REQUESTS).await?;
    stop(running).await
}

#[tokio::test]
async fn a_reader_that_hangs_holds_no_backend_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ((errors, _reader), (output, _other)) = (hung()?, hung()?);
    let mut inference = backend("trace")?;
    inference.stderr(errors).stdout(output);
    let (running, ready) = start(inference, &folder.path().join("ready")).await?;
    infer(&ready, REQUESTS).await?;
    stop(running).await
}

/// How many lines of this kind were dropped, as Prometheus reads it.
async fn dropped(admin: &str, lines: &str) -> Result<u64> {
    let text = traffic::client()?.get(format!("http://{admin}/metrics")).send().await?.text().await?;
    let series = format!("halftone_log_lines_dropped_total{{lines=\"{lines}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&series));
    Ok(count.with_context(|| format!("no {series}in {text}"))?.parse()?)
}

/// They are those of requests alone, however many there are, and are told of as soon as somebody reads again.
#[tokio::test]
async fn lines_that_nobody_reads_are_dropped_and_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (errors, reader) = hung()?;
    let mut inference = backend("info")?;
    inference.args(["--admin", "127.0.0.1:0"]).stderr(errors);
    let (running, ready) = start(inference, &folder.path().join("ready")).await?;
    let (address, admin) = ready.trim().split_once('\n').context("no address for operators")?;
    ensure!(dropped(admin, "access").await? == 0, "there is room");
    // Long lines, of which few take all of it.
    let (client, url) = (traffic::client()?, format!("http://{address}/{}", "long".repeat(8_000)));
    let ask = async |requests: u64| -> Result<()> {
        for _ in 0..requests {
            let answer =
                tokio::time::timeout(PATIENCE, client.get(&url).send()).await.context("one waits")?;
            ensure!(answer?.status() == 404, "there is no such path");
        }
        Ok(())
    };
    ask(600).await?;
    let first = dropped(admin, "access").await?;
    ensure!(first > 0, "a reader that hangs has room for everything");
    ask(10).await?;
    let (access, other) = (dropped(admin, "access").await?, dropped(admin, "other").await?);
    ensure!((access, other) == (first + 10, 0), "{access} of requests after {first}, {other} others");
    let told = tokio::task::spawn_blocking(move || {
        reader.set_read_timeout(Some(PATIENCE))?;
        let lines = BufReader::new(&reader).lines().map_while(Result::ok);
        let told = lines.filter(|line| line.contains("lines of the log were dropped")).take(1).last();
        // Whoever goes on reading is in nobody's way.
        anyhow::Ok((reader, told))
    });
    let (_reader, told) = told.await??;
    let told = told.context("nobody is told")?;
    ensure!(told.contains("WARN") && told.contains(&format!("lines=\"access\" dropped={access}")), "{told}");
    stop(running).await
}

/// The words that a program ends with come last and whole, also when nobody logs.
#[tokio::test]
async fn why_a_program_does_not_start_is_said() -> Result<()> {
    for log in ["off", "info"] {
        let folder = tempfile::tempdir()?;
        let mut serve = control_plane(&folder, log)?;
        serve.args(["--token-file", "/nowhere"]);
        let mut inference = backend(log)?;
        inference.args(["--observations-to", "http://127.0.0.1:1"]);
        for mut program in [serve, inference] {
            let ended = program.output()?;
            let said = String::from_utf8(ended.stderr)?;
            ensure!(!ended.status.success(), "it starts");
            let last = said.lines().last().unwrap_or_default();
            ensure!(last.starts_with("halftone: ") || last.starts_with("halftone-inference: "), "{said}");
        }
    }
    Ok(())
}
