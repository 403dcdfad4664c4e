//! The metrics of model services, the same over HTTP and gRPC.

use crate::{
    context::{Inference, RequestContext, Served},
    endpoint::Endpoint,
    log_writer,
    outcome::{Outcome, status},
};
use http::{Request, Response};
use opentelemetry::trace::TraceId;
use pin_project_lite::pin_project;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family},
    registry::Registry,
};
use std::{
    collections::BTreeSet,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::{Context, Poll, ready},
    time::Instant,
};
use tower_layer::Layer;
use tower_service::Service;

/// The content type of [`ModelMetrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper edges of the buckets of a duration, in seconds: from a tenth of a millisecond to ten seconds.
const BUCKETS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.012, 0.018, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0,
];

/// More endpoints than a service has. Whatever exceeds it is counted as [`OTHER`], so that nobody can fill the memory
/// with names.
const MOST_ENDPOINTS: usize = 256;
/// The label of requests to what is no endpoint.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    model_name: Arc<str>,
    api_endpoint: Arc<str>,
    http_status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InferenceLabels {
    model_name: Arc<str>,
    status: &'static str,
    hardware_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TraceLabels {
    trace_id: String,
}

type Durations =
    Family<InferenceLabels, HistogramWithExemplars<TraceLabels>, fn() -> HistogramWithExemplars<TraceLabels>>;

/// `model_request_total` and `model_inference_duration_seconds`, with whatever else is registered beside them. Clones
/// share it.
#[derive(Clone)]
pub struct ModelMetrics(Arc<Shared>);

struct Shared {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    endpoints: RwLock<BTreeSet<Arc<str>>>,
    none: Arc<str>,
    other: Arc<str>,
}

impl fmt::Debug for ModelMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelMetrics").finish_non_exhaustive()
    }
}

impl Default for ModelMetrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "model_request",
            "Requests by model, endpoint and status; calls of gRPC by the status of HTTP that is like theirs",
            requests.clone(),
        );
        let histogram: fn() -> _ = || HistogramWithExemplars::new(BUCKETS.into_iter());
        let durations = Durations::new_with_constructor(histogram);
        registry.register(
            "model_inference_duration_seconds",
            "Time from the request to the answer of inferences, the wait in the queue included",
            durations.clone(),
        );
        registry.register_collector(Box::new(log_writer::DroppedLines));
        Self(Arc::new(Shared {
            registry: Mutex::new(registry),
            requests,
            durations,
            endpoints: RwLock::default(),
            none: Arc::from(""),
            other: Arc::from(OTHER),
        }))
    }
}

impl ModelMetrics {
    /// The layer that counts and measures.
    #[must_use]
    pub fn layer(&self) -> MetricsLayer {
        MetricsLayer { metrics: self.clone(), served: None }
    }

    /// Adds metrics that are asked for when they are read.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.lock().register_collector(collector);
    }

    /// All metrics in the text form of OpenMetrics, which Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail, and what is registered has no other reason to.
        let _ = text::encode(&mut text, &self.lock());
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, served: Option<&Served>, endpoint: &Endpoint, status: u16) {
        let labels = RequestLabels {
            model_name: served.map_or_else(|| Arc::clone(&self.0.none), |served| Arc::clone(&served.model)),
            api_endpoint: self.endpoint(endpoint, status),
            http_status: status,
        };
        self.0.requests.get_or_create(&labels).inc();
    }

    /// `recorded` is the trace that an exemplar leads to.
    fn observe(&self, served: &Served, inference: Inference, recorded: Option<TraceId>) {
        let labels = InferenceLabels {
            model_name: Arc::clone(&served.model),
            status: inference.outcome.as_str(),
            hardware_type: served.hardware,
        };
        let exemplar = recorded.map(|trace| TraceLabels { trace_id: trace.to_string() });
        let seconds = inference.duration.as_secs_f64();
        self.0.durations.get_or_create(&labels).observe(seconds, exemplar, None);
    }

    /// Its label. What was answered as unknown is none of its own: clients must not be able to make up labels.
    fn endpoint(&self, endpoint: &Endpoint, status: u16) -> Arc<str> {
        let (Endpoint::Route(name) | Endpoint::Call(name)) = endpoint else {
            return Arc::clone(&self.0.other);
        };
        if matches!(endpoint, Endpoint::Call(_)) && matches!(status, 404 | 501) {
            return Arc::clone(&self.0.other);
        }
        let endpoints = self.0.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        let (known, full) = (endpoints.get(name).cloned(), endpoints.len() >= MOST_ENDPOINTS);
        drop(endpoints);
        match known {
            Some(known) => known,
            None if full => Arc::clone(&self.0.other),
            None => {
                let mut endpoints = self.0.endpoints.write().unwrap_or_else(PoisonError::into_inner);
                endpoints.insert(Arc::clone(name));
                Arc::clone(name)
            }
        }
    }
}

