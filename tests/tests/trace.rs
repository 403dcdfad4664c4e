//! "Why did this user get v2?", answered by a trace id: through real Envoy, filter, backends and control plane, after rules
//! have changed, and after crashes.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{
        EvaluationContext, ObservationBatch, Participation, Reason, TracedRequest,
        observations_client::ObservationsClient, traced_request::Answer,
    },
};
use halftone_rules::bucket::Seed;
use halftone_tests::{
    Backend, ControlPlane, Edge, EdgeOptions, Paths, Stack, command, digits,
    observed::{batch, now_ms},
    stderr, stdout, traffic,
    wire::{Client, Message},
};
use prost::Message as _;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};
use tonic::transport::Channel;

/// How long a thing may take that takes a second. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(60);
const RULESET: &str = "digits";
/// The rule of most tests.
const CANARY: &str =
    "default: v1\nrules:\n  - name: canary\n    condition: user.id > 100\n    weight: 0.3\n    target: v2\n";

/// Runs `halftone trace`.
fn trace(of: &ControlPlane, arguments: &[&str]) -> Result<Output> {
    let server = format!("http://{}", of.rest);
    let mut command = command(&Paths::find()?.halftone);
    Ok(command.arg("trace").args(arguments).args(["--server", &server]).output()?)
}

/// What it prints when all is well.
#[track_caller]
fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output)
}

/// Why it fails.
#[track_caller]
fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    stderr(output)
}

