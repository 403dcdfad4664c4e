//! What the protocol says besides inference.

use crate::support::{Server, held_out, request};
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn describes_itself_and_its_models() {
    let server = Server::digits().await;
    let about = server.get("/v2").await;
    assert_eq!(about.status, StatusCode::OK);
    assert_eq!(about.body["name"], "halftone-inference");
    assert_eq!(about.body["extensions"], json!(["binary_tensor_data", "model_repository"]));

    let latest = server.get("/v2/models/digits").await;
    assert_eq!(
        latest.body,
        json!({
            "name": "digits",
            "versions": ["1", "2", "3"],
            "platform": "onnx_onnxv1",
            "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [-1, 64] }],
            "outputs": [
                { "name": "probabilities", "datatype": "FP32", "shape": [-1, 10] },
                { "name": "label", "datatype": "INT64", "shape": [-1] },
            ],
        })
    );
    assert_eq!(latest.header("x-halftone-model"), "digits:3");
    assert_eq!(server.get("/v2/models/digits/versions/1").await.header("x-halftone-model"), "digits:1");
}

#[tokio::test]
async fn is_ready_until_it_drains() {
    let server = Server::digits().await;
    for path in ["/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, &answer.body["ready"]), (StatusCode::OK, &json!(true)), "{path}");
    }
    server.app.drain().await;
    for path in ["/v2/health/ready", "/v2/models/digits/ready"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, &answer.body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    }
    assert_eq!(server.get("/v2/health/live").await.body, json!({ "live": true }));
    let infer = server.post("/v2/models/digits/infer", request(&held_out()[..1])).await;
    assert_eq!(infer.status, StatusCode::OK);
}

#[tokio::test]
async fn answers_what_was_asked_for() {
    let server = Server::digits().await;
    let mut body: Value = serde_json::from_str(&request(&held_out()[..2])).unwrap();
    body["outputs"] =
        json!([{ "name": "label", "parameters": { "binary_data": false } }, { "name": "probabilities" }]);
    body["id"] = "é\"1".into();
    body["parameters"] = json!({ "mine": "kept", "number": 1.5, "timeout": 5_000_000 });
    let answer = server.post("/v2/models/digits/versions/1/infer", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-halftone-model"), "digits:1");
    assert_eq!(answer.body["model_name"], "digits");
    assert_eq!(answer.body["model_version"], "1");
    assert_eq!(answer.body["id"], "é\"1");
    assert_eq!(answer.body["parameters"], json!({ "mine": "kept", "number": 1.5 }));
    let outputs = answer.body["outputs"].as_array().unwrap();
    let names: Vec<_> = outputs.iter().map(|output| &output["name"]).collect();
    assert_eq!(names, ["label", "probabilities"]);
    assert_eq!((&outputs[0]["shape"], &outputs[0]["datatype"]), (&json!([2]), &json!("INT64")));
    assert_eq!((&outputs[1]["shape"], &outputs[1]["datatype"]), (&json!([2, 10]), &json!("FP32")));

    body["outputs"] = json!([{ "name": "label" }]);
    body.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "parameters");
    let answer = server.post("/v2/models/digits/infer", body.to_string()).await;
    assert_eq!(answer.body["outputs"].as_array().unwrap().len(), 1);
    assert_eq!((answer.body.get("id"), answer.body.get("parameters")), (None, None));
}

#[tokio::test]
async fn an_empty_batch_has_an_empty_answer() {
    let answer = Server::digits().await.post("/v2/models/digits/infer", request(&[])).await;
    assert_eq!(answer.output("label"), &[] as &[Value]);
    assert_eq!(answer.body["outputs"][0]["shape"], json!([0, 10]));
}

#[tokio::test]
async fn a_malformed_context_costs_nothing() {
    let server = Server::digits().await;
    let headers = [("x-halftone-context", "!!"), ("traceparent", "00-nonsense")];
    let answer = server.post_with("/v2/models/digits/infer", request(&held_out()[..1]), &headers).await;
    assert_eq!(answer.output("label").len(), 1);
}
