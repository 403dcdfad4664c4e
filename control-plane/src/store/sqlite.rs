//! The store in one SQLite file.

use super::{
    Action, Change, Content, ReleaseWrite, Revision, State, Store, StoreError, StoredRelease, StoredRuleset,
    file::{self, Schema},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

const SCHEMA: Schema =
    Schema { create: CREATE, upgrades: &[FROM_1_TO_2, FROM_2_TO_3, FROM_3_TO_4, FROM_4_TO_5, FROM_5_TO_6] };

/// Releases, and the records of their decisions.
macro_rules! releases {
    () => {
        "
    CREATE TABLE releases (
        name   TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        status TEXT NOT NULL
    ) STRICT;
    CREATE TABLE records (
        id      INTEGER PRIMARY KEY,
        release TEXT NOT NULL REFERENCES releases (name) ON DELETE CASCADE,
        record  TEXT NOT NULL
    ) STRICT;
    CREATE INDEX records_by_release ON records (release, id);
"
    };
}

/// What webhooks are told, and were told.
macro_rules! webhooks {
    () => {
        "
    CREATE INDEX events ON records (id) WHERE record ->> 'action' <> 'note';
    CREATE TABLE webhooks (
        name      TEXT PRIMARY KEY,
        delivered INTEGER NOT NULL
    ) STRICT;
"
    };
}

/// Which decision made a revision.
macro_rules! records_by_revision {
    () => {
        "
    CREATE INDEX records_by_revision ON records (record ->> 'revision') WHERE record ->> 'revision' IS NOT NULL;
"
    };
}

const CREATE: &str = concat!(
    "
    CREATE TABLE revisions (
        revision      INTEGER PRIMARY KEY,
        created_at_ms INTEGER NOT NULL,
        action        TEXT NOT NULL,
        ruleset       TEXT NOT NULL,
        actor         TEXT NOT NULL,
        content_hash  TEXT NOT NULL,
        bundle_bytes  INTEGER NOT NULL,
        source        TEXT,
        undoes        INTEGER,
        releases      TEXT
    ) STRICT;
    CREATE TABLE rulesets (
        name     TEXT PRIMARY KEY,
        revision INTEGER NOT NULL REFERENCES revisions (revision),
        source   TEXT NOT NULL,
        releases TEXT NOT NULL DEFAULT '[]'
    ) STRICT;
",
    releases!(),
    webhooks!(),
    records_by_revision!()
);

/// What the schema before lacks.
const FROM_1_TO_2: &str = "ALTER TABLE revisions ADD COLUMN undoes INTEGER;";
/// The same: releases.
const FROM_2_TO_3: &str = concat!(
    "
    ALTER TABLE revisions ADD COLUMN releases TEXT;
    ALTER TABLE rulesets ADD COLUMN releases TEXT NOT NULL DEFAULT '[]';
",
    releases!()
);
/// The same: what webhooks were told.
const FROM_3_TO_4: &str = webhooks!();
/// The same: an index.
const FROM_4_TO_5: &str = records_by_revision!();
/// Steps were counted from 0 in records, and from 1 everywhere else.
const FROM_5_TO_6: &str = "UPDATE records SET record = json_set(record, '$.step', record ->> 'step' + 1);";

/// A store in one file.
pub struct SqliteStore(Mutex<Connection>);

impl SqliteStore {
    /// Opens the file and creates what is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a newer build.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(file::open(path, &SCHEMA)?)))
    }

    /// A panic while the lock was held cannot leave a transaction half done: it is rolled back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<State, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut statement =
            transaction.prepare("SELECT name, revision, source, releases FROM rulesets ORDER BY name")?;
        let rulesets = statement
            .query_map([], |row| {
                let content = Content { source: row.get(2)?, releases: parsed(row, 3)? };
                Ok(StoredRuleset { name: row.get(0)?, revision: unsigned(row, 1)?, content })
            })?
            .collect::<Result<_, _>>()?;
        drop(statement);
        let mut statement = transaction.prepare("SELECT name, source, status FROM releases ORDER BY name")?;
        let releases = statement
            .query_map([], |row| {
                Ok(StoredRelease { name: row.get(0)?, source: row.get(1)?, status: parsed(row, 2)? })
            })?
            .collect::<Result<_, _>>()?;
        drop(statement);
        Ok(State { revision: newest(&transaction)?, rulesets, releases })
    }

    fn commit(
        &self,
        revision: &Revision,
        content: Option<&Content>,
        release: Option<&ReleaseWrite>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if newest(&transaction)?.checked_add(1) != Some(revision.revision) {
            return Err(StoreError::Conflict(revision.revision));
        }
        let undoes = revision.undoes.map(signed).transpose()?;
        let number = signed(revision.revision)?;
        let source = content.map(|content| content.source.as_str());
        let releases = content.map(|content| text(&content.releases)).transpose()?;
        transaction.execute(
            "INSERT INTO revisions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                number,
                signed(revision.created_at_ms)?,
                name_of(revision.action),
                revision.ruleset,
                revision.actor,
                revision.content_hash,
                signed(revision.bundle_bytes)?,
                source,
                undoes,
                releases
            ],
        )?;
        match source {
            Some(source) => transaction.execute(
                // The text is as old as it is, whatever releases do.
                "INSERT INTO rulesets VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET
                    revision = iif(source = excluded.source, revision, excluded.revision),
                    source = excluded.source, releases = excluded.releases",
                params![revision.ruleset, number, source, releases],
            )?,
            None => transaction.execute("DELETE FROM rulesets WHERE name = ?1", [&revision.ruleset])?,
        };
        if let Some(release) = release {
            write(&transaction, release)?;
        }
        Ok(transaction.commit()?)
    }

    fn note(&self, release: &ReleaseWrite) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write(&transaction, release)?;
        Ok(transaction.commit()?)
    }

    fn as_of(&self, ruleset: &str, revision: u64) -> Result<Option<Change>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {REVISION}, source, ifnull(releases, '[]') FROM revisions
             WHERE ruleset = ?1 AND revision <= ?2 ORDER BY revision DESC LIMIT 1"
        ))?;
        let change = statement.query_row(params![ruleset, number(revision)], |row| {
            let source: Option<String> = row.get(8)?;
            let content = match source {
                Some(source) => Some(Content { source, releases: parsed(row, 9)? }),
                None => None,
            };
            Ok(Change { revision: revision_in(row)?, content })
        });
        Ok(change.optional()?)
    }

    fn check(&self) -> Result<(), StoreError> {
        // It is the same already, and SQLite writes the page all the same.
        Ok(self.connection().pragma_update(None, "user_version", SCHEMA.version())?)
    }

    fn revisions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {REVISION} FROM revisions WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2"
        ))?;
        let before = before.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let revisions = statement.query_map([before, limit], revision_in)?;
        Ok(revisions.collect::<Result<_, _>>()?)
    }

    fn records(
        &self,
        release: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT record FROM records WHERE (?1 IS NULL OR release = ?1) AND id < ?2 ORDER BY id DESC LIMIT ?3",
        )?;
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let records = statement.query_map(params![release, before, limit], |row| row.get(0))?;
        Ok(records.collect::<Result<_, _>>()?)
    }

    fn record_before(&self, release: &str, revision: u64) -> Result<Option<String>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT record FROM records WHERE record ->> 'revision' <= ?1 AND (record ->> 'revision' = ?1 OR release = ?2)
             ORDER BY record ->> 'revision' DESC, id DESC LIMIT 1",
        )?;
        Ok(statement.query_row(params![number(revision), release], |row| row.get(0)).optional()?)
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<String>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT record FROM records WHERE id > ?1 AND record ->> 'action' <> 'note' ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let records = statement.query_map([number(after), limit], |row| row.get(0))?;
        Ok(records.collect::<Result<_, _>>()?)
    }

    fn count_events(&self, after: u64) -> Result<u64, StoreError> {
        let connection = self.connection();
        Ok(connection.query_row(
            "SELECT count(*) FROM records WHERE id > ?1 AND record ->> 'action' <> 'note'",
            [number(after)],
            |row| unsigned(row, 0),
        )?)
    }

    fn newest_record(&self) -> Result<u64, StoreError> {
        let connection = self.connection();
        Ok(connection.query_row("SELECT ifnull(max(id), 0) FROM records", [], |row| unsigned(row, 0))?)
    }

    fn delivered(&self, webhook: &str) -> Result<u64, StoreError> {
        let connection = self.connection();
        connection.execute(
            "INSERT INTO webhooks SELECT ?1, ifnull(max(id), 0) FROM records WHERE true ON CONFLICT DO NOTHING",
            [webhook],
        )?;
        Ok(connection
            .query_row("SELECT delivered FROM webhooks WHERE name = ?1", [webhook], |row| unsigned(row, 0))?)
    }

    fn set_delivered(&self, webhook: &str, event: u64) -> Result<(), StoreError> {
        self.connection()
            .prepare_cached("UPDATE webhooks SET delivered = ?2 WHERE name = ?1")?
            .execute(params![webhook, signed(event)?])?;
        Ok(())
    }

    fn record(&self, id: u64) -> Result<Option<String>, StoreError> {
        let connection = self.connection();
        let record = connection
            .query_row("SELECT record FROM records WHERE id = ?1", [signed(id)?], |row| row.get(0))
            .optional()?;
        Ok(record)
    }
}

