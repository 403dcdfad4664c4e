//! The evaluator: runs a verified condition over a request, without allocation and without recursion.

use crate::{
    bucket::{Bucketing, Seed},
    bundle::{Attribute, Condition, Constant, Guard, Map, Ruleset, order_key},
    graph::{Exit, Test, Tri, outcome},
    isa::{AttributeId, Buckets, ConstantId, ListId, Op, PredicateId},
    limits::{MAX_ATTRIBUTES, MAX_PREDICATES, MAX_STACK},
    operator::Binary,
    plan::Plan,
    request::{Request, kept_unit, read, within},
    scan::FoundHeaders,
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

/// What a condition reads. Each attribute is read at most once per request.
struct Inputs<'a, R> {
    ruleset: &'a Ruleset,
    plan: &'a Plan,
    request: &'a R,
    now: Timestamp,
    /// The headers that the ruleset reads, once one of them was needed; of hosts that have their headers in a list.
    headers: FoundHeaders<'a>,
    values: ArrayVec<Option<Value<'a>>, MAX_ATTRIBUTES>,
    /// The bytes of the unit, once they are known.
    unit: Option<Option<&'a [u8]>>,
    fresh_unit: bool,
}

impl<'a, R: Request> Inputs<'a, R> {
    #[inline(always)]
    fn value(&mut self, id: AttributeId) -> Value<'a> {
        let index = usize::from(id.0);
        if let Some(None) = self.values.get(index) {
            self.read(id);
        }
        match self.values.get(index) {
            Some(Some(value)) => *value,
            _ => Value::Error(EvalError::Fault),
        }
    }

    /// An attribute and a constant that are strings.
    #[inline(always)]
    fn texts(
        &mut self,
        attribute: AttributeId,
        constant: ConstantId,
    ) -> Result<(&'a str, &'a str), EvalError> {
        match (self.value(attribute), self.ruleset.constants.get(constant.0 as usize)) {
            (Value::String(value), Some(Constant::String(text))) => Ok((value, text)),
            (Value::Error(error), _) => Err(error),
            _ => Err(EvalError::Fault),
        }
    }

    #[inline(never)]
    fn read(&mut self, id: AttributeId) {
        let index = usize::from(id.0);
        let Some(attribute) = self.ruleset.attributes.get(index) else { return };
        let value = match self.found(id, attribute) {
            Some(bytes) => read(attribute, bytes),
            None => self.request.value(id, attribute),
        };
        if let Some(slot) = self.values.get_mut(index) {
            *slot = Some(value);
        }
    }

    /// The bytes of an attribute.
    fn bytes(&mut self, id: AttributeId) -> Option<&'a [u8]> {
        let attribute = self.ruleset.attributes.get(usize::from(id.0))?;
        self.found(id, attribute).unwrap_or_else(|| self.request.attribute(attribute))
    }

    /// The unit of a request that brings none by its attribute: the one that the client keeps, or a fresh one.
    #[inline(never)]
    fn anonymous_unit(&mut self) -> Option<&'a [u8]> {
        let cookie = self.ruleset.unit_cookie.as_ref()?;
        if let Some(kept) = kept_unit(self.request, cookie) {
            return Some(kept);
        }
        let fresh = self.request.fresh_unit()?;
        self.fresh_unit = true;
        Some(fresh.as_bytes())
    }

    /// The bytes of an attribute that comes from one of the request's headers; `None` when the host has to be asked.
    #[inline]
    fn found(&mut self, id: AttributeId, attribute: &'a Attribute) -> Option<Option<&'a [u8]>> {
        let headers = self.request.headers()?;
        let place = self.plan.headers.place(usize::from(id.0))?;
        if self.headers.is_empty() {
            self.plan.headers.find(headers, &mut self.headers);
        }
        Some(self.headers.get(place).copied().flatten().and_then(|header| within(&attribute.source, header)))
    }

    #[inline]
    fn test(&mut self, attribute: AttributeId, op: Binary, constant: ConstantId) -> Tri {
        let constant = self.ruleset.constants.get(constant.0 as usize).ok_or(EvalError::Fault)?;
        op.test(&self.value(attribute), &constant.value())
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
    pub(crate) fn new(ruleset: &'a Ruleset, plan: &'a Plan, request: &'a R, now: Timestamp) -> Self {
        let inputs = Inputs {
            ruleset,
            plan,
            request,
            now,
            headers: FoundHeaders::new(),
            values: ArrayVec::new(),
            unit: None,
            fresh_unit: false,
        };
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

    /// Whether the unit is a fresh one.
    pub(crate) fn has_fresh_unit(&self) -> bool {
        self.inputs.fresh_unit
    }

    /// The bytes of the unit. An empty unit is none.
    pub(crate) fn unit(&mut self) -> Option<&'a [u8]> {
        if let Some(known) = self.inputs.unit {
            return known;
        }
        let unit = self.inputs.bytes(self.inputs.ruleset.unit).filter(|unit| !unit.is_empty());
        let unit = unit.or_else(|| self.inputs.anonymous_unit());
        *self.inputs.unit.insert(unit)
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

    /// Whether the condition holds that starts here in the graph.
    #[inline(always)]
    pub(crate) fn holds(&mut self, condition: Exit) -> Tri {
        self.walk::<true>(condition)
    }

    /// Goes through the graph from test to test. Predicates do not use predicates: `SHARED` says whether they may be
    /// met.
    #[inline(always)]
    fn walk<const SHARED: bool>(&mut self, start: Exit) -> Tri {
        let nodes = self.inputs.plan.graph.nodes();
        let (mut at, mut error) = (start, EvalError::Fault);
        while let Some(node) = nodes.get(at as usize) {
            let result = match &node.test {
                Test::Equals(attribute, text) => {
                    self.inputs.texts(*attribute, *text).map(|(value, text)| value == text)
                }
                Test::StartsWith(attribute, text) => {
                    self.inputs.texts(*attribute, *text).map(|(value, text)| value.starts_with(text))
                }
                Test::EndsWith(attribute, text) => {
                    self.inputs.texts(*attribute, *text).map(|(value, text)| value.ends_with(text))
                }
                Test::Contains(attribute, text) => {
                    self.inputs.texts(*attribute, *text).map(|(value, text)| value.contains(text))
                }
                Test::Between(attribute, first, last) => match self.inputs.value(*attribute) {
                    Value::Error(error) => Err(error),
                    value => Ok(order_key(&value).is_some_and(|key| *first <= key && key <= *last)),
                },
                Test::ResultBetween(attribute, op, constant, first, last) => {
                    let value = self.inputs.value(*attribute);
                    let constant = self.inputs.constant(*constant).ok_or(EvalError::Fault)?;
                    match op.apply(value, constant) {
                        Value::Error(error) => Err(error),
                        value => Ok(order_key(&value).is_some_and(|key| *first <= key && key <= *last)),
                    }
                }
                Test::Member(attribute, list) => {
                    let value = self.inputs.value(*attribute);
                    self.inputs.member(*list, &value)
                }
                Test::Has(attribute) => Ok(self.inputs.value(*attribute) != Value::Error(EvalError::Missing)),
                Test::Predicate(PredicateId(id)) => match self.predicates.get(usize::from(*id)) {
                    Some(Some(known)) => *known,
                    _ if SHARED => self.predicate(*id),
                    _ => Err(EvalError::Fault),
                },
                Test::Code(condition) => self.result::<SHARED>(*condition),
            };
            at = node.next(result, &mut error);
        }
        outcome(at, error)
    }

    #[inline(never)]
    fn predicate(&mut self, id: u16) -> Tri {
        let start = self.inputs.plan.graph.predicate(id).ok_or(EvalError::Fault)?;
        let result = self.walk::<false>(start);
        *self.predicates.get_mut(usize::from(id)).ok_or(EvalError::Fault)? = Some(result);
        result
    }

    /// What code comes to.
    #[inline(never)]
    fn result<const SHARED: bool>(&mut self, condition: Condition) -> Tri {
        let [first, rest @ ..] = code(self.inputs.ruleset, condition).ok_or(EvalError::Fault)? else {
            return Err(EvalError::Fault);
        };
        match self.run::<SHARED>(*first, rest) {
            Some(Value::Bool(holds)) => Ok(holds),
            Some(Value::Error(error)) => Err(error),
            _ => Err(EvalError::Fault),
        }
    }

    /// Runs operations; `None` when an invariant that verification guarantees is broken.
    #[inline]
    fn run<const SHARED: bool>(&mut self, first: Op, rest: &'a [Op]) -> Option<Value<'a>> {
        let ruleset = self.inputs.ruleset;
        self.stack.clear();
        // The top of the stack is at hand; what is below lies in `stack`. The first value has nothing below it but
        // this, which nobody takes.
        let mut top = Value::Bool(false);
        let (mut op, mut ops) = (first, rest.iter());
        loop {
            let Self { inputs, stack, .. } = self;
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
                Op::Predicate(PredicateId(id)) => {
                    stack.try_push(top).ok()?;
                    top = value(match self.predicates.get(usize::from(id))? {
                        Some(known) => *known,
                        None if SHARED => {
                            // It has the stack for itself.
                            let stack = std::mem::take(&mut self.stack);
                            let result = self.predicate(id);
                            self.stack = stack;
                            result
                        }
                        None => Err(EvalError::Fault),
                    });
                }
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
                        top = Value::Bool(inputs.plan.automata.get(usize::from(id.0))?.finds(text)?);
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
            match ops.next() {
                Some(next) => op = *next,
                None => return Some(top),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bundle::Source, graph::GraphBuilder, isa::Skip, operator::Unary, value::Type};
    use proptest::prelude::*;

    /// A condition as one would write it, of attributes that are bools.
    #[derive(Clone, Debug)]
    enum Written {
        Test(u16, bool),
        Load(u16),
        Not(Box<Self>),
        All(Box<Self>, Box<Self>),
        Any(Box<Self>, Box<Self>),
        Equal(Box<Self>, Box<Self>),
        Select(Box<Self>, Box<Self>, Box<Self>),
        Predicate(u16),
    }

    impl Written {
        fn emit(&self, code: &mut Vec<Op>) {
            match self {
                Self::Test(attribute, constant) => {
                    code.push(Op::Test(
                        AttributeId(*attribute),
                        Binary::Equal,
                        ConstantId(u32::from(*constant)),
                    ));
                }
                Self::Load(attribute) => code.push(Op::Load(AttributeId(*attribute))),
                Self::Predicate(id) => code.push(Op::Predicate(PredicateId(*id))),
                Self::Not(inner) => {
                    inner.emit(code);
                    code.push(Op::Unary(Unary::Not));
                }
                Self::All(left, right) => Self::join(left, right, Op::SkipIfFalse, Op::And, code),
                Self::Any(left, right) => Self::join(left, right, Op::SkipIfTrue, Op::Or, code),
                Self::Equal(left, right) => {
                    left.emit(code);
                    right.emit(code);
                    code.push(Op::Binary(Binary::Equal));
                }
                Self::Select(condition, then, otherwise) => {
                    for operand in [condition, then, otherwise] {
                        operand.emit(code);
                    }
                    code.push(Op::Select);
                }
            }
        }

        fn join(left: &Self, right: &Self, skip: fn(Skip) -> Op, op: Op, code: &mut Vec<Op>) {
            let mut tail = Vec::new();
            right.emit(&mut tail);
            tail.push(op);
            left.emit(code);
            code.push(skip(Skip(u16::try_from(tail.len()).unwrap())));
            code.append(&mut tail);
        }
    }

    const ATTRIBUTES: u16 = 6;
    const PREDICATES: u16 = 2;

    fn written(predicates: u16) -> impl Strategy<Value = Written> {
        let leaf = (0..ATTRIBUTES, any::<bool>(), 0..3u8).prop_map(move |(at, constant, kind)| match kind {
            0 => Written::Load(at),
            1 if predicates > 0 => Written::Predicate(at % predicates),
            _ => Written::Test(at, constant),
        });
        leaf.prop_recursive(6, 40, 3, |inner| {
            let two = || (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
            prop_oneof![
                inner.clone().prop_map(|inner| Written::Not(Box::new(inner))),
                two().prop_map(|(left, right)| Written::All(left, right)),
                two().prop_map(|(left, right)| Written::Any(left, right)),
                two().prop_map(|(left, right)| Written::Equal(left, right)),
                (two(), inner.clone()).prop_map(|((condition, then), otherwise)| {
                    Written::Select(condition, then, Box::new(otherwise))
                }),
            ]
        })
    }

    /// The value of each attribute.
    struct Bools(Vec<Value<'static>>);

    impl Request for Bools {
        fn header(&self, _name: &str) -> Option<&[u8]> {
            None
        }

        fn value<'a>(&'a self, id: AttributeId, _attribute: &Attribute) -> Value<'a> {
            self.0[usize::from(id.0)]
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Also which error it is that a condition ends with.
        #[test]
        fn a_graph_has_the_outcome_of_its_code(
            condition in written(PREDICATES),
            predicates in proptest::collection::vec(written(0), usize::from(PREDICATES)),
            values in proptest::collection::vec(0..5u8, usize::from(ATTRIBUTES)),
        ) {
            let mut ruleset = Ruleset::pass_all("r", "t");
            ruleset.attributes = (0..ATTRIBUTES)
                .map(|id| Attribute {
                    name: id.to_string(),
                    source: Source::Header(id.to_string()),
                    ty: Type::Bool,
                })
                .collect();
            ruleset.constants = vec![Constant::Bool(false), Constant::Bool(true)];
            let add = |written: &Written, ruleset: &mut Ruleset| {
                let start = ruleset.code.len();
                written.emit(&mut ruleset.code);
                let length = ruleset.code.len() - start;
                Condition { start: u32::try_from(start).unwrap(), length: u32::try_from(length).unwrap() }
            };
            for predicate in &predicates {
                let predicate = add(predicate, &mut ruleset);
                ruleset.predicates.push(predicate);
            }
            let condition = add(&condition, &mut ruleset);
            let mut plan = Plan::new(&ruleset, vec![]);
            let mut graph = GraphBuilder::new(&ruleset);
            let start = graph.add(condition);
            plan.graph = graph.finish();
            let request = Bools(
                values
                    .into_iter()
                    .map(|value| match value {
                        0 => Value::Error(EvalError::Missing),
                        1 => Value::Error(EvalError::Malformed),
                        2 => Value::Error(EvalError::TooLong),
                        other => Value::Bool(other == 3),
                    })
                    .collect(),
            );
            let evaluate = |by_graph: bool| {
                let mut evaluation = Evaluation::new(&ruleset, &plan, &request, Timestamp(0));
                evaluation.prepare();
                if by_graph { evaluation.holds(start) } else { evaluation.result::<true>(condition) }
            };
            prop_assert_eq!(evaluate(true), evaluate(false));
        }
    }
}
