//! An inference that is watched: how it ends, and what its outputs are.

use super::{
    handover::Outbox,
    record::{End, Protocol, Record, now_ms},
};
use crate::{
    checks::Findings, failure::Failure, model::Model, offload::offload, output::Output,
    rejections::Rejections,
};
use halftone_proto::v1::traced_request::Answer;
use halftone_telemetry::context::{RequestContext, RunningInference};
use std::{mem, sync::Arc};

/// An inference that is under way. The same for both protocols.
#[derive(Debug)]
pub struct Watch {
    context: Arc<RequestContext>,
    protocol: Protocol,
    begun_ms: u64,
    /// Until it has ended.
    running: Option<RunningInference>,
    model: Arc<Model>,
    findings: Findings,
    outbox: Option<Outbox>,
    rejections: Rejections,
}

impl Watch {
    /// Of a request that is about this model. What is seen is handed over to the outbox, where there is one; what is turned
    /// away is counted.
    #[must_use]
    pub fn begin(
        context: Arc<RequestContext>,
        protocol: Protocol,
        model: Arc<Model>,
        outbox: Option<Outbox>,
        rejections: Rejections,
    ) -> Self {
        let running = Some(context.begin_inference());
        let (begun_ms, findings) = (now_ms(), Findings::default());
        Self { context, protocol, begun_ms, running, model, findings, outbox, rejections }
    }

    /// Looks at the outputs and writes the answer: here, or where it keeps nobody waiting when it is much.
    ///
    /// # Errors
    /// What `encode` says.
    pub async fn encode<T: Send + 'static>(
        &mut self,
        outputs: Vec<Output>,
        encode: impl FnOnce(&Model, &[Output]) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Failure> {
        let _stage = self.context.stage("encode");
        let (model, observed) = (Arc::clone(&self.model), self.outbox.is_some());
        let size = outputs.iter().map(Output::size).sum();
        let (findings, encoded) = offload(size, move || {
            let findings = model.checks().look(&outputs, model.signature(), observed);
            let failed = |problem| Failure::Internal(format!("{} failed: {problem}", model.label()));
            Ok((findings, encode(&model, &outputs).map_err(failed)))
        })
        .await?;
        self.findings = findings;
        encoded
    }

    /// It has ended so.
    pub fn end<T>(mut self, answer: &Result<T, Failure>) {
        if let Some(running) = self.running.take() {
            running.end(Failure::outcome(answer));
        }
        if let Err(failure) = answer {
            self.rejections.count(&self.model.served().model, failure);
        }
        if let Some(hash) = self.findings.hash {
            self.context.set_output_hash(hash);
        }
        self.hand_over(End::of(answer), Some(self.protocol.answer(answer)));
    }

    fn hand_over(&mut self, end: End, answer: Option<Answer>) {
        if let Some(outbox) = self.outbox.take() {
            outbox.put(Record {
                context: Arc::clone(&self.context),
                begun_ms: self.begun_ms,
                answer,
                checks: Arc::clone(self.model.checks()),
                end,
                findings: mem::take(&mut self.findings),
            });
        }
    }
}

impl Drop for Watch {
    /// Without a word about its end, the client has left. That is no observation of the model; whoever asks after the
    /// trace is told.
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        drop(running);
        if self.context.sampled_parent().is_some() {
            self.hand_over(End::Left, None);
        }
    }
}
