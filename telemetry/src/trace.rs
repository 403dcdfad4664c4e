//! Spans: what a request or a task of ours spent its time on.
//!
//! A span is open until it is dropped or [ended](Span::end_at), and then handed to whoever sends it, without waiting. Where nothing is
//! recorded all of this costs nothing: a [`Span`] is then empty.

pub use crate::span_message::{Event, Value};
use crate::{
    sampling::Sampling,
    span_message::{Head, Message},
};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

/// Where spans go when they have ended. It must not wait.
pub trait Sink: Send + Sync {
    /// Takes one, or drops it: a message `Span` of the OpenTelemetry Protocol.
    fn take(&self, span: &[u8]);
}

/// Makes spans. Clones make the same.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    sink: Box<dyn Sink>,
    sampling: Arc<Sampling>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.0.is_some()).finish()
    }
}

impl Tracer {
    /// One whose spans go to the sink.
    #[must_use]
    pub fn new(sink: impl Sink + 'static, sampling: Arc<Sampling>) -> Self {
        Self(Some(Arc::new(Shared { sink: Box::new(sink), sampling })))
    }

    /// One that records nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn records(&self) -> bool {
        self.0.is_some()
    }

    /// A span below another one, of this process or not, if that one is recorded.
    #[must_use]
    pub fn below(&self, parent: &SpanContext, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        match &self.0 {
            Some(shared) if parent.is_valid() && parent.is_sampled() => {
                Span::open(shared, parent, name.into(), kind)
            }
            _ => Span::none(),
        }
    }

    /// The first span of a trace, if this one is among those that are recorded.
    #[must_use]
    pub fn root(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        let Some(shared) = &self.0 else { return Span::none() };
        let trace = RandomIdGenerator::default().new_trace_id();
        if !shared.sampling.has(trace) {
            return Span::none();
        }
        let flags = TraceFlags::SAMPLED | TraceFlags::new(RANDOM);
        let none = SpanContext::new(trace, SpanId::INVALID, flags, false, TraceState::NONE);
        Span::open(shared, &none, name.into(), kind)
    }

    /// Whether there is room for a trace that begins with a request, which it then takes.
    pub(crate) fn has_room(&self, candidate: bool) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.sampling.has_room(candidate))
    }
}

/// The flag of `traceparent` that says that the trace's id is random.
const RANDOM: u8 = 2;

/// Stands for a span that is not recorded, of this trace or of a new one: what is asked for it is not to be recorded either.
pub(crate) fn unrecorded(parent: Option<&SpanContext>) -> SpanContext {
    let ids = RandomIdGenerator::default();
    let (trace, flags) = match parent {
        Some(parent) => (parent.trace_id(), parent.trace_flags().with_sampled(false)),
        None => (ids.new_trace_id(), TraceFlags::new(RANDOM)),
    };
    // W3C Trace Context has it that who changes whether a trace is sampled gives a new id.
    SpanContext::new(trace, ids.new_span_id(), flags, false, TraceState::NONE)
}

/// What says in a request to another service that it belongs below this span.
pub(crate) fn traceparent(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

/// An open span, or nothing where nothing is recorded.
#[derive(Default)]
pub struct Span(Option<Box<Open>>);

struct Open {
    shared: Arc<Shared>,
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    name: Cow<'static, str>,
    kind: SpanKind,
    begun: SystemTime,
    /// Nothing for when it is dropped.
    ended: Option<SystemTime>,
    /// What has been said of it.
    said: Message,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|open| &open.name)).finish()
    }
}

