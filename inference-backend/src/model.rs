//! One version of a model, loaded and ready to answer.

use crate::{
    batch::Runner,
    config::{BatchConfig, ModelConfig, WorkersConfig},
    failure::Failure,
    job::{Job, Outcome},
    provider::ProviderChoice,
    queue::{BatchLimits, Full},
    repository::Artifact,
    request::InferRequest,
    signature::Signature,
    warmup,
    workers::{Loader, WorkerLimits, Workers},
};
use anyhow::{Context, anyhow};
use halftone_telemetry::context::Served;
use ort::{
    environment::Environment,
    logging::LogLevel,
    session::{Session, builder::PrepackedWeights},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How models are run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of each model.
    pub workers: WorkerLimits,
    /// Of models whose first dimension is the batch.
    pub batch: BatchLimits,
    /// It is, whatever it is called.
    pub batch_declared: bool,
    /// What they run on.
    pub provider: ProviderChoice,
}

impl Settings {
    /// These, as a model's own configuration changes them.
    #[must_use]
    pub fn with(mut self, config: &ModelConfig) -> Self {
        if let Some(WorkersConfig { min, max }) = config.workers {
            (self.workers.min, self.workers.max) = (min, max);
        }
        if let Some(BatchConfig { rows, delay_us }) = config.batch {
            let delay = Duration::from_micros(delay_us.into());
            (self.batch, self.batch_declared) = (BatchLimits { size: rows.get(), delay }, true);
        }
        self.provider = config.provider.unwrap_or(self.provider);
        self
    }
}

/// One version of a model, loaded and ready to answer.
#[derive(Debug)]
pub struct Model {
    artifact: Artifact,
    label: String,
    served: Served,
    signature: Arc<Signature>,
    workers: Workers,
}

impl Model {
    /// Loads a model, and runs it once in every session.
    ///
    /// # Errors
    /// When ONNX Runtime cannot load the file, or the model takes or gives what the protocol cannot carry.
    pub fn load(environment: &Environment, artifact: Artifact, settings: Settings) -> anyhow::Result<Self> {
        let label = artifact.to_string();
        let config = artifact.config.as_ref().map_err(|problem| anyhow!("cannot load {label}: {problem}"))?;
        let settings = settings.with(config);
        let provider = settings.provider.resolve(environment);
        let provider = provider.map_err(|problem| anyhow!("cannot load {label}: {problem}"))?;
        // A session runs one request at a time; they share the weights.
        let weights = PrepackedWeights::new();
        let open = {
            let (environment, path) = (environment.clone(), artifact.path.clone());
            move || -> ort::Result<Session> {
                provider
                    .register(Session::builder(&environment)?)?
                    // ONNX Runtime's remarks on every run are formatted before anybody is asked whether to log them.
                    .with_log_level(LogLevel::Warning)?
                    // It would remember one for every shape of inputs, and the clients choose the shapes.
                    .with_memory_pattern(false)?
                    .with_prepacked_weights(&weights)?
                    .commit_from_file(&path)
            }
        };
        let mut first =
            open().with_context(|| format!("cannot load {label} from {}", artifact.path.display()))?;
        let signature = Arc::new(Signature::of(&first).with_context(|| format!("cannot serve {label}"))?);
        let runner = Runner { label: &label, signature: &signature };
        let batch = batching(runner, &mut first, settings);

        let load: Loader = {
            let (label, signature) = (label.clone(), Arc::clone(&signature));
            Box::new(move || {
                let mut session = open().with_context(|| format!("cannot load {label} once more"))?;
                warm(Runner { label: &label, signature: &signature }, &mut session);
                Ok(session)
            })
        };
        warm(runner, &mut first);
        let mut sessions = vec![first];
        for _ in 1..settings.workers.min.get() {
            sessions.push(load()?);
        }
        let workers =
            Workers::start(label.clone(), Arc::clone(&signature), sessions, settings.workers, batch, load)
                .with_context(|| format!("cannot start the workers of {label}"))?;
        let served = Served {
            model: artifact.model.as_str().into(),
            version: artifact.version.as_str().into(),
            hardware: provider.hardware(),
        };
        Ok(Self { artifact, label, served, signature, workers })
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

    /// What the layers are told of it.
    #[must_use]
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Where it is from.
    #[must_use]
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// What it takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What runs it.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Refuses when a request that came now could not wait: before its body is read, which would be for nothing.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn has_room(&self) -> Result<(), Failure> {
        if self.workers.queue().is_full() { Err(self.overloaded()) } else { Ok(()) }
    }

    /// Reads a request by `prepare`, and waits for its answer. Work for which nobody waits any more is not begun.
    ///
    /// # Errors
    /// What `prepare` says; when the queue is full, the deadline passes, the values do not please the model, or it fails.
    pub async fn run<T>(
        &self,
        deadline: Option<Instant>,
        prepare: impl Future<Output = Result<(InferRequest, T), Failure>>,
    ) -> Result<(Outcome, T), Failure> {
        let batch = self.workers.batch();
        let announced = (!batch.delay.is_zero()).then(|| self.workers.queue().announce());
        let (request, rest) = prepare.await?;
        let by_request = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let deadline = deadline.into_iter().chain(by_request).min();
        let (job, answer) = Job::new(request, deadline, batch.size > 1);
        let submitted = self.workers.submit(job);
        drop(announced);
        submitted.map_err(|Full| self.overloaded())?;
        let answered = match deadline {
            None => answer.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), answer).await.map_err(|_| self.too_late())?
            }
        };
        // The worker drops what is overdue without an answer, and what a panic took with it.
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let lost =
            |_| if late { self.too_late() } else { Failure::Internal(format!("{} panicked", self.label)) };
        Ok((answered.map_err(lost)?, rest))
    }

    fn overloaded(&self) -> Failure {
        Failure::Overloaded(format!("{} is overloaded: its queue is full", self.label))
    }

    fn too_late(&self) -> Failure {
        Failure::DeadlineExceeded(format!(
            "{} did not answer within the time that the request gave it",
            self.label
        ))
    }
}

/// How large the model's batches may be.
fn batching(runner: Runner<'_>, session: &mut Session, settings: Settings) -> BatchLimits {
    if settings.batch.size <= 1 || !runner.signature.is_batch(settings.batch_declared) {
        return BatchLimits::NONE;
    }
    match warmup::batches(runner, session) {
        Ok(()) => settings.batch,
        Err(reason) => {
            tracing::info!(model = runner.label, reason, "requests are not batched");
            BatchLimits::NONE
        }
    }
}

fn warm(runner: Runner<'_>, session: &mut Session) {
    if let Err(reason) = warmup::run(runner, session) {
        tracing::info!(model = runner.label, reason, "cannot be warmed up");
    }
}
