//! Requests whose trace is sampled, one by one: the newest ones, to be found by trace and by evaluation.

use super::database::{damaged, prepare};
use super::{Ledger, Refusal, batch::check_name, lock};
use crate::{store::StoreError, trace::Id};
use halftone_proto::v1::TracedRequest;
use prost::Message;
use rusqlite::{Connection, params};

/// Most of a batch. Backends report 512 of an interval, and merge intervals while nobody takes them.
const MOST: usize = 1 << 16;
/// Bytes of one: more than what a filter decides can take.
const LARGEST: usize = 8 << 10;

/// Refuses what no backend sends. What was decided came from whoever asked the backend, so it is taken as it is, up to its
/// size: one odd request must not cost a batch.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn check(traced: &[TracedRequest]) -> Result<(), Refusal> {
    if traced.len() > MOST {
        return Err(Refusal::new(format!("it has {} traced requests; the most are {MOST}", traced.len())));
    }
    for (index, request) in traced.iter().enumerate() {
        check_one(request).map_err(|refusal| refusal.at(format_args!("traced[{index}]")))?;
    }
    Ok(())
}

fn check_one(request: &TracedRequest) -> Result<(), Refusal> {
    let TracedRequest { trace_id, parent_id, model, version, .. } = request;
    for (what, id, length) in [("trace_id", trace_id, 16), ("parent_id", parent_id, 8)] {
        if id.len() != length || id.iter().all(|byte| *byte == 0) {
            return Err(Refusal::new(format!("`{what}` has to be {length} bytes, not all of them 0")));
        }
    }
    let bytes = request.encoded_len();
    if bytes > LARGEST {
        return Err(Refusal::new(format!("it has {bytes} bytes; the most are {LARGEST}")));
    }
    check_name("model", model)?;
    check_name("version", version)
}

/// Keeps requests behind those that are there.
///
/// # Errors
/// When the database does not take them.
pub(super) fn keep(connection: &Connection, traced: &[TracedRequest]) -> Result<(), StoreError> {
    let mut statement =
        prepare(connection, "INSERT INTO traced (trace_id, parent_id, request) VALUES (?1, ?2, ?3)")?;
    for request in traced {
        statement.execute(params![request.trace_id, request.parent_id, request.encode_to_vec()])?;
    }
    Ok(())
}

/// Lets go all but the newest. Their numbers have no gaps.
///
/// # Errors
/// When the database does not take it.
pub(super) fn trim(connection: &Connection, keep: u32) -> Result<(), StoreError> {
    prepare(connection, "DELETE FROM traced WHERE id <= (SELECT max(id) FROM traced) - ?1")?
        .execute([keep])?;
    Ok(())
}

impl Ledger {
    /// The requests of an id that are kept, in the order in which they came: `most` of them, the newest. Blocks.
    ///
    /// # Errors
    /// When the database does not answer, or is damaged.
    pub fn traced(&self, id: &Id, most: usize) -> Result<Vec<TracedRequest>, StoreError> {
        let (column, bytes): (_, &[u8]) = match id {
            Id::Trace(id) => ("trace_id", id),
            Id::Evaluation(id) => ("parent_id", id),
        };
        let connection = lock(&self.reader);
        let mut statement = connection.prepare_cached(&format!(
            "SELECT request FROM traced WHERE {column} = ?1 ORDER BY id DESC LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![bytes, i64::try_from(most).unwrap_or(i64::MAX)])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let request = row.get_ref(0)?.as_blob().map_err(|_| damaged())?;
            all.push(TracedRequest::decode(request).map_err(|_| damaged())?);
        }
        all.reverse();
        Ok(all)
    }

    /// How many requests are kept, at most.
    #[must_use]
    pub fn most_traced(&self) -> u32 {
        self.limits.keep_traces
    }
}
