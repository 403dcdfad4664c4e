//! A server in this process, and requests to it.

use halftone_inference::{
    app::{self, App, ClientLimits},
    connections::Connections,
    keeper::{Keeper, Plan},
    model::Settings,
    provider::ProviderChoice,
    queue::BatchLimits,
    runtime,
    workers::WorkerLimits,
};
use halftone_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use halftone_telemetry::{metrics::ModelMetrics, trace::Tracer};
use ort::environment::Environment;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The committed models.
pub(crate) fn committed_models() -> PathBuf {
    root().join("models")
}

/// ONNX Runtime's library. Without it nothing is tested, which must not look like success.
pub(crate) fn library() -> PathBuf {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .filter(|path| !path.is_empty())
        .map_or_else(|| root().join(".halftone/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(library.is_file(), "ONNX Runtime is not at {}: run scripts/setup.sh first", library.display());
    library
}

/// ONNX Runtime allows one environment per process, and `cargo test` runs many tests in one.
fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| runtime::load(&library(), NonZeroUsize::MIN).unwrap())
}

/// How a server of a test differs from others.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) max_workers: NonZeroUsize,
    pub(crate) queue: usize,
    pub(crate) linger: Duration,
    pub(crate) batch: BatchLimits,
    pub(crate) max_body: usize,
    pub(crate) max_bodies: usize,
    pub(crate) silence: Duration,
    pub(crate) poll: Option<Duration>,
    pub(crate) model_control: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            max_workers: NonZeroUsize::MIN,
            queue: 1024,
            linger: Duration::from_secs(30),
            batch: BatchLimits { size: 32, delay: Duration::ZERO },
            max_body: 4 << 20,
            max_bodies: 64 << 20,
            silence: Duration::from_secs(30),
            poll: None,
            model_control: false,
        }
    }
}

/// A server of this test's own.
pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    client: Client,
}

impl Server {
    /// Serves everything that is committed.
    pub(crate) async fn digits() -> Self {
        Self::start(&committed_models(), &["digits:1", "digits:2", "digits:3"], Options::default()).await
    }

    /// Serves models of a repository.
    pub(crate) async fn start(models: &Path, serve: &[&str], options: Options) -> Self {
        Self::start_traced(models, serve, options, Tracer::none()).await
    }

    /// The same, with what makes spans of its requests.
    pub(crate) async fn start_traced(
        models: &Path,
        serve: &[&str],
        options: Options,
        tracer: Tracer,
    ) -> Self {
        let selections: Vec<_> = serve.iter().map(|selection| selection.parse().unwrap()).collect();
        let workers = NonZeroUsize::new(options.workers).unwrap();
        let workers = WorkerLimits {
            min: workers,
            max: workers.max(options.max_workers),
            queue: options.queue,
            linger: options.linger,
        };
        let settings =
            Settings { workers, batch: options.batch, batch_declared: false, provider: ProviderChoice::Cpu };
        let plan = Plan { folder: models.to_owned(), selections, settings };
        let keeper = Keeper::start(environment().clone(), plan).await.unwrap();
        if let Some(poll) = options.poll {
            tokio::spawn(Arc::clone(&keeper).watch(poll));
        }
        let limits = ClientLimits {
            model_control: options.model_control,
            max_body: options.max_body,
            max_bodies: options.max_bodies,
            silence: options.silence,
        };
        let (app, router) = app::serve(keeper, limits, None, ModelMetrics::default(), tracer).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections =
            Connections { most: NonZeroUsize::new(1000).unwrap(), finish: Duration::from_secs(30) };
        tokio::spawn(connections.serve(listener, router, std::future::pending()));
        Self { app, address, client: Client::builder().no_proxy().build().unwrap() }
    }

    /// A gRPC client of it.
    pub(crate) async fn grpc(&self) -> GrpcInferenceServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        GrpcInferenceServiceClient::new(channel.connect().await.unwrap())
    }

    /// How many requests were turned away for a reason.
    pub(crate) fn rejected(&self, model: &str, reason: &str) -> u64 {
        let series =
            format!("halftone_rejected_requests_total{{model_name=\"{model}\",reason=\"{reason}\"}} ");
        let metrics = self.app.metrics.render();
        metrics.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = self.client.post(self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// The status of a request that is answered by no more.
    pub(crate) async fn post_empty(&self, path: &str) -> u16 {
        self.client.post(self.url(path)).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.client.delete(self.url(path)).send().await.unwrap()).await
    }
}

/// A response, its body read as JSON and what follows it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
    pub(crate) binary: Vec<u8>,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let json = headers.get("inference-header-content-length");
        let json = json.map_or(bytes.len(), |length| length.to_str().unwrap().parse().unwrap());
        let (json, binary) = bytes.split_at(json);
        let body = serde_json::from_slice(json).unwrap_or_else(|e| panic!("{e}: {json:?}"));
        Self { status, headers, body, binary: binary.to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error's text, after asserting the status and that there is nothing else in the body.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> &str {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body.as_object().unwrap().len(), 1, "{}", self.body);
        self.body["error"].as_str().unwrap()
    }

    /// The data of an output, after asserting that there is an answer.
    #[track_caller]
    pub(crate) fn output(&self, name: &str) -> &Vec<Value> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        let outputs = self.body["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap()["data"].as_array().unwrap()
    }
}

/// A held-out digit.
#[derive(Clone, Debug)]
pub(crate) struct Digit {
    pub(crate) label: i64,
    pub(crate) pixels: Vec<u8>,
}

/// The committed held-out digits.
pub(crate) fn held_out() -> Vec<Digit> {
    let text = fs::read_to_string(committed_models().join("digits/test.csv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let mut fields = line.split(',');
            let label = fields.next().unwrap().parse().unwrap();
            let pixels: Vec<u8> = fields.map(|field| field.parse().unwrap()).collect();
            assert_eq!(pixels.len(), 64);
            Digit { label, pixels }
        })
        .collect()
}

/// A request for these digits.
pub(crate) fn request(digits: &[Digit]) -> String {
    let pixels: Vec<_> = digits.iter().map(|digit| &digit.pixels).collect();
    json!({ "inputs": [{ "name": "pixels", "shape": [digits.len(), 64], "datatype": "FP32", "data": pixels }] })
        .to_string()
}
