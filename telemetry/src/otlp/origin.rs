//! Who sends, as all messages say it.

use opentelemetry::{KeyValue, Value};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue as Attribute, any_value},
    resource::v1,
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{IdGenerator, RandomIdGenerator},
};

/// The program that sends.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) resource: v1::Resource,
    pub(super) scope: InstrumentationScope,
}

impl Origin {
    /// What the program says of itself, and what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, which count more.
    pub(super) fn new(service: &'static str, attributes: Vec<KeyValue>) -> Self {
        let own = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance()),
        ];
        let said = Resource::builder_empty()
            .with_detectors(&[
                Box::new(TelemetryResourceDetector) as Box<_>,
                Box::new(EnvResourceDetector::new()) as Box<_>,
            ])
            .build();
        let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let resource = Resource::builder_empty()
            .with_attributes(own.into_iter().chain(attributes))
            .with_attributes(said.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
            .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
            .build();
        let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), value_of(value)));
        Self {
            resource: v1::Resource { attributes: attributes.collect(), ..v1::Resource::default() },
            scope: InstrumentationScope {
                name: "halftone".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            },
        }
    }
}

/// One start of a process, as no other has it.
fn instance() -> String {
    RandomIdGenerator::default().new_trace_id().to_string()
}

fn value_of(value: &Value) -> any_value::Value {
    match value {
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::I64(value) => any_value::Value::IntValue(*value),
        Value::F64(value) => any_value::Value::DoubleValue(*value),
        other => any_value::Value::StringValue(other.to_string()),
    }
}

/// Something that is said, in the protocol's words.
pub(super) fn attribute(key: &str, value: any_value::Value) -> Attribute {
    Attribute { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Attribute::default() }
}
