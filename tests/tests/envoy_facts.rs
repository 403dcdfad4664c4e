//! What `docs/envoy.md` says of Envoy, held by experiment: when a new version of Envoy does otherwise, one of these
//! fails, and what we built on it can be looked at again.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use halftone_compiler::{compile, link};
use halftone_rules::codec;
use halftone_tests::{Edge, EdgeOptions, Envoy, Mirror, Paths, traffic::client};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How long a thing may take that takes a moment.
const SOON: Duration = Duration::from_secs(20);

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().await? {
        ensure!(start.elapsed() < SOON, "it takes too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A bundle of revision `revision` that sends everybody to `target`, as base64.
fn bundle(revision: u64, target: &str) -> Result<String> {
    let text = format!("version: v1\ntargets: {{v1: , v2: }}\ndefault: {target}\nrules: []\n");
    let compiled = compile(&text, "facts").map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    Ok(STANDARD.encode(codec::encode(&link(revision, [&compiled])?)?))
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    let endpoint = json!({"endpoint": {"address": socket(address)}});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// The filter with a configuration.
fn filter(settings: &Value) -> Result<Value> {
    Ok(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "halftone", "root_id": "halftone",
            "vm_config": {
                "vm_id": "halftone", "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": Paths::find()?.filter}},
            },
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": settings.to_string()},
        },
    }))
}

/// A listener with one filter or none before the router.
fn listener(name: &str, slot: Option<Value>, routes: &Value) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let filters: Vec<Value> = slot.into_iter().chain([router]).collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    });
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": socket(([127, 0, 0, 1], 0).into()),
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
        ]}],
    })
}

/// An Envoy whose listeners and filter configuration come from files.
struct ByFiles {
    envoy: Envoy,
    folder: TempDir,
    version: u32,
}

impl ByFiles {
    async fn start(settings: &Value, clusters: &[Value], workers: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let bootstrap = json!({
            "node": {"id": "facts", "cluster": "facts"},
            "admin": {"address": socket(([127, 0, 0, 1], 0).into())},
            "dynamic_resources": {"lds_config": {"path_config_source": {"path": at("lds.json")}}},
            "static_resources": {"clusters": clusters},
        });
        std::fs::write(at("bootstrap.json"), bootstrap.to_string())?;
        write(&at("lds.json"), 0, &[listener("first", Some(discovered(folder.path())), &to_default())])?;
        write(&at("ecds.json"), 0, &[extension(settings)?])?;
        let paths = Paths::find()?;
        let envoy = Envoy::start_from(&paths, folder.path(), "envoy", workers, &at("bootstrap.json")).await?;
        Ok(Self { envoy, folder, version: 0 })
    }

    fn configure(&mut self, settings: &Value) -> Result<()> {
        self.version += 1;
        write(&self.folder.path().join("ecds.json"), self.version, &[extension(settings)?])
    }

    fn listen(&mut self, listeners: &[Value]) -> Result<()> {
        self.version += 1;
        write(&self.folder.path().join("lds.json"), self.version, listeners)
    }

    /// The sum of all statistics whose names end like this.
    async fn stat(&self, end: &str) -> Result<u64> {
        let stats = client()?.get(format!("http://{}/stats", self.envoy.admin)).send().await?.text().await?;
        let values =
            stats.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.ends_with(end));
        Ok(values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
    }

    /// Where a listener listens, once it does.
    async fn address(&self, name: &str) -> Result<Option<SocketAddr>> {
        let url = format!("http://{}/listeners?format=json", self.envoy.admin);
        let all: Value = client()?.get(url).send().await?.json().await?;
        let all = all["listener_statuses"].as_array().cloned().unwrap_or_default();
        let Some(found) = all.iter().find(|listener| listener["name"] == name) else { return Ok(None) };
        let port = found["local_address"]["socket_address"]["port_value"].as_u64().context("no port")?;
        Ok(Some(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?))))
    }
}

fn to_default() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "default"}}])
}

