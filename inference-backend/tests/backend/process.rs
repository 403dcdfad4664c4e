//! The program itself: how it starts, logs and stops.

use crate::support::{committed_models, held_out, library, request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::{EvaluationContext, Reason};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prost::Message;
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn command(models: &Path) -> Command {
    listening("127.0.0.1:0", models)
}

fn listening(address: &str, models: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halftone-inference"));
    command
        .args(["--log-format", "json", "--listen", address, "--models"])
        .arg(models)
        .env("ORT_DYLIB_PATH", library())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// What the program says when it cannot start, after asserting that it ends by itself.
pub(crate) fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_owned()
}

/// A running program; killed when the test fails.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// Reads what it logs: a pipe that nobody reads stops who writes to it.
    log: Option<JoinHandle<Vec<u8>>>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::of(command(&committed_models()).args(arguments))
    }

    pub(crate) fn serving(models: &Path, arguments: &[&str]) -> Self {
        Self::of(command(models).args(arguments))
    }

    /// Serves a repository at an address.
    pub(crate) fn serve(address: &str, models: &Path, arguments: &[&str]) -> Self {
        Self::of(listening(address, models).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        fs::write(&ready, "left over from an earlier run").unwrap();
        let mut child = command.arg("--ready-file").arg(&ready).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = spawn(move || {
            let mut log = Vec::new();
            stderr.read_to_end(&mut log).unwrap();
            log
        });
        let mut running = Self { child, address: String::new(), log: Some(log), _folder: folder };
        running.address = wait_for_address(&ready);
        running
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        read_to_end(stream)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end and gives its status and what it logged.
    pub(crate) fn finish(mut self) -> Output {
        let stderr = self.log.take().unwrap().join().unwrap();
        Output { status: self.child.wait().unwrap(), stdout: Vec::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_address(ready: &Path) -> String {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(text) = fs::read_to_string(ready)
            && text.starts_with("127.0.0.1:")
        {
            return text.trim().to_owned();
        }
        sleep(Duration::from_millis(10));
    }
    panic!("not ready after {PATIENCE:?}");
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn log_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn logs_a_request_with_what_the_filter_decided() {
    let running = Running::start(&["--serve", "digits:1", "--serve", "digits:2"]);
    let context = EvaluationContext {
        timestamp_ms: 1_700_000_000_000,
        ruleset: "digits".into(),
        revision: 7,
        rule: "user-id-mod100".into(),
        target: "v1".into(),
        unit_hash: 0xabc,
        bucket: Some(42),
        reason: Reason::Split.into(),
        ..EvaluationContext::default()
    };
    let context = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
    let body = request(&held_out()[..1]);
    let mut stream = running.connect();
    write!(
        stream,
        "POST /v2/models/digits/versions/1/infer?secret=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {}\r\nX-Halftone-Context: {context}\r\n\
         Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let answer = read_to_end(stream);
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-halftone-model: digits:1"),
        "{answer}"
    );
    running.get("/v2/nothing");
    running.signal(Signal::SIGINT);
    let output = running.finish();
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<Value> =
        log_lines(&output).into_iter().filter(|line| line["target"] == "access").collect();
    let [inference, unknown] = lines.as_slice() else { panic!("{lines:?}") };
    for (field, value) in [
        ("method", "POST".into()),
        ("path", "/v2/models/digits/versions/1/infer".into()),
        ("status", 200.into()),
        ("model", "digits".into()),
        ("version", "1".into()),
        ("halftone.target", "v1".into()),
        ("halftone.ruleset", "digits".into()),
        ("halftone.revision", 7.into()),
        ("halftone.rule", "user-id-mod100".into()),
        ("halftone.unit_hash", "0000000000000abc".into()),
        ("halftone.bucket", 42.into()),
        ("halftone.reason", "SPLIT".into()),
        ("trace_id", Value::from("0af7651916cd43dd8448eb211c80319c")),
    ] {
        assert_eq!(inference[field], value, "{field}");
    }
    assert!(inference["duration_us"].as_u64().unwrap() > 0);
    assert_eq!((&unknown["status"], unknown.get("model")), (&Value::from(404), None));
    assert_eq!(unknown.get("halftone.target"), None);
}

#[test]
fn finishes_what_has_begun_when_told_to_stop() {
    let running = Running::start(&[]);
    let body = request(&held_out()[..1]);
    let (first, rest) = body.split_at(100);
    let mut stream = running.connect();
    write!(
        stream,
        "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{first}",
        body.len()
    )
    .unwrap();
    // An answer to a later request shows that the earlier one has arrived.
    running.get("/v2/health/live");
    running.signal(Signal::SIGTERM);
    let begun = Instant::now();
    while TcpStream::connect(&running.address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still takes connections");
        sleep(Duration::from_millis(10));
    }
    stream.write_all(rest.as_bytes()).unwrap();
    assert!(read_to_end(stream).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(running.finish().status.code(), Some(0));
}

/// The same over gRPC: on a connection that would stay open, a call whose message is not complete yet.
#[tokio::test]
async fn finishes_calls_that_have_begun_when_told_to_stop() {
    let running = Running::start(&[]);
    let message = crate::grpc::digit("").encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let call = client
        .post(format!("http://{}/inference.GRPCInferenceService/ModelInfer", running.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body)))
        .send();
    let call = tokio::spawn(call);
    sender.send(Ok(frame[..20].to_vec())).await.unwrap();
    // An answer to a later request on the same connection shows that the earlier one has arrived.
    let ready = client.get(format!("http://{}/v2/health/ready", running.address));
    assert_eq!(ready.send().await.unwrap().status(), 200);
    running.signal(Signal::SIGTERM);
    let begun = Instant::now();
    while TcpStream::connect(&running.address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still takes connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sender.send(Ok(frame[20..].to_vec())).await.unwrap();
    drop(sender);
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.headers().get("x-halftone-model").unwrap(), "digits:3", "{answer:?}");
    assert_eq!(answer.headers().get("grpc-status"), None, "it is in the trailers of a call that went well");
    assert!(!answer.bytes().await.unwrap().is_empty());
    drop(client);
    let finished = tokio::task::spawn_blocking(|| running.finish());
    assert_eq!(finished.await.unwrap().status.code(), Some(0));
}

#[test]
fn drains_before_it_stops() {
    let running = Running::start(&["--drain", "1"]);
    assert!(running.get("/v2/health/ready").starts_with("HTTP/1.1 200 OK\r\n"));
    running.signal(Signal::SIGTERM);
    let begun = Instant::now();
    while running.get("/v2/health/ready").starts_with("HTTP/1.1 200 OK\r\n") {
        assert!(begun.elapsed() < PATIENCE, "still ready");
    }
    assert!(running.get("/v2/health/ready").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(running.get("/v2/models/digits").starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(running.finish().status.code(), Some(0));
}

/// The most memory that a process ever had, in bytes.
pub(crate) fn most_memory(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn bodies_that_are_held_open_take_bounded_memory() {
    let running = Running::start(&["--serve", "digits:2"]);
    let before = most_memory(running.child.id());
    let size = 8 << 20;
    let piece = vec![b' '; 1 << 20];
    let mut held = Vec::new();
    for _ in 0..150 {
        let mut stream = running.connect();
        let head =
            format!("POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
        // All but the last byte; who is refused may be cut off while it sends.
        let mut send = || -> std::io::Result<()> {
            stream.write_all(head.as_bytes())?;
            for _ in 0..7 {
                stream.write_all(&piece)?;
            }
            stream.write_all(&piece[1..])
        };
        let _ = send();
        held.push(stream);
    }
    let answer = running.get("/v2/health/ready");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // They would be 1.2 GB; 64 MiB are kept for them, and 64 KiB of each connection may be read ahead.
    let grown = most_memory(running.child.id()) - before;
    assert!(grown < 90 << 20, "{grown} bytes more than {before}");
    let mut answer = [0; 12];
    held[149].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 429");
    // Those that were there first get their answer.
    held[0].write_all(b" ").unwrap();
    held[0].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    drop(held);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(0));
}

#[test]
fn the_command_line_counts_more_than_the_environment_and_that_more_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, "serve = [\"digits:1\"]\n").unwrap();
    let check = |file: Option<&Path>, environment: Option<&str>, arguments: &[&str]| {
        let mut command = command(&committed_models());
        command.arg("--check-config").args(arguments);
        command.envs(file.map(|file| ("HALFTONE_CONFIG", file)));
        command.envs(environment.map(|serve| ("HALFTONE_SERVE", serve)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let ok = |models: &str| (Some(0), format!("ok: {models}\n"));
    assert_eq!(check(None, None, &[]), ok("digits:3"));
    assert_eq!(check(Some(&file), None, &[]), ok("digits:1"));
    assert_eq!(check(Some(&file), Some("digits:2"), &[]), ok("digits:2"));
    assert_eq!(check(Some(&file), Some("digits:2"), &["--serve", "digits:3"]), ok("digits:3"));

    // What would not start does not pass.
    assert!(
        refused(command(&committed_models()).args(["--check-config", "--serve", "digits:9"]))
            .contains("there: ")
    );
    let away = tempfile::tempdir().unwrap();
    fs::create_dir_all(away.path().join("far/1")).unwrap();
    fs::write(away.path().join("far/1/remote.json"), r#"{"url": "http://127.0.0.1:1"}"#).unwrap();
    let away = refused(command(away.path()).arg("--check-config"));
    assert!(away.contains("far:1 at http://127.0.0.1:1 cannot be served: "), "{away}");
    fs::write(&file, "queue = 1\nserv = \"digits\"\n").unwrap();
    let wrong = refused(command(&committed_models()).arg("--config").arg(&file));
    assert!(wrong.contains("settings.toml:2: serv: unknown setting; there are "), "{wrong}");
}

fn is_live(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).map(|()| answer == *b"HTTP/1.1 200").unwrap_or(false)
}

const LIVE: &[u8] = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn more_connections_than_there_may_be_wait() {
    let running = Running::start(&["--max-connections", "2", "--serve", "digits:2"]);
    // Both are to send what they have announced.
    let post = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    let (mut first, mut second) = (running.connect(), running.connect());
    for stream in [&mut first, &mut second] {
        stream.write_all(LIVE).unwrap();
        assert!(is_live(stream));
        stream.write_all(post).unwrap();
    }
    let mut third = running.connect();
    third.write_all(LIVE).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(!is_live(&mut third), "it waits");
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_live(&mut third), "there is a place now");
}

#[test]
fn who_has_nothing_to_do_gives_way_to_others() {
    let running = Running::start(&["--max-connections", "2", "--serve", "digits:2"]);
    // One keeps its connection after an answer, one sends half a request.
    let (mut idle, mut half) = (running.connect(), running.connect());
    idle.write_all(LIVE).unwrap();
    assert!(is_live(&mut idle));
    half.write_all(&LIVE[..9]).unwrap();
    let mut other = running.connect();
    other.write_all(LIVE).unwrap();
    assert!(is_live(&mut other));
    // Half a request does not keep it from stopping.
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(0));
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let running = Running::start(&["--serve", "digits:2"]);
    let mut stream = running.connect();
    // Who is refused may be cut off while it sends.
    let _ = write!(stream, "GET /v2 HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "a".repeat(200 << 10));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    assert!(running.get("/v2").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn operators_have_a_port_of_their_own() {
    let mut running = Running::start(&["--admin", "127.0.0.1:0", "--serve", "digits:2"]);
    let addresses = running.address.clone();
    let (clients, operators) = addresses.split_once('\n').expect("a second line");
    let body = request(&held_out()[..1]);
    running.address = clients.to_owned();
    for _ in 0..3 {
        let mut stream = running.connect();
        write!(
            stream,
            "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        assert!(read_to_end(stream).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    for path in ["/metrics", "/debug/heap", "/debug/pprof/profile"] {
        assert!(running.get(path).starts_with("HTTP/1.1 404 "), "clients have no {path}");
    }
    running.address = operators.to_owned();
    let none_runs = "halftone_model_running_workers{model_name=\"digits\",model_version=\"2\"} 0";
    let start = Instant::now();
    let metrics = loop {
        let metrics = running.get("/metrics");
        // A worker answers, and is then done.
        if metrics.contains(none_runs) || start.elapsed() > Duration::from_secs(10) {
            break metrics;
        }
    };
    for line in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "model_request_total{model_name=\"digits\",api_endpoint=\"/v2/models/{model}/infer\",http_status=\"200\"} 3",
        "model_request_total{model_name=\"\",api_endpoint=\"other\",http_status=\"404\"} 3",
        "halftone_model_waiting_requests{model_name=\"digits\",model_version=\"2\"} 0",
        "halftone_model_queue_limit_requests{model_name=\"digits\",model_version=\"2\"} 1024",
        "halftone_model_batch_rows_sum{model_name=\"digits\",model_version=\"2\"} 3.0",
        "halftone_model_batch_requests_count{model_name=\"digits\",model_version=\"2\"} 3",
        "halftone_rejected_requests_total{model_name=\"digits\",reason=\"queue_full\"} 0",
        "halftone_body_used_bytes 0",
        "halftone_model_workers{model_name=\"digits\",model_version=\"2\"} 2",
        none_runs,
        "halftone_model_ready{model_name=\"digits\",model_version=\"2\"} 1",
        "model_inference_duration_seconds_count{model_name=\"digits\",status=\"ok\",hardware_type=\"cpu\"} 3",
    ] {
        assert!(metrics.lines().any(|got| got == line), "no {line} in\n{metrics}");
    }
    assert!(running.get("/debug/heap").contains("\"allocated_bytes\":"));
    let profile = running.get("/debug/pprof/profile?seconds=0");
    assert!(
        profile.starts_with("HTTP/1.1 400 ") && profile.contains("seconds is from 1 to 300"),
        "{profile}"
    );
    let mut stream = running.connect();
    write!(stream, "GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut profile = Vec::new();
    stream.read_to_end(&mut profile).unwrap();
    assert!(profile.starts_with(b"HTTP/1.1 200 OK\r\n"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(0));
}

#[test]
fn says_what_is_missing() {
    let models = committed_models();
    let unknown = refused(command(&models).args(["--serve", "digits:7"]));
    assert!(unknown.ends_with("there: digits:1, digits:2, digits:3"), "{unknown}");

    let nowhere = refused(command(&models).args(["--ort", "/nowhere/libonnxruntime.so"]));
    assert!(nowhere.contains("ONNX Runtime is not at /nowhere/libonnxruntime.so"), "{nowhere}");

    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    fs::write(&text, "not a library").unwrap();
    let not_a_library = refused(command(&models).arg("--ort").arg(&text));
    assert!(not_a_library.contains("cannot load ONNX Runtime from"), "{not_a_library}");

    // A copy of the program elsewhere, so that nothing was fetched above it.
    let copy = folder.path().join("halftone-inference");
    fs::copy(env!("CARGO_BIN_EXE_halftone-inference"), &copy).unwrap();
    let mut elsewhere = Command::new(copy);
    // A variable that is set to nothing counts as unset.
    elsewhere.current_dir(&folder).env("ORT_DYLIB_PATH", "").arg("--models").arg(&models);
    let not_fetched = refused(&mut elsewhere);
    assert!(not_fetched.contains("run scripts/setup.sh"), "{not_fetched}");

    // Settings are looked at before models are, which take long.
    let http = ["--serve", "digits:7", "--otlp-endpoint", "http://127.0.0.1:1/v1/traces"];
    let collector = refused(command(&models).args(http));
    assert!(collector.contains("there is something behind the port"), "{collector}");

    fs::create_dir_all(folder.path().join("broken/1")).unwrap();
    fs::write(folder.path().join("broken/1/model.onnx"), "not a model").unwrap();
    let more_than_most = refused(command(&models).args(["--min-workers", "3", "--max-workers", "2"]));
    assert!(
        more_than_most.ends_with("--min-workers is 3, more than --max-workers, which is 2"),
        "{more_than_most}"
    );

    // The library that the tests use is for processors.
    let cuda = refused(command(&models).args(["--provider", "cuda"]));
    assert!(
        cuda.ends_with(
            "cannot load digits:3: this ONNX Runtime was built without CUDA; use the library of onnxruntime-gpu \
             (--ort), or the provider cpu or auto"
        ),
        "{cuda}"
    );
    let auto = command(&models).args(["--provider", "auto", "--check-config"]).output().unwrap();
    let log = String::from_utf8(auto.stderr).unwrap();
    assert!(auto.status.success() && log.contains("runs on the processor"), "{log}");

    let broken = refused(&mut command(folder.path()));
    assert!(broken.contains("cannot load broken:1 from"), "{broken}");
}
