//! A control plane that takes observations and keeps nothing.

use anyhow::Result;
use halftone_proto::v1::{
    ObservationAck, ObservationBatch, ObservationSource,
    observations_server::{Observations, ObservationsServer},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport};

struct Sink;

#[tonic::async_trait]
impl Observations for Sink {
    async fn report(&self, request: Request<ObservationBatch>) -> Result<Response<ObservationAck>, Status> {
        Ok(Response::new(ObservationAck { sequence: request.get_ref().sequence }))
    }

    async fn resume(&self, _: Request<ObservationSource>) -> Result<Response<ObservationAck>, Status> {
        Ok(Response::new(ObservationAck { sequence: 0 }))
    }
}

/// Starts one; gives its URL.
pub(super) async fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let incoming = transport::server::TcpIncoming::from(listener);
    let service = ObservationsServer::new(Sink);
    tokio::spawn(transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    Ok(url)
}
