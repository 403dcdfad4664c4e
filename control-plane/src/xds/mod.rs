//! The xDS server: distributes bundles, routes and clusters to Envoy.
//!
//! Publish [`Resources`] in a `watch` channel, and [`serve`] brings every connected proxy to the newest ones without
//! losing a request on the way; [`Nodes`] says how far each of them is.
//!
//! To be read in this order: [`snapshot`](Snapshot) (what to distribute), `clusters`, `routes`, `settings`, `filter` (what that
//! is in Envoy's terms), `resource` (how it is named and compared), `interest`, `channel` and `stream` (what to send
//! when), `form`, `sotw` and `delta` (the two forms of the protocol), `encoded` and `server` (how it travels), `nodes`,
//! `applied` and `fleet` (who has what).

mod applied;
mod channel;
mod clusters;
mod delta;
mod encoded;
mod filter;
mod fleet;
mod form;
mod interest;
mod nodes;
mod push_span;
mod resource;
mod routes;
mod server;
mod settings;
mod snapshot;
mod sotw;
mod stream;
#[cfg(test)]
mod testing;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::node_clusters::PerNodeCluster;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

pub use applied::WorkerStatus;
pub use filter::plugin_configuration;
pub use fleet::{Behind, Fleet, RefusedRevision};
pub use form::Form;
pub use nodes::{KindStatus, Nack, NodeStatus, Nodes};
pub use resource::{Kind, Resources};
pub use snapshot::{ProxySettings, RulesetRoutes, Snapshot, SnapshotError, TraceOwner, TraceSample};
use stream::Timing;

/// How proxies are noticed that vanished without closing their connection: they are off the list after both times.
#[derive(Debug, Clone, Copy)]
struct KeepAlive {
    /// How often a silent proxy is asked whether it is still there.
    interval: Duration,
    /// How long it may take to answer.
    answer: Duration,
}

const KEEP_ALIVE: KeepAlive =
    KeepAlive { interval: Duration::from_secs(15), answer: Duration::from_secs(10) };

/// How long proxies may take to let go of their connections at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Serves proxies until `shutdown` is done.
///
/// Whatever is published in `resources` reaches every proxy, except that states which are superseded sooner than a
/// proxy could take them are skipped. If the sender goes away, the last state stays. `beside` is served at the same address.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    resources: watch::Receiver<Arc<PerNodeCluster<Arc<Resources>>>>,
    nodes: Nodes,
    beside: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_with(listener, resources, nodes, beside, shutdown, Timing::default(), KEEP_ALIVE).await
}

async fn serve_with(
    listener: TcpListener,
    resources: watch::Receiver<Arc<PerNodeCluster<Arc<Resources>>>>,
    nodes: Nodes,
    beside: Routes,
    shutdown: impl Future<Output = ()>,
    timing: Timing,
    keep_alive: KeepAlive,
) -> Result<(), tonic::transport::Error> {
    let (stop, stopping) = watch::channel(false);
    let stopped = stopping.clone();
    let reports = applied::router(nodes.clone());
    let service = server::Server { resources, nodes, timing, stopping };
    let routes = Routes::from(beside.add_service(service).into_axum_router().merge(reports));
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(keep_alive.interval))
        .http2_keepalive_timeout(Some(keep_alive.answer))
        .add_routes(routes)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            shutdown.await;
            // Streams never end by themselves, and the server waits for them.
            stop.send_replace(true);
        });
    tokio::select! {
        result = serving => result,
        () = patience(stopped) => Ok(()),
    }
}

/// Done when streams have been told to stop and had time to.
async fn patience(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // The server ended by itself.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SHUTDOWN).await;
}

#[cfg(test)]
mod tests;
