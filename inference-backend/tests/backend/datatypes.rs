//! Every datatype goes in and comes out unchanged; what JSON cannot carry is an error.

use crate::{
    onnx,
    support::{Options, Server},
};
use halftone_proto::inference::{
    InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor,
};
use ort::value::TensorElementType as T;
use serde_json::{Value, json};
use tempfile::TempDir;

async fn serve(repository: &TempDir, model: &str) -> Server {
    Server::start(repository.path(), &[model], Options::default()).await
}

/// Every datatype: ONNX's, the protocol's, four elements as JSON and in binary.
pub(crate) fn every_datatype() -> Vec<(T, &'static str, Value, Vec<u8>)> {
    fn bytes<const N: usize>(elements: [[u8; N]; 4]) -> Vec<u8> {
        elements.concat()
    }
    let (i, u) = ([-9_007_199_254_740_993_i64, i64::MAX], [9_007_199_254_740_993_u64, u64::MAX]);
    vec![
        (T::Bool, "BOOL", json!([[true, false], [false, true]]), vec![1, 0, 0, 1]),
        (T::Uint8, "UINT8", json!([[0, 1], [254, 255]]), vec![0, 1, 254, 255]),
        (T::Uint16, "UINT16", json!([[0, 1], [2, 65535]]), bytes([0, 1, 2, u16::MAX].map(u16::to_le_bytes))),
        (
            T::Uint32,
            "UINT32",
            json!([[0, 1], [2, u32::MAX]]),
            bytes([0, 1, 2, u32::MAX].map(u32::to_le_bytes)),
        ),
        (T::Uint64, "UINT64", json!([[0, 1], u]), bytes([0, 1, u[0], u[1]].map(u64::to_le_bytes))),
        (T::Int8, "INT8", json!([[-128, -1], [0, 127]]), bytes([-128, -1, 0, 127].map(i8::to_le_bytes))),
        (T::Int16, "INT16", json!([[-32768, -1], [0, 1]]), bytes([i16::MIN, -1, 0, 1].map(i16::to_le_bytes))),
        (
            T::Int32,
            "INT32",
            json!([[i32::MIN, -1], [0, 1]]),
            bytes([i32::MIN, -1, 0, 1].map(i32::to_le_bytes)),
        ),
        (
            T::Int64,
            "INT64",
            json!([[i64::MIN, -1], i]),
            bytes([i64::MIN, -1, i[0], i[1]].map(i64::to_le_bytes)),
        ),
        (T::Float16, "FP16", json!([[0.5, -1.0], [65504.0, 2.0]]), vec![0, 56, 0, 188, 255, 123, 0, 64]),
        (T::Bfloat16, "BF16", json!([[0.5, -1.0], [1.0, 2.0]]), vec![0, 63, 128, 191, 128, 63, 0, 64]),
        (
            T::Float32,
            "FP32",
            json!([[0.5, -1.25], [1.5, 3e38]]),
            bytes([0.5, -1.25, 1.5, 3e38].map(f32::to_le_bytes)),
        ),
        (
            T::Float64,
            "FP64",
            json!([[0.1, -0.2], [1e-300, 1e308]]),
            bytes([0.1, -0.2, 1e-300, 1e308].map(f64::to_le_bytes)),
        ),
        (
            T::String,
            "BYTES",
            json!([["é", ""], ["a\nb", "\"]"]]),
            b"\x02\0\0\0\xc3\xa9\0\0\0\0\x03\0\0\0a\nb\x02\0\0\0\"]".to_vec(),
        ),
    ]
}

/// A repository of the model `echo`, which gives back what it gets, in every datatype.
pub(crate) fn echo_repository() -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    let types = every_datatype();
    let outputs: Vec<String> = types.iter().map(|(_, name, ..)| format!("{name}_out")).collect();
    let inputs: Vec<onnx::Tensor<'_>> =
        types.iter().map(|(t, name, ..)| (*name, *t, &["n", "m"][..])).collect();
    let declared: Vec<onnx::Tensor<'_>> =
        types.iter().zip(&outputs).map(|((t, ..), out)| (out.as_str(), *t, &["n", "m"][..])).collect();
    let ends: Vec<([&str; 1], [&str; 1])> =
        types.iter().zip(&outputs).map(|((_, name, ..), out)| ([*name], [out.as_str()])).collect();
    let nodes: Vec<onnx::Node<'_>> = ends.iter().map(|(i, o)| ("Identity", &i[..], &o[..])).collect();
    onnx::write(repository.path(), "echo", &inputs, &nodes, &declared);
    repository
}

