//! The gRPC side: one task for each stream, which carries messages between the proxy and the state machine.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::delta::Delta;
use super::encoded::{Encoded, EncodedCodec};
use super::form::WireForm;
use super::nodes::{Entry, Nodes, Report};
use super::push_span::PushSpan;
use super::resource::{Kind, Resources};
use super::sotw::StateOfTheWorld;
use super::stream::{Event, Stream, Timing};
use crate::node_clusters::PerNodeCluster;

/// Responses on their way to a proxy: one of each kind, as many as can be unanswered.
const OUTBOUND: usize = Kind::ALL.len();

/// A request names every cluster that the proxy has.
const MAX_REQUEST: usize = 16 << 20;

/// Room for a bundle of several megabytes.
pub(super) const MAX_RESPONSE: usize = 64 << 20;

/// The service. One for all proxies.
///
/// It is not the generated one, because that encodes every response for every proxy anew.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) resources: watch::Receiver<Arc<PerNodeCluster<Arc<Resources>>>>,
    pub(super) nodes: Nodes,
    pub(super) timing: Timing,
    /// Becomes true when streams must end.
    pub(super) stopping: watch::Receiver<bool>,
}

impl NamedService for Server {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<B> Service<http::Request<B>> for Server
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match request.uri().path() {
            StateOfTheWorld::PATH => self.stream::<StateOfTheWorld, B>(request),
            Delta::PATH => self.stream::<Delta, B>(request),
            _ => Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) }),
        }
    }
}

impl Server {
    fn stream<W: WireForm, B>(
        &self,
        request: http::Request<B>,
    ) -> BoxFuture<http::Response<tonic::body::Body>, Infallible>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let open = Open::<W> { server: self.clone(), form: PhantomData };
        Box::pin(async move {
            let mut grpc = Grpc::new(EncodedCodec::<W::Request>::default())
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_RESPONSE);
            Ok(grpc.streaming(open, request).await)
        })
    }
}

/// The method of one form.
struct Open<W> {
    server: Server,
    form: PhantomData<W>,
}

impl<W: WireForm> StreamingService<W::Request> for Open<W> {
    type Response = Encoded;
    type ResponseStream = ReceiverStream<Result<Encoded, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<W::Request>>) -> Self::Future {
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let (server, inbound) = (self.server.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Some(session) = Session::<W>::open(server, inbound, outbound).await {
                session.run().await;
            }
        });
        std::future::ready(Ok(Response::new(ReceiverStream::new(receiver))))
    }
}

/// One proxy's stream with all that it is connected to.
struct Session<W: WireForm> {
    inbound: Streaming<W::Request>,
    outbound: mpsc::Sender<Result<Encoded, Status>>,
    resources: watch::Receiver<Arc<PerNodeCluster<Arc<Resources>>>>,
    stopping: watch::Receiver<bool>,
    /// The cluster that the proxy says to be in, which decides what it gets.
    node_cluster: String,
    entry: Entry,
    stream: Stream,
    /// The revision that was published last during this stream, on its way.
    push: Option<PushSpan>,
}

impl<W: WireForm> Session<W> {
    /// Waits for the first request, which is the one that says who the proxy is. `None` if it does not come.
    async fn open(
        server: Server,
        mut inbound: Streaming<W::Request>,
        outbound: mpsc::Sender<Result<Encoded, Status>>,
    ) -> Option<Self> {
        let Server { mut resources, nodes, timing, mut stopping } = server;
        let first = tokio::select! {
            message = inbound.message() => message.ok()??,
            () = outbound.closed() => return None,
            () = stopped(&mut stopping) => return None,
        };
        let node = W::node(&first);
        let node_cluster = node.map_or_else(String::new, |node| node.cluster.clone());
        let entry = nodes.connect(node, W::FORM, W::is_new(&first));
        tracing::info!(node = entry.id(), node_cluster, form = ?W::FORM, "proxy connected");
        let current = Arc::clone(resources.borrow_and_update().of(&node_cluster));
        let mut stream = Stream::new(W::FORM, timing, current);
        if let Some(refusal) = entry.refusal() {
            stream.recall(refusal);
        }
        let mut session =
            Self { inbound, outbound, resources, stopping, node_cluster, entry, stream, push: None };
        session.request(first);
        Some(session)
    }

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
                    let resources = Arc::clone(self.resources.borrow_and_update().of(&self.node_cluster));
                    self.push = PushSpan::begin(&resources, self.entry.id());
                    self.stream.publish(resources);
                }
                () = sleep(deadline) => {}
                () = room(&self.outbound), if blocked => {}
                () = self.outbound.closed() => break,
                () = stopped(&mut self.stopping) => break,
            }
        }
        tracing::info!(node = self.id(), "proxy disconnected");
    }

    /// Sends all there is to send. True if the connection took no more: then nothing is prepared in advance, so
    /// that a proxy which reads slowly gets the latest state when it reads on.
    fn flush(&mut self) -> bool {
        loop {
            let Ok(permit) = self.outbound.try_reserve() else { return true };
            let Some(push) = self.stream.poll(Instant::now()) else { return false };
            tracing::debug!(
                node = ?self.id(),
                kind = ?push.kind, version = push.version, resources = push.resources.len(), "pushing"
            );
            permit.send(Ok(W::response(&push)));
        }
    }

    fn request(&mut self, request: W::Request) {
        match W::request(request) {
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
                Event::Nacked { kind, version, revision } => {
                    let refusal = self.stream.standing(*kind).nacked.as_ref();
                    let message = refusal.map_or("", |refusal| &refusal.message);
                    tracing::warn!(
                        ?node,
                        ?kind,
                        version,
                        revision,
                        ?message,
                        "NACK: the proxy refused the revision and is brought back to the one it had; if others took \
                         it, compare this proxy's version and filter module with theirs, otherwise upload other rules"
                    );
                }
                Event::Overdue { kind, version } => {
                    tracing::warn!(?node, ?kind, version, "the proxy has not answered in time");
                }
            }
        }
        self.push = self.push.take().and_then(|push| push.unless_done(&self.stream));
        let asked = Kind::ALL.into_iter().filter(|kind| self.stream.asked(*kind));
        self.entry.update(Report {
            revision: self.stream.covered(),
            refused: self.stream.refused().cloned(),
            acked: events.iter().any(|event| matches!(event, Event::Acked { .. })),
            kinds: asked.map(|kind| (kind, self.stream.standing(kind).clone())).collect(),
        });
    }

    fn id(&self) -> &str {
        self.entry.id()
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
