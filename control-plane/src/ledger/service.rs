//! The gRPC side: `halftone.v1.Observations`, at the address of the xDS server.

use super::{Ledger, LedgerError};
use crate::api::Token;
use halftone_proto::v1::{
    ObservationAck, ObservationBatch, ObservationSource,
    observations_server::{Observations, ObservationsServer},
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
};

/// Bytes of a message.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Requests at once, from the first byte of their message to the answer. A message takes up to four times its bytes while
/// it is checked.
const AT_ONCE: usize = 8;

/// How long whoever comes in vain may wait, in milliseconds, and the field of gRPC that says so.
const PUSHBACK: (&str, &str) = ("grpc-retry-pushback-ms", "200");

/// Who may report.
#[derive(Clone)]
pub enum Access {
    /// Everybody: it is for this machine alone.
    Open,
    /// Who brings the token.
    Token(Token),
    /// Nobody: whoever reaches the address could make up what a release is judged by.
    Closed,
}

/// The service, as a server takes it.
pub type Grpc = InterceptedService<ObservationsServer<Service>, Admission>;

/// The service of a ledger.
#[must_use]
pub fn grpc(ledger: Arc<Ledger>, access: Access) -> Grpc {
    let server = ObservationsServer::new(Service { ledger }).max_decoding_message_size(MAX_MESSAGE);
    InterceptedService::new(server, Admission { access, room: Arc::new(Semaphore::new(AT_ONCE)) })
}

/// Lets those in who may report, and no more than there is room for. It comes before a message is read.
#[derive(Clone)]
pub struct Admission {
    access: Access,
    room: Arc<Semaphore>,
}

/// What a request holds until it is answered.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] Arc<OwnedSemaphorePermit>);

impl Interceptor for Admission {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match &self.access {
            Access::Open => {}
            Access::Token(token) if token.is_in(authorization(request.metadata())) => {}
            Access::Token(_) => {
                return Err(Status::unauthenticated(
                    "send the control plane's token as metadata: `authorization: Bearer …`",
                ));
            }
            Access::Closed => {
                return Err(Status::unauthenticated(
                    "the control plane takes observations from other machines with a token only: start it with --token-file",
                ));
            }
        }
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| LedgerError::Busy)?;
        request.extensions_mut().insert(Place(Arc::new(place)));
        Ok(request)
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&[u8]> {
    metadata.get("authorization").map(|value| value.as_bytes())
}

/// What answers.
pub struct Service {
    ledger: Arc<Ledger>,
}

#[tonic::async_trait]
impl Observations for Service {
    async fn report(&self, request: Request<ObservationBatch>) -> Result<Response<ObservationAck>, Status> {
        let (_, place, batch) = request.into_parts();
        let ledger = Arc::clone(&self.ledger);
        let durable = blocking(move || ledger.report(batch)).await?;
        let sequence = durable.await?;
        drop(place);
        Ok(Response::new(ObservationAck { sequence }))
    }

    async fn resume(&self, request: Request<ObservationSource>) -> Result<Response<ObservationAck>, Status> {
        let (_, place, ObservationSource { source }) = request.into_parts();
        let ledger = Arc::clone(&self.ledger);
        let sequence = blocking(move || ledger.resume(&source)).await?;
        drop(place);
        Ok(Response::new(ObservationAck { sequence }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Status::from),
        Err(_) => Err(Status::internal("the ledger failed; nothing was taken")),
    }
}

impl From<LedgerError> for Status {
    fn from(error: LedgerError) -> Self {
        let message = error.to_string();
        match error {
            LedgerError::Refused(_) => Self::invalid_argument(message),
            LedgerError::Busy => {
                let mut metadata = MetadataMap::new();
                metadata.insert(PUSHBACK.0, MetadataValue::from_static(PUSHBACK.1));
                Self::with_metadata(tonic::Code::ResourceExhausted, message, metadata)
            }
            LedgerError::Full(_) => Self::resource_exhausted(message),
            LedgerError::Store(_) | LedgerError::Ids(_) | LedgerError::Stopped => Self::unavailable(message),
        }
    }
}
