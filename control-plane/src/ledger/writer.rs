//! The one that writes: batches and outcomes as they come, several in one transaction when they come faster than the disk, and now and
//! then a picture of the units, so that the log stays short.

use super::batch::Batch;
use super::counters::Counters;
use super::database::{Database, ReleaseId};
use super::outcome::{Outcome, Taken};
use super::outcome_table::Terms;
use super::record::{BYTES, Record};
use super::{Held, LedgerError, Limits, Refusal, Shared, now_ms};
use crate::{ids::Ids, published_names::PublishedNames, store::StoreError};
use halftone_telemetry::throttle::Throttle;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Jobs of one transaction.
const GROUP: usize = 32;

/// When a picture is made, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of the log at which one begins.
    pub(super) log_bytes: usize,
    /// Entries of the log at which one begins, when they are small.
    pub(super) log_entries: usize,
    /// Bytes that are written at once: batches wait so long.
    pub(super) step_bytes: usize,
}

impl Default for Pace {
    /// A log of a few seconds' worth of reading after a crash.
    fn default() -> Self {
        Self { log_bytes: 32 << 20, log_entries: 50_000, step_bytes: 2 << 20 }
    }
}

/// Records that are counted at once: whoever reads waits so long.
const COUNTED: usize = 2_048;

/// How often is looked what can go.
const HOUSEKEEPING: Duration = Duration::from_secs(600);
/// A source that was not heard of for so long has probably ended.
const QUIET: Duration = Duration::from_secs(24 * 3600);
/// How long to leave a database alone that did not take a picture.
const PAUSE: Duration = Duration::from_secs(5);

/// What is to be kept, and who waits for it.
pub(super) enum Job {
    Batch { batch: Batch, answer: BatchAnswer },
    Outcomes { outcomes: Vec<Result<Outcome, Refusal>>, answer: OutcomesAnswer },
}

type BatchAnswer = oneshot::Sender<Result<u64, LedgerError>>;
type OutcomesAnswer = oneshot::Sender<Result<Vec<Result<Taken, LedgerError>>, LedgerError>>;

/// What a writer works with.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) ids: Ids,
    pub(super) limits: Limits,
    pub(super) published: Arc<PublishedNames>,
    pub(super) pace: Pace,
}

/// What of a picture is to be written.
struct Picture {
    partitions: Vec<(ReleaseId, usize)>,
    /// What was in the log when it began.
    covered: i64,
}

pub(super) struct Writer {
    database: Database,
    parts: Parts,
    /// What the log has: bytes, and entries since the last picture.
    logged: (usize, usize),
    picture: Option<Picture>,
    not_before: Instant,
    housekeeping: Instant,
    unpublished_warning: Throttle,
}

impl Writer {
    pub(super) fn new(database: Database, parts: Parts) -> Result<Self, StoreError> {
        let logged = (database.log()?.1, 0);
        let now = Instant::now();
        let unpublished_warning = Throttle::default();
        Ok(Self {
            database,
            parts,
            logged,
            picture: None,
            not_before: now,
            housekeeping: now,
            unpublished_warning,
        })
    }

