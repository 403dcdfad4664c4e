//! The body of an inference request over REST: an answer, whatever it is, and tensors that are what was said.
#![no_main]

use halftone_fuzz::inference::{checked, signature};
use halftone_inference::rest::request::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Two bytes say how long the JSON is; where there are none before it, all of it is JSON.
    let (json, body) = match bytes {
        [b'{', ..] | [] | [_] => (None, bytes),
        [low, high, body @ ..] => (Some(usize::from(u16::from_le_bytes([*low, *high]))), body),
    };
    if let Ok((request, envelope)) = parse(body, json) {
        // Whether asked for or not, an output has one form.
        assert_eq!(envelope.binary.len(), request.outputs.len());
        checked(&request, &signature());
        serde_json::to_string(&envelope.into_owned().parameters).expect("parameters go back as they came");
    }
});