/// Counts requests and measures inferences.
#[derive(Clone, Debug)]
pub struct MetricsLayer {
    metrics: ModelMetrics,
    served: Option<Served>,
}

impl MetricsLayer {
    /// Every request is an inference of this model, unless a handler says otherwise. For services of one model, whose
    /// handlers then need not know of this crate.
    #[must_use]
    pub fn model(self, name: &str, version: &str) -> Self {
        let served = Served { model: name.into(), version: version.into(), hardware: "cpu" };
        Self { served: Some(served), ..self }
    }

    /// What the model of [`MetricsLayer::model`] runs on: the label `hardware_type`, `cpu` unless it is said.
    #[must_use]
    pub fn hardware(mut self, hardware: &'static str) -> Self {
        if let Some(served) = &mut self.served {
            served.hardware = hardware;
        }
        self
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = MetricsService<S>;

    fn layer(&self, inner: S) -> MetricsService<S> {
        MetricsService { inner, layer: self.clone() }
    }
}

/// What [`MetricsLayer`] makes.
#[derive(Clone, Debug)]
pub struct MetricsService<S> {
    inner: S,
    layer: MetricsLayer,
}

impl<S, B, R> Service<Request<B>> for MetricsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Measured<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Measured<S::Future> {
        let context = RequestContext::of(&mut request);
        let measure = Measure {
            endpoint: Endpoint::of(&request),
            metrics: self.layer.metrics.clone(),
            default: self.layer.served.clone(),
            context,
            begun: Instant::now(),
            done: false,
        };
        Measured { answer: self.inner.call(request), measure }
    }
}

pin_project! {
    /// A request that is measured.
    #[derive(Debug)]
    pub struct Measured<F> {
        // Dropped first: an inference that is dropped in it tells the measure that it was cancelled.
        #[pin]
        answer: F,
        measure: Measure,
    }
}

impl<F: Future<Output = Result<Response<R>, E>>, R, E> Future for Measured<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        // A service that fails without a response ends the connection.
        this.measure.end(answer.as_ref().map_or(500, status));
        Poll::Ready(answer)
    }
}

#[derive(Debug)]
struct Measure {
    endpoint: Endpoint,
    metrics: ModelMetrics,
    default: Option<Served>,
    context: Arc<RequestContext>,
    begun: Instant,
    done: bool,
}

impl Measure {
    fn end(&mut self, status: u16) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let told = self.context.served();
        let served = told.or(self.default.as_ref());
        self.metrics.record(served, &self.endpoint, status);
        let by_itself = || {
            let whole = Inference { outcome: Outcome::of(status), duration: self.begun.elapsed() };
            (told.is_none() && self.default.is_some()).then_some(whole)
        };
        if let Some(inference) = self.context.inference().or_else(by_itself)
            && let Some(served) = served
        {
            self.metrics.observe(served, inference, self.context.recorded_trace());
        }
    }
}

impl Drop for Measure {
    /// The client has left.
    fn drop(&mut self) {
        self.end(499);
    }
}
