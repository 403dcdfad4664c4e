//! The filter inside of real Envoy, beyond routing: what its workers report and count, cookies, override tokens, and
//! rules that it fetches itself.

use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Envoy, Paths, Stack, command, digits,
    traffic::{Traffic, by_target, client, failures, replay},
};
use reqwest::Method;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long a thing may take that takes a moment.
const SOON: Duration = Duration::from_secs(20);

/// Tries until there is an answer.
async fn wait_for<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await? {
            return Ok(found);
        }
        ensure!(start.elapsed() < SOON, "it takes too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends everybody to one version.
fn all_to(stack: &Stack, target: &str) -> String {
    format!(
        "version: v1\n{}default: {target}\nrules:\n  - {{name: never, condition: user.id == 0, target: v1}}\n",
        stack.targets()
    )
}

#[tokio::test]
async fn who_waits_for_applied_finds_every_worker_on_the_new_rules() -> Result<()> {
    let stack = Stack::start(2, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls: Vec<String> = stack.envoys.iter().map(Envoy::infer_url).collect();
    let mut last = 0;
    for round in 0..6 {
        let target = if round % 2 == 0 { "v2" } else { "v1" };
        let path = "/v1/rulesets/digits?wait=applied&timeout=30s";
        let answer = stack.control_plane()?.request(Method::PUT, path, all_to(&stack, target)).await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let fleet = &answer["fleet"];
        assert_eq!((fleet["proxies"].as_u64(), fleet["applied"].as_u64()), (Some(2), Some(2)), "{answer}");
        assert_eq!(fleet["behind"], Value::Array(Vec::new()));
        // Connections of their own: they fall to all workers.
        let exchanges = replay(&urls, &digits, 1..=32, 16).await?;
        assert!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges).first());
        assert_eq!(by_target(&exchanges).keys().collect::<Vec<_>>(), [target], "round {round}");
        last = answer["revision"].as_u64().context("no revision")?;
    }
    let nodes = stack.control_plane()?.get("/v1/nodes").await?;
    for node in nodes.as_array().context("no list")? {
        assert_eq!(node["applied"].as_u64(), Some(last), "{node}");
        // A worker can be heard of before the proxy's ACK is.
        assert!(node["applied_since_ms"].as_u64() >= node["connected_since_ms"].as_u64(), "{node}");
        let workers = node["workers"].as_array().context("no workers")?;
        // Envoy's main thread runs the filter too, although no request comes there.
        assert_eq!(workers.len(), 3, "{node}");
    }
    for envoy in &stack.envoys {
        assert_eq!(envoy.stat("wasmcustom.halftone_revision").await?, last);
    }
    Ok(())
}

#[tokio::test]
async fn decisions_are_counted_with_labels() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let ruleset = format!(
        "version: v1\n{}default: v1\nrules:\n  - {{name: tier, condition: 'user.tier == \"gold\"', target: v2}}\n  - {{name: even.users, condition: user.id % 2 == 0, target: v2}}\n",
        stack.targets()
    );
    stack.publish("digits", &ruleset).await?;
    let exchanges = replay(&[stack.envoys[0].infer_url()], &digits, 1..=101, 4).await?;
    assert!(failures(&exchanges).is_empty());
    let url = format!("http://{}/stats/prometheus", stack.envoys[0].admin);
    let expected = [
        r#"halftone_decisions_total{rule="(default)",ruleset="digits",target="v1"} 51"#,
        r#"halftone_decisions_total{rule="even.users",ruleset="digits",target="v2"} 50"#,
        // Nobody said which tier.
        r#"halftone_evaluation_errors_total{rule="tier",ruleset="digits"} 101"#,
        "halftone_revision{} 1",
    ];
    let mut seen = String::new();
    let found = wait_for("the counters", async || {
        let text = client()?.get(&url).send().await?.text().await?;
        seen = text.lines().filter(|line| line.contains("halftone_")).collect::<Vec<_>>().join("\n");
        Ok(expected.iter().all(|line| seen.lines().any(|found| same_sample(found, line))).then_some(()))
    });
    found.await.with_context(|| seen.clone())?;
    assert!(seen.contains("# TYPE halftone_decisions_total counter"), "{seen}");
    assert!(seen.contains("# TYPE halftone_revision gauge"), "{seen}");
    Ok(())
}

