//! The evaluator: runs a verified condition over a request, without allocation and without recursion.

use crate::{
    automaton::Matcher,
    bucket::{Bucketing, Seed},
    bundle::{Guard, Map, Ruleset, order_key},
    isa::{AttributeId, Buckets, ConstantId, ListId, Op, PredicateId},
    limits::{MAX_ATTRIBUTES, MAX_PREDICATES, MAX_STACK},
    operator::Binary,
    plan::Check,
    request::Request,
    time::Timestamp,
    value::{EvalError, Value},
    verify::code,
};
use arrayvec::ArrayVec;

/// The evaluation of one request by one ruleset.
pub(crate) struct Evaluation<'a, R> {
    inputs: Inputs<'a, R>,
    stack: ArrayVec<Value<'a>, MAX_STACK>,
    /// What the shared predicates are, as far as it is known.
    predicates: ArrayVec<Option<Tri>, MAX_PREDICATES>,
}

/// A boolean that may have no value.
type Tri = Result<bool, EvalError>;

/// What a condition reads. Each attribute is read at most once per request.
struct Inputs<'a, R> {
    ruleset: &'a Ruleset,
    automata: &'a [Matcher],
    request: &'a R,
    now: Timestamp,
    values: ArrayVec<Option<Value<'a>>, MAX_ATTRIBUTES>,
    /// The bytes of the unit, once they are known.
    unit: Option<Option<&'a [u8]>>,
}

impl<'a, R: Request> Inputs<'a, R> {
    #[inline]
    fn value(&mut self, id: AttributeId) -> Value<'a> {
        match self.values.get(usize::from(id.0)) {
            Some(Some(value)) => *value,
            _ => self.read(id),
        }
    }

    #[inline]
    fn test(&mut self, attribute: AttributeId, op: Binary, constant: ConstantId) -> Tri {
        let constant = self.ruleset.constants.get(constant.0 as usize).ok_or(EvalError::Fault)?;
        op.test(&self.value(attribute), &constant.value())
    }

    #[inline(never)]
    fn read(&mut self, id: AttributeId) -> Value<'a> {
        let index = usize::from(id.0);
        let (Some(slot), Some(attribute)) = (self.values.get_mut(index), self.ruleset.attributes.get(index))
        else {
            return Value::Error(EvalError::Fault);
        };
        *slot.insert(self.request.value(id, attribute))
    }

    fn constant(&self, id: ConstantId) -> Option<Value<'a>> {
        self.ruleset.constants.get(id.0 as usize).map(|constant| constant.value())
    }

    fn member(&self, list: ListId, value: &Value<'a>) -> Tri {
        if let Value::Error(error) = value {
            return Err(*error);
        }
        let list = self.ruleset.lists.get(list.0 as usize).ok_or(EvalError::Fault)?;
        list.position(value).map(|position| position.is_some()).map_err(|()| EvalError::Fault)
    }

    fn spread(&self, unit: Value<'a>, seed: ConstantId, Buckets(buckets): Buckets) -> Option<Value<'a>> {
        let Value::String(seed) = self.constant(seed)? else { return None };
        let bucketing = Seed::new(&[seed]).ready();
        Some(match unit {
            Value::String(text) => Value::Int(i64::from(bucketing.spread(text.as_bytes(), buckets))),
            Value::Bytes(bytes) => Value::Int(i64::from(bucketing.spread(bytes, buckets))),
            Value::Int(number) => {
                Value::Int(spread_number(bucketing, number < 0, number.unsigned_abs(), buckets))
            }
            Value::Uint(number) => Value::Int(spread_number(bucketing, false, number, buckets)),
            Value::Error(_) => unit,
            _ => Value::Error(EvalError::Fault),
        })
    }
}

