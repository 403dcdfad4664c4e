//! Requests and answers of a remote model as gRPC's messages.

use crate::{
    datatype::{Datatype, Elements},
    grpc::contents,
    output::Output,
    request::InferRequest,
    signature::{Signature, TensorSpec, is_tensor},
};
use halftone_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    model_metadata_response::TensorMetadata,
};

/// What the server says that the model takes and gives.
///
/// # Errors
/// When that cannot be served.
pub fn signature(metadata: &ModelMetadataResponse) -> Result<Signature, String> {
    let spec = |tensor: &TensorMetadata| {
        let name = tensor.name.clone();
        let datatype = Datatype::from_name(&tensor.datatype)
            .ok_or_else(|| format!("{name:?} has the datatype {:?}, which is not served", tensor.datatype))?;
        let symbols = vec![String::new(); tensor.shape.len()];
        Ok(TensorSpec { name, datatype, shape: tensor.shape.clone(), symbols })
    };
    let specs = |tensors: &[TensorMetadata]| tensors.iter().map(spec).collect::<Result<Vec<_>, String>>();
    let signature = Signature { inputs: specs(&metadata.inputs)?, outputs: specs(&metadata.outputs)? };
    if signature.outputs.is_empty() {
        return Err("its metadata name no outputs".into());
    }
    Ok(signature)
}

/// A request for the model of this name and version.
///
/// # Errors
/// When a value is not what the signature says.
pub fn request(
    model: &str,
    version: &str,
    signature: &Signature,
    request: &InferRequest,
) -> Result<ModelInferRequest, String> {
    let mut message = ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        ..ModelInferRequest::default()
    };
    for (spec, value) in signature.inputs.iter().zip(&request.inputs) {
        let elements =
            Elements::of(value, spec.datatype).map_err(|e| format!("input {:?}: {e}", spec.name))?;
        let mut bytes = Vec::new();
        elements.encode(&mut bytes);
        message.raw_input_contents.push(bytes.into());
        message.inputs.push(InferInputTensor {
            name: spec.name.clone(),
            datatype: spec.datatype.name().into(),
            shape: value.shape().to_vec(),
            ..InferInputTensor::default()
        });
    }
    let names = request.outputs.iter().filter_map(|&index| signature.outputs.get(index));
    message.outputs = names
        .map(|spec| InferRequestedOutputTensor { name: spec.name.clone(), ..Default::default() })
        .collect();
    Ok(message)
}

/// The outputs that were asked for, by their indices.
///
/// # Errors
/// When one is missing, or is not what the signature says.
pub fn outputs(
    answer: &ModelInferResponse,
    signature: &Signature,
    asked: &[usize],
) -> Result<Vec<Output>, String> {
    let raw = &answer.raw_output_contents;
    if !raw.is_empty() && raw.len() != answer.outputs.len() {
        let (raw, outputs) = (raw.len(), answer.outputs.len());
        return Err(format!("there are {raw} raw_output_contents for {outputs} outputs"));
    }
    let output = |index: usize| {
        let spec = signature.outputs.get(index).ok_or("an output that is not declared was asked for")?;
        let problem = |problem: String| format!("output {:?}: {problem}", spec.name);
        let place = answer.outputs.iter().position(|tensor| tensor.name == spec.name);
        let (place, tensor) = place
            .and_then(|place| Some((place, answer.outputs.get(place)?)))
            .ok_or_else(|| problem("it is not in the answer".into()))?;
        if Datatype::from_name(&tensor.datatype) != Some(spec.datatype) {
            return Err(problem(format!("it is {}, declared is {}", tensor.datatype, spec.datatype)));
        }
        let shape = spec.accepts(&tensor.shape).filter(|shape| is_tensor(shape));
        let shape = shape.ok_or_else(|| {
            problem(format!("its shape is {:?}, declared is {:?}", tensor.shape, spec.shape))
        })?;
        let value = match (raw.get(place), &tensor.contents) {
            (Some(bytes), _) => spec.datatype.from_binary(&shape, bytes),
            (None, Some(typed)) => contents::read(spec.datatype, &shape, typed),
            (None, None) => Err("it has no contents".into()),
        };
        Ok(Output::whole(index, value.map_err(problem)?))
    };
    asked.iter().map(|&index| output(index)).collect()
}
