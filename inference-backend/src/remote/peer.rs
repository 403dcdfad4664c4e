//! A model at a server, as it tells about itself.

use super::{config::RemoteConfig, link::Link, message};
use crate::signature::Signature;
use halftone_proto::inference::{
    ModelMetadataRequest, ModelReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;

/// How long the server may take to tell.
const TIME: Duration = Duration::from_secs(3);

/// A model at a server.
#[derive(Clone, Debug)]
pub struct Peer {
    link: Link,
    /// Name of the model there.
    model: String,
    /// Its version there; empty for the latest.
    version: String,
    place: String,
}

/// What it tells.
#[derive(Clone, Debug)]
pub struct Description {
    /// What the model takes and gives.
    pub signature: Signature,
    /// What runs it, in the protocol's words.
    pub platform: String,
}

impl Peer {
    /// The model of a configuration, which is `name` here.
    #[must_use]
    pub fn new(link: Link, config: &RemoteConfig, name: &str, place: String) -> Self {
        let model = config.model.as_deref().unwrap_or(name).to_owned();
        Self { link, model, version: config.version.clone(), place }
    }

    /// Its name there.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Its version there; empty for the latest.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Which model here and which server, for errors: `digits:2 at http://host:port`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Asks whether the model is ready, and what it takes and gives.
    ///
    /// # Errors
    /// Why it cannot be served now.
    pub async fn ask(&self) -> Result<Description, String> {
        timeout(TIME, self.answer()).await.map_err(|_| format!("no answer within {} s", TIME.as_secs()))?
    }

    async fn answer(&self) -> Result<Description, String> {
        let said = |status: Status| format!("{:?}: {}", status.code(), status.message());
        let mut client = GrpcInferenceServiceClient::new(self.link.clone());
        let (name, version) = (self.model.clone(), self.version.clone());
        let request = ModelReadyRequest { name: name.clone(), version: version.clone() };
        if !client.model_ready(request).await.map_err(said)?.into_inner().ready {
            return Err(format!("the model {:?} is not ready there", self.model));
        }
        let metadata = client.model_metadata(ModelMetadataRequest { name, version }).await.map_err(said)?;
        let metadata = metadata.into_inner();
        let signature = message::signature(&metadata)
            .map_err(|problem| format!("the model {:?} there: {problem}", self.model))?;
        Ok(Description { signature, platform: metadata.platform })
    }
}
