//! One version of a model, loaded and ready to answer.

use crate::{
    batch::Runner,
    call::Call,
    checks::Checks,
    config::{BatchConfig, FILE, ModelConfig, WorkersConfig},
    failure::Failure,
    features::{Bound, Features},
    job::{Job, Outcome},
    provider::{Provider, ProviderChoice},
    queue::{BatchLimits, Full},
    rejections::Reason,
    remote::Remote,
    repository::{Artifact, Source},
    request::InferRequest,
    signature::Signature,
    warmup,
    workers::{Loader, WorkerLimits, Workers},
};
use anyhow::{Context, anyhow, bail};
use halftone_telemetry::context::Served;
use ort::{
    environment::Environment,
    logging::LogLevel,
    session::{Session, builder::PrepackedWeights},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot};

/// The protocol's name for models that are run here.
const PLATFORM: &str = "onnx_onnxv1";

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
    checks: Arc<Checks>,
    /// The signature without what is bound.
    offered: Signature,
    features: Option<Features>,
    place: Place,
}

/// Where a model is run.
#[derive(Debug)]
enum Place {
    Here(Workers),
    Elsewhere(Box<Remote>),
}

impl Model {
    /// Loads a model, and runs it once in every session; or asks the server that has it. To be called within tokio's runtime,
    /// where it may take its time.
    ///
    /// # Errors
    /// When ONNX Runtime cannot load the file, the server is [`Away`](crate::remote::Away), or the model takes or gives what
    /// the protocol cannot carry.
    pub fn load(environment: &Environment, artifact: Artifact, settings: Settings) -> anyhow::Result<Self> {
        let label = artifact.to_string();
        let wrong = |problem: &String| anyhow!("cannot load {label}: {problem}");
        let settings = settings.with(artifact.config.as_ref().map_err(wrong)?);
        let (signature, place, hardware) = match artifact.source.as_ref().map_err(wrong)? {
            Source::File(path) => {
                let provider = settings.provider.resolve(environment).map_err(|problem| wrong(&problem))?;
                let (signature, workers) = workers(environment, provider, &artifact, path, settings)?;
                (signature, Place::Here(workers), provider.hardware())
            }
            Source::Remote(config) => {
                let limit = settings.workers.queue;
                let remote = Remote::connect(config, &artifact.model, &label, limit);
                let remote = Handle::current().block_on(remote)?;
                (Arc::clone(remote.signature()), Place::Elsewhere(Box::new(remote)), "remote")
            }
        };
        let config = artifact.config.as_ref().map_err(wrong)?;
        let checks = Checks::new(&config.checks, &signature)
            .map_err(|problem| anyhow!("cannot serve {label}: {FILE}: {problem}"))?;
        let features =
            config.features.as_ref().map(|config| Features::new(&label, config, &signature)).transpose();
        let features =
            features.map_err(|problem| anyhow!("cannot serve {label}: config.json: features: {problem}"))?;
        let offered = features.as_ref().map_or_else(|| (*signature).clone(), |f| f.offered(&signature));
        let served = Served {
            model: artifact.model.as_str().into(),
            version: artifact.version.as_str().into(),
            hardware,
        };
        Ok(Self { artifact, label, served, signature, checks: Arc::new(checks), offered, features, place })
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

    /// What is looked for in its outputs.
    #[must_use]
    pub fn checks(&self) -> &Arc<Checks> {
        &self.checks
    }

    /// What clients are told that it takes and gives: without the inputs that are bound to something else.
    #[must_use]
    pub fn offered(&self) -> &Signature {
        &self.offered
    }

    /// The inputs that the client does not send.
    ///
    /// # Errors
    /// When there is one that cannot be had now.
    pub async fn bind(&self, call: &Call) -> Result<Vec<Bound>, Failure> {
        match &self.features {
            Some(features) => {
                let _stage = call.stage("features");
                features.bind(call).await
            }
            None => Ok(Vec::new()),
        }
    }

    /// What runs it, when it is run here.
    #[must_use]
    pub fn workers(&self) -> Option<&Workers> {
        match &self.place {
            Place::Here(workers) => Some(workers),
            Place::Elsewhere(_) => None,
        }
    }

    /// Who runs it, when that is another server.
    #[must_use]
    pub fn remote(&self) -> Option<&Remote> {
        match &self.place {
            Place::Here(_) => None,
            Place::Elsewhere(remote) => Some(remote),
        }
    }

    /// What runs it, in the protocol's words.
    #[must_use]
    pub fn platform(&self) -> &str {
        self.remote().map_or(PLATFORM, Remote::platform)
    }

    /// Whether it answers, as far as is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.remote().is_none_or(|remote| remote.health().is_ready())
    }

