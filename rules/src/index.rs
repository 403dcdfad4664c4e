//! Finds the rules that can take a request without trying each of them.
//!
//! Rules whose conditions demand something of one attribute (a *guard*: it equals a constant, is in a list,
//! starts with a prefix, lies in a range) are looked up by the attribute's value. What comes out is the same
//! as if every rule were tried in order; how long it takes does not depend on how many rules ask for other
//! values.

use crate::{
    bundle::{Guard, List, Ruleset, order_key},
    isa::{AttributeId, ConstantId, ListId},
    limits::{MAX_INDEXES, MAX_PREFIX_LENGTHS, MAX_RANGE_LEVELS},
    value::{EvalError, Value},
};
use arrayvec::ArrayVec;
use std::cmp::Ordering;
use xxhash_rust::xxh3::xxh3_64;

/// Lists of rules that one lookup brings together: the rules without a guard, and what each index finds.
const MAX_CURSORS: usize = 1 + MAX_INDEXES
    * if MAX_PREFIX_LENGTHS > MAX_RANGE_LEVELS { MAX_PREFIX_LENGTHS } else { MAX_RANGE_LEVELS };

/// Rules may share a list, and each of them enters all of its elements. So often, on average: an index stays in
/// proportion to its bundle. Rules beyond are tried.
const ENTRIES_PER_ELEMENT: usize = 16;

/// The rules of a ruleset by their guards.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleIndex {
    /// Rules that are tried for every request, in order.
    unguarded: Vec<u32>,
    indexes: Vec<AttributeIndex>,
    /// How many elements of lists may still be entered.
    room: usize,
}

#[derive(Clone, Debug)]
struct AttributeIndex {
    attribute: AttributeId,
    rules: Lookup,
}

impl AttributeIndex {
    fn takes(&self, guard: Guard) -> bool {
        self.attribute == guard.attribute()
            && matches!(
                (&self.rules, guard),
                (Lookup::Values(_), Guard::Equals(..) | Guard::OneOf(..))
                    | (Lookup::Prefixes { .. }, Guard::StartsWith(..))
                    | (Lookup::Ranges(_), Guard::Between(..))
            )
    }
}

#[derive(Clone, Debug)]
enum Lookup {
    Values(ValueTable),
    Prefixes { table: ValueTable, lengths: Vec<usize> },
    Ranges(RangeTree),
}

impl RuleIndex {
    /// Indexes the guards of a ruleset that has been verified. Guards beyond the limits stay without an
    /// index; their rules are tried like those without a guard.
    pub(crate) fn new(ruleset: &Ruleset) -> Self {
        let elements = ruleset.lists.iter().map(List::len).fold(ruleset.rules.len(), usize::saturating_add);
        let mut index = Self { room: elements.saturating_mul(ENTRIES_PER_ELEMENT), ..Self::default() };
        for (rule, guard) in (0u32..).zip(ruleset.rules.iter().map(|rule| rule.guard)) {
            if !guard.is_some_and(|guard| index.add(ruleset, rule, guard)) {
                index.unguarded.push(rule);
            }
        }
        for entry in &mut index.indexes {
            match &mut entry.rules {
                Lookup::Values(table) | Lookup::Prefixes { table, .. } => table.build(ruleset),
                Lookup::Ranges(tree) => tree.build(),
            }
        }
        index
    }

    /// Whether every rule is tried for every request.
    pub(crate) fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    fn add(&mut self, ruleset: &Ruleset, rule: u32, guard: Guard) -> bool {
        let at = self.indexes.iter().position(|entry| entry.takes(guard)).unwrap_or(self.indexes.len());
        if at == self.indexes.len() {
            if self.indexes.len() >= MAX_INDEXES {
                return false;
            }
            let rules = match guard {
                Guard::Equals(..) | Guard::OneOf(..) => Lookup::Values(ValueTable::default()),
                Guard::StartsWith(..) => {
                    Lookup::Prefixes { table: ValueTable::default(), lengths: Vec::new() }
                }
                Guard::Between(..) => Lookup::Ranges(RangeTree::default()),
            };
            self.indexes.push(AttributeIndex { attribute: guard.attribute(), rules });
        }
        let Some(entry) = self.indexes.get_mut(at) else { return false };
        match (&mut entry.rules, guard) {
            (Lookup::Values(table), Guard::Equals(_, constant)) => {
                table.add(ruleset, Key::Constant(constant), rule)
            }
            (Lookup::Values(table), Guard::OneOf(_, list)) => {
                let elements = ruleset.lists.get(list.0 as usize).map_or(0, List::len);
                let Some(room) = self.room.checked_sub(elements) else { return false };
                self.room = room;
                for element in 0u32.. {
                    if element as usize >= elements {
                        break;
                    }
                    table.add(ruleset, Key::Element(list, element), rule);
                }
                true
            }
            (Lookup::Prefixes { table, lengths }, Guard::StartsWith(_, prefix)) => {
                let Some(Value::String(text)) = Key::Constant(prefix).value(ruleset) else { return false };
                if !lengths.contains(&text.len()) {
                    if lengths.len() >= MAX_PREFIX_LENGTHS {
                        return false;
                    }
                    lengths.push(text.len());
                }
                table.add(ruleset, Key::Constant(prefix), rule)
            }
            (Lookup::Ranges(tree), Guard::Between(_, first, last)) => tree.add(rule, first, last),
            _ => false,
        }
    }

