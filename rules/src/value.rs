//! Types and values of the rule language.

use bincode::{Decode, Encode};

/// A static type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit unsigned integer.
    Uint,
    /// 64-bit IEEE 754 number.
    Double,
    /// Unicode text.
    String,
}

impl Type {
    /// The type's name as the language writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
        }
    }

    /// Reads an attribute's bytes as this type.
    #[must_use]
    pub fn parse(self, bytes: &[u8]) -> Value<'_> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Value::Error(EvalError::Malformed);
        };
        let parsed = match self {
            Self::String => Some(Value::String(text)),
            Self::Bool => match text {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Int => text.parse().ok().map(Value::Int),
            Self::Uint => text.parse().ok().map(Value::Uint),
            Self::Double => text.parse().ok().map(Value::Double),
        };
        parsed.unwrap_or(Value::Error(EvalError::Malformed))
    }
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
    /// The expression has no value.
    Error(EvalError),
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
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
    /// The program broke an invariant that verification guarantees. Never seen on a verified bundle.
    #[error("internal fault in the compiled program")]
    Fault,
}
