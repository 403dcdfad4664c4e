//! No room for the store.

use crate::Trial;
use anyhow::{Context, Result, ensure};
use halftone_tests::{Paths, disk};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// Gives the control plane a small disk of its own: a file system in memory, over its folder, that only it sees. Mounting
/// takes no privilege in a namespace of users.
const SMALL_DISK: &str = r#"
for argument; do
    if [ "$before" = --data ]; then mkdir -p "$argument" && mount -t tmpfs -o size=4m none "$argument" || exit; fi
    before=$argument
done
exec "$@"
"#;

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_room() -> Result<()> {
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        // Some systems forbid it. The next test shows the same by a limit, which every system has.
        eprintln!("not tested: this system gives no namespaces of users");
        return Ok(());
    }
    let serve_launcher = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh"].map(OsString::from).to_vec();
    let trial = Trial::start_with(Paths { serve_launcher, ..Paths::find()? }).await?;
    // As the control plane sees it.
    let pid = trial.stack.control_plane()?.process().pid();
    let inside = trial.stack.folder().join("data/full");
    let path = PathBuf::from(format!("/proc/{pid}/root{}", inside.display()));
    let fill = || -> Result<()> {
        let mut file = File::create(&path)?;
        for chunk in [65_536, 4_096, 1] {
            let full = std::iter::repeat_with(|| file.write_all(&vec![0; chunk])).find_map(Result::err);
            ensure!(full.is_some_and(|error| error.kind() == ErrorKind::StorageFull));
        }
        Ok(())
    };
    let make_room = || Ok(std::fs::remove_file(&path)?);
    without_room(trial, StatusCode::INSUFFICIENT_STORAGE, fill, make_room).await
}

#[tokio::test]
async fn a_store_that_may_not_grow_refuses_changes_until_it_may() -> Result<()> {
    let serve_launcher = disk::limitable();
    let trial = Trial::start_with(Paths { serve_launcher, ..Paths::find()? }).await?;
    let pid = trial.stack.control_plane()?.process().pid();
    let log = trial.stack.folder().join("data/halftone.db-wal");
    // Every change makes this file longer, and no other one is as long.
    let fill = || disk::limit(pid, Some(std::fs::metadata(&log)?.len()));
    without_room(trial, StatusCode::SERVICE_UNAVAILABLE, fill, || disk::limit(pid, None)).await
}

async fn without_room(
    mut trial: Trial,
    status: StatusCode,
    fill: impl Fn() -> Result<()>,
    make_room: impl Fn() -> Result<()>,
) -> Result<()> {
    let before = trial.upload().await?;
    let text = trial.ruleset();
    for _ in 0..2 {
        fill()?;
        let control_plane = trial.stack.control_plane()?;
        wait_for_readiness(&trial, status).await?;
        let upload = format!("# Too much\n{}", trial.stack.canary(0.9));
        for (method, body) in [(Method::PUT, upload.as_str()), (Method::DELETE, "")] {
            let answer = control_plane.request(method, "/v1/rulesets/digits", body.to_owned()).await?;
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: Value = answer.json().await?;
            let detail = problem["detail"].as_str().context("no detail")?;
            assert_eq!(problem["type"], "urn:halftone:problem:store", "{problem}");
            assert!(detail.contains("nothing was changed") && detail.contains("--data"), "{detail}");
        }
        assert_eq!(control_plane.get("/v1/revisions").await?["current"], before, "nothing has changed");
        let kept = control_plane.request(Method::GET, "/v1/rulesets/digits", "").await?.text().await?;
        assert_eq!(kept, text);
        make_room()?;
        wait_for_readiness(&trial, StatusCode::OK).await?;
    }
    assert_eq!(trial.upload().await?, before + 1, "without a restart, and without a gap");
    trial.end().await
}

/// Waits until `/readyz` answers like this; what is well counts as well for a second.
async fn wait_for_readiness(trial: &Trial, status: StatusCode) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = trial.stack.control_plane()?.request(Method::GET, "/readyz", "").await?;
        if answer.status() == status {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "it stays {}", answer.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
