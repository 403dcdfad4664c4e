//! Releases of services that are no backends of ours, by what a real Prometheus says of them, on real Envoy.

use anyhow::{Result, bail, ensure};
use halftone_tests::{
    Answering, ControlPlane, Envoy, EnvoyOptions, Paths, Prometheus, Scraped, digits, traffic::Traffic,
};
use reqwest::Method;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a release may take that needs 500 blocks of 100 ms. Generous: scrapes fail when the machine is busy.
const PATIENCE: Duration = Duration::from_secs(240);

const TEXT: &str = r#"version: v1
ruleset: shop
stable: v1
candidates: [v2]
approval: auto
steps:
- {share: 0.2, hold: {for: 1s, units: 20}}
- {share: 0.5, hold: {for: 1s, units: 20}}
watch: {for: 2s, control: 0.05}
metrics:
  errors:
    role: guardrail
    kind: ratio
    better: lower
    tolerance: 0.5
    margin: 2
    source:
      prometheus:
        numerator: 'http_errors_total{target="$target"}'
        denominator: 'http_requests_total{target="$target"}'
        block: 100ms
policy: {cycle_s: 1, look_every_s: 1, stale_after_s: 5}
"#;

/// Two services behind Envoy, and a Prometheus that scrapes what they count.
struct Shop {
    /// Ended before what it sends to.
    _envoy: Envoy,
    traffic: Option<Traffic>,
    control_plane: ControlPlane,
    prometheus: Option<Prometheus>,
    scraped: Scraped,
    _folder: TempDir,
}

impl Shop {
    /// Of a thousand requests each service fails so many.
    async fn start(failing: [u64; 2]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let mut services = Vec::new();
        for failing in failing {
            let service = Arc::new(Answering::start().await?);
            service.fail_of_thousand(failing);
            services.push(service);
        }
        let scraped = Scraped::start(&[("v1", &services[0]), ("v2", &services[1])]).await?;
        let prometheus = Prometheus::start(folder.path(), scraped.address).await?;
        let mut paths = Paths::find()?;
        paths.serve_flags = vec!["--prometheus".into(), format!("http://{}", prometheus.address).into()];
        let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
        let options = EnvoyOptions {
            name: "envoy",
            workers: 1,
            xds: control_plane.xds,
            xds_form: "sotw",
            default_endpoint: services[0].address,
            port: 0,
            admin: 0,
            edit_bootstrap: str::to_owned,
        };
        let envoy = Envoy::start(&paths, folder.path(), &options).await?;
        prometheus.scrape_envoy(envoy.admin)?;
        let ruleset = format!(
            "version: v1\ntargets:\n  v1: {{endpoints: [\"{}\"]}}\n  v2: {{endpoints: [\"{}\"]}}\ndefault: v1\nrules: []\n",
            services[0].address, services[1].address
        );
        control_plane.apply("shop", ruleset, 1, 1).await?;
        let digits = Arc::new(digits::test_set()?);
        let traffic = Traffic::start(&[envoy.infer_url()], &digits, 4, Duration::from_millis(4), 2_000)?;
        let (traffic, prometheus) = (Some(traffic), Some(prometheus));
        Ok(Self { _envoy: envoy, traffic, control_plane, prometheus, scraped, _folder: folder })
    }

