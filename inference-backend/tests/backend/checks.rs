//! What is found in a model's outputs, and where it goes.

use crate::{
    ledger::Ledger,
    observations::{Backend, context},
    onnx,
    process::{command, refused},
};
use halftone_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use ort::value::TensorElementType as T;
use serde_json::{Value, json};
use std::{fs, path::Path};
use tonic::Code;
use xxhash_rust::xxh3::xxh3_64;

/// A repository with a model `log`, which gives the natural logarithm: of -1 it is NaN, of 0 an infinity.
fn logarithm(checks: &Value) -> tempfile::TempDir {
    let repository = tempfile::tempdir().unwrap();
    let (x, y) = (("x", T::Float32, &["batch", "n"][..]), ("y", T::Float32, &["batch", "n"][..]));
    onnx::write(repository.path(), "log", &[x], &[("Log", &["x"], &["y"])], &[y]);
    configure(repository.path(), checks);
    repository
}

fn configure(repository: &Path, checks: &Value) {
    fs::write(repository.join("log/config.json"), json!({ "checks": checks }).to_string()).unwrap();
}

/// One row, as JSON; its outputs in binary, or as JSON too.
fn row(values: &[f32], binary: bool) -> String {
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, values.len()], "data": values });
    json!({ "inputs": [input], "parameters": { "binary_data_output": binary } }).to_string()
}

fn message(values: &[f32]) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, i64::try_from(values.len()).unwrap()],
        ..InferInputTensor::default()
    };
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: "log".into(),
        inputs: vec![input],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

const PATH: &str = "/v2/models/log/infer";