    /// Works until nobody can bring anything any longer.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = if self.picture.is_some() && Instant::now() >= self.not_before {
                match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            } else {
                match jobs.recv_timeout(PAUSE) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            };
            if let Some(first) = first {
                self.take(std::iter::once(first).chain(jobs.try_iter().take(GROUP - 1)).collect());
            }
            if let Err(error) = self.keep_in_order() {
                tracing::error!(%error, "the ledger cannot be put in order, and grows: {}", error.remedy());
                self.not_before = Instant::now() + PAUSE;
            }
        }
    }

    /// Keeps what has come, and answers.
    fn take(&mut self, jobs: Vec<Job>) {
        let (mut batches, mut outcomes) = (Vec::new(), (Vec::new(), Vec::new()));
        for job in jobs {
            match job {
                Job::Batch { batch, answer } => batches.push((batch, answer)),
                Job::Outcomes { outcomes: of_job, answer } => {
                    outcomes.0.push(of_job);
                    outcomes.1.push(answer);
                }
            }
        }
        if !batches.is_empty() {
            self.take_batches(batches);
        }
        if !outcomes.0.is_empty() {
            self.take_outcomes(outcomes.0, outcomes.1);
        }
    }

    fn take_batches(&mut self, jobs: Vec<(Batch, BatchAnswer)>) {
        let mut records = self.parts.shared.read(Held::records);
        let (mut batches, mut answers) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for (batch, answer) in jobs {
            // Some may be known already; whoever is so near to the limit needs more anyway.
            let after = records + batch.records();
            if after > self.parts.limits.max_units && batch.records() > 0 {
                let full = LedgerError::Full(records);
                tracing::error!(error = %full, "observations are not taken");
                self.parts.counters.batches_refused.add(1);
                respond(answer, Err(full));
                continue;
            }
            records = after;
            batches.push(batch);
            answers.push(answer);
        }
        let Parts { limits, published, .. } = &self.parts;
        match self.database.keep(&batches.iter().collect::<Vec<_>>(), published, limits.keep_traces) {
            Err(error) => {
                tracing::error!(%error, "observations are not taken: {}", error.remedy());
                self.parts.counters.batches_refused.add(answers.len());
                answers.into_iter().for_each(|answer| respond(answer, Err(LedgerError::of_store(&error))));
            }
            Ok(kept) => {
                for (kept, answer) in kept.into_iter().zip(answers) {
                    let sequence = kept.map(|kept| {
                        self.nameless(kept.nameless);
                        for (release, added) in kept.added {
                            self.logged.0 += added.records.len() * BYTES;
                            self.logged.1 += 1;
                            for (index, cell) in added.cells {
                                self.parts.shared.write(|held| held.release(release).name(index, cell));
                            }
                            self.count(release, &added.records);
                        }
                        kept.sequence
                    });
                    self.parts.counters.batch(&sequence);
                    respond(answer, sequence);
                }
            }
        }
    }

    /// Tells of series that found no place of their own.
    fn nameless(&mut self, series: usize) {
        self.parts.counters.nameless.add(series);
        if series > 0 && self.unpublished_warning.is_due() {
            tracing::warn!(
                series,
                "observations name what was never published here, and are counted without names: who sends requests past the \
                 filter makes such names up"
            );
        }
    }

    fn take_outcomes(&mut self, jobs: Vec<Vec<Result<Outcome, Refusal>>>, answers: Vec<OutcomesAnswer>) {
        let Parts { shared, counters, ids, limits, .. } = &self.parts;
        let terms =
            Terms { ids, now_ms: now_ms(), records: shared.read(Held::records), most: limits.max_units };
        let asked = jobs.iter().map(Vec::len).sum();
        match self.database.keep_outcomes(jobs, terms) {
            Err(error) => {
                tracing::error!(%error, "outcomes are not taken: {}", error.remedy());
                counters.outcomes_refused.add(asked);
                answers.into_iter().for_each(|answer| respond(answer, Err(LedgerError::of_store(&error))));
            }
            Ok((results, new)) => {
                for (release, records) in new.records {
                    let metrics = new.metrics.get(&release).cloned().unwrap_or_default();
                    for some in records.chunks(COUNTED) {
                        shared.write(|held| held.add_outcomes(release, &metrics, some.iter().copied()));
                    }
                }
                for (results, answer) in results.into_iter().zip(answers) {
                    results.iter().for_each(|result| counters.outcome(result));
                    respond(answer, Ok(results));
                }
            }
        }
    }

    fn count(&self, release: ReleaseId, records: &[Record]) {
        for some in records.chunks(COUNTED) {
            self.parts.shared.write(|held| held.release(release).add(some.iter().copied()));
        }
    }

    /// Goes on with the picture, begins one when the log is long, and forgets what is old.
    fn keep_in_order(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now < self.not_before {
            return Ok(());
        }
        if self.picture.is_none()
            && (self.logged.0 >= self.parts.pace.log_bytes || self.logged.1 >= self.parts.pace.log_entries)
        {
            let partitions = self.parts.shared.read(|held| {
                let of = held.releases.iter();
                of.flat_map(|(release, units)| units.changed().into_iter().map(|changed| (*release, changed)))
                    .collect()
            });
            self.picture = Some(Picture { partitions, covered: self.database.log()?.0 });
            self.logged = (0, 0);
        }
        self.picture_step()?;
        if now >= self.housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
            let ago =
                |time: Duration| now_ms().saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            for release in self.database.retain(ago(QUIET), ago(self.parts.limits.keep()))? {
                self.parts.shared.write(|held| held.forget(release));
            }
        }
        Ok(())
    }

    /// Writes the next partitions. What comes meanwhile may be in them or not: it is in the log, too.
    fn picture_step(&mut self) -> Result<(), StoreError> {
        let Some(picture) = &mut self.picture else { return Ok(()) };
        let (mut step, mut bytes) = (Vec::new(), 0);
        while bytes < self.parts.pace.step_bytes
            && let Some((release, partition)) = picture.partitions.pop()
        {
            let blob = self.parts.shared.write(|held| {
                // A release may be gone meanwhile.
                let units = held.releases.get_mut(&release)?;
                units.set_changed(partition, false);
                Some(units.blob(partition))
            });
            if let Some(blob) = blob {
                bytes += blob.len();
                step.push((release, partition, blob));
            }
        }
        let covered = picture.partitions.is_empty().then_some(picture.covered);
        match self.database.picture(&step, covered) {
            Ok(()) if covered.is_some() => self.picture = None,
            Ok(()) => {}
            Err(error) => {
                for (release, partition, _) in step {
                    self.parts.shared.write(|held| {
                        held.releases.get_mut(&release).map(|units| units.set_changed(partition, true))
                    });
                    picture.partitions.push((release, partition));
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Whoever does not wait any longer asks again.
fn respond<T>(answer: oneshot::Sender<T>, result: T) {
    let _ = answer.send(result);
}
