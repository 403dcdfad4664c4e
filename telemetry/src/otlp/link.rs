//! The way to the collector.

use super::args::Protocol;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE, uri::PathAndQuery};
use prost::Message;
use std::{error::Error, time::Duration};
use tonic::{
    Code,
    client::Grpc,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// For how long a message may be on its way.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is said where the collector's other port may have been meant.
const OTHER_PORT: &str = " (collectors have one port for gRPC, mostly 4317, and another one for HTTP, mostly 4318: see --otlp-protocol)";
/// Bytes that are read of an answer over HTTP.
const LONGEST_ANSWER: usize = 64 << 10;

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

/// Where the messages of a signal go.
#[derive(Debug)]
pub(super) struct Signal {
    /// Of gRPC.
    pub(super) method: &'static str,
    /// Of HTTP.
    pub(super) path: &'static str,
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
                Way::Grpc(endpoint.connect_timeout(TIMEOUT).connect_lazy())
            }
            Protocol::Http => {
                // A collector beside us is not reached through the proxy of the environment.
                let client = reqwest::Client::builder().no_proxy().build();
                Way::Http(client.map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { endpoint, headers: headers.into_iter().collect(), way })
    }

    /// Where it leads.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a message, and has what the collector answers.
    pub(super) async fn send<A: Message + Default + 'static>(
        &self,
        signal: &Signal,
        message: impl Message + 'static,
    ) -> Result<A, String> {
        let sent = async {
            match &self.way {
                Way::Grpc(channel) => self.call(channel.clone(), signal.method, message).await,
                Way::Http(client) => self.post(client, signal.path, message.encode_to_vec()).await,
            }
        };
        let sent = tokio::time::timeout(TIMEOUT, sent).await;
        sent.unwrap_or_else(|_| Err(format!("no answer in {} s", TIMEOUT.as_secs())))
    }

    async fn call<A: Message + Default + 'static>(
        &self,
        channel: Channel,
        method: &'static str,
        message: impl Message + 'static,
    ) -> Result<A, String> {
        let metadata = MetadataMap::from_headers(self.headers.clone());
        let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), message);
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| chain(&error))?;
        let sent = client.unary(request, PathAndQuery::from_static(method), ProstCodec::default()).await;
        // Not its words: a collector may repeat the headers, and one of them may be a secret.
        let said = |status: tonic::Status| match status.source() {
            Some(cause) => chain(cause),
            None if status.code() == Code::Unimplemented => format!("status Unimplemented{OTHER_PORT}"),
            None => format!("status {:?}", status.code()),
        };
        Ok(sent.map_err(said)?.into_inner())
    }

    async fn post<A: Message + Default>(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: Vec<u8>,
    ) -> Result<A, String> {
        let post = client.post(format!("{}{path}", self.endpoint)).headers(self.headers.clone());
        let post = post.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let said = |error: reqwest::Error| {
            // Something is there that does not speak HTTP as it has to.
            let hint = if error.is_connect() { "" } else { OTHER_PORT };
            chain(&error) + hint
        };
        let mut answer = post.send().await.map_err(said)?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let mut read = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error))? {
            read.extend_from_slice(&chunk);
            if read.len() > LONGEST_ANSWER {
                return Ok(A::default());
            }
        }
        // It was taken: that is what its status says. What else it says need not be of the protocol.
        Ok(A::decode(&*read).unwrap_or_default())
    }
}

/// An error with its causes: the outermost alone often says no more than that something failed.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
