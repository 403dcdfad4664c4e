//! Inputs that the client does not send: from what the filter decided, and from a service, which is a real one here.

use crate::{
    onnx,
    process::{Running, log_lines},
    remote::free_address,
    support::{Answer, Options, Server},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_inference::queue::BatchLimits;
use halftone_proto::{
    inference::{InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor},
    v1::EvaluationContext,
};
use nix::sys::signal::Signal;
use ort::value::TensorElementType as T;
use prost::Message;
use serde_json::{Value, json};
use std::{
    fs,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const HOUR: u64 = 3_600_000;

/// A repository of the model `m`, which gives back what it gets: `x`, the `tier` and three numbers of `history`.
fn model() -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    let batch = &["batch"][..];
    let rows = &["batch", "3"][..];
    let inputs = [("x", T::Float32, batch), ("tier", T::Int32, batch), ("history", T::Float32, rows)];
    let outputs =
        [("x_out", T::Float32, batch), ("tier_out", T::Int32, batch), ("history_out", T::Float32, rows)];
    let nodes: [onnx::Node<'_>; 3] = [
        ("Identity", &["x"], &["x_out"]),
        ("Identity", &["tier"], &["tier_out"]),
        ("Identity", &["history"], &["history_out"]),
    ];
    onnx::write(repository.path(), "m", &inputs, &nodes, &outputs);
    repository
}

fn configure(repository: &TempDir, features: &Value) {
    let config = json!({ "features": features }).to_string();
    fs::write(repository.path().join("m/new"), config).unwrap();
    fs::rename(repository.path().join("m/new"), repository.path().join("m/config.json")).unwrap();
}

/// The tier of an arm, and no history but zeros.
fn by_arm() -> Value {
    json!({ "inputs": {
        "tier": { "from": "context", "attribute": "arm", "map": { "gold": 1, "silver": 2 }, "default": 0 },
        "history": { "from": "context", "attribute": "ruleset", "map": {}, "default": [0, 0, 0] },
    } })
}

/// The history of a unit from a service, as configured besides.
fn by_service(url: &str, service: &Value, input: &Value) -> Value {
    let merged = |mut base: Value, more: &Value| {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    };
    let service = merged(
        json!({ "url": format!("{url}/{{unit_hash}}"), "timeout_ms": 60_000, "ttl_ms": HOUR }),
        service,
    );
    let history = merged(json!({ "from": "service", "service": "profile", "field": "/history" }), input);
    json!({ "services": { "profile": service }, "inputs": {
        "tier": { "from": "context", "attribute": "bucket", "default": 0 },
        "history": history,
    } })
}

fn header(context: &EvaluationContext) -> String {
    URL_SAFE_NO_PAD.encode(context.encode_to_vec())
}

fn arm(arm: &str) -> EvaluationContext {
    EvaluationContext { ruleset: "r".into(), arm: arm.into(), ..EvaluationContext::default() }
}

fn unit(hash: u64) -> EvaluationContext {
    EvaluationContext { ruleset: "r".into(), unit_hash: hash, ..EvaluationContext::default() }
}

async fn serve(repository: &TempDir, options: Options) -> Arc<Server> {
    Arc::new(Server::start(repository.path(), &[], options).await)
}

async fn infer(server: &Server, context: Option<&EvaluationContext>, inputs: Value) -> Answer {
    let header = context.map(header);
    let headers: Vec<_> = header.iter().map(|value| ("x-halftone-context", value.as_str())).collect();
    server.post_with("/v2/models/m/infer", json!({ "inputs": inputs }).to_string(), &headers).await
}

fn x(data: &[f32]) -> Value {
    json!([{ "name": "x", "datatype": "FP32", "shape": [data.len()], "data": data }])
}

async fn tier(server: &Server, context: Option<&EvaluationContext>) -> Vec<Value> {
    infer(server, context, x(&[5.0])).await.output("tier_out").clone()
}

async fn history(server: &Server, hash: u64) -> Answer {
    infer(server, Some(&unit(hash)), x(&[5.0])).await
}

/// The first number of the history, which is the service's count.
async fn number(server: &Server, hash: u64) -> f64 {
    history(server, hash).await.output("history_out")[0].as_f64().unwrap()
}

async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A service that counts who asks, and answers as it is told.
#[derive(Clone)]
struct Profiles(Arc<Shared>);

struct Shared {
    url: String,
    asked: AtomicUsize,
    units: Mutex<Vec<String>>,
    mode: Mutex<Mode>,
    /// Answers may go out.
    gate: Semaphore,
}

#[derive(Clone)]
enum Mode {
    /// How often it was asked, twice the same, and 3; a version.
    Counts,
    /// This.
    Says(u16, &'static str),
    /// Counts, when the gate is opened.
    Waits,
    Hangs,
}

impl Profiles {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let profiles = Self(Arc::new(Shared {
            url,
            asked: AtomicUsize::new(0),
            units: Mutex::default(),
            mode: Mutex::new(Mode::Counts),
            gate: Semaphore::new(0),
        }));
        let router = Router::new().route("/{unit}", get(answer)).with_state(profiles.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        profiles
    }

    fn set(&self, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(profiles): State<Profiles>, Path(unit): Path<String>) -> Response {
    let number = profiles.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
    profiles.0.units.lock().unwrap().push(unit);
    let mode = profiles.0.mode.lock().unwrap().clone();
    match mode {
        Mode::Counts => {}
        Mode::Says(status, body) => return (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Mode::Waits => profiles.0.gate.acquire().await.unwrap().forget(),
        Mode::Hangs => pending().await,
    }
    Json(json!({ "history": [number, number, 3], "version": 7 })).into_response()
}

#[tokio::test]
async fn a_context_becomes_an_input() {
    let repository = model();
    configure(&repository, &by_arm());
    let server = serve(&repository, Options::default()).await;
    assert_eq!(tier(&server, Some(&arm("gold"))).await, [1]);
    assert_eq!(tier(&server, Some(&arm("silver"))).await, [2]);
    for context in [Some(&arm("bronze")), Some(&arm("")), None] {
        assert_eq!(tier(&server, context).await, [0]);
    }
    // In as many rows as the request has.
    for rows in [0, 3] {
        let answer = infer(&server, Some(&arm("gold")), x(&vec![5.0; rows])).await;
        assert_eq!(answer.output("tier_out"), &vec![json!(1); rows]);
        assert_eq!(answer.output("history_out"), &vec![json!(0.0); rows * 3]);
    }
    let metadata = server.get("/v2/models/m").await.body;
    assert_eq!(metadata["inputs"], json!([{ "name": "x", "datatype": "FP32", "shape": [-1] }]));

    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1],
        contents: Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() }),
        ..Default::default()
    };
    let message = ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-halftone-context", header(&arm("silver")).parse().unwrap());
    let mut client = server.grpc().await;
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.outputs[1].contents.as_ref().unwrap().int_contents, [2]);
    let name = halftone_proto::inference::ModelMetadataRequest { name: "m".into(), ..Default::default() };
    let metadata = client.model_metadata(name).await.unwrap().into_inner();
    assert_eq!((metadata.inputs.len(), metadata.outputs.len()), (1, 3));
}

