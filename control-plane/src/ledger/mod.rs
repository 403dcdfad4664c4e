//! The ledger: what backends observed, counted once, and what it adds up to.
//!
//! A batch is checked ([`batch`](self), `statistics`), waits for the writer (`writer`), and is answered when it is in the
//! file (`database`). Statistics are merged there; the units of releases are in memory too (`units`, in records of 24
//! bytes), where they are counted as they come (`tally`). `read` puts both together to what the judge takes in, and
//! `service` is the gRPC side. `docs/ledger.md` says what holds and why.

mod batch;
mod counters;
mod database;
mod outcome;
mod outcome_table;
#[cfg(test)]
mod outcome_tests;
mod outcomes;
mod read;
mod record;
mod service;
mod sorted;
mod statistics;
mod tally;
#[cfg(test)]
mod tests;
mod traced;
mod units;
mod windows;
mod writer;

pub use counters::metrics;
pub(crate) use database::connection;
pub use outcome::{EVAL_VERSION, KeptOutcome, Outcome, Taken};
pub use outcomes::OutcomeCounts;
pub use read::{
    ArmObservations, EpochObservations, Omitted, ReleaseObservations, ReleaseSummary, SeriesStatistics,
};
pub use service::{Access, Grpc, MAX_MESSAGE, grpc};
pub use statistics::Statistics;
pub use tally::{ArmUnits, EpochUnits};
pub use windows::{Aggregate, ArmOutcomes, Missing, OutcomeQuery};

use crate::{
    ids::{IdError, Ids, Keeper, SystemClock},
    published_names::PublishedNames,
    store::StoreError,
};
use batch::Batch;
use counters::Counters;
use database::{Database, Loaded, ReleaseId};
use halftone_proto::v1::ObservationBatch;
use outcomes::Outcomes;
use rusqlite::Connection;
use sorted::Element;
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;
use units::Units;
use writer::{Job, Pace, Parts, Writer};

/// Batches that wait for the writer.
const WAITING: usize = 64;

/// Why a batch or an outcome will never be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The same, with the place.
    fn at(self, place: impl Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

/// Why a batch or an outcome was not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It never will be.
    #[error("it is refused: {0}")]
    Refused(#[from] Refusal),
    /// Others wait already.
    #[error("the ledger is behind: try again in a moment")]
    Busy,
    /// There are as many units as there may be.
    #[error(
        "the ledger holds {0} records of units and outcomes, which is what --max-units allows: give it more, or observations fewer days \
         by --keep-observations"
    )]
    Full(usize),
    /// The file takes none.
    #[error("{0}; nothing was taken: {remedy}", remedy = .0.remedy())]
    Store(#[from] StoreError),
    /// There is no name for its record.
    #[error("{0}; nothing was taken")]
    Ids(#[from] IdError),
    /// The control plane stops.
    #[error("the control plane is stopping")]
    Stopped,
}

impl LedgerError {
    /// The same for another batch.
    fn of_store(error: &StoreError) -> Self {
        Self::Store(error.again())
    }
}

/// What a ledger may take.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Limits {
    /// Days for which observations are kept after the last one of their release.
    #[arg(long = "keep-observations", env = "HALFTONE_KEEP_OBSERVATIONS", value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u16).range(2..))]
    pub keep_days: u16,
    /// Records of units that are kept, of all releases together: one for each arm and epoch that a unit is seen in, and one
    /// for each metric that it has a bad event of; and outcomes. Each takes about 40 bytes of memory.
    #[arg(long, env = "HALFTONE_MAX_UNITS", default_value_t = 20_000_000)]
    pub max_units: usize,
    /// Requests whose trace is sampled that are kept, the newest ones, for `halftone trace`. Each takes about 300 bytes on
    /// the disk.
    #[arg(
        long,
        env = "HALFTONE_KEEP_TRACES",
        value_name = "N",
        default_value_t = 100_000,
        allow_negative_numbers = true
    )]
    pub keep_traces: u32,
}

impl Limits {
    fn keep(self) -> Duration {
        Duration::from_secs(u64::from(self.keep_days) * 24 * 3600)
    }
}

/// The units and the outcomes of all releases, as far as they are durable.
#[derive(Default)]
struct Held {
    releases: BTreeMap<ReleaseId, Units>,
    outcomes: BTreeMap<ReleaseId, Outcomes>,
}

impl Held {
    fn records(&self) -> usize {
        self.releases.values().map(Units::records).sum::<usize>() + self.outcomes()
    }

    fn outcomes(&self) -> usize {
        self.outcomes.values().map(Outcomes::records).sum()
    }

    /// Takes outcomes, with the names of their metrics.
    fn add_outcomes(
        &mut self,
        release: ReleaseId,
        metrics: &BTreeMap<u16, String>,
        records: impl IntoIterator<Item = outcomes::Record>,
    ) {
        let outcomes = self.outcomes.entry(release).or_insert_with(Outcomes::new);
        metrics.iter().for_each(|(metric, name)| outcomes.name(*metric, name));
        outcomes.add(records);
    }

    fn forget(&mut self, release: ReleaseId) {
        self.releases.remove(&release);
        self.outcomes.remove(&release);
    }

    fn release(&mut self, release: ReleaseId) -> &mut Units {
        self.releases.entry(release).or_insert_with(Units::new)
    }