    /// The rules that can take a request, in order. `value` reads an attribute; `unknown` learns of those
    /// that have no value: no rule that is looked up by them can take the request.
    pub(crate) fn candidates<'v>(
        &self,
        ruleset: &Ruleset,
        mut value: impl FnMut(AttributeId) -> Value<'v>,
        mut unknown: impl FnMut(AttributeId, EvalError),
    ) -> Candidates<'_> {
        let mut cursors = ArrayVec::new();
        // There is room for all: the limits of the indexes are what the capacity is made of.
        let mut push = |rules, indexed| {
            if !<[u32]>::is_empty(rules) {
                let _ = cursors.try_push(Cursor { rules, indexed });
            }
        };
        push(&self.unguarded, false);
        for AttributeIndex { attribute, rules } in &self.indexes {
            match (rules, value(*attribute)) {
                (_, Value::Error(error)) => unknown(*attribute, error),
                (Lookup::Values(table), value) => push(table.get(ruleset, &value), true),
                (Lookup::Prefixes { table, lengths }, Value::String(text)) => {
                    for prefix in lengths.iter().filter_map(|length| text.get(..*length)) {
                        push(table.get(ruleset, &Value::String(prefix)), true);
                    }
                }
                (Lookup::Ranges(tree), value) => {
                    order_key(&value)
                        .into_iter()
                        .for_each(|key| tree.containing(key, |rules| push(rules, true)));
                }
                (Lookup::Prefixes { .. }, _) => {}
            }
        }
        Candidates(cursors)
    }
}

/// The rules of several ascending lists in ascending order.
pub(crate) struct Candidates<'a>(ArrayVec<Cursor<'a>, MAX_CURSORS>);

struct Cursor<'a> {
    rules: &'a [u32],
    /// Whether the guards of these rules are known to hold.
    indexed: bool,
}

impl Iterator for Candidates<'_> {
    /// Index of the rule, and whether its guard is known to hold.
    type Item = (u32, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let first = self
            .0
            .iter_mut()
            .filter(|cursor| !cursor.rules.is_empty())
            .min_by_key(|cursor| cursor.rules.first())?;
        let (rule, rest) = first.rules.split_first()?;
        first.rules = rest;
        Some((*rule, first.indexed))
    }
}

/// Where a key of a table stands.
#[derive(Clone, Copy, Debug)]
enum Key {
    Constant(ConstantId),
    Element(ListId, u32),
}

impl Key {
    fn value(self, ruleset: &Ruleset) -> Option<Value<'_>> {
        match self {
            Self::Constant(id) => ruleset.constants.get(id.0 as usize).map(|constant| constant.value()),
            Self::Element(list, element) => ruleset.lists.get(list.0 as usize)?.get(element as usize),
        }
    }
}

/// Rules by a value that an attribute has to have: keys in order, so that no choice of keys makes a lookup slow.
#[derive(Clone, Debug, Default)]
struct ValueTable {
    /// What has been added and is not in `entries` yet.
    added: Vec<(u64, Key, u32)>,
    /// By their hashes, those of one hash by their values.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    key: Key,
    rules: Vec<u32>,
}

impl ValueTable {
    /// False when the key is not of a kind that can be looked up.
    fn add(&mut self, ruleset: &Ruleset, key: Key, rule: u32) -> bool {
        let Some(hash) = key.value(ruleset).as_ref().and_then(hash) else { return false };
        self.added.push((hash, key, rule));
        true
    }

    fn build(&mut self, ruleset: &Ruleset) {
        let mut added = std::mem::take(&mut self.added);
        let order = |a: Key, b: Key| compare(a.value(ruleset).as_ref(), b.value(ruleset).as_ref());
        // Stable, so rules stay in order.
        added.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| order(a.1, b.1)));
        for (hash, key, rule) in added {
            match self.entries.last_mut() {
                Some(last) if last.hash == hash && order(last.key, key).is_eq() => {
                    // A rule that asks for a value twice is still one rule.
                    if last.rules.last() != Some(&rule) {
                        last.rules.push(rule);
                    }
                }
                _ => self.entries.push(Entry { hash, key, rules: vec![rule] }),
            }
        }
    }

    fn get(&self, ruleset: &Ruleset, value: &Value<'_>) -> &[u32] {
        let Some(hash) = hash(value) else { return &[] };
        let found = self.entries.binary_search_by(|entry| {
            entry.hash.cmp(&hash).then_with(|| compare(entry.key.value(ruleset).as_ref(), Some(value)))
        });
        found.ok().and_then(|at| self.entries.get(at)).map_or(&[], |entry| &entry.rules)
    }
}

