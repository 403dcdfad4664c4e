//! An inference request, whichever protocol it came by, checked against the model's signature.

use crate::{
    datatype::Datatype,
    failure::Failure,
    features::Bound,
    grpc::contents,
    signature::{Signature, TensorSpec, is_tensor, names},
};
use halftone_proto::inference::InferTensorContents;
use ort::value::DynValue;
use serde_json::value::RawValue;
use std::{borrow::Cow, time::Duration};

/// Most bytes of an input that is bound, in several rows: there are as many as a client sends of something that may take
/// nothing.
const MOST_BOUND: usize = 1 << 20;

/// What the parsers of both protocols hand over: the names, types and data of a request, unchecked.
#[derive(Debug, Default)]
pub struct Unchecked<'a> {
    /// The inputs, in the order in which they came.
    pub inputs: Vec<Given<'a>>,
    /// Names of the outputs asked for; all of them if none is.
    pub outputs: Vec<Cow<'a, str>>,
    /// How long the answer is of use.
    pub timeout: Option<Duration>,
}

/// A tensor as it came.
#[derive(Debug)]
pub struct Given<'a> {
    /// The input it is for.
    pub name: Cow<'a, str>,
    /// Name of its datatype.
    pub datatype: Cow<'a, str>,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, not yet read.
    pub data: Data<'a>,
}

/// The elements of a tensor, in one of the protocol's forms.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// A JSON array, flat or nested.
    Json(&'a RawValue),
    /// Little-endian bytes.
    Binary(&'a [u8]),
    /// gRPC's typed fields.
    Contents(&'a InferTensorContents),
    /// Little-endian bytes of each row; all rows are the same.
    Row(&'a [u8]),
}

/// A request that fits the model, ready to be run.
#[derive(Debug)]
pub struct InferRequest {
    /// One tensor per input of the model, in its order.
    pub inputs: Vec<DynValue>,
    /// The outputs to give, as indices into the signature, in the order asked for.
    pub outputs: Vec<usize>,
    /// How long the answer is of use.
    pub timeout: Option<Duration>,
}

impl InferRequest {
    /// Roughly how many bytes its inputs take.
    #[must_use]
    pub fn size(&self) -> usize {
        let elements: i64 = self.inputs.iter().map(|input| input.shape().iter().product::<i64>()).sum();
        usize::try_from(elements).unwrap_or_default().saturating_mul(size_of::<u64>())
    }
}

impl Unchecked<'_> {
    /// Checks the request, then reads its tensors; what it does not bring is `bound`. ONNX Runtime must be loaded.
    ///
    /// # Errors
    /// What does not fit the model, for the client.
    pub fn check(&self, signature: &Signature, bound: &[Bound]) -> Result<InferRequest, Failure> {
        self.fit(signature, bound).map_err(Failure::BadRequest)
    }

    fn fit(&self, signature: &Signature, bound: &[Bound]) -> Result<InferRequest, String> {
        let inputs = assign(&self.inputs, &signature.inputs, bound)?;
        let outputs = outputs(&self.outputs, &signature.outputs)?;
        let inputs = inputs.iter().map(Input::tensor).collect::<Result<_, _>>()?;
        Ok(InferRequest { inputs, outputs, timeout: self.timeout })
    }
}

/// A tensor that fits an input of the model, its elements not yet read.
struct Input<'a> {
    spec: &'a TensorSpec,
    shape: Vec<usize>,
    data: Data<'a>,
}

/// One per input of the model, in its order.
fn assign<'a>(
    given: &'a [Given<'a>],
    specs: &'a [TensorSpec],
    bound: &'a [Bound],
) -> Result<Vec<Input<'a>>, String> {
    let mut slots: Vec<Option<Input<'a>>> = specs.iter().map(|_| None).collect();
    for tensor in given {
        let slot = specs.iter().zip(&mut slots).find(|(spec, _)| spec.name == tensor.name);
        let Some((spec, slot)) = slot else {
            return Err(format!("unknown input {:?}; the model takes {}", tensor.name, names(specs)));
        };
        if slot.is_some() {
            return Err(format!("input {:?} is given twice", tensor.name));
        }
        *slot = Some(Input::check(spec, tensor)?);
    }
    fill(&mut slots, specs, bound)?;
    let missing =
        |spec: &TensorSpec| format!("input {:?} ({} {:?}) is missing", spec.name, spec.datatype, spec.shape);
    let inputs: Vec<Input<'a>> = specs
        .iter()
        .zip(slots)
        .map(|(spec, slot)| slot.ok_or_else(|| missing(spec)))
        .collect::<Result<_, _>>()?;
    check_symbols(&inputs)?;
    Ok(inputs)
}

