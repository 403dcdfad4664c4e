//! The rules as trees of boxed closures: what engines like wirefilter compile to. A peer of the evaluator with the
//! same values and the same operations on them, made of the same program as it is written, without folding,
//! sharing and index.

use super::Headers;
use anyhow::{Context, Result, bail};
use halftone_rules::{
    EvalError, Request, Ruleset, Value,
    bucket::{BUCKETS, Bucketing, Seed},
    bundle::Condition,
    isa::Op,
};
use std::cell::Cell;

/// What closures read: the request's attributes, each once.
pub(super) struct Inputs<'a> {
    values: Vec<Cell<Option<Value<'a>>>>,
    ruleset: &'a Ruleset,
    request: &'a Headers,
}

type Closure = Box<dyn for<'a> Fn(&Inputs<'a>) -> Value<'a>>;

struct ClosureRule {
    name: String,
    condition: Option<Closure>,
    /// Buckets and the first one behind those taken.
    split: Option<(Bucketing, u32)>,
}

/// A ruleset as closures.
pub(super) struct ClosureRules {
    ruleset: Ruleset,
    rules: Vec<ClosureRule>,
}

impl<'a> Inputs<'a> {
    fn value(&self, id: usize) -> Value<'a> {
        let cell = &self.values[id];
        if let Some(value) = cell.get() {
            return value;
        }
        let attribute = &self.ruleset.attributes[id];
        let value = match self.request.attribute(attribute) {
            Some(bytes) => attribute.ty.parse(bytes),
            None => Value::Error(EvalError::Missing),
        };
        cell.set(Some(value));
        value
    }
}

impl ClosureRules {
    pub(super) fn new(ruleset: &Ruleset) -> Result<Self> {
        let rule = |rule: &halftone_rules::Rule| {
            let split = rule.enrolment.allocation.as_ref().and_then(|allocation| allocation.slices.first());
            let seed = Seed::of_rule(&ruleset.name, &rule.name).ready();
            Ok(ClosureRule {
                name: rule.name.clone(),
                condition: rule.enrolment.condition.map(|condition| tree(ruleset, condition)).transpose()?,
                split: split.filter(|slice| slice.end < BUCKETS).map(|slice| (seed, slice.end)),
            })
        };
        Ok(Self { rules: ruleset.rules.iter().map(rule).collect::<Result<_>>()?, ruleset: ruleset.clone() })
    }

    /// The name of the rule that takes the request.
    pub(super) fn decide(&self, request: &Headers) -> Option<&str> {
        let values = self.ruleset.attributes.iter().map(|_| Cell::new(None)).collect();
        let inputs = Inputs { values, ruleset: &self.ruleset, request };
        let unit = request.attribute(&self.ruleset.attributes[usize::from(self.ruleset.unit.0)]);
        std::hint::black_box(unit.map(halftone_rules::unit_hash));
        let takes = |rule: &&ClosureRule| {
            rule.condition.as_ref().is_none_or(|condition| condition(&inputs) == Value::Bool(true))
                && rule.split.is_none_or(|(seed, end)| unit.is_some_and(|unit| seed.bucket(unit) < end))
        };
        self.rules.iter().find(takes).map(|rule| rule.name.as_str())
    }
}

/// The tree of a condition: operations in postfix order, put together from the leaves upwards.
fn tree(ruleset: &Ruleset, condition: Condition) -> Result<Closure> {
    let start = condition.start as usize;
    let mut stack: Vec<Closure> = Vec::new();
    for op in &ruleset.code[start..start + condition.length as usize] {
        let closure: Closure = match *op {
            Op::Constant(id) => {
                let constant = id.0 as usize;
                Box::new(move |inputs| inputs.ruleset.constants[constant].value())
            }
            Op::Load(id) => Box::new(move |inputs| inputs.value(usize::from(id.0))),
            Op::Unary(op) => {
                let operand = stack.pop().context("no operand")?;
                Box::new(move |inputs| op.apply(operand(inputs)))
            }
            Op::Binary(op) => {
                let right = stack.pop().context("no operand")?;
                let left = stack.pop().context("no operand")?;
                Box::new(move |inputs| op.apply(left(inputs), right(inputs)))
            }
            Op::In(id) => {
                let operand = stack.pop().context("no operand")?;
                let list = ruleset.lists[id.0 as usize].clone();
                Box::new(move |inputs| match (&list, operand(inputs)) {
                    (_, error @ Value::Error(_)) => error,
                    (halftone_rules::bundle::List::String(list), Value::String(text)) => {
                        Value::Bool(list.binary_search_by(|other| other.as_str().cmp(text)).is_ok())
                    }
                    _ => Value::Error(EvalError::Fault),
                })
            }
            Op::And | Op::Or => {
                let right = stack.pop().context("no operand")?;
                let left = stack.pop().context("no operand")?;
                let decisive = *op == Op::Or;
                Box::new(move |inputs| match left(inputs) {
                    Value::Bool(value) if value == decisive => Value::Bool(decisive),
                    left => match (left, right(inputs)) {
                        (_, Value::Bool(value)) if value == decisive => Value::Bool(decisive),
                        (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
                        _ => Value::Bool(!decisive),
                    },
                })
            }
            // The closures of `&&` and `||` skip by themselves.
            Op::SkipIfFalse(_) | Op::SkipIfTrue(_) => continue,
            other => bail!("{other:?} is not needed here"),
        };
        stack.push(closure);
    }
    stack.pop().context("an empty condition")
}
