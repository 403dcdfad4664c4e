//! The protocol's datatypes, and what each is in Rust and in ONNX Runtime.

use crate::{binary, elements};
use half::{bf16, f16};
use ort::value::{DynValue, Tensor, TensorElementType};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::{fmt, ops::Range};

/// One row per datatype of elements that all have one size; everything that depends on the type of the elements is
/// made from it. BYTES, whose elements are strings, is written out where it differs.
macro_rules! datatypes {
    ($($variant:ident $name:literal $rust:ty;)*) => {
        /// A datatype of the Open Inference Protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Datatype {
            $(#[doc = $name] $variant,)*
            /// BYTES: strings, which in ONNX are UTF-8.
            String,
        }

        impl Datatype {
            /// Its name in the protocol.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::String => "BYTES",
                }
            }

            /// The datatype of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    "BYTES" => Some(Self::String),
                    _ => None,
                }
            }

            /// ONNX Runtime's type; none for those that the protocol has no name for.
            #[must_use]
            pub fn from_ort(element_type: TensorElementType) -> Option<Self> {
                match element_type {
                    $(TensorElementType::$variant => Some(Self::$variant),)*
                    TensorElementType::String => Some(Self::String),
                    _ => None,
                }
            }

            /// Bytes of an element; none where elements differ in size.
            #[must_use]
            pub fn size(self) -> Option<usize> {
                match self {
                    $(Self::$variant => Some(size_of::<$rust>()),)*
                    Self::String => None,
                }
            }

            /// A tensor for ONNX Runtime from the protocol's JSON `data`.
            ///
            /// # Errors
            /// What is wrong with the data, for the client.
            pub fn from_json(self, shape: &[usize], data: &RawValue) -> Result<DynValue, String> {
                match self {
                    $(Self::$variant => tensor(shape, elements::parse::<$rust>(data, shape)?),)*
                    Self::String => strings(shape, &elements::parse::<String>(data, shape)?),
                }
            }

            /// A tensor for ONNX Runtime from the protocol's binary form.
            ///
            /// # Errors
            /// What is wrong with the data, for the client.
            pub fn from_binary(self, shape: &[usize], data: &[u8]) -> Result<DynValue, String> {
                match self {
                    $(Self::$variant => tensor(shape, binary::decode::<$rust>(data, shape)?),)*
                    Self::String => strings(shape, &binary::decode_strings(data, shape)?),
                }
            }

            /// A tensor of which every element is zero or one; empty strings for BYTES.
            ///
            /// # Errors
            /// When ONNX Runtime cannot make it.
            pub fn filled(self, shape: &[usize], ones: bool) -> Result<DynValue, String> {
                let elements = shape.iter().product();
                match self {
                    $(Self::$variant => tensor(shape, vec![<$rust>::of(ones); elements]),)*
                    Self::String => strings(shape, &vec![String::new(); elements]),
                }
            }

            /// One tensor of many, one after the other along the first dimension. BYTES cannot be joined.
            ///
            /// # Errors
            /// When a value has another datatype.
            pub fn join<'a>(
                self,
                shape: &[usize],
                values: impl Iterator<Item = &'a DynValue>,
            ) -> Result<DynValue, String> {
                match self {
                    $(Self::$variant => {
                        let mut elements: Vec<$rust> = Vec::with_capacity(shape.iter().product());
                        for value in values {
                            let (_, part) = value.try_extract_tensor::<$rust>().map_err(|e| e.to_string())?;
                            elements.extend_from_slice(part);
                        }
                        tensor(shape, elements)
                    })*
                    Self::String => Err("BYTES are not joined".into()),
                }
            }
        }

        /// The elements of a tensor that ONNX Runtime made, or of some of its rows.
        #[derive(Clone, Debug)]
        pub enum Elements<'a> {
            $(#[doc = $name] $variant(&'a [$rust]),)*
            /// BYTES
            String(Vec<String>),
        }

        impl<'a> Elements<'a> {
            /// The elements of `value`, which has the given datatype.
            ///
            /// # Errors
            /// When the value has another datatype than the model declares.
            pub fn of(value: &'a DynValue, datatype: Datatype) -> ort::Result<Self> {
                Ok(match datatype {
                    $(Datatype::$variant => Self::$variant(value.try_extract_tensor::<$rust>()?.1),)*
                    Datatype::String => Self::String(value.try_extract_strings()?.1),
                })
            }

            /// Those in the range, which must be there.
            #[must_use]
            pub fn part(self, range: Range<usize>) -> Self {
                match self {
                    $(Self::$variant(elements) => Self::$variant(&elements[range]),)*
                    Self::String(mut elements) => Self::String(elements.drain(range).collect()),
                }
            }

            /// How many there are.
            #[must_use]
            pub fn count(&self) -> usize {
                match self {
                    $(Self::$variant(elements) => elements.len(),)*
                    Self::String(elements) => elements.len(),
                }
            }

            /// Appends them in the protocol's binary form.
            pub fn encode(&self, into: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(elements) => binary::encode(elements, into),)*
                    Self::String(elements) => binary::encode_strings(elements, into),
                }
            }
        }
    };
}

