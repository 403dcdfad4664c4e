//! Other people's client libraries, unmodified.

use crate::{
    onnx,
    support::{Options, Server, committed_models, root},
};
use ort::value::TensorElementType as T;
use std::{fs, process::Stdio};
use tokio::process::Command;

/// Serves the committed digits and a model per datatype that gives back what it gets.
async fn server() -> (tempfile::TempDir, Server) {
    let repository = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(committed_models().join("digits"), repository.path().join("digits")).unwrap();
    for (element_type, datatype) in [
        (T::Bool, "BOOL"),
        (T::Uint8, "UINT8"),
        (T::Uint16, "UINT16"),
        (T::Uint32, "UINT32"),
        (T::Uint64, "UINT64"),
        (T::Int8, "INT8"),
        (T::Int16, "INT16"),
        (T::Int32, "INT32"),
        (T::Int64, "INT64"),
        (T::Float16, "FP16"),
        (T::Bfloat16, "BF16"),
        (T::Float32, "FP32"),
        (T::Float64, "FP64"),
        (T::String, "BYTES"),
    ] {
        let (x, y) = (("x", element_type, &["n"][..]), ("y", element_type, &["n"][..]));
        let name = format!("echo_{datatype}");
        onnx::write(repository.path(), &name, &[x], &[("Identity", &["x"], &["y"])], &[y]);
    }
    let folders = fs::read_dir(repository.path()).unwrap();
    let echoes = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut serve: Vec<String> = echoes.filter(|name| name != "digits").collect();
    serve.extend(["digits:1", "digits:2", "digits:3"].map(str::to_owned));
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    let server = Server::start(
        repository.path(),
        &serve,
        Options { workers: 1, model_control: true, ..Options::default() },
    )
    .await;
    (repository, server)
}

/// Runs one of the scripts against a server of its own.
async fn works(script: &str) {
    let python = root().join(".halftone/clients-venv/bin/python");
    assert!(python.is_file(), "no {}: run scripts/setup.sh --tests first", python.display());
    let (_repository, server) = server().await;
    let output = Command::new(python)
        .arg(root().join("inference-backend/tests/clients").join(script))
        .arg(server.address.to_string())
        // Requests to this machine do not go through the proxy of the environment.
        .envs([("no_proxy", "127.0.0.1"), ("NO_PROXY", "127.0.0.1")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim().ends_with(r#"{"ok": true}"#), "{out}\n{errors}");
}

#[tokio::test]
async fn tritons_client_works_over_http_and_grpc() {
    works("triton.py").await;
}

#[tokio::test]
async fn kserves_client_works_over_rest_and_grpc() {
    works("kserve_client.py").await;
}
