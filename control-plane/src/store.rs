//! What the control plane keeps over a restart.

pub(crate) mod file;
mod sqlite;

pub use sqlite::SqliteStore;
pub(crate) use sqlite::{signed, unsigned};

use crate::release::{DecisionRecord, Status};
use halftone_compiler::Release;
use serde::{Deserialize, Serialize};

/// What a change did to a ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Created or replaced it.
    Put,
    /// Removed it.
    Delete,
    /// Took an earlier change to it back, because every proxy refused the revision.
    Rollback,
    /// Changed what a release takes of it.
    Release,
}

/// What a ruleset is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Its text, YAML or JSON, as it was uploaded.
    pub source: String,
    /// What releases take of it, in the order in which they are tried.
    pub releases: Vec<Release>,
}

/// A ruleset, and since when it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRuleset {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub content: Content,
    /// The revision that brought its text in its present form.
    pub revision: u64,
}

/// A release as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRelease {
    /// Its name.
    pub name: String,
    /// Its text, as it was uploaded.
    pub source: String,
    /// Where it is.
    pub status: Status,
}

/// What changes of releases, all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum ReleaseWrite {
    /// The release is as given, and this was decided.
    Put(Box<StoredRelease>, Vec<DecisionRecord>),
    /// The release and its records are gone.
    Delete(String),
}

/// One change, and the audit log's entry about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Counts up from 1 without gaps.
    pub revision: u64,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// What was done.
    pub action: Action,
    /// To which ruleset.
    pub ruleset: String,
    /// By whom: the address that the request came from, or the control plane itself.
    pub actor: String,
    /// The revision whose change a rollback takes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    /// The content hash, in hexadecimal, of the bundle for proxies whose cluster no ruleset names.
    pub content_hash: String,
    /// Bytes of that bundle.
    pub bundle_bytes: u64,
}

/// A change, and what it made of its ruleset.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The change.
    pub revision: Revision,
    /// What the ruleset was made of from then on; `None` when it was gone.
    pub content: Option<Content>,
}

/// Everything that is in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The newest revision; 0 before the first change.
    pub revision: u64,
    /// In ascending order of their names.
    pub rulesets: Vec<StoredRuleset>,
    /// In ascending order of their names.
    pub releases: Vec<StoredRelease>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else made the revision in the meantime.
    #[error("revision {0} exists already: another process writes to the same store")]
    Conflict(u64),
    /// The database refused.
    #[error("the store failed: {0}")]
    Database(rusqlite::Error),
    /// The store holds what this build does not understand.
    #[error("{0}")]
    Incompatible(String),
}

impl StoreError {
    /// Whether there is no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Database(error) = self else { return false };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// The same, to be told to somebody else too.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Conflict(revision) => Self::Conflict(*revision),
            Self::Database(rusqlite::Error::SqliteFailure(code, message)) => {
                Self::Database(rusqlite::Error::SqliteFailure(*code, message.clone()))
            }
            Self::Database(error) => Self::Incompatible(error.to_string()),
            Self::Incompatible(why) => Self::Incompatible(why.clone()),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "stop the other process, then start this one again",
            Self::Database(_) if self.is_full() => {
                "make room on the disk of the folder --data, then try again: a restart is not needed"
            }
            Self::Database(_) => {
                "look at the disk of the folder --data (its room, quotas, errors), then try again: a restart is not \
                 needed"
            }
            Self::Incompatible(_) => "look at the store in the folder --data",
        }
    }
}

// By hand, so that it is no `source`: rusqlite's error has one of its own that says the same again.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Keeps revisions and rulesets. All calls block.
pub trait Store: Send + Sync + 'static {
    /// What is in force.
    ///
    /// # Errors
    /// When the database does not answer.
    fn load(&self) -> Result<State, StoreError>;

    /// Makes `revision` the newest: all of it is kept when this returns, or nothing. `content` is what the ruleset is made
    /// of now; `None` when it is gone. `release` is what changes of a release at the same time.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the newest revision is not the one before `revision`.
    fn commit(
        &self,
        revision: &Revision,
        content: Option<&Content>,
        release: Option<&ReleaseWrite>,
    ) -> Result<(), StoreError>;

    /// Keeps what changes of a release, without a revision.
    ///
    /// # Errors
    /// When the database does not take it.
    fn note(&self, release: &ReleaseWrite) -> Result<(), StoreError>;

    /// The last change to the ruleset up to `revision`; `None` if there was none.
    ///
    /// # Errors
    /// When the database does not answer.
    fn as_of(&self, ruleset: &str, revision: u64) -> Result<Option<Change>, StoreError>;

    /// What the ruleset was made of before `revision`; `None` if it did not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    fn content_before(&self, ruleset: &str, revision: u64) -> Result<Option<Content>, StoreError> {
        let Some(before) = revision.checked_sub(1) else { return Ok(None) };
        Ok(self.as_of(ruleset, before)?.and_then(|change| change.content))
    }

    /// Whether a change could be kept: writes, but nothing new.
    ///
    /// # Errors
    /// When the database does not take it.
    fn check(&self) -> Result<(), StoreError>;

    /// The newest revisions below `before`, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    fn revisions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Revision>, StoreError>;

    /// The newest records below `before`, newest first, of a release or of all; as JSON.
    ///
    /// # Errors
    /// When the database does not answer.
    fn records(
        &self,
        release: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The record of the decision that made a revision, of whatever release, as JSON; where there is none, of the last one on this
    /// release that made one before. `None` when none did, or the release was deleted.
    ///
    /// # Errors
    /// When the database does not answer.
    fn record_before(&self, release: &str, revision: u64) -> Result<Option<String>, StoreError>;

    /// The oldest records with numbers above `after` that are not notes, oldest first; as JSON.
    ///
    /// # Errors
    /// When the database does not answer.
    fn events(&self, after: u64, limit: usize) -> Result<Vec<String>, StoreError>;

    /// How many of these there are.
    ///
    /// # Errors
    /// When the database does not answer.
    fn count_events(&self, after: u64) -> Result<u64, StoreError>;

    /// Number of the newest record; 0 before the first one.
    ///
    /// # Errors
    /// When the database does not answer.
    fn newest_record(&self) -> Result<u64, StoreError>;

    /// Number of the last event that a webhook was told; a new one is told what comes from now on.
    ///
    /// # Errors
    /// When the database does not answer.
    fn delivered(&self, webhook: &str) -> Result<u64, StoreError>;

    /// Keeps the number of the last event that a webhook was told.
    ///
    /// # Errors
    /// When the database does not take it.
    fn set_delivered(&self, webhook: &str, event: u64) -> Result<(), StoreError>;

    /// A record, as JSON.
    ///
    /// # Errors
    /// When the database does not answer.
    fn record(&self, id: u64) -> Result<Option<String>, StoreError>;
}
