//! Many proxies on one control plane: how long until all have ACKed a change, and what each of them costs.
//!
//! The proxies are simulated, but their connections and their delta xDS are real; they share the machine with the
//! control plane. Their messages are written here once more, so that they depend on nothing of the server's.

use anyhow::{Context, Result};
use halftone_tests::{ControlPlane, Paths};
use prost::Message;
use reqwest::Method;
use std::time::{Duration, Instant};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Connected proxies.
const PROXIES: usize = 1_000;
/// Changes to measure.
const CHANGES: usize = 10;
/// Rules with long names: a bundle of about 100 KB.
const RULES: usize = 1_350;

const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const FILTER: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DeltaRequest {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    unsubscribe: Vec<String>,
    #[prost(string, tag = "6")]
    nonce: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct DeltaResponse {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?;
    put(&control_plane, 0, 0).await?;
    let bundle = control_plane.request(Method::GET, "/v1/bundle", "").await?.bytes().await?.len();
    let alone = control_plane.resident_bytes()?;

    let start = Instant::now();
    let mut proxies = JoinSet::new();
    let uri = format!("http://{}", control_plane.xds);
    for index in 0..PROXIES {
        let channel = Endpoint::from_shared(uri.clone())?.connect().await?;
        proxies.spawn(proxy(channel, index));
    }
    // The same again changes nothing, so this only waits.
    put(&control_plane, 0, PROXIES).await?;
    let connected = start.elapsed();
    let before = control_plane.resident_bytes()?;

    let mut times = Vec::new();
    for change in 1..=CHANGES {
        let start = Instant::now();
        put(&control_plane, change, PROXIES).await?;
        times.push(start.elapsed());
    }
    let after = control_plane.resident_bytes()?;
    times.sort();
    let (median, worst) = (times.get(CHANGES / 2), times.last());
    let per_proxy = |with: u64| with.saturating_sub(alone) / PROXIES as u64 / 1024;
    println!(
        "fleet: {PROXIES} proxies by delta xDS over loopback, a bundle of {bundle} bytes, {CHANGES} changes"
    );
    println!("  all connected and served                 {:>8.1} ms", ms(connected));
    println!(
        "  from a PUT until all have ACKed          median {:>6.1} ms   worst {:>6.1} ms",
        ms(*median.context("nothing measured")?),
        ms(*worst.context("nothing measured")?)
    );
    println!(
        "  resident memory of the control plane     {} MB alone, {} KiB per proxy after connecting, {} KiB after the \
         changes",
        alone / 1_000_000,
        per_proxy(before),
        per_proxy(after)
    );
    anyhow::ensure!(proxies.try_join_next().is_none(), "a proxy lost its stream");
    Ok(())
}

/// Uploads the rules with this target, and waits until `proxies` have ACKed them.
async fn put(control_plane: &ControlPlane, change: usize, proxies: usize) -> Result<()> {
    let rule = |rule: usize| {
        format!(
            "  - {{name: a-rule-whose-name-is-long-enough-to-fill-the-bundle-{rule:06}, target: v{change}}}\n"
        )
    };
    let ruleset = format!(
        "version: v1\ntargets: {{v{change}: {{endpoints: [\"127.0.0.1:9\"]}}}}\ndefault: v{change}\nrules:\n{}",
        (0..RULES).map(rule).collect::<String>()
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let path = "/v1/rulesets/fleet?wait=acked&timeout=60s";
        let answer = control_plane.request(Method::PUT, path, ruleset.clone()).await?;
        let answer = answer.error_for_status()?.text().await?;
        if answer.contains(&format!("\"acked\":{proxies},")) {
            return Ok(());
        }
        // Proxies that have not asked for anything yet are not counted.
        anyhow::ensure!(Instant::now() < deadline, "not all proxies have ACKed: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks for everything, as Envoy does, and ACKs what comes.
async fn proxy(channel: Channel, index: usize) -> Result<()> {
    let (requests, outbound) = mpsc::channel(16);
    let node = Some(Node { id: format!("proxy-{index}") });
    for (type_url, name) in [(CLUSTER, None), (ROUTES, Some("halftone")), (FILTER, Some("halftone"))] {
        let subscribe = name.into_iter().map(str::to_owned).collect();
        let request = DeltaRequest {
            node: node.clone(),
            type_url: type_url.to_owned(),
            subscribe,
            ..DeltaRequest::default()
        };
        requests.send(request).await?;
    }
    let mut client = Grpc::new(channel).max_decoding_message_size(16 << 20);
    client.ready().await?;
    let codec = ProstCodec::<DeltaRequest, DeltaResponse>::default();
    let request = Request::new(ReceiverStream::new(outbound));
    let mut responses = client.streaming(request, PathAndQuery::from_static(PATH), codec).await?.into_inner();
    while let Some(response) = responses.message().await? {
        if response.type_url == CLUSTER {
            let subscribe = response.resources.into_iter().map(|resource| resource.name).collect();
            let type_url = ENDPOINTS.to_owned();
            let unsubscribe = response.removed;
            requests
                .send(DeltaRequest { type_url, subscribe, unsubscribe, ..DeltaRequest::default() })
                .await?;
        }
        let (type_url, nonce) = (response.type_url, response.nonce);
        requests.send(DeltaRequest { type_url, nonce, ..DeltaRequest::default() }).await?;
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
