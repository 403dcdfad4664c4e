//! One set-up of logging and metrics for both binaries, and the layers that any service can wear.
//!
//! The layers are [tower](https://docs.rs/tower) layers over HTTP requests, so they go around an axum router and
//! a tonic server alike. Each does one thing:
//!
//! - [`ContextLayer`](context::ContextLayer) reads, once, what the filter decided about a request and which
//!   trace it belongs to, and puts both where handlers and the other layers find them;
//! - [`TraceLayer`](trace_layer::TraceLayer) records the request as a span, when its trace is sampled;
//! - [`RequestLogLayer`](request_log::RequestLogLayer) logs one line per request, with what was decided;
//! - [`MetricsLayer`](metrics::MetricsLayer) counts requests and measures inferences for Prometheus;
//! - [`BreakerLayer`](breaker::BreakerLayer) leaves a service alone for a while that fails too often. It goes around
//!   a client, too.
//!
//! In an axum service:
//!
//! ```
//! use axum::{Router, routing::post};
//! use halftone_telemetry::{breaker::*, context::ContextLayer, metrics::ModelMetrics, request_log::RequestLogLayer};
//!
//! let metrics = ModelMetrics::default();
//! let router: Router = Router::new()
//!     .route("/predict", post(async || "0.93"))
//!     .layer(BreakerLayer::new(Breaker::new("prices", Policy::default())))
//!     .layer(metrics.layer().model("prices", "7"))
//!     .layer(RequestLogLayer)
//!     .layer(ContextLayer);
//! ```
//!
//! In a tonic server:
//!
//! ```
//! use halftone_telemetry::{breaker::*, context::ContextLayer, metrics::ModelMetrics, request_log::RequestLogLayer};
//! # async fn example() {
//! # let (_, your_service) = tonic_health::server::health_reporter();
//! let metrics = ModelMetrics::default();
//! let server = tonic::transport::Server::builder()
//!     .layer(ContextLayer)
//!     .layer(RequestLogLayer)
//!     .layer(metrics.layer().model("prices", "7"))
//!     .layer(BreakerLayer::new(Breaker::new("prices", Policy::default())))
//!     .add_service(your_service);
//! # }
//! ```
//!
//! [`admin::router`] serves what is counted, a CPU profile and the state of the heap, on a port of its own. A handler that serves several models leaves `.model(…)` out and says itself
//! which one a request was about, by [`RequestContext::serve`](context::RequestContext::serve).

mod access_log;
pub mod admin;
pub mod breaker;
pub mod build_info;
pub mod context;
pub mod current;
mod endpoint;
pub mod heap;
pub mod log;
mod log_output;
mod log_writer;
pub mod metrics;
pub mod otlp;
pub mod outcome;
pub mod profile;
pub mod request_log;
pub mod sampling;
mod span_message;
pub mod throttle;
pub mod trace;
pub mod trace_layer;