/// What is known of an id, once so many requests are.
async fn known(of: &ControlPlane, id: &str, requests: usize) -> Result<Value> {
    let start = Instant::now();
    loop {
        let answer = of.request(Method::GET, &format!("/v1/traces/{id}"), "").await?;
        let known: Value = answer.json().await?;
        if known["requests"].as_array().map(Vec::len) == Some(requests) {
            return Ok(known);
        }
        ensure!(start.elapsed() < SOON, "{known:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A `traceparent` of this trace and span.
fn parent(trace: u128, span: u64, sampled: bool) -> String {
    format!("00-{trace:032x}-{span:016x}-0{}", u8::from(sampled))
}

/// A user's digit over REST: the target, and the trace that the response names.
async fn ask(stack: &Stack, user: u64, traceparent: Option<&str>) -> Result<(String, String)> {
    let digit = &digits::test_set()?[0];
    let mut headers = HeaderMap::new();
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent.parse()?);
    }
    let request = traffic::client()?.post(stack.envoys[0].infer_url()).header("x-user-id", user);
    let answer = request.headers(headers).body(digit.request.clone()).send().await?.error_for_status()?;
    let header = |name: &str| -> Result<String> {
        Ok(answer.headers().get(name).with_context(|| format!("no {name}"))?.to_str()?.to_owned())
    };
    Ok((header("x-halftone-target")?, header("x-halftone-trace")?))
}

async fn channel(to: SocketAddr) -> Result<Channel> {
    Ok(Channel::from_shared(format!("http://{to}"))?.connect().await?)
}

/// The same over gRPC: the code, and the trace that the response names.
async fn ask_by_grpc(stack: &Stack, user: u64, traceparent: &str) -> Result<String> {
    let mut client = GrpcInferenceServiceClient::new(channel(stack.envoys[0].address).await?);
    let input = InferInputTensor {
        name: "pixels".into(),
        datatype: "FP32".into(),
        shape: vec![1, 64],
        ..InferInputTensor::default()
    };
    let pixels = vec![0u8; 64 * 4];
    let message = ModelInferRequest {
        model_name: "digits".into(),
        inputs: vec![input],
        raw_input_contents: vec![pixels.into()],
        ..ModelInferRequest::default()
    };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-user-id", user.to_string().parse()?);
    request.metadata_mut().insert("traceparent", traceparent.parse()?);
    let answer = client.model_infer(request).await?;
    Ok(answer.metadata().get("x-halftone-trace").context("no trace")?.to_str()?.to_owned())
}

/// The first user above 100 whom a target takes, and its bucket.
fn user_of(share: std::ops::Range<u32>) -> Result<(u64, u32)> {
    let buckets = Seed::of_rule(RULESET, "canary").ready();
    let mut users = (101..10_000u64).map(|user| (user, buckets.bucket(user.to_string().as_bytes())));
    users.find(|(_, bucket)| share.contains(bucket)).context("no such user")
}

/// For clients that speak HTTP/1.1 and gRPC alike.
fn targets(stack: &Stack) -> String {
    stack.targets().replace("]}", "], protocol: same-as-client}")
}

#[tokio::test]
async fn a_trace_tells_why_after_the_rules_have_changed_and_gone() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    stack.publish("before", "version: v1\nmatch: {hosts: [elsewhere.test]}\nrules: []\n").await?;
    let rules = format!("version: v1\n{}{CANARY}", targets(&stack));
    let revision = stack.control_plane()?.apply(RULESET, rules.clone(), 1, 1).await?;
    let (canary, bucket) = user_of(0..300_000)?;
    let (other, _) = user_of(300_000..1_000_000)?;

    // A trace of the client's, over REST and over gRPC; one that the filter began; and one that is not sampled.
    let id = format!("{:032x}", 0x4711);
    let rest = ask(&stack, canary, Some(&parent(0x4711, 0xa, true))).await?;
    assert_eq!(rest, ("v2".to_owned(), id.clone()));
    assert_eq!(ask_by_grpc(&stack, canary, &parent(0x4711, 0xb, true)).await?, id);
    assert_eq!(ask(&stack, other, Some(&parent(0x4711, 0xc, true))).await?.0, "v1");
    let (target, begun) = ask(&stack, canary, None).await?;
    assert_eq!(target, "v2");
    let unsampled = format!("{:032x}", 0x4712);
    assert_eq!(ask(&stack, canary, Some(&parent(0x4712, 0xd, false))).await?.1, unsampled);

    let control_plane = stack.control_plane()?;
    let of_trace = known(control_plane, &id, 3).await?;
    let all = of_trace["requests"].as_array().context("requests")?;
    let spans: Vec<&str> = all.iter().filter_map(|of| of["evaluation_id"].as_str()).collect();
    assert_eq!(spans, ["000000000000000a", "000000000000000b", "000000000000000c"], "the oldest first");
    for (of, status, code) in
        [(&all[0], Value::from(200), Value::Null), (&all[1], Value::Null, Value::from(0))]
    {
        assert_eq!((&of["http_status"], &of["grpc_code"]), (&status, &code));
        assert_eq!((&of["model"], &of["version"]), (&"digits".into(), &"2".into()));
        let decision = &of["decision"];
        assert_eq!((&decision["rule"], &decision["bucket"]), (&"canary".into(), &bucket.into()));
        assert_eq!((&decision["revision"], &decision["reason"]), (&revision.into(), &"SPLIT".into()));
        assert!(decision["at_ms"].as_u64().is_some_and(|at| at.abs_diff(now_ms()) < 3_600_000));
        assert!(of["duration_us"].as_u64().is_some_and(|us| us > 0));
        let sentence = format!(
            "rule `canary`: its condition held, and bucket {bucket} of 1000000 is below its share of 30 % (0 to 299999)"
        );
        assert_eq!(of["why"]["sentence"], sentence);
        assert_eq!(of["why"]["buckets"]["share"], 0.3);
    }
    let sentence = "the rule `canary` did not take it (its condition did not hold, or the unit is not in its share of 30 %), so it goes to \
                    the default target `v1`";
    assert_eq!(all[2]["why"]["sentence"], sentence);
    assert_eq!(known(control_plane, &begun, 1).await?["requests"][0]["decision"]["target"], "v2");
    assert_eq!(known(control_plane, "000000000000000b", 1).await?["requests"][0], all[1]);

    let before = told(&trace(control_plane, &[&id])?);
    for part in [
        format!("trace {id}: 3 requests"),
        format!("digits → v2: revision {revision}, rule canary, bucket {bucket}"),
        format!("line 7 of the ruleset, as revision {revision} (put by 127.0.0.1, "),
        "\n    name: canary\n    condition: user.id > 100\n    weight: 0.3\n    target: v2\n".to_owned(),
        "answered by digits:2 with 200, output ".to_owned(),
        "answered by digits:2 with code 0 of gRPC, output ".to_owned(),
    ] {
        assert!(before.contains(&part), "{part}\n{before}");
    }
    let as_json = ["--format", "json"];
    assert_eq!(told(&trace(control_plane, &[&parent(0x4711, 0x77, true)])?), before, "a whole traceparent");
    let json = told(&trace(control_plane, &[&id.to_uppercase(), as_json[0], as_json[1]])?);
    assert_eq!(serde_json::from_str::<Value>(&json)?, of_trace);

    // What is not sampled is in the log alone. Why, the control plane knows.
    let missing = failed(&trace(control_plane, &[&unsampled])?);
    assert!(missing.contains("its trace was sampled") && missing.contains("--from-log"), "{missing}");
    let log = stack.folder().join("backend-v2.log");
    let log = log.to_str().context("a path")?;
    let logged = told(&trace(control_plane, &[&unsampled, "--from-log", log])?);
    assert!(logged.contains("is below its share of 30 % (0 to 299999)"), "{logged}");
    assert!(
        logged.contains("rule canary") && logged.contains("answered by digits:2 with 200, output "),
        "{logged}"
    );
    assert!(logged.contains(", evaluation 000000000000000d, 20"), "{logged}");
    let nobody = failed(&trace(control_plane, &[&"7".repeat(32), "--from-log", log])?);
    assert!(nobody.contains("is about trace 7777"), "{nobody}");

    // Other rules, none, and a restart: the answers stay, to the last byte.
    control_plane.put(RULESET, rules.replace("0.3", "0.01").replace("canary", "trial")).await?;
    let gone = control_plane.request(Method::DELETE, &format!("/v1/rulesets/{RULESET}"), "").await?;
    ensure!(gone.status().is_success(), "{}", gone.status());
    assert_eq!(told(&trace(control_plane, &[&id])?), before);
    let control_plane = stack.take_control_plane()?.crash_and_restart(Duration::ZERO).await?;
    assert_eq!(told(&trace(&control_plane, &[&id])?), before);
    assert_eq!(told(&trace(&control_plane, &[&unsampled, "--from-log", log])?), logged);

    // A store that knows nothing of that revision says so, and makes nothing up.
    let data = stack.folder().join("data");
    let crashed = control_plane.crash()?;
    for name in ["halftone.db", "halftone.db-wal", "halftone.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    let control_plane = crashed.start_again().await?;
    let lost = told(&trace(&control_plane, &[&id])?);
    assert!(lost.contains(&format!("revision {revision} is not known: the store")), "{lost}");
    assert!(!lost.contains("is below its share") && lost.contains(&format!("bucket {bucket}")), "{lost}");
    // Nor when another history has reached that number.
    for number in 0..revision {
        control_plane.put(RULESET, format!("version: v1\nrules: []\n# {number}\n")).await?;
    }
    let lost = told(&trace(&control_plane, &[&id])?);
    let misfit = format!(
        "this does not follow from revision {revision} of this store: the ruleset had no rule `canary` then"
    );
    assert!(lost.contains(&misfit), "{lost}");
    control_plane.stop()
}

#[tokio::test]
async fn a_releases_arm_is_told_with_its_epoch_and_the_decision_that_began_it() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    let rules = format!("version: v1\n{}default: v1\nrules: []\n", stack.targets());
    let control_plane = stack.control_plane()?;
    control_plane.put(RULESET, rules).await?;
    let text = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\neligible: user.id > 100\n\
                steps: [{share: 0.4, hold: {for: 1h}}]\nmetrics: {error: {kind: event, role: guardrail}}\n";
    control_plane.put_release("canary", text).await?;
    let running = control_plane.wait_for_release("canary", SOON, |of| of["phase"] == "running").await?;
    let epoch = running["epochs"][0]["epoch"].as_u64().context("an epoch")?;
    control_plane.wait_until_applied(epoch, 1, 1).await?;
    let (candidate, bucket) = user_of(0..400_000)?;
    let (control, _) = user_of(600_000..1_000_000)?;
    assert_eq!(ask(&stack, candidate, Some(&parent(1, 1, true))).await?.0, "v2");
    assert_eq!(ask(&stack, control, Some(&parent(1, 2, true))).await?.0, "v1");
    assert_eq!(ask(&stack, 7, Some(&parent(1, 3, true))).await?.0, "v1");
    let id = format!("{:032x}", 1);
    let all = known(control_plane, &id, 3).await?;
    let of = |request: usize| &all["requests"][request]["why"];
    let sentence = format!(
        "release `canary`: its condition held, and bucket {bucket} of 1000000 is below the share of its arm `v2` of 40 % (0 to 399999)"
    );
    assert_eq!(of(0)["sentence"], sentence);
    assert!(
        of(1)["sentence"]
            .as_str()
            .is_some_and(|of| of.ends_with("the share of its arm `control` of 40 % (600000 to 999999)")),
        "{all:#}"
    );
    assert_eq!(
        of(2)["sentence"],
        "the release `canary` did not take it (its condition did not hold), so it goes to the default target `v1`"
    );
    let release = &of(0)["release"];
    assert_eq!(
        (&release["allocation"]["epoch"], &release["allocation"]["share"]),
        (&epoch.into(), &0.4.into())
    );
    assert_eq!(
        (&release["began"]["revision"], &release["began"]["action"]),
        (&epoch.into(), &"release".into())
    );
    let decisions = control_plane.decisions("canary").await?;
    let started = decisions.iter().find(|of| of["action"] == "start").context("no start")?;
    assert_eq!((&release["decision"]["id"], &release["decision"]["to"]), (&started["id"], &"running".into()));
    let told_before = told(&trace(control_plane, &[&id])?);
    let id_of_record = started["id"].as_str().context("an id")?;
    let by = format!("by decision {id_of_record} of release canary: start (running, step 1) by ");
    assert!(
        told_before.contains(&by) && told_before.contains(&format!("its epoch {epoch} began")),
        "{told_before}"
    );

    // An upload begins an epoch, too: by no decision, and the one before is named.
    let rules = format!(
        "version: v1\n{}default: v1\nrules: [{{name: nobody, condition: user.id < 0, target: v2}}]\n",
        stack.targets()
    );
    let uploaded = control_plane.put(RULESET, rules).await?;
    control_plane.wait_until_applied(uploaded, 1, 1).await?;
    assert_eq!(ask(&stack, candidate, Some(&parent(2, 4, true))).await?.0, "v2");
    let of_upload = known(control_plane, &format!("{:032x}", 2), 1).await?;
    let release = &of_upload["requests"][0]["why"]["release"];
    assert_eq!(
        (&release["began"]["revision"], &release["began"]["action"]),
        (&uploaded.into(), &"put".into())
    );
    assert_eq!(release["decision"]["id"], started["id"]);
    let of_upload = told(&trace(control_plane, &["0000000000000004"])?);
    let by = format!(
        "not by a decision: the ruleset was changed; the last one before: decision {id_of_record} of release canary"
    );
    assert!(of_upload.contains(&by), "{of_upload}");

    // So does another release of the ruleset that is tried before: by a decision of that one, until it is deleted.
    let text = text.replace("eligible: user.id > 100", "eligible: user.id < 0\nbefore: nobody");
    control_plane.put_release("first", &text).await?;
    let first = control_plane.wait_for_release("first", SOON, |of| of["phase"] == "running").await?;
    let revision = first["epochs"][0]["epoch"].as_u64().context("an epoch")?;
    control_plane.wait_until_applied(revision, 1, 1).await?;
    assert_eq!(ask(&stack, candidate, Some(&parent(3, 5, true))).await?.0, "v2");
    let of_first = known(control_plane, &format!("{:032x}", 3), 1).await?;
    let release = &of_first["requests"][0]["why"]["release"];
    assert_eq!(
        (&release["allocation"]["epoch"], &release["decision"]["revision"]),
        (&revision.into(), &revision.into())
    );
    let of_first = told(&trace(control_plane, &["0000000000000005"])?);
    assert!(of_first.contains("of release first: start (running, step 1) by controller"), "{of_first}");
    assert_eq!(control_plane.command("first", "abort").await?.0, 200);
    let gone = control_plane.request(Method::DELETE, "/v1/releases/first", "").await?;
    ensure!(gone.status().is_success(), "{}", gone.status());
    let of_first = told(&trace(control_plane, &["0000000000000005"])?);
    let by = format!(
        "by a decision that is not known any more; the last one before: decision {id_of_record} of release canary"
    );
    assert!(of_first.contains(&by), "{of_first}");

    // Rolled back it is explained as before; once it is deleted, so are its records, and that is said.
    assert_eq!(control_plane.command("canary", "abort").await?.0, 200);
    assert_eq!(told(&trace(control_plane, &[&id])?), told_before);
    let gone = control_plane.request(Method::DELETE, "/v1/releases/canary", "").await?;
    ensure!(gone.status().is_success(), "{}", gone.status());
    let after = known(control_plane, &id, 3).await?;
    assert_eq!(after["requests"][0]["why"]["sentence"], sentence);
    assert_eq!(after["requests"][0]["why"]["release"]["decision"], Value::Null);
    let after = told(&trace(control_plane, &[&id])?);
    assert!(
        after.contains("no decision is known that led to it: the release was deleted with its records"),
        "{after}"
    );
    Ok(())
}

