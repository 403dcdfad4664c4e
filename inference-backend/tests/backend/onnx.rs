//! Writes small ONNX models for what the committed ones do not show. The messages are those of `onnx.proto`, as far
//! as needed.

use ort::value::TensorElementType;
use prost::Message;
use std::{fs, path::Path};

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetId>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetId {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// Name, type and names of the dynamic dimensions of a tensor.
pub(crate) type Tensor<'a> = (&'a str, TensorElementType, &'a [&'a str]);

/// An operator without attributes: its name, inputs and outputs.
pub(crate) type Node<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Writes a model as `NAME/1/model.onnx` into a repository.
pub(crate) fn write(
    repository: &Path,
    name: &str,
    inputs: &[Tensor<'_>],
    nodes: &[Node<'_>],
    outputs: &[Tensor<'_>],
) {
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let graph = GraphProto {
        node: nodes
            .iter()
            .map(|&(operator, input, output)| NodeProto {
                input: strings(input),
                output: strings(output),
                op_type: operator.to_owned(),
            })
            .collect(),
        name: name.to_owned(),
        input: inputs.iter().map(value_info).collect(),
        output: outputs.iter().map(value_info).collect(),
    };
    let model =
        ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![OperatorSetId { version: 17 }] };
    let folder = repository.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.onnx"), model.encode_to_vec()).unwrap();
}

fn value_info(&(name, element_type, dimensions): &Tensor<'_>) -> ValueInfo {
    let dim = dimensions.iter().map(|&name| Dimension { dim_param: Some(name.to_owned()) }).collect();
    let tensor_type = TensorType { elem_type: number(element_type), shape: Some(Shape { dim }) };
    ValueInfo { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// `TensorProto.DataType`.
fn number(element_type: TensorElementType) -> i32 {
    match element_type {
        TensorElementType::Float32 => 1,
        TensorElementType::Uint8 => 2,
        TensorElementType::Int8 => 3,
        TensorElementType::Uint16 => 4,
        TensorElementType::Int16 => 5,
        TensorElementType::Int32 => 6,
        TensorElementType::Int64 => 7,
        TensorElementType::String => 8,
        TensorElementType::Bool => 9,
        TensorElementType::Float64 => 11,
        TensorElementType::Uint32 => 12,
        TensorElementType::Uint64 => 13,
        other => panic!("{other} is not written here"),
    }
}
