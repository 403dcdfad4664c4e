//! Values and places as people write them.

use crate::expression::{show_duration, show_timestamp};
use halftone_rules::{
    Source, Value,
    bundle::{Constant, List},
};

/// A value as the language writes it.
pub(crate) fn value(value: &Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => format!("{value:?}"),
        Value::String(value) => format!("{value:?}"),
        Value::Bytes(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        Value::Timestamp(time) => format!("timestamp(\"{}\")", show_timestamp(*time)),
        Value::Duration(span) => format!("duration(\"{}\")", show_duration(*span)),
        Value::Semver(version) => format!("semver({version:?})"),
        Value::List(list) => {
            let elements: Vec<String> =
                halftone_rules::elements(list).map(|element| format!("{element:?}")).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Error(error) => error.to_string(),
    }
}

/// A constant.
pub(crate) fn constant(constant: &Constant) -> String {
    value(&constant.value())
}

/// A list constant.
pub(crate) fn list(list: &List) -> String {
    let elements: Vec<String> =
        (0..list.len()).filter_map(|at| list.get(at)).map(|element| value(&element)).collect();
    format!("[{}]", elements.join(", "))
}

/// A place in the request, in words.
#[must_use]
pub fn source(source: &Source) -> String {
    match source {
        Source::Header(name) => format!("header {name}"),
        Source::Cookie(name) => format!("cookie {name}"),
        Source::Query(name) => format!("query parameter {name}"),
        Source::Path => "path".into(),
        Source::Method => "method".into(),
        Source::Host => "host".into(),
        Source::ClientAddress => "client address".into(),
        Source::Property(path) => format!("property {}", path.join(".")),
    }
}

/// Buckets from one to before another, as shares.
pub(crate) fn buckets(start: u32, end: u32) -> String {
    format!("buckets {start} to {}", i64::from(end) - 1)
}
