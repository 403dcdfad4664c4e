//! The threads that run a model: each has a session of its own, and takes from the model's queue.

use crate::{
    batch::Runner,
    batch_sizes::BatchSizes,
    job::Job,
    queue::{BatchLimits, Full, Queue, Taken},
    signature::Signature,
};
use ort::session::Session;
use std::{
    fmt, io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// How many workers a model has, and how many requests may wait for them.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// The fewest, which are there from the start.
    pub min: NonZeroUsize,
    /// The most.
    pub max: NonZeroUsize,
    /// How many requests may wait.
    pub queue: usize,
    /// A worker that had nothing to do for so long goes, when there are more than the fewest.
    pub linger: Duration,
}

/// Makes a session for one more worker.
pub type Loader = Box<dyn Fn() -> anyhow::Result<Session> + Send + Sync>;

/// The workers of a model. When dropped, they finish what waits and go.
#[derive(Debug)]
pub struct Workers(Arc<Shared>);

struct Shared {
    label: String,
    signature: Arc<Signature>,
    queue: Queue<Job>,
    sizes: BatchSizes,
    limits: WorkerLimits,
    batch: BatchLimits,
    load: Loader,
    count: AtomicUsize,
    running: AtomicUsize,
    /// One more worker is on its way.
    growing: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("label", &self.label)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts a worker for each of the sessions; `load` makes those of more.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        label: String,
        signature: Arc<Signature>,
        sessions: Vec<Session>,
        limits: WorkerLimits,
        batch: BatchLimits,
        load: Loader,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            label,
            signature,
            queue: Queue::new(limits.queue),
            sizes: BatchSizes::default(),
            limits,
            batch,
            load,
            count: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            growing: AtomicBool::new(false),
        });
        // Made before the first thread, so that those that were started go when another cannot be.
        let workers = Self(shared);
        for session in sessions {
            workers.0.count.fetch_add(1, Ordering::Relaxed);
            spawn(&workers.0, |shared| work(shared, session))?;
        }
        Ok(workers)
    }

    /// Its queue.
    #[must_use]
    pub fn queue(&self) -> &Queue<Job> {
        &self.0.queue
    }

    /// How much was run together.
    #[must_use]
    pub fn sizes(&self) -> &BatchSizes {
        &self.0.sizes
    }

    /// How large batches become.
    #[must_use]
    pub fn batch(&self) -> BatchLimits {
        self.0.batch
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How many of them are running something.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// Adds a request to the queue.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn submit(&self, job: Job) -> Result<(), Full> {
        let beyond = self.0.queue.push(job)?;
        self.0.grow(beyond);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

fn spawn(shared: &Arc<Shared>, body: impl FnOnce(&Arc<Shared>) + Send + 'static) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let name = format!("run {}", shared.label);
    thread::Builder::new().name(name).spawn(move || body(&shared)).map(|_| ())
}

fn work(shared: &Arc<Shared>, mut session: Session) {
    let runner = Runner { label: &shared.label, signature: &shared.signature };
    loop {
        match shared.queue.take(shared.batch, shared.limits.linger) {
            Taken::Batch(jobs) => {
                shared.running.fetch_add(1, Ordering::Relaxed);
                shared.grow(shared.queue.waiting());
                shared.sizes.observe(&jobs);
                // Whose answer is lost by a panic, sees its channel closed.
                let outcome = catch_unwind(AssertUnwindSafe(|| runner.run(&mut session, jobs)));
                shared.running.fetch_sub(1, Ordering::Relaxed);
                if outcome.is_err() {
                    tracing::error!(model = shared.label, "a run panicked");
                }
            }
            Taken::Idle if shared.leave() => return,
            Taken::Idle => {}
            Taken::Closed => return,
        }
    }
}

impl Shared {
    /// Adds a worker when as many requests wait as are being served, up to the most.
    fn grow(self: &Arc<Self>, waiting: usize) {
        let count = self.count.load(Ordering::Relaxed);
        if waiting < count || count >= self.limits.max.get() || self.growing.swap(true, Ordering::AcqRel) {
            return;
        }
        // Its session is made on the new thread: loading takes longer than many a request may wait.
        let begun = spawn(self, |shared| match (shared.load)() {
            Ok(session) => {
                let count = shared.count.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(model = shared.label, workers = count, "one more worker");
                shared.growing.store(false, Ordering::Release);
                work(shared, session);
            }
            // `growing` stays: what failed once for want of memory is not tried with every request.
            Err(error) => {
                tracing::warn!(model = shared.label, error = format!("{error:#}"), "no more workers");
            }
        });
        if let Err(error) = begun {
            tracing::warn!(model = self.label, %error, "no more workers");
        }
    }

    /// Gives up a worker's place, when there are more than the fewest.
    fn leave(&self) -> bool {
        let fewer = |count: usize| (count > self.limits.min.get()).then(|| count - 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }
}
