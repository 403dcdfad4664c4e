//! Rules change, the control plane comes and goes, and no request notices.

use anyhow::{Context, Result};
use halftone_tests::{
    Envoy, EnvoyOptions, Paths, Stack, digits,
    traffic::{Traffic, by_target, client, failures, replay, send},
};
use reqwest::{Client, Method, header::HeaderMap};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn an_invalid_upload_leaves_traffic_untouched() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    let revision = stack.publish("digits", &stack.canary(0.4)).await?;
    let before = replay(&urls, &digits, 1..=500, 4).await?;
    let reloads = "extension_config_discovery.http_filter.halftone.config_reload";
    let applied = stack.envoys[0].stat(reloads).await?;
    assert!(applied > 0, "Envoy has no bundle");
    for invalid in [
        "version: v1\nrules: [",
        "version: v1\nrules: []\nrulez: []",
        "version: v1\nrules:\n  - {name: a, weight: 2, target: v2}",
        "version: v1\nrules:\n  - {name: a, condition: user.id == 'x', target: v2}",
    ] {
        let control_plane = stack.control_plane()?;
        let response = control_plane.request(Method::PUT, "/v1/rulesets/digits", invalid).await?;
        assert_eq!(response.status(), 422, "{invalid}");
    }
    let after = replay(&urls, &digits, 1..=500, 4).await?;
    let assigned =
        |exchanges: &[halftone_tests::traffic::Exchange]| halftone_tests::traffic::assignment(exchanges);
    assert_eq!(assigned(&before).context("unstable")?, assigned(&after).context("unstable")?);
    assert_eq!(stack.control_plane()?.get("/v1/revisions").await?["current"], revision);
    assert_eq!(stack.envoys[0].stat(reloads).await?, applied, "Envoy was told of something");
    Ok(())
}

#[tokio::test]
async fn fifty_uploads_under_load_lose_nothing() -> Result<()> {
    fifty_uploads_under_load(&Stack::start(2, 2).await?).await
}

#[tokio::test]
async fn fifty_uploads_under_load_lose_nothing_by_delta_either() -> Result<()> {
    fifty_uploads_under_load(&start_by_delta(2, 2).await?).await
}

async fn fifty_uploads_under_load(stack: &Stack) -> Result<()> {
    let digits = Arc::new(digits::test_set()?);
    let urls: Vec<String> = stack.envoys.iter().map(Envoy::infer_url).collect();
    stack.publish("digits", &stack.canary(0.5)).await?;
    let traffic = Traffic::start(&urls, &digits, 4, Duration::from_millis(2), 1_000)?;
    for upload in 0..50u32 {
        // Shares move, and every few uploads targets come, go and are renamed.
        let ruleset = match upload % 5 {
            0 => stack.canary(f64::from(upload) / 50.0),
            1 => stack.canary(0.5).replace("v2", "candidate"),
            2 => format!("version: v1\n{}default: v2\nrules: []\n", stack.targets()),
            3 => stack.canary(0.9).replace("name: canary,", "name: canary, condition: user.id % 2 == 0,"),
            _ => format!(
                "version: v1\ntargets: {{only: {{endpoints: [\"{}\"]}}}}\ndefault: only\nrules: []\n",
                stack.backend(1)?.address
            ),
        };
        stack.control_plane()?.put("digits", ruleset).await?;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let last =
        stack.control_plane()?.get("/v1/revisions").await?["current"].as_u64().context("no revision")?;
    stack.control_plane()?.wait_for_acks(last, 2).await?;
    let exchanges = traffic.stop().await?;
    let failed = failures(&exchanges);
    assert!(exchanges.len() > 500, "too little load: {}", exchanges.len());
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), exchanges.len(), failed[0]);
    let targets: Vec<String> = by_target(&exchanges).into_keys().collect();
    assert!(["candidate", "only", "v1", "v2"].iter().all(|t| targets.contains(&(*t).into())), "{targets:?}");
    let everyone = replay(&urls, &digits, 1..=200, 4).await?;
    assert_eq!(by_target(&everyone).into_keys().collect::<Vec<_>>(), ["only"]);
    Ok(())
}