/// Puts in what is bound, in as many rows as the others have.
fn fill<'a>(
    slots: &mut [Option<Input<'a>>],
    specs: &'a [TensorSpec],
    bound: &'a [Bound],
) -> Result<(), String> {
    for Bound { index, row, overridable } in bound {
        let Some((spec, slot)) = specs.get(*index).zip(slots.get(*index)) else { continue };
        if slot.is_some() && *overridable {
            continue;
        }
        if slot.is_some() {
            let name = &spec.name;
            return Err(format!("input {name:?} is bound to something else here; leave it out"));
        }
        let input = Input::bound(spec, slots, row)?;
        if let Some(slot) = slots.get_mut(*index) {
            *slot = Some(input);
        }
    }
    Ok(())
}

/// Dimensions of one name must have one size. ONNX Runtime does not ask, and what then goes wrong inside the model
/// would look like the model's fault.
fn check_symbols(inputs: &[Input<'_>]) -> Result<(), String> {
    let mut known: Vec<(&str, usize, &str)> = Vec::new();
    for input in inputs {
        let name = input.spec.name.as_str();
        for (symbol, &size) in input.spec.symbols.iter().zip(&input.shape) {
            match known.iter().find(|(other, ..)| other == symbol) {
                Some(&(_, earlier, where_)) if earlier != size => {
                    return Err(format!(
                        "input {name:?}: dimension {symbol:?} is {size}, but {earlier} in input {where_:?}"
                    ));
                }
                Some(_) => {}
                None if symbol.is_empty() => {}
                None => known.push((symbol, size, name)),
            }
        }
    }
    Ok(())
}

fn outputs(asked: &[Cow<'_, str>], specs: &[TensorSpec]) -> Result<Vec<usize>, String> {
    if asked.is_empty() {
        return Ok((0..specs.len()).collect());
    }
    let mut chosen: Vec<usize> = Vec::with_capacity(specs.len());
    for name in asked {
        let Some(index) = specs.iter().position(|spec| spec.name == *name) else {
            return Err(format!("unknown output {name:?}; the model gives {}", names(specs)));
        };
        if chosen.contains(&index) {
            return Err(format!("output {name:?} is asked for twice"));
        }
        chosen.push(index);
    }
    Ok(chosen)
}

impl<'a> Input<'a> {
    fn check(spec: &'a TensorSpec, given: &Given<'a>) -> Result<Self, String> {
        let name = &spec.name;
        if Datatype::from_name(&given.datatype) != Some(spec.datatype) {
            return Err(format!(
                "input {name:?}: datatype {:?} was given, {:?} is expected",
                given.datatype,
                spec.datatype.name()
            ));
        }
        let Some(shape) = spec.accepts(&given.shape) else {
            return Err(format!(
                "input {name:?}: shape {:?} was given, {:?} is expected (-1: any size)",
                given.shape, spec.shape
            ));
        };
        if !is_tensor(&shape) {
            return Err(format!("input {name:?}: shape {shape:?} is too large"));
        }
        Ok(Self { spec, shape, data: given.data })
    }

    /// As many rows as inputs have whose first dimension is the same or, where that has no name, can vary too.
    fn bound(spec: &'a TensorSpec, others: &[Option<Self>], row: &'a [u8]) -> Result<Self, String> {
        let mut shape: Vec<usize> =
            spec.shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
        if let (Some(first), Some(-1)) = (shape.first_mut(), spec.shape.first()) {
            let varying = || others.iter().flatten().filter(|other| other.spec.shape.first() == Some(&-1));
            let symbol = spec.symbols.first().filter(|symbol| !symbol.is_empty());
            let same = varying().find(|other| symbol.is_some() && other.spec.symbols.first() == symbol);
            let rows = same.or_else(|| varying().next()).and_then(|other| other.shape.first());
            *first = rows.copied().unwrap_or(1);
            if *first > 1 && first.checked_mul(row.len()).is_none_or(|bytes| bytes > MOST_BOUND) {
                let name = &spec.name;
                return Err(format!("too many rows: input {name:?} would have more than {MOST_BOUND} bytes"));
            }
        }
        Ok(Self { spec, shape, data: Data::Row(row) })
    }

    fn tensor(&self) -> Result<DynValue, String> {
        let (datatype, shape) = (self.spec.datatype, &self.shape);
        match self.data {
            Data::Json(data) => datatype.from_json(shape, data),
            Data::Binary(data) => datatype.from_binary(shape, data),
            Data::Contents(data) => contents::read(datatype, shape, data),
            Data::Row(row) => {
                let rows = if self.spec.shape.first() == Some(&-1) { shape.first() } else { None };
                datatype.from_binary(shape, &row.repeat(rows.copied().unwrap_or(1)))
            }
        }
        .map_err(|problem| format!("input {:?}: {problem}", self.spec.name))
    }
}

#[cfg(test)]
mod tests;
