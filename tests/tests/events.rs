//! What the real control plane tells others of releases: server-sent events and webhooks.

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use halftone_tests::{Conduct, ControlPlane, Heard, Hearing, Paths, traffic};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use sha2::Sha256;
use std::{path::Path, time::Duration};
use tempfile::TempDir;

const RULESET: &str = "version: v1\ntargets:\n  v1: {endpoints: [\"127.0.0.1:8001\"]}\n  v2: {endpoints: [\"127.0.0.1:8002\"]}\ndefault: v1\nrules: []\n";
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";
const SECRET: &str = "a secret of some length";

/// A control plane with this file of hooks.
async fn start(folder: &Path, hooks: &str) -> Result<ControlPlane> {
    std::fs::write(folder.join("secret"), SECRET)?;
    let file = folder.join("hooks.toml");
    std::fs::write(&file, hooks)?;
    let mut paths = Paths::find()?;
    paths.serve_flags.extend(["--admin", "127.0.0.1:0", "--hooks"].map(Into::into));
    paths.serve_flags.push(file.into());
    ControlPlane::start(&paths, folder, 0, 0).await
}

/// Creates a release, which begins by itself.
async fn create(control_plane: &ControlPlane, name: &str) -> Result<()> {
    control_plane.put("digits", RULESET).await?;
    let put = control_plane.request(Method::PUT, &format!("/v1/releases/{name}"), RELEASE).await?;
    ensure!(put.status() == StatusCode::CREATED, "{}", put.text().await?);
    while control_plane.get(&format!("/v1/releases/{name}")).await?["phase"] != "running" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn command(control_plane: &ControlPlane, name: &str, command: &str) -> Result<()> {
    let answer = control_plane.request(Method::POST, &format!("/v1/releases/{name}:{command}"), "").await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(())
}

fn is_signed(heard: &Heard) -> Result<()> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(heard.id.as_bytes());
    mac.update(b".");
    mac.update(heard.timestamp.as_bytes());
    mac.update(b".");
    mac.update(&heard.body);
    let wanted = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    ensure!(heard.signature == wanted, "{heard:?}");
    Ok(())
}

fn actions(heard: &[Heard]) -> Vec<String> {
    heard.iter().filter_map(|of| Some(of.json().ok()?["action"].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn webhooks_hear_everything_in_order_and_signed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = Hearing::start(Conduct::Answers(204, "")).await?;
    let failing = Hearing::start(Conduct::Answers(500, "")).await?;
    let dead = "[[webhook]]\nname = \"dead\"\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"secret\"\n";
    let hooks =
        [good.entry("webhook", "good"), failing.entry("webhook", "failing"), dead.to_owned()].concat();
    let control_plane = start(folder.path(), &hooks).await?;
    create(&control_plane, "a").await?;
    command(&control_plane, "a", "pause").await?;
    command(&control_plane, "a", "abort").await?;
    let wanted = ["create", "start", "pause", "abort"];
    // What the others do holds nobody up.
    let heard = good.hears(|heard| heard.len() >= wanted.len()).await?;
    assert_eq!(actions(&heard)[..4], wanted);
    for event in &heard {
        is_signed(event)?;
        let record = control_plane.get(&format!("/v1/decisions/{}", event.id)).await?;
        let told = event.json()?;
        assert_eq!(told["id"], event.id.as_str());
        for field in ["release", "at_ms", "by", "why", "from", "to", "step"] {
            assert_eq!(told[field], record[field], "{field}");
        }
        assert!(told.get("judged").is_none(), "{told:#}");
    }
    let first = failing.hears(|heard| heard.len() >= 2).await?;
    assert!(first.iter().all(|again| again.id == first[0].id), "the second waits for the first: {first:?}");
    let log = control_plane.process().log();
    assert!(log.contains("a webhook was not delivered") && log.contains("it answered 500"), "{log}");
    let ready: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("control-plane.ready"))?)?;
    let admin = ready["admin"].as_str().context("an address")?;
    let metrics = traffic::client()?.get(format!("http://{admin}/metrics")).send().await?.text().await?;
    assert!(metrics.contains("halftone_webhook_failures_total{webhook=\"dead\"}"), "{metrics}");
    assert!(!metrics.contains("halftone_webhook_failures_total{webhook=\"good\"}"), "{metrics}");
    failing.does(Conduct::Answers(200, ""));
    let heard = failing.hears(|heard| actions(heard).iter().any(|action| action == "abort")).await?;
    let mut once: Vec<String> = heard.iter().map(|of| of.id.clone()).collect();
    once.dedup();
    assert_eq!(once.len(), 4, "each again until it was taken, then the next: {heard:?}");
    heard.iter().try_for_each(is_signed)
}