/// Equal values of one type have equal hashes. Numbers are their own.
fn hash(value: &Value<'_>) -> Option<u64> {
    Some(match value {
        Value::String(text) => xxh3_64(text.as_bytes()),
        Value::Bytes(bytes) => xxh3_64(bytes),
        Value::Bool(value) => u64::from(*value),
        number => order_key(number)?,
    })
}

/// The order of values that have one hash.
fn compare(a: Option<&Value<'_>>, b: Option<&Value<'_>>) -> Ordering {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Bytes(a)), Some(Value::Bytes(b))) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Rules by a range that an attribute has to lie in: a segment tree over the ends of all ranges. Each rule
/// stands at the few nodes that make up its range, and a value asks the nodes from its leaf to the root.
#[derive(Clone, Debug, Default)]
struct RangeTree {
    ranges: Vec<(u32, u64, u64)>,
    /// First numbers of the intervals between neighbouring ends, ascending, the first of them 0.
    starts: Vec<u64>,
    /// Number of leaves.
    leaves: usize,
    /// Per node, heap order, where its rules end in `rules`; they start where the node before ends.
    ends: Vec<u32>,
    rules: Vec<u32>,
}

impl RangeTree {
    fn add(&mut self, rule: u32, first: u64, last: u64) -> bool {
        self.ranges.push((rule, first, last));
        true
    }

    fn build(&mut self) {
        let behind = |last: u64| last.checked_add(1);
        let ends = self.ranges.iter().flat_map(|(_, first, last)| [Some(*first), behind(*last)]);
        self.starts = ends.flatten().chain([0]).collect();
        self.starts.sort_unstable();
        self.starts.dedup();
        self.leaves = self.starts.len().next_power_of_two();
        let mut nodes: Vec<Vec<u32>> = vec![Vec::new(); self.leaves.saturating_mul(2)];
        for &(rule, first, last) in &self.ranges {
            let mut low = self.starts.partition_point(|start| *start < first).saturating_add(self.leaves);
            let high = behind(last)
                .map_or(self.starts.len(), |end| self.starts.partition_point(|start| *start < end));
            let mut high = high.saturating_add(self.leaves);
            // The usual walk from both ends upwards: a node is taken when its parent would reach outside.
            while low < high {
                if low % 2 == 1 {
                    if let Some(node) = nodes.get_mut(low) {
                        node.push(rule);
                    }
                    low += 1;
                }
                if high % 2 == 1 {
                    high -= 1;
                    if let Some(node) = nodes.get_mut(high) {
                        node.push(rule);
                    }
                }
                low /= 2;
                high /= 2;
            }
        }
        for node in nodes {
            self.rules.extend(node);
            self.ends.push(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        }
        self.ranges = Vec::new();
    }

    /// Calls `push` with the rules of each node whose interval has the key.
    fn containing<'a>(&'a self, key: u64, mut push: impl FnMut(&'a [u32])) {
        let leaf = self.starts.partition_point(|start| start.cmp(&key) != Ordering::Greater);
        let mut node = leaf.saturating_sub(1).saturating_add(self.leaves);
        while node > 0 {
            let start = node.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            let end = self.ends.get(node).copied().unwrap_or(start);
            push(self.rules.get(start as usize..end as usize).unwrap_or_default());
            node /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_tree_finds_what_a_scan_finds(
            ranges in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..60),
            wide in any::<bool>(),
        ) {
            let scale = |n: u8| if wide { u64::from(n) << 56 | u64::from(n) } else { u64::from(n) };
            let last = |n: u8| if n == u8::MAX { u64::MAX } else { scale(n) };
            let mut tree = RangeTree::default();
            for (rule, (first, end)) in (0..).zip(&ranges) {
                tree.add(rule, scale(*first), last(*end));
            }
            tree.build();
            for key in (0..=u8::MAX).flat_map(|n| [scale(n), scale(n).saturating_sub(1), last(n)]) {
                let mut found = Vec::new();
                tree.containing(key, |rules| found.extend_from_slice(rules));
                found.sort_unstable();
                let expected: Vec<u32> = (0..)
                    .zip(&ranges)
                    .filter(|(_, (first, end))| scale(*first) <= key && key <= last(*end))
                    .map(|(rule, _)| rule)
                    .collect();
                prop_assert_eq!(&found, &expected, "{}", key);
            }
        }
    }
}
