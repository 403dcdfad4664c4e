//! Outcomes in the ledger's file: a row each, by release and key. The first with a key stays.

use super::database::{Database, ReleaseId, damaged, prepare};
use super::outcome::{EVAL_VERSION, KeptOutcome, Outcome, Taken};
use super::outcomes::Record;
use super::{LedgerError, Refusal};
use crate::{
    ids::{Id, Ids},
    store::{StoreError, signed, unsigned},
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::BTreeMap;

/// Metrics of a release that outcomes are of.
const MAX_METRICS: u16 = 256;

/// What is new of outcomes.
#[derive(Default)]
pub(super) struct NewOutcomes {
    /// Numbers and names of metrics, by release: those that the outcomes are of.
    pub(super) metrics: BTreeMap<ReleaseId, BTreeMap<u16, String>>,
    pub(super) records: BTreeMap<ReleaseId, Vec<Record>>,
}

/// What became of each outcome of several jobs.
pub(super) type Answers = Vec<Vec<Result<Taken, LedgerError>>>;

/// How many may be taken, and by what name.
pub(super) struct Terms<'a> {
    pub(super) ids: &'a Ids,
    pub(super) now_ms: u64,
    /// Records that there are, and that there may be.
    pub(super) records: usize,
    pub(super) most: usize,
}

impl Database {
    /// Keeps outcomes: everything is kept when this returns, or nothing. What is refused, is alone.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(super) fn keep_outcomes(
        &mut self,
        jobs: Vec<Vec<Result<Outcome, Refusal>>>,
        terms: Terms<'_>,
    ) -> Result<(Answers, NewOutcomes), StoreError> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut keeping = Keeping {
            connection: &transaction,
            terms,
            releases: BTreeMap::new(),
            metrics: BTreeMap::new(),
            new: NewOutcomes::default(),
        };
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut of_job = Vec::with_capacity(job.len());
            for outcome in job {
                of_job.push(
                    match outcome.map_err(LedgerError::from).and_then(|outcome| keeping.keep(&outcome)) {
                        Err(LedgerError::Store(error)) => return Err(error),
                        result => result,
                    },
                );
            }
            answers.push(of_job);
        }
        let new = keeping.new;
        for release in new.records.keys() {
            prepare(&transaction, "UPDATE releases SET outcome_ms = max(outcome_ms, ?1) WHERE id = ?2")?
                .execute(params![signed(keeping.terms.now_ms)?, release])?;
        }
        transaction.commit()?;
        Ok((answers, new))
    }

    /// Hands all metrics and outcomes over, those of a release together. What takes them says whether it can.
    ///
    /// # Errors
    /// When the database does not answer, or is damaged.
    pub(super) fn load_outcomes(
        &self,
        mut take: impl FnMut(ReleaseId, BTreeMap<u16, String>, Vec<Record>),
    ) -> Result<(), StoreError> {
        let mut releases = self.0.prepare("SELECT DISTINCT release FROM outcome_metrics ORDER BY release")?;
        let releases = releases.query_map([], |row| row.get(0))?.collect::<Result<Vec<ReleaseId>, _>>()?;
        for release in releases {
            let mut metrics =
                self.0.prepare_cached("SELECT metric, name FROM outcome_metrics WHERE release = ?1")?;
            let metrics = metrics
                .query_map([release], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<BTreeMap<u16, String>, _>>()?;
            let mut outcomes = self.0.prepare_cached(
                "SELECT unit, metric, time_ms, key, value FROM outcomes WHERE release = ?1",
            )?;
            let mut rows = outcomes.query([release])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                let metric = row.get(1)?;
                if !metrics.contains_key(&metric) {
                    return Err(damaged());
                }
                let key = row.get_ref(3)?.as_str().map_err(|_| damaged())?;
                let unit = row.get::<_, i64>(0)?.cast_unsigned();
                records.push(Record::new(unit, metric, unsigned(row, 2)?, key, row.get(4)?));
            }
            take(release, metrics, records);
        }
        Ok(())
    }
}

/// Outcomes of one transaction.
struct Keeping<'a> {
    connection: &'a Connection,
    terms: Terms<'a>,
    /// By ruleset, then by name.
    releases: BTreeMap<String, BTreeMap<String, ReleaseId>>,
    metrics: BTreeMap<ReleaseId, BTreeMap<String, u16>>,
    new: NewOutcomes,
}

