//! Puts the conditions of a ruleset together: equal parts are evaluated once, rules get guards to be found by.

use crate::expression::{Lowering, Node, Optimisation, chain};
use halftone_rules::{
    Type, Value,
    bundle::{Attribute, Condition, Constant, Guard, order_key},
    isa::{AttributeId, ListId, Op, PredicateId},
    limits::{MAX_CONDITION_OPS, MAX_INDEXES, MAX_PREDICATES, MAX_PREFIX_LENGTHS, MAX_STACK},
    operator::Binary,
};
use std::collections::{HashMap, HashSet};

/// A lookup pays from this many rules on; fewer are tried faster one by one.
const MIN_GUARDED_RULES: usize = 8;
/// A lookup pays when it tells at least this many values apart.
const MIN_GUARD_VALUES: usize = 4;

/// The code of a ruleset.
#[derive(Default)]
pub(crate) struct Program {
    pub(crate) code: Vec<Op>,
    pub(crate) predicates: Vec<Condition>,
    /// For each condition, in the order they were given, what became of it.
    pub(crate) parts: Vec<Part>,
}

/// What became of a condition.
#[derive(Clone, Copy, Default)]
pub(crate) struct Part {
    pub(crate) guard: Option<Guard>,
    pub(crate) condition: Option<Condition>,
    /// Operations and stack that are more than the evaluator has; then the condition is left out.
    pub(crate) excess: Option<(usize, usize)>,
}

/// Assembles conditions; `None` stands for a rule without one. `guarded` says which of them may have a guard.
pub(crate) fn assemble(
    conditions: Vec<Option<Node>>,
    guarded: impl Fn(usize) -> bool,
    attributes: &[Attribute],
    lowering: &mut Lowering,
    optimisation: Optimisation,
) -> Program {
    let mut conditions = conditions;
    let mut guards = vec![None; conditions.len()];
    let mut shared = HashMap::new();
    let mut program = Program::default();
    if optimisation == Optimisation::Full {
        guards = choose_guards(&mut conditions, guarded, attributes, lowering);
        shared = share(&conditions, &mut program);
    }
    for (condition, guard) in conditions.into_iter().zip(guards) {
        let mut part = Part { guard, ..Part::default() };
        if let Some(node) = condition {
            let ops = emit(node, &shared);
            let deepest = depth(&ops);
            if ops.len() > MAX_CONDITION_OPS || deepest > MAX_STACK {
                part.excess = Some((ops.len(), deepest));
            } else {
                part.condition = Some(append(&mut program.code, &ops));
            }
        }
        program.parts.push(part);
    }
    program
}

fn append(code: &mut Vec<Op>, ops: &[Op]) -> Condition {
    // The text's size limit keeps the number of operations far below 2^32.
    let place = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let condition = Condition { start: place(code.len()), length: place(ops.len()) };
    code.extend_from_slice(ops);
    condition
}

fn emit(node: Node, shared: &HashMap<Vec<Op>, PredicateId>) -> Vec<Op> {
    match node {
        Node::Leaf(ops) => match shared.get(&ops) {
            Some(id) => vec![Op::Predicate(*id)],
            None => ops,
        },
        Node::And(nodes) => chain(&emit_all(nodes, shared), true),
        Node::Or(nodes) => chain(&emit_all(nodes, shared), false),
    }
}

fn emit_all(nodes: Vec<Node>, shared: &HashMap<Vec<Op>, PredicateId>) -> Vec<Vec<Op>> {
    nodes.into_iter().map(|node| emit(node, shared)).collect()
}

/// The most values that operations have on the stack at once. Jumps need no look: all stacks that meet are
/// alike.
fn depth(ops: &[Op]) -> usize {
    let mut height = 0usize;
    let mut deepest = 0;
    for op in ops {
        height = (height + 1).saturating_sub(op.effect().operands());
        deepest = deepest.max(height);
    }
    deepest
}

