//! What the protocols share, and both of them on one port.

use crate::{
    budget::{self, Budget, Meter},
    failure::Failure,
    gauges::Gauges,
    grpc,
    keeper::Keeper,
    model::Model,
    models::Models,
    observations::{
        handover::Outbox,
        record::{Protocol, Record},
        watch::Watch,
    },
    rejections::Rejections,
    rest,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, header},
    middleware,
    response::{IntoResponse, Response},
};
use halftone_proto::v1::traced_request::Answer;
use halftone_telemetry::{
    build_info,
    context::{ContextLayer, RequestContext},
    metrics::ModelMetrics,
    request_log::RequestLogLayer,
    trace::Tracer,
    trace_layer::{Begins, TraceLayer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tonic::Status;
use tonic_health::server::HealthReporter;

/// The extensions of the protocol that are served, as the server's metadata name them.
pub const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// What clients may do.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Whether they may load and unload models.
    pub model_control: bool,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// All bodies that are there at once, in bytes.
    pub max_bodies: usize,
    /// How long they may send nothing in the middle of a body.
    pub silence: Duration,
}

/// What the endpoints share.
#[derive(Debug)]
pub struct App {
    /// The models that are served.
    pub models: Arc<Models>,
    /// Keeps them in step with the repository.
    pub keeper: Arc<Keeper>,
    /// Counts and measures.
    pub metrics: ModelMetrics,
    /// What clients may do.
    pub limits: ClientLimits,
    /// For the bodies of all requests.
    pub budget: Arc<Budget>,
    rejections: Rejections,
    observations: Option<Outbox>,
    health: HealthReporter,
    draining: AtomicBool,
}

impl App {
    /// From now on says that it is not ready; still answers.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for service in grpc::SERVICES {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
    }

    /// Watches an inference, from now on.
    #[must_use]
    pub fn watch(&self, context: Arc<RequestContext>, protocol: Protocol, model: Arc<Model>) -> Watch {
        Watch::begin(context, protocol, model, self.observations.clone(), self.rejections.clone())
    }

    /// Reports an inference that no model was found for, when its trace is sampled.
    pub fn miss(&self, context: Arc<RequestContext>, answer: Answer) {
        let outbox = self.observations.as_ref().filter(|_| context.sampled_parent().is_some());
        if let Some(outbox) = outbox {
            outbox.put(Record::of_no_model(context, answer));
        }
    }

    /// Refuses, unless clients may load and unload models. They may not as a matter of course: whoever can send a
    /// request could else end a model for all others.
    ///
    /// # Errors
    /// When they may not.
    pub fn may_control(&self) -> Result<(), Failure> {
        if self.limits.model_control {
            return Ok(());
        }
        let advice = "clients may not load and unload models here; start with --model-control to let them";
        Err(Failure::Forbidden(advice.into()))
    }

    /// Whether it takes requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

/// Both protocols, serving the models that are kept. What is observed is handed over to the outbox, where there is one; what is
/// counted is in `metrics`, and spans are made by the tracer.
///
/// # Errors
/// When the descriptors for gRPC's reflection are damaged.
pub async fn serve(
    keeper: Arc<Keeper>,
    limits: ClientLimits,
    observations: Option<Outbox>,
    metrics: ModelMetrics,
    tracer: Tracer,
) -> anyhow::Result<(Arc<App>, Router)> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in grpc::SERVICES {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let app = Arc::new(App {
        models: Arc::clone(keeper.models()),
        keeper,
        metrics,
        limits,
        budget: Budget::new(limits.max_bodies),
        rejections: Rejections::default(),
        observations,
        health,
        draining: AtomicBool::new(false),
    });
    app.metrics.register(build_info::collector(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")));
    app.metrics
        .register(Box::new(Gauges { models: Arc::clone(&app.models), budget: Arc::clone(&app.budget) }));
    app.metrics.register(app.rejections.metrics(Arc::clone(&app.models)));
    let (budget, rejections) = (Arc::clone(&app.budget), app.rejections.clone());
    let metered = Meter { budget, silence: limits.silence, rejections };
    let metered = middleware::from_fn_with_state(metered, budget::meter);
    let router = grpc::router(&app, health_service)?
        .layer(metered)
        .merge(rest::router(Arc::clone(&app)))
        .fallback(unknown)
        .layer(app.metrics.layer())
        .layer(RequestLogLayer)
        .layer(TraceLayer::new(tracer, Begins::Inferences))
        .layer(ContextLayer);
    Ok((app, router))
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        return Status::unimplemented(format!("no such call: {path}")).into_http::<axum::body::Body>();
    }
    Failure::NotFound(format!("no such path: {path}")).into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
