//! A target is spoken to as its ruleset says, by real Envoy.

use anyhow::{Context, Result, ensure};
use axum::http::Version;
use futures::future::join_all;
use halftone_proto::v1::EvaluationContext;
use halftone_tests::{Answering, Envoy, EnvoyOptions, HEALTH, Paths, Ports, Stack, traffic::client};
use reqwest::{Client, Response};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long something that takes a second or two may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane and one Envoy; the backends are the test's own.
struct Front {
    stack: Stack,
    /// What takes what no ruleset governs.
    _elsewhere: Answering,
    _folder: TempDir,
}

impl Front {
    /// With one worker, so that limits are exact.
    async fn start(xds_form: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let mut stack = Stack::start_in(Paths::find()?, folder.path(), Ports::default(), 0, 0, 0).await?;
        let elsewhere = Answering::start().await?;
        elsewhere.answer_with(404);
        let options = EnvoyOptions {
            name: "envoy",
            workers: 1,
            xds: stack.control_plane()?.xds,
            xds_form,
            default_endpoint: elsewhere.address,
            port: 0,
            admin: 0,
            edit_bootstrap: str::to_owned,
        };
        stack.envoys.push(Envoy::start(&Paths::find()?, stack.folder(), &options).await?);
        Ok(Self { stack, _elsewhere: elsewhere, _folder: folder })
    }

    fn envoy(&self) -> &Envoy {
        &self.stack.envoys[0]
    }

    /// Sends everything to the backends, with these settings, once Envoy has taken them.
    async fn publish(&self, backends: &[&Answering], settings: &str) -> Result<()> {
        let endpoints: Vec<String> =
            backends.iter().map(|backend| format!("\"{}\"", backend.address)).collect();
        let endpoints = endpoints.join(", ");
        let ruleset = format!(
            "version: v1\ntargets: {{t: {{endpoints: [{endpoints}]{}{settings}}}}}\ndefault: t\nrules: []\n",
            if settings.is_empty() { "" } else { ", " }
        );
        self.stack.publish("r", &ruleset).await?;
        Ok(())
    }

    fn url(&self) -> String {
        format!("http://{}/", self.envoy().address)
    }

    async fn get(&self, client: &Client) -> Result<Response> {
        Ok(client.get(self.url()).send().await?)
    }

    /// Statuses of so many requests, one after the other.
    async fn statuses(&self, requests: usize) -> Result<Vec<u16>> {
        let client = client()?;
        let mut statuses = Vec::new();
        for _ in 0..requests {
            statuses.push(self.get(&client).await?.status().as_u16());
        }
        Ok(statuses)
    }

    /// A statistic of the target's cluster.
    async fn stat(&self, name: &str) -> Result<u64> {
        self.envoy().stat(&format!("cluster.halftone/r/t.{name}")).await
    }

