//! The layers around a real axum router and a real tonic server, over real connections.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use axum::{
    Extension, Router,
    http::StatusCode,
    routing::{get, post},
};
use halftone_telemetry::{
    context::{ContextLayer, RequestContext, Served},
    metrics::ModelMetrics,
    outcome::Outcome,
    request_log::{MODEL_HEADER, RequestLogLayer},
    sampling::Sampling,
    trace::{Sink, Tracer},
    trace_layer::{Begins, TraceLayer},
};
use reqwest::Client;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// The value of a line that begins so.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line[series.len()..].trim().split(' ').next().unwrap().parse().unwrap()
}

async fn infer(Extension(context): Extension<Arc<RequestContext>>) -> (StatusCode, &'static str) {
    context.serve(Served { model: "digits".into(), version: "2".into(), hardware: "cpu" });
    let running = context.begin_inference();
    if context.evaluation.is_none() && context.parent.is_none() {
        running.end(Outcome::Invalid);
        return (StatusCode::BAD_REQUEST, "no trace");
    }
    running.end(Outcome::Ok);
    (StatusCode::OK, "7")
}

#[tokio::test]
async fn an_axum_service_is_counted_and_measured() {
    let metrics = ModelMetrics::default();
    let router = Router::new()
        .route("/models/{name}/infer", get(infer))
        .layer(metrics.layer())
        .layer(RequestLogLayer)
        .layer(ContextLayer);
    let address = serve(router).await;
    let get = async |path: &str, traced: bool| {
        let mut request = client().get(format!("http://{address}{path}"));
        if traced {
            request = request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
        }
        request.send().await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(get("/models/a/infer", true).await.headers()[MODEL_HEADER], "digits:2");
    }
    assert_eq!(get("/models/b/infer", false).await.status(), 400);
    // What nobody knows makes no label, however often it is asked for.
    for path in ["/a", "/b", "/c"] {
        assert_eq!(get(path, false).await.status(), 404);
    }
    let text = metrics.render();
    let requests = |labels: &str| value(&text, &format!("model_request_total{{{labels}}}"));
    let endpoint = "model_name=\"digits\",api_endpoint=\"/models/{name}/infer\"";
    assert!((requests(&format!("{endpoint},http_status=\"200\"")) - 3.0).abs() < 1e-9);
    assert!((requests(&format!("{endpoint},http_status=\"400\"")) - 1.0).abs() < 1e-9);
    let of_inference = |name: &str, status: &str| {
        let labels = format!("model_name=\"digits\",status=\"{status}\",hardware_type=\"cpu\"");
        value(&text, &format!("model_inference_duration_seconds_{name}{{{labels}}}"))
    };
    assert!((of_inference("count", "ok") - 3.0).abs() < 1e-9);
    assert!((of_inference("count", "invalid") - 1.0).abs() < 1e-9);
    assert!(of_inference("sum", "ok") > 0.0);
    assert!(text.contains(&format!("trace_id=\"{TRACE}\"")), "exemplars link to traces: {text}");
    assert!(!text.contains("\"/a\""), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

/// Where spans are recorded, but not looked at.
struct Anywhere;

impl Sink for Anywhere {
    fn take(&self, _: &[u8]) {}
}

/// Also of traces that this program leaves to others, but of none that nobody has.
#[tokio::test]
async fn exemplars_name_traces_that_are_recorded() {
    let most = |most: u32| Tracer::new(Anywhere, Arc::new(Sampling::new(1.0, most)));
    let (by_client, by_filter) = ("b7ad6b7169203331", &TRACE[16..]);
    for (case, tracer, came, is_named) in [
        ("sampled by a client", most(0), Some((by_client, "01")), true),
        ("not sampled by a client", most(9), Some((by_client, "00")), false),
        ("begun in the filter", most(9), Some((by_filter, "03")), true),
        ("begun in the filter, beyond the limit", most(0), Some((by_filter, "03")), false),
        ("begun in the filter, not sampled", most(9), Some((by_filter, "02")), false),
        ("begun here", most(9), None, true),
        ("begun here, beyond the limit", most(0), None, false),
        ("sampled by a client, nothing sent", Tracer::none(), Some((by_client, "01")), true),
        ("not sampled by a client, nothing sent", Tracer::none(), Some((by_client, "00")), false),
        ("no trace, nothing sent", Tracer::none(), None, false),
    ] {
        let metrics = ModelMetrics::default();
        let router = Router::new()
            .route("/infer", post(infer))
            .layer(metrics.layer())
            .layer(TraceLayer::new(tracer, Begins::Inferences))
            .layer(ContextLayer);
        let address = serve(router).await;
        let mut request = client().post(format!("http://{address}/infer"));
        if let Some((parent, flags)) = came {
            request = request.header("traceparent", format!("00-{TRACE}-{parent}-{flags}"));
        }
        request.send().await.unwrap();
        let text = metrics.render();
        assert!(text.contains("model_inference_duration_seconds_count"), "{case}: {text}");
        assert_eq!(text.contains("trace_id="), is_named, "{case}: {text}");
        assert_eq!(text.contains(TRACE), is_named && came.is_some(), "{case}: {text}");
    }
}

#[tokio::test]
async fn requests_outside_of_all_routes_are_other() {
    let metrics = ModelMetrics::default();
    // Around the whole router: also what it has no route for passes.
    let service =
        tower_layer::Layer::layer(&metrics.layer(), Router::<()>::new().route("/", get(async || "")));
    let router = Router::new().fallback_service(service);
    let address = serve(router).await;
    for path in ["/x", "/y?z", "/"] {
        client().get(format!("http://{address}{path}")).send().await.unwrap();
    }
    let text = metrics.render();
    let other = |status: u16| {
        format!("model_request_total{{model_name=\"\",api_endpoint=\"other\",http_status=\"{status}\"}}")
    };
    assert!((value(&text, &other(404)) - 2.0).abs() < 1e-9);
    assert!((value(&text, &other(200)) - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_tonic_server_is_counted_and_measured_by_the_same_layers() {
    let metrics = ModelMetrics::default();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("known", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .layer(ContextLayer)
        .layer(RequestLogLayer)
        .layer(metrics.layer().model("prices", "7").hardware("cuda"))
        .add_service(health);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(server.serve_with_incoming(incoming));

    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        HealthClient::new(channel.clone()).check(request).await
    };
    check("known").await.unwrap();
    check("known").await.unwrap();
    check("unknown").await.unwrap_err();
    let text = metrics.render();
    let endpoint = "model_name=\"prices\",api_endpoint=\"/grpc.health.v1.Health/Check\"";
    let ok = value(&text, &format!("model_request_total{{{endpoint},http_status=\"200\"}}"));
    assert!((ok - 2.0).abs() < 1e-9);
    // NOT_FOUND is 404: such a call makes no label of its own.
    let other = "model_request_total{model_name=\"prices\",api_endpoint=\"other\",http_status=\"404\"}";
    assert!((value(&text, other) - 1.0).abs() < 1e-9);
    for (status, count) in [("ok", 2.0), ("invalid", 1.0)] {
        let labels = format!("model_name=\"prices\",status=\"{status}\",hardware_type=\"cuda\"");
        let got = value(&text, &format!("model_inference_duration_seconds_count{{{labels}}}"));
        assert!((got - count).abs() < 1e-9, "{text}");
    }
}

#[tokio::test]
async fn who_leaves_is_counted_too() {
    let metrics = ModelMetrics::default();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
    let slow = get(async move |Extension(context): Extension<Arc<RequestContext>>| {
        context.serve(Served { model: "slow".into(), version: "1".into(), hardware: "cpu" });
        let _running = context.begin_inference();
        begun.lock().unwrap().take().unwrap().send(()).unwrap();
        std::future::pending::<()>().await;
    });
    let router = Router::new().route("/slow", slow).layer(metrics.layer()).layer(ContextLayer);
    let address = serve(router).await;
    let request = tokio::spawn(client().get(format!("http://{address}/slow")).send());
    has_begun.await.unwrap();
    request.abort();
    let series = "model_request_total{model_name=\"slow\",api_endpoint=\"/slow\",http_status=\"499\"}";
    let labels = "{model_name=\"slow\",status=\"cancelled\",hardware_type=\"cpu\"}";
    let counted = async || {
        while !metrics.render().contains(series) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), counted()).await.expect("is counted");
    let text = metrics.render();
    assert!((value(&text, &format!("model_inference_duration_seconds_count{labels}")) - 1.0).abs() < 1e-9);
}
