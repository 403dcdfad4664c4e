//! From checked expressions to operations.

use super::{
    ast::{Call, Expr, ExprKind, Literal},
    calendar,
    check::{Checker, Meaning, Resolved},
    fold::{Const, Folded, Unfolded, fold},
    functions::{self, Kind},
    regex,
};
use crate::{
    diagnostic::{Code, Diagnostics},
    limits::MAX_REFUSED_AUTOMATA,
};
use halftone_rules::{
    EvalError, Type,
    bundle::{Automaton, Constant, List, Map},
    is_version,
    isa::{AutomatonId, Buckets, ConstantId, ListId, MapId, NetworkId, Op, Skip},
    limits::{MAX_AUTOMATA, MAX_BUNDLE_BYTES},
    network::Network,
    operator::{Binary, Unary},
};
use std::{cmp::Ordering, collections::HashMap};

/// How much the compiler does beyond translating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimisation {
    /// Constants are folded, equal parts of conditions are evaluated once, rules are found by an index.
    Full,
    /// Each rule stands by itself, as it is written. What the optimised form is compared with.
    None,
}

/// Why an expression cannot be lowered; it is reported.
pub(crate) struct Reported;

/// The spine of a condition: conjunctions and disjunctions down to what is neither.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Operations that leave a boolean.
    Leaf(Vec<Op>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// What the conditions of a ruleset need besides operations.
pub(crate) struct Lowering {
    optimisation: Optimisation,
    pub(crate) constants: Vec<Constant>,
    pub(crate) lists: Vec<List>,
    pub(crate) maps: Vec<Map>,
    pub(crate) networks: Vec<Network>,
    pub(crate) automata: Vec<Automaton>,
    /// Regular expressions that no automaton could be made of.
    refused_automata: usize,
    constant_ids: HashMap<ConstantKey, ConstantId>,
    list_ids: HashMap<Vec<ConstantKey>, ListId>,
    /// Bytes of the texts in all constants.
    text_bytes: usize,
}

/// Equal keys are equal constants. Doubles are compared by their bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum ConstantKey {
    Bits(Type, u64),
    Text(Type, Vec<u8>),
}

pub(super) fn key(constant: &Constant) -> ConstantKey {
    let ty = constant.ty();
    match constant {
        Constant::Bool(value) => ConstantKey::Bits(ty, u64::from(*value)),
        Constant::Int(value) | Constant::Duration(value) => ConstantKey::Bits(ty, value.cast_unsigned()),
        Constant::Timestamp(value) => ConstantKey::Bits(ty, value.0.cast_unsigned()),
        Constant::Uint(value) => ConstantKey::Bits(ty, *value),
        Constant::Double(value) => ConstantKey::Bits(ty, value.to_bits()),
        Constant::String(value) => ConstantKey::Text(ty, value.clone().into_bytes()),
        // Build metadata does not count.
        Constant::Semver(value) => {
            let counts = value.split_once('+').map_or(value.as_str(), |(counts, _)| counts);
            ConstantKey::Text(ty, counts.into())
        }
        Constant::Bytes(value) => ConstantKey::Text(ty, value.clone()),
    }
}

