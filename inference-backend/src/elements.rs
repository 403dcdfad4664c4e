//! Reads the `data` of a tensor: row-major, flat or nested as its shape.

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What an element of a tensor can be made from.
pub trait Element: Sized {
    /// What to say was expected.
    const EXPECTED: &'static str;

    /// From a whole number, if it fits.
    fn from_unsigned(_: u64) -> Option<Self> {
        None
    }

    /// From a negative whole number, if it fits.
    fn from_signed(_: i64) -> Option<Self> {
        None
    }

    /// From a number with a fraction or an exponent, if it fits.
    fn from_float(_: f64) -> Option<Self> {
        None
    }

    /// From a truth value.
    fn from_bool(_: bool) -> Option<Self> {
        None
    }

    /// From a text, if it fits.
    fn from_text(_: &str) -> Option<Self> {
        None
    }
}

macro_rules! integer_element {
    ($($rust:ty: $expected:literal;)*) => {$(
        impl Element for $rust {
            const EXPECTED: &'static str = $expected;

            fn from_unsigned(value: u64) -> Option<Self> {
                Self::try_from(value).ok()
            }

            fn from_signed(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
        }
    )*};
}

integer_element! {
    u8: "an integer from 0 to 255";
    u16: "an integer from 0 to 65535";
    u32: "an integer from 0 to 4294967295";
    u64: "an integer from 0 to 18446744073709551615";
    i8: "an integer from -128 to 127";
    i16: "an integer from -32768 to 32767";
    i32: "an integer from -2147483648 to 2147483647";
    i64: "an integer from -9223372036854775808 to 9223372036854775807";
}

macro_rules! float_element {
    ($($rust:ty: $expected:literal;)*) => {$(
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "rounding is what a float tensor asks for; what overflows is refused"
        )]
        impl Element for $rust {
            const EXPECTED: &'static str = $expected;

            fn from_unsigned(value: u64) -> Option<Self> {
                Some(value as $rust)
            }

            fn from_signed(value: i64) -> Option<Self> {
                Some(value as $rust)
            }

            fn from_float(value: f64) -> Option<Self> {
                Some(value as $rust).filter(|rounded| rounded.is_finite())
            }
        }
    )*};
}

float_element! {
    f32: "a number that fits FP32";
    f64: "a number that fits FP64";
}

macro_rules! half_element {
    ($($rust:ty: $expected:literal;)*) => {$(
        #[allow(clippy::cast_precision_loss, reason = "rounding is what a float tensor asks for")]
        impl Element for $rust {
            const EXPECTED: &'static str = $expected;

            fn from_unsigned(value: u64) -> Option<Self> {
                Self::from_float(value as f64)
            }

            fn from_signed(value: i64) -> Option<Self> {
                Self::from_float(value as f64)
            }

            fn from_float(value: f64) -> Option<Self> {
                Some(Self::from_f64(value)).filter(|rounded| rounded.is_finite())
            }
        }
    )*};
}

half_element! {
    f16: "a number that fits FP16";
    bf16: "a number that fits BF16";
}

impl Element for String {
    const EXPECTED: &'static str = "a string without NUL";

    fn from_text(value: &str) -> Option<Self> {
        // ONNX Runtime's strings end with it.
        (!value.contains('\0')).then(|| value.to_owned())
    }
}

impl Element for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

