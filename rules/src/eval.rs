//! The evaluator: runs a verified condition over a request, without allocation.

use crate::{
    bundle::{Condition, Constant, List, Ruleset},
    isa::{AttributeId, Op},
    limits::{MAX_ATTRIBUTES, MAX_STACK, MAX_VALUE_BYTES},
    request::Request,
    value::{EvalError, Value},
    verify::code,
};
use std::cmp::Ordering;

/// The evaluation of one request by one ruleset. Made once per request and not once per condition:
/// clearing the stack costs more than most conditions.
pub(crate) struct Evaluation<'a, R> {
    attributes: Attributes<'a, R>,
    stack: Stack<'a>,
}

/// A request seen through a ruleset's attributes, each read at most once.
struct Attributes<'a, R> {
    ruleset: &'a Ruleset,
    request: &'a R,
    read: [Option<Value<'a>>; MAX_ATTRIBUTES],
    unit: Option<Option<&'a [u8]>>,
}

impl<'a, R: Request> Attributes<'a, R> {
    fn value(&mut self, AttributeId(id): AttributeId) -> Value<'a> {
        let id = usize::from(id);
        let (Some(slot), Some(attribute)) = (self.read.get_mut(id), self.ruleset.attributes.get(id)) else {
            return Value::Error(EvalError::Fault);
        };
        *slot.get_or_insert_with(|| match attribute.source.read(self.request) {
            Some(bytes) if bytes.len() > MAX_VALUE_BYTES => Value::Error(EvalError::TooLong),
            Some(bytes) => attribute.ty.parse(bytes),
            None => Value::Error(EvalError::Missing),
        })
    }
}

impl<'a, R: Request> Evaluation<'a, R> {
    pub(crate) fn new(ruleset: &'a Ruleset, request: &'a R) -> Self {
        let attributes = Attributes { ruleset, request, read: [const { None }; MAX_ATTRIBUTES], unit: None };
        Self { attributes, stack: Stack::new() }
    }

    /// The bytes of the unit. An empty unit is none.
    pub(crate) fn unit(&mut self) -> Option<&'a [u8]> {
        let Attributes { ruleset, request, unit, .. } = &mut self.attributes;
        *unit.get_or_insert_with(|| ruleset.unit.read(*request).filter(|unit| !unit.is_empty()))
    }

    /// Whether the rule's condition holds.
    pub(crate) fn holds(&mut self, condition: Condition) -> Result<bool, EvalError> {
        match self.run(condition) {
            Some(Value::Bool(holds)) => Ok(holds),
            Some(Value::Error(error)) => Err(error),
            _ => Err(EvalError::Fault),
        }
    }

    /// Runs the condition; `None` when an invariant that verification guarantees is broken.
    fn run(&mut self, condition: Condition) -> Option<Value<'a>> {
        let Self { attributes, stack } = self;
        let ruleset = attributes.ruleset;
        stack.depth = 0;
        let mut ops = code(ruleset, condition)?.iter();
        while let Some(op) = ops.next() {
            match *op {
                Op::Constant(id) => {
                    stack.push(match ruleset.constants.get(usize::try_from(id.0).ok()?)? {
                        Constant::Bool(value) => Value::Bool(*value),
                        Constant::Int(value) => Value::Int(*value),
                        Constant::Uint(value) => Value::Uint(*value),
                        Constant::Double(value) => Value::Double(*value),
                        Constant::String(value) => Value::String(value),
                    })?;
                }
                Op::Load(id) => stack.push(attributes.value(id))?,
                Op::Has(id) => {
                    let present = attributes.value(id) != Value::Error(EvalError::Missing);
                    stack.push(Value::Bool(present))?;
                }
                Op::Equal => stack.compare(|ordering| ordering == Some(Ordering::Equal))?,
                Op::NotEqual => stack.compare(|ordering| ordering != Some(Ordering::Equal))?,
                Op::Less => stack.compare(|ordering| ordering == Some(Ordering::Less))?,
                Op::LessEqual => stack.compare(|ordering| ordering.is_some_and(Ordering::is_le))?,
                Op::Greater => stack.compare(|ordering| ordering == Some(Ordering::Greater))?,
                Op::GreaterEqual => stack.compare(|ordering| ordering.is_some_and(Ordering::is_ge))?,
                Op::Add => stack.arithmetic(i64::checked_add, u64::checked_add, |a, b| a + b)?,
                Op::Subtract => stack.arithmetic(i64::checked_sub, u64::checked_sub, |a, b| a - b)?,
                Op::Multiply => stack.arithmetic(i64::checked_mul, u64::checked_mul, |a, b| a * b)?,
                Op::Divide => stack.division(i64::checked_div, u64::checked_div, |a, b| a / b)?,
                Op::Remainder => stack.division(i64::checked_rem, u64::checked_rem, |a, b| a % b)?,
                Op::Negate => stack.unary(|value| match value {
                    Value::Int(value) => {
                        value.checked_neg().map_or(Value::Error(EvalError::Overflow), Value::Int)
                    }
                    Value::Double(value) => Value::Double(-value),
                    _ => Value::Error(EvalError::Fault),
                })?,
                Op::Not => stack.unary(|value| match value {
                    Value::Bool(value) => Value::Bool(!value),
                    _ => Value::Error(EvalError::Fault),
                })?,
                Op::And => stack.logic(false)?,
                Op::Or => stack.logic(true)?,
                Op::SkipIfFalse(skip) => {
                    if *stack.top()? == Value::Bool(false) && skip.0 > 0 {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                }
                Op::SkipIfTrue(skip) => {
                    if *stack.top()? == Value::Bool(true) && skip.0 > 0 {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                }
                Op::Select => {
                    let otherwise = stack.pop()?;
                    let then = stack.pop()?;
                    let condition = stack.pop()?;
                    stack.push(match condition {
                        Value::Bool(true) => then,
                        Value::Bool(false) => otherwise,
                        error => error,
                    })?;
                }
                Op::In(id) => {
                    let list = ruleset.lists.get(usize::try_from(id.0).ok()?)?;
                    stack.unary(|value| member(list, value))?;
                }
                Op::StartsWith => stack.strings(|text, part| text.starts_with(part))?,
                Op::EndsWith => stack.strings(|text, part| text.ends_with(part))?,
                Op::Contains => stack.strings(|text, part| text.contains(part))?,
                Op::Size => stack.unary(|value| match value {
                    Value::String(text) => i64::try_from(text.chars().count())
                        .map_or(Value::Error(EvalError::Overflow), Value::Int),
                    _ => Value::Error(EvalError::Fault),
                })?,
            }
        }
        stack.pop()
    }
}

