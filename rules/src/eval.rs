//! The evaluator: runs a verified condition over a request, without allocation and without recursion.

use crate::{
    automaton::Matcher,
    bucket::{Bucketing, Seed},
    bundle::{Condition, Guard, Ruleset, Source, order_key},
    isa::{AttributeId, Buckets, ConstantId, ListId, Op, PredicateId},
    limits::{MAX_ATTRIBUTES, MAX_PREDICATES, MAX_STACK, MAX_VALUE_BYTES},
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
    slots: ArrayVec<Slot<'a>, MAX_ATTRIBUTES>,
}

/// What is known of an attribute.
#[derive(Clone, Copy)]
struct Slot<'a> {
    bytes: Option<Option<&'a [u8]>>,
    value: Option<Value<'a>>,
}

impl<'a, R: Request> Inputs<'a, R> {
    fn bytes(&mut self, AttributeId(id): AttributeId) -> Option<&'a [u8]> {
        let slot = self.slots.get_mut(usize::from(id))?;
        let attribute = self.ruleset.attributes.get(usize::from(id))?;
        let request = self.request;
        *slot.bytes.get_or_insert_with(|| request.attribute(attribute))
    }

    #[inline]
    fn value(&mut self, id: AttributeId) -> Value<'a> {
        match self.slots.get(usize::from(id.0)) {
            Some(Slot { value: Some(value), .. }) => *value,
            _ => self.read(id),
        }
    }

    fn read(&mut self, id: AttributeId) -> Value<'a> {
        let bytes = self.bytes(id);
        let index = usize::from(id.0);
        let (Some(slot), Some(attribute)) = (self.slots.get_mut(index), self.ruleset.attributes.get(index))
        else {
            return Value::Error(EvalError::Fault);
        };
        let value = match bytes {
            None => Value::Error(EvalError::Missing),
            Some(bytes) if bytes.len() > MAX_VALUE_BYTES => Value::Error(EvalError::TooLong),
            Some(bytes) if matches!(attribute.source, Source::Property(_)) => {
                attribute.ty.parse_property(bytes)
            }
            Some(bytes) => attribute.ty.parse(bytes),
        };
        slot.value = Some(value);
        value
    }

    fn constant(&self, id: ConstantId) -> Option<Value<'a>> {
        self.ruleset.constants.get(id.0 as usize).map(|constant| constant.value())
    }

    fn member(&self, list: ListId, value: Value<'a>) -> Option<Value<'a>> {
        Some(match value {
            Value::Error(_) => value,
            _ => match self.ruleset.lists.get(list.0 as usize)?.position(&value) {
                Ok(position) => Value::Bool(position.is_some()),
                Err(()) => Value::Error(EvalError::Fault),
            },
        })
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
        let slots = ruleset.attributes.iter().take(MAX_ATTRIBUTES).map(|_| Slot { bytes: None, value: None });
        let predicates = ruleset.predicates.iter().take(MAX_PREDICATES).map(|_| None).collect();
        let inputs = Inputs { ruleset, automata, request, now, slots: slots.collect() };
        Self { inputs, stack: ArrayVec::new(), predicates }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inputs.now
    }

    /// The bytes of the unit. An empty unit is none.
    pub(crate) fn unit(&mut self) -> Option<&'a [u8]> {
        self.inputs.bytes(self.inputs.ruleset.unit).filter(|unit| !unit.is_empty())
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
            Guard::OneOf(_, list) => {
                self.inputs.member(list, value).map(|member| member == Value::Bool(true))
            }
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
    pub(crate) fn holds(&mut self, condition: Condition) -> Tri {
        self.stack.clear();
        match self.run(condition) {
            Some(Value::Bool(holds)) => Ok(holds),
            Some(Value::Error(error)) => Err(error),
            _ => Err(EvalError::Fault),
        }
    }

    /// Runs the condition; `None` when an invariant that verification guarantees is broken.
    fn run(&mut self, condition: Condition) -> Option<Value<'a>> {
        let Self { inputs, stack, predicates } = self;
        let ruleset = inputs.ruleset;
        let mut ops = code(ruleset, condition)?.iter();
        // Predicates do not use predicates, so there is at most one place to come back to.
        let mut caller = None;
        loop {
            let Some(op) = ops.next() else {
                let Some((back, PredicateId(id))) = caller.take() else {
                    return stack.pop();
                };
                *predicates.get_mut(usize::from(id))? = Some(match stack.last()? {
                    Value::Bool(holds) => Ok(*holds),
                    Value::Error(error) => Err(*error),
                    _ => Err(EvalError::Fault),
                });
                ops = back;
                continue;
            };
            let value = match *op {
                Op::Test(attribute, op, constant) => {
                    op.apply(inputs.value(attribute), inputs.constant(constant)?)
                }
                Op::TestIn(attribute, list) => {
                    let value = inputs.value(attribute);
                    inputs.member(list, value)?
                }
                Op::Predicate(id) => match predicates.get(usize::from(id.0))? {
                    Some(Ok(holds)) => Value::Bool(*holds),
                    Some(Err(error)) => Value::Error(*error),
                    None => {
                        let predicate = ruleset.predicates.get(usize::from(id.0))?;
                        caller = Some((std::mem::replace(&mut ops, code(ruleset, *predicate)?.iter()), id));
                        continue;
                    }
                },
                Op::SkipIfFalse(skip) => {
                    if skip.0 > 0 && *stack.last()? == Value::Bool(false) {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                    continue;
                }
                Op::SkipIfTrue(skip) => {
                    if skip.0 > 0 && *stack.last()? == Value::Bool(true) {
                        ops.nth(usize::from(skip.0) - 1);
                    }
                    continue;
                }
                Op::And => {
                    let right = stack.pop()?;
                    logic(stack.pop()?, right, false)
                }
                Op::Or => {
                    let right = stack.pop()?;
                    logic(stack.pop()?, right, true)
                }
                Op::Constant(id) => inputs.constant(id)?,
                Op::Load(id) => inputs.value(id),
                Op::Has(id) => Value::Bool(inputs.bytes(id).is_some()),
                Op::Fail(_, error) => Value::Error(error),
                Op::Now => Value::Timestamp(inputs.now),
                Op::Unary(op) => op.apply(stack.pop()?),
                Op::Binary(op) => {
                    let right = stack.pop()?;
                    op.apply(stack.pop()?, right)
                }
                Op::Select => {
                    let otherwise = stack.pop()?;
                    let then = stack.pop()?;
                    match stack.pop()? {
                        Value::Bool(true) => then,
                        Value::Bool(false) => otherwise,
                        error => error,
                    }
                }
                Op::In(list) => inputs.member(list, stack.pop()?)?,
                Op::Lookup(id) => {
                    let map = ruleset.maps.get(id.0 as usize)?;
                    match stack.pop()? {
                        error @ Value::Error(_) => error,
                        key => match map.keys.position(&key) {
                            Ok(Some(at)) => map.values.get(at)?.value(),
                            Ok(None) => Value::Error(EvalError::NoSuchKey),
                            Err(()) => return None,
                        },
                    }
                }
                Op::Match(id) => match stack.pop()? {
                    Value::String(text) => Value::Bool(inputs.automata.get(usize::from(id.0))?.finds(text)?),
                    error => error,
                },
                Op::InNetwork(id) => match stack.pop()? {
                    Value::String(text) => ruleset
                        .networks
                        .get(usize::from(id.0))?
                        .contains(text)
                        .map_or(Value::Error(EvalError::Conversion), Value::Bool),
                    error => error,
                },
                Op::Bucket(seed, buckets) => inputs.spread(stack.pop()?, seed, buckets)?,
            };
            stack.try_push(value).ok()?;
        }
    }
}

/// `&&` (`decisive` is false) and `||` (`decisive` is true): the decisive value wins over an error.
fn logic<'a>(left: Value<'a>, right: Value<'a>, decisive: bool) -> Value<'a> {
    match (left, right) {
        (Value::Bool(value), _) | (_, Value::Bool(value)) if value == decisive => Value::Bool(decisive),
        (Value::Error(error), _) | (_, Value::Error(error)) => Value::Error(error),
        _ => Value::Bool(!decisive),
    }
}
