//! The two forms of the protocol: they carry the same between a proxy and its state machine.

use clap::ValueEnum;
use envoy_types::pb::envoy::config::core::v3::Node;
use prost::Message;
use serde::Serialize;

use super::encoded::Encoded;
use super::stream::{Push, Request};

/// The name by which proxies know us; it shows in their `control_plane.identifier` statistic.
pub(super) const IDENTIFIER: &str = "halftone";

/// How a proxy and the control plane tell each other what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Form {
    /// State of the world: a request names all that the proxy wants, a response holds all clusters there are.
    #[serde(rename = "sotw")]
    #[value(name = "sotw")]
    StateOfTheWorld,
    /// Requests and responses tell only differences, and each resource has a version of its own.
    #[serde(rename = "delta")]
    Delta,
}

/// What differs between the forms.
pub(super) trait WireForm: Send + Sync + 'static {
    /// What a proxy sends.
    type Request: Message + Default + 'static;

    /// Which form this is.
    const FORM: Form;
    /// The gRPC method.
    const PATH: &str;

    /// Who sends it; only the first request of a stream has to say so.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// Whether the first request of a stream is from a proxy that has nothing yet: its process is a new one. Where the
    /// form does not tell, it is not.
    fn is_new(first: &Self::Request) -> bool;

    /// A proxy's request in the state machine's words, or its type URL if that is none of ours.
    fn request(request: Self::Request) -> Result<Request, String>;

    /// The response for a push.
    fn response(push: &Push) -> Encoded;
}
