//! Which models are batched, and that nobody notices.

use crate::{
    onnx,
    support::{Options, Server},
};
use halftone_inference::queue::BatchLimits;
use ort::value::TensorElementType as T;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const BATCH: &[&str] = &["batch"];

async fn serve(write: impl FnOnce(&std::path::Path), delay: Duration) -> (tempfile::TempDir, Server) {
    let repository = tempfile::tempdir().unwrap();
    write(repository.path());
    let batch = BatchLimits { size: 8, delay };
    let options = Options { workers: 1, batch, ..Options::default() };
    let server = Server::start(repository.path(), &[], options).await;
    (repository, server)
}

fn size(server: &Server, model: &str) -> usize {
    server.app.models.find(model, None).unwrap().workers().unwrap().batch().size
}

#[tokio::test]
async fn only_what_says_that_it_is_a_batch_and_behaves_like_one_is_batched() {
    let x = |dimensions| ("x", T::Float32, dimensions);
    let y = |dimensions| ("y", T::Float32, dimensions);
    let write = |repository: &std::path::Path| {
        let write = |name, operator, input, output| {
            onnx::write(repository, name, &[x(input)], &[(operator, &["x"], &["y"])], &[y(output)]);
        };
        write("named", "Exp", BATCH, BATCH);
        write("called_n", "Exp", &["N", "m"], &["N", "m"]);
        write("anything", "Exp", &["length"], &["length"]);
        write("differs", "Exp", BATCH, &["batch_out"]);
        // Says so, and adds up all rows.
        write("sum", "Softmax", BATCH, BATCH);
    };
    let (_repository, server) = serve(write, Duration::ZERO).await;
    assert_eq!((size(&server, "named"), size(&server, "called_n")), (8, 8));
    for model in ["anything", "differs", "sum"] {
        assert_eq!(size(&server, model), 1, "{model}");
    }
}

#[tokio::test]
async fn one_requests_bad_values_do_not_cost_the_others_their_answers() {
    let write = |repository: &std::path::Path| {
        onnx::save(repository, "table", "1", &onnx::table(&[10.0, 20.0, 30.0]));
    };
    let (_repository, server) = serve(write, Duration::from_millis(20)).await;
    assert_eq!(size(&server, "table"), 8);
    let server = Arc::new(server);
    let answers: Vec<_> = (0..100_i64)
        .map(|index| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let index = index % 4;
                let input = json!({ "name": "index", "datatype": "INT64", "shape": [1], "data": [index] });
                let body = json!({ "inputs": [input] }).to_string();
                let answer = server.post("/v2/models/table/infer", body).await;
                if index == 3 {
                    assert!(answer.error(400).starts_with("table:1 refuses the inputs: "), "{}", answer.body);
                } else {
                    assert_eq!(
                        answer.output("entry"),
                        &[json!([10.0, 20.0, 30.0][usize::try_from(index).unwrap()])]
                    );
                }
            })
        })
        .collect();
    for answer in answers {
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn shapes_that_differ_are_not_run_together() {
    let write = |repository: &std::path::Path| {
        let (x, y) = (("x", T::Float32, &["batch", "m"][..]), ("y", T::Float32, &["batch", "m"][..]));
        onnx::write(repository, "neg", &[x], &[("Neg", &["x"], &["y"])], &[y]);
    };
    let (_repository, server) = serve(write, Duration::from_millis(20)).await;
    assert_eq!(size(&server, "neg"), 8);
    let server = Arc::new(server);
    let answers: Vec<_> = (0..200_u32)
        .map(|index| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                // Rows from none to three, columns from one to four.
                let (rows, columns) = (index % 4, index / 4 % 4 + 1);
                let data = vec![index; (rows * columns) as usize];
                let x = json!({ "name": "x", "datatype": "FP32", "shape": [rows, columns], "data": data });
                let answer = server.post("/v2/models/neg/infer", json!({ "inputs": [x] }).to_string()).await;
                let expected: Vec<Value> = data.iter().map(|&value| json!(-f64::from(value))).collect();
                assert_eq!(answer.output("y"), &expected);
                assert_eq!(answer.body["outputs"][0]["shape"], json!([rows, columns]));
            })
        })
        .collect();
    for answer in answers {
        answer.await.unwrap();
    }
}