#[tokio::test]
async fn every_request_of_a_batch_has_its_own() {
    let repository = model();
    configure(&repository, &by_arm());
    let batch = BatchLimits { size: 16, delay: Duration::from_millis(20) };
    let server = serve(&repository, Options { workers: 1, batch, ..Options::default() }).await;
    assert_eq!(server.app.models.find("m", None).unwrap().workers().unwrap().batch().size, 16);
    let answers: Vec<_> = (0..200_usize)
        .map(|index| {
            let server = Arc::clone(&server);
            let (name, expected) = [("gold", 1), ("silver", 2), ("bronze", 0)][index % 3];
            tokio::spawn(async move { (tier(&server, Some(&arm(name))).await, expected) })
        })
        .collect();
    for answer in answers {
        let (got, expected) = answer.await.unwrap();
        assert_eq!(got, [expected]);
    }
}

#[tokio::test]
async fn attributes_are_numbers_and_texts() {
    let repository = tempfile::tempdir().unwrap();
    let one = &["1"][..];
    let inputs =
        [("hash", T::Uint64, one), ("name", T::String, one), ("small", T::Uint8, one), ("e", T::String, one)];
    let outputs = [("h", T::Uint64, one), ("n", T::String, one), ("s", T::Uint8, one), ("o", T::String, one)];
    let nodes: [onnx::Node<'_>; 4] = [
        ("Identity", &["hash"], &["h"]),
        ("Identity", &["name"], &["n"]),
        ("Identity", &["small"], &["s"]),
        ("Identity", &["e"], &["o"]),
    ];
    onnx::write(repository.path(), "m", &inputs, &nodes, &outputs);
    configure(
        &repository,
        &json!({ "inputs": {
            "hash": { "from": "context", "attribute": "unit_hash", "default": 0 },
            "name": { "from": "context", "attribute": "tenant", "default": "nobody" },
            "small": { "from": "context", "attribute": "revision", "default": 255 },
            "e": { "from": "context", "attribute": "experiment:colours", "default": "" },
        } }),
    );
    let server = serve(&repository, Options::default()).await;
    let context = EvaluationContext {
        ruleset: "digits".into(),
        unit_hash: u64::MAX,
        tenant: Some("acmé".into()),
        // More than the input can hold.
        revision: 256,
        experiments: vec![halftone_proto::v1::Participation {
            experiment: "colours".into(),
            arm: "red".into(),
        }],
        ..EvaluationContext::default()
    };
    // Nothing is left that a client could send.
    let answer = infer(&server, Some(&context), json!([])).await;
    assert_eq!(answer.output("h"), &[json!(u64::MAX)]);
    assert_eq!(answer.output("n"), &[json!("acmé")]);
    assert_eq!(answer.output("s"), &[json!(255)]);
    assert_eq!(answer.output("o"), &[json!("red")]);
    assert_eq!(infer(&server, None, json!([])).await.output("n"), &[json!("nobody")]);
}

