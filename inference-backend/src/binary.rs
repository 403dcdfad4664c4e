//! The protocol's binary form of a tensor: little-endian, row-major, without padding. BOOL is one byte, 0 or 1; each
//! element of BYTES has its length before it, in four bytes.

use half::{bf16, f16};

/// An element that has the same size in every tensor of its type.
pub trait Fixed: Copy {
    /// What to say was expected.
    const EXPECTED: &'static str;

    /// From as many bytes as it takes; none when they are no element.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Into as many bytes as it takes.
    fn write(self, bytes: &mut [u8]);
}

macro_rules! fixed {
    ($($rust:ty)*) => {$(
        impl Fixed for $rust {
            // Every pattern of bits is an element.
            const EXPECTED: &'static str = "";

            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }

            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

fixed! { u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64 }

impl Fixed for bool {
    const EXPECTED: &'static str = "a byte that is 0 or 1";

    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn write(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&[u8::from(self)]);
    }
}

/// The elements of a tensor of the given shape. The product of the shape must not overflow.
///
/// # Errors
/// What is wrong: the number of bytes, or an element (by its row-major index).
pub fn decode<T: Fixed>(data: &[u8], shape: &[usize]) -> Result<Vec<T>, String> {
    let expected = shape.iter().product::<usize>().saturating_mul(size_of::<T>());
    if data.len() != expected {
        return Err(format!("the data has {} bytes, the shape {shape:?} needs {expected}", data.len()));
    }
    data.chunks_exact(size_of::<T>())
        .enumerate()
        .map(|(index, bytes)| {
            T::read(bytes).ok_or_else(|| format!("element {index} is {bytes:?}, expected {}", T::EXPECTED))
        })
        .collect()
}

/// Appends elements.
pub fn encode<T: Fixed>(elements: &[T], into: &mut Vec<u8>) {
    let start = into.len();
    into.resize(start + size_of_val(elements), 0);
    let places = into.get_mut(start..).unwrap_or_default().chunks_exact_mut(size_of::<T>());
    for (element, place) in elements.iter().zip(places) {
        element.write(place);
    }
}

/// The strings of a tensor of the given shape.
///
/// # Errors
/// What is wrong: a length that goes beyond the data, too few or too many elements, or one that ONNX cannot have.
pub fn decode_strings(data: &[u8], shape: &[usize]) -> Result<Vec<String>, String> {
    let expected: usize = shape.iter().product();
    // No element takes fewer than four bytes: a false shape cannot make us reserve more.
    let mut elements = Vec::with_capacity(expected.min(data.len() / 4));
    let mut rest = data;
    while !rest.is_empty() {
        let index = elements.len();
        if index == expected {
            return Err(format!(
                "{} bytes follow the {expected} elements of the shape {shape:?}",
                rest.len()
            ));
        }
        let (length, after) = rest
            .split_first_chunk()
            .ok_or_else(|| format!("the data ends within the length of element {index}"))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (element, after) = after.split_at_checked(length).ok_or_else(|| {
            format!("element {index} says it has {length} bytes, but {} are left", after.len())
        })?;
        elements.push(string(index, element)?);
        rest = after;
    }
    if elements.len() != expected {
        let count = elements.len();
        return Err(format!("the data has {count} elements, the shape {shape:?} needs {expected}"));
    }
    Ok(elements)
}

/// An element of BYTES as ONNX can have it.
///
/// # Errors
/// When it is not UTF-8, or has a NUL, with which ONNX Runtime's strings end.
pub fn string(index: usize, element: &[u8]) -> Result<String, String> {
    let text = str::from_utf8(element)
        .map_err(|e| format!("element {index} is not UTF-8 ({e}), which ONNX's strings are"))?;
    if text.contains('\0') {
        return Err(format!("element {index} has a NUL, which ONNX Runtime's strings cannot have"));
    }
    Ok(text.to_owned())
}

/// Appends strings.
pub fn encode_strings(elements: &[String], into: &mut Vec<u8>) {
    for element in elements {
        // ONNX Runtime has no strings of 4 GiB within a response that could be sent.
        let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_le_bytes());
        into.extend_from_slice(element.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Fixed + PartialEq + std::fmt::Debug>(elements: &[T], bytes: &[u8]) {
        let mut encoded = vec![7];
        encode(elements, &mut encoded);
        assert_eq!(&encoded[1..], bytes);
        assert_eq!(decode::<T>(bytes, &[elements.len()]).unwrap(), elements);
    }

    #[test]
    fn is_little_endian() {
        round_trip(&[1_u8, 255], &[1, 255]);
        round_trip(&[258_u16], &[2, 1]);
        round_trip(&[-2_i32, 1], &[254, 255, 255, 255, 1, 0, 0, 0]);
        round_trip(&[u64::MAX - 1], &[254, 255, 255, 255, 255, 255, 255, 255]);
        round_trip(&[1.0_f32], &[0, 0, 128, 63]);
        round_trip(&[f16::ONE], &[0, 60]);
        round_trip(&[bf16::ONE], &[128, 63]);
        round_trip(&[true, false], &[1, 0]);
        round_trip::<f64>(&[], &[]);
    }

    #[test]
    fn sizes_must_agree() {
        assert_eq!(decode::<f32>(&[0; 7], &[2]).unwrap_err(), "the data has 7 bytes, the shape [2] needs 8");
        assert_eq!(
            decode::<f64>(&[], &[usize::MAX]).unwrap_err(),
            format!("the data has 0 bytes, the shape [{0}] needs {0}", usize::MAX)
        );
        assert_eq!(decode::<u8>(&[9], &[]).unwrap(), [9]);
        assert_eq!(
            decode::<bool>(&[1, 2], &[2]).unwrap_err(),
            "element 1 is [2], expected a byte that is 0 or 1"
        );
    }

    #[test]
    fn strings_have_their_lengths_before_them() {
        let mut encoded = Vec::new();
        encode_strings(&["é".into(), String::new()], &mut encoded);
        assert_eq!(encoded, [2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0]);
        assert_eq!(decode_strings(&encoded, &[2]).unwrap(), ["é", ""]);
        for (data, shape, problem) in [
            (&encoded[..9], 2, "the data ends within the length of element 1"),
            (&encoded[..6], 2, "the data has 1 elements, the shape [2] needs 2"),
            (&encoded[..], 1, "4 bytes follow the 1 elements of the shape [1]"),
            (&encoded[..], 3, "the data has 2 elements, the shape [3] needs 3"),
            (&[255; 8], 1, "element 0 says it has 4294967295 bytes, but 4 are left"),
            (&[1, 0, 0, 0, 0], 1, "element 0 has a NUL, which ONNX Runtime's strings cannot have"),
        ] {
            assert_eq!(decode_strings(data, &[shape]).unwrap_err(), problem);
        }
        let not_utf8 = decode_strings(&[1, 0, 0, 0, 0xff], &[1]).unwrap_err();
        assert!(not_utf8.starts_with("element 0 is not UTF-8"), "{not_utf8}");
    }
}