/// Whether two lines say the same, in whatever order their labels are.
fn same_sample(a: &str, b: &str) -> bool {
    let parts = |line: &str| -> Option<(String, Vec<String>, String)> {
        let (name, rest) = line.split_once('{')?;
        let (labels, value) = rest.rsplit_once("} ")?;
        let mut labels: Vec<String> =
            labels.split(',').filter(|label| !label.is_empty()).map(ToOwned::to_owned).collect();
        labels.sort();
        Some((name.into(), labels, value.into()))
    };
    parts(a).is_some() && parts(a) == parts(b)
}

#[tokio::test]
async fn a_visitor_without_an_id_stays_with_a_version() -> Result<()> {
    let stack = Stack::start(1, 2).await?;
    let ruleset = format!("unit_cookie: {{secure: false}}\n{}", stack.canary(0.5));
    stack.publish("digits", &ruleset).await?;
    let digits = digits::test_set()?;
    let url = stack.envoys[0].infer_url();
    let send = async |cookie: Option<&str>| -> Result<reqwest::Response> {
        let request = client()?.post(&url).body(digits[0].request.clone());
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        Ok(request.send().await?.error_for_status()?)
    };
    let target = |response: &reqwest::Response| response.headers().get("x-halftone-target").cloned();
    let mut targets = std::collections::HashSet::new();
    for _ in 0..24 {
        let first = send(None).await?;
        let cookie = first.headers().get("set-cookie").context("no cookie")?.to_str()?.to_owned();
        let pair = cookie.split(';').next().unwrap_or_default();
        assert!(pair.starts_with("halftone-unit=") && cookie.contains("HttpOnly"), "{cookie}");
        for _ in 0..2 {
            let again = send(Some(&format!("theme=dark; {pair}"))).await?;
            assert_eq!(target(&again), target(&first));
            assert_eq!(again.headers().get("set-cookie"), None);
        }
        targets.insert(target(&first));
    }
    assert_eq!(targets.len(), 2, "24 visitors fell all to one side");
    Ok(())
}

#[tokio::test]
async fn a_tester_gets_a_version_by_a_signed_token_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("qa.key");
    let mut paths = Paths::find()?;
    let made = command(&paths.halftone).args(["override", "new-key", "--out"]).arg(&key).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = folder.path().join("qa.key.pub");
    paths.serve_flags = vec!["--override-key-file".into(), public.into()];
    let stack = Stack::start_with(paths, 1, 2).await?;
    stack.publish("digits", &all_to(&stack, "v1")).await?;
    let made = command(&stack.paths().halftone)
        .args(["override", "token", "--ruleset", "digits", "--target", "v2", "--for", "10m", "--key"])
        .arg(&key)
        .output()?;
    let token = String::from_utf8(made.stdout)?.trim().to_owned();
    let digits = digits::test_set()?;
    let send = async |token: &str| -> Result<Value> {
        let request = client()?.post(stack.envoys[0].infer_url()).body(digits[0].request.clone());
        let response = request.header("X-Halftone-Override", token).send().await?.error_for_status()?;
        Ok(response.json().await?)
    };
    for _ in 0..8 {
        assert_eq!(send(&token).await?["model_version"], "2");
        assert_eq!(send("v2").await?["model_version"], "1");
        assert_eq!(send(&token.replace("v2", "v3")).await?["model_version"], "1");
    }
    // What everybody may see who may see Envoy's configuration.
    let dump =
        client()?.get(format!("http://{}/config_dump?include_eds", stack.envoys[0].admin)).send().await?;
    let dump = dump.text().await?;
    let secret = std::fs::read_to_string(&key)?;
    assert!(
        dump.contains("x-halftone-target") && !dump.contains(secret.trim()),
        "the secret key is in the dump"
    );
    Ok(())
}