async fn echo() -> (TempDir, Server) {
    let repository = echo_repository();
    let server = serve(&repository, "echo").await;
    (repository, server)
}

fn flat(data: &Value) -> Vec<&Value> {
    data.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).collect()
}

#[tokio::test]
async fn every_datatype_survives_as_json() {
    let (_repository, server) = echo().await;
    let tensors: Vec<Value> = every_datatype()
        .iter()
        .map(|(_, name, data, _)| json!({ "name": name, "datatype": name, "shape": [2, 2], "data": data }))
        .collect();
    let answer = server.post("/v2/models/echo/infer", json!({ "inputs": tensors }).to_string()).await;
    for (_, name, data, _) in every_datatype() {
        let output = answer.output(&format!("{name}_out"));
        assert_eq!(output.iter().collect::<Vec<_>>(), flat(&data), "{name}");
    }
}

#[tokio::test]
async fn every_datatype_survives_in_binary() {
    let (_repository, server) = echo().await;
    let types = every_datatype();
    let tensors: Vec<Value> = types
        .iter()
        .map(|(_, name, _, bytes)| {
            let parameters = json!({ "binary_data_size": bytes.len() });
            json!({ "name": name, "datatype": name, "shape": [2, 2], "parameters": parameters })
        })
        .collect();
    let mut request = json!({ "inputs": tensors, "parameters": { "binary_data_output": true } });
    let binary: Vec<u8> = types.iter().flat_map(|(.., bytes)| bytes.clone()).collect();
    let send = async |request: &Value| {
        let json = request.to_string();
        let length = json.len().to_string();
        let body = [json.as_bytes(), &binary].concat();
        let headers = [("Inference-Header-Content-Length", length.as_str())];
        server.post_with("/v2/models/echo/infer", body, &headers).await
    };
    let answer = send(&request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.binary, binary);
    for ((_, name, _, bytes), output) in types.iter().zip(answer.body["outputs"].as_array().unwrap()) {
        assert_eq!(output["name"], format!("{name}_out"));
        assert_eq!(output["parameters"]["binary_data_size"], bytes.len(), "{name}");
        assert_eq!(output.get("data"), None);
    }
    // Some in one form, some in the other, in the order asked for.
    request["outputs"] = json!([
        { "name": "FP32_out", "parameters": { "binary_data": false } },
        { "name": "UINT16_out" },
        { "name": "BOOL_out", "parameters": { "binary_data": true } },
    ]);
    let mixed = send(&request).await;
    assert_eq!(mixed.output("FP32_out").len(), 4);
    assert_eq!(mixed.binary, [&types[2].3[..], &types[0].3].concat());
}