fn member<'a>(list: &List, value: Value<'a>) -> Value<'a> {
    Value::Bool(match (list, value) {
        (List::Int(values), Value::Int(value)) => values.binary_search(&value).is_ok(),
        (List::Uint(values), Value::Uint(value)) => values.binary_search(&value).is_ok(),
        // By IEEE equality, so that -0.0 is found as 0.0 and NaN never.
        #[allow(clippy::float_cmp)]
        (List::Double(values), Value::Double(value)) => values.contains(&value),
        (List::String(values), Value::String(value)) => {
            values.binary_search_by(|other| other.as_str().cmp(value)).is_ok()
        }
        _ => return Value::Error(EvalError::Fault),
    })
}

/// The evaluator's stack. Its methods answer `None` where verification has been bypassed.
struct Stack<'a> {
    values: [Value<'a>; MAX_STACK],
    depth: usize,
}

impl<'a> Stack<'a> {
    fn new() -> Self {
        Self { values: [Value::Bool(false); MAX_STACK], depth: 0 }
    }

    fn push(&mut self, value: Value<'a>) -> Option<()> {
        *self.values.get_mut(self.depth)? = value;
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<Value<'a>> {
        self.depth = self.depth.checked_sub(1)?;
        self.values.get(self.depth).copied()
    }

    fn top(&mut self) -> Option<&mut Value<'a>> {
        self.values.get_mut(self.depth.checked_sub(1)?)
    }

    /// Replaces the top by `f` of it; an error stays.
    fn unary(&mut self, f: impl FnOnce(Value<'a>) -> Value<'a>) -> Option<()> {
        let top = self.top()?;
        if !matches!(top, Value::Error(_)) {
            *top = f(*top);
        }
        Some(())
    }

    /// Replaces the two top values by `f` of them; the left error wins over the right one.
    fn binary(&mut self, f: impl FnOnce(Value<'a>, Value<'a>) -> Value<'a>) -> Option<()> {
        let right = self.pop()?;
        let left = self.top()?;
        *left = match (*left, right) {
            (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
            (left, right) => f(left, right),
        };
        Some(())
    }

    fn compare(&mut self, holds: impl FnOnce(Option<Ordering>) -> bool) -> Option<()> {
        self.binary(|left, right| {
            Value::Bool(holds(match (left, right) {
                (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(&b)),
                (Value::Int(a), Value::Int(b)) => Some(a.cmp(&b)),
                (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(&b)),
                (Value::Double(a), Value::Double(b)) => a.partial_cmp(&b),
                (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
                _ => return Value::Error(EvalError::Fault),
            }))
        })
    }

    fn arithmetic(
        &mut self,
        int: impl FnOnce(i64, i64) -> Option<i64>,
        uint: impl FnOnce(u64, u64) -> Option<u64>,
        double: impl FnOnce(f64, f64) -> f64,
    ) -> Option<()> {
        let overflow = Value::Error(EvalError::Overflow);
        self.binary(|left, right| match (left, right) {
            (Value::Int(a), Value::Int(b)) => int(a, b).map_or(overflow, Value::Int),
            (Value::Uint(a), Value::Uint(b)) => uint(a, b).map_or(overflow, Value::Uint),
            (Value::Double(a), Value::Double(b)) => Value::Double(double(a, b)),
            _ => Value::Error(EvalError::Fault),
        })
    }

    /// As [`Self::arithmetic`], with integer zero on the right as its own error.
    fn division(
        &mut self,
        int: impl FnOnce(i64, i64) -> Option<i64>,
        uint: impl FnOnce(u64, u64) -> Option<u64>,
        double: impl FnOnce(f64, f64) -> f64,
    ) -> Option<()> {
        if matches!(self.top()?, Value::Int(0) | Value::Uint(0)) {
            return self.binary(|_, _| Value::Error(EvalError::DivisionByZero));
        }
        self.arithmetic(int, uint, double)
    }

    /// `&&` (`decisive` is false) and `||` (`decisive` is true): the decisive value wins over an error.
    fn logic(&mut self, decisive: bool) -> Option<()> {
        let right = self.pop()?;
        let left = self.top()?;
        *left = match (*left, right) {
            (Value::Bool(value), _) | (_, Value::Bool(value)) if value == decisive => Value::Bool(decisive),
            (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
            _ => Value::Bool(!decisive),
        };
        Some(())
    }

    fn strings(&mut self, holds: impl FnOnce(&str, &str) -> bool) -> Option<()> {
        self.binary(|left, right| match (left, right) {
            (Value::String(text), Value::String(part)) => Value::Bool(holds(text, part)),
            _ => Value::Error(EvalError::Fault),
        })
    }
}
