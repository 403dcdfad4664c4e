//! A server of the protocol that does what a test says: what no real one can be made to do at will.

use halftone_proto::inference::{
    self as proto,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    model_metadata_response::TensorMetadata,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// What it answers to the request of this number, the first being 0.
pub(crate) type Answer = dyn Fn(usize, &Request<proto::ModelInferRequest>) -> Result<proto::ModelInferResponse, Status>
    + Send
    + Sync;

/// A server with a model of an input `x` and an output `y`, one FP32 each.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
    answer: Arc<Answer>,
}

impl Fake {
    pub(crate) fn start(
        answer: impl Fn(usize, &Request<proto::ModelInferRequest>) -> Result<proto::ModelInferResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let fake = Self { url, asked: Arc::default(), answer: Arc::new(answer) };
        let server = tonic::transport::Server::builder()
            .add_service(GrpcInferenceServiceServer::new(fake.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        fake
    }

    /// How many inferences it was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The right answer: this value.
pub(crate) fn y(value: f32) -> proto::ModelInferResponse {
    let output = proto::model_infer_response::InferOutputTensor {
        name: "y".into(),
        datatype: "FP32".into(),
        shape: vec![1],
        ..Default::default()
    };
    proto::ModelInferResponse {
        outputs: vec![output],
        raw_output_contents: vec![value.to_le_bytes().to_vec().into()],
        ..Default::default()
    }
}

fn unserved<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not asked for in tests"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Fake {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Result<Response<proto::ServerLiveResponse>, Status> {
        unserved()
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Result<Response<proto::ServerReadyResponse>, Status> {
        unserved()
    }

    async fn model_ready(
        &self,
        _: Request<proto::ModelReadyRequest>,
    ) -> Result<Response<proto::ModelReadyResponse>, Status> {
        Ok(Response::new(proto::ModelReadyResponse { ready: true }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Result<Response<proto::ServerMetadataResponse>, Status> {
        unserved()
    }

    async fn model_metadata(
        &self,
        _: Request<proto::ModelMetadataRequest>,
    ) -> Result<Response<proto::ModelMetadataResponse>, Status> {
        let tensor =
            |name: &str| TensorMetadata { name: name.into(), datatype: "FP32".into(), shape: vec![1] };
        Ok(Response::new(proto::ModelMetadataResponse {
            platform: "fake".into(),
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
            ..Default::default()
        }))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Result<Response<proto::ModelInferResponse>, Status> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        (self.answer)(number, &request).map(Response::new)
    }

    async fn repository_index(
        &self,
        _: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        unserved()
    }

    async fn repository_model_load(
        &self,
        _: Request<proto::RepositoryModelLoadRequest>,
    ) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
        unserved()
    }

    async fn repository_model_unload(
        &self,
        _: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
        unserved()
    }
}