/// The filter by ECDS from a file.
fn discovered(folder: &Path) -> Value {
    json!({
        "name": "halftone",
        "config_discovery": {
            "config_source": {"path_config_source": {"path": folder.join("ecds.json")}, "resource_api_version": "V3"},
            "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
        },
    })
}

fn extension(settings: &Value) -> Result<Value> {
    Ok(json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "halftone", "typed_config": filter(settings)?,
    }))
}

/// Envoy looks at a file again when another one takes its place.
fn write(file: &Path, version: u32, resources: &[Value]) -> Result<()> {
    let text = json!({"version_info": version.to_string(), "resources": resources}).to_string();
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, file)?)
}

/// The target that the filter of a listener decides for.
async fn target(address: SocketAddr) -> Result<String> {
    let response = client()?.get(format!("http://{address}/")).send().await?;
    let target = response.headers().get("x-halftone-target");
    Ok(match (response.status().as_u16(), target) {
        (200, target) => target.map_or(Ok(""), |value| value.to_str())?.to_owned(),
        (status, _) => status.to_string(),
    })
}

#[tokio::test]
async fn refused_bytes_that_come_again_are_taken_for_good() -> Result<()> {
    let mirror = Mirror::start("default").await?;
    let clusters = [cluster("default", mirror.address)];
    let mut by_files = ByFiles::start(&json!({"bundle": bundle(1, "v1")?}), &clusters, 2).await?;
    let first = by_files.envoy.address;
    assert_eq!(target(first).await?, "v1");
    let bad = json!({"bundle": "@"});
    let successes = by_files.stat("halftone.update_success").await?;
    by_files.configure(&bad)?;
    wait_for("the refusal", async || Ok(by_files.stat("halftone.update_rejected").await? == 1)).await?;
    by_files.configure(&bad)?;
    wait_for("the success", async || Ok(by_files.stat("halftone.update_success").await? == successes + 1))
        .await?;
    assert_eq!(by_files.stat("halftone.update_rejected").await?, 1);
    assert_eq!(target(first).await?, "v1", "the last good rules are in force all the same");

    // A listener that comes now is given the refused bytes, and refused for them. What else is new in its update is
    // taken.
    let folder = by_files.folder.path().to_owned();
    let filtered = |name: &str| listener(name, Some(discovered(&folder)), &to_default());
    let plain = || listener("plain", None, &to_default());
    by_files.listen(&[filtered("first"), filtered("second"), plain()])?;
    wait_for("the refusal", async || Ok(by_files.stat("lds.update_rejected").await? == 1)).await?;
    assert_eq!(by_files.address("second").await?, None);
    wait_for("the listener beside it", async || Ok(by_files.address("plain").await?.is_some())).await?;
    assert_eq!(target(first).await?, "v1", "who listened before goes on");

    // Other bytes mend it, for those who are there and for those who come.
    by_files.configure(&json!({"bundle": bundle(2, "v2")?}))?;
    wait_for("the mending", async || Ok(target(first).await? == "v2")).await?;
    by_files.listen(&[filtered("first"), filtered("second")])?;
    wait_for("the second", async || Ok(by_files.address("second").await?.is_some())).await?;
    let second = by_files.address("second").await?.context("it is gone")?;
    assert_eq!(target(second).await?, "v2");
    Ok(())
}

