//! Following a file, whatever happens to it.

use anyhow::{Context as _, Result, bail};
use halftone_embed::{Engine, Event, Events};
use halftone_rules::{Bundle, codec};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(30);

fn ruleset(target: &str) -> String {
    format!("version: v1\nrules:\n  - {{name: all, target: {target}}}\ndefault: none\n")
}

async fn next(events: &mut Events) -> Result<Event> {
    timeout(PATIENCE, events.next()).await?.context("the engine is gone")
}

/// Waits for a change; the answer is where everybody goes now.
async fn changed(engine: &Engine, events: &mut Events) -> Result<String> {
    match next(events).await? {
        Event::Changed(change) => {
            let rules = engine.rules();
            assert_eq!(rules.revision(), change.revision);
            Ok(rules.context("digits")?.decide().context("no decision")?.target.into())
        }
        other => bail!("{other:?} instead of a change"),
    }
}

async fn failed(events: &mut Events) -> Result<String> {
    match next(events).await? {
        Event::Failed { why, .. } => Ok(why.to_string()),
        other => bail!("{other:?} instead of a failure"),
    }
}

fn rename_over(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let other = path.with_extension("new");
    fs::write(&other, content)?;
    Ok(fs::rename(other, path)?)
}

fn start() -> Result<(Engine, Events, std::path::PathBuf, TempDir)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("digits.yaml");
    fs::write(&path, ruleset("v1"))?;
    let engine = Engine::load(&path)?;
    let events = engine.subscribe();
    Ok((engine, events, path, folder))
}

#[tokio::test]
async fn changes_are_taken_and_troubles_survived() -> Result<()> {
    let (engine, mut events, path, _folder) = start()?;
    let watch = engine.watch_file(&path);
    let target = async |events: &mut Events| changed(&engine, events).await;

    fs::write(&path, ruleset("v2"))?;
    assert_eq!(target(&mut events).await?, "v2");
    rename_over(&path, ruleset("v3"))?;
    assert_eq!(target(&mut events).await?, "v3");
    let other = path.with_extension("other");
    fs::write(&other, ruleset("v4"))?;
    fs::remove_file(&path)?;
    std::os::unix::fs::symlink(&other, &path)?;
    // The gap between the two may have been seen.
    match next(&mut events).await? {
        Event::Failed { .. } => assert_eq!(target(&mut events).await?, "v4"),
        Event::Changed(change) => assert_eq!(change.revision, 4),
        other => bail!("{other:?}"),
    }

    rename_over(&path, "version: v1\nrulez: []\n")?;
    let why = failed(&mut events).await?;
    assert!(why.contains("did you mean `rules`"), "{why}");
    rename_over(&path, b"\xff\xfe")?;
    assert!(failed(&mut events).await?.contains("neither"));
    rename_over(&path, ruleset("v4"))?;
    assert!(matches!(next(&mut events).await?, Event::Recovered { .. }));

    fs::remove_file(&path)?;
    assert!(failed(&mut events).await?.contains("No such file"));
    fs::create_dir(&path)?;
    assert!(failed(&mut events).await?.contains("not a file"));
    fs::remove_dir(&path)?;
    assert!(failed(&mut events).await?.contains("No such file"));
    assert_eq!(engine.rules().revision(), 4, "the last good rules are gone");
    fs::write(&path, ruleset("v5"))?;
    assert_eq!(target(&mut events).await?, "v5");

    // A bundle under the same name brings its own revision; half of it does not.
    let bundle = codec::encode(&Bundle::pass_all(70, "digits", "v70"))?;
    fs::write(&path, &bundle[..bundle.len() / 2])?;
    assert!(failed(&mut events).await?.contains("truncated"));
    fs::write(&path, &bundle)?;
    assert_eq!(target(&mut events).await?, "v70");

    watch.stop().await;
    rename_over(&path, ruleset("v8"))?;
    drop(engine);
    assert_eq!(timeout(PATIENCE, events.next()).await?, None, "the watch goes on, or told something");
    Ok(())
}

/// A text that is written piece by piece is not taken before it is whole, although each piece is a valid ruleset.
#[tokio::test]
async fn a_file_that_is_being_written_is_left_alone() -> Result<()> {
    let (engine, mut events, path, _folder) = start()?;
    let _watch = engine.watch_file(&path);
    let mut file = File::create(&path)?;
    file.write_all(b"version: v1\ndefault: v2\nrules:\n  - {name: all, target: v2}\n")?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        file.write_all(b"# still writing\n")?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(engine.rules().revision(), 1, "half of a file was taken");
    drop(file);
    assert_eq!(changed(&engine, &mut events).await?, "v2");
    Ok(())
}

#[tokio::test]
async fn a_file_that_never_comes_to_rest_is_told() -> Result<()> {
    let (engine, mut events, path, _folder) = start()?;
    let _watch = engine.watch_file(&path);
    let written = path.clone();
    let writing = tokio::spawn(async move {
        for version in 2.. {
            rename_over(&written, ruleset(&format!("v{version}")))?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, anyhow::Error>(())
    });
    let why = loop {
        match next(&mut events).await? {
            // A machine that is busy leaves the file alone at times.
            Event::Changed(_) => {}
            Event::Failed { why, .. } => break why,
            other => bail!("{other:?}"),
        }
    };
    assert!(why.starts_with("it changes all the time"), "{why}");
    writing.abort();
    let _ = writing.await;
    rename_over(&path, ruleset("last"))?;
    assert_eq!(changed(&engine, &mut events).await?, "last");
    Ok(())
}

/// Nobody writes to it, and whoever opens it to read waits for that.
#[test]
fn a_pipe_is_refused_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("digits.yaml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
    let error = Engine::load(&path).err().context("a pipe was read")?;
    assert!(error.to_string().contains("it is not a file"), "{error}");
    Ok(())
}

/// The quickest of some edits, because the machine may be busy with something else.
#[tokio::test]
async fn an_edit_is_in_force_within_half_a_second() -> Result<()> {
    let (engine, mut events, path, _folder) = start()?;
    let _watch = engine.watch_file(&path);
    let mut quickest = PATIENCE;
    for version in 2..7 {
        let target = format!("v{version}");
        fs::write(&path, ruleset(&target))?;
        let written = Instant::now();
        assert_eq!(changed(&engine, &mut events).await?, target);
        quickest = quickest.min(written.elapsed());
    }
    assert!(quickest < Duration::from_millis(500), "an edit was in force only after {quickest:?}");
    Ok(())
}

#[tokio::test]
async fn an_engine_may_start_before_its_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("digits.json");
    let engine = Engine::new();
    let mut events = engine.subscribe();
    let _watch = engine.watch_file(&path);
    assert!(failed(&mut events).await?.contains("No such file"));
    fs::write(&path, r#"{"version": "v1", "rules": [], "default": "v1"}"#)?;
    assert_eq!(changed(&engine, &mut events).await?, "v1");
    Ok(())
}
