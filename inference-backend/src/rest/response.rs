//! An inference response of the REST protocol: JSON, which binary tensors may follow.

use super::request::{Envelope, Scalar};
use crate::{
    datatype::{Datatype, Elements},
    model::Model,
    output::Output,
};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap};

/// A response, and how much of it is JSON when binary tensors follow.
#[derive(Debug)]
pub struct Encoded {
    /// The body.
    pub body: Vec<u8>,
    /// Length of its JSON; none when it is all JSON.
    pub json: Option<usize>,
}

#[derive(Serialize)]
struct Wire<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: &'a BTreeMap<Cow<'a, str>, Scalar<'a>>,
    outputs: Vec<WireOutput<'a>>,
}

#[derive(Serialize)]
struct WireOutput<'a> {
    name: &'a str,
    shape: &'a [i64],
    datatype: Datatype,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct BinaryData {
    binary_data_size: usize,
}

/// Writes a response.
///
/// # Errors
/// When a value is not what the model declares, or holds NaN or an infinity and is to be JSON, which has no form for
/// them. A model that gives them is broken, which is to be seen as an error and not as a `null` that a client may take
/// for a number. In binary they are sent.
pub fn encode(model: &Model, envelope: &Envelope<'_>, outputs: &[Output]) -> Result<Encoded, String> {
    let mut binary = Vec::new();
    let mut any_binary = false;
    let mut wire = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.iter().enumerate() {
        let spec = output.spec(model.signature());
        let elements = output.elements(spec)?;
        let in_binary = envelope.binary.get(index).copied().unwrap_or(envelope.binary_by_default);
        let (parameters, data) = if in_binary {
            any_binary = true;
            let start = binary.len();
            elements.encode(&mut binary);
            (Some(BinaryData { binary_data_size: binary.len() - start }), None)
        } else {
            if let Some((index, value)) = elements.first_not_finite() {
                return Err(format!(
                    "output {:?}: element {index} is {value}, which JSON cannot carry",
                    spec.name
                ));
            }
            (None, Some(elements))
        };
        wire.push(WireOutput {
            name: &spec.name,
            shape: &output.shape,
            datatype: spec.datatype,
            parameters,
            data,
        });
    }
    let wire = Wire {
        model_name: model.name(),
        model_version: model.version(),
        id: envelope.id.as_deref(),
        parameters: &envelope.parameters,
        outputs: wire,
    };
    let mut body = serde_json::to_vec(&wire).map_err(|e| e.to_string())?;
    let json = any_binary.then_some(body.len());
    body.append(&mut binary);
    Ok(Encoded { body, json })
}