#[tokio::test]
async fn a_client_sends_a_bound_input_only_when_it_may() {
    let repository = model();
    let mut features = by_arm();
    features["inputs"]["history"]["override"] = true.into();
    configure(&repository, &features);
    let server = serve(&repository, Options::default()).await;
    let mut inputs = x(&[5.0]);
    let history = json!({ "name": "history", "datatype": "FP32", "shape": [1, 3], "data": [7, 8, 9] });
    inputs.as_array_mut().unwrap().push(history);
    let answer = infer(&server, None, inputs.clone()).await;
    assert_eq!(answer.output("history_out"), &[json!(7.0), json!(8.0), json!(9.0)]);
    inputs
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "tier", "datatype": "INT32", "shape": [1], "data": [9] }));
    let refused = infer(&server, None, inputs).await;
    assert_eq!(refused.error(400), r#"input "tier" is bound to something else here; leave it out"#);
}

#[tokio::test]
async fn rows_that_cost_nothing_do_not_become_rows_that_do() {
    let repository = tempfile::tempdir().unwrap();
    let inputs = [("x", T::Float32, &["batch", "m"][..]), ("history", T::Float32, &["batch", "3"][..])];
    let nodes: [onnx::Node<'_>; 1] = [("Identity", &["history"], &["out"])];
    onnx::write(repository.path(), "m", &inputs, &nodes, &[("out", T::Float32, &["batch", "3"])]);
    configure(
        &repository,
        &json!({ "inputs": { "history": { "from": "context", "attribute": "arm", "map": {}, "default": [0, 0, 0] } } }),
    );
    let server = serve(&repository, Options::default()).await;
    for rows in [100_000_i64, 1 << 40, i64::MAX] {
        let x = json!([{ "name": "x", "datatype": "FP32", "shape": [rows, 0], "data": [] }]);
        let refused = infer(&server, None, x).await;
        let problem = r#"too many rows: input "history" would have more than 1048576 bytes"#;
        assert_eq!(refused.error(400), problem, "{rows}");
    }
}

#[tokio::test]
async fn a_service_is_asked_once_for_many_requests() {
    let profiles = Profiles::start().await;
    let repository = model();
    configure(&repository, &by_service(&profiles.0.url, &json!({}), &json!({})));
    let server = serve(&repository, Options::default()).await;
    for _ in 0..5 {
        let answer = history(&server, 0xabc).await;
        assert_eq!(answer.output("history_out"), &[json!(1.0), json!(1.0), json!(3.0)]);
    }
    assert!((number(&server, 0xdef).await - 2.0).abs() < 1e-9);
    assert_eq!(profiles.asked(), 2);
    assert_eq!(*profiles.0.units.lock().unwrap(), ["0000000000000abc", "0000000000000def"]);
    // Nobody to ask about.
    let nobody = infer(&server, None, x(&[5.0])).await;
    let problem = "the request has no unit that it could be asked about";
    assert_eq!(
        nobody.error(503),
        format!(r#"input "history" comes from the service "profile": {problem}; try again later"#)
    );
    assert_eq!(profiles.asked(), 2);
}

#[tokio::test]
async fn many_who_want_the_same_wait_for_one_answer() {
    let profiles = Profiles::start().await;
    profiles.set(Mode::Waits);
    let repository = model();
    configure(&repository, &by_service(&profiles.0.url, &json!({}), &json!({})));
    let server = serve(&repository, Options::default()).await;
    let ask = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move { number(&server, 1).await })
    };
    let first = ask();
    until("the service is asked", async || (profiles.asked() == 1).then_some(())).await;
    let others: Vec<_> = (0..20).map(|_| ask()).collect();
    // Who asked first leaves; the others' answer comes all the same.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    profiles.0.gate.add_permits(100);
    for other in others {
        assert!((other.await.unwrap() - 1.0).abs() < 1e-9);
    }
    assert_eq!(profiles.asked(), 1);
}

