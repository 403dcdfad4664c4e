//! The ledger's file.
//!
//! What came last is in `log`, in the order in which it came; `units` has, partition by partition, what was known of a
//! release's units at some moment after all that is no longer in `log`. Records may be in both: they merge. Statistics
//! may not, and change in the transaction that keeps their batch.

use super::batch::{Batch, FORMER, Source};
use super::record::{BYTES, MAX_CELLS, Record};
use super::sorted::Element;
use super::statistics::Statistics;
use super::tally::Cell;
use super::{LedgerError, Refusal, traced};
use crate::{
    published_names::PublishedNames,
    store::{
        StoreError,
        file::{self, Schema},
        signed, unsigned,
    },
};
use halftone_judge::stats::Merge;
use halftone_proto::v1::Series;
use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

const SCHEMA: Schema = Schema { create: CREATE, upgrades: &[FROM_1_TO_2, FROM_2_TO_3, FROM_3_TO_4] };

/// What the schema before lacks.
macro_rules! from_1_to_2 {
    () => {
        "
    -- When the last outcome came: milliseconds since the Unix epoch.
    ALTER TABLE releases ADD COLUMN outcome_ms INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE outcome_metrics (
        release INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        metric  INTEGER NOT NULL,
        name    TEXT NOT NULL,
        PRIMARY KEY (release, metric),
        UNIQUE (release, name)
    ) STRICT;
    CREATE TABLE outcomes (
        release         INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        key             TEXT NOT NULL,
        record          INTEGER NOT NULL,
        processed_at_ms INTEGER NOT NULL,
        eval_version    INTEGER NOT NULL,
        metric          INTEGER NOT NULL,
        unit            INTEGER NOT NULL,
        time_ms         INTEGER NOT NULL,
        value           REAL NOT NULL,
        PRIMARY KEY (release, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE workers (
        worker        INTEGER PRIMARY KEY,
        holder        BLOB NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        last_ms       INTEGER NOT NULL
    ) STRICT;
"
    };
}

const FROM_1_TO_2: &str = from_1_to_2!();

/// The same: traced requests.
macro_rules! from_2_to_3 {
    () => {
        "
    ALTER TABLE sources ADD COLUMN omitted_traced INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE traced (
        -- In the order in which they came; the oldest go, so there are no gaps.
        id        INTEGER PRIMARY KEY,
        trace_id  BLOB NOT NULL,
        parent_id BLOB NOT NULL,
        request   BLOB NOT NULL
    ) STRICT;
    CREATE INDEX traced_by_trace ON traced (trace_id);
    CREATE INDEX traced_by_parent ON traced (parent_id);
"
    };
}

const FROM_2_TO_3: &str = from_2_to_3!();

/// The same: which series were published.
macro_rules! from_3_to_4 {
    () => {
        "
    -- 0 where it was not when it came last: there are no more than so many of these.
    ALTER TABLE series ADD COLUMN published INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX series_unpublished ON series (published) WHERE published = 0;
"
    };
}

const FROM_3_TO_4: &str = from_3_to_4!();

const CREATE: &str = concat!(
    "
    CREATE TABLE sources (
        source           BLOB PRIMARY KEY,
        sequence         INTEGER NOT NULL,
        ended_ms         INTEGER NOT NULL,
        omitted_requests INTEGER NOT NULL,
        omitted_units    INTEGER NOT NULL,
        omitted_batches  INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE series (
        id       INTEGER PRIMARY KEY,
        ruleset  TEXT NOT NULL,
        release  TEXT NOT NULL,
        epoch    INTEGER NOT NULL,
        arm      TEXT NOT NULL,
        target   TEXT NOT NULL,
        model    TEXT NOT NULL,
        version  TEXT NOT NULL,
        begun_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        UNIQUE (ruleset, release, epoch, arm, target, model, version)
    ) STRICT;
    CREATE TABLE statistics (
        series INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
        metric TEXT NOT NULL,
        source BLOB NOT NULL,
        value  BLOB NOT NULL,
        PRIMARY KEY (series, metric, source)
    ) STRICT;
    CREATE INDEX statistics_by_source ON statistics (source);
    CREATE TABLE releases (
        id      INTEGER PRIMARY KEY,
        ruleset TEXT NOT NULL,
        release TEXT NOT NULL,
        UNIQUE (ruleset, release)
    ) STRICT;
    CREATE TABLE cells (
        release INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        cell    INTEGER NOT NULL,
        epoch   INTEGER NOT NULL,
        arm     TEXT NOT NULL,
        PRIMARY KEY (release, cell),
        UNIQUE (release, epoch, arm)
    ) STRICT;
    CREATE TABLE units (
        release   INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        partition INTEGER NOT NULL,
        records   BLOB NOT NULL,
        PRIMARY KEY (release, partition)
    ) STRICT;
    CREATE TABLE log (
        -- Never used again, so that a picture covers nothing that came after it began.
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        release INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        records BLOB NOT NULL
    ) STRICT;
    CREATE INDEX log_by_release ON log (release);
",
    from_1_to_2!(),
    from_2_to_3!(),
    from_3_to_4!()
);

/// Series that were never published and are kept under their own names all the same: those of proxies with rules of another origin. Whoever
/// reaches a backend past the filter can make names up, and each series takes memory and place on the disk.
pub(super) const MOST_UNPUBLISHED: i64 = 256;

/// Memory for pages of the file.
const CACHE_KIB: i64 = 16 << 10;

/// A release's number in the file.
pub(super) type ReleaseId = i64;

/// A connection to the file, which is made when it is missing.
///
/// # Errors
/// When the file cannot be opened or was written by a newer build.
pub(crate) fn connection(path: &Path) -> Result<Connection, StoreError> {
    file::open(path, &SCHEMA)
}

/// The connection that writes.
pub(super) struct Database(pub(super) Connection);

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The last sequence of the source that is kept.
    pub(super) sequence: u64,
    /// What is new of units, by release. Nothing when the batch was there already.
    pub(super) added: BTreeMap<ReleaseId, Added>,
    /// How many of its series found no place under their names.
    pub(super) nameless: usize,
}

/// Records of a release.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// The cells that they are of.
    pub(super) cells: Vec<(u16, Cell)>,
    pub(super) records: Vec<Record>,
}

impl Database {
    /// Opens the file and creates what is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a newer build.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = connection(path)?;
        // Outcomes come by keys in no order. What a transaction changes is to be written once, when it ends.
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Ok(Self(connection))
    }

    /// A connection beside this one, to read by.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
        let connection = connection(path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// Everything is kept when this returns, or nothing. What is refused, is alone. Of traced requests the newest
    /// `keep_traces` are.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(super) fn keep(
        &mut self,
        batches: &[&Batch],
        published: &PublishedNames,
        keep_traces: u32,
    ) -> Result<Vec<Result<Kept, LedgerError>>, StoreError> {
        let mut transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            // Dropped without a commit, it takes back what was written of the batch.
            let savepoint = transaction.savepoint()?;
            match keep(&savepoint, batch, published) {
                Ok(one) => {
                    savepoint.commit()?;
                    kept.push(Ok(one));
                }
                Err(LedgerError::Store(error)) => return Err(error),
                Err(refusal) => kept.push(Err(refusal)),
            }
        }
        if batches.iter().any(|batch| !batch.traced.is_empty()) {
            traced::trim(&transaction, keep_traces)?;
        }
        transaction.commit()?;
        Ok(kept)
    }

    /// Keeps partitions of releases; when they were the last ones of a picture, the log up to `covered` goes.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(super) fn picture(
        &mut self,
        partitions: &[(ReleaseId, usize, Vec<u8>)],
        covered: Option<i64>,
    ) -> Result<(), StoreError> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (release, partition, records) in partitions {
            let partition = i64::try_from(*partition).unwrap_or(i64::MAX);
            transaction
                .prepare_cached(
                    "INSERT INTO units VALUES (?1, ?2, ?3)
                     ON CONFLICT (release, partition) DO UPDATE SET records = excluded.records",
                )?
                .execute(params![release, partition, records])?;
        }
        if let Some(covered) = covered {
            transaction.execute("DELETE FROM log WHERE id <= ?1", [covered])?;
        }
        Ok(transaction.commit()?)
    }

    /// The last entry of the log, and how many bytes of records it has; 0 when it is empty.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) fn log(&self) -> Result<(i64, usize), StoreError> {
        let row = "SELECT coalesce(max(id), 0), coalesce(sum(length(records)), 0) FROM log";
        let (last, bytes): (i64, i64) = self.0.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((last, usize::try_from(bytes).unwrap_or(usize::MAX)))
    }

    /// Hands all that is known of units over: for each release its cells, then its partitions, then what is in the log.
    /// What takes it says whether it can be.
    ///
    /// # Errors
    /// When the database does not answer, or is damaged.
    pub(super) fn load(&self, mut take: impl FnMut(ReleaseId, Loaded) -> bool) -> Result<(), StoreError> {
        let mut take = |release, loaded| take(release, loaded).then_some(()).ok_or_else(damaged);
        let mut statement =
            self.0.prepare("SELECT release, cell, epoch, arm FROM cells ORDER BY release, cell")?;
        let mut rows = statement.query([])?;
        let mut cells: BTreeMap<ReleaseId, u16> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (release, index): (_, u16) = (row.get(0)?, row.get(1)?);
            let cell = Cell { epoch: unsigned(row, 2)?, arm: row.get(3)? };
            cells.insert(release, index + 1);
            take(release, Loaded::Cell(index, cell))?;
        }
        let records = |release, row: &Row<'_>, column| {
            let cells = cells.get(&release).copied().unwrap_or_default();
            let records = row.get_ref(column)?.as_blob().ok().and_then(Record::all);
            let sound = records.filter(|records| records.iter().all(|record| record.cell() < cells));
            sound.ok_or_else(damaged)
        };
        let mut statement = self.0.prepare("SELECT release, partition, records FROM units")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let release = row.get(0)?;
            take(release, Loaded::Partition(row.get(1)?, records(release, row, 2)?))?;
        }
        let mut log: BTreeMap<ReleaseId, Vec<Record>> = BTreeMap::new();
        let mut statement = self.0.prepare("SELECT release, records FROM log")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let release = row.get(0)?;
            log.entry(release).or_default().extend(records(release, row, 1)?);
        }
        for (release, mut records) in log {
            records.sort_unstable_by(Record::order);
            take(release, Loaded::Log(records))?;
        }
        Ok(())
    }

    /// Puts the statistics of sources that were last heard of before `quiet_ms` together, in the order of their names, and
    /// forgets what ended before `oldest_ms`. The answer is the releases that are gone.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(super) fn retain(&mut self, quiet_ms: u64, oldest_ms: u64) -> Result<Vec<ReleaseId>, StoreError> {
        let (quiet, oldest) = (signed(quiet_ms)?, signed(oldest_ms)?);
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let gone = transaction
            .prepare(
                "SELECT id FROM releases AS r WHERE outcome_ms < ?1 AND NOT EXISTS (
                     SELECT 1 FROM series AS s
                     WHERE s.ruleset = r.ruleset AND s.release = r.release AND s.ended_ms >= ?1
                 )",
            )?
            .query_map([oldest], |row| row.get(0))?
            .collect::<Result<Vec<ReleaseId>, _>>()?;
        for release in &gone {
            transaction.execute(
                "DELETE FROM series WHERE (ruleset, release) = (SELECT ruleset, release FROM releases WHERE id = ?1)",
                [release],
            )?;
            transaction.execute("DELETE FROM releases WHERE id = ?1", [release])?;
        }
        transaction.execute("DELETE FROM series WHERE release = '' AND ended_ms < ?1", [oldest])?;
        let former = transaction
            .prepare(
                "SELECT series, metric, source FROM statistics
                 WHERE source IN (SELECT source FROM sources WHERE ended_ms < ?1) ORDER BY series, metric, source",
            )?
            .query_map([quiet], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<Vec<(i64, String, Source)>, _>>()?;
        for (series, metric, source) in former {
            let Some(value) = statistics(&transaction, series, &metric, &source)? else { continue };
            match add_statistics(&transaction, series, &metric, &FORMER, value) {
                Ok(()) => {}
                Err(LedgerError::Store(error)) => return Err(error),
                // They do not go together: they stay apart.
                Err(_) => continue,
            }
            transaction
                .prepare_cached("DELETE FROM statistics WHERE series = ?1 AND metric = ?2 AND source = ?3")?
                .execute(params![series, metric, source])?;
        }
        transaction.execute("DELETE FROM sources WHERE ended_ms < ?1", [oldest])?;
        transaction.commit()?;
        Ok(gone)
    }
}