/// Bytes of a constant's text.
pub(super) fn text_bytes(constant: &Constant) -> usize {
    match constant {
        Constant::String(text) | Constant::Semver(text) => text.len(),
        Constant::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// The text's size limit keeps all numbers of things far below 2^32.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Lowering {
    pub(crate) fn new(optimisation: Optimisation) -> Self {
        Self {
            optimisation,
            constants: Vec::new(),
            lists: Vec::new(),
            maps: Vec::new(),
            networks: Vec::new(),
            automata: Vec::new(),
            refused_automata: 0,
            constant_ids: HashMap::new(),
            list_ids: HashMap::new(),
            text_bytes: 0,
        }
    }

    /// Translates a condition; `None` when something in it cannot be, which is then reported.
    pub(crate) fn condition(
        &mut self,
        expr: &Expr,
        checker: &Checker,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Node> {
        if self.text_bytes > MAX_BUNDLE_BYTES {
            // It is reported.
            return None;
        }
        let mut emitter = Emitter { lowering: self, checker, diagnostics };
        let valid = emitter.literals(expr);
        let node = emitter.node(expr).ok()?;
        if self.text_bytes > MAX_BUNDLE_BYTES {
            let message = format!(
                "the constants up to here have more text than the {MAX_BUNDLE_BYTES} bytes of a bundle"
            );
            let help = "use shorter constants, or fewer different ones";
            diagnostics.report_with_help(Code::TooLarge, &expr.span, message, help);
            return None;
        }
        valid.then_some(node)
    }

    pub(crate) fn constant(&mut self, constant: Constant) -> ConstantId {
        *self.constant_ids.entry(key(&constant)).or_insert_with(|| {
            self.text_bytes += text_bytes(&constant);
            self.constants.push(constant);
            ConstantId(index(self.constants.len() - 1))
        })
    }

    /// A list constant: sorted, each element once. `None` when lists have no elements of this type.
    pub(crate) fn list(&mut self, ty: Type, elements: &[Constant]) -> Option<ListId> {
        let list = match ty {
            Type::Int => {
                List::Int(sorted(elements, |c| if let Constant::Int(v) = c { Some(*v) } else { None }))
            }
            Type::Uint => {
                List::Uint(sorted(elements, |c| if let Constant::Uint(v) = c { Some(*v) } else { None }))
            }
            Type::Double => {
                let number = |c: &Constant| if let Constant::Double(v) = c { Some(*v) } else { None };
                // Nothing equals what is not a number.
                let mut values: Vec<f64> =
                    elements.iter().filter_map(number).filter(|v| !v.is_nan()).collect();
                values.sort_by(f64::total_cmp);
                // -0.0 and 0.0 are one element.
                values.dedup_by(|a, b| a == b);
                List::Double(values)
            }
            Type::String => List::String(sorted(elements, |c| {
                if let Constant::String(v) = c { Some(v.clone()) } else { None }
            })),
            _ => return None,
        };
        // The type stands for itself when there are no elements.
        let mut keys = vec![ConstantKey::Bits(ty, 0)];
        keys.extend((0..list.len()).filter_map(|at| match list.get(at)? {
            halftone_rules::Value::Int(v) => Some(key(&Constant::Int(v))),
            halftone_rules::Value::Uint(v) => Some(key(&Constant::Uint(v))),
            halftone_rules::Value::Double(v) => Some(key(&Constant::Double(v))),
            halftone_rules::Value::String(v) => Some(key(&Constant::String(v.into()))),
            _ => None,
        }));
        Some(*self.list_ids.entry(keys).or_insert_with(|| {
            if let List::String(texts) = &list {
                self.text_bytes += texts.iter().map(String::len).sum::<usize>();
            }
            self.lists.push(list);
            ListId(index(self.lists.len() - 1))
        }))
    }
}

fn sorted<T: Ord>(constants: &[Constant], value: impl Fn(&Constant) -> Option<T>) -> Vec<T> {
    let mut values: Vec<T> = constants.iter().filter_map(value).collect();
    values.sort();
    values.dedup();
    values
}

/// The place of an item in a table that holds each item once.
fn intern<T: PartialEq>(table: &mut Vec<T>, item: T) -> usize {
    table.iter().position(|other| *other == item).unwrap_or_else(|| {
        table.push(item);
        table.len() - 1
    })
}

/// Operands joined by `&&` or `||`: each but the first is skipped when the value so far decides.
pub(crate) fn chain(operands: &[Vec<Op>], conjunction: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut skips = Vec::with_capacity(operands.len());
    let skip = if conjunction { Op::SkipIfFalse } else { Op::SkipIfTrue };
    for (at, operand) in operands.iter().enumerate() {
        if at > 0 {
            skips.push(ops.len());
            ops.push(skip(Skip(0)));
        }
        ops.extend_from_slice(operand);
        if at > 0 {
            ops.push(if conjunction { Op::And } else { Op::Or });
        }
    }
    for at in skips {
        // A condition too long for the skip is refused for its length.
        ops[at] = skip(Skip(u16::try_from(ops.len() - at - 1).unwrap_or(u16::MAX)));
    }
    ops
}

struct Emitter<'a, 'b> {
    lowering: &'a mut Lowering,
    checker: &'a Checker,
    diagnostics: &'a mut Diagnostics<'b>,
}

impl Emitter<'_, '_> {
    fn report<T>(
        &mut self,
        code: Code,
        expr: &Expr,
        message: impl Into<String>,
        help: &str,
    ) -> Result<T, Reported> {
        self.diagnostics.report_with_help(code, &expr.span, message, help);
        Err(Reported)
    }

    /// Whether all literals are values of their types, and all constants in them well formed.
    fn literals(&mut self, expr: &Expr) -> bool {
        let own = match &expr.kind {
            ExprKind::Literal(literal) => self.literal(literal, expr),
            ExprKind::Map(entries) => self.map_keys(entries),
            ExprKind::Call(call) => self.arguments(call),
            _ => Ok(()),
        };
        expr.parts().into_iter().fold(own.is_ok(), |valid, part| self.literals(part) && valid)
    }

    fn literal(&mut self, literal: &Literal, expr: &Expr) -> Result<(), Reported> {
        if super::fold::value(literal, expr, self.checker).is_some() {
            return Ok(());
        }
        let help = "an int goes from -9223372036854775808 to 9223372036854775807; for larger ones write 1u";
        self.report(Code::NumberOutOfRange, expr, "the number is too large for an int", help)
    }

    fn map_keys(&mut self, entries: &[(Expr, Expr)]) -> Result<(), Reported> {
        let mut seen = std::collections::HashSet::new();
        for (expr, _) in entries {
            if let Ok(Ok(Const::Scalar(constant))) = fold(expr, self.checker)
                && !seen.insert(key(&constant))
            {
                return self.report(
                    Code::DuplicateKey,
                    expr,
                    "the key stands twice in the map",
                    "remove one of the two",
                );
            }
        }
        Ok(())
    }

    /// Constant arguments that would never have a value are mistakes.
    fn arguments(&mut self, call: &Call) -> Result<(), Reported> {
        let Some(function) = functions::find(&call.name) else { return Ok(()) };
        let operands = call.operands();
        let constant = |at: usize| match fold(operands.get(at)?, self.checker) {
            Ok(Ok(Const::Scalar(Constant::String(text)))) => Some(text),
            _ => None,
        };
        let (problem, at) = match function.kind {
            Kind::Unary(Unary::ToTimestamp) => {
                (constant(0).and_then(|text| calendar::timestamp(&text).err()), 0)
            }
            Kind::Duration => (constant(0).and_then(|text| calendar::duration(&text).err()), 0),
            Kind::Unary(Unary::ToSemver) => (
                constant(0).filter(|text| !is_version(text)).map(|text| {
                    format!("{text:?} is no version; versions have the form 1.2.3 or 1.2.3-rc.1")
                }),
                0,
            ),
            Kind::Part(_) => (
                constant(1).filter(|text| calendar::zone(text).is_none()).map(|text| {
                    format!("{text:?} is no time zone that is known here; write UTC or an offset, +02:00")
                }),
                1,
            ),
            _ => (None, 0),
        };
        // Days and weeks are not in CEL: with daylight saving time they differ.
        let hours = |text: String| {
            let (number, hours) = match text.strip_suffix('d') {
                Some(days) => (days, 24),
                None => (text.strip_suffix('w')?, 168),
            };
            let hours = number.parse::<u32>().ok()?.checked_mul(hours)?;
            Some(format!("the largest unit is the hour: write duration(\"{hours}h\")"))
        };
        let help = match function.kind {
            Kind::Duration => constant(0).and_then(hours),
            _ => None,
        };
        match (problem, operands.get(at)) {
            (Some(problem), Some(operand)) => {
                let help = help.unwrap_or_else(|| format!("write {}", function.form));
                self.report(Code::InvalidConstant, operand, problem, &help)
            }
            _ => Ok(()),
        }
    }

    /// The value of an expression; `None` when it depends on the request.
    fn fold(&mut self, expr: &Expr) -> Result<Option<Folded>, Reported> {
        match fold(expr, self.checker) {
            Ok(folded) => Ok(Some(folded)),
            Err(Unfolded::Varies) => Ok(None),
            Err(Unfolded::TooLarge(span, limit)) => {
                limit.report(&span, self.diagnostics);
                Err(Reported)
            }
        }
    }

    fn node(&mut self, expr: &Expr) -> Result<Node, Reported> {
        if self.lowering.optimisation == Optimisation::Full && self.fold(expr)?.is_some() {
            return Ok(Node::Leaf(self.ops(expr)?));
        }
        Ok(match &expr.kind {
            ExprKind::And(operands) => Node::And(self.nodes(operands)?),
            ExprKind::Or(operands) => Node::Or(self.nodes(operands)?),
            _ => Node::Leaf(self.ops(expr)?),
        })
    }

    fn nodes(&mut self, operands: &[Expr]) -> Result<Vec<Node>, Reported> {
        operands.iter().map(|operand| self.node(operand)).collect()
    }

    /// The operations of an expression.
    fn ops(&mut self, expr: &Expr) -> Result<Vec<Op>, Reported> {
        let mut ops = Vec::new();
        self.emit(expr, &mut ops)?;
        Ok(ops)
    }

    fn emit(&mut self, expr: &Expr, ops: &mut Vec<Op>) -> Result<(), Reported> {
        let whole = self.lowering.optimisation == Optimisation::Full || self.needs_folding(expr);
        if whole && let Some(folded) = self.fold(expr)? {
            return self.folded(expr, folded, ops);
        }
        match &expr.kind {
            ExprKind::Literal(_) => {
                let folded = self.fold(expr)?.unwrap_or(Err(EvalError::Fault));
                return self.folded(expr, folded, ops);
            }
            ExprKind::Name(_) => self.meaning(expr, ops),
            ExprKind::Index(base, key) => {
                if self.checker.meaning(expr.id).is_some() {
                    self.meaning(expr, ops);
                } else {
                    let map = self.map(base)?;
                    self.emit(key, ops)?;
                    ops.push(Op::Lookup(map));
                }
            }
            ExprKind::Not(operand) => {
                self.emit(operand, ops)?;
                ops.push(Op::Unary(Unary::Not));
            }
            ExprKind::Negate(operand) => {
                self.emit(operand, ops)?;
                ops.push(Op::Unary(Unary::Negate));
            }
            ExprKind::Binary(op, left, right) => {
                self.emit(left, ops)?;
                self.emit(right, ops)?;
                self.binary(op.op, ops);
            }
            ExprKind::And(operands) | ExprKind::Or(operands) => {
                let conjunction = matches!(expr.kind, ExprKind::And(_));
                let operands =
                    operands.iter().map(|operand| self.ops(operand)).collect::<Result<Vec<_>, _>>()?;
                ops.extend(chain(&operands, conjunction));
            }
            ExprKind::Conditional(parts) => {
                for part in parts.iter() {
                    self.emit(part, ops)?;
                }
                ops.push(Op::Select);
            }
            ExprKind::In(value, list) => self.membership(expr, value, list, ops)?,
            ExprKind::Call(call) => self.call(expr, call, ops)?,
            ExprKind::List(_) | ExprKind::Map(_) | ExprKind::Select(..) => {
                let help = "a list or a map made of attributes would need memory for each request; write it with constants";
                return self.report(Code::UnsupportedFeature, expr, "this depends on the request", help);
            }
        }
        Ok(())
    }

    /// Whether the evaluator has no operation for an expression, so that it exists as a constant only.
    fn needs_folding(&self, expr: &Expr) -> bool {
        let container = |expr: &Expr| {
            matches!(self.checker.type_of(expr.id), Some(Resolved::List | Resolved::Map))
                || matches!(expr.kind, ExprKind::List(_) | ExprKind::Map(_))
        };
        let new_text = |kind| {
            matches!(kind, Kind::Unary(Unary::ToString | Unary::ToTimestamp) | Kind::Duration | Kind::Has)
        };
        match &expr.kind {
            ExprKind::Select(..) => true,
            ExprKind::Name(_) => matches!(self.checker.meaning(expr.id), Some(Meaning::Constant(_))),
            ExprKind::Binary(op, left, right) => {
                let text = |expr: &Expr| {
                    matches!(
                        self.checker.type_of(expr.id),
                        Some(Resolved::Scalar(Type::String | Type::Bytes))
                    )
                };
                container(left) || container(right) || (op.op == Binary::Add && text(left))
            }
            ExprKind::In(value, list) => {
                self.checker.meaning(expr.id).is_none() && (container(value) || self.is_nested(list))
            }
            ExprKind::Call(call) => functions::find(&call.name).is_some_and(|function| {
                new_text(function.kind) || call.operands().into_iter().any(container)
            }),
            ExprKind::Index(..) => self.checker.meaning(expr.id).is_none(),
            _ => container(expr),
        }
    }

    /// Whether a list constant holds more than one level.
    fn is_nested(&self, list: &Expr) -> bool {
        match fold(list, self.checker) {
            Ok(Ok(Const::List(elements))) => {
                elements.iter().any(|element| !matches!(element, Const::Scalar(_)))
            }
            _ => false,
        }
    }

    fn folded(
        &mut self,
        expr: &Expr,
        folded: Result<Const, EvalError>,
        ops: &mut Vec<Op>,
    ) -> Result<(), Reported> {
        match folded {
            Ok(Const::Scalar(constant)) => {
                let id = self.lowering.constant(constant);
                ops.push(Op::Constant(id));
            }
            Ok(Const::List(_) | Const::Map(_)) => {
                let help = "compare it, look something up in it, or ask with `in`";
                return self.report(
                    Code::UnsupportedFeature,
                    expr,
                    "a list or a map is no result of a condition",
                    help,
                );
            }
            Err(error) => {
                let ty = match self.checker.type_of(expr.id) {
                    Some(Resolved::Scalar(ty)) => ty,
                    _ => Type::Bool,
                };
                ops.push(Op::Fail(ty, error));
            }
        }
        Ok(())
    }

    fn meaning(&mut self, expr: &Expr, ops: &mut Vec<Op>) {
        match self.checker.meaning(expr.id) {
            Some(Meaning::Attribute(id)) => ops.push(Op::Load(*id)),
            Some(Meaning::Presence(id)) => ops.push(Op::Has(*id)),
            Some(Meaning::Now) => ops.push(Op::Now),
            Some(Meaning::Constant(constant)) => {
                let id = self.lowering.constant(Constant::clone(constant));
                ops.push(Op::Constant(id));
            }
            // Without a meaning the checker has reported an error, and nothing is lowered.
            None => {}
        }
    }

    /// An operation on the two values that the operations leave; one operation when they are an attribute and a
    /// constant.
    fn binary(&mut self, op: Binary, ops: &mut Vec<Op>) {
        let comparison = op.yields(Type::String, Type::String) == Some(Type::Bool);
        let fused = match ops.as_slice() {
            _ if self.lowering.optimisation == Optimisation::None || !comparison => None,
            [.., Op::Load(attribute), Op::Constant(constant)] => Some(Op::Test(*attribute, op, *constant)),
            [.., Op::Constant(constant), Op::Load(attribute)] => {
                mirrored(op).map(|op| Op::Test(*attribute, op, *constant))
            }
            _ => None,
        };
        match fused {
            Some(fused) => {
                ops.truncate(ops.len() - 2);
                ops.push(fused);
            }
            None => ops.push(Op::Binary(op)),
        }
    }

    fn membership(
        &mut self,
        expr: &Expr,
        value: &Expr,
        list: &Expr,
        ops: &mut Vec<Op>,
    ) -> Result<(), Reported> {
        if self.checker.meaning(expr.id).is_some() {
            self.meaning(expr, ops);
            return Ok(());
        }
        if self.checker.type_of(list.id) == Some(Resolved::Scalar(Type::List)) {
            self.emit(value, ops)?;
            self.emit(list, ops)?;
            ops.push(Op::Binary(Binary::ElementOf));
            return Ok(());
        }
        let Some(Resolved::Scalar(ty)) = self.checker.type_of(value.id) else {
            return self.report(
                Code::UnsupportedFeature,
                value,
                "a list cannot be looked for at run time",
                "compare with `==`",
            );
        };
        let elements = match self.fold(list)? {
            Some(Ok(Const::List(elements))) => elements,
            Some(Ok(Const::Map(entries))) => entries.into_iter().map(|(key, _)| key).collect(),
            Some(Err(error)) => {
                ops.push(Op::Fail(Type::Bool, error));
                return Ok(());
            }
            _ => {
                let help = "compare with `==` and join by `||`";
                return self.report(
                    Code::UnsupportedFeature,
                    list,
                    "the elements of a list must be constants",
                    help,
                );
            }
        };
        let elements: Vec<Constant> = elements.into_iter().filter_map(scalar).collect();
        if let Some(id) = self.lowering.list(ty, &elements) {
            self.emit(value, ops)?;
            match ops.as_slice() {
                [.., Op::Load(attribute)] if self.lowering.optimisation == Optimisation::Full => {
                    let fused = Op::TestIn(*attribute, id);
                    ops.pop();
                    ops.push(fused);
                }
                _ => ops.push(Op::In(id)),
            }
            return Ok(());
        }
        // Of types that lists have no elements of there are few values, or few uses: one comparison each.
        if elements.is_empty() {
            // What has a value does not differ from itself; what has none is not in a list either.
            self.emit(value, ops)?;
            self.emit(value, ops)?;
            ops.push(Op::Binary(Binary::NotEqual));
            return Ok(());
        }
        let mut operands = Vec::with_capacity(elements.len());
        for element in elements {
            let mut operand = self.ops(value)?;
            operand.push(Op::Constant(self.lowering.constant(element)));
            self.binary(Binary::Equal, &mut operand);
            operands.push(operand);
        }
        ops.extend(chain(&operands, false));
        Ok(())
    }

    /// The map constant that an index looks into; a list is a map from its places.
    fn map(&mut self, base: &Expr) -> Result<MapId, Reported> {
        let help = "a list or a map to look up in is made of constants that are no lists or maps";
        let entries = match self.fold(base)? {
            Some(Ok(Const::Map(entries))) => entries,
            Some(Ok(Const::List(elements))) => {
                (0i64..).map(|at| Const::Scalar(Constant::Int(at))).zip(elements).collect()
            }
            _ => return self.report(Code::UnsupportedFeature, base, "this depends on the request", help),
        };
        let scalars: Option<Vec<(Constant, Constant)>> =
            entries.into_iter().map(|(key, value)| Some((scalar(key)?, scalar(value)?))).collect();
        let Some(mut scalars) = scalars.filter(|scalars| !scalars.is_empty()) else {
            return self.report(Code::UnsupportedFeature, base, "nothing can be looked up in this", help);
        };
        let keys: Vec<Constant> = scalars.iter().map(|(key, _)| key.clone()).collect();
        let list = keys.first().and_then(|first| self.lowering.list(first.ty(), &keys));
        let Some(keys) = list.and_then(|ListId(id)| self.lowering.lists.get(id as usize)).cloned() else {
            return self.report(Code::UnsupportedFeature, base, "a map with keys of this type", "use `? :`");
        };
        // In the order of the list: values and the list's elements are sorted alike.
        scalars.sort_by(|(a, _), (b, _)| match Binary::Less.test(&a.value(), &b.value()) {
            Ok(true) => Ordering::Less,
            _ if a == b => Ordering::Equal,
            _ => Ordering::Greater,
        });
        let map = Map { keys: keys.clone(), values: scalars.into_iter().map(|(_, value)| value).collect() };
        let (known, bytes) = (self.lowering.maps.len(), map.values.iter().map(text_bytes).sum::<usize>());
        let at = intern(&mut self.lowering.maps, map);
        if at == known {
            self.lowering.text_bytes += bytes;
        }
        Ok(MapId(index(at)))
    }

    fn call(&mut self, expr: &Expr, call: &Call, ops: &mut Vec<Op>) -> Result<(), Reported> {
        let operands = call.operands();
        let kind = functions::find(&call.name).map(|function| function.kind);
        match (kind, operands.as_slice()) {
            (Some(Kind::Has), _) => self.meaning(expr, ops),
            (Some(Kind::Unary(op) | Kind::Part(op)), [operand]) => {
                self.emit(operand, ops)?;
                ops.push(Op::Unary(op));
            }
            (Some(Kind::Strings(op)), [text, part]) => {
                self.emit(text, ops)?;
                self.emit(part, ops)?;
                self.binary(op, ops);
            }
            (Some(Kind::Part(op)), [time, zone]) => {
                self.emit(time, ops)?;
                let zone_text = self.text(zone)?;
                let Some(offset) = calendar::zone(&zone_text) else { return Err(Reported) };
                if offset != 0 {
                    ops.push(Op::Constant(self.lowering.constant(Constant::Duration(offset))));
                    ops.push(Op::Binary(Binary::Add));
                }
                ops.push(Op::Unary(op));
            }
            (Some(Kind::Matches), [text, pattern]) => {
                // Finding out that an expression explodes takes its time; what is too much is reported already,
                // or will be.
                if self.lowering.automata.len() > MAX_AUTOMATA
                    || self.lowering.refused_automata >= MAX_REFUSED_AUTOMATA
                {
                    return Err(Reported);
                }
                let pattern_text = self.text(pattern)?;
                self.emit(text, ops)?;
                let known = self.lowering.automata.iter().position(|other| other.pattern == pattern_text);
                let at = match known.map_or_else(
                    || regex::compile(&pattern_text),
                    |at| Ok(self.lowering.automata[at].clone()),
                ) {
                    Ok(automaton) => intern(&mut self.lowering.automata, automaton),
                    Err(problem) => {
                        self.lowering.refused_automata += 1;
                        let help = "the syntax is that of RE2, with automata of at most 64 KiB";
                        return self.report(Code::InvalidConstant, pattern, problem, help);
                    }
                };
                ops.push(Op::Match(AutomatonId(u16::try_from(at).unwrap_or(u16::MAX))));
            }
            (Some(Kind::Cidr), [address, network]) => {
                let text = self.text(network)?;
                self.emit(address, ops)?;
                let Some(parsed) = Network::parse(&text) else {
                    let message = format!("{text:?} is not a network");
                    let help = "write an address and the number of its bits that count, the others 0: 10.0.0.0/8 or 2001:db8::/32";
                    return self.report(Code::InvalidConstant, network, message, help);
                };
                let at = intern(&mut self.lowering.networks, parsed);
                ops.push(Op::InNetwork(NetworkId(u16::try_from(at).unwrap_or(u16::MAX))));
            }
            (Some(Kind::Bucket), [unit, seed, buckets]) => {
                let seed_text = self.text(seed)?;
                let count = match &buckets.kind {
                    ExprKind::Literal(Literal::Integer(count)) if (1..=1 << 31).contains(count) => {
                        u32::try_from(*count).unwrap_or(u32::MAX)
                    }
                    _ => {
                        let help = "write a number from 1 to 2147483648, for example 100";
                        return self.report(
                            Code::InvalidConstant,
                            buckets,
                            "this is no number of buckets",
                            help,
                        );
                    }
                };
                self.emit(unit, ops)?;
                let seed = self.lowering.constant(Constant::String(seed_text));
                ops.push(Op::Bucket(seed, Buckets(count)));
            }
            _ => return Err(Reported),
        }
        Ok(())
    }

    /// The value of an operand that must be a constant string.
    fn text(&mut self, expr: &Expr) -> Result<String, Reported> {
        // A pattern may be longer than what it is looked for in.
        if let ExprKind::Literal(Literal::String(text)) = &expr.kind {
            return Ok(text.clone());
        }
        match self.fold(expr)? {
            Some(Ok(Const::Scalar(Constant::String(text)))) => Ok(text),
            _ => self.report(
                Code::UnsupportedFeature,
                expr,
                "this must be a constant",
                "write a string literal",
            ),
        }
    }
}

fn scalar(value: Const) -> Option<Constant> {
    match value {
        Const::Scalar(constant) => Some(constant),
        Const::List(_) | Const::Map(_) => None,
    }
}

/// The comparison with its operands swapped.
fn mirrored(op: Binary) -> Option<Binary> {
    Some(match op {
        Binary::Equal | Binary::NotEqual => op,
        Binary::Less => Binary::Greater,
        Binary::LessEqual => Binary::GreaterEqual,
        Binary::Greater => Binary::Less,
        Binary::GreaterEqual => Binary::LessEqual,
        _ => return None,
    })
}
