//! One version of a model, loaded and ready to answer.

use crate::{
    failure::Failure,
    pool::{Pool, PoolError},
    repository::Artifact,
    request::InferRequest,
    response::{InferResponse, Output},
    signature::{Signature, TensorSpec},
};
use anyhow::Context;
use axum::body::Bytes;
use ort::{
    ErrorCode,
    environment::Environment,
    logging::LogLevel,
    session::{
        OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs, builder::PrepackedWeights,
    },
};
use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

/// One version of a model, loaded and ready to answer.
#[derive(Debug)]
pub struct Model {
    artifact: Artifact,
    label: String,
    signature: Signature,
    pool: Arc<Pool<Session>>,
}

impl Model {
    /// Loads a model: `sessions` requests run at once, `queue` more may wait.
    ///
    /// # Errors
    /// When ONNX Runtime cannot load the file, or the model takes or gives what the protocol cannot carry.
    pub fn load(
        environment: &Environment,
        artifact: Artifact,
        sessions: NonZeroUsize,
        queue: usize,
    ) -> anyhow::Result<Self> {
        let label = artifact.to_string();
        // A session runs one request at a time; they share the weights.
        let weights = PrepackedWeights::new();
        let load = || -> ort::Result<Session> {
            Session::builder(environment)?
                // ONNX Runtime's remarks on every run are formatted before anybody is asked whether to log them.
                .with_log_level(LogLevel::Warning)?
                .with_prepacked_weights(&weights)?
                .commit_from_file(&artifact.path)
        };
        let sessions = (0..sessions.get())
            .map(|_| load())
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot load {label} from {}", artifact.path.display()))?;
        let signature = sessions
            .first()
            .map(Signature::of)
            .context("a model needs a session")?
            .with_context(|| format!("cannot serve {label}"))?;
        Ok(Self { artifact, label, signature, pool: Pool::new(sessions, queue) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.artifact.model
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.artifact.version
    }

    /// Name and version: `digits:2`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What it takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Its sessions.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool<Session>> {
        &self.pool
    }

    /// Answers an inference request: from JSON to JSON.
    ///
    /// All of it is done on a blocking thread of the pool: reading the numbers of a large tensor takes longer than many
    /// a model, and a full queue then refuses before any work is done.
    ///
    /// # Errors
    /// When the request does not fit the model, the model fails, or too many wait.
    pub async fn infer(self: &Arc<Self>, body: Bytes) -> Result<Vec<u8>, Failure> {
        let model = Arc::clone(self);
        match self.pool.run(move |session| model.answer(session, &body)).await {
            Ok(answer) => answer,
            Err(PoolError::Full) => Err(Failure::Overloaded(self.label.clone())),
            Err(PoolError::Panicked) => Err(Failure::Internal(format!("{} panicked", self.label))),
        }
    }

    fn answer(&self, session: &mut Session, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request = InferRequest::parse(body, &self.signature).map_err(Failure::BadRequest)?;
        let inputs = request
            .inputs
            .iter()
            .map(|input| Ok((Cow::from(input.spec.name.as_str()), input.tensor()?.into())))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Failure::BadRequest)?;

        let options =
            RunOptions::new().map_err(|e| self.internal(&e))?.with_outputs(selector(&request.outputs));
        let values = self.run(session, inputs, &options)?;

        let outputs = request
            .outputs
            .iter()
            .map(|&spec| {
                let value =
                    values.get(&spec.name).ok_or_else(|| format!("output {:?} is missing", spec.name))?;
                Output::new(spec, value)
            })
            .collect::<Result<_, String>>()
            .map_err(|e| self.internal(&e))?;
        let response = InferResponse {
            model_name: self.name(),
            model_version: self.version(),
            id: request.id.as_deref(),
            outputs,
        };
        serde_json::to_vec(&response).map_err(|e| self.internal(&e))
    }

    fn run<'s>(
        &self,
        session: &'s mut Session,
        inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)>,
        options: &'s RunOptions<ort::session::HasSelectedOutputs>,
    ) -> Result<SessionOutputs<'s>, Failure> {
        session.run_with_options(inputs, options).map_err(|error| match error.code() {
            // Such as an index beyond the end of a table: the values are wrong, not the model.
            ErrorCode::InvalidArgument => {
                Failure::BadRequest(format!("{} refuses the inputs: {error}", self.label))
            }
            _ => self.internal(&error),
        })
    }

    fn internal(&self, error: &impl ToString) -> Failure {
        Failure::Internal(format!("{} failed: {}", self.label, error.to_string()))
    }
}

fn selector(outputs: &[&TensorSpec]) -> OutputSelector {
    outputs.iter().fold(OutputSelector::no_default(), |selector, spec| selector.with(spec.name.as_str()))
}
