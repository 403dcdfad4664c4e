//! The control plane, the backends and Envoy, started and wired to each other.

use crate::{Paths, Process, command, launched, traffic};
use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// How long a process may take to get ready. Generous: the machine may be busy with something else.
const READY: Duration = Duration::from_secs(30);

/// Ports to listen on; 0 lets the system choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// The REST API.
    pub rest: u16,
    /// The xDS server.
    pub xds: u16,
    /// Envoy's listener.
    pub envoy: u16,
    /// Envoy's admin interface.
    pub admin: u16,
    /// The first backend; the others follow.
    pub backend: u16,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A running `halftone serve`.
pub struct ControlPlane {
    process: Process,
    paths: Paths,
    folder: PathBuf,
    /// Of the REST API.
    pub rest: SocketAddr,
    /// Of the xDS server.
    pub xds: SocketAddr,
    /// For operators, when it was started with `--admin`.
    pub admin: Option<SocketAddr>,
    client: Client,
}

impl ControlPlane {
    /// Starts it with its store in `folder`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(paths: &Paths, folder: &Path, rest: u16, xds: u16) -> Result<Self> {
        let ready_file = folder.join("control-plane.ready");
        remove(&ready_file)?;
        let mut command = launched(&paths.serve_launcher, &paths.halftone);
        command.arg("serve").arg("--ready-file").arg(&ready_file);
        command.arg("--rest").arg(loopback(rest).to_string());
        command.arg("--xds").arg(loopback(xds).to_string());
        command.arg("--data").arg(folder.join("data")).arg("--filter").arg(&paths.filter);
        if let Some(module) = &paths.filter_on_proxy {
            command.arg("--filter-on-proxy").arg(module);
        }
        command.args(&paths.serve_flags);
        let mut process = Process::start("control-plane", command, folder)?;
        let ready = process.wait_until(READY, async || std::fs::read_to_string(&ready_file).ok()).await?;
        let ready: Value = serde_json::from_str(&ready)?;
        let address = |name: &str| -> Result<SocketAddr> {
            Ok(ready[name].as_str().context("an address is missing in the ready file")?.parse()?)
        };
        let admin = ready["admin"].as_str().map(str::parse).transpose()?;
        Ok(Self {
            rest: address("rest")?,
            xds: address("xds")?,
            admin,
            process,
            paths: paths.clone(),
            folder: folder.into(),
            client: traffic::client()?,
        })
    }

    /// Kills it and starts it again on the same ports and the same store.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn crash_and_restart(self, pause: Duration) -> Result<Self> {
        let crashed = self.crash()?;
        tokio::time::sleep(pause).await;
        crashed.start_again().await
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn crash(self) -> Result<Crashed> {
        let Self { process, paths, folder, rest, xds, .. } = self;
        process.kill()?;
        Ok(Crashed { paths, folder, rest, xds })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// The process that it is.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends a request to the REST API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<Response> {
        Ok(self.client.request(method, format!("http://{}{path}", self.rest)).body(body).send().await?)
    }

    /// Uploads a ruleset; the answer is its revision.
    ///
    /// # Errors
    /// When it is refused, with the answer.
    pub async fn put(&self, name: &str, ruleset: impl Into<String>) -> Result<u64> {
        let response = self.request(Method::PUT, &format!("/v1/rulesets/{name}"), ruleset.into()).await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("the upload was refused with {status}: {body}");
        }
        let answer: Value = serde_json::from_str(&body)?;
        answer["revision"].as_u64().context("the answer has no revision")
    }

    /// Reads JSON from the REST API.
    ///
    /// # Errors
    /// When the answer is no success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.request(Method::GET, path, "").await?.error_for_status()?.json().await?)
    }

    /// Uploads a ruleset, and waits until each of `workers` workers of each of `nodes` proxies decides by it, those too
    /// that were not connected when it was uploaded. The answer is its revision.
    ///
    /// # Errors
    /// When it is refused, or that takes too long.
    pub async fn apply(
        &self,
        name: &str,
        ruleset: impl Into<String>,
        nodes: usize,
        workers: usize,
    ) -> Result<u64> {
        let path = format!("/v1/rulesets/{name}?wait=applied&timeout=30s");
        let answer = self.request(Method::PUT, &path, ruleset.into()).await?;
        let status = answer.status();
        let answer: Value = answer.json().await?;
        let revision = answer["revision"].as_u64();
        let revision = revision.with_context(|| format!("the upload was refused with {status}: {answer}"))?;
        self.wait_until_applied(revision, nodes, workers).await?;
        Ok(revision)
    }

    /// Waits until each of `workers` workers of each of `nodes` proxies decides by a revision.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_until_applied(&self, revision: u64, nodes: usize, workers: usize) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            let status = self.get("/v1/nodes").await?;
            let applied = |node: &Value| {
                let of = node["workers"].as_array();
                // Envoy's main thread runs the filter, too.
                of.is_some_and(|of| of.len() == workers + 1 && of.iter().all(|of| of["revision"] == revision))
            };
            if status.as_array().is_some_and(|all| all.len() == nodes && all.iter().all(applied)) {
                return Ok(());
            }
            if start.elapsed() > READY {
                bail!("revision {revision} is not applied by {nodes} proxies: {status}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every connected proxy has accepted the revision.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_for_acks(&self, revision: u64, nodes: usize) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            let status = self.get("/v1/nodes").await?;
            let acked = |node: &Value| node["revision"].as_u64().is_some_and(|acked| acked >= revision);
            if status.as_array().is_some_and(|all| all.len() >= nodes && all.iter().all(acked)) {
                return Ok(());
            }
            if start.elapsed() > READY {
                bail!("revision {revision} was not accepted by {nodes} proxies: {status}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A control plane that was killed: its store and its ports.
pub struct Crashed {
    paths: Paths,
    folder: PathBuf,
    rest: SocketAddr,
    xds: SocketAddr,
}

impl Crashed {
    /// Starts it on the same ports and the same store.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn start_again(self) -> Result<ControlPlane> {
        ControlPlane::start(&self.paths, &self.folder, self.rest.port(), self.xds.port()).await
    }
}

/// The version of the digits model that is faulty when it is asked to be.
pub const FAULTY: u16 = 4;

/// A running `halftone-inference` with one version of a model.
pub struct Backend {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// For operators, when it was started with `--admin`.
    pub admin: Option<SocketAddr>,
    version: u16,
}

impl Backend {
    /// Starts it with one version of the digits model.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(paths: &Paths, folder: &Path, version: u16, port: u16) -> Result<Self> {
        let name = format!("backend-v{version}");
        let ready_file = folder.join(format!("{name}.ready"));
        remove(&ready_file)?;
        let mut command = command(&paths.inference);
        command.arg("--models").arg(&paths.models).arg("--serve").arg(format!("digits:{version}"));
        command.arg("--ort").arg(&paths.onnxruntime).arg("--ready-file").arg(&ready_file);
        command.arg("--listen").arg(loopback(port).to_string()).arg("--log-format").arg("json");
        command
            .args(paths.inference_flags.iter().map(|flag| flag.replace("{version}", &version.to_string())));
        let mut process = Process::start(&name, command, folder)?;
        let ready = process.wait_until(READY, async || std::fs::read_to_string(&ready_file).ok()).await?;
        let mut addresses = ready.lines().map(|line| line.parse().context("the backend's ready file"));
        let address = addresses.next().context("the backend's ready file is empty")??;
        Ok(Self { process, address, admin: addresses.next().transpose()?, version })
    }

    /// Has it end as an operator would, and waits for that.
    ///
    /// # Errors
    /// When it does not, or fails.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }

    /// The version of the model that it serves.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// What it holds in memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// Kills it without a warning, as a crash would.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// What it has logged: one JSON object per line.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it has logged, once so many inferences are in it: they are written a moment after they were answered.
    ///
    /// # Errors
    /// When they never are.
    pub async fn log_of(&self, inferences: usize) -> Result<String> {
        let start = std::time::Instant::now();
        loop {
            let log = self.log();
            if log.lines().filter(|line| line.contains("/infer\"")).count() >= inferences {
                return Ok(log);
            }
            if start.elapsed() > READY {
                bail!("fewer than {inferences} inferences are logged:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How to start Envoy.
pub struct EnvoyOptions<'a> {
    /// Name of the node, and of the log.
    pub name: &'a str,
    /// Number of worker threads.
    pub workers: usize,
    /// The control plane's xDS server.
    pub xds: SocketAddr,
    /// The form in which changes come: `sotw` or `delta`.
    pub xds_form: &'a str,
    /// What takes requests on which nothing was decided.
    pub default_endpoint: SocketAddr,
    /// The listener's port.
    pub port: u16,
    /// The admin interface's port.
    pub admin: u16,
    /// Changes the bootstrap's text before Envoy reads it, for comparisons.
    pub edit_bootstrap: fn(&str) -> String,
}

/// Puts an Envoy into the cluster whose name its own begins with, `eu` for `eu-1`: for
/// [`EnvoyOptions::edit_bootstrap`].
#[must_use]
pub fn cluster_by_name(bootstrap: &str) -> String {
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(|value| value.trim().to_owned());
    let id = bootstrap.lines().find_map(|line| value(line, "id:")).unwrap_or_default();
    let cluster = id.trim_matches('"').split('-').next().unwrap_or_default().to_owned();
    let written = bootstrap.lines().find(|line| value(line, "cluster:").is_some()).unwrap_or_default();
    bootstrap.replacen(written, &format!("  cluster: {cluster}"), 1)
}

/// A running Envoy.
pub struct Envoy {
    process: Process,
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with the bootstrap that `halftone envoy-bootstrap` writes.
    ///
    /// # Errors
    /// When its listener does not open.
    pub async fn start(paths: &Paths, folder: &Path, options: &EnvoyOptions<'_>) -> Result<Self> {
        Self::start_edited(paths, folder, options, &[], options.edit_bootstrap).await
    }

    /// As [`start`](Self::start), with more flags for `halftone envoy-bootstrap` and a change to what it writes.
    ///
    /// # Errors
    /// When its listener does not open.
    pub async fn start_edited(
        paths: &Paths,
        folder: &Path,
        options: &EnvoyOptions<'_>,
        flags: &[&str],
        edit: impl FnOnce(&str) -> String,
    ) -> Result<Self> {
        let out = folder.join(options.name);
        let written = command(&paths.halftone)
            .arg("envoy-bootstrap")
            .arg("--out")
            .arg(&out)
            .arg("--filter")
            .arg(&paths.filter)
            .args(["--node-id", options.name])
            .arg("--listen")
            .arg(loopback(options.port).to_string())
            .arg("--admin")
            .arg(loopback(options.admin).to_string())
            .arg("--xds")
            .arg(options.xds.to_string())
            .args(["--xds-form", options.xds_form])
            .arg("--default-endpoint")
            .arg(options.default_endpoint.to_string())
            .args(flags)
            .output()?;
        if !written.status.success() {
            bail!("the bootstrap was not written: {}", String::from_utf8_lossy(&written.stderr));
        }
        let bootstrap = out.join("bootstrap.yaml");
        let text = std::fs::read_to_string(&bootstrap)?;
        std::fs::write(&bootstrap, edit(&text))?;
        Self::start_from(paths, folder, options.name, options.workers, &bootstrap).await
    }

    /// Starts Envoy with a bootstrap that exists.
    ///
    /// # Errors
    /// When its listener does not open.
    pub async fn start_from(
        paths: &Paths,
        folder: &Path,
        name: &str,
        workers: usize,
        bootstrap: &Path,
    ) -> Result<Self> {
        let admin_file = bootstrap.with_file_name("admin-address");
        remove(&admin_file)?;
        let mut command = launched(&paths.envoy_launcher, &paths.envoy);
        command.arg("-c").arg(bootstrap).arg("--admin-address-path").arg(&admin_file);
        command.arg("--concurrency").arg(workers.to_string());
        // Several Envoys on one machine must not share the memory for hot restarts.
        command.args(["--disable-hot-restart", "--log-level", "info"]);
        let mut process = Process::start(name, command, folder)?;
        let client = traffic::client()?;
        let (address, admin) = process
            .wait_until(READY, async || {
                let admin: SocketAddr = std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()?;
                let live = client.get(format!("http://{admin}/ready")).send().await.ok()?;
                if !live.status().is_success() {
                    return None;
                }
                let listeners: Value = client
                    .get(format!("http://{admin}/listeners?format=json"))
                    .send()
                    .await
                    .ok()?
                    .json()
                    .await
                    .ok()?;
                let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
                let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
                Some((loopback(port), admin))
            })
            .await?;
        Ok(Self { process, address, admin })
    }

    /// The process that it is.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where the inference requests of the digits model go.
    #[must_use]
    pub fn infer_url(&self) -> String {
        format!("http://{}/v2/models/digits/infer", self.address)
    }

    /// A statistic of Envoy's.
    ///
    /// # Errors
    /// When Envoy does not answer or has no such statistic.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats =
            traffic::client()?.get(format!("http://{}/stats", self.admin)).send().await?.text().await?;
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.with_context(|| format!("no statistic {name}"))?.trim().parse()?)
    }

    /// CPU time that it has used.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A control plane, one backend for each version of the digits model, and Envoys in front of them.
pub struct Stack {
    /// Ended in this order: first those who take requests.
    pub envoys: Vec<Envoy>,
    /// One for each version.
    pub backends: Vec<Backend>,
    /// `None` while it is down.
    control_plane: Option<ControlPlane>,
    paths: Paths,
    folder: PathBuf,
    /// Removed with the stack, unless the folder is the caller's.
    _temporary: Option<TempDir>,
}

impl Stack {
    /// Starts everything in a temporary folder: versions 1 and 2 of the model, and `envoys` Envoys with
    /// `workers` workers each.
    ///
    /// # Errors
    /// When something does not get ready.
    pub async fn start(envoys: usize, workers: usize) -> Result<Self> {
        Self::start_with(Paths::find()?, envoys, workers).await
    }

    /// As [`start`](Self::start), with other programs or flags.
    ///
    /// # Errors
    /// When something does not get ready.
    pub async fn start_with(paths: Paths, envoys: usize, workers: usize) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let folder = temporary.path().to_owned();
        let mut stack = Self::assemble(paths, &folder, Ports::default(), 2, envoys, workers).await?;
        stack._temporary = Some(temporary);
        Ok(stack)
    }

    /// As [`start_with`](Self::start_with), with the first `versions` versions of the model, whose backends report ten times
    /// a second what they observe.
    ///
    /// # Errors
    /// When something does not get ready.
    pub async fn start_observed(paths: Paths, versions: u16, envoys: usize, workers: usize) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("halftone-").tempdir()?;
        let folder = temporary.path().to_owned();
        let paths = reporting(paths, &folder);
        let mut stack = Self::assemble(paths, &folder, Ports::default(), versions, envoys, workers).await?;
        stack._temporary = Some(temporary);
        Ok(stack)
    }

    /// As [`start_observed`](Self::start_observed), with logs and store in `folder`.
    ///
    /// # Errors
    /// When something does not get ready.
    pub async fn start_in(
        paths: Paths,
        folder: &Path,
        ports: Ports,
        versions: u16,
        envoys: usize,
        workers: usize,
    ) -> Result<Self> {
        Self::assemble(reporting(paths, folder), folder, ports, versions, envoys, workers).await
    }

    async fn assemble(
        mut paths: Paths,
        folder: &Path,
        ports: Ports,
        versions: u16,
        envoys: usize,
        workers: usize,
    ) -> Result<Self> {
        let control_plane = ControlPlane::start(&paths, folder, ports.rest, ports.xds).await?;
        let xds = control_plane.xds.to_string();
        paths.inference_flags.iter_mut().for_each(|flag| *flag = flag.replace("{xds}", &xds));
        let mut stack = Self {
            envoys: Vec::new(),
            backends: Vec::new(),
            control_plane: Some(control_plane),
            paths,
            folder: folder.into(),
            _temporary: None,
        };
        for version in 1..=versions {
            let port = if ports.backend == 0 { 0 } else { ports.backend + version - 1 };
            stack.backends.push(Backend::start(&stack.paths, folder, version, port).await?);
        }
        let xds = stack.control_plane()?.xds;
        for index in 0..envoys {
            stack.add_envoy(&format!("envoy-{}", index + 1), workers, xds, ports.envoy, ports.admin).await?;
        }
        stack.control_plane()?.wait_for_acks(0, envoys).await?;
        Ok(stack)
    }

    /// Starts one more Envoy.
    ///
    /// # Errors
    /// When its listener does not open.
    pub async fn add_envoy(
        &mut self,
        name: &str,
        workers: usize,
        xds: SocketAddr,
        port: u16,
        admin: u16,
    ) -> Result<()> {
        let default_endpoint = self.backend(1)?.address;
        let options = EnvoyOptions {
            name,
            workers,
            xds,
            xds_form: "sotw",
            default_endpoint,
            port,
            admin,
            edit_bootstrap: str::to_owned,
        };
        self.envoys.push(Envoy::start(&self.paths, &self.folder, &options).await?);
        Ok(())
    }

    /// Starts two more Envoys, one for each form in which changes come.
    ///
    /// # Errors
    /// When a listener does not open.
    pub async fn add_envoy_of_each_form(&mut self, workers: usize, xds: SocketAddr) -> Result<()> {
        for xds_form in ["sotw", "delta"] {
            let options = EnvoyOptions {
                name: &format!("by-{xds_form}"),
                workers,
                xds,
                xds_form,
                default_endpoint: self.backend(1)?.address,
                port: 0,
                admin: 0,
                edit_bootstrap: str::to_owned,
            };
            self.envoys.push(Envoy::start(&self.paths, &self.folder, &options).await?);
        }
        Ok(())
    }

    /// Where inference requests to each Envoy go.
    #[must_use]
    pub fn infer_urls(&self) -> Vec<String> {
        self.envoys.iter().map(Envoy::infer_url).collect()
    }

    /// The programs that it runs.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where logs and store are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The control plane.
    ///
    /// # Errors
    /// While it is down.
    pub fn control_plane(&self) -> Result<&ControlPlane> {
        self.control_plane.as_ref().context("the control plane is down")
    }

    /// Takes the control plane out, to kill or restart it.
    ///
    /// # Errors
    /// While it is down.
    pub fn take_control_plane(&mut self) -> Result<ControlPlane> {
        self.control_plane.take().context("the control plane is down")
    }

    /// Puts a restarted control plane back.
    pub fn set_control_plane(&mut self, control_plane: ControlPlane) {
        self.control_plane = Some(control_plane);
    }

    /// The backend of a version.
    ///
    /// # Errors
    /// When no such version was started.
    pub fn backend(&self, version: usize) -> Result<&Backend> {
        let found = self.backends.iter().find(|backend| usize::from(backend.version) == version);
        found.with_context(|| format!("no backend for version {version}"))
    }

    /// Ends the backend of a version in order, and starts it again on the same port.
    ///
    /// # Errors
    /// When no such version was started, or it does not come back.
    pub async fn restart_backend(&mut self, version: u16) -> Result<()> {
        let at = self.backends.iter().position(|backend| backend.version == version);
        let Backend { process, address, .. } =
            self.backends.remove(at.with_context(|| format!("no backend for version {version}"))?);
        process.stop()?;
        let again = Backend::start(&self.paths, &self.folder, version, address.port()).await?;
        self.backends.push(again);
        Ok(())
    }

    /// Uploads the ruleset and waits until every Envoy has accepted it.
    ///
    /// # Errors
    /// When it is refused or not accepted.
    pub async fn publish(&self, name: &str, ruleset: &str) -> Result<u64> {
        let control_plane = self.control_plane()?;
        let revision = control_plane.put(name, ruleset).await?;
        control_plane.wait_for_acks(revision, self.envoys.len()).await?;
        Ok(revision)
    }

    /// Starts a backend of [`FAULTY`], the version with faults on demand.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn add_faulty(&mut self) -> Result<()> {
        let paths = Paths { models: self.paths.models.join("faults"), ..self.paths.clone() };
        self.backends.push(Backend::start(&paths, &self.folder, FAULTY, 0).await?);
        Ok(())
    }

    /// The `targets` of a ruleset for the running backends: `v1`, `v2`, ….
    #[must_use]
    pub fn targets(&self) -> String {
        let target =
            |backend: &Backend| format!("  v{}: {{endpoints: [\"{}\"]}}\n", backend.version, backend.address);
        format!("targets:\n{}", self.backends.iter().map(target).collect::<String>())
    }

    /// A ruleset that sends a share of the users to version 2 and the others to version 1.
    #[must_use]
    pub fn canary(&self, weight: f64) -> String {
        format!(
            "version: v1\n{}default: v1\nrules:\n  - {{name: canary, weight: {weight}, target: v2}}\n",
            self.targets()
        )
    }
}

/// The same, with backends that report ten times a second.
fn reporting(mut paths: Paths, folder: &Path) -> Paths {
    paths.inference_flags.extend(observed(folder, Duration::from_millis(100)));
    paths
}

/// Flags of a backend that reports what it observes to the control plane beside it, this often.
#[must_use]
pub fn observed(folder: &Path, interval: Duration) -> Vec<String> {
    let spool = folder.join("spool-{version}");
    vec![
        "--observations-to=http://{xds}".to_owned(),
        format!("--observations-dir={}", spool.display()),
        format!("--observations-interval-ms={}", interval.as_millis()),
    ]
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
