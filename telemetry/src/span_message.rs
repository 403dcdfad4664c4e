//! A span as the OpenTelemetry Protocol sends it (`opentelemetry.proto.trace.v1.Span`), written field by field while it becomes
//! known: thousands of requests a second have eight each, and objects that are turned into the same bytes later cost them several
//! times as much.

use opentelemetry::trace::{SpanContext, SpanId, SpanKind};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// What something is said to be.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Arc<str>> for Value<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// The fields of a message of the protocol. Their order means nothing.
#[derive(Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// An empty one that will have about so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.length(tag, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, tag: u32, number: u64) {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(number, &mut self.0);
    }

    fn fixed32(&mut self, tag: u32, number: u32) {
        encode_key(tag, WireType::ThirtyTwoBit, &mut self.0);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn time(&mut self, tag: u32, time: SystemTime) {
        encode_key(tag, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&nanos(time).to_le_bytes());
    }

    /// The head of a field of so many bytes.
    fn length(&mut self, tag: u32, length: usize) {
        length_delimited(tag, length, &mut self.0);
    }

    /// A `KeyValue`, which has an `AnyValue`.
    fn attribute(&mut self, tag: u32, key: &str, value: Value<'_>) {
        let length_of_value = match value {
            Value::Text(text) => length_of_field(text.len()),
            Value::Number(number) => 1 + encoded_len_varint(number.cast_unsigned()),
        };
        self.length(tag, length_of_field(key.len()) + length_of_field(length_of_value));
        self.bytes(1, key.as_bytes());
        self.length(2, length_of_value);
        match value {
            Value::Text(text) => self.bytes(1, text.as_bytes()),
            Value::Number(number) => self.number(3, number.cast_unsigned()),
        }
    }
}

/// The head of a field of so many bytes.
pub(crate) fn length_delimited(tag: u32, length: usize, bytes: &mut Vec<u8>) {
    match u8::try_from(length) {
        // Nearly all are so short, and their tags are below 16.
        Ok(short @ 0..128) if tag < 16 => {
            #[allow(clippy::cast_possible_truncation, reason = "it is below 16")]
            let key = (tag as u8) << 3 | WireType::LengthDelimited as u8;
            bytes.extend_from_slice(&[key, short]);
        }
        _ => {
            encode_key(tag, WireType::LengthDelimited, bytes);
            encode_varint(length as u64, bytes);
        }
    }
}

/// Bytes of a field of so many, with a tag below 16.
fn length_of_field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Nanoseconds since 1970; 0 before.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The flags of a span or a link: those of the trace, and that it is known whether the other span is of another process.
fn flags(context: &SpanContext, remote: bool) -> u32 {
    const KNOWN: u32 = 0x100;
    const REMOTE: u32 = 0x200;
    u32::from(context.trace_flags().to_u8()) | KNOWN | if remote { REMOTE } else { 0 }
}

/// What is known of a span when it ends, and of none before.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) context: &'a SpanContext,
    /// [`SpanId::INVALID`] for none.
    pub(crate) parent: SpanId,
    pub(crate) parent_is_remote: bool,
    pub(crate) name: &'a str,
    pub(crate) kind: &'a SpanKind,
    pub(crate) begun: SystemTime,
    pub(crate) ended: SystemTime,
}