/// The columns that [`revision_in`] reads.
const REVISION: &str = "revision, created_at_ms, action, ruleset, actor, content_hash, bundle_bytes, undoes";

fn revision_in(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        revision: unsigned(row, 0)?,
        created_at_ms: unsigned(row, 1)?,
        action: action(row, 2)?,
        ruleset: row.get(3)?,
        actor: row.get(4)?,
        content_hash: row.get(5)?,
        bundle_bytes: unsigned(row, 6)?,
        undoes: row.get::<_, Option<i64>>(7)?.and_then(|undoes| u64::try_from(undoes).ok()),
    })
}

/// What is larger than any number in the store is as good as the largest.
fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// Writes what changes of a release.
fn write(transaction: &Transaction<'_>, release: &ReleaseWrite) -> Result<(), StoreError> {
    match release {
        ReleaseWrite::Put(release, records) => {
            let StoredRelease { name, source, status } = &**release;
            transaction
                .prepare_cached(
                    "INSERT INTO releases VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET source = excluded.source, status = excluded.status",
                )?
                .execute(params![name, source, text(status)?])?;
            for record in records {
                let id = record.id.parse().map_err(|_| {
                    StoreError::Incompatible(format!("{:?} is no number of a record", record.id))
                })?;
                transaction.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3)")?.execute(params![
                    signed(id)?,
                    name,
                    text(record)?
                ])?;
            }
        }
        ReleaseWrite::Delete(name) => {
            transaction.execute("DELETE FROM releases WHERE name = ?1", [name])?;
        }
    }
    Ok(())
}