/// Envoys that are told by delta.
async fn start_by_delta(envoys: usize, workers: usize) -> Result<Stack> {
    let mut stack = Stack::start(0, 0).await?;
    for index in 1..=envoys {
        let options = EnvoyOptions {
            name: &format!("envoy-{index}"),
            workers,
            xds: stack.control_plane()?.xds,
            xds_form: "delta",
            default_endpoint: stack.backend(1)?.address,
            port: 0,
            admin: 0,
            edit_bootstrap: str::to_owned,
        };
        let envoy = Envoy::start(&Paths::find()?, stack.folder(), &options).await?;
        stack.envoys.push(envoy);
    }
    let nodes = stack.control_plane()?.get("/v1/nodes").await?;
    let forms = nodes.as_array().into_iter().flatten().map(|node| node["form"].as_str());
    assert!(forms.eq(std::iter::repeat_n(Some("delta"), envoys)), "{nodes}");
    Ok(stack)
}

#[tokio::test]
async fn a_control_plane_that_comes_back_sends_nothing_by_delta_that_is_there() -> Result<()> {
    let mut stack = start_by_delta(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    let revision = stack.publish("digits", &stack.canary(0.5)).await?;
    let traffic = Traffic::start(&urls, &digits, 2, Duration::from_millis(2), 300)?;
    let control_plane = stack.take_control_plane()?.crash_and_restart(Duration::from_millis(200)).await?;
    stack.set_control_plane(control_plane);
    stack.control_plane()?.wait_for_acks(revision, 1).await?;
    let nodes = stack.control_plane()?.get("/v1/nodes").await?;
    for kind in ["cds", "eds", "rds", "ecds"] {
        let status = &nodes[0]["kinds"][kind];
        assert!(status["sent"].is_null() && status["acked"].is_string(), "{kind} was sent again: {nodes}");
    }
    let next = stack.publish("digits", &stack.canary(1.0)).await?;
    assert_eq!(next, revision + 1);
    let exchanges = traffic.stop().await?;
    assert!(failures(&exchanges).is_empty(), "first {:?}", failures(&exchanges)[0]);
    let everyone = replay(&urls, &digits, 1..=100, 4).await?;
    assert_eq!(by_target(&everyone).into_keys().collect::<Vec<_>>(), ["v2"]);
    Ok(())
}

#[tokio::test]
async fn a_control_plane_that_dies_and_comes_back_costs_no_request() -> Result<()> {
    let mut stack = Stack::start(2, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls: Vec<String> = stack.envoys.iter().map(Envoy::infer_url).collect();
    let revision = stack.publish("digits", &stack.canary(0.3)).await?;
    let before = replay(&urls, &digits, 1..=300, 4).await?;
    let traffic = Traffic::start(&urls, &digits, 4, Duration::from_millis(2), 300)?;
    for pause in [0, 1_500] {
        let control_plane = stack.take_control_plane()?;
        let control_plane = control_plane.crash_and_restart(Duration::from_millis(pause)).await?;
        assert_eq!(control_plane.get("/v1/revisions").await?["current"], revision, "the same revision");
        stack.set_control_plane(control_plane);
        stack.control_plane()?.wait_for_acks(revision, 2).await?;
    }
    let next = stack.publish("digits", &stack.canary(0.6)).await?;
    assert_eq!(next, revision + 1, "revisions go on where they were");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let exchanges = traffic.stop().await?;
    let failed = failures(&exchanges);
    assert!(exchanges.len() > 300, "too little load: {}", exchanges.len());
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), exchanges.len(), failed[0]);
    let after = replay(&urls, &digits, 1..=300, 4).await?;
    for exchange in before.iter().filter(|exchange| exchange.target.as_deref() == Some("v2")) {
        let now = after.iter().find(|other| other.user == exchange.user).context("the user is gone")?;
        assert_eq!(now.target.as_deref(), Some("v2"));
    }
    Ok(())
}