/// A span's own fields.
impl Message {
    pub(crate) fn head(&mut self, head: &Head<'_>) {
        self.bytes(1, &head.context.trace_id().to_bytes());
        self.bytes(2, &head.context.span_id().to_bytes());
        if head.parent != SpanId::INVALID {
            self.bytes(4, &head.parent.to_bytes());
        }
        self.bytes(5, head.name.as_bytes());
        self.number(
            6,
            match head.kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
                SpanKind::Producer => 4,
                SpanKind::Consumer => 5,
            },
        );
        self.time(7, head.begun);
        self.time(8, head.ended);
        self.fixed32(16, flags(head.context, head.parent_is_remote));
    }

    pub(crate) fn say(&mut self, key: &str, value: Value<'_>) {
        self.attribute(9, key, value);
    }

    pub(crate) fn event(&mut self, name: &str, time: SystemTime, tell: impl FnOnce(&mut Event)) {
        let mut event = Event(Self::with_capacity(512));
        event.0.time(1, time);
        event.0.bytes(2, name.as_bytes());
        tell(&mut event);
        self.bytes(11, event.0.as_bytes());
    }

    pub(crate) fn link(&mut self, to: &SpanContext) {
        // The trace's and the span's id with a byte of tag and one of length each, and the flags with a byte of tag.
        self.length(13, 18 + 10 + 5);
        self.bytes(1, &to.trace_id().to_bytes());
        self.bytes(2, &to.span_id().to_bytes());
        self.fixed32(6, flags(to, to.is_remote()));
    }

    pub(crate) fn error(&mut self, problem: &str) {
        const ERROR: u64 = 2;
        // The code takes two bytes. Something that is empty is left out.
        let length_of_problem = if problem.is_empty() { 0 } else { length_of_field(problem.len()) };
        self.length(15, length_of_problem + 2);
        if !problem.is_empty() {
            self.bytes(2, problem.as_bytes());
        }
        self.number(3, ERROR);
    }
}

/// Something that happened in a span.
#[derive(Debug)]
pub struct Event(Message);

impl Event {
    /// Says something about it.
    pub fn set<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) {
        self.0.attribute(3, key, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{TraceFlags, TraceId, TraceState};
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value},
        trace::v1::{Span, Status, span},
    };
    use prost::Message as _;
    use std::time::Duration;

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: key.into(), value, ..KeyValue::default() }
    }

    fn context(trace: u128, span: u64, flags: u8, remote: bool) -> SpanContext {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::new(flags), remote, TraceState::NONE)
    }

    /// What is written is what the protocol's own code reads: every field, at the lengths where a varint grows.
    #[test]
    fn the_protocol_reads_what_is_written() {
        for length in [0, 1, 120, 127, 128, 16_383, 16_384] {
            let text = "x".repeat(length);
            let numbers = [0, 1, -1, 127, 128, i64::MAX, i64::MIN];
            let own = context(5, 7, 3, false);
            let begun = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
            let mut message = Message::with_capacity(0);
            message.say(&text, (&text).into());
            numbers.iter().for_each(|number| message.say("n", (*number).into()));
            message.event(&text, begun, |event| {
                event.set("text", &*text);
                event.set("n", 300);
            });
            message.link(&context(u128::MAX, u64::MAX, 1, true));
            message.error(&text);
            message.head(&Head {
                context: &own,
                parent: SpanId::from(9),
                parent_is_remote: true,
                name: &text,
                kind: &SpanKind::Client,
                begun,
                ended: begun + Duration::from_secs(1),
            });
            let (texts, number) = (any_value::Value::StringValue, any_value::Value::IntValue);
            let mut attributes = vec![attribute(&text, texts(text.clone()))];
            attributes.extend(numbers.map(|value| attribute("n", number(value))));
            let expected = Span {
                trace_id: 5_u128.to_be_bytes().into(),
                span_id: 7_u64.to_be_bytes().into(),
                parent_span_id: 9_u64.to_be_bytes().into(),
                name: text.clone(),
                kind: span::SpanKind::Client as i32,
                start_time_unix_nano: 1_700_000_000_123_456_789,
                end_time_unix_nano: 1_700_000_001_123_456_789,
                attributes,
                events: vec![span::Event {
                    time_unix_nano: 1_700_000_000_123_456_789,
                    name: text.clone(),
                    attributes: vec![attribute("text", texts(text.clone())), attribute("n", number(300))],
                    ..span::Event::default()
                }],
                links: vec![span::Link {
                    trace_id: vec![255; 16],
                    span_id: vec![255; 8],
                    flags: 0x301,
                    ..span::Link::default()
                }],
                status: Some(Status { message: text.clone(), code: 2 }),
                flags: 0x303,
                ..Span::default()
            };
            assert_eq!(Span::decode(message.as_bytes()), Ok(expected), "{length}");
        }
    }
}