/// The elements of a tensor of the given shape. The product of the shape must not overflow.
///
/// # Errors
/// What is wrong: an element that does not fit (by its row-major index), or how the number or nesting of the
/// elements differs from the shape.
pub fn parse<T: Element>(data: &RawValue, shape: &[usize]) -> Result<Vec<T>, String> {
    let expected = shape.iter().product();
    let mut reader = Reader {
        shape,
        expected,
        // No element takes fewer than two bytes of JSON: a false shape cannot make us reserve more.
        elements: Vec::with_capacity(expected.min(data.get().len() / 2 + 1)),
        count: 0,
        nested: false,
        path: vec![0; shape.len()],
        problem: None,
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    let outcome = Level { reader: &mut reader, depth: 0 }.deserialize(&mut json);
    if let Some(problem) = reader.problem {
        return Err(problem);
    }
    if let Err(error) = outcome {
        // The syntax was checked before; what serde_json itself still refuses is a number beyond its range, and an
        // escape in a string that stands for no character.
        let number = error.to_string().starts_with("number out of range");
        let got = if number { "out of range" } else { "not Unicode" };
        return Err(format!("element {} is {got}, expected {}", reader.count, T::EXPECTED));
    }
    if reader.count != expected {
        return Err(format!("the data has {} elements, the shape {shape:?} needs {expected}", reader.count));
    }
    Ok(reader.elements)
}

struct Reader<'a, T> {
    shape: &'a [usize],
    expected: usize,
    elements: Vec<T>,
    /// How many elements came; those beyond the expected are only counted.
    count: usize,
    /// Whether the data is nested as the shape; decided by the first thing inside the outermost array.
    nested: bool,
    /// Where in the nested arrays we are.
    path: Vec<usize>,
    /// Our own account of an error: serde's has a position relative to `data`, which helps nobody.
    problem: Option<String>,
}

impl<T: Element> Reader<'_, T> {
    fn fail<E: Error>(&mut self, problem: String) -> E {
        self.problem = Some(problem);
        E::custom("")
    }

    fn refuse<E: Error>(&mut self, got: impl fmt::Display) -> E {
        let problem = format!("element {} is {got}, expected {}", self.count, T::EXPECTED);
        self.fail(problem)
    }

    fn push<E: Error>(&mut self, depth: usize, element: Option<T>, got: impl fmt::Display) -> Result<(), E> {
        if depth == 0 {
            return Err(self.fail(format!("the data is {got}, expected an array")));
        }
        if self.nested && depth != self.shape.len() {
            let problem = format!("data{} is {got}, expected an array", self.position(depth));
            return Err(self.fail(problem));
        }
        let Some(element) = element else {
            return Err(self.refuse(got));
        };
        if self.count < self.expected {
            self.elements.push(element);
        }
        self.count += 1;
        Ok(())
    }

    /// As an index expression: `[2][0]`.
    fn position(&self, depth: usize) -> String {
        self.path.iter().take(depth).map(|index| format!("[{index}]")).collect()
    }

    /// May an array stand at this depth?
    fn enter<E: Error>(&mut self, depth: usize) -> Result<(), E> {
        if depth == 0 {
            return Ok(());
        }
        if depth == 1 && self.count == 0 && self.path.first() == Some(&0) {
            self.nested = true;
        }
        if !self.nested || depth >= self.shape.len() {
            return Err(self.refuse("an array"));
        }
        Ok(())
    }

    /// Does an array of `length` things end rightly at this depth?
    fn leave<E: Error>(&mut self, depth: usize, length: usize) -> Result<(), E> {
        match self.shape.get(depth) {
            Some(&dimension) if self.nested && dimension != length => {
                let place = self.position(depth);
                Err(self.fail(format!(
                    "data{place} has {length} elements, the shape {:?} needs {dimension}",
                    self.shape
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The data at one depth of nesting; 0 is the whole.
struct Level<'r, 'a, T> {
    reader: &'r mut Reader<'a, T>,
    depth: usize,
}

impl<'de, T: Element> DeserializeSeed<'de> for Level<'_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Level<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a tensor")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.reader.enter(self.depth)?;
        let mut length = 0;
        loop {
            if let Some(index) = self.reader.path.get_mut(self.depth) {
                *index = length;
            }
            let next = Level { reader: &mut *self.reader, depth: self.depth + 1 };
            if sequence.next_element_seed(next)?.is_none() {
                break;
            }
            length += 1;
        }
        self.reader.leave(self.depth, length)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.reader.push(self.depth, T::from_unsigned(value), value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.reader.push(self.depth, T::from_signed(value), value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.reader.push(self.depth, T::from_float(value), value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.reader.push(self.depth, T::from_bool(value), value)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reader.push(self.depth, None, "null")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.reader.push(self.depth, T::from_text(value), "a string")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.reader.push(self.depth, None, "an object")
    }
}

#[cfg(test)]
mod tests;
