//! Logs with values separated by commas, and the names in the first row.

use super::{
    input::{Bad, MAX_RECORD_BYTES, Reader},
    record::Record,
};
use csv::{ByteRecord, ReaderBuilder, Terminator};
use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads row by row. An empty cell is an absent value: CSV has no other way to say so.
pub(super) struct Csv<R> {
    rows: csv::Reader<Limited<R>>,
    position: Rc<Cell<u64>>,
    input: Rc<Cell<Taken>>,
    /// Names of the columns, once the first row is read.
    names: Option<Vec<String>>,
    row: ByteRecord,
    line: u64,
}

impl<R: Read> Csv<R> {
    /// `position` counts the bytes that `input` has taken from its file.
    pub(super) fn new(input: R, position: Rc<Cell<u64>>) -> Self {
        let taken = Rc::default();
        let input = Limited { input, taken: Rc::clone(&taken) };
        Self {
            rows: ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                // A line ends with its line feed; with the other setting it ends before, and lines are
                // counted wrongly.
                .terminator(Terminator::Any(b'\n'))
                .buffer_capacity(BUFFER_BYTES)
                .from_reader(input),
            position,
            input: taken,
            names: None,
            row: ByteRecord::new(),
            line: 1,
        }
    }

    /// Reads a row that is not empty; `false` at the end.
    fn read(&mut self) -> Result<bool, Bad> {
        loop {
            self.input.set(Taken { unfinished: 0, ..self.input.get() });
            let read = self.rows.read_byte_record(&mut self.row);
            let after = self.rows.position();
            let Taken { total, last, .. } = self.input.get();
            let inside = self.row.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
            let ended = after.byte() < total || last == b'\n';
            self.line = after.line().saturating_sub(inside + u64::from(ended)).max(1);
            match read {
                Ok(true) if self.row.as_slice().trim_ascii().is_empty() && self.row.len() == 1 => {}
                Ok(more) => return Ok(more),
                Err(error) => {
                    self.line = after.line();
                    return Err(Bad::Rest(format!("cannot be read further: {error}")));
                }
            }
        }
    }
}

impl<R: Read> Reader for Csv<R> {
    fn next(&mut self, record: &mut Record<'_>) -> Result<bool, Bad> {
        record.clear();
        if self.names.is_none() {
            if !self.read()? {
                return Ok(false);
            }
            let name =
                |name: &[u8]| String::from_utf8_lossy(name).trim().trim_start_matches('\u{feff}').to_owned();
            self.names = Some(self.row.iter().map(name).collect());
        }
        if !self.read()? {
            return Ok(false);
        }
        let columns = self.names.as_ref().map_or(0, Vec::len);
        if self.row.len() != columns {
            let found = self.row.len();
            return Err(Bad::Record(format!("has {found} values, but there are {columns} columns")));
        }
        for (index, (name, value)) in self.names.iter().flatten().zip(&self.row).enumerate() {
            // The carriage return before the line feed belongs to neither.
            let value = if index + 1 == columns { value.strip_suffix(b"\r").unwrap_or(value) } else { value };
            if !value.is_empty() {
                record.push("", name, value);
            }
        }
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.line
    }

    fn position(&self) -> u64 {
        self.position.get()
    }
}

/// Ends a row that takes too much memory: a quote that is never closed would take all of the log.
struct Limited<R> {
    input: R,
    taken: Rc<Cell<Taken>>,
}

/// What was read of the log.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Bytes since the last row.
    unfinished: usize,
    /// Bytes in all.
    total: u64,
    /// The last byte.
    last: u8,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.taken.get();
        if taken.unfinished > MAX_RECORD_BYTES {
            return Err(io::Error::other(format!(
                "a row is longer than {MAX_RECORD_BYTES} bytes; is a quote not closed?"
            )));
        }
        let count = self.input.read(buffer)?;
        self.taken.set(Taken {
            unfinished: taken.unfinished + count,
            total: taken.total + count as u64,
            last: buffer.get(..count).and_then(<[u8]>::last).copied().unwrap_or(taken.last),
        });
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::field_map::FieldMap, *};
    use halftone_rules::Request;

    /// User ids and errors, with their lines.
    fn read(text: &str) -> Vec<(u64, Result<Option<String>, Bad>)> {
        let map = FieldMap::default();
        let mut record = Record::new(&map);
        let mut rows = Csv::new(text.as_bytes(), Rc::default());
        let mut read = Vec::new();
        loop {
            let outcome = match rows.next(&mut record) {
                Ok(false) => return read,
                Ok(true) => {
                    Ok(record.header("x-user-id").map(|value| String::from_utf8_lossy(value).into_owned()))
                }
                Err(bad) => Err(bad),
            };
            let last = matches!(outcome, Err(Bad::Rest(_)));
            read.push((rows.line(), outcome));
            if last {
                return read;
            }
        }
    }

    #[test]
    fn cells_become_fields() {
        let text = "\u{feff}x_user_id , path\r\n1,/a\r\n\"two\n\"\"lines\"\"\",/b\n\n-,/c\n,/d\n5,/e";
        let value = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(
            read(text),
            [(2, value("1")), (3, value("two\n\"lines\"")), (6, Ok(None)), (7, Ok(None)), (8, value("5"))]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("x-user-id\n"), []);
    }

    #[test]
    fn bad_rows_are_told_and_left_behind() {
        let reason = |text: &str| Err(Bad::Record(text.into()));
        assert_eq!(
            read("path,x-user-id\n/a,1\n/b\n/c,3,4\n/d,5\n"),
            [
                (2, Ok(Some("1".into()))),
                (3, reason("has 1 values, but there are 2 columns")),
                (4, reason("has 3 values, but there are 2 columns")),
                (5, Ok(Some("5".into()))),
            ]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_take_all_memory() {
        let text = format!("x-user-id\n1\n\"{}", "2\n".repeat(4 << 20));
        let read = read(&text);
        assert_eq!(read[0], (2, Ok(Some("1".into()))));
        assert!(matches!(&read[1], (_, Err(Bad::Rest(reason))) if reason.contains("quote")), "{:?}", read[1]);
    }
}
