//! One request from the edge to the model's output is one trace, at a real collector.

use anyhow::{Context, Result, ensure};
use halftone_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use halftone_tests::{
    Backend, ControlPlane, Envoy, EnvoyOptions, Paths,
    collector::{Collector, Received, attribute, with_tracer},
    digits::{self, Digit},
    traffic,
};
use opentelemetry_proto::tonic::{metrics::v1::metric, trace::v1::span::SpanKind};
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;
use tonic::{Request, transport::Endpoint};

/// Users below 50 of 100 get the candidate.
fn rules(backends: &[Backend]) -> String {
    let target = |backend: &Backend| {
        format!("  v{}: {{endpoints: ['{}'], protocol: http2}}\n", backend.version(), backend.address)
    };
    let targets: String = backends.iter().map(target).collect();
    format!(
        "version: v1\ntargets:\n{targets}default: v1\nrules: [{{name: canary, condition: user.id % 100 < 50, target: v2}}]\n"
    )
}

/// Everything, with a real collector.
struct World {
    collector: Collector,
    envoy: Envoy,
    control_plane: ControlPlane,
    rules: String,
    revision: u64,
    digit: Digit,
    backends: Vec<Backend>,
    _folder: TempDir,
}

impl World {
    /// The backend sends by this protocol; Envoy's own tracer is on or off.
    async fn start(protocol: &str, tracer: bool, serve: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let collector = Collector::start(folder.path()).await?;
        let mut paths = Paths::find()?;
        let endpoint = if protocol == "grpc" { collector.grpc } else { collector.http };
        let otlp = [
            "--otlp-endpoint".to_owned(),
            format!("http://{endpoint}"),
            "--otlp-protocol".to_owned(),
            protocol.to_owned(),
            "--otlp-metrics-interval".to_owned(),
            "200".to_owned(),
        ];
        paths.inference_flags = otlp.to_vec();
        paths.serve_flags = otlp.iter().map(Into::into).chain(serve.iter().map(Into::into)).collect();
        if tracer {
            paths.serve_flags.extend(["--trace-owner", "proxy"].map(Into::into));
        }
        let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
        let mut backends = Vec::new();
        for version in [1, 2] {
            backends.push(Backend::start(&paths, folder.path(), version, 0).await?);
        }
        let options = EnvoyOptions {
            name: "envoy",
            workers: 1,
            xds: control_plane.xds,
            xds_form: "sotw",
            default_endpoint: backends.first().context("no backend")?.address,
            port: 0,
            admin: 0,
            edit_bootstrap: str::to_owned,
        };
        let edit = |text: &str| {
            if tracer { with_tracer(text, collector.http, true) } else { text.to_owned() }
        };
        let envoy = Envoy::start_edited(&paths, folder.path(), &options, &[], edit).await?;
        control_plane.wait_for_acks(0, 1).await?;
        let rules = rules(&backends);
        let revision = control_plane.put("digits", rules.as_str()).await?;
        control_plane.wait_until_applied(revision, 1, 1).await?;
        let digit = digits::test_set()?.into_iter().next().context("no digit")?;
        Ok(Self { collector, envoy, control_plane, rules, revision, digit, backends, _folder: folder })
    }

    /// Has a model answer, over REST; gives what says which trace it was.
    async fn rest(&self, user: u64, traceparent: Option<&str>) -> Result<()> {
        let mut headers = axum::http::HeaderMap::new();
        if let Some(traceparent) = traceparent {
            headers.insert("traceparent", traceparent.parse()?);
        }
        let client = traffic::client()?;
        let exchange = traffic::send(&client, &self.envoy.infer_url(), user, &self.digit, headers).await;
        ensure!(exchange.status == Ok(200), "{exchange:?}");
        Ok(())
    }