/// What is known of a release's units.
pub(super) enum Loaded {
    Cell(u16, Cell),
    Partition(u16, Vec<Record>),
    Log(Vec<Record>),
}

pub(super) fn damaged() -> StoreError {
    StoreError::Incompatible("the ledger is damaged: it has what no build has written".to_owned())
}

/// The last sequence of the source that is kept.
///
/// # Errors
/// When the database does not answer.
pub(super) fn last_sequence(connection: &Connection, source: &Source) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT sequence FROM sources WHERE source = ?1")?;
    Ok(statement.query_row([source], |row| unsigned(row, 0)).optional()?)
}

fn keep(connection: &Connection, batch: &Batch, published: &PublishedNames) -> Result<Kept, LedgerError> {
    let last = last_sequence(connection, &batch.source)?;
    if let Some(sequence) = last.filter(|last| *last >= batch.sequence) {
        return Ok(Kept { sequence, ..Kept::default() });
    }
    prepare(
        connection,
        "INSERT INTO sources VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (source) DO UPDATE SET
             sequence = excluded.sequence,
             ended_ms = max(ended_ms, excluded.ended_ms),
             omitted_requests = omitted_requests + excluded.omitted_requests,
             omitted_units = omitted_units + excluded.omitted_units,
             omitted_batches = omitted_batches + excluded.omitted_batches,
             omitted_traced = omitted_traced + excluded.omitted_traced",
    )?
    .execute(params![
        batch.source,
        signed(batch.sequence)?,
        signed(batch.ended_ms)?,
        signed(batch.omitted.requests)?,
        signed(batch.omitted.units)?,
        signed(batch.omitted.batches)?,
        signed(batch.omitted.traced)?,
    ])
    .map_err(StoreError::from)?;
    traced::keep(connection, &batch.traced)?;
    let mut added: BTreeMap<ReleaseId, Added> = BTreeMap::new();
    let mut nameless = 0;
    for part in &batch.parts {
        let is_published = published.has(&part.series);
        let named = if is_published || has_place(connection, &part.series)? {
            Cow::Borrowed(&part.series)
        } else {
            nameless += 1;
            Cow::Owned(without_names(&part.series))
        };
        let series = series(connection, &named, published.has(&named), batch)?;
        for (metric, statistics) in &part.statistics {
            add_statistics(connection, series, metric, &batch.source, statistics.clone())?;
        }
        if named.release.is_empty() {
            continue;
        }
        let release = release(connection, &named)?;
        let (index, cell) = cell(connection, release, &named)?;
        let added = added.entry(release).or_default();
        added.records.extend(part.records.iter().map(|record| record.in_cell(index)));
        added.cells.push((index, cell));
    }
    for (release, added) in &mut added {
        // Records of neighbouring units are taken in several times faster.
        added.records.sort_unstable_by(Record::order);
        let mut records = Vec::with_capacity(added.records.len() * BYTES);
        added.records.iter().for_each(|record| records.extend(record.to_bytes()));
        if !records.is_empty() {
            prepare(connection, "INSERT INTO log (release, records) VALUES (?1, ?2)")?
                .execute(params![release, records])
                .map_err(StoreError::from)?;
        }
    }
    Ok(Kept { sequence: batch.sequence, added, nameless })
}

