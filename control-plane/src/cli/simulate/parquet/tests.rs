use super::{super::field_map::FieldMap, *};
use ::parquet::{
    basic::Compression,
    data_type::{
        BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, Int32Type, Int64Type,
    },
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use halftone_rules::Request;
use std::{
    io::{self, Seek, Write},
    sync::Arc,
};

fn bytes(values: &[&str]) -> Vec<ByteArray> {
    values.iter().map(|value| ByteArray::from(*value)).collect()
}

/// The next column of a row group: its values, with definition and repetition levels.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) {
    let mut writer = group.next_column().unwrap().expect("the schema has more columns");
    writer.typed::<T>().write_batch(values, definitions, repetitions).unwrap();
    writer.close().unwrap();
}

/// Writes the columns of a row group.
type Fill<'a> = &'a dyn Fn(&mut SerializedRowGroupWriter<'_, File>);

fn file(schema: &str, compression: Compression, groups: &[Fill<'_>]) -> File {
    let file = tempfile::tempfile().unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, properties).unwrap();
    for fill in groups {
        let mut group = writer.next_row_group().unwrap();
        fill(&mut group);
        group.close().unwrap();
    }
    writer.close().unwrap();
    file
}

/// What a request asks for, of each row.
fn read(file: File, names: &[&str]) -> Result<Vec<Vec<Option<String>>>, Bad> {
    let map = FieldMap::default();
    let mut record = Record::new(&map);
    let mut reader = Parquet::open(file).map_err(|error| Bad::Rest(error.to_string()))?;
    let mut rows = Vec::new();
    while reader.next(&mut record)? {
        let value = |name: &&str| match *name {
            "time" => record.time().unwrap().map(|time| time.to_string()),
            name => record.header(name).map(|value| String::from_utf8_lossy(value).into_owned()),
        };
        rows.push(names.iter().map(value).collect());
        assert_eq!(reader.line(), rows.len() as u64);
    }
    Ok(rows)
}

fn texts(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "?".into());
    rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn columns_become_fields() {
    let schema = "message log {
        required int64 start_time (TIMESTAMP(NANOS,true));
        optional binary path (UTF8);
        required int32 x_unsigned (UINT_32);
        required int64 x_signed;
        required boolean x_bool;
        required double x_double;
        required fixed_len_byte_array(16) x_uuid (UUID);
        required int32 x_amount (DECIMAL(5,2));
        optional group request_headers (MAP) {
            repeated group key_value { required binary key (UTF8); optional binary value (UTF8); }
        }
        optional group headers { optional binary x_in_group (UTF8); }
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    }";
    let file = file(
        schema,
        Compression::UNCOMPRESSED,
        &[&|group| {
            column::<Int64Type>(group, &[1_782_909_000_250_000_001; 3], None, None);
            column::<ByteArrayType>(group, &bytes(&["/a", "-"]), Some(&[1, 0, 1]), None);
            column::<Int32Type>(group, &[-1, 2, 3], None, None);
            column::<Int64Type>(group, &[-1, 2, 3], None, None);
            column::<BoolType>(group, &[true, false, true], None, None);
            column::<DoubleType>(group, &[0.5, 2.0, 1e3], None, None);
            let uuid: Vec<u8> = (0..16).collect();
            column::<FixedLenByteArrayType>(group, &vec![ByteArray::from(uuid).into(); 3], None, None);
            column::<Int32Type>(group, &[100, 200, 300], None, None);
            // Two members, then no map, then a member without a value and one with.
            let keys = bytes(&["x-user-id", "X-Tier", "x-tier", "x-user-id"]);
            column::<ByteArrayType>(group, &keys, Some(&[2, 2, 0, 2, 2]), Some(&[0, 1, 0, 0, 1]));
            let values = bytes(&["7", "gold", "9"]);
            column::<ByteArrayType>(group, &values, Some(&[3, 3, 0, 2, 3]), Some(&[0, 1, 0, 0, 1]));
            column::<ByteArrayType>(group, &bytes(&["g"]), Some(&[2, 1, 0]), None);
            column::<ByteArrayType>(group, &bytes(&["t", "u"]), Some(&[3, 3, 0, 0]), Some(&[0, 1, 0, 0]));
        }],
    );
    let names = [
        "time",
        ":path",
        "x-unsigned",
        "x-signed",
        "x-bool",
        "x-double",
        "x-uuid",
        "x-amount",
        "x-user-id",
        "x-tier",
        "x-in-group",
        "element",
    ];
    let time = "1782909000250000001";
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    assert_eq!(
        texts(read(file, &names).unwrap()),
        [
            format!("{time} /a 4294967295 -1 true 0.5 {uuid} ? 7 gold g ?"),
            format!("{time} ? 2 2 false 2 {uuid} ? ? ? ? ?"),
            format!("{time} ? 3 3 true 1000 {uuid} ? 9 ? ? ?"),
        ]
    );
}

/// Three row groups of two and a half batches each.
fn users(compression: Compression) -> File {
    let rows = i64::try_from(BATCH_ROWS * 5 / 2).unwrap();
    let group = |number: i64| {
        move |group: &mut SerializedRowGroupWriter<'_, File>| {
            let users: Vec<i64> = (number * rows..(number + 1) * rows).collect();
            column::<Int64Type>(group, &users, None, None);
            let paths = bytes(&vec!["/v2/models/digits/infer"; users.len()]);
            column::<ByteArrayType>(group, &paths, Some(&vec![1; users.len()]), None);
        }
    };
    file(
        "message log { required int64 x_user_id; optional binary path (UTF8); }",
        compression,
        &[&group(0), &group(1), &group(2)],
    )
}

#[test]
fn every_row_of_every_row_group_is_read() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        let rows = texts(read(users(compression), &["x-user-id", ":path"]).unwrap());
        assert_eq!(rows.len(), BATCH_ROWS * 15 / 2);
        for (user, row) in rows.into_iter().enumerate() {
            assert_eq!(row, format!("{user} /v2/models/digits/infer"), "{compression}");
        }
    }
}

#[test]
fn damage_is_told_and_no_panic() {
    let mut whole = Vec::new();
    let mut file = users(Compression::SNAPPY);
    file.rewind().unwrap();
    io::copy(&mut file, &mut whole).unwrap();
    let damaged = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    for length in [0, 7, 8, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(read(damaged(&whole[..length]), &[]), Err(Bad::Rest(_))), "{length} bytes");
    }
    // Pages and footer, wherever a bit is wrong: an error, or other values.
    let step = whole.len() / 2_000 + 1;
    for (place, bit) in (0..whole.len()).step_by(step).zip((0..8).cycle()) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << bit;
        let _ = read(damaged(&bytes), &["x-user-id"]);
    }
    for place in whole.len() - 600..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            let _ = read(damaged(&bytes), &["x-user-id"]);
        }
    }
}

#[test]
fn a_file_without_a_usable_column_is_refused() {
    let file = file("message log { repeated int32 numbers; }", Compression::UNCOMPRESSED, &[]);
    assert!(matches!(read(file, &[]), Err(Bad::Rest(reason)) if reason.contains("no column")));
}
