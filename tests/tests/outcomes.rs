//! Outcomes, over REST to a real `halftone serve`: what was acknowledged counts once, whatever happens.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{EvaluationContext, observations_client::ObservationsClient};
use halftone_tests::{
    ControlPlane, Paths, disk,
    observed::{Request, batch, now_ms, series},
    traffic,
};
use prost::Message;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::transport::Channel;

const RELEASE: &str = "/v1/observations?ruleset=digits&release=canary";
const JSON: &str = "application/json";
const MANY: &str = "application/x-ndjson";

async fn start(paths: Paths) -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    Ok((ControlPlane::start(&paths, folder.path(), 0, 0).await?, folder))
}

async fn post(rest: SocketAddr, kind: &str, body: impl Into<reqwest::Body>) -> Result<Response> {
    let request = traffic::client()?.post(format!("http://{rest}/v1/outcomes"));
    Ok(request.header("content-type", kind).body(body).send().await?)
}

fn outcome(id: impl ToString + Copy) -> Value {
    json!({
        "id": id.to_string(), "ruleset": "digits", "release": "canary", "metric": "click", "value": true,
        "unit": id.to_string(), "time": now_ms(),
    })
}

fn lines(outcomes: &[Value]) -> String {
    outcomes.iter().map(|outcome| format!("{outcome}\n")).collect()
}

async fn answers(response: Response) -> Result<Vec<Value>> {
    let text = response.text().await?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test]
async fn an_outcome_sent_again_is_answered_as_the_first_time() -> Result<()> {
    let (control_plane, _folder) = start(Paths::find()?).await?;
    let rest = control_plane.rest;
    let sound = outcome("a");
    let first = post(rest, JSON, sound.to_string()).await?;
    assert_eq!(first.status(), StatusCode::CREATED);
    let first: Value = first.json().await?;
    assert_eq!(
        (&first["repeated"], &first["value"], &first["eval_version"]),
        (&false.into(), &1.0.into(), &1.into())
    );
    let record: u64 = first["record"].as_str().context("records are text")?.parse()?;
    ensure!(record > 1 << 53, "{record}");
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    let again = post(rest, JSON, sound.to_string()).await?;
    assert_eq!(again.status(), StatusCode::OK);
    let again: Value = again.json().await?;
    let mut expected = first.clone();
    expected["repeated"] = true.into();
    assert_eq!(again, expected);
    let mut other = sound.clone();
    other["value"] = 0.into();
    let other = post(rest, JSON, other.to_string()).await?;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let other: Value = other.json().await?;
    assert_eq!((&other["stored"]["record"], &other["stored"]["value"]), (&first["record"], &1.0.into()));

    // By the header, and by what the filter said of the request.
    let context = EvaluationContext {
        ruleset: "digits".to_owned(),
        rule: "canary".to_owned(),
        arm: "control".to_owned(),
        unit_hash: 7,
        ..EvaluationContext::default()
    };
    let evaluation = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
    let body =
        json!({"metric": "label", "value": 0.5, "time": "2026-01-01T00:00:00Z", "evaluation": evaluation});
    let by_header = |body: &Value| {
        let request =
            traffic::client()?.post(format!("http://{rest}/v1/outcomes")).header("content-type", JSON);
        anyhow::Ok(request.header("idempotency-key", "\"b\"").body(body.to_string()).send())
    };
    let old = by_header(&body)?.await?;
    assert_eq!(old.status(), StatusCode::BAD_REQUEST);
    assert!(old.text().await?.contains("--keep-observations"));
    let body = json!({"metric": "label", "value": 0.5, "evaluation": evaluation});
    assert_eq!(by_header(&body)?.await?.status(), StatusCode::CREATED);
    assert_eq!(by_header(&body)?.await?.status(), StatusCode::OK);
    let known = control_plane.get(RELEASE).await?;
    let one = json!({"outcomes": 1, "units": 1});
    assert_eq!(known["outcomes"], json!({"click": one, "label": one}));
    control_plane.stop()
}

#[tokio::test]
async fn of_many_outcomes_each_is_answered_by_itself() -> Result<()> {
    let (control_plane, _folder) = start(Paths::find()?).await?;
    let rest = control_plane.rest;
    let mut nameless = outcome("x");
    nameless["id"] = Value::Null;
    let body = format!("{}\n\n{{\n{nameless}\r\n{}", outcome("a"), lines(&[outcome("b"), outcome("a")]));
    let response = post(rest, &format!("{MANY}; charset=utf-8"), body).await?;
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::MULTI_STATUS, &MANY.parse()?)
    );
    let answers = answers(response).await?;
    let told: Vec<_> =
        answers.iter().map(|answer| (answer["index"].as_u64(), answer["status"].as_u64())).collect();
    let expected = [(0, 201), (2, 400), (3, 400), (4, 201), (5, 200)];
    assert_eq!(told, expected.map(|(index, status)| (Some(index), Some(status))));
    assert_eq!((&answers[4]["record"], &answers[4]["repeated"]), (&answers[0]["record"], &true.into()));
    assert!(answers[2]["message"].as_str().context("why")?.contains("`id` is missing"));
    let all_well = post(rest, MANY, lines(&[outcome("c")])).await?;
    assert_eq!(all_well.status(), StatusCode::OK);
    assert_eq!(control_plane.get(RELEASE).await?["outcomes"]["click"], json!({"outcomes": 3, "units": 3}));
    control_plane.stop()
}

