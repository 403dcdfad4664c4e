//! An inference request over gRPC: an answer, whatever it is, and tensors that are what was said.
#![no_main]

use halftone_fuzz::inference::{checked, signature};
use halftone_inference::grpc::request::{Envelope, parse};
use halftone_proto::inference::ModelInferRequest;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = ModelInferRequest::decode(bytes) else { return };
    if let Ok(request) = parse(&message) {
        checked(&request, &signature());
    }
    let id = message.id.clone();
    assert_eq!(Envelope::of(message).id, id);
});
