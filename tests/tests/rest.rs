//! The REST API of the real control plane: every bad input gets a clear answer and changes nothing.

use anyhow::Result;
use halftone_tests::{ControlPlane, Paths, command, traffic::client};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const RULESET: &str = "version: v1\ntargets:\n  v1: {endpoints: [\"127.0.0.1:8001\"]}\n  v2: {endpoints: [\"127.0.0.1:8002\"]}\ndefault: v1\nrules:\n  - {name: canary, weight: 0.1, target: v2}\n";

async fn start() -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    Ok((ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?, folder))
}

#[tokio::test]
async fn a_ruleset_lives_through_its_life() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let url = "/v1/rulesets/digits";
    assert_eq!(control_plane.request(Method::GET, url, "").await?.status(), StatusCode::NOT_FOUND);
    let created = control_plane.request(Method::PUT, url, RULESET).await?;
    assert_eq!((created.status(), created.headers()["etag"].to_str()?), (StatusCode::CREATED, "\"1\""));
    let again = control_plane.request(Method::PUT, url, RULESET).await?;
    assert_eq!(
        (again.status(), again.headers()["etag"].to_str()?),
        (StatusCode::OK, "\"1\""),
        "nothing changed"
    );
    assert_eq!(again.json::<Value>().await?["changed"], false);
    let read = control_plane.request(Method::GET, url, "").await?;
    assert_eq!(read.headers()["content-type"], "application/yaml");
    assert_eq!(read.text().await?, RULESET);
    let json = r#"{"version": "v1", "rules": [{"name": "all", "target": "v2"}]}"#;
    assert_eq!(control_plane.request(Method::PUT, url, json).await?.status(), StatusCode::OK);
    assert_eq!(
        control_plane.request(Method::GET, url, "").await?.headers()["content-type"],
        "application/json"
    );
    let listed = control_plane.get("/v1/rulesets").await?;
    assert_eq!((&listed[0]["name"], &listed[0]["revision"]), (&Value::from("digits"), &Value::from(2)));

    // A restart goes on at the same revision with the same rulesets.
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(control_plane.get("/v1/rulesets").await?, listed);
    assert_eq!(control_plane.request(Method::DELETE, url, "").await?.status(), StatusCode::OK);
    assert_eq!(control_plane.request(Method::DELETE, url, "").await?.status(), StatusCode::NOT_FOUND);
    let revisions = control_plane.get("/v1/revisions").await?;
    assert_eq!(revisions["current"], 3);
    let actions: Vec<(u64, &str)> = revisions["revisions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| (r["revision"].as_u64().unwrap_or(0), r["action"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(actions, [(3, "delete"), (2, "put"), (1, "put")]);
    assert_eq!(control_plane.get("/v1/revisions?before=3&limit=1").await?["revisions"][0]["revision"], 2);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(control_plane.request(Method::GET, path, "").await?.status(), StatusCode::OK);
    }
    control_plane.stop()
}

