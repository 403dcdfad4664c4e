//! Releases over REST, on a real `halftone serve` without proxies: what is taken, and what is refused and changes nothing.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use halftone_tests::{ControlPlane, Paths, traffic};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RULES: &str = "version: v1\nlayers: {models: }\n\
    targets: {v1: {endpoints: [\"127.0.0.1:1\"]}, v2: {endpoints: [\"127.0.0.1:2\"]}, v3: {endpoints: [\"127.0.0.1:3\"]}}\n\
    default: v1\nrules: [{name: testers, condition: 'user.group == \"test\"', target: v3}]\n";
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n";

async fn start() -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
    control_plane.put("digits", RULES).await?;
    Ok((control_plane, folder))
}

async fn send(of: &ControlPlane, method: Method, path: &str, body: &str) -> Result<(StatusCode, String)> {
    let answer = of.request(method, path, body.to_owned()).await?;
    Ok((answer.status(), answer.text().await?))
}

async fn wait_for(of: &ControlPlane, path: &str, phase: &str) -> Result<Value> {
    let start = Instant::now();
    loop {
        let release = of.get(path).await?;
        if release["phase"] == phase {
            return Ok(release);
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "it is not {phase}: {release:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_release_lives_through_restarts_and_says_what_it_waits_for() -> Result<()> {
    let (mut control_plane, _folder) = start().await?;
    let path = "/v1/releases/canary";
    let (status, created) = send(&control_plane, Method::PUT, path, RELEASE).await?;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let (status, again) = send(&control_plane, Method::PUT, path, RELEASE).await?;
    assert_eq!((status, again.contains("\"changed\":false")), (StatusCode::OK, true), "{again}");
    let running = wait_for(&control_plane, path, "running").await?;
    assert_eq!(running["arms"]["v2"]["intended"], 0.01, "{running:#}");
    assert_eq!((&running["step"], &running["steps"]), (&1.into(), &4.into()));
    assert_eq!(control_plane.request(Method::GET, "/v1/rulesets/digits", "").await?.text().await?, RULES);
    control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    let after = control_plane.get(path).await?;
    assert_eq!((&after["phase"], &after["epochs"]), (&running["phase"], &running["epochs"]));
    let waits = after["waits_for"]["what"].as_str().unwrap_or_default();
    assert!(!waits.is_empty(), "{after:#}");
    // Rules that change begin another epoch.
    let other = RULES.replace("\"test\"", "\"qa\"");
    control_plane.put("digits", other.as_str()).await?;
    let start = Instant::now();
    while control_plane.get(path).await?["epochs"].as_array().map(Vec::len) != Some(2) {
        ensure!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (command, phase) in [("pause", "paused"), ("resume", "running"), ("abort", "aborted")] {
        let (status, answer) =
            send(&control_plane, Method::POST, &format!("{path}:{command}"), r#"{"reason": "a test"}"#)
                .await?;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let release = control_plane.get(path).await?;
        assert_eq!((&release["phase"], &release["why"]), (&phase.into(), &"a test".into()), "{release:#}");
    }
    let decisions = control_plane.get(&format!("{path}/decisions?limit=100")).await?;
    let all = decisions["decisions"].as_array().context("a list")?;
    let actions: Vec<&str> =
        all.iter().rev().filter_map(|of| of["action"].as_str()).filter(|of| *of != "note").collect();
    assert_eq!(
        actions.first_chunk(),
        Some(&["create", "start", "pause", "resume", "abort"]),
        "{decisions:#}"
    );
    let id = all[0]["id"].as_str().context("ids are texts")?;
    assert_eq!(control_plane.get(&format!("/v1/decisions/{id}")).await?, all[0]);
    let (status, _) = send(&control_plane, Method::DELETE, path, "").await?;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(send(&control_plane, Method::GET, path, "").await?.0, StatusCode::NOT_FOUND);
    control_plane.stop()
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason_and_changes_nothing() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let (status, answer) = send(&control_plane, Method::PUT, "/v1/releases/first", RELEASE).await?;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    wait_for(&control_plane, "/v1/releases/first", "running").await?;
    let before = control_plane.get("/v1/releases").await?;
    let revision = control_plane.get("/v1/revisions").await?["current"].clone();
    let changed = |from: &str, to: &str| RELEASE.replace(from, to);
    let layered = |range: &str| format!("{RELEASE}layer: models\nrange: {range}\n");
    for (method, path, body, wanted, reason) in [
        (Method::PUT, "second", "version: v1\n".to_owned(), 422, "ruleset"),
        (Method::PUT, "second", format!("{RELEASE}name: third\n"), 422, "stored as"),
        (Method::PUT, "second", changed("digits", "letters"), 404, "no ruleset"),
        (Method::PUT, "second", changed("[v2]", "[v9]"), 422, "v9"),
        (Method::PUT, "second", format!("{RELEASE}eligible: user.id > 'x'\n"), 422, "second"),
        (Method::PUT, "second", format!("{RELEASE}layer: other\n"), 422, "other"),
        (Method::PUT, "second", format!("{RELEASE}before: nobody\n"), 422, "nobody"),
        // Everybody is in the first one already.
        (Method::PUT, "second", RELEASE.to_owned(), 422, "first"),
        (Method::PUT, "testers", RELEASE.to_owned(), 422, "testers"),
        (Method::PUT, "first", changed("[v2]", "[v3]"), 409, "keeps"),
        (Method::PUT, "first", format!("{RELEASE}steps: [{{share: 0.02}}]\n"), 409, "steps that were begun"),
        (Method::PUT, "a b", RELEASE.to_owned(), 422, "name"),
        (Method::POST, "first:resume", String::new(), 409, "only a paused release"),
        (Method::POST, "first:approve", String::new(), 409, "waits for no approval"),
        (Method::POST, "first:sing", String::new(), 400, "rollback"),
        (Method::POST, "first:pause", "{\"why\": 1}".to_owned(), 400, "reason"),
        (Method::POST, "second:pause", String::new(), 404, "no release"),
        (Method::POST, "second:validate", RELEASE.to_owned(), 422, "first"),
        (Method::DELETE, "first", String::new(), 409, "abort it"),
        (Method::DELETE, "second", String::new(), 404, "no release"),
        (Method::GET, "first/decisions?before=x", String::new(), 400, "before"),
    ] {
        let path = path.replace(' ', "%20");
        let (status, answer) =
            send(&control_plane, method.clone(), &format!("/v1/releases/{path}"), &body).await?;
        assert_eq!(status.as_u16(), wanted, "{method} {path} {body}: {answer}");
        assert!(answer.contains(reason), "{method} {path} {body}: {answer}");
    }
    let url = format!("http://{}/v1/releases/first", control_plane.rest);
    let client = traffic::client()?;
    for (name, value, wanted) in [
        ("if-match", "\"99\"", StatusCode::PRECONDITION_FAILED),
        ("if-none-match", "*", StatusCode::PRECONDITION_FAILED),
        ("if-match", "\"+1\"", StatusCode::BAD_REQUEST),
        ("if-match", "*", StatusCode::OK),
    ] {
        let answer = client.put(&url).header(name, value).body(RELEASE).send().await?;
        assert_eq!(answer.status(), wanted, "{name}: {value}: {}", answer.text().await?);
    }
    for (method, text, reason) in [
        (Method::DELETE, "", "first"),
        (
            Method::PUT,
            "version: v1\ntargets: {v1: {endpoints: [\"127.0.0.1:1\"]}}\ndefault: v1\nrules: []\n",
            "v2",
        ),
        (Method::PUT, "version: v1\ndefault: v1\nrules: [{name: first, target: v2}]\n", "first"),
    ] {
        let (status, answer) = send(&control_plane, method.clone(), "/v1/rulesets/digits", text).await?;
        assert!(status.is_client_error() && answer.contains(reason), "{method} {text}: {status} {answer}");
    }
    let after = control_plane.get("/v1/releases").await?;
    assert_eq!(
        (&after[0]["phase"], &after[0]["generation"]),
        (&before[0]["phase"], &before[0]["generation"])
    );
    assert_eq!(after.as_array().map(Vec::len), Some(1));
    assert_eq!(control_plane.get("/v1/revisions").await?["current"], revision);
    // A page of another site can send this without asking.
    for (origin, allowed) in [("http://evil.example", false), ("null", false), ("http://127.0.0.1:1", false)]
    {
        let answer = client.post(format!("{url}:pause")).header("origin", origin).body("").send().await?;
        assert_eq!(answer.status() != StatusCode::FORBIDDEN, allowed, "{origin}");
    }
    let (status, answer) =
        send(&control_plane, Method::POST, "/v1/releases/first:pause", "{\"reason\": \"a\\u001bb\"}").await?;
    assert_eq!((status, answer.contains("control characters")), (StatusCode::BAD_REQUEST, true), "{answer}");
    assert_eq!(control_plane.get("/v1/releases/first").await?["phase"], "running");
    let (status, _) = send(&control_plane, Method::POST, "/v1/releases/first:abort", "").await?;
    assert_eq!(status, StatusCode::OK);
    // Of many that exclude each other, and come at the same time, one is taken.
    let names: Vec<String> = (0..8).map(|number| format!("rival-{number}")).collect();
    let paths: Vec<String> = names.iter().map(|name| format!("/v1/releases/{name}")).collect();
    let rivals = paths.iter().map(|path| send(&control_plane, Method::PUT, path, RELEASE));
    let answers = try_join_all(rivals).await?;
    let taken: Vec<&String> = paths
        .iter()
        .zip(&answers)
        .filter(|(_, (status, _))| *status == StatusCode::CREATED)
        .map(|of| of.0)
        .collect();
    let [taken] = taken.as_slice() else { anyhow::bail!("{answers:#?}") };
    let (status, _) = send(&control_plane, Method::POST, &format!("{taken}:abort"), "").await?;
    assert_eq!(status, StatusCode::OK);
    // Beside one another in a layer they fit.
    for (name, range) in [("left", "[0, 0.5]"), ("right", "[0.5, 1]")] {
        let (status, answer) =
            send(&control_plane, Method::PUT, &format!("/v1/releases/{name}"), &layered(range)).await?;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        wait_for(&control_plane, &format!("/v1/releases/{name}"), "running").await?;
    }
    let (status, answer) =
        send(&control_plane, Method::PUT, "/v1/releases/both", &layered("[0.4, 0.6]")).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    control_plane.stop()
}