    async fn wait_for_stat(&self, name: &str, wanted: u64) -> Result<()> {
        let start = Instant::now();
        while self.stat(name).await? != wanted {
            ensure!(start.elapsed() < PATIENCE, "{name} never became {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_request_ends_when_the_targets_time_is_over() -> Result<()> {
    let front = Front::start("sotw").await?;
    let backend = Answering::start().await?;
    let client = client()?;
    backend.delay(Duration::from_secs(3));
    front.publish(&[&backend], "timeout: 400ms").await?;
    let start = Instant::now();
    assert_eq!(front.get(&client).await?.status(), 504);
    // Well before the backend would have answered, and not at once; Envoy's clock is some milliseconds ahead at times.
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(backend.requests(), 1, "a request that took too long is not sent again");

    front.publish(&[&backend], "timeout: 0s").await?;
    assert_eq!(front.get(&client).await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_is_not_well_gets_nothing_and_comes_back() -> Result<()> {
    let front = Front::start("sotw").await?;
    // Those that are not well are the majority.
    let (well, sick, dying) =
        (Answering::start().await?, Answering::start().await?, Answering::start().await?);
    sick.be_well(false);
    dying.be_well(false);
    let settings = format!(
        "health_check: {{path: {HEALTH}, interval: 200ms, timeout: 2s, healthy_after: 2, unhealthy_after: 2}}"
    );
    front.publish(&[&well, &sick, &dying], &settings).await?;
    // Envoy has a new target checked before it has its routes, so from the first request on.
    assert_eq!(front.statuses(60).await?, [200; 60]);
    assert_eq!((well.requests(), sick.requests(), dying.requests()), (60, 0, 0));
    assert_eq!(sick.checked_host(), sick.address.to_string());

    sick.be_well(true);
    let start = Instant::now();
    while sick.requests() == 0 {
        ensure!(start.elapsed() < PATIENCE, "it did not come back");
        front.statuses(10).await?;
    }

    well.be_well(false);
    front.wait_for_stat("membership_healthy", 1).await?;
    // Envoy gathers changes of health for up to a second before its workers hear of them.
    let start = Instant::now();
    let mut before = 0;
    while well.requests() != before {
        ensure!(start.elapsed() < PATIENCE, "it was never left out");
        before = well.requests();
        assert_eq!(front.statuses(60).await?, [200; 60]);
    }

    assert_eq!(dying.requests(), 0);

    // With none left, all are better than nothing.
    sick.be_well(false);
    front.wait_for_stat("membership_healthy", 0).await?;
    let start = Instant::now();
    while well.requests() == before {
        ensure!(start.elapsed() < PATIENCE, "it is not used again");
        assert_eq!(front.statuses(10).await?, [200; 10]);
    }

    // Without a health check nobody is asked.
    front.publish(&[&well, &sick, &dying], "").await?;
    let (asked, start) = (well.checks(), Instant::now());
    assert!(asked > 0);
    while start.elapsed() < Duration::from_secs(1) {
        front.statuses(5).await?;
    }
    // One may have been on its way.
    assert!(well.checks() <= asked + 1, "{} checks after {asked}", well.checks());
    Ok(())
}

#[tokio::test]
async fn what_is_answered_ejects_an_endpoint_only_when_asked() -> Result<()> {
    let front = Front::start("sotw").await?;
    let (well, broken) = (Answering::start().await?, Answering::start().await?);
    broken.answer_with(500);
    front.publish(&[&well, &broken], "").await?;
    let statuses = front.statuses(100).await?;
    let tail = statuses[50..].iter().filter(|status| **status == 500).count();
    assert!(tail > 5, "only {tail} of 50 went to the broken one: it was left out");

    let settings = "outlier_detection: {consecutive_5xx: 4, base_ejection: 10m, max_ejected: 0.5}";
    front.publish(&[&well, &broken], settings).await?;
    let before = broken.requests();
    let start = Instant::now();
    while front.stat("outlier_detection.ejections_active").await? == 0 {
        ensure!(start.elapsed() < PATIENCE, "it was never left out");
        front.statuses(10).await?;
    }
    assert!(broken.requests() - before >= 4, "it was left out before its fourth answer");
    assert_eq!(front.statuses(100).await?, [200; 100]);
    Ok(())
}

#[tokio::test]
async fn a_limit_refuses_what_is_beyond_and_follows_the_endpoints() -> Result<()> {
    let front = Front::start("sotw").await?;
    let (first, second) = (Answering::start().await?, Answering::start().await?);
    for (backends, settings, served) in [
        (vec![&first], "limits: {per_endpoint: {requests: 3}}", 3),
        (vec![&first, &second], "limits: {per_endpoint: {requests: 3}}", 6),
        (vec![&first, &second], "limits: {requests: 5, per_endpoint: {requests: 3}}", 5),
        (vec![&first, &second], "limits: {requests: 500}", 10),
    ] {
        front.publish(&backends, settings).await?;
        backends.iter().for_each(|backend| backend.hold());
        let before: u64 = backends.iter().map(|backend| backend.requests()).sum();
        let client = client()?;
        let requests = (0..10).map(|_| {
            let (client, url) = (client.clone(), front.url());
            tokio::spawn(async move { client.get(url).send().await })
        });
        let requests: Vec<_> = requests.collect();
        let start = Instant::now();
        // Those beyond have their answer, and the others are with the backends.
        let refused = || requests.iter().filter(|request| request.is_finished()).count();
        let arrived = || backends.iter().map(|backend| backend.requests()).sum::<u64>() - before;
        while refused() < 10 - served || arrived() < served as u64 {
            ensure!(start.elapsed() < PATIENCE, "{settings}: {} refused, {} there", refused(), arrived());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        backends.iter().for_each(|backend| backend.let_go());
        let mut statuses = Vec::new();
        for answer in join_all(requests).await {
            let answer = answer??;
            let overloaded = answer.headers().contains_key("x-envoy-overloaded");
            assert_eq!(answer.status() == 503, overloaded, "{settings}");
            statuses.push(answer.status().as_u16());
        }
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), served, "{settings}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_is_sent_again_only_after_what_is_listed() -> Result<()> {
    let front = Front::start("sotw").await?;
    let backend = Answering::start().await?;
    for (settings, failures, status, tries) in [
        ("", 1, 503, 1),
        ("retries: {on: [connect-failure, 429]}", 1, 503, 1),
        ("retries: {on: [503]}", 2, 200, 3),
        ("retries: {on: [gateway-error], attempts: 1}", 2, 503, 2),
        ("retries: {on: [5xx], attempts: 0}", 1, 503, 1),
    ] {
        front.publish(&[&backend], settings).await?;
        let before = backend.requests();
        backend.fail(failures);
        assert_eq!(front.statuses(1).await?, [status], "{settings}");
        assert_eq!(backend.requests() - before, tries, "{settings}");
        backend.fail(0);
    }

    // What took too long once is tried again when that is listed, and is over otherwise.
    for (on, tries) in [("[reset]", 3), ("[connect-failure]", 1)] {
        let settings = format!("timeout: 20s, retries: {{on: {on}, attempts: 2, per_try_timeout: 200ms}}");
        front.publish(&[&backend], &settings).await?;
        backend.delay(Duration::from_secs(3));
        let before = backend.requests();
        assert_eq!(front.statuses(1).await?, [504], "{on}");
        assert_eq!(backend.requests() - before, tries, "{on}");
        backend.delay(Duration::ZERO);
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_hears_the_version_that_its_target_says() -> Result<()> {
    let front = Front::start("sotw").await?;
    let backend = Answering::start().await?;
    let over_1 = client()?;
    let over_2 = Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let heard = async |client: &Client| -> Result<Version> {
        assert_eq!(front.get(client).await?.status(), 200);
        Ok(backend.version())
    };
    for (settings, for_1, for_2) in [
        ("", Version::HTTP_11, Version::HTTP_11),
        ("protocol: http2", Version::HTTP_2, Version::HTTP_2),
        ("protocol: same-as-client", Version::HTTP_11, Version::HTTP_2),
    ] {
        front.publish(&[&backend], settings).await?;
        assert_eq!((heard(&over_1).await?, heard(&over_2).await?), (for_1, for_2), "{settings}");
    }

    // gRPC by a real client, whose status comes in the trailers; and its health checks.
    for protocol in ["same-as-client", "http2"] {
        let settings = format!(
            "protocol: {protocol}, timeout: 30s, health_check: {{grpc: '', interval: 1s, timeout: 5s}}"
        );
        let before = backend.checks();
        front.publish(&[&backend], &settings).await?;
        let channel = tonic::transport::Endpoint::new(front.url())?.connect().await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let message = EvaluationContext { ruleset: "r".into(), ..EvaluationContext::default() };
        let codec = tonic_prost::ProstCodec::<EvaluationContext, EvaluationContext>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static("/test.Echo/Echo");
        let answer = grpc.unary(tonic::Request::new(message.clone()), path, codec).await?;
        assert_eq!(answer.into_inner(), message, "{protocol}");
        assert!(backend.checks() > before, "{protocol}");
        assert_eq!(backend.checked_host(), backend.address.to_string());
        assert_eq!(front.stat("membership_healthy").await?, 1, "{protocol}");
    }
    Ok(())
}

#[tokio::test]
async fn envoy_takes_the_extremes_of_every_setting() -> Result<()> {
    let front = Front::start("sotw").await?;
    let backend = Answering::start().await?;
    for settings in [
        "timeout: 24h, retries: {attempts: 10, on: [5xx, gateway-error, reset, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable, 400, 599], per_try_timeout: 1ms}",
        "timeout: 1ms, health_check: {path: /?a=b, interval: 100ms, timeout: 1ms, healthy_after: 1, unhealthy_after: 1}",
        "health_check: {path: /health, interval: 24h, timeout: 24h, healthy_after: 1000, unhealthy_after: 1000}",
        "protocol: http2, health_check: {grpc: a.B}",
        "outlier_detection: {consecutive_5xx: 1, base_ejection: 1s, max_ejected: 0}",
        "outlier_detection: {consecutive_5xx: 1000, base_ejection: 24h, max_ejected: 1}",
        "limits: {connections: 1, pending: 1, requests: 1, per_endpoint: {connections: 1, pending: 1, requests: 1}}",
        "limits: {connections: 1000000, pending: 1000000, requests: 1000000}",
    ] {
        front.publish(&[&backend], settings).await.with_context(|| settings.to_owned())?;
    }
    let nodes = front.stack.control_plane()?.get("/v1/nodes").await?;
    assert!(nodes[0]["refused"].is_null(), "{nodes}");
    Ok(())
}

#[tokio::test]
async fn other_settings_under_load_lose_nothing() -> Result<()> {
    other_settings_under_load("sotw").await
}

#[tokio::test]
async fn other_settings_under_load_lose_nothing_by_delta_either() -> Result<()> {
    other_settings_under_load("delta").await
}

async fn other_settings_under_load(xds_form: &str) -> Result<()> {
    let front = Front::start(xds_form).await?;
    let (first, second) = (Answering::start().await?, Answering::start().await?);
    // Long enough for requests to be under way whenever something changes.
    [&first, &second].iter().for_each(|backend| backend.delay(Duration::from_millis(5)));
    front.publish(&[&first, &second], "").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..4).map(|_| {
        let (stop, url) = (stop.clone(), front.url());
        tokio::spawn(async move {
            let client = client()?;
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = client.get(&url).send().await;
                answers.push(
                    answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}")),
                );
            }
            Ok::<_, reqwest::Error>(answers)
        })
    });
    let load: Vec<_> = load.collect();
    let check = format!("health_check: {{path: {HEALTH}, interval: 200ms, timeout: 5s}}");
    let settings = [
        "timeout: 20s",
        "limits: {requests: 100}",
        &check,
        "limits: {per_endpoint: {requests: 50}}",
        "outlier_detection: {consecutive_5xx: 3}",
        "protocol: http2",
        "retries: {attempts: 2}",
        "",
    ];
    for round in 0..2 {
        for (at, settings) in settings.iter().enumerate() {
            // The number of endpoints changes with the settings now and then, and with it what limits them.
            let backends = if (round + at) % 3 == 0 { vec![&first] } else { vec![&first, &second] };
            front.publish(&backends, settings).await.with_context(|| (*settings).to_owned())?;
        }
    }
    // A target that is new and has to be checked first.
    let renamed = format!(
        "version: v1\ntargets: {{new: {{endpoints: [\"{}\"], {check}}}}}\ndefault: new\nrules: []\n",
        first.address
    );
    front.stack.publish("r", &renamed).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for client in join_all(load).await {
        answers.extend(client??);
    }
    let failed: Vec<_> = answers.iter().filter(|answer| **answer != Ok(200)).collect();
    assert!(answers.len() > 200, "too little load: {}", answers.len());
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), answers.len(), failed[0]);
    let nodes = front.stack.control_plane()?.get("/v1/nodes").await?;
    assert_eq!(nodes[0]["form"], xds_form);
    Ok(())
}
