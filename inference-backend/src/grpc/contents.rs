//! gRPC's typed fields for the elements of a tensor: one for several datatypes, so that each element has to be checked.

use crate::{
    binary,
    datatype::{Datatype, Elements, strings, tensor},
};
use halftone_proto::inference::InferTensorContents;
use ort::value::DynValue;
use std::fmt::Display;

/// A tensor for ONNX Runtime. The product of the shape must not overflow.
///
/// # Errors
/// What is wrong with the data, for the client.
pub fn read(datatype: Datatype, shape: &[usize], contents: &InferTensorContents) -> Result<DynValue, String> {
    let field = field(datatype)
        .ok_or_else(|| format!("{datatype} has no field in contents; send it in raw_input_contents"))?;
    for (name, count) in counts(contents) {
        if name != field && count > 0 {
            return Err(format!("{datatype} belongs into {field}, but there are {name}"));
        }
    }
    let expected: usize = shape.iter().product();
    let count = counts(contents).into_iter().find(|(name, _)| *name == field).map_or(0, |(_, count)| count);
    if count != expected {
        return Err(format!("{field} has {count} elements, the shape {shape:?} needs {expected}"));
    }
    match datatype {
        Datatype::Bool => tensor(shape, contents.bool_contents.clone()),
        Datatype::Uint8 => tensor(shape, narrow::<u32, u8>(datatype, &contents.uint_contents)?),
        Datatype::Uint16 => tensor(shape, narrow::<u32, u16>(datatype, &contents.uint_contents)?),
        Datatype::Uint32 => tensor(shape, contents.uint_contents.clone()),
        Datatype::Uint64 => tensor(shape, contents.uint64_contents.clone()),
        Datatype::Int8 => tensor(shape, narrow::<i32, i8>(datatype, &contents.int_contents)?),
        Datatype::Int16 => tensor(shape, narrow::<i32, i16>(datatype, &contents.int_contents)?),
        Datatype::Int32 => tensor(shape, contents.int_contents.clone()),
        Datatype::Int64 => tensor(shape, contents.int64_contents.clone()),
        Datatype::Float32 => tensor(shape, contents.fp32_contents.clone()),
        Datatype::Float64 => tensor(shape, contents.fp64_contents.clone()),
        Datatype::Float16 | Datatype::Bfloat16 => Err(format!("{datatype} has no field in contents")),
        Datatype::String => {
            let elements = contents.bytes_contents.iter().enumerate();
            let elements: Vec<String> =
                elements.map(|(index, element)| binary::string(index, element)).collect::<Result<_, _>>()?;
            strings(shape, &elements)
        }
    }
}

/// The elements in their field. FP16 and BF16 have none, and stay out.
#[must_use]
pub fn write(elements: Elements<'_>) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match elements {
        Elements::Bool(elements) => contents.bool_contents = elements.to_vec(),
        Elements::Uint8(elements) => contents.uint_contents = widen(elements),
        Elements::Uint16(elements) => contents.uint_contents = widen(elements),
        Elements::Uint32(elements) => contents.uint_contents = elements.to_vec(),
        Elements::Uint64(elements) => contents.uint64_contents = elements.to_vec(),
        Elements::Int8(elements) => contents.int_contents = widen(elements),
        Elements::Int16(elements) => contents.int_contents = widen(elements),
        Elements::Int32(elements) => contents.int_contents = elements.to_vec(),
        Elements::Int64(elements) => contents.int64_contents = elements.to_vec(),
        Elements::Float32(elements) => contents.fp32_contents = elements.to_vec(),
        Elements::Float64(elements) => contents.fp64_contents = elements.to_vec(),
        Elements::Float16(_) | Elements::Bfloat16(_) => {}
        Elements::String(elements) => {
            contents.bytes_contents =
                elements.into_iter().map(|element| element.into_bytes().into()).collect();
        }
    }
    contents
}

fn field(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Float32 => "fp32_contents",
        Datatype::Float64 => "fp64_contents",
        Datatype::Float16 | Datatype::Bfloat16 => return None,
        Datatype::String => "bytes_contents",
    })
}

fn counts(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn narrow<W: Copy + Display, N: TryFrom<W>>(datatype: Datatype, elements: &[W]) -> Result<Vec<N>, String> {
    let elements = elements.iter().enumerate();
    elements
        .map(|(index, &element)| {
            N::try_from(element)
                .map_err(|_| format!("element {index} is {element}, which {datatype} cannot hold"))
        })
        .collect()
}

fn widen<N: Copy + Into<W>, W>(elements: &[N]) -> Vec<W> {
    elements.iter().map(|&element| element.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(datatype: Datatype, shape: &[usize], contents: &InferTensorContents) -> String {
        read(datatype, shape, contents).unwrap_err()
    }

    #[test]
    fn says_what_does_not_fit() {
        let integers = InferTensorContents { int_contents: vec![127, 128], ..Default::default() };
        assert_eq!(error(Datatype::Int8, &[2], &integers), "element 1 is 128, which INT8 cannot hold");
        assert_eq!(
            error(Datatype::Int32, &[3], &integers),
            "int_contents has 2 elements, the shape [3] needs 3"
        );
        assert_eq!(
            error(Datatype::Float32, &[2], &integers),
            "FP32 belongs into fp32_contents, but there are int_contents"
        );
        assert_eq!(
            error(Datatype::Float16, &[2], &integers),
            "FP16 has no field in contents; send it in raw_input_contents"
        );
        assert_eq!(
            error(Datatype::Float64, &[1], &InferTensorContents::default()),
            "fp64_contents has 0 elements, the shape [1] needs 1"
        );
        let bytes = InferTensorContents { bytes_contents: vec![vec![0xff].into()], ..Default::default() };
        assert!(error(Datatype::String, &[1], &bytes).starts_with("element 0 is not UTF-8"));
    }
}
