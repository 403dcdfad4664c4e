//! An inference that is watched: how it ends, and what its outputs are.

use super::{
    handover::Outbox,
    record::{End, Record},
};
use crate::{
    checks::Findings, failure::Failure, model::Model, offload::offload, output::Output,
    rejections::Rejections,
};
use halftone_telemetry::context::{RequestContext, RunningInference};
use std::sync::Arc;

/// An inference that is under way. The same for both protocols.
#[derive(Debug)]
pub struct Watch {
    context: Arc<RequestContext>,
    running: RunningInference,
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
        model: Arc<Model>,
        outbox: Option<Outbox>,
        rejections: Rejections,
    ) -> Self {
        let running = context.begin_inference();
        Self { context, running, model, findings: Findings::default(), outbox, rejections }
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
    pub fn end<T>(self, answer: &Result<T, Failure>) {
        self.running.end(Failure::outcome(answer));
        if let Err(failure) = answer {
            self.rejections.count(&self.model.served().model, failure);
        }
        if let Some(hash) = self.findings.hash {
            self.context.set_output_hash(hash);
        }
        if let Some(outbox) = self.outbox {
            let (checks, end) = (Arc::clone(self.model.checks()), End::of(answer));
            outbox.put(Record { context: self.context, checks, end, findings: self.findings });
        }
    }
}
