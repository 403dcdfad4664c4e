//! Types and values of the rule language.

use crate::{time::Timestamp, version::is_version};
use bincode::{Decode, Encode};

macro_rules! types {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal; )+) => {
        /// A static type. The order is a part of the bundle's format: new ones go to the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
        pub enum Type { $( $(#[doc = $doc])+ $variant, )+ }

        impl Type {
            /// All types.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The type's name as the language writes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

types! {
    /// `true` or `false`.
    Bool = "bool";
    /// 64-bit signed integer.
    Int = "int";
    /// 64-bit unsigned integer.
    Uint = "uint";
    /// 64-bit IEEE 754 number.
    Double = "double";
    /// Unicode text.
    String = "string";
    /// Bytes without a meaning.
    Bytes = "bytes";
    /// A point in time, in nanoseconds since the Unix epoch.
    Timestamp = "timestamp";
    /// A span of time, in nanoseconds.
    Duration = "duration";
    /// A version by Semantic Versioning 2.0.0.
    Semver = "semver";
    /// Texts, in a header separated by commas.
    List = "list";
}

impl Type {
    /// Reads an attribute's text as this type. Timestamps and durations are not read from requests.
    #[must_use]
    pub fn parse(self, bytes: &[u8]) -> Value<'_> {
        if self == Self::Bytes {
            return Value::Bytes(bytes);
        }
        // Integers are ASCII: there is no need to look at their bytes twice.
        match self {
            Self::Int => return integer(bytes).map_or(Value::Error(EvalError::Malformed), Value::Int),
            Self::Uint => return integer(bytes).map_or(Value::Error(EvalError::Malformed), Value::Uint),
            _ => {}
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Value::Error(EvalError::Malformed);
        };
        let parsed = match self {
            Self::String => Some(Value::String(text)),
            Self::List => Some(Value::List(text)),
            Self::Bool => match text {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Double => text.parse().ok().map(Value::Double),
            Self::Semver => is_version(text).then_some(Value::Semver(text)),
            Self::Int | Self::Uint | Self::Bytes | Self::Timestamp | Self::Duration => None,
        };
        parsed.unwrap_or(Value::Error(EvalError::Malformed))
    }

    /// Reads a proxy's property as this type: numbers may come in the proxy's binary form, eight bytes in
    /// little-endian order, and bools as one byte.
    #[must_use]
    pub fn parse_property(self, bytes: &[u8]) -> Value<'_> {
        let text = self.parse(bytes);
        if !matches!(text, Value::Error(_)) {
            return text;
        }
        match (self, bytes) {
            (Self::Bool, [byte @ 0..=1]) => Value::Bool(*byte == 1),
            _ => match (self, <[u8; 8]>::try_from(bytes)) {
                (Self::Int, Ok(bytes)) => Value::Int(i64::from_le_bytes(bytes)),
                (Self::Uint, Ok(bytes)) => Value::Uint(u64::from_le_bytes(bytes)),
                (Self::Double, Ok(bytes)) => Value::Double(f64::from_le_bytes(bytes)),
                _ => text,
            },
        }
    }
}

/// Reads decimal digits with an optional sign, like [`str::parse`].
fn integer<T: TryFrom<i128>>(bytes: &[u8]) -> Option<T> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut magnitude = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    let magnitude = i128::from(magnitude);
    T::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// A value during evaluation. An error is a value too: `&&` and `||` absorb it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::Int`].
    Int(i64),
    /// See [`Type::Uint`].
    Uint(u64),
    /// See [`Type::Double`].
    Double(f64),
    /// See [`Type::String`].
    String(&'a str),
    /// See [`Type::Bytes`].
    Bytes(&'a [u8]),
    /// See [`Type::Timestamp`].
    Timestamp(Timestamp),
    /// See [`Type::Duration`]; nanoseconds.
    Duration(i64),
    /// See [`Type::Semver`]; the text is a valid version.
    Semver(&'a str),
    /// See [`Type::List`]; the text as the request has it.
    List(&'a str),
    /// The expression has no value.
    Error(EvalError),
}

impl Value<'_> {
    /// The value's type; an error has none.
    #[must_use]
    pub fn ty(&self) -> Option<Type> {
        Some(match self {
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::Semver(_) => Type::Semver,
            Self::List(_) => Type::List,
            Self::Error(_) => return None,
        })
    }
}

/// The elements of a list that a request carries as text: separated by commas, without the blanks around
/// them and without empty ones.
pub fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|element| element.trim_matches([' ', '\t'])).filter(|element| !element.is_empty())
}

/// Why an expression has no value. The order is a part of the bundle's format: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Encode, Decode)]
pub enum EvalError {
    /// The request does not carry the attribute.
    #[error("the request does not carry an attribute that the condition reads")]
    Missing,
    /// The attribute's bytes are not of its type.
    #[error("an attribute's value is not of its declared type")]
    Malformed,
    /// The attribute's bytes are more than conditions work on.
    #[error("an attribute's value is longer than {} bytes", crate::limits::MAX_VALUE_BYTES)]
    TooLong,
    /// An integer operation left the type's range.
    #[error("integer overflow")]
    Overflow,
    /// Integer division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A value has no counterpart in the type that it is converted to.
    #[error("a value cannot be converted")]
    Conversion,
    /// A map or a list has nothing at this place.
    #[error("no such key")]
    NoSuchKey,
    /// The program broke an invariant that verification guarantees. Never seen on a verified bundle.
    #[error("internal fault in the compiled program")]
    Fault,
}
