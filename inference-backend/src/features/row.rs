//! What one row of an input is.

use crate::{
    datatype::{Datatype, Elements},
    signature::TensorSpec,
};
use serde_json::Value;

/// What one row of an input is; all of it, when its first dimension cannot vary.
#[derive(Clone, Debug)]
pub struct Row {
    datatype: Datatype,
    shape: Vec<usize>,
}

impl Row {
    /// Of an input.
    ///
    /// # Errors
    /// When a row of it has no fixed size.
    pub fn of(spec: &TensorSpec) -> Result<Self, String> {
        let varies = spec.shape.first().is_some_and(|&first| first < 0);
        let of_row = spec.shape.get(usize::from(varies)..).unwrap_or_default();
        let shape = of_row.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| {
            let (name, shape) = (&spec.name, &spec.shape);
            format!("input {name:?}: its shape is {shape:?}; of an input that is bound, only the first size may vary")
        })?;
        Ok(Self { datatype: spec.datatype, shape })
    }

    /// How many elements it has.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The type of its elements.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// A value as the bytes of a row, in the protocol's binary form: one that is no array is its only element.
    ///
    /// # Errors
    /// How it does not fit.
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, String> {
        let value = if value.is_array() { value } else { &Value::Array(vec![value.clone()]) };
        let json = serde_json::value::to_raw_value(value).map_err(|e| e.to_string())?;
        let tensor = self.datatype.from_json(&self.shape, &json)?;
        let mut bytes = Vec::new();
        Elements::of(&tensor, self.datatype).map_err(|e| e.to_string())?.encode(&mut bytes);
        Ok(bytes)
    }
}