#[tokio::test]
async fn envoy_starts_without_the_control_plane_and_takes_up_rules_when_it_comes() -> Result<()> {
    let mut stack = Stack::start(0, 0).await?;
    let digits = digits::test_set()?;
    stack.control_plane()?.put("digits", stack.canary(1.0)).await?;
    let control_plane = stack.take_control_plane()?;
    let (paths_rest, xds) = (control_plane.rest, control_plane.xds);
    let stopped = control_plane.crash()?;
    stack.add_envoy("envoy-alone", 2, xds, 0, 0).await?;
    let url = stack.envoys[0].infer_url();
    let client = client()?;
    for user in 1..=50 {
        let exchange = send(&client, &url, user, &digits[0], HeaderMap::new()).await;
        assert_eq!((exchange.status, exchange.version.as_deref()), (Ok(200), Some("1")));
        assert_eq!(exchange.target, None);
    }
    let control_plane = stopped.start_again().await?;
    assert_eq!((control_plane.rest, control_plane.xds), (paths_rest, xds));
    control_plane.wait_for_acks(1, 1).await?;
    stack.set_control_plane(control_plane);
    let mut decided = 0;
    for user in 1..=200 {
        let exchange = send(&client, &url, user, &digits[0], HeaderMap::new()).await;
        assert_eq!(exchange.status, Ok(200));
        decided = if exchange.target.as_deref() == Some("v2") { decided + 1 } else { 0 };
    }
    assert!(decided > 50, "the rules were not taken up");
    Ok(())
}

#[tokio::test]
async fn an_envoy_that_starts_sends_nobody_to_another_version() -> Result<()> {
    let mut stack = Stack::start(0, 0).await?;
    let digits = digits::test_set()?;
    stack.control_plane()?.put("digits", stack.canary(1.0)).await?;
    let xds = stack.control_plane()?.xds;
    for start in 0..3 {
        stack.envoys.clear();
        // The harness goes on as soon as the listener is open.
        stack.add_envoy(&format!("envoy-{start}"), 2, xds, 0, 0).await?;
        let url = stack.envoys[0].infer_url();
        for user in 1..=100 {
            // A connection of its own each time, for any of the workers.
            let exchange = send(&client()?, &url, user, &digits[0], HeaderMap::new()).await;
            assert_eq!((exchange.status, exchange.target.as_deref()), (Ok(200), Some("v2")), "start {start}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request_while_another_one_lives() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    // Nothing listens there: the port was free a moment ago, and connecting to it is refused at once.
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let alive = stack.backend(2)?.address;
    let ruleset = format!(
        "version: v1\ntargets:\n  v2: {{endpoints: [\"{alive}\", \"{dead}\"]}}\ndefault: v2\nrules: []\n"
    );
    stack.publish("digits", &ruleset).await?;
    let exchanges = replay(&urls, &digits, 1..=4_000, 16).await?;
    let failed = failures(&exchanges);
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), exchanges.len(), failed[0]);
    Ok(())
}

#[tokio::test]
async fn large_headers_over_http_2_arrive_as_over_http_1() -> Result<()> {
    let stack = Stack::start(1, 1).await?;
    let digits = digits::test_set()?;
    stack.publish("digits", &stack.canary(1.0)).await?;
    let client = Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let mut headers = HeaderMap::new();
    headers.insert("x-large", "a".repeat(60 * 1024).parse()?);
    let exchange = send(&client, &stack.envoys[0].infer_url(), 1, &digits[0], headers).await;
    assert_eq!((exchange.status, exchange.target.as_deref()), (Ok(200), Some("v2")));
    Ok(())
}
