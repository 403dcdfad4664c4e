//! More requests than workers, queue and memory can hold, and answers that nobody waits for any more.

use crate::{
    onnx::{self, SLOW},
    support::{Answer, Options, Server, committed_models, held_out, request},
};
use halftone_inference::{model::Model, queue::BatchLimits};
use halftone_proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use reqwest::StatusCode;
use serde_json::json;
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tonic::{Code, codec::CompressionEncoding};

const PATIENCE: Duration = Duration::from_secs(30);
const INFER: &str = "/v2/models/slow/infer";

async fn slow(options: Options) -> (TempDir, Arc<Server>, Arc<Model>) {
    let repository = tempfile::tempdir().unwrap();
    onnx::write_slow(repository.path());
    let server = Arc::new(Server::start(repository.path(), &["slow"], options).await);
    let model = server.app.models.find("slow", None).unwrap();
    (repository, server, model)
}

/// A request that takes a good part of a second, and its binary tensor.
pub(crate) fn long() -> (String, Vec<u8>) {
    let parameters = json!({ "binary_data_size": SLOW * SLOW * 4 });
    let input = json!({ "name": "x0", "datatype": "FP32", "shape": [SLOW, SLOW], "parameters": parameters });
    (
        json!({ "inputs": [input], "parameters": { "binary_data_output": true } }).to_string(),
        vec![0; SLOW * SLOW * 4],
    )
}

