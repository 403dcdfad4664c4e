//! The decision on its way to the backend, `x-halftone-context`, and to the access log.
//!
//! The message is `halftone.v1.EvaluationContext` (`proto/halftone/v1/evaluation_context.proto`). It is
//! written by hand because the filter writes it once per request and nothing else; it is read with the
//! generated code, and a test holds the two together.

use crate::{decide::Decision, decimal::push_decimal};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The header's value: the unpadded base64url of the message. `timestamp_ms` counts from the Unix epoch.
#[must_use]
pub fn header_value(decision: &Decision<'_>, timestamp_ms: u64) -> Vec<u8> {
    let mut message = Message(Vec::with_capacity(128));
    message.uint64(1, timestamp_ms);
    message.string(2, decision.ruleset);
    message.uint64(3, decision.revision);
    message.string(4, decision.rule.unwrap_or_default());
    message.string(5, decision.target);
    message.fixed64(6, decision.unit_hash.unwrap_or_default());
    if let Some(bucket) = decision.bucket {
        message.tag(7, VARINT);
        message.varint(u64::from(bucket));
    }
    message.uint64(8, decision.reason as u64);
    message.string(9, decision.arm.unwrap_or_default());
    for part in decision.experiments() {
        let mut participation = Message(Vec::with_capacity(32));
        participation.string(1, part.experiment);
        participation.string(2, part.arm);
        message.bytes(10, &participation.0);
    }
    message.uint64(11, u64::from(decision.overridden));
    message.uint64(12, u64::from(decision.held_out));
    // 13 and 14, tenant and feature version, are not known here.
    message.uint64(15, decision.epoch);
    let mut header = vec![0; message.0.len().saturating_mul(4).div_ceil(3)];
    // It fits.
    let length = URL_SAFE_NO_PAD.encode_slice(&message.0, &mut header).unwrap_or_default();
    header.truncate(length);
    header
}

/// The property of the stream that holds the decision for the access log. Envoy's filter state has it under
/// `wasm.halftone`.
pub const PROPERTY: &str = "halftone";

/// The decision for the access log, as `key=value` pairs between blanks; what there is not is left out. Names contain
/// neither blanks nor controls.
#[must_use]
pub fn access_log_value(decision: &Decision<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(192);
    let mut add = |parts: &[&str]| parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
    add(&["ruleset=", decision.ruleset]);
    if let Some(rule) = decision.rule {
        add(&[" rule=", rule]);
    }
    if let Some(arm) = decision.arm {
        add(&[" arm=", arm]);
    }
    add(&[" target=", decision.target, " reason=", decision.reason.name()]);
    for part in decision.experiments() {
        add(&[" experiment=", part.experiment, "/", part.arm]);
    }
    for (part, holds) in [(" overridden=true", decision.overridden), (" held_out=true", decision.held_out)] {
        if holds {
            add(&[part]);
        }
    }
    text.extend_from_slice(b" revision=");
    push_decimal(&mut text, decision.revision);
    if decision.epoch > 0 {
        text.extend_from_slice(b" epoch=");
        push_decimal(&mut text, decision.epoch);
    }
    if let Some(bucket) = decision.bucket {
        text.extend_from_slice(b" bucket=");
        push_decimal(&mut text, bucket.into());
    }
    text
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

/// A protobuf message in the making. As in proto3, a field with its default value is left out.
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn uint64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            self.varint(value);
        }
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn string(&mut self, field: u64, value: &str) {
        if !value.is_empty() {
            self.bytes(field, value.as_bytes());
        }
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}
