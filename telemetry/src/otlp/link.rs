//! The way to the collector.

use super::args::Protocol;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use prost::Message;
use std::{error::Error, time::Duration};
use tonic::{
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

/// For how long a message may be on its way.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the collector. It is not there until something is sent on it, and made again when it breaks.
#[derive(Clone, Debug)]
pub(super) struct Link {
    endpoint: String,
    headers: HeaderMap,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Grpc(Channel),
    Http(reqwest::Client),
}

impl Link {
    /// To be called within tokio's runtime.
    pub(super) fn new(
        endpoint: String,
        protocol: Protocol,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Self, String> {
        let way = match protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(endpoint.clone()).map_err(|error| error.to_string())?;
                Way::Grpc(endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy())
            }
            Protocol::Http => {
                // A collector beside us is not reached through the proxy of the environment.
                let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
                Way::Http(client.map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { endpoint, headers: headers.into_iter().collect(), way })
    }

    /// What sends spans. It reads the headers from the environment by itself.
    pub(super) fn spans(&self, resource: &Resource) -> Result<SpanExporter, String> {
        let builder = SpanExporter::builder();
        let exporter = match &self.way {
            Way::Grpc(channel) => {
                builder.with_tonic().with_channel(channel.clone()).with_timeout(TIMEOUT).build()
            }
            Way::Http(client) => builder
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_http_client(client.clone())
                .with_endpoint(format!("{}/v1/traces", self.endpoint))
                .with_timeout(TIMEOUT)
                .build(),
        };
        let mut exporter = exporter.map_err(|error| format!("cannot send spans: {error}"))?;
        exporter.set_resource(resource);
        Ok(exporter)
    }

    /// Sends metrics.
    pub(super) async fn metrics(&self, request: ExportMetricsServiceRequest) -> Result<(), String> {
        match &self.way {
            Way::Grpc(channel) => {
                let metadata = MetadataMap::from_headers(self.headers.clone());
                let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), request);
                let sent = MetricsServiceClient::new(channel.clone()).export(request).await;
                // Not its words: a collector may repeat the headers, and one of them may be a secret.
                let said = |status: tonic::Status| match status.source() {
                    Some(cause) => chain(cause),
                    None => format!("status {:?}", status.code()),
                };
                let answer = sent.map_err(said)?.into_inner();
                match answer.partial_success.map_or(0, |partial| partial.rejected_data_points) {
                    0 => Ok(()),
                    rejected => Err(format!("{rejected} numbers were rejected")),
                }
            }
            Way::Http(client) => {
                let url = format!("{}/v1/metrics", self.endpoint);
                let post = client.post(url).headers(self.headers.clone());
                let post = post.header(CONTENT_TYPE, "application/x-protobuf").body(request.encode_to_vec());
                let answer = post.send().await.map_err(|error| chain(&error))?;
                match answer.status() {
                    status if status.is_success() => Ok(()),
                    status => Err(status.to_string()),
                }
            }
        }
    }
}

/// An error with its causes: the outermost alone often says no more than that something failed.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
