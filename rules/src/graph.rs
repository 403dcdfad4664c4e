//! Conditions as graphs of tests.
//!
//! The code of a condition says what it means; a graph says where to go on after each of its tests: to
//! another one, or to the outcome. Nothing is left to do for `&&`, `||` and `!`, and what cannot change the outcome
//! any more is not tested.
//!
//! An error goes on too, because what is still to come may absorb it: `error && false` is false. Behind an error
//! stands therefore a second copy of the rest, which can only lead to the error or to what absorbs it.

use crate::{
    bundle::{Condition, Constant, Ruleset, order_key},
    isa::{AttributeId, ConstantId, ListId, Op, PredicateId, Skip},
    operator::{Binary, Unary},
    value::EvalError,
    verify::code,
};
use std::collections::HashMap;

/// A node of a graph, or an outcome.
pub(crate) type Exit = u32;

/// The condition holds.
pub(crate) const HOLDS: Exit = u32::MAX;
/// The condition does not hold.
pub(crate) const FAILS: Exit = HOLDS - 1;
/// The condition has no value.
const ERROR: Exit = HOLDS - 2;

/// Structures that are nested deeper are left as code: building a graph goes down as deep.
const MAX_DEPTH: usize = 32;

/// A boolean that may have no value.
pub(crate) type Tri = Result<bool, EvalError>;

/// The graphs of all conditions and shared predicates of a ruleset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// Where each shared predicate starts.
    predicates: Vec<Exit>,
}

/// A graph in the making.
pub(crate) struct GraphBuilder<'a> {
    ruleset: &'a Ruleset,
    graph: Graph,
    /// Where each condition starts: what stands in the bundle once is there once.
    starts: HashMap<Condition, Exit>,
}

/// A test, and where it leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) test: Test,
    exits: Exits,
    /// Whether no test before has left an error that is still in question: the first one counts.
    first: bool,
}

/// Where a test leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exits {
    holds: Exit,
    fails: Exit,
    error: Exit,
}

/// Something to ask about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    /// Whether an attribute is this text.
    Equals(AttributeId, ConstantId),
    /// Whether an attribute starts with this text.
    StartsWith(AttributeId, ConstantId),
    /// Whether an attribute ends with this text.
    EndsWith(AttributeId, ConstantId),
    /// Whether an attribute contains this text.
    Contains(AttributeId, ConstantId),
    /// Whether an attribute's [`order_key`] lies between the two, both included.
    Between(AttributeId, u64, u64),
    /// As `Between`, of what an operation makes of an attribute and a constant: `user.id % 100 < 5`.
    ResultBetween(AttributeId, Binary, ConstantId, u64, u64),
    /// Whether a list has the attribute.
    Member(AttributeId, ListId),
    /// Whether the request carries the attribute.
    Has(AttributeId),
    /// A predicate that several conditions share.
    Predicate(PredicateId),
    /// Anything else.
    Code(Condition),
}

impl<'a> GraphBuilder<'a> {
    /// Begins with the shared predicates of a ruleset that has been verified.
    pub(crate) fn new(ruleset: &'a Ruleset) -> Self {
        let mut builder = Self { ruleset, graph: Graph::default(), starts: HashMap::new() };
        builder.graph.predicates = ruleset.predicates.iter().map(|code| builder.add(*code)).collect();
        builder
    }

    /// Brings a condition into the graph; the answer is where it starts.
    pub(crate) fn add(&mut self, condition: Condition) -> Exit {
        if let Some(start) = self.starts.get(&condition) {
            return *start;
        }
        let nodes = &mut self.graph.nodes;
        let before = nodes.len();
        // Copies of copies: a condition may be nested so that its graph is much larger than its code.
        let limit = before.saturating_add((condition.length as usize).saturating_mul(4));
        let outcomes = Exits { holds: HOLDS, fails: FAILS, error: ERROR };
        let built = logic(self.ruleset, condition)
            .and_then(|logic| Branches { nodes, limit }.add(&logic, outcomes, true));
        let start = built.unwrap_or_else(|| {
            nodes.truncate(before);
            nodes.push(Node { test: Test::Code(condition), exits: outcomes, first: true });
            u32::try_from(before).unwrap_or(ERROR)
        });
        self.starts.insert(condition, start);
        start
    }

    /// The graph of all that was added.
    pub(crate) fn finish(self) -> Graph {
        self.graph
    }
}

