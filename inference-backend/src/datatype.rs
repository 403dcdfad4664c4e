//! The protocol's datatypes, and what each is in Rust and in ONNX Runtime.

use crate::elements;
use ort::value::{DynValue, Tensor, TensorElementType};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// One row per datatype; everything that depends on the type of the elements is made from it.
macro_rules! datatypes {
    ($($variant:ident $name:literal $rust:ty;)*) => {
        /// A datatype of the Open Inference Protocol that has a JSON form we serve.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Datatype {
            $(#[doc = $name] $variant,)*
        }

        impl Datatype {
            /// Its name in the protocol.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The datatype of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// ONNX Runtime's type; none for FP16 (no agreed JSON form), strings and the exotic ones.
            #[must_use]
            pub fn from_ort(element_type: TensorElementType) -> Option<Self> {
                match element_type {
                    $(TensorElementType::$variant => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// A tensor for ONNX Runtime from the protocol's `data`.
            ///
            /// # Errors
            /// What is wrong with the data, for the client.
            pub fn tensor(self, shape: &[usize], data: &RawValue) -> Result<DynValue, String> {
                match self {
                    $(Self::$variant => {
                        let elements = elements::parse::<$rust>(data, shape)?;
                        Tensor::from_array((shape, elements)).map(Tensor::into_dyn).map_err(|e| e.to_string())
                    })*
                }
            }
        }

        /// The elements of a tensor that ONNX Runtime made; serialised as the protocol's flat `data`.
        #[derive(Clone, Copy, Debug, Serialize)]
        #[serde(untagged)]
        pub enum Elements<'a> {
            $(#[doc = $name] $variant(&'a [$rust]),)*
        }

        impl<'a> Elements<'a> {
            /// The elements of `value`, which has the given datatype.
            ///
            /// # Errors
            /// When the value has another datatype than the model declares.
            pub fn of(value: &'a DynValue, datatype: Datatype) -> ort::Result<Self> {
                Ok(match datatype {
                    $(Datatype::$variant => Self::$variant(value.try_extract_tensor::<$rust>()?.1),)*
                })
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
    Float32 "FP32" f32;
    Float64 "FP64" f64;
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

impl Elements<'_> {
    /// The first element that JSON cannot carry (NaN or an infinity), with its index.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<(usize, f64)> {
        match self {
            Self::Float32(elements) => {
                let index = elements.iter().position(|e| !e.is_finite())?;
                Some((index, f64::from(*elements.get(index)?)))
            }
            Self::Float64(elements) => {
                let index = elements.iter().position(|e| !e.is_finite())?;
                Some((index, *elements.get(index)?))
            }
            _ => None,
        }
    }
}