#[tokio::test]
async fn bad_input_gets_a_clear_answer_and_changes_nothing() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    control_plane.put("digits", RULESET).await?;
    let rule = |rule: &str| RULESET.replace("{name: canary, weight: 0.1, target: v2}", rule);
    let cases: Vec<(Vec<u8>, u16, &str, u64, u64)> = vec![
        (b"version: v1\nrules: [".to_vec(), 422, "E0101", 2, 9),
        (b"version: v1\nrules: []\n\0".to_vec(), 422, "E0101", 3, 1),
        (RULESET.replace("rules:", "rulez: 1\nrules:").into(), 422, "E0201", 6, 1),
        (rule("{name: a, target: v2}\n  - {name: a, target: v1}").into(), 422, "E0205", 8, 12),
        (rule("{name: a, weight: 1.5, target: v2}").into(), 422, "E0206", 7, 23),
        (rule("{name: a, weight: .nan, target: v2}").into(), 422, "E0206", 7, 23),
        (rule("{name: a, target: v9}").into(), 422, "E0207", 7, 23),
        (rule("{name: a, condition: user.id == 'x', target: v2}").into(), 422, "E0305", 7, 26),
    ];
    for (body, status, code, line, column) in cases {
        let text = String::from_utf8_lossy(&body).into_owned();
        for (method, path) in
            [(Method::PUT, "/v1/rulesets/digits"), (Method::POST, "/v1/rulesets/digits:validate")]
        {
            let response = control_plane.request(method, path, body.clone()).await?;
            assert_eq!(response.status().as_u16(), status, "{text}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let problem: Value = response.json().await?;
            let first = &problem["errors"][0];
            assert_eq!(
                (first["code"].as_str(), first["line"].as_u64(), first["column"].as_u64()),
                (Some(code), Some(line), Some(column)),
                "{text}: {problem}"
            );
            assert!(problem["rendered"].as_str().is_some_and(|rendered| rendered.contains('^')), "{problem}");
        }
    }
    let problem = control_plane
        .request(Method::PUT, "/v1/rulesets/digits", RULESET.replace("rules:", "rulez: 1\nrules:"))
        .await?
        .json::<Value>()
        .await?;
    assert_eq!(problem["errors"][0]["help"], "did you mean `rules`?");

    let too_large = "#".repeat((4 << 20) + 1);
    for (method, path, body, status) in [
        (Method::PUT, "/v1/rulesets/digits", too_large.clone().into_bytes(), 413),
        (Method::POST, "/v1/rulesets/digits:validate", too_large.into_bytes(), 413),
        (Method::PUT, "/v1/rulesets/digits", b"\xff\xfe".to_vec(), 400),
        (Method::PUT, "/v1/rulesets/a%20b", RULESET.into(), 422),
        (Method::PUT, "/v1/rulesets/other", RULESET.into(), 409),
        (Method::PATCH, "/v1/rulesets/digits", vec![], 405),
        (Method::POST, "/v1/rulesets/digits", vec![], 405),
        (Method::GET, "/v1/nothing", vec![], 404),
        (Method::PUT, "/v1/rulesets/%ff", RULESET.into(), 400),
        (Method::GET, "/v1/revisions?limit=x", vec![], 400),
        (Method::GET, "/v1/revisions?limt=1", vec![], 400),
        (Method::PUT, "/v1/rulesets/digits?wait=working", RULESET.replace("0.1", "0.2").into(), 400),
        (Method::PUT, "/v1/rulesets/digits?wait=acked&timeout=5", RULESET.replace("0.1", "0.2").into(), 400),
        (Method::DELETE, "/v1/rulesets/digits?timeout=5s", vec![], 400),
        (Method::DELETE, "/v1/rulesets/digits?wiat=acked", vec![], 400),
    ] {
        let response = control_plane.request(method.clone(), path, body).await?;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
        let problem: Value = response.json().await?;
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
    // As `curl -d @file` sends it.
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (text, joined) in [(RULESET.replace('\n', ""), true), (rule("{name: a, target: v9}"), false)] {
        let url = format!("http://{}/v1/rulesets/digits", control_plane.rest);
        let problem = client()?.put(url).header(form.0, form.1).body(text).send().await?.text().await?;
        assert_eq!(problem.contains("--data-binary"), joined, "{problem}");
    }
    let checked = control_plane.request(Method::POST, "/v1/rulesets/digits:validate", RULESET).await?;
    assert_eq!(checked.status(), StatusCode::OK);
    for path in ["/v1/rulesets", "/v1/rulesets/nothing"] {
        let answer = control_plane.request(Method::GET, path, "").await?.text().await?;
        assert!(
            answer.ends_with("}\n") || answer.ends_with("]\n"),
            "{path} answers without a newline at the end"
        );
    }
    assert_eq!(control_plane.get("/v1/revisions").await?["current"], 1, "something was changed");
    Ok(())
}

/// Anybody may have a ruleset checked; that must not take the machine away from those who publish one.
#[tokio::test]
async fn too_many_checks_are_turned_away() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let rules = (0..4_000)
        .map(|n| format!("  - {{name: r{n}, condition: 'a.b == {n} && a.c != \"{n}\"', target: v2}}\n"));
    let text =
        format!("version: v1\nmatch: {{path_prefixes: [/large]}}\nrules:\n{}", rules.collect::<String>());
    let (client, url) = (client()?, format!("http://{}/v1/rulesets/large:validate", control_plane.rest));
    let check = || client.post(&url).body(text.clone()).send();
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        checks.spawn(check());
    }
    let published = control_plane.request(Method::PUT, "/v1/rulesets/digits", RULESET).await?;
    assert_eq!(published.status(), StatusCode::CREATED);
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    while let Some(response) = checks.join_next().await {
        let response = response??;
        *counts.entry(response.status().as_u16()).or_default() += 1;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(response.headers()["retry-after"], "1");
            assert_eq!(response.json::<Value>().await?["type"], "urn:halftone:problem:busy");
        }
    }
    let (good, busy) = (counts.get(&200).copied().unwrap_or(0), counts.get(&503).copied().unwrap_or(0));
    assert!(good >= 32 && busy > 0 && good + busy == 100, "{counts:?}");
    assert_eq!(check().await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn waiting_for_nobody_takes_no_time() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let answer =
        control_plane.request(Method::PUT, "/v1/rulesets/digits?wait=acked&timeout=60s", RULESET).await?;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let fleet = answer.json::<Value>().await?["fleet"].take();
    let nobody = json!({
        "revision": 1, "proxies": 0, "acked": 0, "applied": 0, "nacked": 0, "pending": 0, "behind": [],
    });
    assert_eq!(fleet, nobody);
    Ok(())
}

