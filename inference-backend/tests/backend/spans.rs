//! What a request's trace shows of batches, of services that know features, and of servers that have a model.

use crate::{
    fake::{self, Fake},
    observations::{self, header},
    onnx,
    support::{Options, Server},
};
use axum::{Json, Router, http::HeaderMap, routing::get};
use halftone_inference::queue::BatchLimits;
use halftone_proto::inference::ServerReadyRequest;
use halftone_telemetry::{
    sampling::Sampling,
    trace::{Sink, Tracer},
};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::{
    common::v1::any_value,
    trace::v1::{Span, span::SpanKind},
};
use ort::value::TensorElementType as T;
use prost::Message;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl Sink for Kept {
    fn take(&self, span: &[u8]) {
        let span = Span::decode(span).unwrap();
        self.0.lock().unwrap().push(span);
    }
}

impl Kept {
    fn tracer(&self) -> Tracer {
        Tracer::new(self.clone(), Arc::new(Sampling::new(1.0, 1_000)))
    }

    fn all(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    #[track_caller]
    fn named(&self, name: &str) -> Span {
        let found: Vec<Span> = self.all().into_iter().filter(|span| span.name == name).collect();
        let [one] = found.try_into().unwrap_or_else(|found| panic!("{name}: {found:#?}"));
        one
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

fn parent_in(traceparent: &str) -> [u8; 8] {
    SpanId::from_hex(traceparent.split('-').nth(2).unwrap()).unwrap().to_bytes()
}

const SERVER: &str = "POST /v2/models/{model}/infer";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: [(&str, &str); 1] =
    [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];

fn one() -> String {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1], "data": [1.0] }] }).to_string()
}