#[tokio::test]
async fn what_was_told_before_a_crash_is_told_again_under_its_id() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hearing = Hearing::start(Conduct::Silent).await?;
    let control_plane = start(folder.path(), &hearing.entry("webhook", "chat")).await?;
    create(&control_plane, "a").await?;
    // It has the event, and the control plane does not know that yet.
    hearing.hears(|heard| !heard.is_empty()).await?;
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    hearing.does(Conduct::Answers(200, ""));
    let heard = hearing.hears(|heard| actions(heard).iter().any(|action| action == "start")).await?;
    assert_eq!(actions(&heard), ["create", "create", "start"]);
    assert_eq!(heard[0].id, heard[1].id);
    // What was taken is not told again.
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    command(&control_plane, "a", "abort").await?;
    let heard = hearing.hears(|heard| actions(heard).iter().any(|action| action == "abort")).await?;
    let rest = &actions(&heard)[3..];
    // The crash may have come between the answer and the note of it.
    assert!(rest == ["abort"] || rest == ["start", "abort"], "{rest:?}");
    Ok(())
}

#[tokio::test]
async fn a_new_webhook_hears_what_comes_from_then_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = start(folder.path(), "").await?;
    create(&control_plane, "a").await?;
    control_plane.stop()?;
    let hearing = Hearing::start(Conduct::Answers(200, "")).await?;
    let control_plane = start(folder.path(), &hearing.entry("webhook", "new")).await?;
    command(&control_plane, "a", "abort").await?;
    let heard = hearing.hears(|heard| !heard.is_empty()).await?;
    assert_eq!(actions(&heard), ["abort"]);
    Ok(())
}

/// A reader of events.
struct Reader {
    response: Response,
    read: String,
}

impl Reader {
    async fn open(control_plane: &ControlPlane, query: &str, last: Option<&str>) -> Result<Self> {
        let url = format!("http://{}/v1/events{query}", control_plane.rest);
        let mut request = traffic::client()?.get(url);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await?.error_for_status()?;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { response, read: String::new() })
    }

    /// The next event: its id, its name, its data. `None` when there are no more.
    async fn next(&mut self) -> Result<Option<(String, String, Value)>> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let found = field("data").map(|data| {
                    let text = |name| field(name).unwrap_or_default().to_owned();
                    Ok((text("id"), text("event"), serde_json::from_str(data)?))
                });
                self.read = rest.to_owned();
                match found {
                    Some(found) => return found.map(Some),
                    // A sign of life.
                    None => continue,
                }
            }
            match self.response.chunk().await? {
                Some(bytes) => self.read += std::str::from_utf8(&bytes)?,
                None => return Ok(None),
            }
        }
    }
}

#[tokio::test]
async fn events_are_followed_and_what_was_missed_is_read_again() -> Result<()> {
    let folder: TempDir = tempfile::tempdir()?;
    let control_plane = start(folder.path(), "").await?;
    let mut live = Reader::open(&control_plane, "", None).await?;
    create(&control_plane, "a").await?;
    let (first, name, data) = live.next().await?.context("an event")?;
    assert_eq!((name.as_str(), &data["release"], &data["to"]), ("create", &"a".into(), &"pending".into()));
    assert_eq!(live.next().await?.context("an event")?.1, "start");
    command(&control_plane, "a", "pause").await?;
    // Verdicts that led to nothing are no events.
    let (_, name, data) = live.next().await?.context("an event")?;
    assert_eq!((name.as_str(), &data["from"], &data["to"]), ("pause", &"running".into(), &"paused".into()));

    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    for (query, last) in
        [("", Some(first.as_str())), (&format!("?after={first}")[..], None), ("?after=0", Some(&first))]
    {
        let mut again = Reader::open(&control_plane, query, last).await?;
        assert_eq!(again.next().await?.context("an event")?.1, "start", "{query} {last:?}");
        assert_eq!(again.next().await?.context("an event")?.1, "pause");
    }
    let mut all = Reader::open(&control_plane, "?after=0", None).await?;
    assert_eq!(all.next().await?.context("an event")?.0, first);
    assert_eq!(
        control_plane.request(Method::GET, "/v1/events?after=x", "").await?.status(),
        StatusCode::BAD_REQUEST
    );

    let mut readers = Vec::new();
    let refused = loop {
        match Reader::open(&control_plane, "", None).await {
            Ok(reader) => readers.push(reader),
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("503"), "{refused}");
    assert!(readers.len() <= 64, "{}", readers.len());

    let mut last = readers.pop().context("a reader")?;
    control_plane.stop()?;
    assert!(last.next().await?.is_none(), "it ends when the server stops");
    Ok(())
}
