//! The gRPC side: one task for each stream, which carries messages between the proxy and the state machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::nodes::{Entry, Nodes};
use super::resource::{Kind, Resources};
use super::sotw;
use super::stream::{Event, Stream, Timing};

/// Responses on their way to a proxy: one of each kind, as many as can be unanswered.
const OUTBOUND: usize = Kind::ALL.len();

/// The service. One for all proxies.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) resources: watch::Receiver<Arc<Resources>>,
    pub(super) nodes: Nodes,
    pub(super) timing: Timing,
    /// Becomes true when streams must end.
    pub(super) stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let mut resources = self.resources.clone();
        let current = Arc::clone(&resources.borrow_and_update());
        let session = Session {
            inbound: request.into_inner(),
            outbound,
            resources,
            stopping: self.stopping.clone(),
            nodes: self.nodes.clone(),
            entry: None,
            stream: Stream::new(self.timing, current),
        };
        tokio::spawn(session.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn delta_aggregated_resources(
        &self,
        _: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta xDS is not served; use api_type: GRPC"))
    }
}

/// One proxy's stream with all that it is connected to.
struct Session {
    inbound: Streaming<DiscoveryRequest>,
    outbound: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    resources: watch::Receiver<Arc<Resources>>,
    stopping: watch::Receiver<bool>,
    nodes: Nodes,
    /// There from the first request on, which is the one that says who the proxy is.
    entry: Option<Entry>,
    stream: Stream,
}

impl Session {
    async fn run(mut self) {
        let mut published = true;
        loop {
            let blocked = self.flush();
            self.report();
            let deadline = self.stream.deadline().filter(|_| !blocked);
            tokio::select! {
                message = self.inbound.message() => match message {
                    Ok(Some(request)) => self.request(request),
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(node = ?self.id(), %status, "xDS stream broke");
                        break;
                    }
                },
                changed = self.resources.changed(), if published => {
                    // Without a publisher, the last resources stay good.
                    published = changed.is_ok();
                    let resources = Arc::clone(&self.resources.borrow_and_update());
                    self.stream.publish(resources);
                }
                () = sleep(deadline) => {}
                () = room(&self.outbound), if blocked => {}
                () = self.outbound.closed() => break,
                () = stopped(&mut self.stopping) => break,
            }
        }
        tracing::info!(node = ?self.id(), "proxy disconnected");
    }

    /// Sends all there is to send. True if the connection took no more: then nothing is prepared in advance, so
    /// that a proxy which reads slowly gets the latest state when it reads on.
    fn flush(&mut self) -> bool {
        loop {
            let Ok(permit) = self.outbound.try_reserve() else { return true };
            let Some(push) = self.stream.poll(Instant::now()) else { return false };
            tracing::debug!(
                node = ?self.entry.as_ref().map(Entry::id),
                kind = ?push.kind, version = push.version, resources = push.resources.len(), "pushing"
            );
            permit.send(Ok(sotw::response(push)));
        }
    }

    fn request(&mut self, request: DiscoveryRequest) {
        if self.entry.is_none() {
            let entry = self.nodes.connect(request.node.as_ref());
            tracing::info!(node = ?entry.id(), "proxy connected");
            if let Some(refusal) = entry.refusal() {
                self.stream.recall(refusal);
            }
            self.entry = Some(entry);
        }
        match sotw::request(request) {
            Ok(request) => self.stream.request(Instant::now(), request),
            Err(type_url) => {
                tracing::debug!(node = ?self.id(), ?type_url, "ignoring a subscription to a type not served");
            }
        }
    }

    /// Logs what happened and shows it in the registry.
    fn report(&mut self) {
        let events = self.stream.events();
        for event in &events {
            let node = self.id();
            match event {
                Event::Acked { kind, version } => tracing::debug!(?node, ?kind, version, "ACK"),
                Event::Nacked { kind, version } => {
                    let refusal = self.stream.status(*kind).nacked.as_ref();
                    let message = refusal.map_or("", |refusal| &refusal.message);
                    tracing::warn!(
                        ?node,
                        ?kind,
                        version,
                        ?message,
                        "NACK: the proxy refused its configuration"
                    );
                }
                Event::Overdue { kind, version } => {
                    tracing::warn!(?node, ?kind, version, "the proxy has not answered in time");
                }
            }
        }
        if let Some(entry) = &self.entry {
            let status = |kind| (kind, self.stream.status(kind).clone());
            let kinds: BTreeMap<_, _> = Kind::ALL.into_iter().map(status).collect();
            entry.update(self.stream.covered(), kinds);
        }
    }

    fn id(&self) -> &str {
        self.entry.as_ref().map_or("", Entry::id)
    }
}

/// Done when the channel takes another message, or never will.
async fn room<T>(outbound: &mpsc::Sender<T>) {
    // The permit is given back at once.
    drop(outbound.reserve().await);
}

/// Done when streams must end.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Sleeps until the deadline; for ever if there is none.
async fn sleep(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