pub(crate) fn grpc_request(model: &str, names: &[&str]) -> ModelInferRequest {
    let input = |name: &&str| InferInputTensor {
        name: (*name).to_owned(),
        datatype: (*name).to_owned(),
        shape: vec![2, 2],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: names.iter().map(input).collect(),
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn every_datatype_survives_as_raw_contents() {
    let (_repository, server) = echo().await;
    let types = every_datatype();
    let names: Vec<&str> = types.iter().map(|(_, name, ..)| *name).collect();
    let mut request = grpc_request("echo", &names);
    request.raw_input_contents = types.iter().map(|(.., bytes)| bytes.clone().into()).collect();
    let answer = server.grpc().await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents.len(), types.len());
    for ((_, name, _, bytes), (output, raw)) in
        types.iter().zip(answer.outputs.iter().zip(&answer.raw_output_contents))
    {
        assert_eq!((&output.name, output.datatype.as_str()), (&format!("{name}_out"), *name));
        assert_eq!((&output.shape, &raw.to_vec(), &output.contents), (&vec![2, 2], bytes, &None), "{name}");
    }
}

#[tokio::test]
async fn every_datatype_with_a_field_survives_as_contents() {
    let repository = tempfile::tempdir().unwrap();
    let all = every_datatype();
    let mut contents = InferTensorContents {
        bool_contents: vec![true, false, false, true],
        int_contents: vec![-128, -1, 0, 127],
        int64_contents: vec![i64::MIN, -1, 0, i64::MAX],
        uint_contents: vec![0, 1, 254, 255],
        uint64_contents: vec![0, 1, 2, u64::MAX],
        fp32_contents: vec![0.5, -1.25, f32::NAN, f32::INFINITY],
        fp64_contents: vec![0.1, -0.2, 1e-300, 1e308],
        bytes_contents: ["é", "", "a", "b"].map(|text| text.as_bytes().to_vec().into()).to_vec(),
    };
    let fields = [
        (
            "BOOL",
            InferTensorContents {
                bool_contents: std::mem::take(&mut contents.bool_contents),
                ..Default::default()
            },
        ),
        ("INT8", InferTensorContents { int_contents: contents.int_contents.clone(), ..Default::default() }),
        ("INT16", InferTensorContents { int_contents: contents.int_contents.clone(), ..Default::default() }),
        (
            "INT32",
            InferTensorContents {
                int_contents: std::mem::take(&mut contents.int_contents),
                ..Default::default()
            },
        ),
        (
            "INT64",
            InferTensorContents {
                int64_contents: std::mem::take(&mut contents.int64_contents),
                ..Default::default()
            },
        ),
        (
            "UINT8",
            InferTensorContents { uint_contents: contents.uint_contents.clone(), ..Default::default() },
        ),
        (
            "UINT16",
            InferTensorContents { uint_contents: contents.uint_contents.clone(), ..Default::default() },
        ),
        (
            "UINT32",
            InferTensorContents {
                uint_contents: std::mem::take(&mut contents.uint_contents),
                ..Default::default()
            },
        ),
        (
            "UINT64",
            InferTensorContents {
                uint64_contents: std::mem::take(&mut contents.uint64_contents),
                ..Default::default()
            },
        ),
        (
            "FP32",
            InferTensorContents {
                fp32_contents: std::mem::take(&mut contents.fp32_contents),
                ..Default::default()
            },
        ),
        (
            "FP64",
            InferTensorContents {
                fp64_contents: std::mem::take(&mut contents.fp64_contents),
                ..Default::default()
            },
        ),
        (
            "BYTES",
            InferTensorContents {
                bytes_contents: std::mem::take(&mut contents.bytes_contents),
                ..Default::default()
            },
        ),
    ];
    for (name, _) in &fields {
        let t = all.iter().find(|(_, other, ..)| other == name).unwrap().0;
        let (x, y) = ((*name, t, &["n", "m"][..]), ("y", t, &["n", "m"][..]));
        onnx::write(repository.path(), name, &[x], &[("Identity", &[*name], &["y"])], &[y]);
    }
    let server = Server::start(repository.path(), &[], Options::default()).await;
    let mut client = server.grpc().await;
    for (name, contents) in fields {
        let mut request = grpc_request(name, &[name]);
        request.inputs[0].contents = Some(contents.clone());
        let answer = client.model_infer(request).await.unwrap().into_inner();
        assert!(answer.raw_output_contents.is_empty());
        // NaN differs from itself.
        assert_eq!(format!("{:?}", answer.outputs[0].contents), format!("{:?}", Some(contents)), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_a_number_is_an_error_and_never_invalid_json() {
    let repository = tempfile::tempdir().unwrap();
    let (x, y) = (("x", T::Float32, &["n"][..]), ("y", T::Float32, &["n"][..]));
    onnx::write(repository.path(), "log", &[x], &[("Log", &["x"], &["y"])], &[y]);
    let server = serve(&repository, "log").await;
    let infer = async |data: Value| {
        let tensor = json!({ "name": "x", "datatype": "FP32", "shape": [2], "data": data });
        server.post("/v2/models/log/infer", json!({ "inputs": [tensor] }).to_string()).await
    };
    assert_eq!(
        infer(json!([1, -1])).await.error(500),
        r#"log:1 failed: output "y": element 1 is NaN, which JSON cannot carry"#
    );
    assert_eq!(
        infer(json!([0, 1])).await.error(500),
        r#"log:1 failed: output "y": element 0 is -inf, which JSON cannot carry"#
    );
    assert_eq!(infer(json!([1, 1])).await.output("y"), &[json!(0.0), json!(0.0)]);
}

#[tokio::test]
async fn a_model_prepares_its_input_itself() {
    let repository = tempfile::tempdir().unwrap();
    onnx::save(repository.path(), "image", "1", &onnx::preprocessing());
    let server = serve(&repository, "image").await;
    let tensor = json!({ "name": "bytes", "datatype": "UINT8", "shape": [1, 4], "data": [0, 2, 4, 255] });
    let answer = server.post("/v2/models/image/infer", json!({ "inputs": [tensor] }).to_string()).await;
    let mean = (0.0 + 1.0 + 2.0 + 127.5) / 4.0;
    let expected: Vec<_> = [0.0, 1.0, 2.0, 127.5].iter().map(|pixel| json!(pixel - mean)).collect();
    assert_eq!(answer.output("centred"), &expected);
}

#[tokio::test]
async fn outputs_whose_shape_depends_on_the_values() {
    let repository = tempfile::tempdir().unwrap();
    let (x, y) = (("x", T::Float32, &["batch"][..]), ("y", T::Int64, &["1", "batch"][..]));
    // The output is declared to be as long as the input, and is not.
    onnx::write(repository.path(), "where", &[x], &[("NonZero", &["x"], &["y"])], &[y]);
    let server = serve(&repository, "where").await;
    let ask = async |values: &[f32]| {
        let tensor = json!({ "name": "x", "datatype": "FP32", "shape": [values.len()], "data": values });
        server.post("/v2/models/where/infer", json!({ "inputs": [tensor] }).to_string()).await
    };
    for (values, found) in
        [(&[0.0, 5.0, 0.0][..], &[1][..]), (&[1.0, 1.0], &[0, 1]), (&[0.0], &[]), (&[], &[])]
    {
        let answer = ask(values).await;
        assert_eq!(answer.output("y"), found, "{values:?}");
        assert_eq!(answer.body["outputs"][0]["shape"], json!([1, found.len()]), "{values:?}");
    }
}

#[tokio::test]
async fn scalars() {
    let repository = tempfile::tempdir().unwrap();
    let (x, y) = (("x", T::Int64, &[][..]), ("y", T::Int64, &[][..]));
    onnx::write(repository.path(), "negate", &[x], &[("Neg", &["x"], &["y"])], &[y]);
    let server = serve(&repository, "negate").await;
    let tensor = json!({ "name": "x", "datatype": "INT64", "shape": [], "data": [7] });
    let answer = server.post("/v2/models/negate/infer", json!({ "inputs": [tensor] }).to_string()).await;
    assert_eq!(answer.output("y"), &[json!(-7)]);
    assert_eq!(answer.body["outputs"][0]["shape"], json!([]));
}

#[tokio::test]
async fn inputs_that_do_not_fit_each_other_are_the_clients_fault() {
    let repository = tempfile::tempdir().unwrap();
    let inputs = [("a", T::Float32, &["n"][..]), ("b", T::Float32, &["n"][..])];
    let output = [("c", T::Float32, &["n"][..])];
    onnx::write(repository.path(), "add", &inputs, &[("Add", &["a", "b"], &["c"])], &output);
    let server = serve(&repository, "add").await;
    let body = json!({ "inputs": [
        { "name": "a", "datatype": "FP32", "shape": [2], "data": [1, 2] },
        { "name": "b", "datatype": "FP32", "shape": [3], "data": [1, 2, 3] },
    ] });
    let answer = server.post("/v2/models/add/infer", body.to_string()).await;
    assert_eq!(answer.error(400), r#"input "b": dimension "n" is 3, but 2 in input "a""#);
}

#[tokio::test]
async fn values_that_the_model_refuses_are_the_clients_fault() {
    let repository = tempfile::tempdir().unwrap();
    let inputs = [("table", T::Float32, &["n"][..]), ("index", T::Int64, &["m"][..])];
    let output = [("entry", T::Float32, &["m"][..])];
    onnx::write(repository.path(), "pick", &inputs, &[("Gather", &["table", "index"], &["entry"])], &output);
    let server = serve(&repository, "pick").await;
    let infer = async |index: i64| {
        let body = json!({ "inputs": [
            { "name": "table", "datatype": "FP32", "shape": [2], "data": [10, 20] },
            { "name": "index", "datatype": "INT64", "shape": [1], "data": [index] },
        ] });
        server.post("/v2/models/pick/infer", body.to_string()).await
    };
    assert_eq!(infer(1).await.output("entry"), &[json!(20.0)]);
    let refused = infer(2).await;
    assert!(refused.error(400).starts_with("pick:1 refuses the inputs: "), "{}", refused.body);
}