/// As it is kept.
fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Incompatible(error.to_string()))
}

/// What was kept.
fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn newest(connection: &Connection) -> Result<u64, StoreError> {
    let newest = connection
        .query_row("SELECT revision FROM revisions ORDER BY revision DESC LIMIT 1", [], |row| {
            unsigned(row, 0)
        })
        .optional()?;
    Ok(newest.unwrap_or(0))
}

fn name_of(action: Action) -> &'static str {
    match action {
        Action::Put => "put",
        Action::Delete => "delete",
        Action::Rollback => "rollback",
        Action::Release => "release",
    }
}

fn action(row: &Row<'_>, column: usize) -> rusqlite::Result<Action> {
    let name: String = row.get(column)?;
    [Action::Put, Action::Delete, Action::Rollback, Action::Release]
        .into_iter()
        .find(|action| name_of(*action) == name)
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(column, name, rusqlite::types::Type::Text))
}

/// SQLite's integers are signed.
pub(crate) fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Incompatible(format!("{value} is too large for the store")))
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(revision: u64, action: Action, ruleset: &str) -> Revision {
        Revision {
            revision,
            created_at_ms: 1_700_000_000_000 + revision,
            action,
            ruleset: ruleset.into(),
            actor: "127.0.0.1".into(),
            undoes: None,
            content_hash: "00".into(),
            bundle_bytes: 7,
        }
    }

    fn content(source: &str) -> Content {
        Content { source: source.into(), releases: Vec::new() }
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halftone.db");
        {
            let store = SqliteStore::open(&path).unwrap();
            assert_eq!(store.load().unwrap(), State::default());
            store.commit(&revision(1, Action::Put, "b"), Some(&content("one")), None).unwrap();
            store.commit(&revision(2, Action::Put, "a"), Some(&content("two")), None).unwrap();
            store.commit(&revision(3, Action::Put, "b"), Some(&content("three")), None).unwrap();
        }
        let store = SqliteStore::open(&path).unwrap();
        let ruleset = |name: &str, source: &str, revision| StoredRuleset {
            name: name.into(),
            content: content(source),
            revision,
        };
        let rulesets = vec![ruleset("a", "two", 2), ruleset("b", "three", 3)];
        assert_eq!(store.load().unwrap(), State { revision: 3, rulesets, releases: Vec::new() });
        store.commit(&revision(4, Action::Delete, "b"), None, None).unwrap();
        assert_eq!(store.load().unwrap().rulesets, [ruleset("a", "two", 2)]);
        let numbers = |before, limit| -> Vec<u64> {
            store.revisions(before, limit).unwrap().into_iter().map(|r| r.revision).collect()
        };
        assert_eq!(numbers(None, 10), [4, 3, 2, 1]);
        assert_eq!(numbers(Some(4), 2), [3, 2]);
        assert_eq!(store.revisions(None, 1).unwrap(), [revision(4, Action::Delete, "b")]);
    }

    #[test]
    fn a_rollback_and_what_it_goes_back_to_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("halftone.db")).unwrap();
        store.commit(&revision(1, Action::Put, "a"), Some(&content("one")), None).unwrap();
        store.commit(&revision(2, Action::Put, "b"), Some(&content("two")), None).unwrap();
        store.commit(&revision(3, Action::Delete, "a"), None, None).unwrap();
        let before = |ruleset, revision| {
            store.content_before(ruleset, revision).unwrap().map(|content| content.source)
        };
        assert_eq!(before("a", 3).as_deref(), Some("one"));
        assert_eq!((before("a", 1), before("a", 4), before("b", 2)), (None, None, None));
        let rollback = Revision { undoes: Some(3), ..revision(4, Action::Rollback, "a") };
        store.commit(&rollback, Some(&content("one")), None).unwrap();
        assert_eq!(store.revisions(None, 1).unwrap(), [rollback]);
        assert_eq!(store.load().unwrap().rulesets[0].content.source, "one");
    }

    #[test]
    fn a_file_of_the_build_before_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halftone.db");
        let store = SqliteStore::open(&path).unwrap();
        store.commit(&revision(1, Action::Put, "a"), Some(&content("one")), None).unwrap();
        drop(store);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "ALTER TABLE revisions DROP COLUMN undoes; ALTER TABLE revisions DROP COLUMN releases;
                 ALTER TABLE rulesets DROP COLUMN releases; DROP TABLE records; DROP TABLE releases;
                 DROP TABLE webhooks;
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        drop(connection);
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.revisions(None, 1).unwrap(), [revision(1, Action::Put, "a")]);
        store.commit(&revision(2, Action::Delete, "a"), None, None).unwrap();
    }

    #[test]
    fn records_of_builds_before_count_steps_from_1() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halftone.db");
        drop(SqliteStore::open(&path).unwrap());
        let record = r#"{"id":"7","step":0,"revision":3,"judged":{"x":0.1000000000000000055,"y":"é\u001b"}}"#;
        let connection = Connection::open(&path).unwrap();
        connection.execute("INSERT INTO releases VALUES ('canary', '', '{}')", []).unwrap();
        connection.execute("INSERT INTO records VALUES (7, 'canary', ?1)", [record]).unwrap();
        connection.pragma_update(None, "user_version", 5).unwrap();
        drop(connection);
        for _ in 0..2 {
            let store = SqliteStore::open(&path).unwrap();
            let kept = store.record_before("canary", 4).unwrap();
            assert_eq!(kept, Some(record.replace(r#""step":0"#, r#""step":1"#)), "nothing else has changed");
            assert_eq!(store.record_before("canary", 2).unwrap(), None);
            assert_eq!(store.record_before("other", 4).unwrap(), None);
            assert_eq!(store.record_before("other", 3).unwrap(), kept, "it made the revision");
        }
    }

    #[test]
    fn what_takes_no_write_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("halftone.db")).unwrap();
        store.check().unwrap();
        // As large as it is, and no larger.
        let pages: i64 = store.connection().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        store.connection().pragma_update(None, "max_page_count", pages).unwrap();
        let large = "x".repeat(100_000);
        let full = store.commit(&revision(1, Action::Put, "a"), Some(&content(&large)), None).unwrap_err();
        assert!(full.is_full() && full.remedy().contains("make room"), "{full}");
        assert_eq!(store.load().unwrap(), State::default());
        store.connection().pragma_update(None, "max_page_count", 10_000).unwrap();
        store.commit(&revision(1, Action::Put, "a"), Some(&content(&large)), None).unwrap();
        store.connection().pragma_update(None, "query_only", true).unwrap();
        let read_only = store.check().unwrap_err();
        assert!(!read_only.is_full() && read_only.remedy().contains("look at the disk"), "{read_only}");
    }

    #[test]
    fn a_revision_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halftone.db");
        let (one, other) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
        one.commit(&revision(1, Action::Put, "a"), Some(&content("one")), None).unwrap();
        let refused = other.commit(&revision(1, Action::Put, "b"), Some(&content("two")), None);
        assert!(matches!(refused, Err(StoreError::Conflict(1))), "{refused:?}");
        let skipped = other.commit(&revision(3, Action::Put, "b"), Some(&content("two")), None);
        assert!(matches!(skipped, Err(StoreError::Conflict(3))), "{skipped:?}");
        assert_eq!(other.load().unwrap().revision, 1);
    }

    #[test]
    fn a_file_of_a_newer_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halftone.db");
        drop(SqliteStore::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::Incompatible(_))));
    }
}