#[tokio::test]
async fn an_answer_is_good_for_its_time() {
    let profiles = Profiles::start().await;
    let repository = model();
    configure(&repository, &by_service(&profiles.0.url, &json!({ "ttl_ms": 0 }), &json!({})));
    let server = serve(&repository, Options::default()).await;
    for expected in [1.0, 2.0, 3.0] {
        assert!((number(&server, 1).await - expected).abs() < 1e-9);
    }
    // Stale for an hour: used at once, also while the service hangs, and asked for anew.
    configure(
        &repository,
        &by_service(&profiles.0.url, &json!({ "ttl_ms": 0, "stale_ms": HOUR }), &json!({})),
    );
    let server = serve(&repository, Options::default()).await;
    assert!((number(&server, 1).await - 4.0).abs() < 1e-9);
    profiles.set(Mode::Waits);
    for _ in 0..3 {
        assert!((number(&server, 1).await - 4.0).abs() < 1e-9);
    }
    until("asked once more", async || (profiles.asked() == 5).then_some(())).await;
    profiles.0.gate.add_permits(100);
    until("the new answer", async || ((number(&server, 1).await - 4.0).abs() > 0.5).then_some(())).await;
}

#[tokio::test]
async fn whatever_a_service_says_a_fallback_saves_the_inference() {
    let profiles = Profiles::start().await;
    let breaker = json!({ "consecutive": 1000, "minimum": 1000 });
    // No answer is late unless that is what is meant.
    let patient = json!({ "ttl_ms": 0, "breaker": breaker });
    let impatient = json!({ "timeout_ms": 50, "ttl_ms": 0, "breaker": breaker });
    let (nothing, fallback) = (json!({}), json!({ "fallback": [-1, -2, -3] }));
    let mut servers = Vec::new();
    for (service, input) in
        [(&patient, &fallback), (&patient, &nothing), (&impatient, &fallback), (&impatient, &nothing)]
    {
        let repository = model();
        configure(&repository, &by_service(&profiles.0.url, service, input));
        servers.push((serve(&repository, Options::default()).await, repository));
    }
    for (mode, problem) in [
        (Mode::Says(500, "{}"), "it answered with status 500"),
        (Mode::Says(302, "{}"), "it answered with status 302"),
        (Mode::Says(404, "{}"), "it has nothing about the unit"),
        (Mode::Says(200, "no json"), "its answer is not JSON: "),
        (Mode::Says(200, "{}"), r#"its answer has no "/history""#),
        (Mode::Says(200, r#"{"history": 1}"#), r#""/history" of its answer: "#),
        (Mode::Says(200, r#"{"history": [1, 2]}"#), r#""/history" of its answer: "#),
        (Mode::Says(200, r#"{"history": [1, 2, "3"]}"#), r#""/history" of its answer: "#),
        (Mode::Says(200, r#"{"history": [1, 2, 1e300]}"#), r#""/history" of its answer: "#),
        (Mode::Hangs, ""),
    ] {
        let [saved, lost] = if matches!(mode, Mode::Hangs) { [2, 3] } else { [0, 1] };
        profiles.set(mode);
        let answer = history(&servers[saved].0, 1).await;
        assert_eq!(answer.output("history_out"), &[json!(-1.0), json!(-2.0), json!(-3.0)], "{problem}");
        let answer = history(&servers[lost].0, 1).await;
        let expected = format!(r#"input "history" comes from the service "profile": {problem}"#);
        assert!(answer.error(503).starts_with(&expected), "{}", answer.body);
        assert_eq!(answer.header("retry-after"), "1");
    }
    // Well again, all is as it was.
    profiles.set(Mode::Counts);
    assert!(number(&servers[0].0, 1).await > 0.0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_no_answer() {
    let profiles = Profiles::start().await;
    let large: &'static str = Box::leak(format!("\"{}\"", "x".repeat(2 << 20)).into_boxed_str());
    profiles.set(Mode::Says(200, large));
    let repository = model();
    configure(&repository, &by_service(&profiles.0.url, &json!({}), &json!({})));
    let server = serve(&repository, Options::default()).await;
    let answer = history(&server, 1).await;
    assert!(answer.error(503).contains("its answer cannot be read: "), "{}", answer.body);
}

#[tokio::test]
async fn a_service_that_fails_too_often_is_left_alone() {
    let profiles = Profiles::start().await;
    for (mode, timeout, reaches) in
        [(Mode::Says(500, "{}"), 60_000, 2), (Mode::Hangs, 50, 2), (Mode::Says(404, "{}"), 60_000, 6)]
    {
        let service =
            json!({ "timeout_ms": timeout, "ttl_ms": 0, "breaker": { "consecutive": 2, "open_ms": HOUR } });
        let repository = model();
        configure(&repository, &by_service(&profiles.0.url, &service, &json!({ "fallback": [0, 0, 0] })));
        let server = serve(&repository, Options::default()).await;
        profiles.set(mode);
        let before = profiles.asked();
        for _ in 0..6 {
            assert_eq!(history(&server, 1).await.output("history_out").len(), 3);
        }
        assert_eq!(profiles.asked() - before, reaches);
    }
    // Nobody there at all.
    let repository = model();
    let url = format!("http://{}", free_address());
    configure(&repository, &by_service(&url, &json!({}), &json!({ "fallback": [0, 0, 0] })));
    let server = serve(&repository, Options::default()).await;
    for _ in 0..20 {
        assert_eq!(history(&server, 1).await.output("history_out").len(), 3);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_service_longer_than_for_the_answer() {
    let profiles = Profiles::start().await;
    profiles.set(Mode::Hangs);
    let repository = model();
    configure(&repository, &by_service(&profiles.0.url, &json!({}), &json!({ "fallback": [0, 0, 0] })));
    let server = serve(&repository, Options::default()).await;
    let body = json!({ "inputs": x(&[5.0]) }).to_string();
    let context = header(&unit(1));
    let headers = [("x-halftone-context", context.as_str()), ("x-envoy-expected-rq-timeout-ms", "50")];
    let late = server.post_with("/v2/models/m/infer", body, &headers).await;
    assert_eq!(late.error(504), "m:1 did not answer within the time that the request gave it");
}

#[tokio::test]
async fn the_version_of_the_features_is_in_the_log() {
    let profiles = Profiles::start().await;
    let repository = model();
    configure(
        &repository,
        &by_service(&profiles.0.url, &json!({ "version": "/version" }), &json!({ "fallback": [0, 0, 0] })),
    );
    let process = Running::serve("127.0.0.1:0", repository.path(), &[]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v2/models/m/infer", process.address);
    let body = json!({ "inputs": x(&[5.0]) }).to_string();
    let decided =
        EvaluationContext { feature_version: Some("filter's".into()), ..EvaluationContext::default() };
    for context in [unit(1), decided, EvaluationContext::default()] {
        let request = client.post(&url).header("x-halftone-context", header(&context)).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    drop(client);
    process.signal(Signal::SIGTERM);
    let lines = tokio::task::spawn_blocking(|| log_lines(&process.finish())).await.unwrap();
    let versions: Vec<_> =
        lines.iter().filter(|line| line["target"] == "access").map(|line| &line["feature_version"]).collect();
    assert_eq!(versions, [&json!("7"), &json!("filter's"), &Value::Null]);
}

#[tokio::test]
async fn a_remote_model_gets_its_features_from_here() {
    let models = model();
    let process = Running::serve("127.0.0.1:0", models.path(), &["--log", "off"]);
    let repository = tempfile::tempdir().unwrap();
    fs::create_dir_all(repository.path().join("m/1")).unwrap();
    let remote = json!({ "url": format!("http://{}", process.address) }).to_string();
    fs::write(repository.path().join("m/1/remote.json"), remote).unwrap();
    configure(&repository, &by_arm());
    let server = serve(&repository, Options::default()).await;
    let answer = infer(&server, Some(&arm("gold")), x(&[5.0, 6.0])).await;
    assert_eq!(answer.output("tier_out"), &[json!(1), json!(1)]);
    assert_eq!(answer.output("history_out").len(), 6);
    assert_eq!(server.get("/v2/models/m").await.body["inputs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn says_what_is_wrong_with_a_configuration() {
    let repository = model();
    let options = Options { poll: Some(POLL), workers: 1, ..Options::default() };
    let server = serve(&repository, options).await;
    let context = |more: Value| {
        let mut input = json!({ "from": "context", "attribute": "arm", "map": {}, "default": 0 });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "inputs": { "tier": input } })
    };
    let service = |url: &str, more: Value| by_service(url, &more, &json!({}));
    for (features, problem) in [
        (
            json!({ "inputs": { "y": { "from": "context", "attribute": "arm", "default": 0 } } }),
            r#"unknown input "y"; the model takes "x", "tier", "history""#,
        ),
        (
            context(json!({ "attribute": "user" })),
            r#"input "tier": unknown attribute "user", expected one of"#,
        ),
        (context(json!({ "default": "gold" })), r#"input "tier": default: element 0"#),
        (context(json!({ "default": [1, 2] })), r#"input "tier": default: "#),
        (context(json!({ "map": { "gold": 1.5 } })), r#"input "tier": map "gold": element 0"#),
        (context(json!({ "map": null })), r#"input "tier": it is INT32, "arm" is a text; give a map"#),
        (
            json!({ "inputs": { "history": { "from": "context", "attribute": "bucket", "default": [0, 0, 0] } } }),
            r#"input "history": it has 3 elements in a row, "bucket" is one; give a map"#,
        ),
        (
            json!({ "inputs": { "tier": { "from": "context", "attribute": "arm" } } }),
            "missing field `default`",
        ),
        (json!({ "inputs": { "tier": { "from": "nowhere" } } }), "unknown variant `nowhere`"),
        (json!({ "inputs": {}, "more": 1 }), "unknown field `more`"),
        (
            by_service("http://a", &json!({}), &json!({ "service": "other" })),
            r#"input "history": there is no service "other" among the services"#,
        ),
        (
            by_service("http://a", &json!({}), &json!({ "field": "history" })),
            r#"input "history": field is "history", expected a JSON pointer such as "/history""#,
        ),
        (by_service("http://a", &json!({}), &json!({ "fallback": [1] })), r#"input "history": fallback: "#),
        (
            service("https://a", json!({})),
            r#"service "profile": url is "https://a/{unit_hash}" (it is not plain http)"#,
        ),
        (
            service("http://a", json!({ "timeout_ms": 0 })),
            r#"service "profile": timeout_ms is 0, expected 1 to 60000"#,
        ),
        (
            service("http://a", json!({ "version": "v" })),
            r#"service "profile": version is "v", expected a JSON pointer"#,
        ),
    ] {
        configure(&repository, &features);
        until(&format!("{problem:?} in the index"), async || {
            let index = server.post("/v2/repository/index", "").await.body;
            assert_eq!(index[0]["state"], "READY", "what ran goes on");
            index[0]["reason"].as_str().unwrap().contains(problem).then_some(())
        })
        .await;
    }
    configure(&repository, &by_arm());
    until("it is mended", async || {
        let answer = infer(&server, Some(&arm("gold")), x(&[5.0])).await;
        (answer.status == 200).then(|| assert_eq!(answer.output("tier_out"), &[json!(1)]))
    })
    .await;
}