#[tokio::test]
async fn what_is_no_outcome_is_refused_and_changes_nothing() -> Result<()> {
    let (control_plane, _folder) = start(Paths::find()?).await?;
    let rest = control_plane.rest;
    let with = |field: &str, value: Value| {
        let mut changed = outcome("a");
        changed[field] = value;
        changed.to_string()
    };
    let hour = 3_600_000;
    for (kind, body, status, say) in [
        (JSON, with("value", Value::Null), 400, "`value`"),
        (JSON, r#"{"id": "a", "metric": "m", "value": NaN}"#.to_owned(), 400, "line 1 column"),
        (JSON, with("when", 5.into()), 400, "unknown field `when`"),
        (JSON, with("time", (now_ms() + hour).into()), 400, "in the future"),
        (JSON, with("time", 0.into()), 400, "--keep-observations"),
        (JSON, with("id", "x".repeat(129).into()), 400, "129 bytes"),
        (JSON, with("metric", "x".repeat(513).into()), 400, "513 bytes"),
        (JSON, with("evaluation", "AA".into()), 400, "`evaluation`"),
        (JSON, "x".repeat((64 << 10) + 1), 413, "an outcome has at most"),
        (MANY, "\n".repeat((16 << 20) + 1), 413, "at most 16777216 bytes"),
        (MANY, "{\n".repeat(200_001), 413, "more than 200000 lines"),
        (MANY, "\n \n".to_owned(), 400, "no outcome in it"),
        ("text/plain", outcome("a").to_string(), 415, "application/x-ndjson"),
    ] {
        let answer = post(rest, kind, body).await?;
        assert_eq!(answer.status().as_u16(), status, "{say}");
        let text = answer.text().await?;
        assert!(text.contains(say), "{say}: {text}");
    }
    let get = control_plane.request(reqwest::Method::GET, "/v1/outcomes", "").await?;
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    let nothing = control_plane.request(reqwest::Method::GET, RELEASE, "").await?;
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
    control_plane.stop()
}

#[tokio::test]
async fn with_a_token_only_who_brings_it_sends_outcomes_and_operators_see_them() -> Result<()> {
    const TOKEN: &str = "a-secret-of-some-length";
    let files = tempfile::tempdir()?;
    let token = files.path().join("token");
    std::fs::write(&token, TOKEN)?;
    let serve_flags = vec!["--token-file".into(), token.into(), "--admin".into(), "127.0.0.1:0".into()];
    let (control_plane, folder) = start(Paths { serve_flags, ..Paths::find()? }).await?;
    let client = traffic::client()?;
    let sound = outcome("a").to_string();
    let send = async |token: Option<&str>| {
        let mut request = client.post(format!("http://{}/v1/outcomes", control_plane.rest));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let request = request.header("content-type", JSON).body(sound.clone());
        anyhow::Ok(request.send().await?.status())
    };
    assert_eq!(send(None).await?, StatusCode::UNAUTHORIZED);
    assert_eq!(send(Some("another-secret-of-some-length")).await?, StatusCode::UNAUTHORIZED);
    assert_eq!(send(Some(TOKEN)).await?, StatusCode::CREATED);
    assert_eq!(send(Some(TOKEN)).await?, StatusCode::OK);
    let ready: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("control-plane.ready"))?)?;
    let admin = ready["admin"].as_str().context("no address of --admin")?;
    let metrics = client.get(format!("http://{admin}/metrics")).send().await?.text().await?;
    for line in [
        "halftone_ledger_outcomes_total{result=\"taken\"} 1",
        "halftone_ledger_outcomes_total{result=\"repeated\"} 1",
        "halftone_ledger_held_outcomes 1",
        "halftone_clock_went_back_total 0",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line}: {metrics}");
    }
    control_plane.stop()
}

/// A client that sends chunks of outcomes until all are acknowledged, and every chunk again when it is not certain.
struct Sender {
    chunks: Vec<Vec<Value>>,
    acknowledged: watch::Sender<usize>,
}