impl Span {
    /// Nothing: what is said of it is forgotten.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    fn open(shared: &Arc<Shared>, parent: &SpanContext, name: Cow<'static, str>, kind: SpanKind) -> Self {
        let id = RandomIdGenerator::default().new_span_id();
        let context = SpanContext::new(parent.trace_id(), id, parent.trace_flags(), false, TraceState::NONE);
        // Much is said of requests, and little of their stages.
        let expected = if kind == SpanKind::Server { 1024 } else { 256 };
        Self(Some(Box::new(Open {
            shared: Arc::clone(shared),
            context,
            parent: parent.span_id(),
            parent_is_remote: parent.is_remote(),
            name,
            kind,
            begun: SystemTime::now(),
            ended: None,
            said: Message::with_capacity(expected),
        })))
    }

    /// Whether it is recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Who it is, for spans below it and in other processes; nothing when it is not recorded.
    #[must_use]
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|open| &open.context)
    }

    /// What makes spans below it.
    pub(crate) fn tracer(&self) -> Tracer {
        Tracer(self.0.as_ref().map(|open| Arc::clone(&open.shared)))
    }

    /// What says in a request to another service that it belongs below this span; nothing when it is not recorded.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.context().map(traceparent)
    }

    /// A span of ours below it.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.child_of_kind(name, SpanKind::Internal)
    }

    /// A span below it.
    #[must_use]
    pub fn child_of_kind(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        self.0
            .as_ref()
            .map_or_else(Self::none, |open| Self::open(&open.shared, &open.context, name.into(), kind))
    }

    /// It began at this time, not when it was made.
    pub fn begin_at(&mut self, time: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.begun = time;
        }
    }

    /// It has no parent: the one that its request names is none that anybody records.
    pub fn make_root(&mut self) {
        if let Some(open) = &mut self.0 {
            (open.parent, open.parent_is_remote) = (SpanId::INVALID, false);
        }
    }

    /// Another name, when that is known only later.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.name = name.into();
        }
    }

    /// Says something about it. Nothing said is to be personal or secret.
    pub fn set<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) {
        if let Some(open) = &mut self.0 {
            open.said.say(key, value.into());
        }
    }

    /// Says something about it, if there is something to say.
    pub fn set_some<'a>(&mut self, key: &str, value: Option<impl Into<Value<'a>>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Another span that has to do with it.
    pub fn link(&mut self, to: &SpanContext) {
        if let Some(open) = &mut self.0 {
            open.said.link(to);
        }
    }

    /// Something happened in it at this time.
    pub fn event(&mut self, name: &str, time: SystemTime, tell: impl FnOnce(&mut Event)) {
        if let Some(open) = &mut self.0 {
            open.said.event(name, time, tell);
        }
    }

    /// It failed. `kind` is of a few words that there are: `error.type`.
    pub fn fail(&mut self, kind: &str, problem: &str) {
        if let Some(open) = &mut self.0 {
            open.said.say("error.type", kind.into());
            open.said.error(problem);
        }
    }

    /// It has ended at this time.
    pub fn end_at(mut self, time: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.ended = Some(time);
        }
    }

    /// It is not to be recorded after all.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { shared, context, parent, parent_is_remote, name, kind, begun, ended, mut said } = *open;
        // The clock may have been set back in between.
        let ended = ended.unwrap_or_else(SystemTime::now).max(begun);
        said.head(&Head {
            context: &context,
            parent,
            parent_is_remote,
            name: &name,
            kind: &kind,
            begun,
            ended,
        });
        shared.sink.take(said.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TraceId;
    use opentelemetry_proto::tonic::trace::v1;
    use prost::Message as _;
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    /// Keeps what it gets.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<v1::Span>>>);

    impl Sink for Kept {
        fn take(&self, span: &[u8]) {
            let span = v1::Span::decode(span).unwrap();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }

    impl Kept {
        fn spans(&self) -> Vec<v1::Span> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    fn sampling(share: f64) -> Arc<Sampling> {
        Arc::new(Sampling::new(share, 1))
    }

    fn parent(flags: u8) -> SpanContext {
        let (trace, span) = (TraceId::from(5), SpanId::from(7));
        SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE)
    }

    #[test]
    fn spans_are_below_each_other() {
        let kept = Kept::default();
        let tracer = Tracer::new(kept.clone(), sampling(1.0));
        let mut request = tracer.below(&parent(3), "request", SpanKind::Server);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        request.begin_at(began);
        let mut stage = request.child("stage");
        stage.set("n", 1);
        stage.fail("timeout", "too late");
        drop(stage);
        request.end_at(began + Duration::from_secs(2));
        let [stage, request] = kept.spans().try_into().unwrap();
        assert_eq!(stage.parent_span_id, request.span_id);
        assert_eq!(request.parent_span_id, parent(3).span_id().to_bytes());
        assert_eq!(stage.trace_id, parent(3).trace_id().to_bytes());
        assert_eq!(
            (request.flags, stage.flags),
            (0x303, 0x103),
            "random as it came; a parent elsewhere, and here"
        );
        assert_eq!(request.end_time_unix_nano - request.start_time_unix_nano, 2_000_000_000);
        assert_eq!(stage.status, Some(v1::Status { message: "too late".into(), code: 2 }));
        let keys: Vec<_> = stage.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(keys, ["n", "error.type"]);
    }

    #[test]
    fn what_is_not_sampled_is_not_recorded() {
        let kept = Kept::default();
        let tracer = Tracer::new(kept.clone(), sampling(0.0));
        for span in [
            tracer.below(&parent(0), "request", SpanKind::Server),
            tracer.below(&parent(2), "request", SpanKind::Server),
            tracer.below(&SpanContext::NONE, "request", SpanKind::Server),
            tracer.root("task", SpanKind::Internal),
            Tracer::none().below(&parent(1), "request", SpanKind::Server),
        ] {
            assert!(!span.is_recorded() && !span.child("stage").is_recorded());
        }
        Tracer::new(kept.clone(), sampling(1.0)).root("task", SpanKind::Internal).forget();
        assert!(kept.spans().is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_negative_time() {
        let kept = Kept::default();
        let span = Tracer::new(kept.clone(), sampling(1.0)).root("task", SpanKind::Internal);
        span.end_at(SystemTime::UNIX_EPOCH);
        let [span] = kept.spans().try_into().unwrap();
        assert_eq!(span.start_time_unix_nano, span.end_time_unix_nano);
        assert!(span.parent_span_id.is_empty());
    }
}