pub(super) fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, StoreError> {
    Ok(connection.prepare_cached(sql)?)
}

/// Whether a series that was not published has a place, or one is left.
fn has_place(connection: &Connection, series: &Series) -> Result<bool, StoreError> {
    let Series { ruleset, release, epoch, arm, target, model, version } = series;
    let mut statement = prepare(
        connection,
        "SELECT EXISTS (
             SELECT 1 FROM series WHERE (ruleset, release, epoch, arm, target, model, version) = (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ) OR (SELECT count(*) FROM series WHERE published = 0) < ?8",
    )?;
    let names = params![ruleset, release, signed(*epoch)?, arm, target, model, version, MOST_UNPUBLISHED];
    Ok(statement.query_row(names, |row| row.get(0))?)
}

/// That of requests without an evaluation context which the same model answered. It has no units.
fn without_names(series: &Series) -> Series {
    let Series { model, version, .. } = series.clone();
    Series { model, version, ..Series::default() }
}

/// The series' number. From when to when it was seen is kept with it.
fn series(
    connection: &Connection,
    series: &Series,
    is_published: bool,
    batch: &Batch,
) -> Result<i64, StoreError> {
    let Series { ruleset, release, epoch, arm, target, model, version } = series;
    let mut statement = prepare(
        connection,
        "INSERT INTO series (ruleset, release, epoch, arm, target, model, version, begun_ms, ended_ms, published)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (ruleset, release, epoch, arm, target, model, version) DO UPDATE SET
             begun_ms = min(begun_ms, excluded.begun_ms), ended_ms = max(ended_ms, excluded.ended_ms),
             published = max(published, excluded.published)
         RETURNING id",
    )?;
    let (epoch, begun, ended) = (signed(*epoch)?, signed(batch.begun_ms)?, signed(batch.ended_ms)?);
    let names = params![ruleset, release, epoch, arm, target, model, version, begun, ended, is_published];
    Ok(statement.query_row(names, |row| row.get(0))?)
}

