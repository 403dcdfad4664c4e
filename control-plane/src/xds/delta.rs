//! The delta form of the protocol.

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use prost::Message;

use super::encoded::{Encoded, begin};
use super::form::{Form, IDENTIFIER, WireForm};
use super::resource::Kind;
use super::stream::{Push, Request, Subscription};

/// The field of a delta resource that holds the resource itself.
const RESOURCE: u32 = 2;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Delta;

impl WireForm for Delta {
    type Request = DeltaDiscoveryRequest;

    const FORM: Form = Form::Delta;
    const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn is_new(_: &DeltaDiscoveryRequest) -> bool {
        // A proxy that has no resources may be an old one: there need not be any clusters.
        false
    }

    fn request(request: DeltaDiscoveryRequest) -> Result<Request, String> {
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Err(request.type_url);
        };
        Ok(Request {
            kind,
            subscription: Subscription::Change {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                versions: request.initial_resource_versions,
            },
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        })
    }

    fn response(push: &Push) -> Encoded {
        let mut encoded = Encoded::new(&DeltaDiscoveryResponse {
            system_version_info: push.version.clone(),
            type_url: push.kind.type_url().to_owned(),
            nonce: push.nonce.clone(),
            removed_resources: push.removed.clone(),
            control_plane: Some(ControlPlane { identifier: IDENTIFIER.to_owned() }),
            ..DeltaDiscoveryResponse::default()
        });
        for resource in &push.resources {
            let own =
                Resource { name: resource.name.clone(), version: resource.version(), ..Resource::default() };
            let mut own = own.encode_to_vec();
            begin(RESOURCE, resource.any.len(), &mut own);
            encoded.add_resource(&own, resource.any.clone());
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::resources;
    use super::*;

    #[test]
    fn xds_delta_responses_share_the_bytes_of_their_resources() {
        let resources = resources(1, &[("a", 1)]);
        let push = Push {
            kind: Kind::Filter,
            version: "v".to_owned(),
            nonce: "7".to_owned(),
            resources: vec![resources.filter.clone()],
            removed: vec!["other".to_owned()],
        };
        let encoded = Delta::response(&push);
        assert!(encoded.shares(&resources.filter.any));
        let response: DeltaDiscoveryResponse = encoded.decode();
        assert_eq!((response.system_version_info.as_str(), response.nonce.as_str()), ("v", "7"));
        assert_eq!(response.removed_resources, ["other"]);
        let [resource] = &response.resources[..] else { panic!("one resource") };
        assert_eq!(
            (&resource.name, &resource.version),
            (&resources.filter.name, &resources.filter.version())
        );
        assert_eq!(resource.resource.as_ref().unwrap().encode_to_vec(), resources.filter.any);
    }
}
