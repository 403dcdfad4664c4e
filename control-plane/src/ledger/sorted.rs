//! Lists by unit that are kept in order while elements come in none.
//!
//! What is known of a release's units lies in [`PARTITIONS`] of them, by the upper bits of the unit's hash, which is a hash of
//! the unit alone: no arm and no epoch fills one list more than another. A list is two: a long one and a short one, into which
//! new elements go until they are merged. All elements of a unit lie together.

use std::{cmp::Ordering, ops::Range};

/// Lists of a release.
pub(super) const PARTITIONS: usize = 1024;

/// The list that a unit is in.
pub(super) fn partition_of(unit: u64) -> usize {
    // The ten upper bits.
    usize::try_from(unit >> 54).unwrap_or_default()
}

/// Elements that a short list has room for, besides a share of the long one's.
const SHORT: usize = 64;
/// The share: one in so many.
const SHORT_SHARE: usize = 32;

/// What is known of a unit.
pub(super) trait Element: Copy {
    /// The hash of the unit.
    fn unit(&self) -> u64;

    /// The order in which they are kept: by unit first.
    fn order(&self, other: &Self) -> Ordering;
}

/// One list.
#[derive(Clone)]
pub(super) struct Sorted<T> {
    long: Vec<T>,
    short: Vec<T>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { long: Vec::new(), short: Vec::new() }
    }
}

impl<T: Element> Sorted<T> {
    /// Of elements that are in order.
    pub(super) fn of(elements: Vec<T>) -> Self {
        Self { long: elements, short: Vec::new() }
    }

    /// Puts what is known of the unit into `into`, in place of what is there.
    pub(super) fn unit(&self, unit: u64, into: &mut Vec<T>) {
        into.clear();
        for elements in [&self.long, &self.short] {
            into.extend_from_slice(&elements[range(elements, unit)]);
        }
    }

    /// Puts an element in the place of the one that is in the same place of the order.
    pub(super) fn replace(&mut self, element: T) {
        for elements in [&mut self.long, &mut self.short] {
            if let Ok(at) = elements.binary_search_by(|known| known.order(&element)) {
                elements[at] = element;
            }
        }
    }

    pub(super) fn insert(&mut self, element: T) {
        // What comes in order, as from the database, needs no place to be made for it.
        if self.short.is_empty() && self.long.last().is_none_or(|last| last.order(&element) == Ordering::Less)
        {
            self.long.push(element);
            return;
        }
        let at = self.short.partition_point(|known| known.order(&element) == Ordering::Less);
        self.short.insert(at, element);
        if self.short.len() > SHORT + self.long.len() / SHORT_SHARE {
            self.merge();
        }
    }

    /// All elements, in order.
    pub(super) fn all(&mut self) -> &[T] {
        self.merge();
        &self.long
    }

    /// Reads on from the first unit.
    pub(super) fn cursor(&self) -> Cursor<'_, T> {
        Cursor { long: &self.long, short: &self.short, both: Vec::new() }
    }

    /// Merges the short list into the long one, from the end.
    fn merge(&mut self) {
        let (mut left, mut right) = (self.long.len(), self.short.len());
        let Some(filler) = self.short.last().copied() else { return };
        // Doubling would take up to twice the memory.
        self.long.reserve_exact(right + left / SHORT_SHARE);
        self.long.resize(left + right, filler);
        while right > 0 {
            let short = self.short[right - 1];
            if left > 0 && self.long[left - 1].order(&short) == Ordering::Greater {
                left -= 1;
                self.long[left + right] = self.long[left];
            } else {
                right -= 1;
                self.long[left + right] = short;
            }
        }
        self.short.clear();
    }
}

fn range<T: Element>(elements: &[T], unit: u64) -> Range<usize> {
    let start = elements.partition_point(|element| element.unit() < unit);
    let of = elements.iter().skip(start).take_while(|element| element.unit() == unit).count();
    start..start + of
}

/// A place in a list.
pub(super) struct Cursor<'a, T> {
    long: &'a [T],
    short: &'a [T],
    both: Vec<T>,
}

impl<T: Element> Cursor<'_, T> {
    /// The next unit.
    pub(super) fn next(&self) -> Option<u64> {
        let next = [self.long, self.short].into_iter().filter_map(|elements| elements.first());
        next.map(Element::unit).min()
    }

    /// What is known of the unit, in order; what is before it is passed over.
    pub(super) fn take(&mut self, unit: u64) -> &[T] {
        let (long, short) = (taken(&mut self.long, unit), taken(&mut self.short, unit));
        if short.is_empty() {
            return long;
        }
        self.both.clear();
        self.both.extend_from_slice(long);
        self.both.extend_from_slice(short);
        self.both.sort_unstable_by(T::order);
        &self.both
    }
}

/// Cuts the elements of the unit, and those before it, off; the answer is those of the unit.
fn taken<'a, T: Element>(elements: &mut &'a [T], unit: u64) -> &'a [T] {
    let before = elements.iter().take_while(|element| element.unit() < unit).count();
    let of = elements[before..].iter().take_while(|element| element.unit() == unit).count();
    let (cut, rest) = elements.split_at(before + of);
    *elements = rest;
    &cut[before..]
}
