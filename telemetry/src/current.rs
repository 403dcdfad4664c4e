//! The trace that a task works for: its log lines name it, and its stages are recorded below the span that is current.
//!
//! A task that is spawned belongs to none, unless it is [carried](carry) over.

use crate::trace::{Span, Tracer};
use opentelemetry::trace::{SpanContext, SpanKind, TraceId};

tokio::task_local! {
    static CURRENT: Current;
}

/// What a task works for.
#[derive(Clone, Debug)]
pub struct Current {
    trace: TraceId,
    /// Where spans belong, when they are recorded.
    below: Option<(Tracer, SpanContext)>,
}

impl Current {
    /// For a trace of which nothing is recorded here: it is named in log lines.
    #[must_use]
    pub fn named(trace: TraceId) -> Self {
        Self { trace, below: None }
    }

    /// For a span, when it is recorded.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context()?.clone();
        Some(Self { trace: context.trace_id(), below: Some((span.tracer(), context)) })
    }

    /// That of the running task.
    #[must_use]
    pub fn now() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// A span below it, until it is dropped.
    #[must_use]
    pub fn stage(&self, name: &'static str) -> Span {
        self.below
            .as_ref()
            .map_or_else(Span::none, |(tracer, span)| tracer.below(span, name, SpanKind::Internal))
    }

    /// Does something for it.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

/// A span below the one that the running task works for, until it is dropped; nothing where there is none.
#[must_use]
pub fn stage(name: &'static str) -> Span {
    CURRENT.try_with(|current| current.stage(name)).unwrap_or_default()
}

/// The trace that the running task works for.
#[must_use]
pub fn trace_id() -> Option<TraceId> {
    CURRENT.try_with(|current| current.trace).ok()
}

/// A future for another task that works for the same as this one.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    // Now, not when it is polled, which another task does.
    carry_from(Current::now(), future)
}

/// A future that works for this, or for nothing.
pub async fn carry_from<F: Future>(current: Option<Current>, future: F) -> F::Output {
    match current {
        Some(current) => CURRENT.scope(current, future).await,
        None => future.await,
    }
}

/// Work for another thread that works for the same as this one.
pub fn carry_work<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = Current::now();
    move || match current {
        Some(current) => current.enter(work),
        None => work(),
    }
}