    /// Takes over what was kept. Whether it can be.
    fn load(&mut self, release: ReleaseId, loaded: Loaded) -> bool {
        let units = self.release(release);
        match loaded {
            Loaded::Cell(index, cell) => units.name(index, cell),
            Loaded::Partition(partition, records) => return units.load(partition.into(), records),
            Loaded::Log(records) => units.add(records),
        }
        true
    }
}

/// The units of all releases, with the writer and those who read taking turns.
#[derive(Default)]
struct Shared {
    held: Mutex<Held>,
    /// Those who wait to read. The writer gives way to them: a lock alone goes to whoever comes first, which is the
    /// one that had it.
    reading: AtomicUsize,
}

impl Shared {
    fn read<T>(&self, read: impl FnOnce(&Held) -> T) -> T {
        self.reading.fetch_add(1, Relaxed);
        let held = lock(&self.held);
        self.reading.fetch_sub(1, Relaxed);
        read(&held)
    }

    fn write<T>(&self, write: impl FnOnce(&mut Held) -> T) -> T {
        while self.reading.load(Relaxed) > 0 {
            std::thread::sleep(GIVING_WAY);
        }
        write(&mut lock(&self.held))
    }
}

/// How long the writer waits at a time while others wait to read.
const GIVING_WAY: Duration = Duration::from_micros(50);

/// A panic while a lock was held leaves what is durable as it is; that it can be read is worth more than a second panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ledger. It is written by a thread of its own, which ends with this.
pub struct Ledger {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    ids: Keeper,
    reader: Mutex<Connection>,
    limits: Limits,
    /// Both are there until it is dropped.
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Opens the file, creates what is missing, and reads what is known of units. What was `published` always has a place of its
    /// own.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, or was written by a newer build.
    pub fn open(path: &Path, limits: Limits, published: Arc<PublishedNames>) -> Result<Self, StoreError> {
        Self::open_at(path, limits, published, Pace::default())
    }

    fn open_at(
        path: &Path,
        limits: Limits,
        published: Arc<PublishedNames>,
        pace: Pace,
    ) -> Result<Self, StoreError> {
        let database = Database::open(path)?;
        // There may have been room for more the last time.
        traced::trim(&database.0, limits.keep_traces)?;
        let mut held = Held::default();
        database.load(|release, loaded| held.load(release, loaded))?;
        database.load_outcomes(|release, metrics, mut records| {
            records.sort_unstable_by(Element::order);
            held.add_outcomes(release, &metrics, records);
        })?;
        let shared = Arc::new(Shared { held: Mutex::new(held), ..Shared::default() });
        let ids = Keeper::start(connection(path)?, Arc::new(SystemClock))?;
        let counters = Arc::new(Counters::default());
        let (jobs, queue) = sync_channel(WAITING);
        let parts = Parts {
            shared: Arc::clone(&shared),
            counters: Arc::clone(&counters),
            ids: ids.ids().clone(),
            limits,
            published,
            pace,
        };
        let writer = Writer::new(database, parts)?;
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| StoreError::Incompatible(format!("no thread for the ledger: {error}")))?;
        let reader = Mutex::new(Database::reader(path)?);
        Ok(Self { shared, counters, ids, reader, limits, jobs: Some(jobs), writer: Some(writer) })
    }

    /// Takes a batch; the answer, the last sequence of its source that is kept, comes when it is durable. Checking blocks
    /// for as long as it takes.
    ///
    /// # Errors
    /// When it is not taken; nothing has changed then.
    pub fn report(
        &self,
        batch: ObservationBatch,
    ) -> Result<impl Future<Output = Result<u64, LedgerError>> + use<>, LedgerError> {
        let batch = Batch::checked(batch, now_ms(), self.limits.keep())
            .inspect_err(|_| self.counters.batches_refused.add(1))?;
        let (answer, answered) = oneshot::channel();
        self.submit(Job::Batch { batch, answer })?;
        Ok(async { answered.await.unwrap_or(Err(LedgerError::Stopped)) })
    }

    /// Takes outcomes, each by itself; the answer, what became of each, comes when they are durable. Those that were refused
    /// already are answered in their places.
    ///
    /// # Errors
    /// When none is looked at; nothing has changed then.
    pub fn take_outcomes(
        &self,
        outcomes: Vec<Result<Outcome, Refusal>>,
    ) -> Result<impl Future<Output = Result<Vec<Result<Taken, LedgerError>>, LedgerError>> + use<>, LedgerError>
    {
        let (now, keep) = (now_ms(), self.limits.keep());
        let checked = outcomes.into_iter().map(|outcome| outcome?.checked(now, keep));
        let (answer, answered) = oneshot::channel();
        self.submit(Job::Outcomes { outcomes: checked.collect(), answer })?;
        Ok(async { answered.await.unwrap_or(Err(LedgerError::Stopped)) })
    }

    fn submit(&self, job: Job) -> Result<(), LedgerError> {
        let jobs = self.jobs.as_ref().ok_or(LedgerError::Stopped)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LedgerError::Busy,
            TrySendError::Disconnected(_) => LedgerError::Stopped,
        })
    }

    /// What makes ids for records.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        self.ids.ids()
    }

    /// The last sequence of the source that is kept; 0 when there is none. Blocks.
    ///
    /// # Errors
    /// When the source is none, or the database does not answer.
    pub fn resume(&self, source: &[u8]) -> Result<u64, LedgerError> {
        let source = batch::source(source)?;
        Ok(database::last_sequence(&lock(&self.reader), &source)?.unwrap_or_default())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // It has said what there was to say.
            let _ = writer.join();
        }
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
