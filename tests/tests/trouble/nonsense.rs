//! An xDS server whose gRPC is right and whose answers are not, in both forms of the protocol.
//!
//! Its messages are written here once more, so that they depend on nothing of the control plane's.

use anyhow::Result;
use futures::{SinkExt, channel::mpsc};
use prost::Message;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const NONE_SUCH: &str = "type.googleapis.com/none.such";
/// No protobuf begins like this.
const BROKEN: [u8; 9] = [0xff; 9];
/// Between two answers on one stream.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A kind of request, and how it is answered.
trait Form: Message + Default + Send + 'static {
    type Answer: Message + Send + 'static;

    /// Of what it asks.
    fn type_url(self) -> String;
    /// Whether an answer without clusters says that there are none, which is no nonsense: Envoy has to obey it.
    const EMPTY_MEANS_NONE: bool;
    fn answer(number: usize, type_url: String, resources: Vec<Any>) -> Self::Answer;
}

#[derive(Clone, PartialEq, Message)]
struct Whole {
    #[prost(string, tag = "4")]
    type_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct WholeAnswer {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Any>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

impl Form for Whole {
    type Answer = WholeAnswer;

    const EMPTY_MEANS_NONE: bool = true;

    fn type_url(self) -> String {
        self.type_url
    }

    fn answer(number: usize, type_url: String, resources: Vec<Any>) -> WholeAnswer {
        WholeAnswer { version: number.to_string(), resources, type_url, nonce: number.to_string() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(string, tag = "2")]
    type_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(message, optional, tag = "2")]
    resource: Option<Any>,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeAnswer {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Named>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

impl Form for Change {
    type Answer = ChangeAnswer;

    const EMPTY_MEANS_NONE: bool = false;

    fn type_url(self) -> String {
        self.type_url
    }

    fn answer(number: usize, type_url: String, resources: Vec<Any>) -> ChangeAnswer {
        let named = |any| Named { resource: Some(any), name: "halftone".to_owned() };
        let resources = resources.into_iter().map(named).collect();
        ChangeAnswer { resources, type_url, nonce: number.to_string() }
    }
}

/// What is said next to someone who wants what has this type.
fn nonsense<F: Form>(number: usize, wanted: &str) -> F::Answer {
    let any = |type_url: &str| Any { type_url: type_url.to_owned(), value: BROKEN.to_vec() };
    let may_be_empty = !(F::EMPTY_MEANS_NONE && wanted == CLUSTER);
    let (type_url, resources) = match number % 6 {
        0 => (NONE_SUCH, vec![any(NONE_SUCH)]),
        1 => (wanted, vec![any(NONE_SUCH)]),
        2 => (LISTENER, vec![any(LISTENER)]),
        3 => ("", Vec::new()),
        4 if may_be_empty => (wanted, Vec::new()),
        _ => (wanted, vec![any(wanted)]),
    };
    F::answer(number, type_url.to_owned(), resources)
}

/// Runs until it is stopped.
pub(crate) struct Nonsense {
    said: Arc<AtomicUsize>,
    /// Of its own, because connections end with it, and with nothing less.
    runtime: Runtime,
}

impl Nonsense {
    pub(crate) fn start(address: SocketAddr) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let said = Arc::new(AtomicUsize::new(0));
        let service = Speaker { said: said.clone() };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let serving = Server::builder().add_service(service);
            serving.serve_with_incoming(TcpIncoming::from(listener)).await.map_err(std::io::Error::other)
        });
        Ok(Self { said, runtime })
    }

    /// Ends with all its connections. The answer is how often it spoke.
    pub(crate) async fn stop(self) -> Result<usize> {
        let Self { said, runtime } = self;
        tokio::task::spawn_blocking(|| runtime.shutdown_timeout(Duration::from_secs(5))).await?;
        Ok(said.load(Ordering::SeqCst))
    }
}

#[derive(Clone)]
struct Speaker {
    said: Arc<AtomicUsize>,
}

impl NamedService for Speaker {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for Speaker {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let said = self.said.clone();
        if request.uri().path() == DELTA {
            Box::pin(async { Ok(speak::<Change>(said, request).await) })
        } else {
            Box::pin(async { Ok(speak::<Whole>(said, request).await) })
        }
    }
}

async fn speak<F: Form>(said: Arc<AtomicUsize>, request: http::Request<Body>) -> http::Response<Body> {
    let mut grpc = Grpc::new(ProstCodec::<F::Answer, F>::default());
    grpc.streaming(Speech(said, PhantomData::<F>), request).await
}

struct Speech<F>(Arc<AtomicUsize>, PhantomData<F>);

impl<F: Form> StreamingService<F> for Speech<F> {
    type Response = F::Answer;
    type ResponseStream = mpsc::Receiver<Result<F::Answer, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<F>>) -> Self::Future {
        let (mut answers, stream) = mpsc::channel(1);
        let (said, mut requests) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut wanted: Vec<String> = Vec::new();
            for number in 0.. {
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        let type_url = request.type_url();
                        if !wanted.contains(&type_url) {
                            wanted.push(type_url);
                        }
                        continue;
                    }
                    () = tokio::time::sleep(PAUSE) => {}
                }
                // Everything to everybody, one after another.
                let Some(wanted) = wanted.get(number / 6 % wanted.len().max(1)) else { continue };
                if answers.send(Ok(nonsense::<F>(number, wanted))).await.is_err() {
                    return;
                }
                said.fetch_add(1, Ordering::SeqCst);
            }
        });
        ready(Ok(Response::new(stream)))
    }
}