    /// The same over gRPC.
    async fn grpc(&self, user: u64, traceparent: Option<&str>) -> Result<()> {
        let channel = Endpoint::from_shared(format!("http://{}", self.envoy.address))?.connect().await?;
        let input = InferInputTensor {
            name: "pixels".into(),
            datatype: "FP32".into(),
            shape: vec![1, 64],
            ..InferInputTensor::default()
        };
        let message = ModelInferRequest {
            model_name: "digits".into(),
            inputs: vec![input],
            raw_input_contents: vec![
                self.digit
                    .pixels
                    .iter()
                    .flat_map(|&p| f32::from(p).to_le_bytes())
                    .collect::<Vec<u8>>()
                    .into(),
            ],
            ..ModelInferRequest::default()
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-user-id", user.to_string().parse()?);
        if let Some(traceparent) = traceparent {
            request.metadata_mut().insert("traceparent", traceparent.parse()?);
        }
        GrpcInferenceServiceClient::new(channel).model_infer(request).await?;
        Ok(())
    }
}

/// A client's trace.
fn trace(number: u8) -> String {
    format!("0af7651916cd43dd8448eb211c8031{number:02x}")
}

const CLIENT: &str = "b7ad6b7169203331";

fn traceparent(number: u8, flags: &str) -> String {
    format!("00-{}-{CLIENT}-{flags}", trace(number))
}

fn named<'a>(spans: &'a [Received], name: &str) -> Result<&'a Received> {
    let found: Vec<&Received> = spans.iter().filter(|span| span.span.name == name).collect();
    let names: Vec<&str> = spans.iter().map(|span| span.span.name.as_str()).collect();
    ensure!(found.len() == 1, "{} spans {name:?} among {names:?}", found.len());
    found.into_iter().next().context("none")
}

/// The backend's span of the request, of which all else is checked.
const REST: &str = "POST /v2/models/{model}/infer";
const GRPC: &str = "inference.GRPCInferenceService/ModelInfer";

const STAGES: [&str; 6] = ["evaluation context", "decode", "queue", "batch", "inference", "encode"];

/// Whether all that the backend says of an inference is there.
fn is_complete(spans: &[Received], server: &str) -> bool {
    let names: BTreeSet<&str> = spans.iter().map(|span| span.span.name.as_str()).collect();
    STAGES.iter().chain([&server]).all(|name| names.contains(name))
}

