//! Opens logs, whatever their format.

use super::{
    csv::Csv, interrupt::Interrupt, json_lines::JsonLines, parquet::Parquet, pipe::Pipe, record::Record,
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use flate2::read::MultiGzDecoder;
use std::{
    cell::Cell,
    fs::File,
    io::{self, Read},
    path::Path,
    rc::Rc,
};

/// Bytes of one record of a text format. More is damage, and would have to be kept in memory.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 20;

/// Format of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// One JSON object per line.
    Json,
    /// Values separated by commas, with the names in the first row.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// A log, record by record.
pub(super) trait Reader {
    /// Fills in the next record; `false` at the end.
    fn next(&mut self, record: &mut Record<'_>) -> Result<bool, Bad>;

    /// The line, or row, that the last record or error is about, from 1.
    fn line(&self) -> u64;

    /// Bytes of the file that are done.
    fn position(&self) -> u64;
}

/// Why a record cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// This one cannot; the ones after it may.
    Record(String),
    /// Neither can the rest of the log.
    Rest(String),
}

/// An open log.
pub(super) struct Input {
    /// As the user wrote it.
    pub(super) name: String,
    /// Length in bytes; unknown of a pipe.
    pub(super) length: Option<u64>,
    pub(super) reader: Box<dyn Reader>,
}

impl Input {
    /// Opens a log; `-` is standard input. A reader of a pipe ends early when the user interrupts.
    pub(super) fn open(path: &Path, format: Option<InputFormat>, interrupt: &Interrupt) -> Result<Self> {
        let name = path.display().to_string();
        if name == "-" {
            let pipe = Pipe::new(io::stdin(), interrupt.clone());
            let reader =
                text(format.unwrap_or(InputFormat::Json), pipe, &Rc::default()).context("standard input")?;
            return Ok(Self { name: "standard input".into(), length: None, reader });
        }
        let (found, zipped) = format_of(path);
        let Some(format) = format.or(found) else {
            bail!("{name}: its name does not tell the format; name it with --input-format");
        };
        let file = File::open(path).with_context(|| format!("{name} cannot be read"))?;
        let metadata = file.metadata().with_context(|| format!("{name} cannot be read"))?;
        if metadata.is_dir() {
            bail!("{name} is a folder");
        }
        let length = metadata.is_file().then_some(metadata.len());
        if format == InputFormat::Parquet {
            let reader = Parquet::open(file).with_context(|| name.clone())?;
            return Ok(Self { name, length, reader: Box::new(reader) });
        }
        let position = Rc::new(Cell::new(0));
        let bytes: Box<dyn Read> =
            if length.is_some() { Box::new(file) } else { Box::new(Pipe::new(file, interrupt.clone())) };
        let counted = Counted { bytes, position: Rc::clone(&position) };
        let reader = if zipped {
            text(format, MultiGzDecoder::new(counted), &position)
        } else {
            text(format, counted, &position)
        };
        let reader = reader.with_context(|| name.clone())?;
        Ok(Self { name, length, reader })
    }
}

/// A reader of a text format.
fn text(
    format: InputFormat,
    bytes: impl Read + 'static,
    position: &Rc<Cell<u64>>,
) -> Result<Box<dyn Reader>> {
    let position = Rc::clone(position);
    Ok(match format {
        InputFormat::Json => Box::new(JsonLines::new(bytes, position)),
        InputFormat::Csv => Box::new(Csv::new(bytes, position)),
        InputFormat::Parquet => bail!("Parquet is read from files only"),
    })
}

/// What a file's name tells: its format, and whether it is compressed by gzip.
fn format_of(path: &Path) -> (Option<InputFormat>, bool) {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let (name, zipped) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, true),
        None => (&*name, false),
    };
    let format = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json" | "jsonl" | "ndjson" | "log") => Some(InputFormat::Json),
        Some("csv") => Some(InputFormat::Csv),
        // Parquet compresses by itself, and cannot be read from its start.
        Some("parquet") if !zipped => Some(InputFormat::Parquet),
        _ => None,
    };
    (format, zipped)
}

/// Counts the bytes of a file that were read.
struct Counted {
    bytes: Box<dyn Read>,
    position: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_format() {
        use InputFormat::{Csv, Json, Parquet};
        for (name, expected) in [
            ("a.json", (Some(Json), false)),
            ("a.jsonl", (Some(Json), false)),
            ("a.ndjson.gz", (Some(Json), true)),
            ("logs.d/ACCESS.LOG", (Some(Json), false)),
            ("a.csv.GZ", (Some(Csv), true)),
            ("a.parquet", (Some(Parquet), false)),
            ("a.parquet.gz", (None, true)),
            ("access.log.1", (None, false)),
            ("a.gz", (None, true)),
            ("json", (None, false)),
        ] {
            assert_eq!(format_of(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, format| {
            let path = folder.path().join(name);
            match Input::open(&path, format, &Interrupt::default()) {
                Ok(_) => panic!("{name} opens"),
                Err(error) => format!("{error:#}"),
            }
        };
        std::fs::create_dir(folder.path().join("a.json")).unwrap();
        std::fs::write(folder.path().join("b.parquet"), "PAR1 but no Parquet").unwrap();
        std::fs::write(folder.path().join("c"), "{}").unwrap();
        assert!(open("a.json", None).contains("is a folder"));
        assert!(open("b.parquet", None).contains("no Parquet file"));
        assert!(open("c", None).contains("--input-format"));
        assert!(open("missing.csv", None).contains("cannot be read"));
        let stdin = Input::open(Path::new("-"), Some(InputFormat::Parquet), &Interrupt::default());
        assert!(stdin.err().is_some_and(|error| format!("{error:#}").contains("from files only")));
    }
}
