//! A real Prometheus server.

use crate::{Process, command, paths::fetched, repository, traffic::client};
use anyhow::{Context, Result, bail, ensure};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long it may take to get ready. Generous: the machine may be busy with something else.
const READY: Duration = Duration::from_secs(60);

/// How long it may take until a query answers what is expected.
const PATIENCE: Duration = Duration::from_secs(60);

/// One series of an answer, with its newest value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, the name among them.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    folder: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts one with its data in `folder` that scrapes an address ten times a second.
    ///
    /// # Errors
    /// When it was not fetched, or does not get ready.
    pub async fn start(folder: &Path, scraped: SocketAddr) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
             scrape_configs:\n\
             - {{job_name: test, static_configs: [{{targets: [\"{scraped}\"]}}]}}\n\
             - {{job_name: envoy, metrics_path: /stats/prometheus, file_sd_configs: [{{files: [envoy.json]}}]}}\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config)?;
        Self::listen(folder, ([127, 0, 0, 1], 0).into()).await
    }

    /// Starts one by the configuration and the rules in `deploy/prometheus`, with everything in `folder`; but it scrapes and
    /// evaluates once a second. It scrapes nobody yet.
    ///
    /// # Errors
    /// When it was not fetched, or does not get ready.
    pub async fn start_deployed(folder: &Path) -> Result<Self> {
        let (deployed, folder) = (repository().join("deploy/prometheus"), folder.join("deployed"));
        for part in ["rules", "targets"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        for file in std::fs::read_dir(deployed.join("rules"))? {
            let file = file?;
            std::fs::copy(file.path(), folder.join("rules").join(file.file_name()))?;
        }
        let config = std::fs::read_to_string(deployed.join("prometheus.yml"))?;
        let often = config.replace(": 15s", ": 1s").replace(": 10s", ": 1s");
        ensure!(often.matches(": 1s").count() == 3, "the intervals are written otherwise: {config}");
        std::fs::write(folder.join("prometheus.yml"), often)?;
        Self::listen(&folder, ([127, 0, 0, 1], 0).into()).await
    }

    /// Scrapes these from now on as `targets/FILE` of the deployed configuration, each by a name of its own, which it keeps
    /// when its address changes.
    ///
    /// # Errors
    /// When its folder is gone.
    pub fn scrape(&self, file: &str, targets: &[(String, SocketAddr)]) -> Result<()> {
        let named =
            |(name, at): &(String, SocketAddr)| json!({"targets": [at], "labels": {"instance": name}});
        let targets = Value::Array(targets.iter().map(named).collect());
        // JSON is YAML. It watches the file, and must not see half of it.
        let written = self.folder.join("targets.new");
        std::fs::write(&written, targets.to_string())?;
        Ok(std::fs::rename(written, self.folder.join("targets").join(file))?)
    }

    /// What its API answers.
    ///
    /// # Errors
    /// When it does not, or says what is wrong.
    pub async fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value> {
        let mut body = String::new();
        for (name, value) in form {
            write!(body, "{name}=")?;
            for byte in value.bytes() {
                write!(body, "%{byte:02X}")?;
            }
            body.push('&');
        }
        let url = format!("http://{}/api/v1/{path}", self.address);
        let request = if form.is_empty() { client()?.get(url) } else { client()?.post(url) };
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let answer: Value = request.send().await?.json().await?;
        if answer["status"] != "success" {
            bail!("{path} {form:?}: {}", answer["error"]);
        }
        Ok(answer["data"].clone())
    }

    /// What a query answers now; a number by itself is a series without labels.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let data = self.api("query", &[("query", query)]).await?;
        let value = |sample: &Value| -> Result<f64> {
            Ok(sample[1].as_str().with_context(|| format!("{query}: {data}"))?.parse()?)
        };
        if data["resultType"] == "scalar" {
            return Ok(vec![Sample { labels: BTreeMap::new(), value: value(&data["result"])? }]);
        }
        let series = data["result"].as_array().with_context(|| format!("{query}: {data}"))?;
        let sample = |of: &Value| {
            Ok(Sample { labels: serde_json::from_value(of["metric"].clone())?, value: value(&of["value"])? })
        };
        series.iter().map(sample).collect()
    }

    /// Waits until a query that sums up answers this number exactly; no series is 0.
    ///
    /// # Errors
    /// When it answers more, or not in time.
    pub async fn wait_for(&self, query: &str, expected: u64) -> Result<()> {
        let start = Instant::now();
        loop {
            let found: f64 = self.query(query).await?.iter().map(|sample| sample.value).sum();
            #[allow(clippy::cast_precision_loss, reason = "counts of a test are far below 2^53")]
            let expected = expected as f64;
            if found.to_bits() == expected.to_bits() {
                return Ok(());
            }
            ensure!(found < expected, "{query} is {found}, which is more than {expected}");
            ensure!(start.elapsed() < PATIENCE, "{query} is {found} and not {expected} after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until a query finds something.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_for_some(&self, query: &str) -> Result<()> {
        let start = Instant::now();
        while self.query(query).await?.is_empty() {
            ensure!(start.elapsed() < PATIENCE, "{query} finds nothing after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Scrapes an Envoy, too, from now on.
    ///
    /// # Errors
    /// When its folder is gone.
    pub fn scrape_envoy(&self, admin: SocketAddr) -> Result<()> {
        // It watches the file, and must not see half of it.
        let written = self.folder.join("envoy.json.new");
        std::fs::write(&written, format!("[{{\"targets\": [\"{admin}\"]}}]"))?;
        Ok(std::fs::rename(written, self.folder.join("envoy.json"))?)
    }

    /// Kills it; the answer starts it again on the same data.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(self) -> Result<impl AsyncFnOnce() -> Result<Self>> {
        let Self { process, folder, address } = self;
        process.kill()?;
        Ok(async move || Self::listen(&folder, address).await)
    }

    /// Where the program is; `promtool` stands beside it.
    ///
    /// # Errors
    /// When it was not fetched.
    pub fn program() -> Result<PathBuf> {
        fetched("HALFTONE_TEST_PROMETHEUS", "prometheus/prometheus")
    }

    async fn listen(folder: &Path, address: SocketAddr) -> Result<Self> {
        let mut command = command(&Self::program()?);
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.arg("--enable-feature=exemplar-storage");
        let log = folder.join("prometheus.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Process::start("prometheus", command, folder)?;
        let address = process
            .wait_until(READY, async || {
                let log = std::fs::read_to_string(&log).ok()?;
                log.find("Server is ready to receive web requests")?;
                let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
                line.split("address=").nth(1)?.trim().parse().ok()
            })
            .await?;
        Ok(Self { process, folder: folder.to_owned(), address })
    }
}
