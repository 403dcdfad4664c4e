//! Leases of workers' numbers, in the table `workers`.

use super::WORKERS;
use super::generator::{Clock, Ids, Lease, TOLERATED_MS};
use crate::store::{StoreError, signed, unsigned};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// For how long a number is leased, in milliseconds.
pub(super) const LEASE_MS: u64 = 60_000;
/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(20);
/// How often is looked whether one is needed at once.
const LOOK: Duration = Duration::from_secs(1);

/// One who leases numbers.
pub(super) struct Leases {
    connection: Connection,
    /// Its name in the table.
    holder: [u8; 16],
    ids: Ids,
}

impl Leases {
    pub(super) fn new(connection: Connection, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let mut holder = [0; 16];
        getrandom::fill(&mut holder).map_err(|error| {
            StoreError::Incompatible(format!("the system gives no random bytes: {error}"))
        })?;
        Ok(Self { connection, holder, ids: Ids::new(clock) })
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Renews the lease; takes another number when there is none, when somebody else has it, or when the clock went back
    /// behind its ids.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(super) fn renew(&mut self) -> Result<(), StoreError> {
        let now = self.ids.now_ms();
        let (lease, last) = self.ids.leased();
        if let Some(Lease { worker, .. }) = lease.filter(|_| now + TOLERATED_MS >= last) {
            let lease = Lease { worker, expires_at_ms: now + LEASE_MS };
            let renewed = self.connection.execute(
                "UPDATE workers SET expires_at_ms = max(expires_at_ms, ?1), last_ms = max(last_ms, ?2)
                 WHERE worker = ?3 AND holder = ?4",
                params![signed(lease.expires_at_ms)?, signed(last)?, worker, self.holder],
            )?;
            if renewed > 0 {
                self.ids.renewed(lease);
                return Ok(());
            }
        }
        self.take(now)
    }

    /// Takes a number that nobody has made ids with at this time or later.
    fn take(&mut self, now: u64) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (known, last) =
            transaction.query_row("SELECT count(*), coalesce(max(last_ms), 0) FROM workers", [], |row| {
                Ok((row.get::<_, u16>(0)?, unsigned(row, 1)?))
            })?;
        if let Some(back) = last.checked_sub(now).filter(|back| *back > TOLERATED_MS) {
            self.ids.tell_step_back(back);
        }
        let free: Option<u16> = transaction
            .query_row(
                "SELECT worker FROM workers WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms, worker LIMIT 1",
                [signed(now)? - signed(TOLERATED_MS)?],
                |row| row.get(0),
            )
            .optional()?;
        let Some(worker) = free.or((known < WORKERS).then_some(known)) else {
            return Err(StoreError::Incompatible(format!("all {WORKERS} workers' numbers are leased")));
        };
        let lease = Lease { worker, expires_at_ms: now + LEASE_MS };
        transaction.execute(
            "INSERT INTO workers VALUES (?1, ?2, ?3, ?4) ON CONFLICT (worker) DO UPDATE SET
                 holder = excluded.holder, expires_at_ms = excluded.expires_at_ms, last_ms = excluded.last_ms",
            params![worker, self.holder, signed(lease.expires_at_ms)?, signed(now)?],
        )?;
        transaction.commit()?;
        self.ids.begin(lease, now);
        Ok(())
    }

    /// Gives the number back: others may have it once its last id is past.
    ///
    /// # Errors
    /// When the database does not take it. Then the lease expires.
    pub(super) fn give_back(self) -> Result<(), StoreError> {
        let (Some(Lease { worker, .. }), last) = self.ids.leased() else { return Ok(()) };
        // What is still asked for ids gets none.
        self.ids.renewed(Lease { worker, expires_at_ms: 0 });
        let last = self.ids.leased().1.max(last);
        self.connection.execute(
            "UPDATE workers SET expires_at_ms = ?1, last_ms = ?2 WHERE worker = ?3 AND holder = ?4",
            params![signed(last + 1)?, signed(last)?, worker, self.holder],
        )?;
        Ok(())
    }
}

/// Keeps a number leased, by a thread of its own, until it is dropped.
pub(crate) struct Keeper {
    ids: Ids,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Leases a number. `connection` is to the file that has the table.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(crate) fn start(connection: Connection, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let mut leases = Leases::new(connection, clock)?;
        leases.renew()?;
        let ids = leases.ids().clone();
        let (stop, stopping) = channel();
        let thread = std::thread::Builder::new()
            .name("ids".to_owned())
            .spawn(move || keep(leases, &stopping))
            .map_err(|error| StoreError::Incompatible(format!("no thread for ids: {error}")))?;
        Ok(Self { ids, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has said what there was to say.
            let _ = thread.join();
        }
    }
}

fn keep(mut leases: Leases, stopping: &Receiver<()>) {
    let mut renewed = Instant::now();
    while stopping.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        if renewed.elapsed() < RENEWAL && leases.ids.can_work(leases.ids.now_ms()) {
            continue;
        }
        match leases.renew() {
            Ok(()) => renewed = Instant::now(),
            Err(error) => tracing::error!(%error, "the lease of ids is not renewed: {}", error.remedy()),
        }
    }
    if let Err(error) = leases.give_back() {
        tracing::warn!(%error, "the lease of ids is not given back, and expires");
    }
}
