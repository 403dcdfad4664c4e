//! Operators and functions of one or two operands: their types and their meaning.
//!
//! The compiler's type checker, its constant folding, the verifier and the evaluator all ask here, so
//! there is one answer to what `+` does.

use crate::{
    time::{SECOND, Timestamp},
    value::{EvalError, Type, Value, elements},
    version::{compare_versions, is_version},
};
use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use std::cmp::Ordering;

macro_rules! operators {
    ($(#[doc = $doc:literal])+ $enum:ident { $( $(#[doc = $variant_doc:literal])+ $code:literal $variant:ident = $mnemonic:literal; )+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum { $( $(#[doc = $variant_doc])+ $variant = $code, )+ }

        impl $enum {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The name that the disassembler prints.
            #[must_use]
            pub fn mnemonic(self) -> &'static str {
                match self { $( Self::$variant => $mnemonic, )+ }
            }
        }

        impl Encode for $enum {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                (*self as u8).encode(encoder)
            }
        }

        impl<Context> Decode<Context> for $enum {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                match u8::decode(decoder)? {
                    $( $code => Ok(Self::$variant), )+
                    _ => Err(DecodeError::Other(concat!("unknown ", stringify!($enum)))),
                }
            }
        }

        bincode::impl_borrow_decode!($enum);
    };
}

operators! {
    /// An operation on one value. An operand without a value gives none.
    Unary {
        /// Logical negation.
        0x01 Not = "not";
        /// Arithmetic negation.
        0x02 Negate = "neg";
        /// Code points of a string, bytes, or elements of a list.
        0x03 Size = "size";
        /// `int(x)`; a double is truncated, a timestamp counts in seconds.
        0x04 ToInt = "int";
        /// `uint(x)`.
        0x05 ToUint = "uint";
        /// `double(x)`.
        0x06 ToDouble = "double";
        /// `bool(x)`.
        0x07 ToBool = "bool";
        /// `string(x)`.
        0x08 ToString = "string";
        /// `bytes(x)`.
        0x09 ToBytes = "bytes";
        /// `timestamp(x)`; an int counts in seconds.
        0x0a ToTimestamp = "timestamp";
        /// `semver(x)`.
        0x0b ToSemver = "semver";
        /// The year of a timestamp.
        0x10 FullYear = "full_year";
        /// The month, from 0.
        0x11 Month = "month";
        /// The day of the month, from 1.
        0x12 Date = "date";
        /// The day of the month, from 0.
        0x13 DayOfMonth = "day_of_month";
        /// The day of the week, from 0, which is Sunday.
        0x14 DayOfWeek = "day_of_week";
        /// The day of the year, from 0.
        0x15 DayOfYear = "day_of_year";
        /// The hour of a timestamp; all hours of a duration.
        0x16 Hours = "hours";
        /// The minute of a timestamp; all minutes of a duration.
        0x17 Minutes = "minutes";
        /// The second of a timestamp; all seconds of a duration.
        0x18 Seconds = "seconds";
        /// The milliseconds within the second, of both.
        0x19 Milliseconds = "milliseconds";
    }
}

operators! {
    /// An operation on two values. An operand without a value gives none; the left one's reason wins.
    Binary {
        /// Equality; on doubles by IEEE 754.
        0x01 Equal = "eq";
        /// Inequality.
        0x02 NotEqual = "ne";
        /// Less; strings by code point, `false` before `true`.
        0x03 Less = "lt";
        /// Less or equal.
        0x04 LessEqual = "le";
        /// Greater.
        0x05 Greater = "gt";
        /// Greater or equal.
        0x06 GreaterEqual = "ge";
        /// Whether the left string starts with the right one.
        0x07 StartsWith = "starts_with";
        /// Whether the left string ends with the right one.
        0x08 EndsWith = "ends_with";
        /// Whether the left string contains the right one.
        0x09 Contains = "contains";
        /// Whether the left string is an element of the right list.
        0x0a ElementOf = "element_of";
        /// Sum; what leaves its range is an error.
        0x10 Add = "add";
        /// Difference.
        0x11 Subtract = "sub";
        /// Product.
        0x12 Multiply = "mul";
        /// Quotient; integers truncate towards zero.
        0x13 Divide = "div";
        /// Remainder with the sign of the dividend.
        0x14 Remainder = "rem";
    }
}