#[tokio::test]
async fn a_batch_is_in_the_trace_of_each_request_and_links_to_the_others() {
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    onnx::save(repository.path(), "table", "1", &onnx::table(&[10.0, 20.0, 30.0]));
    let batch = BatchLimits { size: 8, delay: Duration::from_millis(20) };
    let options = Options { workers: 1, batch, ..Options::default() };
    let server = Arc::new(Server::start_traced(repository.path(), &[], options, kept.tracer()).await);
    let requests: Vec<_> = (0..64_u64)
        .map(|number| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let traceparent = format!("00-{:032x}-b7ad6b7169203331-01", number + 1);
                let input = json!({ "name": "index", "datatype": "INT64", "shape": [1], "data": [1] });
                let body = json!({ "inputs": [input] }).to_string();
                let headers = [("traceparent", traceparent.as_str())];
                server.post_with("/v2/models/table/infer", body, &headers).await.output("entry");
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    let spans = kept.all();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (servers, batches) = (of(SERVER), of("batch"));
    assert_eq!((servers.len(), batches.len(), of("inference").len()), (64, 64, 64));
    let together: Vec<_> = batches.iter().filter(|span| !span.links.is_empty()).collect();
    assert!(!together.is_empty(), "64 at once are not run one by one");
    for batch in together {
        let linked: HashSet<_> = batch.links.iter().map(|link| link.span_id.clone()).collect();
        assert_eq!(Some((linked.len() + 1).to_string()), attribute(batch, "halftone.batch.requests"));
        assert_eq!(attribute(batch, "halftone.batch.requests"), attribute(batch, "halftone.batch.rows"));
        assert!(!linked.contains(&batch.parent_span_id), "it is not linked to its own");
        assert!(linked.iter().all(|id| servers.iter().any(|server| server.span_id == *id)));
    }
}

#[tokio::test]
async fn what_fails_in_a_batch_fails_in_its_own_trace() {
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    onnx::save(repository.path(), "table", "1", &onnx::table(&[10.0, 20.0, 30.0]));
    let server = Server::start_traced(repository.path(), &[], Options::default(), kept.tracer()).await;
    let input = json!({ "name": "index", "datatype": "INT64", "shape": [1], "data": [3] });
    let body = json!({ "inputs": [input] }).to_string();
    server.post_with("/v2/models/table/infer", body, &SAMPLED).await.error(400);
    let inference = kept.named("inference");
    assert_eq!(attribute(&inference, "error.type").as_deref(), Some("invalid"));
    assert!(failed(&inference));
    // That the client asked for something impossible is no error of the server.
    let server = kept.named(SERVER);
    assert!(!failed(&server));
    assert_eq!(attribute(&server, "http.response.status_code").as_deref(), Some("400"));
}

#[tokio::test]
async fn a_service_that_knows_features_is_asked_within_the_trace() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&seen);
    let answer = async move |headers: HeaderMap| {
        let traceparent = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        record.lock().unwrap().extend(traceparent);
        Json(json!({ "value": 5.0, "version": "9" }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/f", get(answer))).into_future());
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    let (x, y) = (("x", T::Float32, &["batch"][..]), ("y", T::Float32, &["batch"][..]));
    let (v, w) = (("v", T::Float32, &["batch"][..]), ("w", T::Float32, &["batch"][..]));
    let nodes: [onnx::Node<'_>; 2] = [("Identity", &["x"], &["y"]), ("Identity", &["v"], &["w"])];
    onnx::write(repository.path(), "m", &[x, v], &nodes, &[y, w]);
    let service = json!({ "url": format!("http://{address}/f"), "timeout_ms": 60_000, "ttl_ms": 60_000, "version": "/version" });
    let input = json!({ "from": "service", "service": "profile", "field": "/value" });
    let features = json!({ "services": { "profile": service }, "inputs": { "v": input } });
    fs::write(repository.path().join("m/config.json"), json!({ "features": features }).to_string()).unwrap();
    let server = Server::start_traced(repository.path(), &[], Options::default(), kept.tracer()).await;
    let answer = server.post_with("/v2/models/m/infer", one(), &SAMPLED).await;
    assert_eq!(answer.output("w"), &[json!(5.0)]);
    let (top, stage, call) = (kept.named(SERVER), kept.named("features"), kept.named("GET"));
    assert_eq!(stage.parent_span_id, top.span_id);
    assert_eq!((&call.parent_span_id, call.kind()), (&top.span_id, SpanKind::Client));
    assert_eq!(attribute(&call, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(&call, "server.port"), Some(address.port().to_string()));
    assert_eq!(attribute(&top, "halftone.feature_version").as_deref(), Some("9"));
    let traceparent = seen.lock().unwrap().concat();
    assert!(traceparent.starts_with(&format!("00-{TRACE}-")), "{traceparent}");
    assert_eq!(parent_in(&traceparent).to_vec(), call.span_id);
    // It is known now: nobody is asked.
    server.post_with("/v2/models/m/infer", one(), &SAMPLED).await.output("w");
    assert_eq!(kept.all().iter().filter(|span| span.name == "GET").count(), 1);
}

#[tokio::test]
async fn a_server_that_has_the_model_is_asked_within_the_trace() {
    const CALL: &str = "inference.GRPCInferenceService/ModelInfer";
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&seen);
    let fake = Fake::start(move |number, request| {
        let traceparent = request.metadata().get("traceparent").unwrap().to_str().unwrap();
        record.lock().unwrap().push(traceparent.to_owned());
        if number == 0 { Err(tonic::Status::unavailable("not now")) } else { Ok(fake::y(2.0)) }
    });
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    let folder = repository.path().join("m").join("1");
    fs::create_dir_all(&folder).unwrap();
    let config: Value = json!({ "url": fake.url, "timeout_ms": 60_000 });
    fs::write(folder.join("remote.json"), config.to_string()).unwrap();
    let server = Server::start_traced(repository.path(), &[], Options::default(), kept.tracer()).await;
    let answer = server.post_with("/v2/models/m/infer", one(), &SAMPLED).await;
    assert_eq!(answer.output("y"), &[json!(2.0)]);
    let top = kept.named(SERVER).span_id;
    let calls: Vec<Span> = kept.all().into_iter().filter(|span| span.name == CALL).collect();
    let codes: Vec<_> =
        calls.iter().map(|call| attribute(call, "rpc.response.status_code").unwrap()).collect();
    assert_eq!(codes, ["UNAVAILABLE", "OK"], "each try is a call of its own");
    assert!(failed(&calls[0]));
    let parents: Vec<_> =
        seen.lock().unwrap().iter().map(|traceparent| parent_in(traceparent).to_vec()).collect();
    assert_eq!(parents, calls.iter().map(|call| call.span_id.clone()).collect::<Vec<_>>());
    assert!(calls.iter().all(|call| call.parent_span_id == top && call.kind() == SpanKind::Client));
    // One that is not sampled is passed on as it came.
    let unsampled = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00";
    server.post_with("/v2/models/m/infer", one(), &[("traceparent", unsampled)]).await.output("y");
    assert_eq!(seen.lock().unwrap().last().unwrap(), unsampled);
}

/// Where this program chooses not to record a trace, those that it asks are not to record it, either: their spans would have nothing
/// above them. What clients chose goes on as it came.
#[tokio::test]
async fn who_is_asked_is_told_what_is_not_recorded() {
    let by_features: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&by_features);
    let answer = async move |headers: HeaderMap| {
        record.lock().unwrap().push(headers["traceparent"].to_str().unwrap().to_owned());
        Json(json!({ "value": 5.0 }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/f", get(answer))).into_future());
    let by_server: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&by_server);
    let fake = Fake::start(move |_, request| {
        let told = request.metadata().get_all("traceparent").iter().map(|value| value.to_str().unwrap());
        record.lock().unwrap().push(told.collect::<Vec<_>>().join(" and "));
        Ok(fake::y(2.0))
    });
    let repository = tempfile::tempdir().unwrap();
    let folder = repository.path().join("m").join("1");
    fs::create_dir_all(&folder).unwrap();
    let config: Value = json!({ "url": fake.url, "timeout_ms": 60_000 });
    fs::write(folder.join("remote.json"), config.to_string()).unwrap();
    let service = json!({ "url": format!("http://{address}/f"), "timeout_ms": 60_000, "ttl_ms": 0 });
    let input = json!({ "from": "service", "service": "profile", "field": "/value" });
    let features = json!({ "services": { "profile": service }, "inputs": { "x": input } });
    fs::write(repository.path().join("m/config.json"), json!({ "features": features }).to_string()).unwrap();

    let began = format!("00-{TRACE}-{}-03", &TRACE[16..]);
    let client = |flags: &str| format!("00-{TRACE}-b7ad6b7169203331-{flags}");
    let (limited, share, all) = ((1.0, 0), (0.0, 1_000), (1.0, 1_000));
    for ((share, most), came, flags) in [
        (limited, Some(began.clone()), "02"),
        (limited, None, "02"),
        (limited, Some(client("01")), "01"),
        (limited, Some(client("00")), "00"),
        (share, Some(began.clone()), "03"),
        (share, None, "02"),
        (all, Some(began.clone()), "03"),
        (all, Some(began.replace("-03", "-02")), "02"),
        (all, None, "03"),
    ] {
        let kept = Kept::default();
        let tracer = Tracer::new(kept.clone(), Arc::new(Sampling::new(share, most)));
        let server = Server::start_traced(repository.path(), &[], Options::default(), tracer).await;
        let headers = came.as_deref().map(|came| ("traceparent", came));
        server
            .post_with("/v2/models/m/infer", json!({ "inputs": [] }).to_string(), headers.as_slice())
            .await
            .output("y");
        let told = [&by_features, &by_server].map(|told| told.lock().unwrap().pop().unwrap());
        for told in &told {
            let case = format!("{share} {most} {came:?}: {told}");
            assert!(told.ends_with(&format!("-{flags}")), "{case}");
            assert!(came.is_none() || told.starts_with(&format!("00-{TRACE}-")), "{case}");
            let above = kept.all().iter().any(|span| span.span_id == parent_in(told));
            assert_eq!(above, matches!(flags, "01" | "03"), "{case}");
        }
        let is_unsampled = |came: &&String| came.ends_with("-00") || came.ends_with("-02");
        if let Some(came) = came.as_ref().filter(is_unsampled) {
            assert_eq!(&told, &[came.clone(), came.clone()]);
        }
        assert_eq!(told[0].get(3..35), told[1].get(3..35), "both are asked within one trace");
    }
}

/// Without a trace, an inference begins one; a probe does not, nor does what there is not.
#[tokio::test]
async fn what_belongs_to_no_trace_begins_one_if_it_is_an_inference() {
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    let (x, y) = (("x", T::Float32, &["batch"][..]), ("y", T::Float32, &["batch"][..]));
    onnx::write(repository.path(), "m", &[x], &[("Exp", &["x"], &["y"])], &[y]);
    // Room for the two that follow: probes take none.
    let tracer = Tracer::new(kept.clone(), Arc::new(Sampling::new(1.0, 2)));
    let server = Server::start_traced(repository.path(), &[], Options::default(), tracer).await;
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let (mut client, mut health) = (server.grpc().await, HealthClient::new(channel.connect().await.unwrap()));
    for _ in 0..5 {
        server.get("/v2/health/ready").await;
        server.get("/v2/models/m").await;
        server.post("/nowhere/infer", one()).await;
        server.post("/v2/repository/index", "{}".to_owned()).await;
        health.check(HealthCheckRequest::default()).await.unwrap();
        client.server_ready(ServerReadyRequest {}).await.unwrap();
    }
    assert!(kept.all().is_empty(), "{:#?}", kept.all());
    let answer = server.post("/v2/models/m/infer", one()).await;
    let top = kept.named(SERVER);
    assert!(top.parent_span_id.is_empty());
    assert_eq!(
        answer.headers["x-halftone-trace"],
        TraceId::from_bytes(top.trace_id.try_into().unwrap()).to_string()
    );
    // One that began at the filter has no span above it that anybody records.
    let began = format!("00-{TRACE}-{}-03", &TRACE[16..]);
    server.post_with("/v2/models/m/infer", one(), &[("traceparent", &began)]).await;
    let roots = kept.all().into_iter().filter(|span| span.parent_span_id.is_empty()).count();
    assert_eq!(roots, 2);
}

/// However many traces begin in the filter, so many are recorded; more of them of what a rule took, and all of what clients sample.
#[tokio::test]
async fn traces_that_begin_in_the_filter_are_limited() {
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    let (x, y) = (("x", T::Float32, &["batch"][..]), ("y", T::Float32, &["batch"][..]));
    onnx::write(repository.path(), "m", &[x], &[("Exp", &["x"], &["y"])], &[y]);
    let tracer = Tracer::new(kept.clone(), Arc::new(Sampling::new(1.0, 2)));
    let server = Server::start_traced(repository.path(), &[], Options::default(), tracer).await;
    let began = format!("00-{TRACE}-{}-03", &TRACE[16..]);
    let send = async |traceparent: &str, arm: &str| {
        let context = header(&observations::context(1, arm));
        let headers = [("traceparent", traceparent), ("x-halftone-context", context.as_str())];
        server.post_with("/v2/models/m/infer", one(), &headers).await.output("y");
    };
    let count = || kept.all().iter().filter(|span| span.name == SERVER).count();
    for _ in 0..10 {
        send(&began, "control").await;
    }
    let (stable, unsampled) = (count(), began.replace("-03", "-02"));
    assert!((2..10).contains(&stable), "{stable}: two, or a few more on a slow machine");
    for _ in 0..10 {
        send(&unsampled, "v2").await;
        send(&began, "v2").await;
    }
    let candidate = count() - stable;
    assert!((2..10).contains(&candidate), "{candidate}");
    for _ in 0..10 {
        send(SAMPLED[0].1, "control").await;
    }
    assert_eq!(count(), stable + candidate + 10, "nobody limits clients");
}

/// What clients make up is kept in part: it would take the room of other spans.
#[tokio::test]
async fn long_names_of_clients_are_cut() {
    let (repository, kept) = (tempfile::tempdir().unwrap(), Kept::default());
    let (x, y) = (("x", T::Float32, &["batch"][..]), ("y", T::Float32, &["batch"][..]));
    onnx::write(repository.path(), "m", &[x], &[("Exp", &["x"], &["y"])], &[y]);
    let server = Server::start_traced(repository.path(), &[], Options::default(), kept.tracer()).await;
    let host = "h".repeat(10_000);
    let headers = [SAMPLED[0], ("host", host.as_str())];
    server.post_with("/v2/models/m/infer", one(), &headers).await.output("y");
    assert_eq!(attribute(&kept.named(SERVER), "server.address"), Some("h".repeat(256)));
}
