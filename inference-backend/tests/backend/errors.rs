//! Every bad request gets its status and an error that says what to do.

use crate::support::{Options, Server, committed_models, held_out, request};
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
async fn bad_binary_tensors() {
    let server = Server::digits().await;
    let json = |size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"pixels","shape":[1,64],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    for (size, bytes, length, problem) in [
        ("256", 255, None, r#"input "pixels": binary_data_size is 256, but 255 bytes are left"#),
        ("255", 255, None, r#"input "pixels": the data has 255 bytes, the shape [1, 64] needs 256"#),
        ("256", 257, None, "1 bytes follow those that binary_data_size of the inputs says"),
        ("\"256\"", 256, None, r#"input "pixels": binary_data_size is not a number of bytes"#),
        ("256", 256, Some("-1"), r#"Inference-Header-Content-Length is "-1", expected a number of bytes"#),
        ("256", 256, Some("99999"), "the body has 357 bytes, less than Inference-Header-Content-Length says"),
        ("256", 256, Some("5"), "malformed request: EOF while parsing a string at line 1 column 5"),
        ("256", 256, Some("0"), "malformed request: EOF while parsing a value at line 1 column 0"),
    ] {
        let json = json(size);
        let length = length.map_or(json.len().to_string(), str::to_owned);
        let body = [json.as_bytes(), &vec![0; bytes]].concat();
        let answer =
            server.post_with(INFER, body, &[("Inference-Header-Content-Length", length.as_str())]).await;
        assert_eq!(answer.error(400), problem);
    }
}

#[tokio::test]
async fn what_json_cannot_say_is_refused() {
    let server = Server::digits().await;
    for number in ["NaN", "Infinity", "-Infinity", "1e39", "01", "0x1"] {
        let body = request(&held_out()[..1]).replacen("\"data\":[[", &format!("\"data\":[[{number},"), 1);
        let answer = server.post(INFER, body).await;
        assert_eq!(answer.status.as_u16(), 400, "{number}: {}", answer.body);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_bodies() {
    let options = Options { max_body: 100_000, max_bodies: 250_000, ..Options::default() };
    let server = Server::start(&committed_models(), &["digits:2"], options).await;
    let send = async |encoding: &str, body: Vec<u8>| {
        server.post_with(INFER, body, &[("Content-Encoding", encoding)]).await
    };
    let good = request(&held_out()[..1]);
    assert_eq!(send("gzip", gzip(good.as_bytes())).await.output("label").len(), 1);
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut deflated, good.as_bytes()).unwrap();
    assert_eq!(send("deflate", deflated.finish().unwrap()).await.output("label").len(), 1);
    assert_eq!(send("identity", good.clone().into_bytes()).await.output("label").len(), 1);

    // 50 MB that arrive as 50 KB.
    let bomb = gzip(&vec![b' '; 50 << 20]);
    assert!(bomb.len() < 100_000);
    assert_eq!(send("gzip", bomb).await.error(413), "the body is larger than 100000 bytes");
    let truncated = gzip(good.as_bytes())[..50].to_vec();
    assert!(send("gzip", truncated).await.error(400).starts_with("cannot decompress the body: "));
    assert!(send("gzip", good.clone().into_bytes()).await.error(400).starts_with("cannot decompress"));
    assert_eq!(
        send("br", good.into_bytes()).await.error(415),
        r#"the content encoding "br" is not read; gzip, deflate and identity are"#
    );
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
    let server =
        Server::start(&committed_models(), &["digits:2"], Options { max_body: 1000, ..Options::default() })
            .await;
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
    let server =
        Server::start(&committed_models(), &["digits:2"], Options { max_body: 1000, ..Options::default() })
            .await;
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