/// Envoy as `envoy/pull.yaml` has it: without our xDS. `rest` has the bundles.
async fn pulling_envoy(stack: &Stack, rest: SocketAddr, workers: usize) -> Result<Envoy> {
    let address = |text: &str, host: &str, address: SocketAddr| text.replace(host, &address.ip().to_string());
    let (v1, v2) = (stack.backend(1)?.address, stack.backend(2)?.address);
    let mut text = std::fs::read_to_string(halftone_tests::repository().join("envoy/pull.yaml"))?;
    for (host, port, value) in [
        ("<control plane>", "<rest port>", rest),
        ("<host of v1>", "<port of v1>", v1),
        ("<host of v2>", "<port of v2>", v2),
    ] {
        text = address(&text, host, value).replace(port, &value.port().to_string());
    }
    let filter = stack.paths().filter.to_str().context("the path of the filter")?;
    text = text.replace("<path of halftone_filter.wasm>", filter);
    text = text.replace("<admin port>", "0").replace("<port>", "0");
    let folder = stack.folder().join("pull");
    std::fs::create_dir_all(&folder)?;
    let bootstrap = folder.join("bootstrap.yaml");
    std::fs::write(&bootstrap, text)?;
    Envoy::start_from(stack.paths(), Path::new(&folder), "pulling", workers, &bootstrap).await
}

#[tokio::test]
async fn rules_are_fetched_where_xds_is_not_ours() -> Result<()> {
    let mut stack = Stack::start(0, 0).await?;
    let digits = Arc::new(digits::test_set()?);
    stack.control_plane()?.put("digits", all_to(&stack, "v2")).await?;
    let envoy = pulling_envoy(&stack, stack.control_plane()?.rest, 2).await?;
    let urls = [envoy.infer_url()];
    // All workers: each connection is one worker's, and there are many.
    let everybody = async |target: &str| -> Result<()> {
        wait_for(&format!("everybody on {target}"), async || {
            let exchanges = replay(&urls, &digits, 1..=32, 16).await?;
            ensure!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges).first());
            Ok(by_target(&exchanges).keys().eq([target]).then_some(()))
        })
        .await
    };
    everybody("v2").await?;
    let traffic = Traffic::start(&urls, &digits, 4, Duration::from_millis(5), 1_000)?;
    for target in ["v1", "v2", "v1"] {
        stack.control_plane()?.put("digits", all_to(&stack, target)).await?;
        everybody(target).await?;
    }
    // One worker asks, not each of them: the two that the lease may have changed hands between at most.
    let asked = envoy.stat("cluster.halftone.upstream_rq_total").await?;
    assert!(asked < 40, "{asked} requests to the control plane");

    // The last good rules survive the control plane, and it is found again.
    let crashed = stack.take_control_plane()?.crash()?;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    everybody("v1").await?;
    stack.set_control_plane(crashed.start_again().await?);
    stack.control_plane()?.put("digits", all_to(&stack, "v2")).await?;
    everybody("v2").await?;
    let exchanges = traffic.stop().await?;
    assert!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges).first());
    assert!(!envoy.log().contains("[critical]"), "{}", envoy.log());
    Ok(())
}

#[tokio::test]
async fn every_worker_gets_what_a_server_without_etags_has() -> Result<()> {
    let stack = Stack::start(0, 0).await?;
    let digits = Arc::new(digits::test_set()?);
    // A bundle as `halftone compile` makes it: always with revision 1.
    let compile = |target: &str| -> Result<Vec<u8>> {
        let (rules, bundle) = (stack.folder().join("digits.yaml"), stack.folder().join("digits.bundle"));
        std::fs::write(&rules, all_to(&stack, target))?;
        let mut compile = command(&stack.paths().halftone);
        ensure!(compile.arg("compile").arg(&rules).arg("-o").arg(&bundle).output()?.status.success());
        Ok(std::fs::read(bundle)?)
    };
    let content = Arc::new(Mutex::new(compile("v2")?));
    let served = Arc::clone(&content);
    let bundle = move || async move { served.lock().map_or_else(|_| Vec::new(), |content| content.clone()) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = axum::Router::new().route("/v1/bundle", axum::routing::get(bundle));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let envoy = pulling_envoy(&stack, address, 2).await?;
    let urls = [envoy.infer_url()];
    for target in ["v2", "v1", "v2"] {
        *content.lock().map_err(|_| anyhow::anyhow!("a server failed"))? = compile(target)?;
        wait_for(&format!("everybody on {target}"), async || {
            let exchanges = replay(&urls, &digits, 1..=32, 16).await?;
            ensure!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges).first());
            Ok(by_target(&exchanges).keys().eq([target]).then_some(()))
        })
        .await?;
    }
    server.abort();
    Ok(())
}
