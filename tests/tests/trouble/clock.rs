//! The wall clock jumps, as it does when a machine wakes up, is moved, or its time is set by hand.

use crate::Trial;
use anyhow::{Context, Result, ensure};
use halftone_tests::{Paths, repository, traffic::client};
use std::{
    ffi::OsString,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// What moves the clock, for all processes that are started through `launcher`.
struct Clock {
    moved: File,
    launcher: Vec<OsString>,
}

impl Clock {
    fn new(folder: &Path) -> Result<Self> {
        let library = folder.join("clock.so");
        let source = repository().join("tests/tests/trouble/clock.c");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        let built = built.context("cc, the C compiler, is needed")?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let path = folder.join("moved");
        let moved = File::create(&path)?;
        let variable = |name: &str, value: &Path| -> OsString {
            let mut variable = OsString::from(name);
            variable.push("=");
            variable.push(value);
            variable
        };
        let launcher =
            vec!["env".into(), variable("LD_PRELOAD", &library), variable("CLOCK_MOVED_BY", &path)];
        let clock = Self { moved, launcher };
        clock.jump(0)?;
        Ok(clock)
    }

    /// From now on, the wall clock is so many seconds off.
    fn jump(&self, seconds: i64) -> Result<()> {
        Ok(self.moved.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

#[tokio::test]
async fn clocks_that_jump_by_hours_and_years_change_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::new(folder.path())?;
    let launcher = clock.launcher.clone();
    let paths = Paths { serve_launcher: launcher.clone(), envoy_launcher: launcher, ..Paths::find()? };
    let mut trial = Trial::start_with(paths).await?;
    for moved in [HOUR, -HOUR, 10 * YEAR, 0, -10 * YEAR, 30 * YEAR, 0] {
        clock.jump(moved)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let revision = trial.upload().await.with_context(|| format!("the clock has moved by {moved} s"))?;
        // That the clocks really jump.
        let revisions = trial.stack.control_plane()?.get("/v1/revisions").await?;
        ensure!(revisions["current"] == revision);
        let seen = revisions["revisions"][0]["created_at_ms"].as_i64().context("no time")?;
        ensure!((seen / 1_000 - (now()? + moved)).abs() < HOUR / 2, "{revisions}");
        for envoy in &trial.stack.envoys {
            let start = Instant::now();
            while (envoy_clock(envoy).await? - (now()? + moved)).abs() > HOUR / 2 {
                ensure!(
                    start.elapsed() < Duration::from_secs(20),
                    "the clock of Envoy has not moved by {moved} s"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    trial.end().await
}

/// The time of this machine, in seconds since 1970.
fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// The time that Envoy takes it to be.
async fn envoy_clock(envoy: &halftone_tests::Envoy) -> Result<i64> {
    let response = client()?.get(format!("http://{}/ready", envoy.admin)).send().await?;
    let date = response.headers().get("date").context("no date")?.to_str()?;
    let date = Command::new("date").args(["-u", "+%s", "-d", date]).output()?;
    Ok(String::from_utf8(date.stdout)?.trim().parse()?)
}