impl Keeping<'_> {
    fn keep(&mut self, outcome: &Outcome) -> Result<Taken, LedgerError> {
        let release = self.release(outcome)?;
        let metric = release.map(|release| self.metric(release, outcome)).transpose()?.flatten();
        let record = self.terms.ids.next();
        let is_full = self.terms.records >= self.terms.most;
        // What is there already needs no room and no name, and what is refused leaves none behind.
        if (metric.is_none() || is_full || record.is_err())
            && let Some(release) = release
            && let Some(known) = self.known(release, outcome)?
        {
            return Ok(known);
        }
        if is_full {
            return Err(LedgerError::Full(self.terms.records));
        }
        let record = record?;
        let release = match release {
            Some(release) => release,
            None => self.new_release(outcome)?,
        };
        let metric = match metric {
            Some(metric) => metric,
            None => self.new_metric(release, outcome)?,
        };
        let now_ms = self.terms.now_ms;
        let time_ms = outcome.time_ms.unwrap_or(now_ms);
        let inserted = prepare(
            self.connection,
            "INSERT INTO outcomes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            release,
            outcome.key,
            signed(record.get())?,
            signed(now_ms)?,
            EVAL_VERSION,
            metric,
            outcome.unit.cast_signed(),
            signed(time_ms)?,
            outcome.value
        ])
        .map_err(StoreError::from)?;
        if inserted == 0 {
            return self.known(release, outcome)?.ok_or_else(|| damaged().into());
        }
        self.terms.records += 1;
        let kept = Record::new(outcome.unit, metric, time_ms, &outcome.key, outcome.value);
        self.new.records.entry(release).or_default().push(kept);
        let names = self.new.metrics.entry(release).or_default();
        names.entry(metric).or_insert_with(|| outcome.metric.clone());
        Ok(Taken::New(KeptOutcome {
            record,
            metric: outcome.metric.clone(),
            unit: outcome.unit,
            value: outcome.value,
            time_ms,
            processed_at_ms: now_ms,
            eval_version: EVAL_VERSION,
        }))
    }

    /// The outcome that has the key already.
    fn known(&self, release: ReleaseId, outcome: &Outcome) -> Result<Option<Taken>, StoreError> {
        let mut statement = prepare(
            self.connection,
            "SELECT record, name, unit, value, time_ms, processed_at_ms, eval_version
             FROM outcomes JOIN outcome_metrics USING (release, metric) WHERE release = ?1 AND key = ?2",
        )?;
        let kept = statement.query_row(params![release, outcome.key], |row| {
            Ok(KeptOutcome {
                record: Id::kept(unsigned(row, 0)?),
                metric: row.get(1)?,
                unit: row.get::<_, i64>(2)?.cast_unsigned(),
                value: row.get(3)?,
                time_ms: unsigned(row, 4)?,
                processed_at_ms: unsigned(row, 5)?,
                eval_version: row.get(6)?,
            })
        });
        let same = |kept: KeptOutcome| match kept.is_of(outcome) {
            true => Taken::Repeated(kept),
            false => Taken::Conflict(kept),
        };
        Ok(kept.optional()?.map(same))
    }

    /// The number of the release, when it has one.
    fn release(&mut self, outcome: &Outcome) -> Result<Option<ReleaseId>, StoreError> {
        let Outcome { ruleset, release, .. } = outcome;
        if let Some(id) = self.releases.get(ruleset).and_then(|of| of.get(release)) {
            return Ok(Some(*id));
        }
        let id = release_id(self.connection, ruleset, release)?;
        if let Some(id) = id {
            self.releases.entry(ruleset.clone()).or_default().insert(release.clone(), id);
        }
        Ok(id)
    }

    /// Gives the release a number: the backends have not reported of it yet.
    fn new_release(&mut self, outcome: &Outcome) -> Result<ReleaseId, StoreError> {
        let Outcome { ruleset, release, .. } = outcome;
        let id =
            prepare(self.connection, "INSERT INTO releases (ruleset, release) VALUES (?1, ?2) RETURNING id")?
                .query_row([ruleset, release], |row| row.get(0))?;
        self.releases.entry(ruleset.clone()).or_default().insert(release.clone(), id);
        Ok(id)
    }

    /// The number of the metric, when it has one.
    fn metric(&mut self, release: ReleaseId, outcome: &Outcome) -> Result<Option<u16>, StoreError> {
        let name = &outcome.metric;
        if let Some(metric) = self.metrics.get(&release).and_then(|of| of.get(name)) {
            return Ok(Some(*metric));
        }
        let metric =
            prepare(self.connection, "SELECT metric FROM outcome_metrics WHERE release = ?1 AND name = ?2")?
                .query_row(params![release, name], |row| row.get(0))
                .optional()?;
        if let Some(metric) = metric {
            self.metrics.entry(release).or_default().insert(name.clone(), metric);
        }
        Ok(metric)
    }

    /// Gives the metric a number.
    fn new_metric(&mut self, release: ReleaseId, outcome: &Outcome) -> Result<u16, LedgerError> {
        let name = &outcome.metric;
        let next: u16 = prepare(self.connection, "SELECT count(*) FROM outcome_metrics WHERE release = ?1")?
            .query_row([release], |row| row.get(0))
            .map_err(StoreError::from)?;
        if next >= MAX_METRICS {
            let release = &outcome.release;
            let most =
                format!("release {release:?} has outcomes of {MAX_METRICS} metrics, which are the most");
            return Err(Refusal::new(most).into());
        }
        prepare(self.connection, "INSERT INTO outcome_metrics VALUES (?1, ?2, ?3)")?
            .execute(params![release, next, name])
            .map_err(StoreError::from)?;
        self.metrics.entry(release).or_default().insert(name.clone(), next);
        Ok(next)
    }
}

/// The number of a release, when it has one.
///
/// # Errors
/// When the database does not answer.
pub(super) fn release_id(
    connection: &Connection,
    ruleset: &str,
    release: &str,
) -> Result<Option<ReleaseId>, StoreError> {
    let mut statement = prepare(connection, "SELECT id FROM releases WHERE ruleset = ?1 AND release = ?2")?;
    Ok(statement.query_row([ruleset, release], |row| row.get(0)).optional()?)
}
