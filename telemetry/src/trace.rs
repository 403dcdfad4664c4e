//! Spans: what a request or a task of ours spent its time on.
//!
//! A span is open until it is dropped or [ended](Span::end_at), and then handed to whoever sends it, without waiting. Where nothing is
//! recorded all of this costs nothing: a [`Span`] is then empty.

use opentelemetry::{
    InstrumentationScope, Key, KeyValue, Value,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

/// Where spans go when they have ended. It must not wait.
pub trait Sink: Send + Sync {
    /// Takes one, or drops it.
    fn take(&self, span: SpanData);
}

/// Makes spans. Clones make the same.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    sink: Box<dyn Sink>,
    /// The share of traces that begin here and are recorded, from 0 to 1.
    sample: f64,
    scope: InstrumentationScope,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.0.is_some()).finish()
    }
}

impl Tracer {
    /// One whose spans go to the sink. `sample` is the share, from 0 to 1, of the traces that begin here.
    #[must_use]
    pub fn new(sink: impl Sink + 'static, sample: f64) -> Self {
        let scope = InstrumentationScope::builder("halftone").with_version(env!("CARGO_PKG_VERSION")).build();
        Self(Some(Arc::new(Shared { sink: Box::new(sink), sample, scope })))
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
        if !is_sampled(trace, shared.sample) {
            return Span::none();
        }
        let flags = TraceFlags::SAMPLED | TraceFlags::new(RANDOM);
        let none = SpanContext::new(trace, SpanId::INVALID, flags, false, TraceState::NONE);
        Span::open(shared, &none, name.into(), kind)
    }
}

/// The flag of `traceparent` that says that the trace's id is random.
const RANDOM: u8 = 2;

/// Whether a trace is among so large a share of all, by the random part of its id: whoever asks, the answer is the same.
#[must_use]
pub fn is_sampled(trace: TraceId, share: f64) -> bool {
    halftone_rules::trace::is_sampled(&trace.to_bytes(), share)
}

/// An open span, or nothing where nothing is recorded.
#[derive(Default)]
pub struct Span(Option<Box<Open>>);

struct Open {
    shared: Arc<Shared>,
    data: SpanData,
    /// That `data.end_time` is meant.
    ended: bool,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|open| &open.data.name)).finish()
    }
}

impl Span {
    /// Nothing: what is said of it is forgotten.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    fn open(shared: &Arc<Shared>, parent: &SpanContext, name: Cow<'static, str>, kind: SpanKind) -> Self {
        let now = SystemTime::now();
        let id = RandomIdGenerator::default().new_span_id();
        // Much is said of requests, and little of their stages.
        let attributes = Vec::with_capacity(if kind == SpanKind::Server { 24 } else { 0 });
        let data = SpanData {
            span_context: SpanContext::new(
                parent.trace_id(),
                id,
                parent.trace_flags(),
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent.span_id(),
            parent_span_is_remote: parent.is_remote(),
            span_kind: kind,
            name,
            start_time: now,
            end_time: now,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: shared.scope.clone(),
        };
        Self(Some(Box::new(Open { shared: Arc::clone(shared), data, ended: false })))
    }