    async fn put(&self, text: &str) -> Result<(u16, String)> {
        let answer = self.control_plane.request(Method::PUT, "/v1/releases/shop-v2", text.to_owned()).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    async fn release(&self) -> Result<Value> {
        self.control_plane.get("/v1/releases/shop-v2").await
    }

    /// Waits until the release is as wanted.
    async fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let now = self.release().await?;
            if holds(&now) {
                return Ok(now);
            }
            if start.elapsed() > PATIENCE {
                let decisions = self.control_plane.get("/v1/releases/shop-v2/decisions").await?;
                let of = |value: &Value| format!("{} {}", value["action"], value["why"]);
                let all: Vec<String> = decisions["decisions"]
                    .as_array()
                    .map(|all| all.iter().map(of).collect())
                    .unwrap_or_default();
                bail!("the release is not {what}:\n{}\n{now:#}", all.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_in(phase: &str) -> impl Fn(&Value) -> bool {
    move |release| release["phase"] == phase
}

#[tokio::test]
async fn a_service_goes_up_its_steps_and_is_promoted_though_prometheus_was_gone_for_a_while() -> Result<()> {
    let mut shop = Shop::start([200, 200]).await?;
    let (status, answer) = shop.put(TEXT).await?;
    ensure!(status == 201, "{answer}");
    // Not right at the beginning of the step, whose first blocks are left out.
    shop.wait_for("at its last step", |release| {
        release["step"] == 2 && release["arms"]["v2"]["units"].as_u64() > Some(20)
    })
    .await?;
    shop.scraped.reset();
    let seen = shop
        .wait_for("read with a reset", |release| {
            release["prometheus"]["errors"]["targets"]["v2"]["resets"].as_u64() > Some(0)
        })
        .await?;
    let v2 = &seen["prometheus"]["errors"]["targets"]["v2"];
    ensure!(v2["numerator"].as_f64() <= v2["denominator"].as_f64(), "{v2:#}");

    let prometheus = shop.prometheus.take().map(Prometheus::kill).transpose()?;
    let stale = shop.wait_for("stale", |release| release["verdicts"]["v2"]["reason"] == "stale").await?;
    ensure!(stale["phase"] == "running" && stale["step"] == 2, "{stale:#}");
    let why = stale["prometheus"]["errors"]["trouble"]["why"].as_str().unwrap_or_default();
    ensure!(why.contains("does not answer"), "{stale:#}");
    ensure!(shop.control_plane.process().log().contains("no newer numbers from the Prometheus server"));

    if let Some(start_again) = prometheus {
        shop.prometheus = Some(start_again().await?);
    }
    shop.wait_for("read again", |release| release["prometheus"]["errors"]["trouble"].is_null()).await?;
    let promoted = shop.wait_for("promoted", is_in("promoted")).await?;
    ensure!(promoted["winner"] == "v2", "{promoted:#}");
    let arms = &promoted["verdicts"]["v2"]["tests"];
    let ratios = arms.as_array().into_iter().flatten().filter(|test| test["purpose"] == "srm");
    let speaks = |test: &Value| test["ln_e"].as_f64().is_none_or(|ln_e| ln_e > 0.0);
    ensure!(!ratios.into_iter().any(speaks), "blocks have no sample ratio: {arms:#}");
    shop.wait_for("settled", |release| release["waits_for"].is_null()).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_that_fails_is_rolled_back_by_what_envoy_counts() -> Result<()> {
    let shop = Shop::start([50, 500]).await?;
    let text = TEXT
        .replace("for: 1s, units: 20", "for: 1h, units: 20")
        .replace(
            "http_errors_total{target=\"$target\"}",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"halftone/shop/$target\"}",
        )
        .replace(
            "http_requests_total{target=\"$target\"}",
            "envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"halftone/shop/$target\"}",
        );
    let (status, answer) = shop.put(&text).await?;
    ensure!(status == 201, "{answer}");
    let back = shop.wait_for("rolled back", is_in("rolled_back")).await?;
    ensure!(back["why"].as_str().is_some_and(|why| why.contains("errors")), "{back:#}");
    println!("{}", back["why"]);
    shop.wait_for("safe", |release| !release["safety"]["safe_at_ms"].is_null()).await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_reads_the_same_again() -> Result<()> {
    let mut shop = Shop::start([50, 50]).await?;
    let (status, answer) = shop.put(&TEXT.replace("for: 1s, units: 20", "for: 1h, units: 20")).await?;
    ensure!(status == 201, "{answer}");
    shop.wait_for("read", |release| release["arms"]["v2"]["units"].as_u64() > Some(20)).await?;
    if let Some(traffic) = shop.traffic.take() {
        traffic.stop().await?;
    }
    // Only time passes from here on: what was counted stays.
    let counted = |release: &Value| {
        let of = |target: &str| {
            let of = &release["prometheus"]["errors"]["targets"][target];
            [of["blocks"].clone(), of["numerator"].clone(), of["denominator"].clone(), of["resets"].clone()]
        };
        [of("v1"), of("v2")]
    };
    let mut last = counted(&shop.release().await?);
    let before = loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = counted(&shop.release().await?);
        if now == last {
            break now;
        }
        last = now;
    };
    shop.control_plane = shop.control_plane.crash_and_restart(Duration::ZERO).await?;
    shop.wait_for("read the same again", |release| counted(release) == before).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_server_such_a_release_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
    for (method, path) in
        [(Method::PUT, "/v1/releases/shop-v2"), (Method::POST, "/v1/releases/shop-v2:validate")]
    {
        let answer = control_plane.request(method, path, TEXT).await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        ensure!(status == 422 || status == 400, "{status}: {body}");
        ensure!(body.contains("halftone serve --prometheus URL") && body.contains("errors"), "{body}");
    }
    let all = control_plane.get("/v1/releases").await?;
    ensure!(all.as_array().is_some_and(Vec::is_empty), "{all}");
    Ok(())
}
