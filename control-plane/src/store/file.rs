//! A file of SQLite: how it is opened, and made what this build knows.

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::{path::Path, time::Duration};

/// What is in a file, and how one of an older build is taken over.
pub(crate) struct Schema {
    /// Makes a new file.
    pub(crate) create: &'static str,
    /// What each version lacks that the one after it has, from version 1 on. There is one version more than these.
    pub(crate) upgrades: &'static [&'static str],
}

impl Schema {
    /// In `PRAGMA user_version`, so that a later build knows what it finds.
    pub(crate) fn version(&self) -> i64 {
        i64::try_from(self.upgrades.len() + 1).unwrap_or(i64::MAX)
    }
}

/// Opens the file and creates what is missing. What is committed survives a loss of power.
///
/// # Errors
/// When the file cannot be opened or was written by a newer build.
pub(crate) fn open(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = schema.version();
    if found != known {
        let upgrades =
            usize::try_from(found).ok().and_then(|found| schema.upgrades.get(found.checked_sub(1)?..));
        let statements = match (found, upgrades) {
            (0, _) => schema.create.to_owned(),
            (_, Some(upgrades)) => upgrades.concat(),
            (_, None) => {
                return Err(StoreError::Incompatible(format!(
                    "{} has schema {found}, but this build knows only up to {known}: use the build that wrote it",
                    path.display()
                )));
            }
        };
        transaction.execute_batch(&statements)?;
        transaction.pragma_update(None, "user_version", known)?;
    }
    transaction.commit()?;
    Ok(connection)
}