    /// Whether it is recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Who it is, for spans below it and in other processes; nothing when it is not recorded.
    #[must_use]
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|open| &open.data.span_context)
    }

    /// What makes spans below it.
    pub(crate) fn tracer(&self) -> Tracer {
        Tracer(self.0.as_ref().map(|open| Arc::clone(&open.shared)))
    }

    /// What says in a request to another service that it belongs below this span; nothing when it is not recorded.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let context = self.context()?;
        let flags = context.trace_flags().to_u8();
        Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    /// A span of ours below it.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.child_of_kind(name, SpanKind::Internal)
    }

    /// A span below it.
    #[must_use]
    pub fn child_of_kind(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        self.0.as_ref().map_or_else(Self::none, |open| {
            Self::open(&open.shared, &open.data.span_context, name.into(), kind)
        })
    }

    /// It began at this time, not when it was made.
    pub fn begin_at(&mut self, time: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.data.start_time = time;
        }
    }

    /// It has no parent: the one that its request names is none that anybody records.
    pub fn make_root(&mut self) {
        if let Some(open) = &mut self.0 {
            (open.data.parent_span_id, open.data.parent_span_is_remote) = (SpanId::INVALID, false);
        }
    }

    /// Another name, when that is known only later.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.data.name = name.into();
        }
    }

    /// Says something about it. Nothing said is to be personal or secret.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.data.attributes.push(KeyValue::new(Key::from_static_str(key), value));
        }
    }

    /// Says something about it, if there is something to say.
    pub fn set_some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Another span that has to do with it.
    pub fn link(&mut self, to: SpanContext) {
        if let Some(open) = &mut self.0 {
            open.data.links.links.push(Link::new(to, Vec::new(), 0));
        }
    }

    /// Something happened in it, now.
    pub fn event(&mut self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(open) = &mut self.0 {
            open.data.events.events.push(Event::new(name, SystemTime::now(), attributes(), 0));
        }
    }

    /// It failed. `kind` is of a few words that there are: `error.type`.
    pub fn fail(&mut self, kind: impl Into<Value>, problem: impl Into<Cow<'static, str>>) {
        self.set("error.type", kind);
        if let Some(open) = &mut self.0 {
            open.data.status = Status::error(problem);
        }
    }

    /// It has ended at this time.
    pub fn end_at(mut self, time: SystemTime) {
        if let Some(open) = &mut self.0 {
            (open.data.end_time, open.ended) = (time, true);
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
        let Open { shared, mut data, ended } = *open;
        if !ended {
            data.end_time = SystemTime::now();
        }
        // The clock may have been set back in between.
        data.end_time = data.end_time.max(data.start_time);
        shared.sink.take(data);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    /// Keeps what it gets.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl Sink for Kept {
        fn take(&self, span: SpanData) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }

    impl Kept {
        pub(crate) fn spans(&self) -> Vec<SpanData> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    fn parent(flags: u8) -> SpanContext {
        let (trace, span) = (TraceId::from(5), SpanId::from(7));
        SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE)
    }

    #[test]
    fn spans_are_below_each_other() {
        let kept = Kept::default();
        let tracer = Tracer::new(kept.clone(), 1.0);
        let mut request = tracer.below(&parent(3), "request", SpanKind::Server);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        request.begin_at(began);
        let mut stage = request.child("stage");
        stage.set("n", 1);
        stage.fail("timeout", "too late");
        drop(stage);
        request.end_at(began + Duration::from_secs(2));
        let [stage, request] = kept.spans().try_into().unwrap();
        assert_eq!(stage.parent_span_id, request.span_context.span_id());
        assert_eq!(request.parent_span_id, parent(3).span_id());
        assert!(request.parent_span_is_remote && !stage.parent_span_is_remote);
        assert_eq!(stage.span_context.trace_id(), parent(3).trace_id());
        assert_eq!(stage.span_context.trace_flags(), TraceFlags::new(3), "random as it came");
        assert_eq!(request.end_time.duration_since(request.start_time).unwrap(), Duration::from_secs(2));
        assert_eq!(stage.status, Status::error("too late"));
        assert_eq!(stage.attributes, [KeyValue::new("n", 1), KeyValue::new("error.type", "timeout")]);
    }

    #[test]
    fn what_is_not_sampled_is_not_recorded() {
        let kept = Kept::default();
        let tracer = Tracer::new(kept.clone(), 0.0);
        for span in [
            tracer.below(&parent(0), "request", SpanKind::Server),
            tracer.below(&parent(2), "request", SpanKind::Server),
            tracer.below(&SpanContext::NONE, "request", SpanKind::Server),
            tracer.root("task", SpanKind::Internal),
            Tracer::none().below(&parent(1), "request", SpanKind::Server),
        ] {
            assert!(!span.is_recorded() && !span.child("stage").is_recorded());
        }
        Tracer::new(kept.clone(), 1.0).root("task", SpanKind::Internal).forget();
        assert!(kept.spans().is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_negative_time() {
        let kept = Kept::default();
        let span = Tracer::new(kept.clone(), 1.0).root("task", SpanKind::Internal);
        span.end_at(SystemTime::UNIX_EPOCH);
        let [span] = kept.spans().try_into().unwrap();
        assert_eq!(span.start_time, span.end_time);
        assert_eq!(span.parent_span_id, SpanId::INVALID);
    }
}