#[tokio::test]
async fn a_change_can_be_made_conditional() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let url = format!("http://{}/v1/rulesets/digits", control_plane.rest);
    let client = client()?;
    let put = |header: &'static str, tag: &'static str, body: String| {
        client.put(&url).header(header, tag).body(body).send()
    };
    assert_eq!(put("if-match", "*", RULESET.into()).await?.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(put("if-none-match", "*", RULESET.into()).await?.status(), StatusCode::CREATED);
    assert_eq!(put("if-none-match", "*", RULESET.into()).await?.status(), StatusCode::PRECONDITION_FAILED);
    let wider = RULESET.replace("0.1", "0.2");
    assert_eq!(put("if-match", "\"1\"", wider.clone()).await?.status(), StatusCode::OK);
    assert_eq!(put("if-match", "\"1\"", RULESET.into()).await?.status(), StatusCode::PRECONDITION_FAILED);
    for malformed in ["W/\"2\"", "\"+2\"", "\"02\"", "2"] {
        assert_eq!(
            put("if-match", malformed, RULESET.into()).await?.status(),
            StatusCode::BAD_REQUEST,
            "{malformed}"
        );
    }
    let known = |tag: &'static str| client.get(&url).header("if-none-match", tag).send();
    assert_eq!(known("\"2\"").await?.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(known("\"1\"").await?.status(), StatusCode::OK);
    // A page in a browser that made its own name resolve to this machine.
    let rebound = client.put(&url).header("host", "evil.example").body(RULESET).send().await?;
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(client.get(&url).send().await?.text().await?, wider);
    Ok(())
}

#[tokio::test]
async fn beyond_loopback_a_change_needs_the_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let paths = Paths::find()?;
    let serve = |extra: &[&str]| {
        let mut command = command(&paths.halftone);
        command.args(["serve", "--xds", "127.0.0.1:0", "--data"]).arg(folder.path()).args(extra);
        command.arg("--filter").arg(&paths.filter);
        command
    };
    let refused = serve(&["--rest", "0.0.0.0:0"]).output()?;
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr)?;
    assert!(message.contains("give a token with --token-file"), "{message}");

    // The folder belongs to one control plane at a time.
    let first = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let data = folder.path().join("data");
    let data = data.to_str().unwrap_or_default();
    let second = command(&paths.halftone)
        .args(["serve", "--rest", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--data", data, "--filter"])
        .arg(&paths.filter)
        .output()?;
    let message = String::from_utf8(second.stderr)?;
    assert!(
        !second.status.success() && message.contains("another control plane runs on the folder"),
        "{message}"
    );
    first.stop()?;

    let token = folder.path().join("token");
    std::fs::write(&token, "short\n")?;
    let token_file = token.to_str().unwrap_or_default().to_owned();
    let refused = serve(&["--rest", "127.0.0.1:0", "--token-file", &token_file]).output()?;
    assert!(String::from_utf8(refused.stderr)?.contains("shorter than 16 characters"));

    std::fs::write(&token, "0123456789abcdef0123\n")?;
    let ready = folder.path().join("ready");
    let ready_file = ready.to_str().unwrap_or_default().to_owned();
    let command = serve(&["--rest", "127.0.0.1:0", "--token-file", &token_file, "--ready-file", &ready_file]);
    let mut process = halftone_tests::Process::start("control-plane", command, folder.path())?;
    let ready =
        process.wait_until(Duration::from_secs(30), async || std::fs::read_to_string(&ready).ok()).await?;
    let ready: Value = serde_json::from_str(&ready)?;
    let url = format!("http://{}/v1/rulesets/digits", ready["rest"].as_str().unwrap_or_default());
    let client = client()?;
    for wrong in
        [None, Some("Bearer "), Some("Bearer 0123456789abcdef012"), Some("Basic 0123456789abcdef0123")]
    {
        let mut request = client.put(&url).body(RULESET);
        if let Some(wrong) = wrong {
            request = request.header("authorization", wrong);
        }
        assert_eq!(request.send().await?.status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    assert_eq!(client.get(&url).send().await?.status(), StatusCode::NOT_FOUND, "reading is free");
    let checked = client.post(format!("{url}:validate")).body(RULESET).send().await?;
    assert_eq!(checked.status(), StatusCode::OK, "checking changes nothing");
    assert_eq!(client.get(&url).send().await?.status(), StatusCode::NOT_FOUND);
    for (right, status) in [("Bearer", StatusCode::CREATED), ("bearer", StatusCode::OK)] {
        let token = format!("{right} 0123456789abcdef0123");
        let put = client.put(&url).header("authorization", token).body(RULESET).send().await?;
        assert_eq!(put.status(), status, "{right}");
    }
    assert_eq!(client.delete(&url).send().await?.status(), StatusCode::UNAUTHORIZED);
    assert!(!process.log().contains("0123456789abcdef"), "the token is in the log");
    process.stop()
}

#[test]
fn what_is_wrong_with_the_store_is_said_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("halftone.db"), "no database, but text, and enough of it".repeat(99))?;
    let paths = Paths::find()?;
    let mut serve = command(&paths.halftone);
    serve.args(["serve", "--rest", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--data"]).arg(folder.path());
    let output = serve.output()?;
    let message = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert_eq!(message.matches("not a database").count(), 1, "{message}");
    Ok(())
}