fn release(connection: &Connection, series: &Series) -> Result<ReleaseId, StoreError> {
    let mut statement = prepare(
        connection,
        // The update changes nothing, and makes the number known.
        "INSERT INTO releases (ruleset, release) VALUES (?1, ?2)
         ON CONFLICT (ruleset, release) DO UPDATE SET release = excluded.release RETURNING id",
    )?;
    Ok(statement.query_row(params![series.ruleset, series.release], |row| row.get(0))?)
}

fn cell(connection: &Connection, release: ReleaseId, series: &Series) -> Result<(u16, Cell), LedgerError> {
    let cell = Cell { epoch: series.epoch, arm: series.arm.clone() };
    let epoch = signed(cell.epoch)?;
    let known = prepare(connection, "SELECT cell FROM cells WHERE release = ?1 AND epoch = ?2 AND arm = ?3")?
        .query_row(params![release, epoch, cell.arm], |row| row.get(0))
        .optional()
        .map_err(StoreError::from)?;
    if let Some(index) = known {
        return Ok((index, cell));
    }
    let index: u16 = prepare(connection, "SELECT count(*) FROM cells WHERE release = ?1")?
        .query_row([release], |row| row.get(0))
        .map_err(StoreError::from)?;
    if index >= MAX_CELLS {
        let most = format!("release {:?} has {MAX_CELLS} arms of epochs, which are the most", series.release);
        return Err(Refusal::new(most).into());
    }
    prepare(connection, "INSERT INTO cells VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![release, index, epoch, cell.arm])
        .map_err(StoreError::from)?;
    Ok((index, cell))
}

/// What is kept of a metric from a source.
fn statistics(
    connection: &Connection,
    series: i64,
    metric: &str,
    source: &Source,
) -> Result<Option<Statistics>, StoreError> {
    let mut statement = prepare(
        connection,
        "SELECT value FROM statistics WHERE series = ?1 AND metric = ?2 AND source = ?3",
    )?;
    let value: Option<Vec<u8>> =
        statement.query_row(params![series, metric, source], |row| row.get(0)).optional()?;
    value.map(|value| Statistics::from_bytes(&value).ok_or_else(damaged)).transpose()
}

/// Merges a metric's statistics into those of the source.
fn add_statistics(
    connection: &Connection,
    series: i64,
    metric: &str,
    source: &Source,
    new: Statistics,
) -> Result<(), LedgerError> {
    let merged = match statistics(connection, series, metric, source)? {
        None => new,
        Some(known) => known.merge(&new).map_err(|error| Refusal::new(format!("{metric:?}: {error}")))?,
    };
    let value = merged.to_bytes();
    prepare(
        connection,
        "INSERT INTO statistics VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (series, metric, source) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![series, metric, source, value])
    .map_err(StoreError::from)?;
    Ok(())
}

/// All statistics of the series that `of` chooses, in the order of the names of the series, of metrics and of sources.
///
/// # Errors
/// When the database does not answer, or is damaged.
pub(super) fn read_statistics(
    transaction: &Transaction<'_>,
    series: i64,
    mut take: impl FnMut(String, Statistics),
) -> Result<(), StoreError> {
    let mut statement = transaction
        .prepare_cached("SELECT metric, value FROM statistics WHERE series = ?1 ORDER BY metric, source")?;
    let mut rows = statement.query([series])?;
    while let Some(row) = rows.next()? {
        let value = row.get_ref(1)?.as_blob().map_err(|_| damaged())?;
        take(row.get(0)?, Statistics::from_bytes(value).ok_or_else(damaged)?);
    }
    Ok(())
}