#[tokio::test(flavor = "multi_thread")]
async fn nan_and_infinities_are_bad_events_whatever_the_answer() {
    let (ledger, folder, models) = (Ledger::start(), tempfile::tempdir().unwrap(), logarithm(&json!({})));
    let backend = Backend::serving(models.path(), &ledger, folder.path(), &[]);
    let unit = |unit| context(unit, "a");
    assert_eq!(backend.post(PATH, row(&[1.0, 2.0], true), Some(&unit(1))).await, 200);
    assert_eq!(backend.post(PATH, row(&[1.0, -1.0], true), Some(&unit(2))).await, 200);
    assert_eq!(backend.grpc(message(&[0.0, 1.0]), &unit(3)).await, Code::Ok);
    // JSON has no form for it: the request fails besides.
    assert_eq!(backend.post(PATH, row(&[-1.0], false), Some(&unit(4))).await, 500);
    assert_eq!(backend.post(PATH, row(&[-1.0], true), Some(&unit(2))).await, 200);
    backend.stop();
    let books = ledger.books();
    let events: Vec<_> = books.bad_events.iter().map(|(_, metric, unit)| (metric.as_str(), *unit)).collect();
    assert_eq!(events, [("error", 4), ("nan", 2), ("nan", 3), ("nan", 4)]);
    let sums = |metric: &str| {
        let (_, sums) = books.statistics.iter().find(|((_, name), _)| name == metric).unwrap();
        (sums.count, sums.ones)
    };
    assert_eq!((sums("nan"), sums("error")), ((5, 4), (5, 1)));
    assert_eq!((sums("latency").0, sums("latency_failed").0), (4, 1));
    let outcomes: Vec<_> = books.exposures.values().flatten().map(|(unit, seen)| (*unit, seen.2)).collect();
    assert_eq!(outcomes, [(1, 0), (2, 2), (3, 2), (4, 1 | 2)]);
    // Nothing else was asked for.
    assert!(
        !books
            .statistics
            .keys()
            .any(|(_, name)| name == "range" || name == "confidence" || name.contains(':'))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn range_confidence_and_distribution_are_what_the_model_says() {
    let checks =
        json!({ "confidence": "y", "outputs": { "y": { "min": -1, "max": 1.5, "distribution": true } } });
    let (ledger, folder, models) = (Ledger::start(), tempfile::tempdir().unwrap(), logarithm(&checks));
    let backend = Backend::serving(models.path(), &ledger, folder.path(), &[]);
    let e = std::f32::consts::E;
    for (unit, values) in [(1, [1.0, e]), (2, [e * e, 1.0]), (3, [1.0, 0.1]), (4, [1.0, -1.0])] {
        assert_eq!(backend.post(PATH, row(&values, true), Some(&context(unit, "a"))).await, 200);
    }
    backend.stop();
    let books = ledger.books();
    let sums = |metric: &str| {
        let (_, sums) = books.statistics.iter().find(|((_, name), _)| name == metric).unwrap();
        sums.clone()
    };
    assert_eq!((sums("range").count, sums("range").ones), (4, 2));
    let out_of_range = books.bad_events.iter().filter(|(_, metric, _)| metric == "range");
    assert_eq!(out_of_range.map(|(.., unit)| *unit).collect::<Vec<_>>(), [2, 3]);
    // The largest of each row: 1, 2, 0; and NaN where there is one.
    let confidence = sums("confidence");
    assert_eq!((confidence.count, confidence.rejected, confidence.min), (3, 1, 0.0));
    assert!((confidence.total - 3.0).abs() < 1e-5 && (confidence.max - 2.0).abs() < 1e-5, "{confidence:?}");
    assert_eq!(confidence.units.values().map(|(_, requests)| requests).sum::<u64>(), 3);
    let values = sums("output:y");
    assert_eq!((values.count, values.rejected, values.histogram), (7, 1, 8));
    assert!((f64::from(0.1_f32.ln()) - values.min).abs() < 1e-5, "{values:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_the_output_is_in_the_log_of_both_protocols() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let models = logarithm(&json!({ "max_bytes": 8 }));
    // Nothing is reported: the log needs no control plane.
    let silent = Backend::silent(models.path());
    let reports = Backend::serving(models.path(), &ledger, folder.path(), &[]);
    let e = std::f32::consts::E;
    let expected = {
        let bytes: Vec<u8> = [1.0_f32.ln(), e.ln()].iter().flat_map(|value| value.to_le_bytes()).collect();
        format!("{:016x}", xxh3_64(&bytes))
    };
    for backend in [silent, reports] {
        backend.post(PATH, row(&[1.0, e], true), None).await;
        backend.post(PATH, row(&[1.0, e], false), None).await;
        backend.grpc(message(&[1.0, e]), &context(1, "a")).await;
        // Larger than is looked at.
        backend.grpc(message(&[1.0, -1.0, 1.0]), &context(2, "a")).await;
        // Has no outputs.
        backend.post(PATH, "{}".into(), None).await;
        let logged = backend.stop();
        let access = logged.iter().filter(|line| line["target"] == "access");
        let hashes: Vec<_> = access.map(|line| line["model_output_hash"].as_str()).collect();
        assert_eq!(hashes, [Some(expected.as_str()), Some(&expected), Some(&expected), None, None]);
    }
    let books = ledger.books();
    let nan: u64 =
        books.statistics.iter().filter(|((_, name), _)| name == "nan").map(|(_, sums)| sums.count).sum();
    assert_eq!((nan, books.bad_events.len()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_can_be_left_out() {
    let (ledger, folder) = (Ledger::start(), tempfile::tempdir().unwrap());
    let models = logarithm(&json!({ "nan": false, "hash": false }));
    let backend = Backend::serving(models.path(), &ledger, folder.path(), &[]);
    assert_eq!(backend.post(PATH, row(&[-1.0], true), None).await, 200);
    let logged = backend.stop();
    assert!(logged.iter().all(|line| line.get("model_output_hash").is_none()));
    let books = ledger.books();
    let metrics: Vec<_> = books.statistics.keys().map(|(_, metric)| metric.as_str()).collect();
    assert_eq!(metrics, ["error", "latency", "refused"]);
}

#[test]
fn a_configuration_that_does_not_fit_the_model_is_refused() {
    let models = logarithm(&json!({ "outputs": { "z": { "min": 0 } } }));
    let unknown = refused(&mut command(models.path()));
    assert!(
        unknown.ends_with(
            r#"cannot serve log:1: config.json: checks.outputs: unknown output "z"; the model gives "y""#
        ),
        "{unknown}"
    );
    configure(models.path(), &json!({ "outputs": { "y": { "minimum": 0 } } }));
    let field = refused(&mut command(models.path()));
    assert!(field.contains("config.json: unknown field `minimum`"), "{field}");
}