async fn send(server: Arc<Server>, headers: &[(&'static str, &str)]) -> Answer {
    let (json, binary) = long();
    let length = json.len().to_string();
    let headers = [&[("Inference-Header-Content-Length", length.as_str())], headers].concat();
    server.post_with(INFER, [json.as_bytes(), &binary].concat(), &headers).await
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the model's worker is busy and so many wait.
async fn busy(model: &Model, waiting: usize) {
    until("busy", || {
        model.workers().unwrap().running() == 1 && model.workers().unwrap().queue().waiting() == waiting
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let options = Options { workers: 1, queue: 1, ..Options::default() };
    let (_repository, server, model) = slow(options).await;
    let mut answers = JoinSet::new();
    for waiting in [0, 1] {
        let server = Arc::clone(&server);
        answers.spawn(async move { send(server, &[]).await });
        busy(&model, waiting).await;
    }
    // The head of the request is enough: its body has not been sent.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST {INFER} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1000];
    let length = tokio::io::AsyncReadExt::read(&mut stream, &mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 429") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");

    let refused = send(Arc::clone(&server), &[]).await;
    assert_eq!(refused.error(429), "slow:1 is overloaded: its queue is full; try again later");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("x-halftone-model"), "slow:1");

    let message = ModelInferRequest { model_name: "slow".into(), ..ModelInferRequest::default() };
    let status = server.grpc().await.model_infer(message).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "slow:1 is overloaded: its queue is full; try again later");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    // The one with a head only, REST and gRPC.
    assert_eq!(server.rejected("slow", "queue_full"), 3);

    // It still says that it lives: being busy is no reason to be restarted.
    assert_eq!(server.get("/v2/health/ready").await.status, StatusCode::OK);
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert_eq!(send(server, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_comes_too_late_is_refused_in_time_and_never_run() {
    let options = Options { workers: 1, ..Options::default() };
    let (_repository, server, model) = slow(options).await;
    let first = tokio::spawn(send(Arc::clone(&server), &[]));
    busy(&model, 0).await;
    let begun = Instant::now();
    let late = send(Arc::clone(&server), &[("x-envoy-expected-rq-timeout-ms", "20")]).await;
    assert_eq!(late.error(504), "slow:1 did not answer within the time that the request gave it");

    let mut client = server.grpc().await;
    let (_, raw) = long();
    let size = i64::try_from(SLOW).unwrap();
    let input = InferInputTensor {
        name: "x0".into(),
        datatype: "FP32".into(),
        shape: vec![size, size],
        ..InferInputTensor::default()
    };
    let mut message = ModelInferRequest {
        model_name: "slow".into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    };
    let soon = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(20_000)) };
    message.parameters.insert("timeout".into(), soon);
    let status = client.model_infer(message).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(server.rejected("slow", "deadline"), 2);
    assert!(!first.is_finished(), "refused while the worker was still busy, after {:?}", begun.elapsed());
    // The worker goes from the first to the last; in between there was nothing that anybody waited for.
    first.await.unwrap();
    let begun = Instant::now();
    until("idle", || {
        model.workers().unwrap().running() == 0 && model.workers().unwrap().queue().waiting() == 0
    })
    .await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_leaves_is_not_run() {
    let options = Options { workers: 1, ..Options::default() };
    let (_repository, server, model) = slow(options).await;
    let first = tokio::spawn(send(Arc::clone(&server), &[]));
    busy(&model, 0).await;
    let leavers: Vec<_> = (0..20).map(|_| tokio::spawn(send(Arc::clone(&server), &[]))).collect();
    // On a busy machine the first may be done before the last has come.
    until("many wait", || model.workers().unwrap().queue().waiting() >= 12).await;
    for leaver in leavers {
        leaver.abort();
        assert!(leaver.await.unwrap_err().is_cancelled());
    }
    first.await.unwrap();
    let begun = Instant::now();
    until("idle", || {
        model.workers().unwrap().running() == 0 && model.workers().unwrap().queue().waiting() == 0
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "twenty would take ten: {:?}", begun.elapsed());
}

#[tokio::test]
async fn workers_grow_while_many_wait() {
    let options = Options { workers: 1, max_workers: 3.try_into().unwrap(), ..Options::default() };
    let (_repository, server, model) = slow(options).await;
    assert_eq!(model.workers().unwrap().count(), 1);
    let answers: Vec<_> = (0..12).map(|_| tokio::spawn(send(Arc::clone(&server), &[]))).collect();
    until("three workers", || model.workers().unwrap().count() == 3).await;
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(model.workers().unwrap().count(), 3);
}

/// Nobody looks at the repository here: the time in which a file has changed and the model has not yet.
#[tokio::test]
async fn no_worker_runs_another_file_than_the_others() {
    let options = Options { workers: 1, max_workers: 3.try_into().unwrap(), ..Options::default() };
    let (repository, server, model) = slow(options).await;
    let file = repository.path().join("slow/1/model.onnx");
    fs::write(file.with_extension("new"), onnx::table(&[1.0])).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
    let answers: Vec<_> = (0..12).map(|_| tokio::spawn(send(Arc::clone(&server), &[]))).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(model.workers().unwrap().count(), 1);
}

#[tokio::test]
async fn workers_that_are_not_needed_go_again() {
    let (max_workers, linger) = (3.try_into().unwrap(), Duration::from_millis(20));
    let options = Options { workers: 1, max_workers, linger, ..Options::default() };
    let (_repository, server, model) = slow(options).await;
    let answers: Vec<_> = (0..12).map(|_| tokio::spawn(send(Arc::clone(&server), &[]))).collect();
    until("three workers", || model.workers().unwrap().count() == 3).await;
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    until("one worker", || model.workers().unwrap().count() == 1).await;
    // The last one stays, however long it has nothing to do.
    tokio::time::sleep(linger * 5).await;
    assert_eq!(model.workers().unwrap().count(), 1);
    assert_eq!(send(server, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_take_no_more_than_their_budget() {
    let options = Options { max_body: 1 << 20, max_bodies: 3 << 20, ..Options::default() };
    let (_repository, server, _) = slow(options).await;
    let whole = 1_000_000;
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {whole}\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; whole - 1]).await.unwrap();
        held.push(stream);
    }
    until("all is taken", || server.app.budget.has_room(whole).is_err()).await;
    let problem = "the bodies of requests take all of the 3145728 bytes kept for them; try again later";
    let refused = server.post(INFER, vec![b' '; whole]).await;
    assert_eq!(refused.error(429), problem);
    assert_eq!(refused.header("retry-after"), "1");

    let mut message = ModelInferRequest { model_name: "slow".into(), ..ModelInferRequest::default() };
    message.raw_input_contents = vec![vec![0; whole].into()];
    let status = server.grpc().await.model_infer(message).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, problem));
    // The message of gRPC that would have named the model was not read.
    assert_eq!((server.rejected("slow", "body_budget"), server.rejected("", "body_budget")), (1, 1));

    // What is small still gets through, and with the last byte all is given back.
    assert_eq!(server.post(INFER, "{}").await.status, StatusCode::BAD_REQUEST);
    drop(held);
    until("given back", || server.app.budget.has_room(3 << 20).is_ok()).await;
    let answer = server.post(INFER, vec![b' '; whole]).await;
    assert!(answer.error(400).starts_with("malformed request: "));
}

#[tokio::test]
async fn compressed_messages_count_by_what_they_become() {
    let message = || ModelInferRequest {
        model_name: "digits".into(),
        inputs: vec![InferInputTensor {
            name: "pixels".into(),
            datatype: "FP32".into(),
            shape: vec![1024, 64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 1024 * 64 * 4].into()],
        ..ModelInferRequest::default()
    };
    for (max_bodies, expected) in [(200 << 10, Code::ResourceExhausted), (300 << 10, Code::Ok)] {
        let options = Options { max_bodies, ..Options::default() };
        let server = Server::start(&committed_models(), &["digits:2"], options).await;
        let mut client = server.grpc().await.send_compressed(CompressionEncoding::Gzip);
        // What one took is given back before the next.
        for _ in 0..2 {
            let code = client.model_infer(message()).await.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(code, expected, "{max_bodies}");
        }
    }
}

#[tokio::test]
async fn who_declares_much_and_sends_nothing_holds_nothing() {
    let options = Options { max_body: 1 << 20, max_bodies: 1 << 20, ..Options::default() };
    let (_repository, server, _) = slow(options).await;
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let answer = server.post(INFER, vec![b' '; 900_000]).await;
    assert!(answer.error(400).starts_with("malformed request: "));
}

#[tokio::test]
async fn requests_that_wait_are_run_together_and_get_their_own_answers() {
    let options = Options {
        workers: 1,
        batch: BatchLimits { size: 16, delay: Duration::from_millis(50) },
        ..Options::default()
    };
    let models = committed_models();
    let server = Arc::new(Server::start(&models, &["digits:2"], options).await);
    let model = server.app.models.find("digits", None).unwrap();
    assert_eq!(
        model.workers().unwrap().batch().size,
        16,
        "the model says that its first dimension is the batch"
    );
    let digits = held_out();
    let expected = server.post("/v2/models/digits/infer", request(&digits)).await;
    let (labels, probabilities) = (expected.output("label"), expected.output("probabilities"));
    // Requests of one to three digits, for one output or both.
    let mut answers = JoinSet::new();
    for (index, start) in (0..digits.len() - 3).step_by(3).enumerate() {
        let (server, some) = (Arc::clone(&server), digits[start..=start + index % 3].to_vec());
        answers.spawn(async move {
            let mut body: serde_json::Value = serde_json::from_str(&request(&some)).unwrap();
            if index % 2 == 0 {
                body["outputs"] = json!([{ "name": "label" }]);
            }
            (index, start, some.len(), server.post("/v2/models/digits/infer", body.to_string()).await)
        });
    }
    while let Some(answer) = answers.join_next().await {
        let (index, start, count, answer) = answer.unwrap();
        assert_eq!(answer.output("label"), &labels[start..start + count], "{index}");
        if index % 2 == 1 {
            let expected = &probabilities[start * 10..(start + count) * 10];
            for (got, expected) in answer.output("probabilities").iter().zip(expected) {
                assert!((got.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-5);
            }
        }
    }
}
