//! A model that another server has: Triton, one of ours, or whatever speaks the Open Inference Protocol over gRPC.
//!
//! A request goes over one of several connections ([`link`]), behind a circuit breaker; what had no answer is tried
//! again on another one as far as the budget allows ([`retries`]). What the server has is asked when the model is loaded
//! ([`peer`]) and over and over ([`health`]).

pub mod config;
pub mod failure;
pub mod health;
pub mod link;
pub mod message;
pub mod peer;
pub mod retries;

use self::{
    config::RemoteConfig,
    health::Health,
    link::Link,
    peer::{Description, Peer},
    retries::RetryBudget,
};
use crate::{
    call::Call, failure::Failure, job::Outcome, offload::offload, rejections::Reason, request::InferRequest,
    signature::Signature,
};
use halftone_proto::inference::{
    ModelInferRequest, ModelInferResponse, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use halftone_telemetry::{
    breaker::{Breaker, BreakerLayer, BreakerService},
    outcome::code_name,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tower_layer::Layer;

/// How often one request is tried again, at most.
const RETRIES: u32 = 2;
/// How long after the first try; after each further one twice as long.
const PAUSE: Duration = Duration::from_millis(10);
/// The call by which a model is asked.
const METHOD: &str = "inference.GRPCInferenceService/ModelInfer";
/// Largest answer, in bytes.
const LARGEST: usize = 256 << 20;

/// The server does not say what it has, so that the model cannot be served now; later it may be.
#[derive(Debug, thiserror::Error)]
#[error("{place} cannot be served: {problem}")]
pub struct Away {
    place: String,
    problem: String,
}

/// A model that another server has.
#[derive(Debug)]
pub struct Remote {
    peer: Peer,
    platform: String,
    signature: Arc<Signature>,
    timeout: Duration,
    connections: Vec<BreakerService<Link>>,
    /// Counts the requests; each begins with the next connection.
    next: AtomicUsize,
    breaker: Arc<Breaker>,
    budget: RetryBudget,
    places: Semaphore,
    /// Host and port of the server.
    server: Option<(String, u16)>,
    health: Health,
}

impl Remote {
    /// Asks the server what it has. `label` is the model's name and version here; at most `limit` requests may be on
    /// their way.
    ///
    /// # Errors
    /// That it is [`Away`], or what is wrong with the configuration.
    pub async fn connect(
        config: &RemoteConfig,
        name: &str,
        label: &str,
        limit: usize,
    ) -> anyhow::Result<Self> {
        let place = format!("{label} at {}", config.url);
        let breaker = Breaker::new(&place, config.breaker.policy().map_err(anyhow::Error::msg)?);
        let links = (0..config.connections).map(|_| Link::new(config)).collect::<Result<Vec<_>, _>>()?;
        let asked = Link::new(config)?;
        let peer = Peer::new(asked, config, name, place.clone());
        let Description { signature, platform } =
            peer.ask().await.map_err(|problem| Away { place, problem })?;
        let signature = Arc::new(signature);
        let layer = BreakerLayer::new(Arc::clone(&breaker));
        Ok(Self {
            health: Health::watch(peer.clone(), Arc::clone(&signature), config.health()),
            peer,
            platform,
            signature,
            timeout: config.timeout(),
            connections: links.into_iter().map(|link| layer.layer(link)).collect(),
            next: AtomicUsize::new(0),
            breaker,
            budget: RetryBudget::new(config.retries),
            server: server(&config.url),
            places: Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)),
        })
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// What runs the model there, in the protocol's words.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The circuit breaker around the server.
    #[must_use]
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// What is thought of the model.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Whether one more request may be on its way.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Sends a request, and waits for its answer until the deadline, or for as long as the configuration says.
    ///
    /// # Errors
    /// When too many are on their way, and what the server says or that it says nothing.
    pub async fn run(&self, call: &Call, deadline: Option<Instant>, request: InferRequest) -> Outcome {
        let _place = self.places.try_acquire().map_err(|_| self.overloaded())?;
        let own = Instant::now() + self.timeout;
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        let (message, asked) = self.message(request).await?;
        let answer = self.answer(call, deadline, &message).await?;
        let (signature, place) = (Arc::clone(&self.signature), self.peer.place().to_owned());
        let size = answer.raw_output_contents.iter().map(bytes::Bytes::len).sum();
        offload(size, move || {
            message::outputs(&answer, &signature, &asked).map_err(|problem| {
                Failure::Internal(format!("{place} answers with something else: {problem}"))
            })
        })
        .await
    }

    /// Refuses one more request than may be on their way.
    #[must_use]
    pub fn overloaded(&self) -> Failure {
        let problem = format!("{} is overloaded: too many requests are on their way", self.peer.place());
        Failure::Overloaded { problem, reason: Reason::QueueFull }
    }

    /// The message, and which outputs are asked for.
    async fn message(&self, request: InferRequest) -> Result<(ModelInferRequest, Vec<usize>), Failure> {
        let (peer, signature) = (self.peer.clone(), Arc::clone(&self.signature));
        let size = request.size();
        offload(size, move || {
            let message = message::request(peer.model(), peer.version(), &signature, &request)
                .map_err(|problem| Failure::Internal(format!("{}: {problem}", peer.place())))?;
            Ok((message, request.outputs))
        })
        .await
    }

    async fn answer(
        &self,
        call: &Call,
        deadline: Instant,
        message: &ModelInferRequest,
    ) -> Result<ModelInferResponse, Failure> {
        self.budget.pay_in();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut retries = 0;
        loop {
            let tried = self.attempt(first + retries as usize, call, deadline, message);
            let status = match tokio::time::timeout_at(deadline.into(), tried).await {
                Err(_) => return Err(self.too_late()),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
            };
            let pause = PAUSE * 2_u32.pow(retries);
            let in_time = deadline.saturating_duration_since(Instant::now()) > pause;
            if retries == RETRIES || !in_time || !failure::may_retry(&status) || !self.budget.take() {
                return Err(failure::failure(self.peer.place(), &status));
            }
            tracing::debug!(model = self.peer.place(), %status, "tried again");
            retries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        number: usize,
        call: &Call,
        deadline: Instant,
        message: &ModelInferRequest,
    ) -> Result<ModelInferResponse, Status> {
        let place = number % self.connections.len().max(1);
        let connection = self.connections.get(place).ok_or_else(|| Status::internal("no connections"))?;
        let mut client = GrpcInferenceServiceClient::new(connection.clone())
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(usize::MAX);
        let mut span = call.calls(METHOD);
        let mut metadata = MetadataMap::from_headers(call.headers.clone());
        if let Some(traceparent) = call.traceparent(&span).and_then(|text| text.parse().ok()) {
            metadata.insert("traceparent", traceparent);
        }
        span.set("rpc.system.name", "grpc");
        span.set("rpc.method", METHOD);
        self.server.iter().for_each(|(address, port)| {
            span.set("server.address", address);
            span.set("server.port", i64::from(*port));
        });
        let mut request = Request::from_parts(metadata, tonic::Extensions::default(), message.clone());
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let answer = client.model_infer(request).await.map(tonic::Response::into_inner);
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        let name = u16::try_from(i32::from(code)).map_or("UNKNOWN", code_name);
        span.set("rpc.response.status_code", name);
        if code != Code::Ok {
            span.fail(name, "");
        }
        answer
    }

    fn too_late(&self) -> Failure {
        Failure::DeadlineExceeded(format!("{} was too slow: no answer in time", self.peer.place()))
    }
}

/// Host and port of a URL.
fn server(url: &str) -> Option<(String, u16)> {
    let uri: axum::http::Uri = url.parse().ok()?;
    Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(80)))
}
