//! Small conversions into Envoy's protobuf.

use std::time::Duration;

use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};

/// A duration. One that protobuf cannot hold becomes the longest that it can.
pub(super) fn duration(duration: Duration) -> ProtoDuration {
    // The range of google.protobuf.Duration is ±315 576 000 000 s; Envoy refuses more.
    const LONGEST: u64 = 315_576_000_000;
    let seconds = duration.as_secs().min(LONGEST);
    ProtoDuration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// An optional number that is there.
pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}
