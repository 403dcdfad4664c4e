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
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
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
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
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
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// Name, type and dimensions of a tensor: a number is a size, anything else the name of a dynamic one.
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
    save(repository, name, "1", &encode(name, inputs, None, nodes, outputs));
}

/// Writes a file of a model into a repository.
pub(crate) fn save(repository: &Path, name: &str, version: &str, file: &[u8]) {
    let folder = repository.join(name).join(version);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.onnx"), file).unwrap();
}

/// A model that gives the entries of a table that `index` names, row by row: what else than 0 to `table.len()` fails.
pub(crate) fn table(table: &[f32]) -> Vec<u8> {
    table_of(initializer(table))
}

/// The same with a table of so many entries in a file `weights` beside it.
pub(crate) fn table_beside(entries: usize) -> Vec<u8> {
    const EXTERNAL: i32 = 1;
    let location = StringEntry { key: "location".to_owned(), value: "weights".to_owned() };
    table_of(TensorProto {
        dims: vec![entries.try_into().unwrap()],
        float_data: Vec::new(),
        external_data: vec![location],
        data_location: EXTERNAL,
        ..initializer(&[])
    })
}

/// A model that takes the `bytes` of images and prepares them itself: scaled to halves, and their mean taken away.
pub(crate) fn preprocessing() -> Vec<u8> {
    let scale = TensorProto { dims: Vec::new(), name: "scale".to_owned(), ..initializer(&[0.5]) };
    let bytes = ("bytes", TensorElementType::Uint8, &["n", "4"][..]);
    let centred = ("centred", TensorElementType::Float32, &["n", "4"][..]);
    let nodes: [Node<'_>; 3] = [
        ("DequantizeLinear", &["bytes", "scale"], &["pixels"]),
        ("ReduceMean", &["pixels"], &["mean"]),
        ("Sub", &["pixels", "mean"], &["centred"]),
    ];
    encode("preprocessing", &[bytes], Some(scale), &nodes, &[centred])
}

fn table_of(table: TensorProto) -> Vec<u8> {
    let index = ("index", TensorElementType::Int64, &["batch"][..]);
    let entry = ("entry", TensorElementType::Float32, &["batch"][..]);
    encode("table", &[index], Some(table), &[("Gather", &["table", "index"], &["entry"])], &[entry])
}

fn encode(
    name: &str,
    inputs: &[Tensor<'_>],
    table: Option<TensorProto>,
    nodes: &[Node<'_>],
    outputs: &[Tensor<'_>],
) -> Vec<u8> {
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
        initializer: table.into_iter().collect(),
        input: inputs.iter().map(value_info).collect(),
        output: outputs.iter().map(value_info).collect(),
    };
    let model =
        ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![OperatorSetId { version: 17 }] };
    model.encode_to_vec()
}

fn initializer(table: &[f32]) -> TensorProto {
    TensorProto {
        dims: vec![table.len().try_into().unwrap()],
        data_type: number(TensorElementType::Float32),
        float_data: table.to_vec(),
        name: "table".to_owned(),
        external_data: Vec::new(),
        data_location: 0,
    }
}

/// Writes a model `slow` that squares a matrix `x` over and over: with [`SLOW`] rows it takes a good part of a second.
pub(crate) fn write_slow(repository: &Path) {
    let names: Vec<String> = (0..60).map(|step| format!("x{step}")).collect();
    let ends: Vec<([&str; 2], [&str; 1])> = (1..names.len())
        .map(|step| ([names[step - 1].as_str(), names[step - 1].as_str()], [names[step].as_str()]))
        .collect();
    let nodes: Vec<Node<'_>> = ends.iter().map(|(i, o)| ("MatMul", &i[..], &o[..])).collect();
    let matrix = |name| -> Tensor<'_> { (name, TensorElementType::Float32, &["n", "n"]) };
    write(repository, "slow", &[matrix("x0")], &nodes, &[matrix("x59")]);
}

/// Rows and columns of what the slow model takes a good part of a second for.
pub(crate) const SLOW: usize = 500;

fn value_info(&(name, element_type, dimensions): &Tensor<'_>) -> ValueInfo {
    let dimension = |&name: &&str| match name.parse() {
        Ok(size) => Dimension { dim_value: Some(size), dim_param: None },
        Err(_) => Dimension { dim_value: None, dim_param: Some(name.to_owned()) },
    };
    let dim = dimensions.iter().map(dimension).collect();
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
        TensorElementType::Float16 => 10,
        TensorElementType::Float64 => 11,
        TensorElementType::Uint32 => 12,
        TensorElementType::Uint64 => 13,
        TensorElementType::Bfloat16 => 16,
        other => panic!("{other} is not written here"),
    }
}