/// Checks the tree, and what it says. `above`: the parent of the backend's span.
fn check(spans: &[Received], server: &str, above: &str, revision: u64) -> Result<()> {
    let top = named(spans, server)?;
    assert_eq!(top.parent(), above);
    assert_eq!(top.span.kind(), SpanKind::Server);
    for (stage, parent) in [
        ("evaluation context", server),
        ("decode", server),
        ("queue", server),
        ("batch", server),
        ("inference", "batch"),
        ("encode", server),
    ] {
        let (stage, parent) = (named(spans, stage)?, named(spans, parent)?);
        assert_eq!(stage.parent(), parent.id(), "{}", stage.span.name);
        assert!(stage.span.start_time_unix_nano >= parent.span.start_time_unix_nano, "{stage:?}");
        assert!(stage.span.end_time_unix_nano <= parent.span.end_time_unix_nano, "{stage:?} {parent:?}");
    }
    let revision = revision.to_string();
    let expected = BTreeMap::from([
        ("halftone.ruleset", "digits"),
        ("halftone.revision", &revision),
        ("halftone.rule", "canary"),
        ("halftone.variant", "v2"),
        ("model.name", "digits"),
        ("model.version", "2"),
        ("hardware_type", "cpu"),
        ("halftone.outcome", "ok"),
    ]);
    for (key, value) in expected {
        assert_eq!(top.attribute(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(top.of_resource("service.name").as_deref(), Some("halftone-inference"));
    assert_eq!(top.of_resource("model.version").as_deref(), Some("2"));
    let protocol: &[(&str, &str)] = if server == GRPC {
        &[("rpc.system.name", "grpc"), ("rpc.method", GRPC), ("rpc.response.status_code", "OK")]
    } else {
        &[
            ("http.request.method", "POST"),
            ("http.route", "/v2/models/{model}/infer"),
            ("url.path", "/v2/models/digits/infer"),
            ("http.response.status_code", "200"),
        ]
    };
    for (key, value) in protocol {
        assert_eq!(top.attribute(key).as_deref(), Some(*value), "{key}");
    }
    let context = named(spans, "evaluation context")?;
    let [event] = context.span.events.as_slice() else { panic!("{context:?}") };
    assert_eq!(event.name, "feature_flag.evaluation");
    let (begun, ended) = (context.span.start_time_unix_nano, context.span.end_time_unix_nano);
    assert!((begun..=ended).contains(&event.time_unix_nano), "{event:?}");
    for (key, value) in [
        ("feature_flag.key", "digits"),
        ("feature_flag.result.variant", "v2"),
        ("feature_flag.result.reason", "targeting_match"),
        ("feature_flag.provider.name", "halftone"),
        ("feature_flag.version", revision.as_str()),
    ] {
        assert_eq!(attribute(&event.attributes, key).as_deref(), Some(value), "{key}");
    }
    let batch = named(spans, "batch")?;
    assert_eq!(batch.attribute("halftone.batch.requests").as_deref(), Some("1"));
    Ok(())
}

/// The trace in which a span has this attribute, found among all.
async fn trace_of(world: &World, server: &str, except: &BTreeSet<String>) -> Result<String> {
    let start = std::time::Instant::now();
    loop {
        let spans = world.collector.receiver.spans();
        let found = spans.iter().find(|span| span.span.name == server && !except.contains(&span.trace()));
        if let Some(span) = found {
            return Ok(span.trace());
        }
        ensure!(start.elapsed().as_secs() < 30, "no trace began");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Over REST and gRPC, with a client's trace that is sampled, one that is not, and none.
async fn one_trace_each(world: &World, tracer: bool) -> Result<()> {
    let receiver = &world.collector.receiver;
    world.rest(1, Some(&traceparent(1, "00"))).await?;
    world.grpc(1, Some(&traceparent(2, "00"))).await?;
    world.rest(1, Some(&traceparent(3, "01"))).await?;
    world.grpc(1, Some(&traceparent(4, "01"))).await?;
    let mut known = BTreeSet::from([trace(3), trace(4)]);
    for (number, server) in [(3, REST), (4, GRPC)] {
        let complete = |spans: &[Received]| {
            let of_envoy = spans.iter().any(|s| s.of_resource("service.name").as_deref() == Some("edge"));
            is_complete(spans, server) && (of_envoy || !tracer)
        };
        // Envoy sends its spans five at a time.
        for _ in 0..if tracer { 10 } else { 0 } {
            world.rest(1, Some(&traceparent(9, "01"))).await?;
        }
        let spans = receiver.trace(&trace(number), complete).await?;
        let above = parent_of(&spans, server, tracer)?;
        check(&spans, server, &above, world.revision)?;
    }
    known.insert(trace(9));
    // Where the client has none, one begins: at the filter, whose span is nobody's, or at the tracer.
    world.rest(1, None).await?;
    for _ in 0..if tracer { 10 } else { 0 } {
        world.rest(1, Some(&traceparent(9, "01"))).await?;
    }
    let begun = trace_of(world, REST, &known).await?;
    let complete = |spans: &[Received]| {
        let of_envoy = spans.iter().any(|s| s.of_resource("service.name").as_deref() == Some("edge"));
        is_complete(spans, REST) && (of_envoy || !tracer)
    };
    let spans = receiver.trace(&begun, complete).await?;
    let roots = spans.iter().filter(|span| span.parent().is_empty()).count();
    assert_eq!(roots, 1, "one tree: {spans:#?}");
    let above = if tracer { parent_of(&spans, REST, true)? } else { String::new() };
    check(&spans, REST, &above, world.revision)?;
    // All that was sent later has come, and nothing of what is not sampled.
    for number in [1, 2] {
        assert!(receiver.spans().iter().all(|span| span.trace() != trace(number)));
    }
    Ok(())
}

/// The span above the backend's: the client's, or Envoy's, which is below the client's.
fn parent_of(spans: &[Received], server: &str, tracer: bool) -> Result<String> {
    if !tracer {
        return Ok(CLIENT.to_owned());
    }
    let top = named(spans, server)?;
    let envoys = spans.iter().find(|span| span.id() == top.parent()).context("the parent is nobody's")?;
    ensure!(envoys.of_resource("service.name").as_deref() == Some("edge"), "{envoys:?}");
    ensure!(envoys.attribute("halftone.target").as_deref() == Some("v2"), "{envoys:?}");
    let above = envoys.parent();
    ensure!(above == CLIENT || above.is_empty(), "{envoys:?}");
    Ok(top.parent())
}

#[tokio::test]
async fn a_request_is_one_trace_by_grpc() -> Result<()> {
    let world = World::start("grpc", false, &[]).await?;
    one_trace_each(&world, false).await
}

#[tokio::test]
async fn a_request_is_one_trace_by_http() -> Result<()> {
    let world = World::start("http/protobuf", false, &[]).await?;
    one_trace_each(&world, false).await
}

#[tokio::test]
async fn with_envoys_tracer_it_is_still_one_trace() -> Result<()> {
    let world = World::start("grpc", true, &[]).await?;
    one_trace_each(&world, true).await
}

/// The traces that begin at the filter: all of the candidate's are sampled, and none of stable's.
#[tokio::test]
async fn the_candidate_can_be_sampled_more_often_than_stable() -> Result<()> {
    let flags = ["--trace-sample-stable", "0", "--trace-sample-candidate", "1"];
    let world = World::start("grpc", false, &flags).await?;
    for user in 0..20 {
        // Even ones below 50 of 100, odd ones above.
        world.rest(if user % 2 == 0 { user } else { 50 + user }, None).await?;
    }
    // What comes with a client's trace is sampled if the client says so, stable too.
    world.rest(99, Some(&traceparent(7, "01"))).await?;
    let stable = world.collector.receiver.trace(&trace(7), |spans| is_complete(spans, REST)).await?;
    assert_eq!(named(&stable, REST)?.attribute("halftone.variant").as_deref(), Some("v1"));
    let start = std::time::Instant::now();
    loop {
        let spans = world.collector.receiver.spans();
        let mut begun: Vec<&Received> = spans.iter().filter(|span| span.span.name == REST).collect();
        begun.retain(|span| span.trace() != trace(7));
        assert!(begun.iter().all(|span| span.attribute("halftone.variant").as_deref() == Some("v2")));
        if begun.len() == 10 {
            return Ok(());
        }
        ensure!(start.elapsed().as_secs() < 30, "{} of 10 traces", begun.len());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The collector gets the same numbers that Prometheus reads, with exemplars that lead to traces.
#[tokio::test]
async fn metrics_are_pushed_too() -> Result<()> {
    let world = World::start("grpc", false, &[]).await?;
    for _ in 0..7 {
        world.rest(1, Some(&traceparent(5, "01"))).await?;
    }
    let receiver = &world.collector.receiver;
    let label = |attributes: &[_], key: &str| attribute(attributes, key).unwrap_or_default();
    let sum = receiver.metric("model_request_total", |resource, found| {
        let Some(metric::Data::Sum(sum)) = &found.data else { return None };
        let of_v2 = label(resource, "model.version") == "2";
        let point = sum.data_points.iter().find(|point| {
            let labels = &point.attributes;
            label(labels, "api_endpoint") == "/v2/models/{model}/infer"
                && label(labels, "http_status") == "200"
                && label(labels, "model_name") == "digits"
        })?;
        (of_v2 && format!("{:?}", point.value).contains("7.0")).then_some(sum.is_monotonic)
    });
    assert!(sum.await?);
    let exemplar = receiver.metric("model_inference_duration_seconds", |_, found| {
        let Some(metric::Data::Histogram(histogram)) = &found.data else { return None };
        let point = histogram.data_points.iter().find(|point| point.count == 7)?;
        assert_eq!(label(&point.attributes, "status"), "ok");
        assert_eq!(label(&point.attributes, "hardware_type"), "cpu");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        point.exemplars.first().map(|exemplar| hex(&exemplar.trace_id))
    });
    assert_eq!(exemplar.await?, trace(5));
    // The control plane's come, too.
    let published = receiver.metric("halftone_revision_published", |resource, found| {
        let Some(metric::Data::Gauge(gauge)) = &found.data else { return None };
        let value = format!("{:?}", gauge.data_points.first()?.value);
        (label(resource, "service.name") == "halftone" && value.contains("1.0")).then_some(())
    });
    published.await
}

/// What a person changes is one trace, from the request to each proxy's answer; and so is what a release decides.
#[tokio::test]
async fn a_change_is_one_trace_down_to_the_proxies() -> Result<()> {
    let world = World::start("grpc", false, &[]).await?;
    let receiver = &world.collector.receiver;
    let url = format!("http://{}/v1/rulesets/digits", world.control_plane.rest);
    let text = format!("{}# once more\n", world.rules);
    let put = traffic::client()?.put(&url).header("traceparent", traceparent(1, "01")).body(text);
    ensure!(put.send().await?.status() == 200);
    let stages = ["compile", "prove", "keep", "publish", "push"];
    let complete =
        |spans: &[Received]| stages.iter().all(|stage| spans.iter().any(|span| span.span.name == *stage));
    let spans = receiver.trace(&trace(1), complete).await?;
    let top = named(&spans, "PUT /v1/rulesets/{name}")?;
    assert_eq!((top.parent().as_str(), top.span.kind()), (CLIENT, SpanKind::Server));
    assert_eq!(top.of_resource("service.name").as_deref(), Some("halftone"));
    for stage in stages {
        let above = if stage == "push" { named(&spans, "publish")? } else { top };
        assert_eq!(named(&spans, stage)?.parent(), above.id(), "{stage}");
    }
    let revision = (world.revision + 1).to_string();
    let push = named(&spans, "push")?;
    assert_eq!(push.attribute("halftone.node").as_deref(), Some("envoy"));
    assert_eq!(push.attribute("halftone.revision"), Some(revision));
    assert_eq!(push.attribute("error.type"), None);
    // What is refused says so, and was never published.
    let put = traffic::client()?.put(&url).header("traceparent", traceparent(2, "01")).body("rules: 7");
    ensure!(put.send().await?.status().is_client_error());
    let refused = |spans: &[Received]| spans.iter().any(|span| span.span.name.starts_with("PUT"));
    let spans = receiver.trace(&trace(2), refused).await?;
    assert_eq!(named(&spans, "compile")?.attribute("error.type").as_deref(), Some("invalid_ruleset"));
    assert!(spans.iter().all(|span| span.span.name != "publish"));

    let release = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\nsteps: [{share: 0.2, hold: {for: 1h}}]\n\
                   metrics: {error: {kind: event, role: guardrail, ceiling: 0.2}}\n";
    world.control_plane.put_release("trial", release).await?;
    let start = std::time::Instant::now();
    let began = loop {
        let spans = receiver.spans();
        // The look that starts the release publishes its first step.
        let tick = spans.iter().filter(|span| span.span.name == "tick").find(|tick| {
            spans.iter().any(|span| span.span.name == "publish" && span.trace() == tick.trace())
        });
        if let Some(tick) = tick {
            break tick.trace();
        }
        ensure!(start.elapsed().as_secs() < 60, "no look published anything");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let complete =
        |spans: &[Received]| ["verdict", "publish", "push"].iter().all(|name| named(spans, name).is_ok());
    let spans = receiver.trace(&began, complete).await?;
    let (tick, verdict) = (named(&spans, "tick")?, named(&spans, "verdict")?);
    assert!(tick.parent().is_empty());
    assert_eq!(tick.attribute("halftone.release").as_deref(), Some("trial"));
    assert_eq!(verdict.parent(), tick.id());
    let actions: Vec<_> = verdict
        .span
        .events
        .iter()
        .filter_map(|event| attribute(&event.attributes, "halftone.action"))
        .collect();
    assert_eq!(actions, ["start"]);
    Ok(())
}

/// Lines of the log that belong to a request name its trace, in both programs.
#[tokio::test]
async fn log_lines_name_the_trace() -> Result<()> {
    let world = World::start("grpc", false, &[]).await?;
    world.rest(1, Some(&traceparent(1, "00"))).await?;
    let url = format!("http://{}/v1/rulesets/digits", world.control_plane.rest);
    let text = format!("{}# once more\n", world.rules);
    let put = traffic::client()?.put(&url).header("traceparent", traceparent(2, "00")).body(text);
    ensure!(put.send().await?.status() == 200);
    let start = std::time::Instant::now();
    loop {
        let access = world.backends.iter().any(|backend| {
            backend.log().lines().any(|line| line.contains("\"access\"") && line.contains(&trace(1)))
        });
        let log = world.control_plane.process().log();
        let published = log.lines().any(|line| line.contains("published") && line.contains(&trace(2)));
        if access && published {
            return Ok(());
        }
        ensure!(start.elapsed().as_secs() < 30, "access {access}, published {published}: {log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
