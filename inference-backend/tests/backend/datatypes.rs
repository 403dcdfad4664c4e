//! Every datatype goes in and comes out unchanged; what JSON cannot carry is an error.

use crate::{
    onnx,
    support::{Server, load},
};
use halftone_inference::repository::Repository;
use ort::value::TensorElementType as T;
use serde_json::{Value, json};
use tempfile::TempDir;

async fn serve(repository: &TempDir, model: &str) -> Server {
    Server::start(repository.path(), &[model], 1, 16, 1 << 20).await
}

#[tokio::test]
async fn every_datatype_survives() {
    let repository = tempfile::tempdir().unwrap();
    let types = [
        (T::Bool, "BOOL", json!([[true, false], [false, true]])),
        (T::Uint8, "UINT8", json!([[0, 1], [254, 255]])),
        (T::Uint16, "UINT16", json!([[0, 1], [65534, 65535]])),
        (T::Uint32, "UINT32", json!([[0, 1], [2, u32::MAX]])),
        (T::Uint64, "UINT64", json!([[0, 1], [9_007_199_254_740_993_u64, u64::MAX]])),
        (T::Int8, "INT8", json!([[-128, -1], [0, 127]])),
        (T::Int16, "INT16", json!([[-32768, -1], [0, 32767]])),
        (T::Int32, "INT32", json!([[i32::MIN, -1], [0, i32::MAX]])),
        (T::Int64, "INT64", json!([[i64::MIN, -9_007_199_254_740_993_i64], [0, i64::MAX]])),
        (T::Float32, "FP32", json!([[0.5, -1.25], [1.5e-3, 3.0e38]])),
        (T::Float64, "FP64", json!([[0.1, -0.2], [1.5e-300, 1.7e308]])),
    ];
    let outputs: Vec<String> = types.iter().map(|(_, name, _)| format!("{name}_out")).collect();
    let inputs: Vec<onnx::Tensor<'_>> =
        types.iter().map(|(t, name, _)| (*name, *t, &["n", "m"][..])).collect();
    let declared: Vec<onnx::Tensor<'_>> =
        types.iter().zip(&outputs).map(|((t, ..), out)| (out.as_str(), *t, &["n", "m"][..])).collect();
    let ends: Vec<([&str; 1], [&str; 1])> =
        types.iter().zip(&outputs).map(|((_, name, _), out)| ([*name], [out.as_str()])).collect();
    let nodes: Vec<onnx::Node<'_>> = ends.iter().map(|(i, o)| ("Identity", &i[..], &o[..])).collect();
    onnx::write(repository.path(), "echo", &inputs, &nodes, &declared);
    let server = serve(&repository, "echo").await;

    let tensors: Vec<Value> = types
        .iter()
        .map(|(_, name, data)| json!({ "name": name, "datatype": name, "shape": [2, 2], "data": data }))
        .collect();
    let answer = server.post("/v2/models/echo/infer", json!({ "inputs": tensors }).to_string()).await;
    for ((_, name, data), output) in types.iter().zip(&outputs) {
        let flat: Vec<&Value> =
            data.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).collect();
        assert_eq!(answer.output(output).iter().collect::<Vec<_>>(), flat, "{name}");
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

#[tokio::test]
async fn what_cannot_be_served_is_said_at_the_start() {
    let repository = tempfile::tempdir().unwrap();
    let (x, y) = (("x", T::String, &["n"][..]), ("y", T::String, &["n"][..]));
    onnx::write(repository.path(), "words", &[x], &[("Identity", &["x"], &["y"])], &[y]);
    let artifacts = Repository::scan(repository.path()).unwrap().select(&[]).unwrap();
    let error = load(artifacts[0].clone(), 1, 1).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        r#"cannot serve words:1: "x" holds elements of type String, which are not served"#
    );
}
