//! The state-of-the-world form of the protocol.

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::encoded::Encoded;
use super::form::{Form, IDENTIFIER, WireForm};
use super::resource::Kind;
use super::stream::{Push, Request, Subscription};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct StateOfTheWorld;

impl WireForm for StateOfTheWorld {
    type Request = DiscoveryRequest;

    const FORM: Form = Form::StateOfTheWorld;
    const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn is_new(first: &DiscoveryRequest) -> bool {
        // A proxy that lost its connection names the version that it has.
        first.version_info.is_empty()
    }

    fn request(request: DiscoveryRequest) -> Result<Request, String> {
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Err(request.type_url);
        };
        Ok(Request {
            kind,
            subscription: Subscription::Whole {
                names: request.resource_names,
                version: request.version_info,
            },
            nonce: request.response_nonce,
            // Its presence is what makes a NACK, whatever the version says.
            error: request.error_detail.map(|status| status.message),
        })
    }

    fn response(push: &Push) -> Encoded {
        let mut encoded = Encoded::new(&DiscoveryResponse {
            version_info: push.version.clone(),
            type_url: push.kind.type_url().to_owned(),
            nonce: push.nonce.clone(),
            control_plane: Some(ControlPlane { identifier: IDENTIFIER.to_owned() }),
            ..DiscoveryResponse::default()
        });
        for resource in &push.resources {
            encoded.add_resource(&[], resource.any.clone());
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::rpc::Status;

    use super::super::testing::resources;
    use super::*;

    #[test]
    fn xds_a_nack_is_the_presence_of_an_error_even_an_empty_one() {
        let message = DiscoveryRequest {
            type_url: Kind::Route.type_url().to_owned(),
            error_detail: Some(Status::default()),
            ..DiscoveryRequest::default()
        };
        assert_eq!(StateOfTheWorld::request(message).unwrap().error.as_deref(), Some(""));
    }

    #[test]
    fn xds_a_proxy_that_has_nothing_is_new() {
        let returning = DiscoveryRequest { version_info: "v".to_owned(), ..DiscoveryRequest::default() };
        assert!(StateOfTheWorld::is_new(&DiscoveryRequest::default()));
        assert!(!StateOfTheWorld::is_new(&returning));
    }

    #[test]
    fn xds_other_types_are_named_and_refused() {
        let message = DiscoveryRequest { type_url: "type/x".to_owned(), ..DiscoveryRequest::default() };
        assert_eq!(StateOfTheWorld::request(message).unwrap_err(), "type/x");
    }

    #[test]
    fn xds_responses_share_the_bytes_of_their_resources() {
        let resources = resources(1, &[("a", 1), ("b", 2)]);
        let clusters = resources.upstreams.values().map(|upstream| upstream.cluster.clone()).collect();
        let push = Push {
            kind: Kind::Cluster,
            version: "v".to_owned(),
            nonce: "7".to_owned(),
            resources: clusters,
            removed: Vec::new(),
        };
        let encoded = StateOfTheWorld::response(&push);
        assert!(push.resources.iter().all(|resource| encoded.shares(&resource.any)));
        let response: DiscoveryResponse = encoded.decode();
        assert_eq!((response.version_info.as_str(), response.nonce.as_str()), ("v", "7"));
        assert_eq!(response.type_url, Kind::Cluster.type_url());
        assert!(response.resources.iter().all(|any| any.type_url == Kind::Cluster.type_url()));
        assert_eq!(response.resources.len(), 2);
    }
}