/// The bucket of a number: that of its decimal digits, so that it is the same as the text's.
fn spread_number(bucketing: Bucketing, negative: bool, mut number: u64, buckets: u32) -> i64 {
    let mut text = ArrayVec::<u8, 20>::new();
    loop {
        // A digit fits; so do 20 characters, which is what the longest number has.
        let digit = b'0'.saturating_add(u8::try_from(number % 10).unwrap_or(0));
        let _ = text.try_push(digit);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if negative {
        let _ = text.try_push(b'-');
    }
    text.reverse();
    i64::from(bucketing.spread(&text, buckets))
}

impl<'a, R: Request> Evaluation<'a, R> {
    pub(crate) fn new(ruleset: &'a Ruleset, automata: &'a [Matcher], request: &'a R, now: Timestamp) -> Self {
        let inputs = Inputs { ruleset, automata, request, now, values: ArrayVec::new(), unit: None };
        Self { inputs, stack: ArrayVec::new(), predicates: ArrayVec::new() }
    }

    /// Makes room for what will be known. Apart from [`new`](Self::new), so that nothing is moved that is full.
    pub(crate) fn prepare(&mut self) {
        let Inputs { ruleset, values, .. } = &mut self.inputs;
        values.extend(ruleset.attributes.iter().take(MAX_ATTRIBUTES).map(|_| None));
        self.predicates.extend(ruleset.predicates.iter().take(MAX_PREDICATES).map(|_| None));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inputs.now
    }

    /// The bytes of the unit. An empty unit is none.
    pub(crate) fn unit(&mut self) -> Option<&'a [u8]> {
        let Inputs { ruleset, request, unit, .. } = &mut self.inputs;
        *unit.get_or_insert_with(|| {
            let attribute = ruleset.attributes.get(usize::from(ruleset.unit.0))?;
            request.attribute(attribute).filter(|unit| !unit.is_empty())
        })
    }

    /// An attribute's value.
    pub(crate) fn attribute(&mut self, id: AttributeId) -> Value<'a> {
        self.inputs.value(id)
    }

    /// Whether a guard holds.
    pub(crate) fn guards(&mut self, guard: Guard) -> Tri {
        let value = self.inputs.value(guard.attribute());
        if let Value::Error(error) = value {
            return Err(error);
        }
        let holds = match guard {
            Guard::Equals(_, id) => self.inputs.constant(id).map(|constant| constant == value),
            Guard::OneOf(_, list) => return self.inputs.member(list, &value),
            Guard::StartsWith(_, id) => match (value, self.inputs.constant(id)) {
                (Value::String(text), Some(Value::String(prefix))) => Some(text.starts_with(prefix)),
                _ => None,
            },
            Guard::Between(_, first, last) => {
                Some(order_key(&value).is_some_and(|key| (first..=last).contains(&key)))
            }
        };
        holds.ok_or(EvalError::Fault)
    }

    /// Whether a condition holds.
    #[inline]
    pub(crate) fn holds(&mut self, check: Check) -> Tri {
        match check {
            Check::Always => Ok(true),
            Check::Test(attribute, op, constant) => self.inputs.test(attribute, op, constant),
            Check::Member(attribute, list) => {
                let value = self.inputs.value(attribute);
                self.inputs.member(list, &value)
            }
            Check::Predicate(id) => match self.predicates.get(usize::from(id.0)) {
                Some(Some(known)) => *known,
                _ => self.result(Op::Predicate(id), &[]),
            },
            Check::Code(condition) => match code(self.inputs.ruleset, condition) {
                Some([first, rest @ ..]) => self.result(*first, rest),
                _ => Err(EvalError::Fault),
            },
        }
    }

    #[inline(never)]
    fn result(&mut self, first: Op, rest: &'a [Op]) -> Tri {
        match self.run(first, rest) {
            Some(Value::Bool(holds)) => Ok(holds),
            Some(Value::Error(error)) => Err(error),
            _ => Err(EvalError::Fault),
        }
    }

    /// Runs operations; `None` when an invariant that verification guarantees is broken.
    #[inline]
    fn run(&mut self, first: Op, rest: &'a [Op]) -> Option<Value<'a>> {
        let Self { inputs, stack, predicates } = self;
        let ruleset = inputs.ruleset;
        stack.clear();
        // The top of the stack is at hand; what is below lies in `stack`. The first value has nothing below it but
        // this, which nobody takes.
        let mut top = Value::Bool(false);
        let (mut op, mut ops) = (first, rest.iter());
        // Predicates do not use predicates, so there is at most one place to come back to.
        let mut caller = None;
        loop {
            match op {
                Op::Test(attribute, op, constant) => {
                    stack.try_push(top).ok()?;
                    top = value(inputs.test(attribute, op, constant));
                }
                Op::SkipIfFalse(skip) => {
                    if skip.0 > 0 && matches!(top, Value::Bool(false)) {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                }
                Op::SkipIfTrue(skip) => {
                    if skip.0 > 0 && matches!(top, Value::Bool(true)) {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                }
                Op::And => top = logic(stack.pop()?, top, false),
                Op::Or => top = logic(stack.pop()?, top, true),
                Op::Predicate(id) => match predicates.get(usize::from(id.0))? {
                    Some(known) => {
                        stack.try_push(top).ok()?;
                        top = value(*known);
                    }
                    None => {
                        let predicate = ruleset.predicates.get(usize::from(id.0))?;
                        caller = Some((std::mem::replace(&mut ops, code(ruleset, *predicate)?.iter()), id));
                    }
                },
                Op::TestIn(attribute, list) => {
                    stack.try_push(top).ok()?;
                    let attribute = inputs.value(attribute);
                    top = value(inputs.member(list, &attribute));
                }
                Op::Load(id) => {
                    stack.try_push(top).ok()?;
                    top = inputs.value(id);
                }
                Op::Constant(id) => {
                    stack.try_push(top).ok()?;
                    top = inputs.constant(id)?;
                }
                Op::Has(id) => {
                    stack.try_push(top).ok()?;
                    top = Value::Bool(inputs.value(id) != Value::Error(EvalError::Missing));
                }
                Op::Fail(_, error) => {
                    stack.try_push(top).ok()?;
                    top = Value::Error(error);
                }
                Op::Now => {
                    stack.try_push(top).ok()?;
                    top = Value::Timestamp(inputs.now);
                }
                Op::Unary(op) => top = op.apply(top),
                Op::Binary(op) => top = op.apply(stack.pop()?, top),
                Op::Select => {
                    let (then, condition) = (stack.pop()?, stack.pop()?);
                    top = match condition {
                        Value::Bool(true) => then,
                        Value::Bool(false) => top,
                        error => error,
                    };
                }
                Op::In(list) => top = value(inputs.member(list, &top)),
                Op::Lookup(id) => top = lookup(ruleset.maps.get(id.0 as usize)?, top)?,
                Op::Match(id) => {
                    if let Value::String(text) = top {
                        top = Value::Bool(inputs.automata.get(usize::from(id.0))?.finds(text)?);
                    }
                }
                Op::InNetwork(id) => {
                    if let Value::String(text) = top {
                        let found = ruleset.networks.get(usize::from(id.0))?.contains(text);
                        top = value(found.ok_or(EvalError::Conversion));
                    }
                }
                Op::Bucket(seed, buckets) => top = inputs.spread(top, seed, buckets)?,
            }
            while ops.as_slice().is_empty() {
                let Some((back, PredicateId(id))) = caller.take() else {
                    return Some(top);
                };
                *predicates.get_mut(usize::from(id))? = Some(match top {
                    Value::Bool(holds) => Ok(holds),
                    Value::Error(error) => Err(error),
                    _ => Err(EvalError::Fault),
                });
                ops = back;
            }
            op = *ops.next()?;
        }
    }
}

#[inline]
fn value<'a>(holds: Tri) -> Value<'a> {
    holds.map_or_else(Value::Error, Value::Bool)
}

fn lookup<'a>(map: &'a Map, key: Value<'a>) -> Option<Value<'a>> {
    if let Value::Error(_) = key {
        return Some(key);
    }
    match map.keys.position(&key).ok()? {
        Some(at) => map.values.get(at).map(|constant| constant.value()),
        None => Some(Value::Error(EvalError::NoSuchKey)),
    }
}

/// `&&` (`decisive` is false) and `||` (`decisive` is true): the decisive value wins over an error.
#[inline]
fn logic<'a>(left: Value<'a>, right: Value<'a>, decisive: bool) -> Value<'a> {
    match (left, right) {
        (Value::Bool(value), _) | (_, Value::Bool(value)) if value == decisive => Value::Bool(decisive),
        (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
        _ => Value::Bool(!decisive),
    }
}