impl Unary {
    /// The type of the result; `None` when the operation does not take this type.
    #[must_use]
    pub fn yields(self, operand: Type) -> Option<Type> {
        use Type::{Bool, Bytes, Double, Duration, Int, List, Semver, String, Timestamp, Uint};
        Some(match (self, operand) {
            (Self::Not, Bool) | (Self::ToBool, Bool | String) => Bool,
            (Self::Negate | Self::ToInt, Int) => Int,
            (Self::Negate, Double) => Double,
            (Self::Negate, Duration) => Duration,
            (Self::Size, String | Bytes | List) | (Self::ToInt, Uint | Double | String | Timestamp) => Int,
            (Self::ToUint, Int | Uint | Double | String) => Uint,
            (Self::ToDouble, Int | Uint | Double | String) => Double,
            (Self::ToString, String | Bytes) => String,
            (Self::ToBytes, String | Bytes) => Bytes,
            (Self::ToTimestamp, Int | Timestamp) => Timestamp,
            (Self::ToSemver, String | Semver) => Semver,
            (
                Self::FullYear
                | Self::Month
                | Self::Date
                | Self::DayOfMonth
                | Self::DayOfWeek
                | Self::DayOfYear,
                Timestamp,
            )
            | (Self::Hours | Self::Minutes | Self::Seconds | Self::Milliseconds, Timestamp | Duration) => Int,
            _ => return None,
        })
    }

