//! A request in a model's queue.

use crate::{failure::Failure, output::Output, queue::Item, request::InferRequest};
use halftone_telemetry::{context::RequestContext, trace::Span};
use opentelemetry::trace::SpanContext;
use std::{sync::Arc, time::Instant};
use tokio::sync::oneshot;

/// What a request gets.
pub type Outcome = Result<Vec<Output>, Failure>;

/// A request in a model's queue.
#[derive(Debug)]
pub struct Job {
    /// What is to be run.
    pub request: InferRequest,
    /// After it nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// Size of the inputs' first dimension, where it is the batch; else 1.
    rows: usize,
    /// The request, when it is recorded.
    recorded: Option<Arc<RequestContext>>,
    /// The wait in the queue.
    waiting: Span,
    reply: oneshot::Sender<Outcome>,
}

impl Job {
    /// A request, and where its answer will be. `batched`: whether the inputs' first dimension is the batch. It waits from now on.
    #[must_use]
    pub fn new(
        request: InferRequest,
        deadline: Option<Instant>,
        batched: bool,
        context: Option<&Arc<RequestContext>>,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let first = request.inputs.first().and_then(|input| input.shape().first().copied());
        let rows = first.filter(|_| batched).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(1);
        let recorded = context.filter(|context| context.span().is_some()).cloned();
        let waiting = recorded.as_ref().map_or_else(Span::none, |context| context.stage("queue"));
        (Self { request, deadline, rows, recorded, waiting, reply }, answer)
    }

    /// Its rows in a batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The span of its request, when that is recorded.
    #[must_use]
    pub fn span(&self) -> Option<&SpanContext> {
        self.recorded.as_ref()?.span()
    }

    /// It waits no longer. What comes next is the span of its batch.
    pub fn leave_queue(&mut self) -> Span {
        drop(std::mem::take(&mut self.waiting));
        self.recorded.as_ref().map_or_else(Span::none, |context| context.stage("batch"))
    }

    /// Answers it. Who asked may have left.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

impl Item for Job {
    fn is_void(&self) -> bool {
        self.reply.is_closed() || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn weight(&self) -> usize {
        // A batch of no rows takes its time too.
        self.rows.max(1)
    }

    /// The inputs must have the same shape beyond the first dimension. Whether that one is the batch, the limits of
    /// the batch say: they are those of a single job where it is not.
    fn fits(&self, other: &Self) -> bool {
        let mut pairs = self.request.inputs.iter().zip(&other.request.inputs);
        pairs.all(|(a, b)| a.shape().get(1..) == b.shape().get(1..))
    }
}
