//! The repository changes while requests are answered.

use crate::{
    onnx::{self, table},
    support::{Options, Server},
};
use halftone_proto::inference::{
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A repository with the model `m` in these versions, of which each answers with its number.
fn repository(versions: &[&str]) -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    for version in versions {
        onnx::save(repository.path(), "m", version, &table(&[version.parse().unwrap()]));
    }
    repository
}

async fn serve(repository: &TempDir, options: Options) -> Arc<Server> {
    Arc::new(Server::start(repository.path(), &[], Options { workers: 1, ..options }).await)
}

fn watched() -> Options {
    Options { poll: Some(POLL), ..Options::default() }
}

async fn ask(server: &Server, path: &str) -> Result<f64, String> {
    let input = json!({ "name": "index", "datatype": "INT64", "shape": [1], "data": [0] });
    let answer = server.post(&format!("{path}/infer"), json!({ "inputs": [input] }).to_string()).await;
    if answer.status == 200 {
        Ok(answer.output("entry")[0].as_f64().unwrap())
    } else {
        Err(format!("{} {}", answer.status, answer.body))
    }
}

/// Waits until the model answers so.
async fn until(server: &Server, path: &str, expected: Result<f64, &str>) {
    let begun = Instant::now();
    loop {
        let answer = ask(server, path).await;
        let is_so = match (&answer, expected) {
            (Ok(got), Ok(expected)) => (got - expected).abs() < 1e-6,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        if is_so {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still {answer:?}, expected {expected:?}");
        tokio::time::sleep(POLL / 4).await;
    }
}

/// Replaces a file in one step, as it ought to be done.
fn replace(repository: &Path, version: &str, file: &[u8]) {
    let folder = repository.join("m").join(version);
    fs::write(folder.join("model.new"), file).unwrap();
    fs::rename(folder.join("model.new"), folder.join("model.onnx")).unwrap();
}

async fn index(server: &Server) -> Value {
    server.post("/v2/repository/index", "").await.body
}

/// Asks without a pause until it is told to stop; no answer may fail.
fn traffic(
    server: &Arc<Server>,
    clients: usize,
) -> (Arc<AtomicBool>, Arc<AtomicUsize>, Vec<tokio::task::JoinHandle<()>>) {
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..clients)
        .map(|_| {
            let (server, stop, answered) = (Arc::clone(server), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(&server, "/v2/models/m").await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    (stop, answered, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_change_and_go_without_a_failed_request() {
    let repository = repository(&["1"]);
    let folder = repository.path();
    let server = serve(&repository, watched()).await;
    let (stop, _, tasks) = traffic(&server, 4);
    until(&server, "/v2/models/m", Ok(1.0)).await;

    // A newer version: the policy is the latest one, so the old one goes when the new one is ready.
    onnx::save(folder, "m", "2", &table(&[2.0]));
    until(&server, "/v2/models/m", Ok(2.0)).await;
    until(&server, "/v2/models/m/versions/1", Err("has no version")).await;
    // The same version with another file.
    replace(folder, "2", &table(&[2.5]));
    until(&server, "/v2/models/m", Ok(2.5)).await;
    // Removed: back to what is there.
    fs::remove_dir_all(folder.join("m/2")).unwrap();
    until(&server, "/v2/models/m", Ok(1.0)).await;
    // Another model beside it, and gone again.
    onnx::save(folder, "other", "1", &table(&[7.0]));
    until(&server, "/v2/models/other", Ok(7.0)).await;
    fs::remove_dir_all(folder.join("other")).unwrap();
    until(&server, "/v2/models/other", Err("unknown model")).await;

    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    // Last, the whole folder: what has been loaded goes on.
    let away = folder.with_extension("away");
    fs::rename(folder, &away).unwrap();
    tokio::time::sleep(POLL * 5).await;
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(1.0));
    fs::rename(&away, folder).unwrap();
    onnx::save(folder, "m", "3", &table(&[3.0]));
    until(&server, "/v2/models/m", Ok(3.0)).await;
}

#[tokio::test]
async fn a_broken_file_leaves_the_running_version_and_says_why() {
    let repository = repository(&["1"]);
    let server = serve(&repository, watched()).await;
    let reason = async |version: &str, contains: &str| {
        let begun = Instant::now();
        loop {
            let index = index(&server).await;
            let entry = index.as_array().unwrap().iter().find(|entry| entry["version"] == version).cloned();
            if let Some(entry) = entry
                && entry["reason"].as_str().unwrap().contains(contains)
            {
                return entry["state"].as_str().unwrap().to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{index}");
            tokio::time::sleep(POLL).await;
        }
    };
    // The file of the version that runs.
    replace(repository.path(), "1", b"not a model");
    assert_eq!(reason("1", "cannot load m:1 from").await, "READY");
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(1.0));
    // A newer version: the old one, which the policy would let go, stays.
    onnx::save(repository.path(), "m", "2", b"not a model either");
    assert_eq!(reason("2", "cannot load m:2 from").await, "UNAVAILABLE");
    tokio::time::sleep(POLL * 5).await;
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(1.0));
    // A configuration that is wrong.
    replace(repository.path(), "2", &table(&[2.0]));
    until(&server, "/v2/models/m", Ok(2.0)).await;
    fs::write(repository.path().join("m/config.json"), r#"{"versions": {"newest": 1}}"#).unwrap();
    assert_eq!(reason("2", "config.json: unknown variant `newest`").await, "READY");
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(2.0));
    // Mended, all of it is taken up.
    replace(repository.path(), "1", &table(&[1.5]));
    fs::write(repository.path().join("m/config.json"), r#"{"versions": {"latest": 2}}"#).unwrap();
    until(&server, "/v2/models/m/versions/1", Ok(1.5)).await;
    until(&server, "/v2/models/m/versions/2", Ok(2.0)).await;
    let index = index(&server).await;
    assert_eq!(index[0], json!({ "name": "m", "version": "1", "state": "READY", "reason": "" }));
}

#[tokio::test]
async fn what_is_being_written_is_left_alone() {
    let repository = repository(&["1"]);
    let server = serve(&repository, watched()).await;
    let file = table(&[2.0]);
    // Byte by byte; no state of it is taken for a model that is broken.
    fs::create_dir_all(repository.path().join("m/2")).unwrap();
    let path = repository.path().join("m/2/model.onnx");
    for length in 1..file.len() {
        fs::write(&path, &file[..length]).unwrap();
        tokio::time::sleep(POLL / 10).await;
        assert!(!index(&server).await.to_string().contains("cannot load"));
    }
    fs::write(&path, &file).unwrap();
    until(&server, "/v2/models/m", Ok(2.0)).await;
}

#[tokio::test]
async fn weights_in_files_of_their_own() {
    let repository = tempfile::tempdir().unwrap();
    onnx::save(repository.path(), "m", "1", &onnx::table_beside(1000));
    let weights = repository.path().join("m/1/weights");
    let values = |value: f32| value.to_le_bytes().repeat(1000);
    fs::write(&weights, values(4.0)).unwrap();
    let server = serve(&repository, watched()).await;
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(4.0));
    // Only they change: a new file, as the running model has the old one open.
    fs::write(weights.with_extension("new"), values(5.0)).unwrap();
    fs::rename(weights.with_extension("new"), &weights).unwrap();
    until(&server, "/v2/models/m", Ok(5.0)).await;
}

#[tokio::test]
async fn a_configuration_says_how_a_model_is_run() {
    let repository = repository(&["1"]);
    let config = r#"{"workers": {"min": 2, "max": 3}, "batch": {"rows": 5, "delay_us": 7}}"#;
    fs::write(repository.path().join("m/config.json"), config).unwrap();
    // One entry: a row of ones names none that is there, so it cannot be tried as a batch.
    let server = serve(&repository, watched()).await;
    let model = server.app.models.find("m", None).unwrap();
    assert_eq!((model.workers().unwrap().count(), model.workers().unwrap().batch().size), (2, 1));
    replace(repository.path(), "1", &table(&[8.0, 9.0]));
    until(&server, "/v2/models/m", Ok(8.0)).await;
    let batch = server.app.models.find("m", None).unwrap().workers().unwrap().batch();
    assert_eq!((batch.size, batch.delay), (5, Duration::from_micros(7)));
}

#[tokio::test]
async fn clients_load_and_unload_when_they_may() {
    let repository = repository(&["1", "2"]);
    let options = Options { model_control: true, ..Options::default() };
    let server = serve(&repository, options).await;
    let entry = |version: &str, state: &str, reason: &str| json!({ "name": "m", "version": version, "state": state, "reason": reason });
    let ready = json!([entry("1", "UNAVAILABLE", "not selected"), entry("2", "READY", "")]);
    assert_eq!(index(&server).await, ready);
    assert_eq!(server.post("/v2/repository/index", r#"{"ready": true}"#).await.body, json!([ready[1]]));

    let unload = "/v2/repository/models/m/unload";
    assert_eq!(server.post_empty(unload).await, 200);
    assert!(ask(&server, "/v2/models/m").await.unwrap_err().contains("unknown model"));
    let unloaded = json!([entry("1", "UNAVAILABLE", "unloaded"), entry("2", "UNAVAILABLE", "unloaded")]);
    assert_eq!(index(&server).await, unloaded);
    assert_eq!(server.post_empty(unload).await, 404);
    assert_eq!(server.post_empty("/v2/repository/models/m/load").await, 200);
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(2.0));

    // Loading takes up what has changed, at once, and says what is wrong with it.
    onnx::save(repository.path(), "m", "3", b"not a model");
    let broken = server.post("/v2/repository/models/m/load", "{}").await;
    assert!(broken.error(400).contains("cannot load m:3 from"), "{}", broken.body);
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(2.0));
    replace(repository.path(), "3", &table(&[3.0]));
    assert_eq!(server.post_empty("/v2/repository/models/m/load").await, 200);
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(3.0));

    let unknown = server.post("/v2/repository/models/..%2Fm/load", "").await;
    assert_eq!(unknown.error(404), r#"no model "../m" in the repository; there: "m""#);
    let config = json!({ "parameters": { "config": "{}" } }).to_string();
    let overridden = server.post("/v2/repository/models/m/load", config).await;
    assert!(overridden.error(400).starts_with(r#"the parameter "config" is not served"#));
    let malformed = server.post("/v2/repository/index", "{").await;
    assert!(malformed.error(400).starts_with("malformed request: "));

    let mut client = server.grpc().await;
    let name = || "m".to_owned();
    client
        .repository_model_unload(RepositoryModelUnloadRequest { model_name: name(), ..Default::default() })
        .await
        .unwrap();
    let request = RepositoryIndexRequest { ready: true, ..Default::default() };
    assert!(client.repository_index(request).await.unwrap().into_inner().models.is_empty());
    client
        .repository_model_load(RepositoryModelLoadRequest { model_name: name(), ..Default::default() })
        .await
        .unwrap();
    let models =
        client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    assert_eq!((models[2].version.as_str(), models[2].state.as_str()), ("3", "READY"));
}

#[tokio::test]
async fn clients_may_not_load_and_unload_as_a_matter_of_course() {
    let repository = repository(&["1"]);
    let server = serve(&repository, Options::default()).await;
    let advice = "clients may not load and unload models here; start with --model-control to let them";
    for action in ["load", "unload"] {
        let answer = server.post(&format!("/v2/repository/models/m/{action}"), "").await;
        assert_eq!(answer.error(403), advice);
    }
    let request = RepositoryModelUnloadRequest { model_name: "m".into(), ..Default::default() };
    let status = server.grpc().await.repository_model_unload(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, advice));
    assert_eq!(ask(&server, "/v2/models/m").await, Ok(1.0));
}

/// Resident memory of this process, in bytes.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_request_and_leave_no_memory() {
    let repository = repository(&["1"]);
    // A megabyte of weights, so that a copy that stays would be seen.
    let file = |value: f32| table(&vec![value; 1 << 18]);
    replace(repository.path(), "1", &file(0.0));
    let options = Options { model_control: true, ..Options::default() };
    let server = serve(&repository, options).await;
    let (stop, answered, tasks) = traffic(&server, 4);
    let mut after = Vec::new();
    for reload in 1..=100_u16 {
        replace(repository.path(), "1", &file(reload.into()));
        assert_eq!(server.post_empty("/v2/repository/models/m/load").await, 200);
        until(&server, "/v2/models/m", Ok(reload.into())).await;
        after.push(memory());
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 1000);
    // What the first ones take, the allocator keeps.
    let (early, late) = (after[20..40].iter().max().unwrap(), after[80..].iter().min().unwrap());
    assert!(*late < early + (16 << 20), "{early} bytes after 40 reloads, {late} after 100");
}