/// Makes predicates of the leaves that stand in several conditions, the most frequent first.
fn share(conditions: &[Option<Node>], program: &mut Program) -> HashMap<Vec<Op>, PredicateId> {
    let mut uses: HashMap<&[Op], (usize, usize)> = HashMap::new();
    let mut order = 0;
    for node in conditions.iter().flatten() {
        // A leaf that one condition has twice is evaluated twice there; that is rare, and counts as one use.
        let mut seen = HashSet::new();
        visit(node, &mut |leaf| {
            if seen.insert(leaf) {
                let (count, _) = uses.entry(leaf).or_insert((0, order));
                *count += 1;
                order += 1;
            }
        });
    }
    let mut frequent: Vec<(&[Op], usize, usize)> = uses
        .into_iter()
        .filter(|(leaf, (count, _))| pays(leaf, *count))
        .map(|(leaf, (n, at))| (leaf, n, at))
        .collect();
    frequent.sort_by_key(|(_, count, at)| (std::cmp::Reverse(*count), *at));
    let mut shared = HashMap::new();
    for ((leaf, ..), id) in frequent.into_iter().take(MAX_PREDICATES).zip(0u16..) {
        program.predicates.push(append(&mut program.code, leaf));
        shared.insert(leaf.to_vec(), PredicateId(id));
    }
    shared
}

/// Whether asking for a predicate costs less than evaluating the leaf each time. A constant never; one
/// comparison from the third time on.
fn pays(leaf: &[Op], uses: usize) -> bool {
    let fits = leaf.len() <= MAX_CONDITION_OPS && depth(leaf) <= MAX_STACK;
    fits && match leaf {
        [Op::Constant(_) | Op::Fail(..) | Op::Has(_) | Op::Load(_)] => false,
        [Op::Test(..)] => uses >= 3,
        _ => uses >= 2,
    }
}

fn visit<'n>(node: &'n Node, f: &mut impl FnMut(&'n [Op])) {
    match node {
        Node::Leaf(ops) => f(ops),
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| visit(node, f)),
    }
}

/// Ways to look rules up, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    Value,
    Prefix,
    Range,
}

/// What rules are looked up by.
type Index = (Way, u16);

/// A part of a condition that can be a guard, and which of the condition's operands it replaces.
struct Candidate {
    index: Index,
    guard: Guard,
    replaces: Vec<usize>,
}

/// Takes a guard out of each condition that can be looked up by one.
fn choose_guards(
    conditions: &mut [Option<Node>],
    guarded: impl Fn(usize) -> bool,
    attributes: &[Attribute],
    lowering: &mut Lowering,
) -> Vec<Option<Guard>> {
    let mut candidates: Vec<Vec<Candidate>> = Vec::with_capacity(conditions.len());
    for (at, condition) in conditions.iter().enumerate() {
        candidates.push(match condition {
            Some(node) if guarded(at) => guards_of(node, attributes, lowering),
            _ => Vec::new(),
        });
    }
    let indexes = choose_indexes(&candidates);
    let mut lengths: HashMap<u16, HashSet<usize>> = HashMap::new();
    let mut guards = Vec::with_capacity(conditions.len());
    for (condition, candidates) in conditions.iter_mut().zip(candidates) {
        let chosen = indexes.iter().find_map(|index| candidates.iter().find(|other| other.index == *index));
        let fits = |candidate: &&Candidate| match prefix(candidate.guard, lowering) {
            Some(prefix) => {
                let known = lengths.entry(candidate.index.1).or_default();
                known.contains(&prefix.len())
                    || (known.len() < MAX_PREFIX_LENGTHS && known.insert(prefix.len()))
            }
            None => true,
        };
        let Some(candidate) = chosen.filter(fits) else {
            guards.push(None);
            continue;
        };
        *condition = match condition.take() {
            Some(Node::And(operands)) => {
                let kept =
                    operands.into_iter().enumerate().filter(|(at, _)| !candidate.replaces.contains(at));
                let mut kept: Vec<Node> = kept.map(|(_, operand)| operand).collect();
                match kept.len() {
                    0 => None,
                    1 => kept.pop(),
                    _ => Some(Node::And(kept)),
                }
            }
            _ => None,
        };
        guards.push(Some(candidate.guard));
    }
    guards
}

fn prefix(guard: Guard, lowering: &Lowering) -> Option<&str> {
    match guard {
        Guard::StartsWith(_, id) => match lowering.constants.get(id.0 as usize) {
            Some(Constant::String(prefix)) => Some(prefix),
            _ => None,
        },
        _ => None,
    }
}

