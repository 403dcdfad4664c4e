//! The protocol over gRPC, besides inference of every datatype.

use crate::support::{Options, Server, committed_models, held_out};
use bytes::Bytes;
use halftone_proto::inference::{
    self as proto, InferParameter, ModelInferRequest,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use std::time::Duration;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

pub(crate) fn digit(version: &str) -> ModelInferRequest {
    let pixels: Vec<u8> =
        held_out()[0].pixels.iter().flat_map(|&pixel| f32::from(pixel).to_le_bytes()).collect();
    let input = InferInputTensor {
        name: "pixels".into(),
        datatype: "FP32".into(),
        shape: vec![1, 64],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: "digits".into(),
        model_version: version.into(),
        inputs: vec![input],
        raw_input_contents: vec![pixels.into()],
        ..ModelInferRequest::default()
    }
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn describes_itself_and_its_models() {
    let server = Server::digits().await;
    let mut client = server.grpc().await;
    assert!(client.server_live(proto::ServerLiveRequest {}).await.unwrap().into_inner().live);
    let about = client.server_metadata(proto::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (about.name.as_str(), about.extensions),
        ("halftone-inference", ["binary_tensor_data", "model_repository"].map(Into::into).into())
    );
    let request = proto::ModelMetadataRequest { name: "digits".into(), version: "1".into() };
    let response = client.model_metadata(request).await.unwrap();
    assert_eq!(response.metadata().get("x-halftone-model").unwrap(), "digits:1");
    let model = response.into_inner();
    assert_eq!(
        (model.versions, model.platform.as_str()),
        (["1", "2", "3"].map(Into::into).into(), "onnx_onnxv1")
    );
    assert_eq!((model.inputs[0].name.as_str(), &model.inputs[0].shape), ("pixels", &vec![-1, 64]));
    assert_eq!((model.outputs[1].datatype.as_str(), &model.outputs[1].shape), ("INT64", &vec![-1]));
}

#[tokio::test]
async fn answers_what_was_asked_for() {
    let server = Server::digits().await;
    let mut request = digit("2");
    request.id = "é1".into();
    let mine = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(7)) };
    request.parameters.insert("mine".into(), mine.clone());
    request.outputs = vec![InferRequestedOutputTensor { name: "label".into(), ..Default::default() }];
    let answer = server.grpc().await.model_infer(request).await.unwrap().into_inner();
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("digits", "2"));
    assert_eq!((answer.id.as_str(), answer.parameters.get("mine")), ("é1", Some(&mine)));
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.raw_output_contents[0], held_out()[0].label.to_le_bytes().to_vec());
}

#[tokio::test]
async fn bad_requests_have_the_protocols_codes() {
    let server = Server::digits().await;
    let mut client = server.grpc().await;
    let mut fails = async |change: fn(&mut ModelInferRequest)| {
        let mut request = digit("");
        change(&mut request);
        let status = client.model_infer(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let invalid = |message: &str| (Code::InvalidArgument, message.to_owned());
    assert_eq!(
        fails(|r| r.model_name = "digit".into()).await,
        (Code::NotFound, r#"unknown model "digit"; served: "digits""#.into())
    );
    assert_eq!(
        fails(|r| r.model_version = "9".into()).await,
        (Code::NotFound, r#"model "digits" has no version "9"; served: 1, 2, 3"#.into())
    );
    assert_eq!(
        fails(|r| r.inputs[0].shape = vec![1, 63]).await,
        invalid(r#"input "pixels": shape [1, 63] was given, [-1, 64] is expected (-1: any size)"#)
    );
    assert_eq!(
        fails(|r| r.inputs[0].datatype = "FP64".into()).await,
        invalid(r#"input "pixels": datatype "FP64" was given, "FP32" is expected"#)
    );
    assert_eq!(
        fails(|r| r.raw_input_contents = vec![vec![0; 255].into()]).await,
        invalid(r#"input "pixels": the data has 255 bytes, the shape [1, 64] needs 256"#)
    );
    assert_eq!(
        fails(|r| {
            r.inputs.clear();
            r.raw_input_contents.clear();
        })
        .await,
        invalid(r#"input "pixels" (FP32 [-1, 64]) is missing"#)
    );
    assert_eq!(
        fails(|r| r.inputs[0].name = "more".into()).await,
        invalid(r#"unknown input "more"; the model takes "pixels""#)
    );
    // Larger than a message may be.
    let (code, message) = fails(|r| r.raw_input_contents = vec![vec![0; 5 << 20].into()]).await;
    assert_eq!(code, Code::OutOfRange, "{message}");
    assert_eq!(client.model_infer(digit("")).await.unwrap().into_inner().outputs.len(), 2);
}

#[tokio::test]
async fn bodies_that_stop_coming_are_given_up() {
    let options = Options { silence: Duration::from_secs(1), ..Options::default() };
    let server = Server::start(&committed_models(), &["digits:2"], options).await;
    // The head of a message of a hundred bytes, and then nothing.
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    sender.send(Ok(Bytes::from_static(&[0, 0, 0, 0, 100]))).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let response = client
        .post(format!("http://{}/inference.GRPCInferenceService/ModelInfer", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body)))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], (Code::DeadlineExceeded as i32).to_string().as_str());
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert_eq!(message, "the%20body%20stopped%20coming%20for%201%20seconds");
    drop(sender);
}

#[tokio::test]
async fn unknown_calls_are_unimplemented() {
    let server = Server::digits().await;
    let mut grpc = tonic::client::Grpc::new(channel(&server).await);
    grpc.ready().await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelStreamInfer".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<ModelInferRequest, proto::ModelInferResponse>::default();
    let status = grpc.unary(tonic::Request::new(digit("")), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn health_follows_readiness() {
    let server = Server::digits().await;
    let mut health = HealthClient::new(channel(&server).await);
    let mut status = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        health.check(request).await.map(|answer| answer.into_inner().status().as_str_name().to_owned())
    };
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(status(service).await.unwrap(), "SERVING");
    }
    assert_eq!(status("nobody").await.unwrap_err().code(), Code::NotFound);
    server.app.drain().await;
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(status(service).await.unwrap(), "NOT_SERVING");
    }
    let mut client = server.grpc().await;
    assert!(!client.server_ready(proto::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let request = proto::ModelReadyRequest { name: "digits".into(), version: String::new() };
    assert!(!client.model_ready(request).await.unwrap().into_inner().ready);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Server::digits().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel(&server).await)
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}
