//! The columns of a Parquet file as the fields of records.

use super::super::record::Record;
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical},
    column::reader::ColumnReader,
    data_type::{ByteArray, FixedLenByteArray, Int96},
    errors::{ParquetError, Result},
    file::reader::RowGroupReader,
    schema::types::{ColumnDescriptor, SchemaDescriptor},
};

/// Where fields come from, with the numbers of the leaves.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A value per row; the path's parts are joined by dots.
    Plain { leaf: usize, object: String, name: String },
    /// A map from text to text: an object with its members.
    Map { object: String, keys: usize, values: usize },
}

/// The columns that can be fields. Lists, maps in groups, decimals and the like are left out.
pub(super) fn sources(schema: &SchemaDescriptor) -> Vec<Source> {
    let mut sources = Vec::new();
    for leaf in 0..schema.num_columns() {
        let column = schema.column(leaf);
        let parts = column.path().parts();
        let Some((name, objects)) = parts.split_last() else { continue };
        if column.max_rep_level() == 0 {
            if Meaning::of(&column).is_some() {
                sources.push(Source::Plain { leaf, object: objects.join("."), name: name.clone() });
            }
        } else if let [object, _] = objects
            && is_map(schema, leaf)
        {
            sources.push(Source::Map { object: object.clone(), keys: leaf, values: leaf + 1 });
        }
    }
    sources
}

/// Whether a leaf holds the keys of a map from text to text.
fn is_map(schema: &SchemaDescriptor, leaf: usize) -> bool {
    let root = schema.get_column_root_idx(leaf);
    let info = schema.get_column_root(leaf).get_basic_info();
    let annotated = info.logical_type_ref() == Some(&LogicalType::Map)
        || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    let is_text = |leaf: usize| {
        let column = schema.column(leaf);
        column.max_rep_level() == 1 && column.physical_type() == Physical::BYTE_ARRAY
    };
    let in_root = |leaf: usize| leaf < schema.num_columns() && schema.get_column_root_idx(leaf) == root;
    let is_first = leaf == 0 || !in_root(leaf - 1);
    annotated && is_first && in_root(leaf + 1) && !in_root(leaf + 2) && is_text(leaf) && is_text(leaf + 1)
}

/// How a column's values become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// As they are.
    Plain,
    /// Integers are unsigned.
    Unsigned,
    /// Integers count from the epoch, in units of so many nanoseconds.
    Time(i64),
    /// Sixteen bytes are a UUID.
    Uuid,
}

const DAY: i64 = 86_400_000_000_000;

impl Meaning {
    /// `None` when the values are nothing that could be a part of a request.
    fn of(column: &ColumnDescriptor) -> Option<Self> {
        if let Some(logical) = column.logical_type_ref() {
            return match logical {
                LogicalType::Timestamp(time) => Some(Self::Time(match time.unit {
                    TimeUnit::MILLIS => 1_000_000,
                    TimeUnit::MICROS => 1_000,
                    TimeUnit::NANOS => 1,
                })),
                LogicalType::Date => Some(Self::Time(DAY)),
                LogicalType::Uuid => Some(Self::Uuid),
                LogicalType::Integer(integer) if !integer.is_signed => Some(Self::Unsigned),
                LogicalType::Integer(_) | LogicalType::String | LogicalType::Enum | LogicalType::Json => {
                    Some(Self::Plain)
                }
                _ => None,
            };
        }
        match column.converted_type() {
            ConvertedType::TIMESTAMP_MILLIS => Some(Self::Time(1_000_000)),
            ConvertedType::TIMESTAMP_MICROS => Some(Self::Time(1_000)),
            ConvertedType::DATE => Some(Self::Time(DAY)),
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Some(Self::Unsigned),
            ConvertedType::NONE
            | ConvertedType::UTF8
            | ConvertedType::ENUM
            | ConvertedType::JSON
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64 => Some(Self::Plain),
            _ => None,
        }
    }
}

/// A source in a row group.
pub(super) enum Column {
    Plain { leaf: Leaf, object: String, name: String },
    Map { object: String, keys: Leaf, values: Leaf },
}

impl Column {
    pub(super) fn open(source: &Source, group: &dyn RowGroupReader) -> Result<Self> {
        Ok(match source {
            Source::Plain { leaf, object, name } => {
                Self::Plain { leaf: Leaf::open(*leaf, group)?, object: object.clone(), name: name.clone() }
            }
            Source::Map { object, keys, values } => Self::Map {
                object: object.clone(),
                keys: Leaf::open(*keys, group)?,
                values: Leaf::open(*values, group)?,
            },
        })
    }

    fn leaves(&mut self) -> impl Iterator<Item = &mut Leaf> {
        let (first, second) = match self {
            Self::Plain { leaf, .. } => (leaf, None),
            Self::Map { keys, values, .. } => (keys, Some(values)),
        };
        [first].into_iter().chain(second)
    }

    /// Adds what the column has for the next row of the batch.
    pub(super) fn next(&mut self, record: &mut Record<'_>) {
        match self {
            Self::Plain { leaf, object, name } => {
                if let Some(value) = leaf.next() {
                    record.push(object, name, value);
                }
            }
            Self::Map { object, keys, values } => loop {
                if let (Some(key), Some(value)) = (keys.next(), values.next())
                    && let Ok(name) = std::str::from_utf8(key)
                {
                    record.push(object, name, value);
                }
                if !keys.continues() {
                    break;
                }
            },
        }
    }
}