    /// Applies the operation.
    #[must_use]
    pub fn apply(self, operand: Value<'_>) -> Value<'_> {
        match (self, operand) {
            (_, Value::Error(_))
            | (Self::ToInt, Value::Int(_))
            | (Self::ToUint, Value::Uint(_))
            | (Self::ToDouble, Value::Double(_))
            | (Self::ToBool, Value::Bool(_))
            | (Self::ToString, Value::String(_))
            | (Self::ToBytes, Value::Bytes(_))
            | (Self::ToTimestamp, Value::Timestamp(_))
            | (Self::ToSemver, Value::Semver(_)) => operand,
            (Self::Not, Value::Bool(value)) => Value::Bool(!value),
            (Self::Negate, Value::Int(value)) => integer(value.checked_neg()),
            (Self::Negate, Value::Double(value)) => Value::Double(-value),
            (Self::Negate, Value::Duration(value)) => duration(value.checked_neg()),
            (Self::Size, Value::String(text)) => count(text.chars().count()),
            (Self::Size, Value::Bytes(bytes)) => count(bytes.len()),
            (Self::Size, Value::List(list)) => count(elements(list).count()),
            (Self::ToInt | Self::ToUint | Self::ToDouble | Self::ToBool, value) => convert(self, value),
            (Self::ToString, Value::Bytes(bytes)) => {
                std::str::from_utf8(bytes).map_or(Value::Error(EvalError::Conversion), Value::String)
            }
            (Self::ToBytes, Value::String(text)) => Value::Bytes(text.as_bytes()),
            (Self::ToTimestamp, Value::Int(seconds)) => timestamp(seconds.checked_mul(SECOND)),
            (Self::ToSemver, Value::String(text)) if is_version(text) => Value::Semver(text),
            (Self::ToSemver, Value::String(_)) => Value::Error(EvalError::Conversion),
            (part, Value::Timestamp(time)) => part_of_time(part, time),
            (part, Value::Duration(span)) => part_of_duration(part, span),
            _ => Value::Error(EvalError::Fault),
        }
    }
}

impl Binary {
    /// The type of the result; `None` when the operation does not take these types.
    #[must_use]
    pub fn yields(self, left: Type, right: Type) -> Option<Type> {
        use Type::{Bool, Double, Duration, Int, List, String, Timestamp, Uint};
        Some(match self {
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessEqual
            | Self::Greater
            | Self::GreaterEqual
                if left == right && left != List =>
            {
                Bool
            }
            Self::StartsWith | Self::EndsWith | Self::Contains if (left, right) == (String, String) => Bool,
            Self::ElementOf if (left, right) == (String, List) => Bool,
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => {
                match (self, left, right) {
                    (_, Int, Int) => Int,
                    (_, Uint, Uint) => Uint,
                    (Self::Add | Self::Subtract | Self::Multiply | Self::Divide, Double, Double) => Double,
                    (Self::Add | Self::Subtract, Timestamp, Duration) | (Self::Add, Duration, Timestamp) => {
                        Timestamp
                    }
                    (Self::Add | Self::Subtract, Duration, Duration)
                    | (Self::Subtract, Timestamp, Timestamp) => Duration,
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// Applies the operation.
    #[must_use]
    #[inline]
    pub fn apply<'a>(self, left: Value<'a>, right: Value<'a>) -> Value<'a> {
        match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => {
                match (left, right) {
                    (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
                    _ => arithmetic(self, left, right),
                }
            }
            _ => self.test(&left, &right).map_or_else(Value::Error, Value::Bool),
        }
    }

    /// Applies an operation that yields a boolean: comparisons, and questions about strings and lists.
    ///
    /// # Errors
    /// The reason that one of the operands, the left one first, has no value.
    #[inline]
    pub fn test(self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, EvalError> {
        match (left, right) {
            (Value::String(a), Value::String(b)) => match self {
                Self::Equal => Ok(a == b),
                Self::NotEqual => Ok(a != b),
                Self::StartsWith => Ok(a.starts_with(b)),
                Self::EndsWith => Ok(a.ends_with(b)),
                Self::Contains => Ok(a.contains(b)),
                _ => self.holds_for(Some(a.cmp(b))),
            },
            (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => {
                self.holds_for(Some(a.cmp(b)))
            }
            (Value::Uint(a), Value::Uint(b)) => self.holds_for(Some(a.cmp(b))),
            (Value::Bool(a), Value::Bool(b)) => self.holds_for(Some(a.cmp(b))),
            (Value::Error(error), _) | (_, Value::Error(error)) => Err(*error),
            // What is not a number has no order, and equals nothing.
            (Value::Double(a), Value::Double(b)) => self.holds_for(a.partial_cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => self.holds_for(Some(a.cmp(b))),
            (Value::Timestamp(a), Value::Timestamp(b)) => self.holds_for(Some(a.cmp(b))),
            (Value::Semver(a), Value::Semver(b)) => self.holds_for(compare_versions(a, b)),
            (Value::String(wanted), Value::List(list)) if self == Self::ElementOf => {
                Ok(elements(list).any(|element| element == *wanted))
            }
            _ => Err(EvalError::Fault),
        }
    }

    /// Whether a comparison holds for two values in this order.
    #[inline]
    fn holds_for(self, order: Option<Ordering>) -> Result<bool, EvalError> {
        Ok(match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterEqual => order.is_some_and(Ordering::is_ge),
            _ => return Err(EvalError::Fault),
        })
    }
}

fn arithmetic<'a>(op: Binary, left: Value<'a>, right: Value<'a>) -> Value<'a> {
    use Binary::{Add, Divide, Multiply, Remainder, Subtract};
    match (op, left, right) {
        (Divide | Remainder, _, Value::Int(0) | Value::Uint(0)) => Value::Error(EvalError::DivisionByZero),
        (_, Value::Int(a), Value::Int(b)) => integer(match op {
            Add => a.checked_add(b),
            Subtract => a.checked_sub(b),
            Multiply => a.checked_mul(b),
            Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        }),
        (_, Value::Uint(a), Value::Uint(b)) => {
            let result = match op {
                Add => a.checked_add(b),
                Subtract => a.checked_sub(b),
                Multiply => a.checked_mul(b),
                Divide => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            result.map_or(Value::Error(EvalError::Overflow), Value::Uint)
        }
        (Add, Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Subtract, Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Multiply, Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        (Divide, Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        (Add, Value::Timestamp(time), Value::Duration(span))
        | (Add, Value::Duration(span), Value::Timestamp(time)) => timestamp(time.0.checked_add(span)),
        (Subtract, Value::Timestamp(time), Value::Duration(span)) => timestamp(time.0.checked_sub(span)),
        (Subtract, Value::Timestamp(a), Value::Timestamp(b)) => duration(a.0.checked_sub(b.0)),
        (Add, Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(b)),
        (Subtract, Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(b)),
        _ => Value::Error(EvalError::Fault),
    }
}

/// Conversions to numbers and bools.
fn convert(to: Unary, value: Value<'_>) -> Value<'_> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
    let refused = Value::Error(EvalError::Conversion);
    match (to, value) {
        (Unary::ToInt, Value::Uint(value)) => {
            i64::try_from(value).map_or(Value::Error(EvalError::Overflow), Value::Int)
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "truncation is what `int(x)` means; the range is checked"
        )]
        (Unary::ToInt, Value::Double(value)) => {
            // Both ends are open: the doubles next to them are not exact.
            if value > -TWO_TO_63 && value < TWO_TO_63 {
                Value::Int(value as i64)
            } else {
                Value::Error(EvalError::Overflow)
            }
        }
        (Unary::ToInt, Value::String(text)) => text.parse().map_or(refused, Value::Int),
        (Unary::ToInt, Value::Timestamp(time)) => Value::Int(time.0.div_euclid(SECOND)),
        (Unary::ToUint, Value::Int(value)) => {
            u64::try_from(value).map_or(Value::Error(EvalError::Overflow), Value::Uint)
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "truncation is what `uint(x)` means; the range is checked"
        )]
        (Unary::ToUint, Value::Double(value)) => {
            if (0.0..TWO_TO_64).contains(&value) {
                Value::Uint(value as u64)
            } else {
                Value::Error(EvalError::Overflow)
            }
        }
        (Unary::ToUint, Value::String(text)) => text.parse().map_or(refused, Value::Uint),
        #[allow(clippy::cast_precision_loss, reason = "the nearest double is what `double(x)` means")]
        (Unary::ToDouble, Value::Int(value)) => Value::Double(value as f64),
        #[allow(clippy::cast_precision_loss, reason = "the nearest double is what `double(x)` means")]
        (Unary::ToDouble, Value::Uint(value)) => Value::Double(value as f64),
        (Unary::ToDouble, Value::String(text)) => text.parse().map_or(refused, Value::Double),
        (Unary::ToBool, Value::String("1" | "t" | "T" | "true" | "TRUE" | "True")) => Value::Bool(true),
        (Unary::ToBool, Value::String("0" | "f" | "F" | "false" | "FALSE" | "False")) => Value::Bool(false),
        (Unary::ToBool, Value::String(_)) => refused,
        _ => Value::Error(EvalError::Fault),
    }
}

fn part_of_time<'a>(part: Unary, time: Timestamp) -> Value<'a> {
    let (year, month, day) = time.date();
    Value::Int(match part {
        Unary::FullYear => year,
        Unary::Month => month - 1,
        Unary::Date => day,
        Unary::DayOfMonth => day - 1,
        Unary::DayOfWeek => time.day_of_week(),
        Unary::DayOfYear => time.day_of_year(),
        Unary::Hours => time.time_of_day() / (3_600 * SECOND),
        Unary::Minutes => time.time_of_day() / (60 * SECOND) % 60,
        Unary::Seconds => time.time_of_day() / SECOND % 60,
        Unary::Milliseconds => time.time_of_day() % SECOND / 1_000_000,
        _ => return Value::Error(EvalError::Fault),
    })
}

fn part_of_duration<'a>(part: Unary, span: i64) -> Value<'a> {
    Value::Int(match part {
        Unary::Hours => span / (3_600 * SECOND),
        Unary::Minutes => span / (60 * SECOND),
        Unary::Seconds => span / SECOND,
        Unary::Milliseconds => span % SECOND / 1_000_000,
        _ => return Value::Error(EvalError::Fault),
    })
}

fn integer<'a>(value: Option<i64>) -> Value<'a> {
    value.map_or(Value::Error(EvalError::Overflow), Value::Int)
}

fn duration<'a>(value: Option<i64>) -> Value<'a> {
    value.map_or(Value::Error(EvalError::Overflow), Value::Duration)
}

fn timestamp<'a>(value: Option<i64>) -> Value<'a> {
    value.map_or(Value::Error(EvalError::Overflow), |value| Value::Timestamp(Timestamp(value)))
}

fn count<'a>(count: usize) -> Value<'a> {
    integer(i64::try_from(count).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of every type, with the edges of each.
    fn samples() -> Vec<Value<'static>> {
        let ints = [i64::MIN, -1, 0, 1, i64::MAX];
        let mut samples = vec![
            Value::Bool(false),
            Value::Bool(true),
            Value::String(""),
            Value::String("größe"),
            Value::String("7"),
            Value::Bytes(b""),
            Value::Bytes(b"\xff"),
            Value::Semver("1.2.3-rc.1+b"),
            Value::List("a, b,,c"),
        ];
        samples.extend(ints.map(Value::Int));
        samples.extend(ints.map(Value::Duration));
        samples.extend(ints.map(|value| Value::Timestamp(Timestamp(value))));
        samples.extend([0, 1, u64::MAX].map(Value::Uint));
        samples.extend([0.0, -0.0, 1.5, f64::MAX, f64::INFINITY, f64::NAN].map(Value::Double));
        samples
    }

    #[test]
    fn what_the_types_promise_the_values_keep() {
        let keeps = |value: Value<'_>, promised: Option<Type>| match promised {
            Some(ty) => value.ty().is_none_or(|found| found == ty) && value != Value::Error(EvalError::Fault),
            None => true,
        };
        for &a in &samples() {
            for &op in Unary::ALL {
                let (result, promised) = (op.apply(a), op.yields(a.ty().unwrap()));
                assert!(keeps(result, promised), "{op:?} {a:?} -> {result:?}, promised {promised:?}");
                assert_eq!(op.apply(Value::Error(EvalError::Missing)), Value::Error(EvalError::Missing));
            }
            for &b in &samples() {
                for &op in Binary::ALL {
                    let (result, promised) = (op.apply(a, b), op.yields(a.ty().unwrap(), b.ty().unwrap()));
                    assert!(
                        keeps(result, promised),
                        "{op:?} {a:?} {b:?} -> {result:?}, promised {promised:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_list_is_split_at_commas() {
        let list = Value::List(" beta,staff ,, qa");
        assert_eq!(Unary::Size.apply(list), Value::Int(3));
        for (element, expected) in
            [("beta", true), ("staff", true), ("qa", true), ("sta", false), ("", false)]
        {
            assert_eq!(
                Binary::ElementOf.apply(Value::String(element), list),
                Value::Bool(expected),
                "{element}"
            );
        }
    }
}
