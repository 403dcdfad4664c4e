//! Logs in Apache Parquet.

mod column;

use super::{
    input::{Bad, Reader},
    record::Record,
};
use anyhow::{Result, bail};
use column::{Column, Source};
use parquet::{
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        reader::{FileReader, SerializedFileReader},
    },
};
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 1024;

/// Reads row group by row group, and of each a batch of rows at a time.
pub(super) struct Parquet {
    file: SerializedFileReader<File>,
    length: u64,
    /// Where the columns are that matter.
    sources: Vec<Source>,
    /// The columns of the row group that is read.
    columns: Vec<Column>,
    next_group: usize,
    /// Rows of the batch that are still to come.
    batch: usize,
    row: u64,
    rows: u64,
}

impl Parquet {
    /// Opens a file and reads what it says about its columns.
    pub(super) fn open(file: File) -> Result<Self> {
        let length = file.metadata()?.len();
        let file = match no_panic(|| SerializedFileReader::new(file)) {
            Ok(file) => file,
            Err(error) => bail!("no Parquet file: {}", describe(&error)),
        };
        let chunks = file.metadata().row_groups().iter().flat_map(|group| group.columns());
        if !chunks.into_iter().all(is_plausible) {
            bail!("no Parquet file: a column has a negative place or length");
        }
        let metadata = file.metadata().file_metadata();
        let sources = column::sources(metadata.schema_descr());
        if sources.is_empty() {
            bail!("has no column that could be a part of a request");
        }
        let rows = u64::try_from(metadata.num_rows()).unwrap_or_default();
        Ok(Self { length, sources, columns: Vec::new(), next_group: 0, batch: 0, row: 0, rows, file })
    }

    /// Decodes the next rows; `false` at the end.
    fn next_batch(&mut self) -> Result<bool, ParquetError> {
        loop {
            self.batch = column::read_batch(&mut self.columns, BATCH_ROWS)?;
            if self.batch > 0 {
                return Ok(true);
            }
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.next_group)?;
            self.columns = self
                .sources
                .iter()
                .map(|source| Column::open(source, &*group))
                .collect::<Result<_, ParquetError>>()?;
            self.next_group += 1;
        }
    }
}

impl Reader for Parquet {
    fn next(&mut self, record: &mut Record<'_>) -> Result<bool, Bad> {
        record.clear();
        self.row += 1;
        if self.batch == 0 {
            match no_panic(|| self.next_batch()) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(Bad::Rest(format!("cannot be read further: {}", describe(&error)))),
            }
        }
        self.batch -= 1;
        for column in &mut self.columns {
            column.next(record);
        }
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.row
    }

    fn position(&self) -> u64 {
        // Columns lie one after the other, so the rows that are done say more than the place in the file.
        let part = u128::from(self.length) * u128::from(self.row) / u128::from(self.rows.max(1));
        u64::try_from(part).unwrap_or(self.length)
    }
}

/// What the crate asserts instead of returning an error.
fn is_plausible(column: &ColumnChunkMetaData) -> bool {
    column.compressed_size() >= 0
        && column.data_page_offset() >= 0
        && column.dictionary_page_offset().unwrap_or_default() >= 0
}

/// The crate may panic on what a damaged file says. Such a file is not read further, so it does not matter
/// in what state its reader is.
fn no_panic<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("the file is damaged".into())))
}

/// The error without the name of its variant.
fn describe(error: &ParquetError) -> String {
    match error {
        ParquetError::General(text) | ParquetError::EOF(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
