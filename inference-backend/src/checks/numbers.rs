//! The elements of an output as numbers.

use crate::datatype::Elements;
use half::{bf16, f16};
use std::ops::RangeInclusive;

/// Most values that are taken of one output of one answer.
pub const SAMPLE: usize = 64;

/// An element that is a number.
trait Number: Copy {
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($rust:ty: $element:ident => $number:expr;)*) => {$(
        impl Number for $rust {
            fn number(self) -> f64 {
                let $element = self;
                $number
            }
        }
    )*};
}

numbers! {
    bool: e => u8::from(e).into();
    u8: e => e.into();
    u16: e => e.into();
    u32: e => e.into();
    // Beyond 2^53 to the next number that there is.
    u64: e => e as f64;
    i8: e => e.into();
    i16: e => e.into();
    i32: e => e.into();
    i64: e => e as f64;
    f16: e => e.into();
    bf16: e => e.into();
    f32: e => e.into();
    f64: e => e;
}

/// Does the same with the elements of every type that is a number; none for strings.
macro_rules! each {
    ($elements:expr, $slice:ident => $work:expr) => {
        match $elements {
            Elements::Bool($slice) => Some($work),
            Elements::Uint8($slice) => Some($work),
            Elements::Uint16($slice) => Some($work),
            Elements::Uint32($slice) => Some($work),
            Elements::Uint64($slice) => Some($work),
            Elements::Int8($slice) => Some($work),
            Elements::Int16($slice) => Some($work),
            Elements::Int32($slice) => Some($work),
            Elements::Int64($slice) => Some($work),
            Elements::Float16($slice) => Some($work),
            Elements::Bfloat16($slice) => Some($work),
            Elements::Float32($slice) => Some($work),
            Elements::Float64($slice) => Some($work),
            Elements::String(_) => None,
        }
    };
}

/// Whether one of them is NaN or an infinity. Goes through all of them, which is faster than to stop at the first.
#[must_use]
pub fn any_not_finite(elements: &Elements<'_>) -> bool {
    fn any<T: Number>(elements: &[T]) -> bool {
        elements.iter().fold(false, |any, element| any | !element.number().is_finite())
    }
    match elements {
        Elements::Float16(elements) => any(elements),
        Elements::Bfloat16(elements) => any(elements),
        Elements::Float32(elements) => any(elements),
        Elements::Float64(elements) => any(elements),
        _ => false,
    }
}

/// Whether one of them is outside of the range. NaN is a trouble of its own.
#[must_use]
pub fn any_outside(elements: &Elements<'_>, range: &RangeInclusive<f64>) -> bool {
    fn any<T: Number>(elements: &[T], (min, max): (f64, f64)) -> bool {
        elements.iter().fold(false, |any, element| {
            let number = element.number();
            any | (number < min) | (number > max)
        })
    }
    each!(elements, slice => any(slice, (*range.start(), *range.end()))).unwrap_or_default()
}

/// Values of an output, spread evenly over it when it has more than [`SAMPLE`].
#[must_use]
pub fn sample(elements: &Elements<'_>) -> Vec<f64> {
    fn some<T: Number>(elements: &[T]) -> Vec<f64> {
        let picked = spread(elements.len()).filter_map(|index| elements.get(index));
        picked.map(|element| element.number()).collect()
    }
    each!(elements, slice => some(slice)).unwrap_or_default()
}

/// The largest value of every row, of rows spread evenly when there are more than [`SAMPLE`]; NaN where a row has it.
/// `row` is the number of elements of a row.
#[must_use]
pub fn largest(elements: &Elements<'_>, row: usize) -> Vec<f64> {
    fn of<T: Number>(elements: &[T]) -> f64 {
        let larger = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
        elements.iter().map(|element| element.number()).reduce(larger).unwrap_or(f64::NAN)
    }
    fn some<T: Number>(elements: &[T], row: usize) -> Vec<f64> {
        let rows = spread(elements.len() / row);
        rows.filter_map(|index| elements.get(index * row..(index + 1) * row)).map(of).collect()
    }
    if row == 0 {
        return Vec::new();
    }
    each!(elements, slice => some(slice, row)).unwrap_or_default()
}

/// At most [`SAMPLE`] indices of so many, evenly spread.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let picked = count.min(SAMPLE);
    // Without overflow: a tensor has fewer elements than memory has bytes.
    (0..picked).map(move |index| index * count / picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type() {
        assert_eq!(sample(&Elements::Bool(&[true, false])), [1.0, 0.0]);
        assert_eq!(sample(&Elements::Int64(&[-3, 1 << 40])), [-3.0, 1_099_511_627_776.0]);
        assert_eq!(sample(&Elements::Bfloat16(&[bf16::ONE])), [1.0]);
        assert_eq!(sample(&Elements::String(vec!["x".into()])), [0.0; 0]);
        assert!(any_not_finite(&Elements::Float16(&[f16::ONE, f16::INFINITY])));
        assert!(any_not_finite(&Elements::Float32(&[f32::NAN, 1.0])));
        assert!(!any_not_finite(&Elements::Float64(&[f64::MAX])));
        assert!(any_outside(&Elements::Uint8(&[3, 200]), &(0.0..=199.0)));
        assert!(!any_outside(&Elements::Float32(&[f32::NAN, 0.5]), &(0.0..=1.0)));
        assert!(any_outside(&Elements::Float32(&[f32::INFINITY]), &(0.0..=f64::MAX)));
    }

    #[test]
    fn samples_are_spread_evenly() {
        let many: Vec<u32> = (0..6_400).collect();
        let taken = sample(&Elements::Uint32(&many));
        assert_eq!((taken.len(), taken[1], taken[63]), (64, 100.0, 6_300.0));
        let largest_of = |row| largest(&Elements::Uint32(&many), row);
        assert_eq!(largest_of(6_400), [6_399.0]);
        assert_eq!(largest_of(3_200), [3_199.0, 6_399.0]);
        assert_eq!((largest_of(1).len(), largest_of(0).len()), (64, 0));
        assert!(largest(&Elements::Float32(&[2.0, f32::NAN, 1.0]), 3)[0].is_nan());
    }
}