/// Whether a batch waits that has these bytes.
fn waits(spool: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(spool).into_iter().flatten().flatten();
    let batches = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "batch"));
    let mut texts = batches.filter_map(|file| std::fs::read(file.path()).ok());
    texts.any(|text| text.windows(bytes.len()).any(|part| part == bytes))
}

#[tokio::test]
async fn what_a_killed_backend_had_not_reported_arrives_once() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 2, 1, 1).await?;
    let rules = format!("version: v1\n{}{CANARY}", targets(&stack));
    stack.control_plane()?.apply(RULESET, rules, 1, 1).await?;
    let (user, _) = user_of(0..300_000)?;
    let crashed = stack.take_control_plane()?.crash()?;
    // Envoy goes on with the rules that it has.
    assert_eq!(ask(&stack, user, Some(&parent(0xbeef, 0xf00d, true))).await?.0, "v2");
    let spool = stack.folder().join("spool-2");
    let start = Instant::now();
    while !waits(&spool, &0xbeef_u128.to_be_bytes()) {
        ensure!(start.elapsed() < SOON, "it was not written down");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let backend = stack.backends.pop().context("a backend")?;
    backend.kill()?;
    let control_plane = crashed.start_again().await?;
    assert!(
        failed(&trace(&control_plane, &["000000000000f00d"])?).contains("about a second after the answer")
    );
    stack.backends.push(Backend::start(stack.paths(), stack.folder(), 2, 0).await?);
    known(&control_plane, "000000000000f00d", 1).await?;
    while waits(&spool, &[]) {
        ensure!(start.elapsed() < SOON, "it is sent again and again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all = known(&control_plane, &format!("{:032x}", 0xbeef), 1).await?;
    assert_eq!(all["requests"][0]["decision"]["rule"], "canary");
    control_plane.stop()
}

#[tokio::test]
async fn envoys_log_tells_what_no_backend_reported() -> Result<()> {
    let log = tempfile::tempdir()?;
    let log = log.path().join("access.log");
    let file = log.to_str().context("a path")?.to_owned();
    let edge =
        Edge::start(EdgeOptions { bootstrap: &["--access-log", &file], ..EdgeOptions::default() }).await?;
    let rules = "default: v1\noverrides: [{units: [\"7\"], target: v2}, {units: [\"9\"], rule: even}]\nrules:\n- {name: even, condition: user.id % 2 == 0, target: v2}\n";
    let revision = edge.publish(RULESET, &edge.targets(), rules).await?;
    let mut client = Client::Http1(edge.envoy.address, None);
    for (user, span) in [("2", 1), ("7", 2), ("9", 3)] {
        let parent = parent(9, span, true);
        let headers: [(&str, &[u8]); 2] =
            [("x-user-id", user.as_bytes()), ("traceparent", parent.as_bytes())];
        client.send(&Message::get("/v2/models/digits", &headers)).await?.seen()?;
    }
    // Envoy writes what it holds back when it ends.
    let Edge { envoy, control_plane, .. } = edge;
    drop(envoy);
    let id = format!("{:032x}", 9);
    let output = told(&trace(&control_plane, &[&id, "--from-log", &file])?);
    for part in [
        "trace 00000000000000000000000000000009: 3 requests".to_owned(),
        format!("digits → v2: revision {revision}, rule even, TARGETING_MATCH\n"),
        "why: rule `even`: its condition held, and it takes every such request\n".to_owned(),
        // The log does not say who it was, so nothing more is said.
        "why: either an override names the unit and gives it the target `v2`, or an override token of the request demanded the target \
         `v2`: whose request it was is not told, so it cannot be said which\n"
            .to_owned(),
        "why: an override names the unit and gives it the rule `even`\n".to_owned(),
    ] {
        assert!(output.contains(&part), "{part}\n{output}");
    }

    // A line that is damaged hides no other one.
    let damaged = format!(
        "{{\"traceparent\":\"{}\",\"halftone\":\"rev\n{}",
        parent(9, 4, true),
        std::fs::read_to_string(&file)?
    );
    std::fs::write(&file, damaged)?;
    let read = trace(&control_plane, &[&id, "--from-log", &file])?;
    let first = format!("halftone: {file}: line 1 could not be read: it is no JSON object\n");
    assert_eq!(stderr(&read), first);
    assert!(told(&read).contains(": 3 requests"));
    // What has no lines is no log, and a name is not obeyed.
    let endless = failed(&trace(&control_plane, &[&id, "--from-log", "/dev/zero"])?);
    assert!(endless.contains("/dev/zero: it cannot be read: a line has more than"), "{endless}");
    let folder = failed(&trace(&control_plane, &[&id, "--from-log", "/"])?);
    assert!(folder.starts_with("halftone: /: it cannot be read: "), "{folder}");
    let odd = failed(&trace(&control_plane, &[&id, "--from-log", "no\u{1b}[2J\nfile"])?);
    assert!(odd.starts_with("halftone: no\\u{1b}[2J\\nfile cannot be read"), "{odd}");
    control_plane.stop()
}

/// A batch of requests that were traced.
fn traced(sequence: u64, requests: Vec<TracedRequest>) -> ObservationBatch {
    ObservationBatch { traced: requests, ..batch(1, sequence, Vec::new()) }
}

/// One of them.
fn request(trace: u128, span: u64, evaluation: Option<EvaluationContext>) -> TracedRequest {
    TracedRequest {
        trace_id: trace.to_be_bytes().into(),
        parent_id: span.to_be_bytes().into(),
        evaluation,
        begun_ms: now_ms(),
        duration_us: 1_234,
        answer: Some(Answer::HttpStatus(200)),
        model: "digits".into(),
        version: "2".into(),
        output_hash: Some(7),
    }
}

#[tokio::test]
async fn the_newest_are_kept_and_what_is_no_id_or_no_request_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let paths = Paths { serve_flags: vec!["--keep-traces=11".into()], ..Paths::find()? };
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    let rules = "version: v1\ntargets: {v1: {endpoints: [\"127.0.0.1:1\"]}, v2: {endpoints: [\"127.0.0.1:2\"]}}\ndefault: v1\nholdout: 0.1\nrules: []\n";
    let revision = control_plane.put(RULESET, rules).await?;
    let mut client = ObservationsClient::new(channel(control_plane.xds).await?);
    let decided = EvaluationContext {
        ruleset: RULESET.into(),
        revision,
        target: "v1".into(),
        reason: Reason::Default.into(),
        held_out: true,
        ..EvaluationContext::default()
    };
    // Seven, the same again, and seven more in two batches.
    for (sequence, spans) in [(1, 1..8), (1, 1..8), (2, 8..12), (3, 12..15)] {
        let requests = spans.map(|span| request(5, span, Some(decided.clone())));
        client.report(traced(sequence, requests.collect())).await?;
    }
    let odd = Participation { experiment: "\u{1b}[2J".into(), arm: "a".into() };
    let odd = EvaluationContext { experiments: vec![odd], ..decided.clone() };
    let of_no_model = TracedRequest {
        model: String::new(),
        version: String::new(),
        answer: Some(Answer::HttpStatus(404)),
        duration_us: 0,
        output_hash: None,
        // A header without a word in it.
        ..request(6, 99, Some(EvaluationContext::default()))
    };
    client.report(traced(4, vec![of_no_model, request(6, 98, Some(odd))])).await?;
    let id = format!("{:032x}", 5);
    let known_spans = async |of: &ControlPlane| -> Result<Vec<String>> {
        let all = known(of, &id, 9).await?;
        let all = all["requests"].as_array().context("requests")?.clone();
        Ok(all.iter().map(|of| of["evaluation_id"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let newest: Vec<String> = (6..15).map(|span| format!("{span:016x}")).collect();
    assert_eq!(known_spans(&control_plane).await?, newest);
    let too_old = failed(&trace(&control_plane, &[&format!("{:016x}", 5)])?);
    assert!(too_old.contains("it is among the newest 11 (`halftone serve --keep-traces`)"), "{too_old}");
    let text = told(&trace(&control_plane, &[&id])?);
    assert!(text.contains("the unit is among the 10 % that are held out of every rule"), "{text}");
    let undecided = told(&trace(&control_plane, &[&format!("{:016x}", 99)])?);
    assert!(
        undecided.contains("nothing was decided for it: it did not pass through the filter"),
        "{undecided}"
    );
    assert!(undecided.contains("answered, as no model was found, with 404; begun 20"), "{undecided}");
    assert!(!undecided.contains("took"), "{undecided}");
    let odd = told(&trace(&control_plane, &[&format!("{:016x}", 98)])?);
    let misfit =
        format!("this does not follow from revision {revision} of this store: the ruleset had no experiment");
    assert!(odd.contains(&misfit), "{odd}");
    assert!(odd.contains(r"experiment \u{1b}[2J") && !odd.contains('\u{1b}'), "{odd}");

    // Refused, with the place, and nothing has changed.
    type Lie = (fn(&mut TracedRequest), &'static str);
    let lies: [Lie; 5] = [
        (|of| of.trace_id = vec![1; 15], "traced[1]: `trace_id` has to be 16 bytes, not all of them 0"),
        (|of| of.trace_id = vec![0; 16], "traced[1]: `trace_id` has to be 16 bytes, not all of them 0"),
        (|of| of.parent_id = vec![1; 9], "traced[1]: `parent_id` has to be 8 bytes, not all of them 0"),
        (|of| of.model = "a\nb".into(), "traced[1]: `model` has a control character"),
        (
            |of| {
                of.evaluation =
                    Some(EvaluationContext { rule: "x".repeat(9_000), ..EvaluationContext::default() });
            },
            "the most are 8192",
        ),
    ];
    for (lie, say) in lies {
        let mut lying = request(5, 77, None);
        lie(&mut lying);
        let status = client.report(traced(5, vec![request(5, 76, None), lying])).await.expect_err(say);
        assert!(status.message().contains(say), "{say}: {status}");
    }
    assert_eq!(known_spans(&control_plane).await?, newest);

    // What is no id.
    for bad in
        ["7", "00f067aa0ba902bg", &"0".repeat(16), &"0".repeat(32), &"a".repeat(33), &parent(0, 6, true)]
    {
        let answer = control_plane.request(Method::GET, &format!("/v1/traces/{bad}"), "").await?;
        assert_eq!(answer.status().as_u16(), 400, "{bad}");
        let problem: Value = answer.json().await?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("32 hexadecimal digits (a trace), 16 (an evaluation)"), "{detail}");
        let output = trace(&control_plane, &[bad])?;
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(stderr(&output).contains("32 hexadecimal digits"), "{}", stderr(&output));
    }
    for (query, say) in [
        ("", "context"),
        ("?context=", "`context` is no value of the header x-halftone-context: it names no ruleset"),
        ("?context=!", "x-halftone-context"),
        ("?context=&x=1", "unknown field"),
    ] {
        let answer = control_plane.request(Method::GET, &format!("/v1/explanations{query}"), "").await?;
        assert_eq!(answer.status().as_u16(), 400, "{query}");
        assert!(answer.text().await?.contains(say), "{query}");
    }

    // What the rules could not have decided is said to be that, and no rule is shown as if it had.
    let rules = "version: v1\nmatch: {hosts: [other.test]}\ntargets: {v1: {endpoints: [\"127.0.0.1:1\"]}, v2: {endpoints: \
                 [\"127.0.0.1:2\"]}}\ndefault: v1\nrules: [{name: all, condition: user.id > 1, target: v2}]\n";
    let revision = control_plane.put("other", rules).await?;
    let decided = EvaluationContext {
        timestamp_ms: now_ms(),
        ruleset: "other".into(),
        revision,
        rule: "all".into(),
        target: "v2".into(),
        unit_hash: 7,
        reason: Reason::TargetingMatch.into(),
        ..EvaluationContext::default()
    };
    let split = EvaluationContext { reason: Reason::Split.into(), ..decided.clone() };
    let early = EvaluationContext { timestamp_ms: now_ms() - 3_600_000, ..decided.clone() };
    for (decided, sentence, is_shown) in [
        (decided, "rule `all`: its condition held, and it takes every such request", true),
        (split, "the reason of such a decision is TARGETING_MATCH", false),
        (early, "it was decided more than ten minutes before that ruleset was there", false),
    ] {
        let context = URL_SAFE_NO_PAD.encode(decided.encode_to_vec());
        let path = format!("/v1/explanations?context={context}");
        let known: Value = control_plane.request(Method::GET, &path, "").await?.json().await?;
        let why = &known["why"];
        assert!(why["sentence"].as_str().is_some_and(|told| told.contains(sentence)), "{known:#}");
        assert_eq!(why["rule"]["line"].is_number(), is_shown, "{known:#}");
        assert_eq!(why["ruleset"]["revision"], revision);
    }

    // With less room, the oldest go at the next start.
    let paths = Paths { serve_flags: vec!["--keep-traces=4".into()], ..paths };
    control_plane.stop()?;
    let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
    known(&control_plane, &id, 2).await?;
    control_plane.stop()
}

/// A trace may have been decided by a hundred large rulesets: what one answer compiles is bounded, and each is explained by itself.
#[tokio::test]
async fn an_answer_compiles_no_more_than_so_many_large_rulesets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
    let targets = "targets: {v1: {endpoints: [\"127.0.0.1:1\"]}}\n";
    let mut traced_requests = Vec::new();
    for number in 1..=6 {
        let large = format!("# {number}{}\n", "x".repeat(3 << 20));
        let rules = format!("version: v1\n{targets}default: v1\nholdout: 0.{number}\nrules: []\n{large}");
        let decided = EvaluationContext {
            timestamp_ms: now_ms(),
            ruleset: RULESET.into(),
            revision: control_plane.put(RULESET, rules).await?,
            target: "v1".into(),
            reason: Reason::Default.into(),
            unit_hash: 7,
            held_out: true,
            ..EvaluationContext::default()
        };
        traced_requests.push(request(5, number, Some(decided)));
    }
    let mut client = ObservationsClient::new(channel(control_plane.xds).await?);
    client.report(traced(1, traced_requests)).await?;
    let sentences = async |id: &str, requests| -> Result<Vec<String>> {
        let all = known(&control_plane, id, requests).await?;
        let all = all["requests"].as_array().context("requests")?.clone();
        Ok(all.iter().map(|of| of["why"]["sentence"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let all = sentences(&format!("{:032x}", 5), 6).await?;
    let (explained, others) = all.split_at(2);
    assert!(explained.iter().all(|told| told.contains("that are held out of every rule")), "{all:?}");
    assert!(others.iter().all(|told| told.contains("ask for the evaluation by itself")), "{all:?}");
    let last = sentences(&format!("{:016x}", 6), 1).await?;
    assert!(last[0].contains("the unit is among the 60 % that are held out"), "{last:?}");
    control_plane.stop()
}
