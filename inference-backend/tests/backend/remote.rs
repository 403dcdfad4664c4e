//! Models that another server has: a process of its own with our program, which is stopped, killed and started again.

use crate::{
    datatypes::{echo_repository, every_datatype, grpc_request},
    fake::{self, Fake},
    onnx::{self, SLOW},
    process::{Running, log_lines},
    support::{Answer, Options, Server, committed_models, held_out, request},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::{
    inference::{InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor},
    v1::EvaluationContext,
};
use nix::sys::signal::Signal;
use prost::Message;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A repository of one model, which is at this address.
fn remote(name: &str, config: &Value) -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    write(repository.path(), name, config);
    repository
}

fn write(repository: &Path, name: &str, config: &Value) {
    let folder = repository.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("new"), config.to_string()).unwrap();
    fs::rename(folder.join("new"), folder.join("remote.json")).unwrap();
}

async fn serve(repository: &TempDir, options: Options) -> Arc<Server> {
    Arc::new(Server::start(repository.path(), &[], options).await)
}

fn watched() -> Options {
    Options { poll: Some(POLL), ..Options::default() }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Our program with a repository, without a word.
fn process(address: &str, models: &Path) -> Running {
    Running::serve(address, models, &["--log", "off"])
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

/// A request for the models whose answer is `y` or `entry`.
fn one(name: &str, datatype: &str) -> String {
    json!({ "inputs": [{ "name": name, "datatype": datatype, "shape": [1], "data": [0] }] }).to_string()
}

async fn ask(server: &Server) -> Answer {
    server.post("/v2/models/m/infer", one("x", "FP32")).await
}

/// A repository of the model `m`, which answers with this value.
fn table(value: f32) -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    onnx::save(repository.path(), "m", "1", &onnx::table(&[value]));
    repository
}

async fn entry(server: &Server) -> Answer {
    server.post("/v2/models/m/infer", one("index", "INT64")).await
}

#[tokio::test]
async fn a_remote_model_answers_as_a_local_one_in_every_datatype() {
    let models = echo_repository();
    let process = process("127.0.0.1:0", models.path());
    let repository = remote("echo", &json!({ "url": format!("http://{}", process.address) }));
    let far = serve(&repository, Options::default()).await;
    let near = serve(&models, Options::default()).await;
    assert_eq!(far.get("/v2/models/echo").await.body, near.get("/v2/models/echo").await.body);
    assert!(far.app.models.find("echo", None).unwrap().remote().is_some());

    let types = every_datatype();
    let tensors: Vec<Value> = types
        .iter()
        .map(|(_, name, data, _)| json!({ "name": name, "datatype": name, "shape": [2, 2], "data": data }))
        .collect();
    for outputs in [json!([]), json!([{ "name": "BYTES_out" }, { "name": "FP16_out" }])] {
        let body = json!({ "inputs": tensors, "outputs": outputs, "id": "7", "parameters": { "mine": 1 } });
        let (from_far, from_near) = (
            far.post("/v2/models/echo/infer", body.to_string()).await,
            near.post("/v2/models/echo/infer", body.to_string()).await,
        );
        assert_eq!((from_far.status, &from_far.body), (from_near.status, &from_near.body));
        assert_eq!(from_far.status, 200, "{}", from_far.body);
        assert_eq!(from_far.header("x-halftone-model"), "echo:1");
    }
    let sizes = types.iter().map(|(_, name, _, bytes)| {
        let parameters = json!({ "binary_data_size": bytes.len() });
        json!({ "name": name, "datatype": name, "shape": [2, 2], "parameters": parameters })
    });
    let head = json!({ "inputs": sizes.collect::<Vec<_>>(), "parameters": { "binary_data_output": true } });
    let head = head.to_string();
    let binary: Vec<u8> = types.iter().flat_map(|(.., bytes)| bytes.clone()).collect();
    let length = head.len().to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let answer = far.post_with("/v2/models/echo/infer", [head.as_bytes(), &binary].concat(), &headers).await;
    assert_eq!((answer.status.as_u16(), &answer.binary), (200, &binary));

    let names: Vec<&str> = types.iter().map(|(_, name, ..)| *name).collect();
    let mut message = grpc_request("echo", &names);
    message.raw_input_contents = types.iter().map(|(.., bytes)| bytes.clone().into()).collect();
    let from_far = far.grpc().await.model_infer(message.clone()).await.unwrap().into_inner();
    assert_eq!(from_far, near.grpc().await.model_infer(message).await.unwrap().into_inner());
}

#[tokio::test]
async fn a_remote_model_answers_as_a_local_one_over_typed_grpc_and_in_batches() {
    let arguments = ["--log", "off", "--serve", "digits:2", "--serve", "digits:3"];
    let process = Running::serve("127.0.0.1:0", &committed_models(), &arguments);
    let config = json!({ "url": format!("http://{}", process.address), "model": "digits", "version": "2" });
    let repository = remote("far", &config);
    let (far, near) = (serve(&repository, Options::default()).await, Server::digits().await);
    let digits = held_out();
    let answer = far.post("/v2/models/far/infer", request(&digits)).await;
    let expected = near.post("/v2/models/digits/versions/2/infer", request(&digits)).await;
    assert_eq!(answer.output("label"), expected.output("label"));
    assert!(answer.body["outputs"] == expected.body["outputs"]);
    let empty = far.post("/v2/models/far/infer", request(&[])).await;
    assert_eq!(empty.body["outputs"][0]["shape"], json!([0, 10]));

    let pixels = digits[0].pixels.iter().map(|&pixel| pixel.into()).collect();
    let input = InferInputTensor {
        name: "pixels".into(),
        datatype: "FP32".into(),
        shape: vec![1, 64],
        contents: Some(InferTensorContents { fp32_contents: pixels, ..Default::default() }),
        ..Default::default()
    };
    let message = |model: &str, version: &str| ModelInferRequest {
        model_name: model.into(),
        model_version: version.into(),
        inputs: vec![input.clone()],
        ..Default::default()
    };
    let from_far = far.grpc().await.model_infer(message("far", "")).await.unwrap().into_inner();
    let from_near = near.grpc().await.model_infer(message("digits", "2")).await.unwrap().into_inner();
    assert_eq!((&from_far.outputs, from_far.raw_output_contents.len()), (&from_near.outputs, 0));
}

#[tokio::test]
async fn bad_requests_are_refused_here_and_bad_values_there() {
    let models = table(1.0);
    let process = process("127.0.0.1:0", models.path());
    let url = format!("http://{}", process.address);
    let repository = remote("m", &json!({ "url": url }));
    let server = serve(&repository, Options::default()).await;
    let unknown = server.post("/v2/models/m/infer", one("x", "INT64")).await;
    assert_eq!(unknown.error(400), r#"unknown input "x"; the model takes "index""#);
    let beyond = json!({ "inputs": [{ "name": "index", "datatype": "INT64", "shape": [1], "data": [7] }] });
    let refused = server.post("/v2/models/m/infer", beyond.to_string()).await;
    let expected = format!("m:1 at {url} refuses the request: m:1 refuses the inputs: ");
    assert!(refused.error(400).starts_with(&expected), "{}", refused.body);
    assert_eq!(entry(&server).await.output("entry"), &[json!(1.0)]);
}

#[tokio::test]
async fn the_trace_and_what_was_decided_go_with_the_request() {
    let process = Running::serve("127.0.0.1:0", &committed_models(), &[]);
    let repository = remote("digits", &json!({ "url": format!("http://{}", process.address) }));
    let server = serve(&repository, Options::default()).await;
    let context = EvaluationContext {
        ruleset: "digits".into(),
        target: "v2".into(),
        revision: 7,
        ..Default::default()
    };
    let context = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
    let headers = [
        ("x-halftone-context", context.as_str()),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let answer = server.post_with("/v2/models/digits/infer", request(&held_out()[..1]), &headers).await;
    assert_eq!(answer.output("label").len(), 1);
    process.signal(Signal::SIGTERM);
    // Not here: our end of the connection has its part in that it ends.
    let lines = tokio::task::spawn_blocking(|| log_lines(&process.finish())).await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let line = lines.iter().find(|line| line["path"] == path).unwrap();
    for (field, value) in [
        ("halftone.target", json!("v2")),
        ("halftone.revision", json!(7)),
        ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
}

#[tokio::test]
async fn headers_and_the_time_that_is_left_are_passed_on() {
    let seen: Arc<Mutex<Vec<tonic::metadata::MetadataMap>>> = Arc::default();
    let record = Arc::clone(&seen);
    let fake = Fake::start(move |_, request| {
        record.lock().unwrap().push(request.metadata().clone());
        Ok(fake::y(2.0))
    });
    let repository = remote("m", &json!({ "url": fake.url, "timeout_ms": 60_000 }));
    let server = serve(&repository, Options::default()).await;
    let headers = [
        ("baggage", "halftone.target=v2"),
        ("tracestate", "a=b"),
        ("x-halftone-target", "v2"),
        ("cookie", "secret"),
        ("x-envoy-expected-rq-timeout-ms", "30000"),
    ];
    let answer = server.post_with("/v2/models/m/infer", one("x", "FP32"), &headers).await;
    assert_eq!(answer.output("y"), &[json!(2.0)]);
    assert_eq!(ask(&server).await.status, 200);
    let seen = seen.lock().unwrap();
    for (name, value) in &headers[..3] {
        assert_eq!(seen[0].get(*name).unwrap(), *value, "{name}");
    }
    assert!(seen[0].get("cookie").is_none());
    let left = |index: usize| {
        let text = seen[index].get("grpc-timeout").unwrap().to_str().unwrap();
        text.strip_suffix('u').unwrap().parse::<u64>().unwrap()
    };
    assert!((1..=30_000_000).contains(&left(0)), "what the request said: {}", left(0));
    assert!((30_000_001..=60_000_000).contains(&left(1)), "what the configuration says: {}", left(1));
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_again() {
    let address = free_address();
    let repository = remote("m", &json!({ "url": format!("http://{address}") }));
    let models = table(3.0);
    onnx::save(repository.path(), "other", "1", &onnx::table(&[4.0]));
    let server = serve(&repository, watched()).await;
    let index = server.post("/v2/repository/index", "").await.body;
    let reason = index[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("m:1 at http://{address} cannot be served: ")), "{reason}");
    assert_eq!((&index[0]["state"], &index[1]["state"]), (&json!("UNAVAILABLE"), &json!("READY")));
    assert_eq!(entry(&server).await.error(404), r#"unknown model "m"; served: "other""#);
    let _process = process(&address, models.path());
    let answer = until("it is served", async || {
        let answer = entry(&server).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.output("entry"), &[json!(3.0)]);
    let index = server.post("/v2/repository/index", "").await.body;
    assert_eq!((&index[0]["state"], &index[0]["reason"]), (&json!("READY"), &json!("")));
}

#[tokio::test]
async fn a_version_moves_from_here_to_there_and_back() {
    let models = table(5.0);
    let process = process("127.0.0.1:0", models.path());
    let repository = table(6.0);
    let file = repository.path().join("m/1/model.onnx");
    let server = serve(&repository, watched()).await;
    let value = async |expected: f64| {
        until("the value", async || {
            let answer = entry(&server).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            (answer.output("entry")[0] == json!(expected)).then_some(())
        })
        .await;
    };
    value(6.0).await;
    write(repository.path(), "m", &json!({ "url": format!("http://{}", process.address) }));
    let reason = until("a reason", async || {
        let index = server.post("/v2/repository/index", "").await.body;
        index[0]["reason"].as_str().filter(|reason| !reason.is_empty()).map(ToOwned::to_owned)
    })
    .await;
    assert_eq!(
        reason,
        "cannot load m:1: there are both model.onnx and remote.json; remove the one that is not meant"
    );
    value(6.0).await;
    fs::rename(&file, repository.path().join("aside")).unwrap();
    value(5.0).await;
    fs::remove_file(repository.path().join("m/1/remote.json")).unwrap();
    fs::rename(repository.path().join("aside"), &file).unwrap();
    value(6.0).await;
}

#[tokio::test]
async fn another_model_of_the_same_name_is_taken_up() {
    let models = table(7.0);
    let process = process("127.0.0.1:0", models.path());
    let repository = remote("m", &json!({ "url": format!("http://{}", process.address), "health_ms": 20 }));
    let server = serve(&repository, watched()).await;
    assert_eq!(entry(&server).await.status, 200);
    let (x, y) = (
        ("x", ort::value::TensorElementType::Float32, &["n"][..]),
        ("y", ort::value::TensorElementType::Float32, &["n"][..]),
    );
    onnx::write(models.path(), "m", &[x], &[("Neg", &["x"], &["y"])], &[y]);
    let answer = until("the other model", async || {
        let answer = ask(&server).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.output("y").len(), 1);
}

/// Asks without a pause until it is told to stop; counts the answers by their status.
struct Traffic {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<u16, usize>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn start(server: &Arc<Server>) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let tasks = (0..4)
            .map(|_| {
                let (server, stop, counts) = (Arc::clone(server), Arc::clone(&stop), Arc::clone(&counts));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = entry(&server).await;
                        if answer.status == 503 {
                            assert!(answer.headers.contains_key("retry-after"), "{}", answer.body);
                        }
                        *counts.lock().unwrap().entry(answer.status.as_u16()).or_default() += 1;
                    }
                })
            })
            .collect();
        Self { stop, counts, tasks }
    }

    /// Waits for more answers of a status.
    async fn more(&self, status: u16) {
        let count = || self.counts.lock().unwrap().get(&status).copied().unwrap_or_default();
        let before = count();
        until(&format!("more answers of {status}"), async || (count() >= before + 50).then_some(())).await;
    }

    async fn finish(self) -> Vec<u16> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.counts.lock().unwrap().keys().copied().collect()
    }
}

async fn ready(server: &Server, expected: bool) {
    until(&format!("ready: {expected}"), async || {
        let answer = server.get("/v2/models/m/ready").await;
        (answer.body["ready"] == expected).then_some(())
    })
    .await;
}

/// Opens soon and not for long.
fn impatient(url: &str, timeout_ms: u32) -> Value {
    json!({
        "url": url, "timeout_ms": timeout_ms, "health_ms": 20,
        "breaker": { "consecutive": 3, "open_ms": 100, "probes": 1, "patience_ms": 200 },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_is_found_again() {
    let models = table(8.0);
    let address = free_address();
    let process_ = process(&address, models.path());
    let repository = remote("m", &impatient(&format!("http://{address}"), 60_000));
    let server = serve(&repository, Options::default()).await;
    let traffic = Traffic::start(&server);
    traffic.more(200).await;
    process_.signal(Signal::SIGKILL);
    drop(process_);
    traffic.more(503).await;
    ready(&server, false).await;
    assert_eq!(server.get("/v2/health/ready").await.status, 200, "the server itself is ready");
    let refused = until("the circuit is open", async || {
        let refused = entry(&server).await;
        (refused.status == 503 && refused.error(503).contains("left alone")).then_some(refused)
    })
    .await;
    let place = format!("m:1 at http://{address}");
    assert_eq!(
        refused.error(503),
        format!("{place} cannot be reached: left alone for a while after too many failures; try again later")
    );
    assert!(server.rejected("m", "breaker_open") > 0, "{}", server.app.metrics.render());
    let _process = process(&address, models.path());
    traffic.more(200).await;
    ready(&server, true).await;
    // Nothing but answers and refusals that say when to come again.
    assert_eq!(traffic.finish().await, [200, 503]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_its_time_only_until_the_circuit_opens() {
    let models = table(9.0);
    let process = process("127.0.0.1:0", models.path());
    let repository = remote("m", &impatient(&format!("http://{}", process.address), 400));
    let server = serve(&repository, Options::default()).await;
    let traffic = Traffic::start(&server);
    traffic.more(200).await;
    process.signal(Signal::SIGSTOP);
    traffic.more(503).await;
    let counted = traffic.counts.lock().unwrap().clone();
    assert!(counted[&504] < counted[&503], "{counted:?}");
    process.signal(Signal::SIGCONT);
    traffic.more(200).await;
    ready(&server, true).await;
    assert_eq!(traffic.finish().await, [200, 503, 504]);
}

#[tokio::test]
async fn who_gives_little_time_does_not_open_the_circuit_for_others() {
    let models = tempfile::tempdir().unwrap();
    onnx::write_slow(models.path());
    let process = process("127.0.0.1:0", models.path());
    let config = json!({ "url": format!("http://{}", process.address), "breaker": { "consecutive": 2, "patience_ms": 3_600_000 } });
    let repository = remote("slow", &config);
    let server = serve(&repository, Options::default()).await;
    let body = json!({ "inputs": [{ "name": "x0", "datatype": "FP32", "shape": [SLOW, SLOW], "data": vec![0; SLOW * SLOW] }], "parameters": { "timeout": 1000 } });
    for _ in 0..5 {
        let answer = server.post("/v2/models/slow/infer", body.to_string()).await;
        assert!(answer.error(504).contains("was too slow: "), "{}", answer.body);
    }
    let model = server.app.models.find("slow", None).unwrap();
    assert_eq!(model.remote().unwrap().breaker().state(), halftone_telemetry::breaker::State::Closed);
}

/// A breaker that never opens.
fn patient() -> Value {
    json!({ "consecutive": 1_000_000, "minimum": 1_000_000 })
}

#[tokio::test]
async fn a_dead_server_is_not_asked_more_than_the_budget_allows() {
    let fake = Fake::start(|_, _| Err(Status::unavailable("dead")));
    let retries = json!({ "budget_percent": 20, "min_per_second": 0 });
    let repository = remote("m", &json!({ "url": fake.url, "retries": retries, "breaker": patient() }));
    let server = serve(&repository, Options::default()).await;
    for _ in 0..200 {
        let answer = ask(&server).await;
        let expected = format!("m:1 at {} cannot be reached: dead; try again later", fake.url);
        assert_eq!(answer.error(503), expected);
        assert_eq!(answer.header("retry-after"), "1");
    }
    // Twenty percent of each request; two requests that wait for their retry at once could not overdraw it either.
    assert_eq!(fake.asked(), 240);
}

#[tokio::test]
async fn what_had_no_answer_is_tried_again() {
    // Every other request fails, and every tenth is refused for another reason.
    let fake = Fake::start(|number, _| match number % 10 {
        9 => Err(Status::internal("not to be repeated")),
        n if n % 2 == 0 => Err(Status::unavailable("not now")),
        _ => Ok(fake::y(1.0)),
    });
    let retries = json!({ "budget_percent": 100, "min_per_second": 0 });
    let repository = remote("m", &json!({ "url": fake.url, "retries": retries, "breaker": patient() }));
    let server = serve(&repository, Options::default()).await;
    for number in 0..20 {
        let answer = ask(&server).await;
        if number % 5 == 4 {
            assert_eq!(answer.error(500), format!("m:1 at {} failed: not to be repeated", fake.url));
        } else {
            assert_eq!(answer.output("y"), &[json!(1.0)]);
        }
    }
    assert_eq!(fake.asked(), 40);
}

#[tokio::test]
async fn who_says_when_to_come_again_is_not_asked_before() {
    let fake = Fake::start(|_, _| {
        let mut status = Status::unavailable("in a while");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        Err(status)
    });
    let retries = json!({ "budget_percent": 100, "min_per_second": 100 });
    let repository = remote("m", &json!({ "url": fake.url, "retries": retries }));
    let server = serve(&repository, Options::default()).await;
    let answer = ask(&server).await;
    answer.error(503);
    assert_eq!((answer.header("retry-after"), fake.asked()), ("7", 1));
}

#[tokio::test]
async fn no_more_are_on_their_way_than_may_wait() {
    let models = tempfile::tempdir().unwrap();
    onnx::write_slow(models.path());
    let process = process("127.0.0.1:0", models.path());
    let repository = remote("slow", &json!({ "url": format!("http://{}", process.address) }));
    let server = serve(&repository, Options { queue: 1, ..Options::default() }).await;
    let body = json!({ "inputs": [{ "name": "x0", "datatype": "FP32", "shape": [SLOW, SLOW], "data": vec![0; SLOW * SLOW] }] });
    let first = {
        let (server, body) = (Arc::clone(&server), body.to_string());
        tokio::spawn(async move { server.post("/v2/models/slow/infer", body).await })
    };
    let model = server.app.models.find("slow", None).unwrap();
    until("one is on its way", async || model.has_room().is_err().then_some(())).await;
    let refused = server.post("/v2/models/slow/infer", "{}").await;
    let place = format!("slow:1 at http://{}", process.address);
    assert_eq!(
        refused.error(429),
        format!("{place} is overloaded: too many requests are on their way; try again later")
    );
    assert_eq!(refused.header("retry-after"), "1");
    let status = server.grpc().await.model_infer(grpc_request("slow", &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(server.rejected("slow", "queue_full"), 2);
    assert_eq!(first.await.unwrap().status, 200);
    assert!(model.has_room().is_ok());
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_declared_is_an_error() {
    let fake = Fake::start(|number, _| {
        let mut answer = fake::y(1.0);
        match number {
            0 => answer.outputs[0].name = "z".into(),
            1 => answer.outputs[0].datatype = "FP64".into(),
            2 => answer.outputs[0].shape = vec![2],
            3 => answer.outputs[0].shape = vec![-1],
            4 => answer.raw_output_contents[0] = vec![0; 3].into(),
            5 => answer.raw_output_contents.push(vec![].into()),
            _ => answer.raw_output_contents.clear(),
        }
        Ok(answer)
    });
    let repository = remote("m", &json!({ "url": fake.url }));
    let server = serve(&repository, Options::default()).await;
    for problem in [
        r#"output "y": it is not in the answer"#,
        r#"output "y": it is FP64, declared is FP32"#,
        r#"output "y": its shape is [2], declared is [1]"#,
        r#"output "y": its shape is [-1], declared is [1]"#,
        r#"output "y": the data has 3 bytes, the shape [1] needs 4"#,
        "there are 2 raw_output_contents for 1 outputs",
        r#"output "y": it has no contents"#,
    ] {
        let expected = format!("m:1 at {} answers with something else: {problem}", fake.url);
        assert_eq!(ask(&server).await.error(500), expected);
    }
}
