//! An output that a model gave.

use crate::{
    datatype::Elements,
    signature::{Signature, TensorSpec},
};
use ort::value::DynValue;
use std::{ops::Range, sync::Arc};

/// An output that a model gave, or its rows that belong to one request of several that ran together.
#[derive(Clone, Debug)]
pub struct Output {
    /// Which of the model's outputs it is.
    pub index: usize,
    /// Its shape.
    pub shape: Vec<i64>,
    value: Arc<DynValue>,
    /// Where its elements are in the value; none when it is all of it.
    part: Option<Range<usize>>,
}

impl Output {
    /// All of a value, which is a tensor.
    #[must_use]
    pub fn whole(index: usize, value: DynValue) -> Self {
        Self { index, shape: value.shape().to_vec(), value: Arc::new(value), part: None }
    }

    /// Some rows of a value. They must be there.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let row: usize =
            self.shape.iter().skip(1).map(|&size| usize::try_from(size).unwrap_or_default()).product();
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        }
        let part = Some(rows.start * row..rows.end * row);
        Self { index: self.index, shape, value: Arc::clone(&self.value), part }
    }

    /// Its place in the signature of the model that gave it.
    #[must_use]
    pub fn spec<'a>(&self, signature: &'a Signature) -> &'a TensorSpec {
        &signature.outputs[self.index]
    }

    /// Its elements.
    ///
    /// # Errors
    /// When they are not of the type that the model declares.
    pub fn elements(&self, spec: &TensorSpec) -> Result<Elements<'_>, String> {
        let elements =
            Elements::of(&self.value, spec.datatype).map_err(|e| format!("output {:?}: {e}", spec.name))?;
        Ok(match &self.part {
            Some(part) => elements.part(part.clone()),
            None => elements,
        })
    }

    /// How many elements it has.
    #[must_use]
    pub fn count(&self) -> usize {
        let elements: i64 = self.shape.iter().product();
        usize::try_from(elements).unwrap_or_default()
    }

    /// Roughly how many bytes it takes to send it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.count().saturating_mul(size_of::<u64>())
    }
}
