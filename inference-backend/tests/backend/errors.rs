//! Every bad request gets its status and an error that says what to do.

use crate::support::{Server, committed_models, held_out, request};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const INFER: &str = "/v2/models/digits/infer";

/// A good request, changed at a JSON pointer.
fn changed(pointer: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(&request(&held_out()[..1])).unwrap();
    *body.pointer_mut(pointer).unwrap() = value;
    body.to_string()
}

#[tokio::test]
async fn bad_tensors() {
    let server = Server::digits().await;
    let (seven, good) = (json!([[1, 2, 3, 4, 5, 6, 7]]), json!([held_out()[0].pixels]));
    let mut with_text = good.clone();
    with_text[0][63] = "16".into();
    for (pointer, value, expected) in [
        (
            "/inputs/0/shape",
            json!([1, 63]),
            r#"input "pixels": shape [1, 63] was given, [-1, 64] is expected (-1: any size)"#,
        ),
        (
            "/inputs/0/shape",
            json!([64]),
            r#"input "pixels": shape [64] was given, [-1, 64] is expected (-1: any size)"#,
        ),
        (
            "/inputs/0/datatype",
            json!("INT64"),
            r#"input "pixels": datatype "INT64" was given, "FP32" is expected"#,
        ),
        ("/inputs/0/data", seven, r#"input "pixels": data[0] has 7 elements, the shape [1, 64] needs 64"#),
        (
            "/inputs/0/data",
            json!([1, 2]),
            r#"input "pixels": the data has 2 elements, the shape [1, 64] needs 64"#,
        ),
        (
            "/inputs/0/data",
            with_text,
            r#"input "pixels": element 63 is a string, expected a number that fits FP32"#,
        ),
        ("/inputs/0/data", json!(5), r#"input "pixels": the data is 5, expected an array"#),
        ("/inputs/0/name", json!("pixel"), r#"unknown input "pixel"; the model takes "pixels""#),
        ("/inputs", json!([]), r#"input "pixels" (FP32 [-1, 64]) is missing"#),
    ] {
        let answer = server.post(INFER, changed(pointer, value)).await;
        assert_eq!(answer.error(400), expected);
        assert_eq!(answer.header("x-halftone-model"), "digits:3");
    }
    let mut twice: Value = serde_json::from_str(&request(&held_out()[..1])).unwrap();
    let input = twice["inputs"][0].clone();
    twice["inputs"].as_array_mut().unwrap().push(input);
    let answer = server.post(INFER, twice.to_string()).await;
    assert_eq!(answer.error(400), r#"input "pixels" is given twice"#);
    twice["inputs"][1]["name"] = "more".into();
    let answer = server.post(INFER, twice.to_string()).await;
    assert_eq!(answer.error(400), r#"unknown input "more"; the model takes "pixels""#);
    // What was refused leaves nothing behind.
    assert_eq!(server.post(INFER, request(&held_out()[..1])).await.output("label").len(), 1);
}

#[tokio::test]
async fn unknown_outputs() {
    let mut body: Value = serde_json::from_str(&request(&held_out()[..1])).unwrap();
    body["outputs"] = json!([{ "name": "labels" }]);
    let answer = Server::digits().await.post(INFER, body.to_string()).await;
    assert_eq!(answer.error(400), r#"unknown output "labels"; the model gives "probabilities", "label""#);
}

#[tokio::test]
async fn malformed_json() {
    let server = Server::digits().await;
    let answer = server.post(INFER, "{\n  \"inputs\": [}").await;
    assert_eq!(answer.error(400), "malformed request: expected value at line 2 column 14");
    let answer = server.post(INFER, "").await;
    assert_eq!(answer.error(400), "malformed request: EOF while parsing a value at line 1 column 0");
    let answer = server.post(INFER, vec![0xff, 0xfe]).await;
    assert!(answer.error(400).starts_with("malformed request: "));
}

#[tokio::test]
async fn binary_tensors_are_refused_with_advice() {
    let headers = [("Inference-Header-Content-Length", "2")];
    let answer = Server::digits().await.post_with(INFER, "{}\0\0", &headers).await;
    assert!(answer.error(400).contains("binary_data=False"));
}

#[tokio::test]
async fn unknown_models_versions_and_paths() {
    let server = Server::digits().await;
    for path in ["/v2/models/digit", "/v2/models/digit/ready", "/v2/models/digit/versions/1"] {
        let answer = server.get(path).await;
        assert_eq!(answer.error(404), r#"unknown model "digit"; served: "digits""#);
        assert_eq!(answer.header("x-halftone-model"), "");
    }
    let answer = server.post("/v2/models/digits/versions/9/infer", "{}").await;
    assert_eq!(answer.error(404), r#"model "digits" has no version "9"; served: 1, 2, 3"#);
    let answer = server.get("/v2/models/..%2Fdigits").await;
    assert_eq!(answer.error(404), r#"unknown model "../digits"; served: "digits""#);
    assert_eq!(server.get("/v3").await.error(404), "no such path: /v3");
    assert!(server.get("/v2/models/%ff").await.error(400).contains("UTF-8"));
}

#[tokio::test]
async fn other_methods() {
    let server = Server::digits().await;
    let answer = server.get(INFER).await;
    assert_eq!(answer.error(405), "the method GET is not allowed here");
    assert_eq!(answer.header("allow"), "POST");
    for path in ["/v2", "/v2/models/digits", "/v2/models/digits/versions/1/infer"] {
        let answer = server.delete(path).await;
        assert_eq!(answer.error(405), "the method DELETE is not allowed here");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let server = Server::start(&committed_models(), &["digits:2"], 1, 1, 1000).await;
    let largest = format!("{:1$}", "{}", 1000);
    assert_eq!(
        server.post(INFER, largest).await.error(400),
        r#"malformed request: missing field `inputs` at line 1 column 2"#
    );
    for size in [1001, 3_000_000] {
        let answer = server.post(INFER, vec![b' '; size]).await;
        assert_eq!(answer.error(413), "the body is larger than 1000 bytes");
    }
}

#[tokio::test]
async fn a_body_that_does_not_say_how_large_it_is() {
    let server = Server::start(&committed_models(), &["digits:2"], 1, 1, 1000).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..300 {
        stream.write_all(format!("{:x}\r\n{:2$}\r\n", 10_000, "", 10_000).as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1000];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains(r#"{"error":"the body is larger than 1000 bytes"}"#), "{answer}");
}