/// Decodes the next rows of all columns and says how many they are.
pub(super) fn read_batch(columns: &mut [Column], rows: usize) -> Result<usize> {
    let mut read = None;
    for leaf in columns.iter_mut().flat_map(Column::leaves) {
        let count = leaf.read(rows)?;
        if *read.get_or_insert(count) != count {
            return Err(ParquetError::General("its columns have different numbers of rows".into()));
        }
    }
    Ok(read.unwrap_or_default())
}

/// The values of a leaf in a batch.
pub(super) struct Leaf {
    /// In a box, as it is large.
    reader: Box<ColumnReader>,
    meaning: Meaning,
    /// Definition level of a value that is there.
    defined: i16,
    definitions: Vec<i16>,
    /// Zero where a row begins; empty when each row has one value.
    repetitions: Vec<i16>,
    values: Values,
    next_level: usize,
    next_value: usize,
    text: Vec<u8>,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Leaf {
    fn open(leaf: usize, group: &dyn RowGroupReader) -> Result<Self> {
        let column = group.metadata().column(leaf).column_descr_ptr();
        let reader = group.get_column_reader(leaf)?;
        let values = match &reader {
            ColumnReader::BoolColumnReader(_) => Values::Bool(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Values::Int32(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Values::Int64(Vec::new()),
            ColumnReader::Int96ColumnReader(_) => Values::Int96(Vec::new()),
            ColumnReader::FloatColumnReader(_) => Values::Float(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Values::Double(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Values::Bytes(Vec::new()),
            ColumnReader::FixedLenByteArrayColumnReader(_) => Values::Fixed(Vec::new()),
        };
        Ok(Self {
            reader: Box::new(reader),
            meaning: Meaning::of(&column).unwrap_or(Meaning::Plain),
            defined: column.max_def_level(),
            definitions: Vec::new(),
            repetitions: Vec::new(),
            values,
            next_level: 0,
            next_value: 0,
            text: Vec::new(),
        })
    }

    fn read(&mut self, rows: usize) -> Result<usize> {
        (self.next_level, self.next_value) = (0, 0);
        self.definitions.clear();
        self.repetitions.clear();
        macro_rules! read {
            ($reader:expr, $values:expr) => {{
                $values.clear();
                let levels = (Some(&mut self.definitions), Some(&mut self.repetitions));
                $reader.read_records(rows, levels.0, levels.1, $values)?
            }};
        }
        let (count, _, _) = match (&mut *self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(reader), Values::Bool(values)) => read!(reader, values),
            (ColumnReader::Int32ColumnReader(reader), Values::Int32(values)) => read!(reader, values),
            (ColumnReader::Int64ColumnReader(reader), Values::Int64(values)) => read!(reader, values),
            (ColumnReader::Int96ColumnReader(reader), Values::Int96(values)) => read!(reader, values),
            (ColumnReader::FloatColumnReader(reader), Values::Float(values)) => read!(reader, values),
            (ColumnReader::DoubleColumnReader(reader), Values::Double(values)) => read!(reader, values),
            (ColumnReader::ByteArrayColumnReader(reader), Values::Bytes(values)) => read!(reader, values),
            (ColumnReader::FixedLenByteArrayColumnReader(reader), Values::Fixed(values)) => {
                read!(reader, values)
            }
            // The values were made for the reader.
            _ => (0, 0, 0),
        };
        Ok(count)
    }

    /// Whether the row has more values.
    fn continues(&self) -> bool {
        self.repetitions.get(self.next_level).is_some_and(|level| *level > 0)
    }

    /// The next value as text, if it is there.
    fn next(&mut self) -> Option<&[u8]> {
        let level = self.next_level;
        self.next_level += 1;
        if self.defined > 0 && *self.definitions.get(level)? < self.defined {
            return None;
        }
        let index = self.next_value;
        self.next_value += 1;
        self.text.clear();
        match &self.values {
            Values::Bytes(values) => return values.get(index).map(ByteArray::data),
            Values::Fixed(values) => {
                let bytes = values.get(index)?.data();
                if self.meaning != Meaning::Uuid {
                    return Some(bytes);
                }
                write_uuid(bytes, &mut self.text);
            }
            Values::Bool(values) => self.text.extend(values.get(index)?.to_string().bytes()),
            Values::Int32(values) => {
                let value = *values.get(index)?;
                match self.meaning {
                    Meaning::Unsigned => self.text.extend(value.cast_unsigned().to_string().bytes()),
                    meaning => write_integer(i64::from(value), meaning, &mut self.text),
                }
            }
            Values::Int64(values) => write_integer(*values.get(index)?, self.meaning, &mut self.text),
            Values::Int96(values) => self.text.extend(values.get(index)?.to_nanos().to_string().bytes()),
            Values::Float(values) => self.text.extend(values.get(index)?.to_string().bytes()),
            Values::Double(values) => self.text.extend(values.get(index)?.to_string().bytes()),
        }
        Some(&self.text)
    }
}

fn write_integer(value: i64, meaning: Meaning, text: &mut Vec<u8>) {
    match meaning {
        Meaning::Plain | Meaning::Uuid => text.extend(value.to_string().bytes()),
        Meaning::Unsigned => text.extend(value.cast_unsigned().to_string().bytes()),
        Meaning::Time(unit) => text.extend(value.saturating_mul(unit).to_string().bytes()),
    }
}

/// In the form of RFC 9562, which clients send.
fn write_uuid(bytes: &[u8], text: &mut Vec<u8>) {
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.extend(format!("{byte:02x}").bytes());
    }
}
