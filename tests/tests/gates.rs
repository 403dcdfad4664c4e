//! Gates of the real control plane: other programs can hold a release, and can never keep a bad one.

use anyhow::{Context, Result, bail, ensure};
use halftone_proto::v1::observations_client::ObservationsClient;
use halftone_tests::{
    Conduct, ControlPlane, Hearing, Paths,
    observed::{Request, batch, now_ms, series},
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::Channel;

/// How long a thing may take that takes some seconds. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

const RULESET: &str = "version: v1\ntargets:\n  v1: {endpoints: [\"127.0.0.1:8001\"]}\n  v2: {endpoints: [\"127.0.0.1:8002\"]}\ndefault: v1\nrules: []\n";
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\ngates: [calendar]\n\
    steps:\n- {share: 0.1, hold: {for: 0s, units: 20}}\n- {share: 0.5, hold: {for: 0s, units: 20}}\n\
    metrics: {error: {kind: event, role: guardrail, ceiling: 0.2}}\npolicy: {cycle_s: 1, look_every_s: 1}\n";

/// A control plane with one gate, and a release that asks it.
struct Held {
    control_plane: ControlPlane,
    gate: Hearing,
    batches: u64,
    units: u64,
    _folder: TempDir,
}

impl Held {
    async fn start(conduct: Conduct, more: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let gate = Hearing::start(conduct).await?;
        std::fs::write(folder.path().join("secret"), "a secret of some length")?;
        let file = folder.path().join("hooks.toml");
        std::fs::write(&file, gate.entry("gate", "calendar") + "again_ms = 200\n" + more)?;
        let mut paths = Paths::find()?;
        paths.serve_flags.extend(["--hooks".into(), file.into()]);
        let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
        control_plane.put("digits", RULESET).await?;
        let put = control_plane.request(Method::PUT, "/v1/releases/canary", RELEASE).await?;
        ensure!(put.status() == StatusCode::CREATED, "{}", put.text().await?);
        let held = Self { control_plane, gate, batches: 0, units: 0, _folder: folder };
        held.is("running", |release| release["phase"] == "running").await?;
        Ok(held)
    }

    async fn release(&self) -> Result<Value> {
        self.control_plane.get("/v1/releases/canary").await
    }

    /// Waits until the release is so.
    async fn is(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let release = self.release().await?;
            if fits(&release) {
                return Ok(release);
            }
            if start.elapsed() > SOON {
                let records = self.control_plane.get("/v1/releases/canary/decisions").await?;
                bail!("it is not {what}: {release:#}\n{records:#}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn waits_for(&self, what: &str) -> Result<Value> {
        self.is(what, |release| release["waits_for"]["what"] == what).await
    }

    /// Reports requests of new units, by the shares of the step; those of the candidate fail if it is broken.
    async fn observe(&mut self, broken: bool) -> Result<()> {
        let release = self.release().await?;
        let epoch = release["epochs"].as_array().and_then(|epochs| epochs.last()).context("an epoch")?;
        let (number, share) =
            (epoch["epoch"].as_u64().context("a number")?, epoch["shares"]["candidate"].as_f64());
        let candidate = 400;
        let rest = if share.context("a share")? > 0.4 { 0 } else { 8 * candidate };
        let mut arms = Vec::new();
        for (arm, count) in [("v2", candidate), ("control", candidate), ("rest", rest)] {
            let units = self.units..self.units + count;
            self.units = units.end;
            let latency = (!broken || arm != "v2").then_some(0.01);
            let request =
                |i: u64| Request { unit: i.wrapping_mul(0x9E37_79B9_7F4A_7C15), time_ms: now_ms(), latency };
            arms.push(series(number, arm, &units.map(request).collect::<Vec<_>>()));
        }
        self.batches += 1;
        let channel = Channel::from_shared(format!("http://{}", self.control_plane.xds))?.connect().await?;
        let mut client = ObservationsClient::new(channel);
        client.report(batch(1, self.batches, arms)).await?;
        Ok(())
    }

    async fn notes(&self) -> Result<Vec<String>> {
        let page = self.control_plane.get("/v1/releases/canary/decisions?limit=500").await?;
        let records = page["decisions"].as_array().context("a list")?.iter();
        let notes = records.filter(|record| record["action"] == "note" && record.get("judged").is_none());
        Ok(notes.filter_map(|record| Some(record["why"].as_str()?.to_owned())).collect())
    }
}

#[tokio::test]
async fn a_gate_holds_a_step_until_it_lets_it_go_on() -> Result<()> {
    let mut held = Held::start(Conduct::Answers(200, r#"{"allow": false, "reason": "freeze"}"#), "").await?;
    held.observe(false).await?;
    let no = "the gate calendar said no: freeze";
    let release = held.waits_for(no).await?;
    assert_eq!((&release["phase"], &release["step"]), (&"running".into(), &1.into()));
    let heard = held.gate.hears(|heard| heard.len() >= 3).await?;
    assert!(heard.iter().all(|again| again.id == heard[0].id), "one question: {heard:?}");
    let asked = heard[0].json()?;
    for (field, wanted) in [
        ("release", Value::from("canary")),
        ("candidate", "v2".into()),
        ("action", "widen".into()),
        ("step", 1.into()),
        ("share", 0.5.into()),
    ] {
        assert_eq!(asked[field], wanted, "{asked:#}");
    }
    assert!(asked["verdict"].as_str().is_some_and(|verdict| !verdict.is_empty()), "{asked:#}");
    assert!(heard[0].signature.starts_with("v1,"), "{heard:?}");
    assert_eq!(held.notes().await?, [no], "it is noted once");
    assert_eq!(held.release().await?["step"], 1);

    // What cannot be understood is no yes.
    for (status, body, failed) in [
        (500, r#"{"allow": true}"#, "it answered 500 Internal Server Error"),
        (302, r#"{"allow": true}"#, "it answered 302 Found"),
        (200, "yes", "its answer is not {\"allow\": true} or {\"allow\": false, \"reason\": \"…\"}"),
    ] {
        held.gate.does(Conduct::Answers(status, body));
        held.waits_for(&format!("the gate calendar failed: {failed}")).await?;
    }
    assert_eq!(held.release().await?["step"], 1);
    held.gate.does(Conduct::Answers(200, r#"{"allow": true}"#));
    held.is("at step 2", |release| release["step"] == 2).await?;

    // The proposal of the judge is asked about too.
    held.gate.does(Conduct::Answers(200, r#"{"allow": false}"#));
    held.observe(false).await?;
    held.waits_for("the gate calendar said no: without a reason").await?;
    let asked = held.gate.heard().last().context("a question")?.json()?;
    assert_eq!((&asked["action"], &asked["step"]), (&"propose".into(), &2.into()), "{asked:#}");
    held.gate.does(Conduct::Answers(200, r#"{"allow": true}"#));
    held.is("a candidate", |release| release["phase"] == "candidate").await?;
    let before = held.gate.heard().len();
    let approved = held.control_plane.request(Method::POST, "/v1/releases/canary:approve", "").await?;
    ensure!(approved.status().is_success(), "{}", approved.text().await?);
    held.is("promoted", |release| release["phase"] == "promoted").await?;
    assert_eq!(held.gate.heard().len(), before, "a person asks no gate");
    Ok(())
}

#[tokio::test]
async fn a_gate_that_hangs_keeps_no_bad_candidate() -> Result<()> {
    let mut held = Held::start(Conduct::Silent, "timeout_ms = 600000\n").await?;
    held.observe(false).await?;
    held.gate.hears(|heard| !heard.is_empty()).await?;
    held.waits_for("the answer of its gates: calendar").await?;
    held.observe(true).await?;
    let release = held.is("rolled back", |release| release["phase"] == "rolled_back").await?;
    assert_eq!(release["step"], 1);
    assert_eq!(held.gate.heard().len(), 1, "the one question that it never answered");
    // An answer that comes late brings nothing back.
    held.gate.does(Conduct::Answers(200, r#"{"allow": true}"#));
    held.is("safe", |release| release["waits_for"].is_null()).await?;
    assert_eq!(held.release().await?["phase"], "rolled_back");
    Ok(())
}

#[tokio::test]
async fn a_gate_that_is_silent_holds_and_is_asked_again_after_a_crash() -> Result<()> {
    let mut held = Held::start(Conduct::Silent, "timeout_ms = 300\n").await?;
    held.observe(false).await?;
    held.waits_for("the gate calendar failed: it did not answer in time").await?;
    held.control_plane = held.control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(held.release().await?["step"], 1);
    // Nothing goes on by what was heard before the start.
    held.observe(false).await?;
    let before = held.gate.heard().len();
    held.gate.hears(|heard| heard.len() > before).await?;
    held.gate.does(Conduct::Answers(200, r#"{"allow": true}"#));
    held.is("at step 2", |release| release["step"] == 2).await?;
    Ok(())
}

#[tokio::test]
async fn a_release_names_only_gates_that_there_are() -> Result<()> {
    let held = Held::start(Conduct::Silent, "").await?;
    let other = RELEASE.replace("calendar", "weather");
    for (method, path) in [(Method::PUT, "/v1/releases/other"), (Method::POST, "/v1/releases/other:validate")]
    {
        let refused = held.control_plane.request(method, path, other.clone()).await?;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: Value = refused.json().await?;
        assert_eq!(problem["detail"], "line 5, column 9: there is no gate `weather`", "{problem:#}");
        assert!(
            problem["rendered"].as_str().is_some_and(|text| text.contains("there are calendar")),
            "{problem:#}"
        );
    }
    Ok(())
}