#[tokio::test]
async fn a_route_can_match_the_decision_in_the_filter_state() -> Result<()> {
    let answer = |text: &str| json!({"status": 200, "body": {"inline_string": text}});
    let state = |target: &str| json!({"key": "wasm.halftone", "string_match": {"contains": format!(" target={target} ")}});
    let routes = json!([
        {"match": {"prefix": "/", "filter_state": [state("v2")]}, "direct_response": answer("by v2")},
        {"match": {"prefix": "/", "filter_state": [state("v1")]}, "direct_response": answer("by v1")},
        {"match": {"prefix": "/"}, "direct_response": answer("by nothing")},
    ]);
    for (rules, expected) in [(Some("v1"), "by v1"), (Some("v2"), "by v2"), (None, "by nothing")] {
        let settings = match rules {
            Some(target) => json!({"bundle": bundle(1, target)?}),
            None => json!({}),
        };
        let slot = json!({"name": "halftone", "typed_config": filter(&settings)?});
        let folder = tempfile::tempdir()?;
        let bootstrap = folder.path().join("bootstrap.json");
        let mut listener = listener("edge", Some(slot), &routes);
        listener.as_object_mut().context("an object")?.remove("@type");
        let text = json!({
            "admin": {"address": socket(([127, 0, 0, 1], 0).into())},
            "static_resources": {"listeners": [listener]},
        });
        std::fs::write(&bootstrap, text.to_string())?;
        let envoy = Envoy::start_from(&Paths::find()?, folder.path(), "envoy", 1, &bootstrap).await?;
        for spoofed in ["ruleset=x target=v1 ", " target=v2 "] {
            let request =
                client()?.get(format!("http://{}/", envoy.address)).header("wasm.halftone", spoofed);
            assert_eq!(request.send().await?.text().await?, expected);
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_update_configures_once_for_each_worker_and_twice_besides() -> Result<()> {
    const WORKERS: usize = 3;
    let edge = Edge::start(EdgeOptions { workers: WORKERS, ..EdgeOptions::default() }).await?;
    for round in 1..=3 {
        let rules = format!("default: v{}\nrules: []\n", 1 + round % 2);
        let revision = edge.publish("facts", &edge.targets(), &rules).await?;
        // The canary that says whether it is good, the workers, and the main thread, which has a VM of its own.
        let times = || edge.envoy.log().matches(&format!("revision {revision} applied")).count();
        wait_for("all of them", async || Ok(times() >= WORKERS + 2)).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(times(), WORKERS + 2);
        assert_eq!(
            edge.envoy.stat("wasmcustom.halftone_revision").await?,
            revision,
            "a gauge is no sum over workers"
        );
    }
    Ok(())
}

/// A server that takes requests and never answers; it counts them, and the connections that were given up.
struct Silent {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
}

impl Silent {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (requests, given_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (requests.clone(), given_up.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (requests, given_up) = counts.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        requests.fetch_add(1, Ordering::SeqCst);
                    }
                    given_up.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, requests, given_up })
    }

    fn counts(&self) -> (usize, usize) {
        (self.requests.load(Ordering::SeqCst), self.given_up.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_call_of_a_configuration_that_ends_is_given_up() -> Result<()> {
    let (mirror, silent) = (Mirror::start("default").await?, Silent::start().await?);
    let clusters = [cluster("default", mirror.address), cluster("silent", silent.address)];
    let settings = |revision: u64| -> Result<Value> {
        Ok(json!({"bundle": bundle(revision, "v1")?, "source": {"cluster": "silent"}}))
    };
    let mut by_files = ByFiles::start(&settings(1)?, &clusters, 2).await?;
    wait_for("the call", async || Ok(silent.counts().0 == 1)).await?;

    // A request that is under way keeps the configuration of its worker, and that the calls it made. Which worker makes the
    // call is chance, so that is not asked for here.
    let mut slow = TcpStream::connect(by_files.envoy.address).await?;
    slow.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await?;
    wait_for("the request", async || Ok(by_files.stat("http.first.downstream_rq_active").await? == 1))
        .await?;
    by_files.configure(&json!({"bundle": bundle(2, "v2")?}))?;
    let active = async || by_files.stat("cluster.silent.upstream_rq_active").await;
    wait_for("the new rules", async || Ok(target(by_files.envoy.address).await? == "v2")).await?;

    // When the last one is gone, so is the call; nobody is told, and nothing breaks.
    slow.write_all(b"-full").await?;
    wait_for("the end of the call", async || Ok(silent.counts() == (1, 1) && active().await? == 0)).await?;
    assert_eq!(target(by_files.envoy.address).await?, "v2");
    let log = by_files.envoy.log();
    assert!(!log.contains("[critical]") && !log.contains("Wasm VM failed"), "{log}");
    Ok(())
}
