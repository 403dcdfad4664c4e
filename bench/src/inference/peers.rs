//! Beside other servers, in turns: on a model that takes no time, and on one that takes all of it.

use super::{
    ROUNDS, TIME, digit,
    load::{Load, Report},
    median,
    raw::Raw,
    server::Server,
};
use anyhow::{Context, Result, ensure};
use halftone_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use halftone_tests::{Paths, command, repository};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// An image of ResNet's size, as bytes.
const IMAGE: usize = 3 * 224 * 224 * 4;
/// Requests in turn with ONNX Runtime itself.
const TURNS: usize = 20;

/// A digit as JSON from 16 connections without a pause: what the server itself costs.
pub(super) async fn small_model(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let model = paths.models.join("digits/2/model.onnx");
    let ours = Server::digits(paths, folder, "ours-small", &[]).await?;
    let fastapi = fastapi(folder, "fastapi-small", &model).await?;
    let (mlserver, _) = mlserver(folder, "digits", &model).await?;
    let load = Load::json(&digit()?);
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    let mut last: [Option<Report>; 3] = [None, None, None];
    for _ in 0..ROUNDS {
        for ((server, rates), last) in [&ours, &fastapi, &mlserver].into_iter().zip(&mut rates).zip(&mut last)
        {
            let report = load.closed(server.address, 16, TIME).await?;
            rates.push(report.rate());
            *last = Some(report);
        }
    }
    println!(
        "inference: beside others, a digit as JSON, 16 connections; median rate of {ROUNDS} rounds in turns"
    );
    let rates = rates.map(median);
    let names = ["ours", "FastAPI, 2 processes", "MLServer"];
    for (((name, server), rate), last) in names.iter().zip([&ours, &fastapi, &mlserver]).zip(rates).zip(last)
    {
        let (times, last) = (rates[0] / rate, last.context("no round")?);
        let memory = super::megabytes(server.resident_bytes()?);
        println!(
            "  {name:<22} {rate:>7.0}/s   ours is {times:>5.1} times it   last: {last}   {memory:>6.1} MB"
        );
    }
    Ok(())
}

/// A graph of ResNet-50's shape: what is lost beside ONNX Runtime itself, and beside others.
pub(super) async fn large_model(paths: &Paths, folder: &tempfile::TempDir) -> Result<()> {
    let models = folder.path().join("large");
    let model = models.join("resnet50/1/model.onnx");
    fs::create_dir_all(model.parent().context("no folder")?)?;
    let mut write = command(&python()?);
    write.arg(repository().join("bench/peers/resnet50.py")).arg(&model);
    ensure!(write.status()?.success(), "cannot write the model");
    let image: Vec<u8> =
        (0..IMAGE / 4).flat_map(|index| ((index % 255) as f32 / 255.0).to_le_bytes()).collect();

    let ours = Server::ours(paths, folder, "ours-large", &models, &[]).await?;
    let load = Load::image("resnet50", &image);
    let mut raw = Raw::open(&paths.onnxruntime, &model, &image)?;
    let (mut alone, mut bound, mut served) = (Vec::new(), Vec::new(), Vec::new());
    // Not the first ones.
    load.one_by_one(ours.address, 3).await?;
    raw.run()?;
    for _ in 0..TURNS {
        alone.push(timed(|| raw.run())?);
        bound.push(timed(|| raw.run_bound())?);
        served.extend(load.one_by_one(ours.address, 1).await?);
    }
    let [alone, bound, served] = [alone, bound, served].map(median);
    println!("inference: a graph of ResNet-50's shape, one at a time, median of {TURNS} in turns");
    println!("  ONNX Runtime itself           {alone:>7.2} ms");
    println!("  with I/O binding              {bound:>7.2} ms   {:+.1} %", 100.0 * (bound / alone - 1.0));
    println!("  ours, binary tensor           {served:>7.2} ms   {:+.1} %", 100.0 * (served / alone - 1.0));
    drop(raw);

    let fastapi = fastapi(folder, "fastapi-large", &model).await?;
    let (mlserver, grpc) = mlserver(folder, "resnet50", &model).await?;
    let bytes = Load::bytes("/raw", &image);
    let mut rates = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let [a, b, c, d] = &mut rates;
        a.push(load.closed(ours.address, 2, TIME).await?.rate());
        b.push(bytes.closed(fastapi.address, 2, TIME).await?.rate());
        c.push(over_grpc(&format!("http://{}", ours.address), &image).await?);
        d.push(over_grpc(&format!("http://127.0.0.1:{grpc}"), &image).await?);
    }
    println!("  2 clients without a pause; median rate of {ROUNDS} rounds in turns");
    let names =
        ["ours, REST, binary", "FastAPI, 2 processes, bytes", "ours, gRPC", "MLServer, gRPC, 2 threads"];
    for (name, rate) in names.iter().zip(rates.map(median)) {
        println!("    {name:<28} {rate:>6.1}/s");
    }
    drop(mlserver);
    Ok(())
}