    /// Refuses when a request that came now could not wait: before its body is read, which would be for nothing.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn has_room(&self) -> Result<(), Failure> {
        match &self.place {
            Place::Here(workers) if workers.queue().is_full() => Err(self.overloaded()),
            Place::Elsewhere(remote) if !remote.has_room() => Err(remote.overloaded()),
            _ => Ok(()),
        }
    }

    /// Reads a request by `prepare`, and waits for its answer. Work for which nobody waits any more is not begun.
    ///
    /// # Errors
    /// What `prepare` says; when the queue is full, the deadline passes, the values do not please the model, or it fails.
    pub async fn run<T>(
        &self,
        call: &Call,
        prepare: impl Future<Output = Result<(InferRequest, T), Failure>>,
    ) -> Result<(Outcome, T), Failure> {
        let by = |request: &InferRequest| {
            let by_request = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            call.deadline.into_iter().chain(by_request).min()
        };
        match &self.place {
            Place::Here(workers) => {
                let delayed = !workers.batch().delay.is_zero();
                let announced = delayed.then(|| workers.queue().announce());
                let (request, rest) = prepare.await?;
                let deadline = by(&request);
                let (job, answer) =
                    Job::new(request, deadline, workers.batch().size > 1, call.context.as_ref());
                let submitted = workers.submit(job);
                drop(announced);
                submitted.map_err(|Full| self.overloaded())?;
                Ok((self.wait(deadline, answer).await?, rest))
            }
            Place::Elsewhere(remote) => {
                let (request, rest) = prepare.await?;
                let deadline = by(&request);
                Ok((remote.run(call, deadline, request).await, rest))
            }
        }
    }

    async fn wait(
        &self,
        deadline: Option<Instant>,
        answer: oneshot::Receiver<Outcome>,
    ) -> Result<Outcome, Failure> {
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
        answered.map_err(lost)
    }

    fn overloaded(&self) -> Failure {
        let problem = format!("{} is overloaded: its queue is full", self.label);
        Failure::Overloaded { problem, reason: Reason::QueueFull }
    }

    fn too_late(&self) -> Failure {
        Failure::DeadlineExceeded(format!(
            "{} did not answer within the time that the request gave it",
            self.label
        ))
    }
}

/// Loads a file, and starts its workers.
fn workers(
    environment: &Environment,
    provider: Provider,
    artifact: &Artifact,
    path: &Path,
    settings: Settings,
) -> anyhow::Result<(Arc<Signature>, Workers)> {
    let label = &artifact.to_string();
    // A session runs one request at a time; they share the weights.
    let weights = PrepackedWeights::new();
    let open = {
        let (environment, path) = (environment.clone(), path.to_owned());
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
    let mut first = open().with_context(|| format!("cannot load {label} from {}", path.display()))?;
    let signature = Arc::new(Signature::of(&first).with_context(|| format!("cannot serve {label}"))?);
    let runner = Runner { label, signature: &signature };
    let batch = batching(runner, &mut first, settings);

    let load: Loader = {
        let (artifact, label, signature) = (artifact.clone(), label.to_owned(), Arc::clone(&signature));
        Box::new(move || {
            let mut session = open().with_context(|| format!("cannot load {label} once more"))?;
            // A worker with another file than its fellows would give other answers.
            if !artifact.is_as_found() {
                bail!("cannot load {label} once more: its files have changed");
            }
            warm(Runner { label: &label, signature: &signature }, &mut session);
            Ok(session)
        })
    };
    warm(runner, &mut first);
    let mut sessions = vec![first];
    for _ in 1..settings.workers.min.get() {
        sessions.push(load()?);
    }
    let (label, limits) = (label.to_owned(), settings.workers);
    let context = format!("cannot start the workers of {label}");
    let workers = Workers::start(label, Arc::clone(&signature), sessions, limits, batch, load);
    Ok((signature, workers.context(context)?))
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
