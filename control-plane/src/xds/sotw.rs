//! The state-of-the-world variant of the protocol. Delta will be a second such mapping onto the same stream: its
//! per-name subscriptions become names, and a push of clusters leaves out those that the proxy already has.

use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::resource::Kind;
use super::stream::{Push, Request};

/// The name by which proxies know us; it shows in their `control_plane.identifier` statistic.
const IDENTIFIER: &str = "halftone";

/// A proxy's request, or its type URL if that is none of ours.
pub(super) fn request(request: DiscoveryRequest) -> Result<Request, String> {
    let Some(kind) = Kind::from_type_url(&request.type_url) else {
        return Err(request.type_url);
    };
    Ok(Request {
        kind,
        names: request.resource_names,
        version: request.version_info,
        nonce: request.response_nonce,
        // Its presence is what makes a NACK, whatever the version says.
        error: request.error_detail.map(|status| status.message),
    })
}

/// The response for a push.
pub(super) fn response(push: Push) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: push.version,
        resources: push.resources.iter().map(|resource| resource.any.clone()).collect(),
        type_url: push.kind.type_url().to_owned(),
        nonce: push.nonce,
        control_plane: Some(ControlPlane { identifier: IDENTIFIER.to_owned() }),
        ..DiscoveryResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::rpc::Status;

    use super::*;

    #[test]
    fn xds_a_nack_is_the_presence_of_an_error_even_an_empty_one() {
        let message = DiscoveryRequest {
            type_url: Kind::Route.type_url().to_owned(),
            error_detail: Some(Status::default()),
            ..DiscoveryRequest::default()
        };
        assert_eq!(request(message).unwrap().error.as_deref(), Some(""));
    }

    #[test]
    fn xds_other_types_are_named_and_refused() {
        let message = DiscoveryRequest { type_url: "type/x".to_owned(), ..DiscoveryRequest::default() };
        assert_eq!(request(message).unwrap_err(), "type/x");
    }
}