/// The indexes that find enough rules, the best first.
fn choose_indexes(candidates: &[Vec<Candidate>]) -> Vec<Index> {
    let mut left: Vec<&Vec<Candidate>> =
        candidates.iter().filter(|candidates| !candidates.is_empty()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < MAX_INDEXES {
        let mut found: HashMap<Index, (usize, HashSet<GuardKey>)> = HashMap::new();
        for candidate in left.iter().copied().flatten() {
            let (count, values) = found.entry(candidate.index).or_default();
            *count += 1;
            if values.len() < MIN_GUARD_VALUES {
                values.insert(guard_key(candidate.guard));
            }
        }
        let best = found
            .into_iter()
            .filter(|(_, (count, values))| *count >= MIN_GUARDED_RULES && values.len() >= MIN_GUARD_VALUES)
            .min_by_key(|((way, attribute), (count, _))| (*way, std::cmp::Reverse(*count), *attribute));
        let Some((index, _)) = best else { break };
        chosen.push(index);
        left.retain(|candidates| candidates.iter().all(|candidate| candidate.index != index));
    }
    chosen
}

/// What makes guards on one attribute different.
type GuardKey = (u64, u64);

fn guard_key(guard: Guard) -> GuardKey {
    match guard {
        Guard::Equals(_, id) | Guard::StartsWith(_, id) => (0, u64::from(id.0)),
        Guard::OneOf(_, id) => (1, u64::from(id.0)),
        Guard::Between(_, first, last) => (first, last),
    }
}

fn guards_of(node: &Node, attributes: &[Attribute], lowering: &mut Lowering) -> Vec<Candidate> {
    let operands = match node {
        Node::And(operands) => operands.as_slice(),
        other => std::slice::from_ref(other),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for (at, operand) in operands.iter().enumerate() {
        let Some((index, guard)) = guard_of(operand, attributes, lowering) else { continue };
        // Two ends of one range are one guard.
        let same_range = candidates.iter_mut().find(|other| other.index == index && index.0 == Way::Range);
        match (same_range, guard) {
            (Some(other), Guard::Between(id, first, last)) => {
                if let Guard::Between(_, low, high) = other.guard {
                    other.guard = Guard::Between(id, first.max(low), last.min(high));
                    other.replaces.push(at);
                }
            }
            _ => candidates.push(Candidate { index, guard, replaces: vec![at] }),
        }
    }
    candidates
}

fn guard_of(node: &Node, attributes: &[Attribute], lowering: &mut Lowering) -> Option<(Index, Guard)> {
    match node {
        Node::Leaf(ops) => match ops.as_slice() {
            [Op::Test(attribute, op, constant)] => {
                let constant_value = lowering.constants.get(constant.0 as usize)?;
                let ty = constant_value.ty();
                match op {
                    Binary::Equal if !matches!(ty, Type::Bool | Type::Semver) => {
                        Some(((Way::Value, attribute.0), Guard::Equals(*attribute, *constant)))
                    }
                    Binary::StartsWith => {
                        Some(((Way::Prefix, attribute.0), Guard::StartsWith(*attribute, *constant)))
                    }
                    _ => {
                        let (first, last) = range(*op, &constant_value.value())?;
                        Some(((Way::Range, attribute.0), Guard::Between(*attribute, first, last)))
                    }
                }
            }
            [Op::TestIn(attribute, list)] => {
                Some(((Way::Value, attribute.0), Guard::OneOf(*attribute, *list)))
            }
            _ => None,
        },
        // `a == x || a == y` is `a in [x, y]`.
        Node::Or(operands) => {
            let mut elements = Vec::new();
            let mut attribute = None;
            for operand in operands {
                let (id, constants) = equalities(operand, lowering)?;
                if attribute.is_some_and(|other| other != id) {
                    return None;
                }
                attribute = Some(id);
                elements.extend(constants);
            }
            let attribute = attribute?;
            let ty = attributes.get(usize::from(attribute.0))?.ty;
            let list: ListId = lowering.list(ty, &elements)?;
            Some(((Way::Value, attribute.0), Guard::OneOf(attribute, list)))
        }
        Node::And(_) => None,
    }
}

/// The attribute and the values that a leaf compares it with for equality.
fn equalities(node: &Node, lowering: &Lowering) -> Option<(AttributeId, Vec<Constant>)> {
    let Node::Leaf(ops) = node else { return None };
    match ops.as_slice() {
        [Op::Test(attribute, Binary::Equal, constant)] => {
            Some((*attribute, vec![lowering.constants.get(constant.0 as usize)?.clone()]))
        }
        _ => None,
    }
}

/// The keys for which a comparison with a number holds.
fn range(op: Binary, value: &Value<'_>) -> Option<(u64, u64)> {
    if !matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_)) {
        return None;
    }
    let key = order_key(value)?;
    // Infinity is the last double; what is not a number has no key, so the ends may go beyond it.
    Some(match op {
        Binary::Less => (0, key.checked_sub(1)?),
        Binary::LessEqual => (0, key),
        Binary::Greater => (key.checked_add(1)?, u64::MAX),
        Binary::GreaterEqual => (key, u64::MAX),
        _ => return None,
    })
}
