//! A batch as the traces of its requests show it: each has a span of it that links to the others, and below that the run.

use crate::{failure::Failure, job::Job};
use halftone_telemetry::trace::Span;
use opentelemetry::trace::SpanContext;
use std::time::SystemTime;

/// Links of a span, at most.
const MOST_LINKS: usize = 64;

/// The spans of a batch, one for each of its jobs; none when no job's request is recorded.
#[derive(Debug, Default)]
pub struct BatchSpans(Vec<Span>);

impl BatchSpans {
    /// The batch begins, and with it the wait in the queue ends.
    #[must_use]
    pub fn begin(jobs: &mut [Job]) -> Self {
        let recorded: Vec<SpanContext> = jobs.iter().filter_map(Job::span).cloned().collect();
        if recorded.is_empty() {
            return Self::default();
        }
        let requests = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        let rows = i64::try_from(jobs.iter().map(Job::rows).sum::<usize>()).unwrap_or(i64::MAX);
        let begin = |job: &mut Job| {
            let mut span = job.leave_queue();
            span.set("halftone.batch.requests", requests);
            span.set("halftone.batch.rows", rows);
            let own = job.span();
            let others = recorded.iter().filter(|other| Some(*other) != own);
            others.take(MOST_LINKS).for_each(|other| span.link(other));
            span
        };
        Self(jobs.iter_mut().map(begin).collect())
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All were run together, since then.
    pub fn ran_together<T>(&self, since: SystemTime, outcome: &Result<T, Failure>) {
        self.0.iter().for_each(|span| ran(span, since, outcome));
    }

    /// One was run by itself, since then, and is over.
    pub fn ran_alone<T>(&mut self, index: usize, since: SystemTime, outcome: &Result<T, Failure>) {
        if let Some(span) = self.0.get_mut(index) {
            ran(span, since, outcome);
            drop(std::mem::take(span));
        }
    }
}

fn ran<T>(batch: &Span, since: SystemTime, outcome: &Result<T, Failure>) {
    let mut span = batch.child("inference");
    span.begin_at(since);
    if let Err(failure) = outcome {
        span.fail(Failure::outcome::<()>(&Err(failure.clone())).as_str(), &failure.to_string());
    }
}