impl Graph {
    /// All nodes: exits are their places. Those that are no node's place are outcomes.
    #[inline]
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where a shared predicate starts.
    #[inline]
    pub(crate) fn predicate(&self, id: u16) -> Option<Exit> {
        self.predicates.get(usize::from(id)).copied()
    }
}

impl Node {
    /// Where a test's outcome leads. `error` is the error in question.
    #[inline]
    pub(crate) fn next(&self, outcome: Tri, error: &mut EvalError) -> Exit {
        match outcome {
            Ok(true) => self.exits.holds,
            Ok(false) => self.exits.fails,
            Err(new) => {
                if self.first {
                    *error = new;
                }
                self.exits.error
            }
        }
    }
}

/// The outcome that an exit is, with the error in question.
#[inline]
pub(crate) fn outcome(exit: Exit, error: EvalError) -> Tri {
    match exit {
        HOLDS => Ok(true),
        FAILS => Ok(false),
        _ => Err(error),
    }
}

/// The structure of a condition.
enum Logic {
    Test(Test),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Logic {
    fn not(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// `&&` and `||`. A chain of one of them is one node, so that trees are as deep as parentheses are.
    fn join(self, other: Self, all: bool) -> Self {
        match (self, all) {
            (Self::All(mut operands), true) => {
                operands.push(other);
                Self::All(operands)
            }
            (Self::Any(mut operands), false) => {
                operands.push(other);
                Self::Any(operands)
            }
            (first, true) => Self::All(vec![first, other]),
            (first, false) => Self::Any(vec![first, other]),
        }
    }
}

/// Finds the structure in a condition's code, by following what is on the stack. `None` when the code jumps otherwise
/// than `&&` and `||` do.
fn logic(ruleset: &Ruleset, condition: Condition) -> Option<Logic> {
    /// What is on the stack, where the operations start that brought it there, and how deep its structure is.
    struct Operand {
        start: usize,
        depth: usize,
        logic: Logic,
    }
    let condition_code = code(ruleset, condition)?;
    let mut stack: Vec<Operand> = Vec::new();
    let mut jumps = 0usize;
    for (at, op) in condition_code.iter().enumerate() {
        let operand = match *op {
            Op::SkipIfFalse(_) | Op::SkipIfTrue(_) => {
                jumps = jumps.checked_add(1)?;
                continue;
            }
            Op::And | Op::Or => {
                let (right, left) = (stack.pop()?, stack.pop()?);
                let all = *op == Op::And;
                match (condition_code.get(right.start.checked_sub(1)?)?, all) {
                    (Op::SkipIfFalse(Skip(skip)), true) | (Op::SkipIfTrue(Skip(skip)), false)
                        if right.start.checked_add(usize::from(*skip))? == at.checked_add(1)? =>
                    {
                        jumps = jumps.checked_sub(1)?;
                    }
                    (Op::SkipIfFalse(_) | Op::SkipIfTrue(_), _) => return None,
                    _ => {}
                }
                let chained = matches!((&left.logic, all), (Logic::All(_), true) | (Logic::Any(_), false));
                let depth =
                    left.depth.saturating_sub(usize::from(chained)).max(right.depth).saturating_add(1);
                if depth > MAX_DEPTH {
                    return None;
                }
                Operand { start: left.start, depth, logic: left.logic.join(right.logic, all) }
            }
            Op::Unary(Unary::Not) => {
                let operand = stack.pop()?;
                Operand { logic: operand.logic.not(), ..operand }
            }
            op => {
                let mut start = at;
                for _ in 0..op.effect().operands() {
                    start = stack.pop()?.start;
                }
                let code = Condition {
                    start: condition.start.checked_add(u32::try_from(start).ok()?)?,
                    length: u32::try_from(at.checked_sub(start)?.checked_add(1)?).ok()?,
                };
                let of_result = || of_result(ruleset, condition_code.get(start..=at)?);
                let test = leaf(ruleset, op).or_else(of_result).unwrap_or(Logic::Test(Test::Code(code)));
                Operand { start, depth: 0, logic: test }
            }
        };
        stack.push(operand);
    }
    let whole = stack.pop()?;
    (stack.is_empty() && jumps == 0).then_some(whole.logic)
}

/// An operation that is a test by itself, when there is a form for it.
fn leaf(ruleset: &Ruleset, op: Op) -> Option<Logic> {
    let test = match op {
        Op::Has(attribute) => Test::Has(attribute),
        Op::TestIn(attribute, list) => Test::Member(attribute, list),
        Op::Predicate(id) => Test::Predicate(id),
        Op::Test(attribute, op, constant) => {
            let value = ruleset.constants.get(constant.0 as usize)?;
            match (value, op) {
                (Constant::String(_), Binary::Equal) => Test::Equals(attribute, constant),
                (Constant::String(_), Binary::NotEqual) => {
                    return Some(Logic::Test(Test::Equals(attribute, constant)).not());
                }
                (Constant::String(_), Binary::StartsWith) => Test::StartsWith(attribute, constant),
                (Constant::String(_), Binary::EndsWith) => Test::EndsWith(attribute, constant),
                (Constant::String(_), Binary::Contains) => Test::Contains(attribute, constant),
                _ => {
                    return compared(ruleset, op, constant, |first, last| {
                        Test::Between(attribute, first, last)
                    });
                }
            }
        }
        _ => return None,
    };
    Some(Logic::Test(test))
}

/// The test of a comparison of an operation's result: `attribute op constant < other`.
fn of_result(ruleset: &Ruleset, code: &[Op]) -> Option<Logic> {
    match *code {
        [
            Op::Load(attribute),
            Op::Constant(constant),
            Op::Binary(
                op @ (Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder),
            ),
            Op::Constant(other),
            Op::Binary(comparison),
        ] => compared(ruleset, comparison, other, |first, last| {
            Test::ResultBetween(attribute, op, constant, first, last)
        }),
        _ => None,
    }
}

/// A comparison with a constant that has an order, as a question for a range of [`order_key`]s.
fn compared(
    ruleset: &Ruleset,
    comparison: Binary,
    constant: ConstantId,
    test: impl FnOnce(u64, u64) -> Test,
) -> Option<Logic> {
    // What has no order, NaN among it, lies in no range: it only differs.
    let key = order_key(&ruleset.constants.get(constant.0 as usize)?.value())?;
    let (first, last) = match comparison {
        Binary::Equal | Binary::NotEqual => (key, key),
        Binary::Less => (0, key.checked_sub(1)?),
        Binary::LessEqual => (0, key),
        Binary::Greater => (key.checked_add(1)?, u64::MAX),
        Binary::GreaterEqual => (key, u64::MAX),
        _ => return None,
    };
    let between = Logic::Test(test(first, last));
    Some(if comparison == Binary::NotEqual { between.not() } else { between })
}

/// Brings a structure into the graph, from its end to its start: an exit is there before what leads to it.
struct Branches<'a> {
    nodes: &'a mut Vec<Node>,
    /// So many nodes there may be.
    limit: usize,
}

impl Branches<'_> {
    /// `first` says whether no error is in question yet. `None` when there would be too many nodes.
    fn add(&mut self, logic: &Logic, exits: Exits, first: bool) -> Option<Exit> {
        if exits.holds == exits.fails && exits.fails == exits.error {
            return Some(exits.holds);
        }
        match logic {
            Logic::Test(test) => {
                let at = self.nodes.len();
                if at >= self.limit {
                    return None;
                }
                self.nodes.push(Node { test: *test, exits, first });
                u32::try_from(at).ok()
            }
            Logic::Not(inner) => {
                self.add(inner, Exits { holds: exits.fails, fails: exits.holds, ..exits }, first)
            }
            Logic::All(operands) => self.chain(operands, exits, first, true),
            Logic::Any(operands) => self.chain(operands, exits, first, false),
        }
    }

    fn chain(&mut self, operands: &[Logic], exits: Exits, first: bool, all: bool) -> Option<Exit> {
        // Where it goes on after an operand that decides nothing, and after one that decides nothing behind an error.
        let (mut next, mut next_behind_error) = (if all { exits.holds } else { exits.fails }, exits.error);
        for (index, operand) in operands.iter().enumerate().rev() {
            let towards = |undecided, error| {
                if all {
                    Exits { holds: undecided, error, ..exits }
                } else {
                    Exits { fails: undecided, error, ..exits }
                }
            };
            next = self.add(operand, towards(next, next_behind_error), first)?;
            if index > 0 {
                next_behind_error =
                    self.add(operand, towards(next_behind_error, next_behind_error), false)?;
            }
        }
        Some(next)
    }
}
