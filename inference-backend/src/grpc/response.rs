//! An inference response of the gRPC protocol.

use super::{contents, request::Envelope};
use crate::{datatype::Datatype, model::Model, output::Output};
use halftone_proto::inference::{ModelInferResponse, model_infer_response::InferOutputTensor};
use std::collections::HashMap;

/// Writes a response: the outputs as raw contents when the inputs came so, or when one of them has no other form.
///
/// # Errors
/// When a value is not what the model declares.
pub fn encode(model: &Model, envelope: Envelope, outputs: &[Output]) -> Result<ModelInferResponse, String> {
    let specs = || outputs.iter().map(|output| output.spec(model.signature()));
    let only_raw = |datatype| matches!(datatype, Datatype::Float16 | Datatype::Bfloat16);
    let raw = envelope.raw || specs().any(|spec| only_raw(spec.datatype));
    let mut response = ModelInferResponse {
        model_name: model.name().into(),
        model_version: model.version().into(),
        id: envelope.id,
        parameters: envelope.parameters,
        outputs: Vec::with_capacity(outputs.len()),
        raw_output_contents: Vec::new(),
    };
    for (output, spec) in outputs.iter().zip(specs()) {
        let elements = output.elements(spec)?;
        let contents = if raw {
            let mut bytes = Vec::new();
            elements.encode(&mut bytes);
            response.raw_output_contents.push(bytes.into());
            None
        } else {
            Some(contents::write(elements))
        };
        response.outputs.push(InferOutputTensor {
            name: spec.name.clone(),
            datatype: spec.datatype.name().into(),
            shape: output.shape.clone(),
            parameters: HashMap::new(),
            contents,
        });
    }
    Ok(response)
}