/// Milliseconds.
fn timed(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    run()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Answers per second to two clients over gRPC.
async fn over_grpc(url: &str, image: &[u8]) -> Result<f64> {
    let input = InferInputTensor {
        name: "image".into(),
        datatype: "FP32".into(),
        shape: vec![1, 3, 224, 224],
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "resnet50".into(),
        inputs: vec![input],
        raw_input_contents: vec![image.to_vec().into()],
        ..ModelInferRequest::default()
    };
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let (url, request) = (url.to_owned(), request.clone());
        clients.spawn(async move {
            let channel = Channel::from_shared(url)?.connect().await?;
            let mut client = GrpcInferenceServiceClient::new(channel);
            let mut answers = 0_u32;
            while begun.elapsed() < TIME {
                client.model_infer(request.clone()).await?;
                answers += 1;
            }
            anyhow::Ok(answers)
        });
    }
    let mut answers = 0;
    while let Some(client) = clients.join_next().await {
        answers += client??;
    }
    Ok(f64::from(answers) / begun.elapsed().as_secs_f64())
}

fn python() -> Result<PathBuf> {
    let python = repository().join(".halftone/peers-venv/bin/python");
    ensure!(python.is_file(), "no {}: run scripts/setup.sh --peers", python.display());
    Ok(python)
}

/// In as many processes as there are cores: Python runs one thread at a time.
async fn fastapi(folder: &tempfile::TempDir, name: &str, model: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = command(&python()?);
    command.args(["-m", "uvicorn", "fastapi_server:app", "--workers", "2", "--log-level", "warning"]);
    command.args(["--host", "127.0.0.1", "--port"]).arg(port.to_string());
    command.env("MODEL", model).env("THREADS", "1");
    peer(folder, name, command, port, "/docs").await
}

/// Gives its port for gRPC too.
async fn mlserver(folder: &tempfile::TempDir, name: &str, model: &Path) -> Result<(Server, u16)> {
    let home = folder.path().join(format!("mlserver-{name}"));
    fs::create_dir_all(&home)?;
    let [http, grpc, metrics] = [free_port()?, free_port()?, free_port()?];
    let settings = serde_json::json!({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        // In the process itself: workers of their own cost it more than they give on such a model.
        "parallel_workers": 0, "debug": false,
        "grpc_max_message_length": 16 << 20,
    });
    let threads = if name == "digits" { 1 } else { 2 };
    let of_model = serde_json::json!({
        "name": name, "implementation": "mlserver_runtime.OnnxModel",
        "parameters": { "uri": model, "extra": { "threads": threads } },
    });
    fs::write(home.join("settings.json"), settings.to_string())?;
    fs::write(home.join("model-settings.json"), of_model.to_string())?;
    let mut command = command(&python()?.with_file_name("mlserver"));
    command.arg("start").arg(&home);
    let server = peer(folder, &format!("mlserver-{name}"), command, http, "/v2/health/ready").await?;
    Ok((server, grpc))
}

async fn peer(
    folder: &tempfile::TempDir,
    name: &str,
    mut command: Command,
    port: u16,
    path: &str,
) -> Result<Server> {
    let scripts = repository().join("bench/peers");
    command.env("PYTHONPATH", &scripts).current_dir(folder.path());
    Server::peer(folder, name, command, port, path).await
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