impl Sender {
    /// The answer is the record of each outcome.
    async fn send(self, rest: SocketAddr) -> BTreeMap<String, String> {
        let mut records = BTreeMap::new();
        for (sent, chunk) in (1..).zip(&self.chunks) {
            // The second time, in part of cases, after it was acknowledged.
            for _ in 0..=usize::from(sent % 3 == 0) {
                let answers = loop {
                    match self.once(rest, chunk).await {
                        Ok(answers) if answers.len() == chunk.len() => break answers,
                        _ => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                };
                for (outcome, answer) in chunk.iter().zip(answers) {
                    assert!(matches!(answer["status"].as_u64(), Some(200 | 201)), "{answer}");
                    let (id, record) = (outcome["id"].as_str(), answer["record"].as_str());
                    let (Some(id), Some(record)) = (id, record) else { panic!("{answer}") };
                    let former = records.insert(id.to_owned(), record.to_owned());
                    assert!(former.is_none_or(|former| former == record), "{id}: another record");
                }
            }
            self.acknowledged.send_replace(sent);
        }
        records
    }

    async fn once(&self, rest: SocketAddr, chunk: &[Value]) -> Result<Vec<Value>> {
        let response = post(rest, MANY, lines(chunk)).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        answers(response).await
    }
}

#[tokio::test]
async fn killed_again_and_again_it_has_each_acknowledged_outcome_once() -> Result<()> {
    const KILLS: usize = 20;
    const CHUNKS: usize = 3 * KILLS;
    const EACH: usize = 500;
    let (mut control_plane, _folder) = start(Paths::find()?).await?;
    let rest = control_plane.rest;
    let mut senders = Vec::new();
    for sender in 0..2 {
        // They share half of their outcomes, and the second sends them in another order.
        let first = sender * CHUNKS / 2 * EACH;
        let mut chunks: Vec<Vec<Value>> = (first..first + CHUNKS * EACH)
            .map(|id| json!({"id": id.to_string(), "ruleset": "digits", "release": "canary", "metric": "click", "value": 1, "unit": id.to_string()}))
            .collect::<Vec<_>>()
            .chunks(EACH)
            .map(<[Value]>::to_vec)
            .collect();
        if sender == 1 {
            chunks.reverse();
        }
        let (acknowledged, progress) = watch::channel(0);
        senders.push((tokio::spawn(Sender { chunks, acknowledged }.send(rest)), progress));
    }
    let mut random = 4_711u64;
    for kill in 1..=KILLS {
        for (_, progress) in &mut senders {
            progress.wait_for(|acknowledged| *acknowledged >= 2 * kill).await.context("a sender gave up")?;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_micros(random >> 50)).await;
        control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    }
    let mut records = BTreeMap::new();
    for (sending, _) in senders {
        for (id, record) in sending.await? {
            let former = records.insert(id, record.clone());
            assert!(former.is_none_or(|former| former == record), "both clients are told the same");
        }
    }
    let all = CHUNKS * EACH * 3 / 2;
    assert_eq!(records.len(), all);
    let distinct: std::collections::BTreeSet<_> = records.values().collect();
    assert_eq!(distinct.len(), all, "no id was made twice");
    let counts = json!({"outcomes": all, "units": all});
    assert_eq!(control_plane.get(RELEASE).await?["outcomes"]["click"], counts);
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(control_plane.get(RELEASE).await?["outcomes"]["click"], counts);
    control_plane.stop()
}

#[tokio::test]
async fn without_room_no_outcome_is_taken_and_none_is_lost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let paths = Paths { serve_launcher: disk::limitable(), ..Paths::find()? };
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let (rest, pid) = (control_plane.rest, control_plane.process().pid());
    let some = |from: usize| lines(&(from..from + 2_000).map(outcome).collect::<Vec<_>>());
    assert_eq!(post(rest, MANY, some(0)).await?.status(), StatusCode::OK);
    let before = control_plane.get(RELEASE).await?;
    disk::limit(pid, Some(std::fs::metadata(folder.path().join("data/ledger.db-wal"))?.len()))?;
    let full = post(rest, MANY, some(2_000)).await?;
    assert_eq!(full.status(), StatusCode::MULTI_STATUS);
    let told = answers(full).await?;
    assert!(told.iter().all(|line| matches!(line["status"].as_u64(), Some(503 | 507))), "{:?}", told.first());
    assert!(told[0]["message"].as_str().context("why")?.contains("nothing was taken"));
    assert_eq!(control_plane.get(RELEASE).await?, before);
    disk::limit(pid, None)?;
    assert_eq!(post(rest, MANY, some(2_000)).await?.status(), StatusCode::OK, "without a restart");
    let control_plane = control_plane.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(control_plane.get(RELEASE).await?["outcomes"]["click"]["outcomes"], 4_000);
    control_plane.stop()
}

#[tokio::test]
async fn outcomes_before_and_after_their_units_are_of_one_release() -> Result<()> {
    let (control_plane, _folder) = start(Paths::find()?).await?;
    let rest = control_plane.rest;
    assert_eq!(post(rest, JSON, outcome("early").to_string()).await?.status(), StatusCode::CREATED);
    let channel = Channel::from_shared(format!("http://{}", control_plane.xds))?.connect().await?;
    let mut backend = ObservationsClient::new(channel);
    let requests = [Request { unit: 7, time_ms: now_ms(), latency: Some(0.1) }];
    backend.report(batch(1, 1, vec![series(1, "control", &requests)])).await?;
    assert_eq!(post(rest, JSON, outcome("late").to_string()).await?.status(), StatusCode::CREATED);
    let known = control_plane.get(RELEASE).await?;
    assert_eq!(known["epochs"][0]["arms"]["control"]["units"], 1);
    assert_eq!(known["outcomes"]["click"], json!({"outcomes": 2, "units": 2}));
    control_plane.stop()
}
