//! An inference response as the protocol's JSON.

use crate::{datatype::Datatype, datatype::Elements, signature::TensorSpec};
use ort::value::DynValue;
use serde::Serialize;

/// An inference response; to be serialised.
#[derive(Debug, Serialize)]
pub struct InferResponse<'a> {
    /// Name of the model that answered.
    pub model_name: &'a str,
    /// Its version.
    pub model_version: &'a str,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The outputs asked for.
    pub outputs: Vec<Output<'a>>,
}

/// One output tensor; to be serialised.
#[derive(Debug, Serialize)]
pub struct Output<'a> {
    name: &'a str,
    shape: &'a [i64],
    datatype: Datatype,
    data: Elements<'a>,
}

impl<'a> Output<'a> {
    /// The output that the model declares as `spec`, with the value it gave.
    ///
    /// # Errors
    /// When the value is not what the model declares, or holds NaN or an infinity: JSON has no form for them, and a
    /// model that gives them is broken, which is to be seen as an error and not as a `null` that a client may
    /// take for a number.
    pub fn new(spec: &'a TensorSpec, value: &'a DynValue) -> Result<Self, String> {
        let elements =
            Elements::of(value, spec.datatype).map_err(|e| format!("output {:?}: {e}", spec.name))?;
        if let Some((index, value)) = elements.first_not_finite() {
            return Err(format!(
                "output {:?}: element {index} is {value}, which JSON cannot carry",
                spec.name
            ));
        }
        Ok(Self { name: &spec.name, shape: value.shape(), datatype: spec.datatype, data: elements })
    }
}