datatypes! {
    Bool "BOOL" bool;
    Uint8 "UINT8" u8;
    Uint16 "UINT16" u16;
    Uint32 "UINT32" u32;
    Uint64 "UINT64" u64;
    Int8 "INT8" i8;
    Int16 "INT16" i16;
    Int32 "INT32" i32;
    Int64 "INT64" i64;
    Float16 "FP16" f16;
    Bfloat16 "BF16" bf16;
    Float32 "FP32" f32;
    Float64 "FP64" f64;
}

/// A tensor of elements that all have one size.
pub(crate) fn tensor<T: ort::value::PrimitiveTensorElementType + fmt::Debug + Clone + 'static>(
    shape: &[usize],
    elements: Vec<T>,
) -> Result<DynValue, String> {
    Tensor::from_array((shape, elements)).map(Tensor::into_dyn).map_err(|e| e.to_string())
}

/// A tensor of strings without NUL.
pub(crate) fn strings(shape: &[usize], elements: &[String]) -> Result<DynValue, String> {
    Tensor::from_string_array((shape, elements)).map(Tensor::into_dyn).map_err(|e| e.to_string())
}

/// Zero and one, in every type of elements.
trait ZeroOrOne {
    fn of(one: bool) -> Self;
}

macro_rules! zero_or_one {
    ($($rust:ty: $zero:expr, $one:expr;)*) => {$(
        impl ZeroOrOne for $rust {
            fn of(one: bool) -> Self {
                if one { $one } else { $zero }
            }
        }
    )*};
}

zero_or_one! {
    bool: false, true;
    u8: 0, 1;
    u16: 0, 1;
    u32: 0, 1;
    u64: 0, 1;
    i8: 0, 1;
    i16: 0, 1;
    i32: 0, 1;
    i64: 0, 1;
    f16: Self::ZERO, Self::ONE;
    bf16: Self::ZERO, Self::ONE;
    f32: 0.0, 1.0;
    f64: 0.0, 1.0;
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Datatype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// As the protocol's flat `data`; FP16 and BF16 as numbers.
impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(elements) => elements.serialize(serializer),
            Self::Uint8(elements) => elements.serialize(serializer),
            Self::Uint16(elements) => elements.serialize(serializer),
            Self::Uint32(elements) => elements.serialize(serializer),
            Self::Uint64(elements) => elements.serialize(serializer),
            Self::Int8(elements) => elements.serialize(serializer),
            Self::Int16(elements) => elements.serialize(serializer),
            Self::Int32(elements) => elements.serialize(serializer),
            Self::Int64(elements) => elements.serialize(serializer),
            Self::Float16(elements) => serializer.collect_seq(elements.iter().map(|e| e.to_f32())),
            Self::Bfloat16(elements) => serializer.collect_seq(elements.iter().map(|e| e.to_f32())),
            Self::Float32(elements) => elements.serialize(serializer),
            Self::Float64(elements) => elements.serialize(serializer),
            Self::String(elements) => elements.serialize(serializer),
        }
    }
}

impl Elements<'_> {
    /// The first element that JSON cannot carry (NaN or an infinity), with its index.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<(usize, f64)> {
        fn first<T: Copy + Into<f64>>(elements: &[T]) -> Option<(usize, f64)> {
            let values = elements.iter().map(|&element| element.into());
            values.enumerate().find(|(_, value): &(usize, f64)| !value.is_finite())
        }
        match self {
            Self::Float16(elements) => first(elements),
            Self::Bfloat16(elements) => first(elements),
            Self::Float32(elements) => first(elements),
            Self::Float64(elements) => first(elements),
            _ => None,
        }
    }
}
