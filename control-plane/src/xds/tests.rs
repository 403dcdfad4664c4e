//! The whole server, with a real gRPC client over loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::server::MAX_RESPONSE;
use super::testing::{resources, ruleset, snapshot, target};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct ControlPlane {
    address: SocketAddr,
    publish: watch::Sender<Arc<PerNodeCluster<Arc<Resources>>>>,
    nodes: Nodes,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

async fn start(resources: Arc<Resources>) -> ControlPlane {
    start_with(PerNodeCluster::same(resources)).await
}

async fn start_with(resources: PerNodeCluster<Arc<Resources>>) -> ControlPlane {
    let timing = Timing { grace: Duration::from_millis(100), ..Timing::default() };
    start_timed(resources, timing, KEEP_ALIVE).await
}

async fn start_timed(
    resources: PerNodeCluster<Arc<Resources>>,
    timing: Timing,
    keep_alive: KeepAlive,
) -> ControlPlane {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (publish, resources) = watch::channel(Arc::new(resources));
    let (stop, stopped) = oneshot::channel::<()>();
    let nodes = Nodes::new();
    let serving = serve_with(
        listener,
        resources,
        nodes.clone(),
        Routes::default(),
        async {
            let _ = stopped.await;
        },
        timing,
        keep_alive,
    );
    let server = tokio::spawn(serving);
    ControlPlane { address, publish, nodes, stop, server }
}

impl ControlPlane {
    async fn client(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        let client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", self.address));
        client.await.unwrap().max_decoding_message_size(MAX_RESPONSE)
    }

    async fn proxy(&self, id: &str) -> Proxy {
        let (requests, outbound) = mpsc::channel(16);
        // The stream is only answered once the server has seen its start, so say something first.
        let node = Node { id: id.to_owned(), cluster: "edge".to_owned(), ..Node::default() };
        let first = DiscoveryRequest {
            node: Some(node),
            type_url: Kind::Cluster.type_url().to_owned(),
            ..DiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let mut client = self.client().await;
        let responses = client.stream_aggregated_resources(ReceiverStream::new(outbound)).await;
        Proxy { requests, responses: responses.unwrap().into_inner() }
    }

    /// Waits until the registry says so.
    async fn until(&self, what: impl Fn(&[NodeStatus]) -> bool) {
        let wait = async {
            while !what(&self.nodes.list()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{:?}", self.nodes.list());
    }
}

struct Proxy {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Proxy {
    async fn subscribe(&self, kind: Kind, names: &[&str]) {
        self.send(kind.type_url(), names, &DiscoveryResponse::default(), None).await;
    }

    async fn send(&self, type_url: &str, names: &[&str], to: &DiscoveryResponse, error: Option<&str>) {
        let request = DiscoveryRequest {
            version_info: to.version_info.clone(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            type_url: type_url.to_owned(),
            response_nonce: to.nonce.clone(),
            error_detail: error.map(|message| Status {
                code: 13,
                message: message.to_owned(),
                details: Vec::new(),
            }),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, which must be of this kind.
    async fn next(&mut self, kind: Kind) -> DiscoveryResponse {
        let response = timeout(PATIENCE, self.responses.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(response.type_url, kind.type_url());
        assert!(response.resources.iter().all(|any| any.type_url == kind.type_url()));
        response
    }

    /// Takes the next response and ACKs it.
    async fn take(&mut self, kind: Kind, names: &[&str]) -> DiscoveryResponse {
        let response = self.next(kind).await;
        self.send(kind.type_url(), names, &response, None).await;
        response
    }

    /// Goes through a first connection, up to the filter.
    async fn settle(&mut self, endpoints: &[&str]) -> DiscoveryResponse {
        self.take(Kind::Cluster, &[]).await;
        self.subscribe(Kind::Endpoint, endpoints).await;
        self.take(Kind::Endpoint, endpoints).await;
        self.subscribe(Kind::Filter, &["halftone"]).await;
        self.subscribe(Kind::Route, &["halftone"]).await;
        self.take(Kind::Route, &["halftone"]).await;
        self.take(Kind::Filter, &["halftone"]).await
    }
}

#[tokio::test]
async fn xds_a_client_gets_everything_in_order_and_then_changes() {
    let first = resources(1, &[("a", 1)]);
    let plane = start(Arc::clone(&first)).await;
    let mut proxy = plane.proxy("n1").await;
    let filter = proxy.settle(&["halftone/d/a"]).await;
    assert_eq!(filter.version_info, first.version(Kind::Filter));
    assert_eq!(filter.resources[0].encode_to_vec(), first.filter.any);
    assert_eq!(filter.control_plane.unwrap().identifier, "halftone");
    plane.until(|nodes| nodes.len() == 1 && nodes[0].revision == Some(1)).await;
    assert_eq!(plane.nodes.list()[0].id, "n1");

    let second = resources(2, &[("b", 2)]);
    plane.publish.send_replace(Arc::new(PerNodeCluster::same(Arc::clone(&second))));
    let union = proxy.take(Kind::Cluster, &[]).await;
    assert_eq!(union.resources.len(), 2);
    // A type we do not serve must not disturb.
    proxy.send("type.googleapis.com/envoy.config.listener.v3.Listener", &[], &union, None).await;
    let names = ["halftone/d/a", "halftone/d/b"];
    proxy.subscribe(Kind::Endpoint, &names).await;
    assert_eq!(proxy.take(Kind::Endpoint, &names).await.resources.len(), 1);
    proxy.take(Kind::Route, &["halftone"]).await;
    proxy.take(Kind::Filter, &["halftone"]).await;
    plane.until(|nodes| nodes[0].revision == Some(2)).await;
    let pruned = proxy.take(Kind::Cluster, &[]).await;
    assert_eq!(pruned.version_info, second.version(Kind::Cluster));

    drop(proxy);
    plane.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn xds_a_client_gets_what_its_cluster_gets() {
    let of = |name: Option<&str>| {
        Ok::<_, ()>(resources(1, &[(if name == Some("edge") { "ours" } else { "theirs" }, 1)]))
    };
    let plane = start_with(PerNodeCluster::make(["edge", "core"].into(), of).unwrap()).await;
    let mut proxy = plane.proxy("n1").await;
    proxy.settle(&["halftone/d/ours"]).await;
    plane.until(|nodes| nodes.len() == 1 && nodes[0].revision == Some(1)).await;
    // A cluster that nobody names any more has what the others have.
    plane.publish.send_replace(Arc::new(PerNodeCluster::same(resources(2, &[("theirs", 1)]))));
    let union = proxy.take(Kind::Cluster, &[]).await;
    assert_eq!(union.resources.len(), 2, "its own go last");
}

#[tokio::test]
async fn xds_a_nack_shows_in_the_registry() {
    let plane = start(resources(1, &[("a", 1)])).await;
    let mut proxy = plane.proxy("n1").await;
    proxy.settle(&["halftone/d/a"]).await;
    plane.publish.send_replace(Arc::new(PerNodeCluster::same(resources(2, &[("a", 1)]))));
    let bad = proxy.next(Kind::Filter).await;
    proxy.send(Kind::Filter.type_url(), &["halftone"], &bad, Some("no such opcode")).await;
    plane.until(|nodes| nodes[0].kinds[&Kind::Filter].nacked.is_some()).await;
    let node = plane.nodes.list().remove(0);
    assert_eq!(node.revision, Some(1));
    let refusal = node.kinds[&Kind::Filter].nacked.clone().unwrap();
    assert_eq!((refusal.version, refusal.message.as_str()), (bad.version_info, "no such opcode"));
}

#[tokio::test]
async fn xds_a_bundle_of_megabytes_gets_through() {
    let mut large = snapshot(1, vec![ruleset("d", None, vec![target("a", &[1])])]);
    large.bundle = Arc::from(vec![7_u8; 5 << 20]);
    let large = Resources::build(&large, &ProxySettings::new("filter.wasm")).unwrap();
    let plane = start(Arc::new(large)).await;
    let mut proxy = plane.proxy("n1").await;
    let filter = proxy.settle(&["halftone/d/a"]).await;
    assert!(filter.resources[0].value.len() > 5 << 20);
}

#[tokio::test]
async fn xds_shutdown_ends_streams_and_the_server() {
    let plane = start(resources(1, &[("a", 1)])).await;
    let mut proxy = plane.proxy("n1").await;
    proxy.settle(&["halftone/d/a"]).await;
    plane.stop.send(()).unwrap();
    // The end of the stream, clean or not.
    let end = timeout(PATIENCE, proxy.responses.message()).await.unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    timeout(PATIENCE, plane.server).await.unwrap().unwrap().unwrap();
    assert!(plane.nodes.list().is_empty());
}

#[tokio::test]
async fn xds_the_last_state_stays_without_a_publisher() {
    let ControlPlane { address, publish, nodes, stop, server } = start(resources(1, &[("a", 1)])).await;
    let (other, _) = watch::channel(Arc::new(PerNodeCluster::same(resources(0, &[]))));
    drop(publish);
    let plane = ControlPlane { address, publish: other, nodes, stop, server };
    plane.proxy("n1").await.settle(&["halftone/d/a"]).await;
}

/// Passes bytes on until it is told to stop: then its connections stay open, and nothing comes through any more.
struct Relay {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(server).await.unwrap();
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        () = async { drop(is_cut.wait_for(|is_cut| *is_cut).await) } => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, cut }
    }
}

#[tokio::test]
async fn xds_a_proxy_that_vanished_leaves_the_list() {
    let keep_alive = KeepAlive { interval: Duration::from_millis(200), answer: Duration::from_secs(2) };
    let resources = PerNodeCluster::same(resources(1, &[("a", 1)]));
    let mut plane = start_timed(resources, Timing::default(), keep_alive).await;
    let relay = Relay::to(plane.address).await;
    plane.address = relay.address;
    let mut proxy = plane.proxy("n1").await;
    proxy.settle(&["halftone/d/a"]).await;
    tokio::time::sleep(keep_alive.interval * 4).await;
    assert_eq!(plane.nodes.list().len(), 1, "one that is silent and there stays");
    relay.cut.send_replace(true);
    plane.until(<[_]>::is_empty).await;
}

/// Bytes that count how many of their kind there are.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn xds_a_proxy_that_does_not_read_costs_a_few_bundles_and_gets_the_last_one() {
    const REVISIONS: u64 = 200;
    /// Responses under way, the states that its stream knows, and the one that is published.
    const FEW: usize = 12;
    let alive = Arc::new(AtomicUsize::new(0));
    let large = |revision: u64| {
        let mut snapshot = snapshot(revision, vec![ruleset("d", None, vec![target("a", &[1])])]);
        snapshot.bundle = Arc::from(vec![u8::try_from(revision % 251).unwrap(); 256 << 10]);
        let mut resources = Resources::build(&snapshot, &ProxySettings::new("filter.wasm")).unwrap();
        let filter = Arc::make_mut(&mut resources.filter);
        alive.fetch_add(1, Ordering::SeqCst);
        filter.any = Bytes::from_owner(Counted(filter.any.to_vec(), Arc::clone(&alive)));
        Arc::new(resources)
    };
    // Nobody is waited for, so that as much as possible is sent.
    let impatient = Timing { answer: Duration::from_millis(1), ..Timing::default() };
    let plane = start_timed(PerNodeCluster::same(large(1)), impatient, KEEP_ALIVE).await;
    let mut proxy = plane.proxy("n1").await;
    proxy.settle(&["halftone/d/a"]).await;
    plane.until(|nodes| nodes.len() == 1 && nodes[0].revision == Some(1)).await;
    let mut last = String::new();
    for revision in 2..=REVISIONS {
        let next = large(revision);
        last = next.version(Kind::Filter);
        plane.publish.send_replace(Arc::new(PerNodeCluster::same(next)));
        tokio::time::sleep(Duration::from_millis(3)).await;
        let alive = alive.load(Ordering::SeqCst);
        assert!(alive <= FEW, "{alive} bundles are kept after {revision} revisions");
    }
    let mut read = 0;
    while proxy.take(Kind::Filter, &["halftone"]).await.version_info != last {
        read += 1;
    }
    assert!(read < REVISIONS / 2, "{read} revisions were kept for it");
    plane.until(|nodes| nodes[0].revision == Some(REVISIONS)).await;
}

#[tokio::test]
async fn xds_a_client_is_served_by_delta() {
    let first = resources(1, &[("a", 1)]);
    let plane = start(Arc::clone(&first)).await;
    let (requests, outbound) = mpsc::channel(16);
    let node = Node { id: "n1".to_owned(), ..Node::default() };
    let request = |kind: Kind, names: &[&str], nonce: &str| DeltaDiscoveryRequest {
        node: Some(node.clone()),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(request(Kind::Cluster, &[], "")).await.unwrap();
    requests.send(request(Kind::Endpoint, &["halftone/d/a"], "")).await.unwrap();
    requests.send(request(Kind::Route, &["halftone"], "")).await.unwrap();
    requests.send(request(Kind::Filter, &["halftone"], "")).await.unwrap();
    let mut client = plane.client().await;
    let responses = client.delta_aggregated_resources(ReceiverStream::new(outbound)).await;
    let mut responses = responses.unwrap().into_inner();
    for kind in Kind::ALL {
        let response = timeout(PATIENCE, responses.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((response.type_url.as_str(), response.resources.len()), (kind.type_url(), 1));
        requests.send(request(kind, &[], &response.nonce)).await.unwrap();
    }
    plane.until(|nodes| nodes.len() == 1 && nodes[0].revision == Some(1)).await;
    assert_eq!(plane.nodes.list()[0].form, Form::Delta);
    assert!(plane.nodes.list()[0].revision_since_ms.is_some());
}

#[test]
fn xds_the_same_snapshot_gives_the_same_bytes() {
    let build = |mut snapshot: Snapshot| {
        let settings = ProxySettings::new("filter.wasm");
        let one = Resources::build(&snapshot, &settings).unwrap();
        snapshot.rulesets.reverse();
        for ruleset in &mut snapshot.rulesets {
            ruleset.targets.reverse();
        }
        let other = Resources::build(&snapshot, &settings).unwrap();
        assert_eq!(one.upstreams, other.upstreams);
        assert_eq!((&one.route, &one.filter), (&other.route, &other.filter));
        Kind::ALL.map(|kind| (one.version(kind), other.version(kind)))
    };
    let versions = build(snapshot(
        1,
        vec![
            ruleset("x", Some("a"), vec![target("a", &[1, 2]), target("b", &[3])]),
            ruleset("y", None, vec![target("a", &[4])]),
        ],
    ));
    for (one, other) in versions {
        assert_eq!(one, other);
    }
}

#[test]
fn xds_versions_change_only_with_their_own_content() {
    let before = resources(1, &[("a", 1)]);
    let differing = |after: &Resources| {
        let differs = |kind: &Kind| before.version(*kind) != after.version(*kind);
        Kind::ALL.into_iter().filter(differs).collect::<Vec<_>>()
    };
    assert_eq!(differing(&resources(1, &[("a", 1)])), []);
    assert_eq!(differing(&resources(2, &[("a", 1)])), [Kind::Filter]);
    assert_eq!(differing(&resources(1, &[("a", 2)])), [Kind::Endpoint]);
    assert_eq!(differing(&resources(1, &[("b", 1)])), [Kind::Cluster, Kind::Endpoint, Kind::Route]);
}

#[test]
fn xds_unusable_snapshots_are_refused_with_the_name() {
    let settings = ProxySettings::new("filter.wasm");
    let refused = |rulesets| Resources::build(&snapshot(1, rulesets), &settings).unwrap_err().to_string();
    assert_eq!(
        refused(vec![ruleset("a/b", None, vec![])]),
        "ruleset name \"a/b\" is empty or has a character other than visible ASCII, or a '/'"
    );
    assert_eq!(
        refused(vec![ruleset("r", None, vec![target("", &[])])]),
        "target name \"\" is empty or has a character other than visible ASCII, or a '/'"
    );
    assert_eq!(
        refused(vec![ruleset("r", None, vec![]), ruleset("r", None, vec![])]),
        "ruleset \"r\" occurs twice"
    );
    assert_eq!(
        refused(vec![ruleset("r", None, vec![target("t", &[]), target("t", &[1])])]),
        "target \"r/t\" occurs twice"
    );
    assert_eq!(
        refused(vec![ruleset("r", Some("x"), vec![target("t", &[1])])]),
        "ruleset \"r\" names \"x\" as its default, which is not one of its targets"
    );
}
