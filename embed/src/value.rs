//! Values of attributes, as programs have them.

use halftone_rules::{Type, Value as Parsed};
use std::io::Write;

/// A value for an attribute. Made with `into` of what programs have.
///
/// A number fits an attribute when the attribute's type can hold it: `42` is an int and a uint, but no double. Text
/// fits strings, bytes, lists (separated by commas) and versions.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'v> {
    /// `true` or `false`.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    Text(&'v str),
    /// Bytes.
    Bytes(&'v [u8]),
    /// Texts. None of them is empty, has a comma in it, or a blank at one of its ends.
    List(&'v [&'v str]),
}

macro_rules! from {
    ($( $type:ty => $variant:ident; )+) => {
        $( impl<'v> From<$type> for Value<'v> {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        } )+
    };
}

from! {
    bool => Bool;
    i32 => Int;
    i64 => Int;
    u32 => Uint;
    u64 => Uint;
    f32 => Double;
    f64 => Double;
    &'v str => Text;
    &'v [u8] => Bytes;
    &'v [&'v str] => List;
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(value: &'v String) -> Self {
        Self::Text(value)
    }
}

impl<'v, const N: usize> From<&'v [&'v str; N]> for Value<'v> {
    fn from(value: &'v [&'v str; N]) -> Self {
        Self::List(value)
    }
}

/// Appends the text that an attribute of this type has in a request. The error is what the value is instead.
pub(crate) fn write(value: Value<'_>, ty: Type, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let shown: &dyn std::fmt::Display = match (&value, ty) {
        (Value::Bool(value), Type::Bool) => value,
        (Value::Int(value), Type::Int) => value,
        (Value::Uint(value), Type::Uint) => value,
        (Value::Double(value), Type::Double) => value,
        (Value::Int(value), Type::Uint) if *value >= 0 => value,
        (Value::Int(_), Type::Uint) => return Err("a negative int"),
        (Value::Uint(value), Type::Int) if i64::try_from(*value).is_ok() => value,
        (Value::Uint(_), Type::Int) => return Err("a uint too large for that"),
        (Value::Text(text), Type::String | Type::Bytes | Type::List) => text,
        (Value::Text(text), Type::Semver) => match ty.parse(text.as_bytes()) {
            Parsed::Semver(_) => text,
            _ => return Err("a text that is no semantic version"),
        },
        (Value::Bytes(bytes), Type::Bytes) => {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        (Value::List(list), Type::List) => {
            if list.iter().any(|element| !halftone_rules::elements(element).eq([*element])) {
                return Err("a list with an element that is empty, or has a comma or blanks around it");
            }
            for (index, element) in list.iter().enumerate() {
                let comma: &[u8] = if index > 0 { b"," } else { b"" };
                out.extend_from_slice(comma);
                out.extend_from_slice(element.as_bytes());
            }
            return Ok(());
        }
        (value, _) => return Err(kind(value)),
    };
    // Writing to memory does not fail.
    let _ = write!(out, "{shown}");
    Ok(())
}

fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Bool(_) => "a bool",
        Value::Int(_) => "an int",
        Value::Uint(_) => "a uint",
        Value::Double(_) => "a double",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_rules_read() {
        for (value, ty, expected) in [
            (true.into(), Type::Bool, Parsed::Bool(true)),
            ((-3).into(), Type::Int, Parsed::Int(-3)),
            (3.into(), Type::Uint, Parsed::Uint(3)),
            (u64::MAX.into(), Type::Uint, Parsed::Uint(u64::MAX)),
            (7u32.into(), Type::Int, Parsed::Int(7)),
            (f64::MIN_POSITIVE.into(), Type::Double, Parsed::Double(f64::MIN_POSITIVE)),
            (f64::INFINITY.into(), Type::Double, Parsed::Double(f64::INFINITY)),
            (3.0.into(), Type::Double, Parsed::Double(3.0)),
            ("gold".into(), Type::String, Parsed::String("gold")),
            ("gold".into(), Type::Bytes, Parsed::Bytes(b"gold")),
            (Value::Bytes(b"\xff\0"), Type::Bytes, Parsed::Bytes(b"\xff\0")),
            ("1.2.3-rc.1".into(), Type::Semver, Parsed::Semver("1.2.3-rc.1")),
            ("a, b".into(), Type::List, Parsed::List("a, b")),
            ((&["a", "b c"]).into(), Type::List, Parsed::List("a,b c")),
            ((&[]).into(), Type::List, Parsed::List("")),
        ] {
            let mut text = Vec::new();
            assert_eq!(write(value, ty, &mut text), Ok(()), "{value:?} as {}", ty.name());
            assert_eq!(ty.parse(&text), expected, "{value:?} as {}", ty.name());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused: [(Value<'_>, Type); 12] = [
            ("true".into(), Type::Bool),
            ((-1).into(), Type::Uint),
            (u64::MAX.into(), Type::Int),
            (3.into(), Type::Double),
            (3.0.into(), Type::Int),
            (3.into(), Type::String),
            (Value::Bytes(b"gold"), Type::String),
            ("1.2".into(), Type::Semver),
            ((&["a,b"]).into(), Type::List),
            ((&[" a"]).into(), Type::List),
            ((&[""]).into(), Type::List),
            ("2026-01-01T00:00:00Z".into(), Type::Timestamp),
        ];
        for (value, ty) in refused {
            assert!(write(value, ty, &mut Vec::new()).is_err(), "{value:?} as {}", ty.name());
        }
    }
}
