//! The protocol's gRPC service, with the standard ones for health and reflection.

pub mod contents;
pub mod request;
pub mod response;

use crate::{
    app::{App, EXTENSIONS},
    call::Call,
    failure::Failure,
    model::Model,
    observations::{record::Protocol, watch::Watch},
    offload::offload,
    output::Output,
    signature::TensorSpec,
};
use axum::Router;
use halftone_proto::inference::{
    self as proto,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    model_metadata_response::TensorMetadata,
    repository_index_response::ModelIndex,
};
use halftone_telemetry::context::RequestContext;
use prost::Message;
use std::sync::Arc;
use tonic::{Request, Response, Status, codec::CompressionEncoding, service::Routes};
use tonic_health::pb::health_server::{Health, HealthServer};

/// What the health service knows of: the server as a whole, and the service.
pub const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// What a message has around its tensors, at most.
const ENVELOPE: usize = 64 << 10;

/// The service, and those for health and reflection.
///
/// # Errors
/// When the descriptors for reflection are damaged.
pub fn router(app: &Arc<App>, health: HealthServer<impl Health>) -> anyhow::Result<Router> {
    let inference = GrpcInferenceServiceServer::new(Service(Arc::clone(app)))
        .max_decoding_message_size(app.limits.max_body.saturating_add(ENVELOPE))
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(inference)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Older tools ask for this one only.
        .add_service(reflection().build_v1alpha()?);
    // Calls that nobody knows are answered where unknown paths are.
    Ok(routes.prepare().into_axum_router().reset_fallback())
}

struct Service(Arc<App>);

impl Service {
    /// The model that a message names; empty is the latest version. Tells the access log.
    fn find<T>(&self, request: &Request<T>, name: &str, version: &str) -> Result<Arc<Model>, Failure> {
        let model = self.0.models.find(name, Some(version).filter(|version| !version.is_empty()))?;
        if let Some(context) = request.extensions().get::<Arc<RequestContext>>() {
            context.serve(model.served().clone());
        }
        Ok(model)
    }

    async fn infer(
        &self,
        model: Arc<Model>,
        request: Request<proto::ModelInferRequest>,
        watch: &mut Watch,
    ) -> Result<proto::ModelInferResponse, Failure> {
        model.has_room()?;
        let call = Call::of(&model, request.metadata().as_ref(), request.extensions());
        let is_compressed = request.metadata().contains_key("grpc-encoding");
        let message = request.into_inner();
        // Until the answer is written. Of a compressed message only what came has been counted so far.
        let mut reservation = self.0.budget.reserve();
        if is_compressed {
            reservation.grow(message.encoded_len())?;
        }
        let prepare = async {
            let bound = model.bind(&call).await?;
            let model = Arc::clone(&model);
            let _stage = call.stage("decode");
            offload(message.encoded_len(), move || {
                let checked = request::parse(&message)?.check(model.signature(), &bound)?;
                Ok((checked, request::Envelope::of(message)))
            })
            .await
        };
        let (outputs, envelope) = model.run(&call, prepare).await?;
        let encode = move |model: &Model, outputs: &[Output]| response::encode(model, envelope, outputs);
        watch.encode(outputs?, encode).await
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Result<Response<proto::ServerLiveResponse>, Status> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Result<Response<proto::ServerReadyResponse>, Status> {
        Ok(Response::new(proto::ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Result<Response<proto::ModelReadyResponse>, Status> {
        let message = request.get_ref();
        let model = self.find(&request, &message.name, &message.version)?;
        let ready = self.0.is_ready() && model.is_ready();
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Result<Response<proto::ServerMetadataResponse>, Status> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.map(Into::into).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Result<Response<proto::ModelMetadataResponse>, Status> {
        let message = request.get_ref();
        let model = self.find(&request, &message.name, &message.version)?;
        let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor_metadata).collect();
        Ok(Response::new(proto::ModelMetadataResponse {
            name: model.name().into(),
            versions: self.0.models.versions(model.name()),
            platform: model.platform().into(),
            inputs: tensors(&model.offered().inputs),
            outputs: tensors(&model.offered().outputs),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Result<Response<proto::ModelInferResponse>, Status> {
        let message = request.get_ref();
        let found = self.find(&request, &message.model_name, &message.model_version);
        let context = request.extensions().get::<Arc<RequestContext>>().cloned();
        let context = context.unwrap_or_else(|| Arc::new(RequestContext::read(request.metadata().as_ref())));
        if found.is_err() {
            self.0.miss(Arc::clone(&context), Protocol::Grpc.answer(&found));
        }
        let model = found?;
        let mut watch = self.0.watch(context, Protocol::Grpc, Arc::clone(&model));
        let answer = self.infer(model, request, &mut watch).await;
        watch.end(&answer);
        Ok(Response::new(answer?))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        let only_ready = request.get_ref().ready;
        let index = self.0.keeper.index();
        let entries = index.iter().filter(|entry| !only_ready || entry.is_ready());
        let models = entries.map(|entry| ModelIndex {
            name: entry.name.clone(),
            version: entry.version.clone(),
            state: entry.state.to_owned(),
            reason: entry.reason.clone(),
        });
        Ok(Response::new(proto::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
        self.0.may_control()?;
        let message = request.get_ref();
        if let Some(name) = message.parameters.keys().next() {
            return Err(Status::invalid_argument(format!(
                "the parameter {name:?} is not served: a model is loaded from the repository, as it is there"
            )));
        }
        self.0.keeper.load(&message.model_name).await?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
        self.0.may_control()?;
        self.0.keeper.unload(&request.get_ref().model_name).await?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }
}

fn tensor_metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().into(),
        shape: spec.shape.clone(),
    }
}
