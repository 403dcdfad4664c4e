//! The values of constant expressions.
//!
//! What the evaluator can do, it also does here ([`halftone_rules::operator`]). Lists, maps and new strings
//! only exist here: a request would need memory for them. They do not grow beyond what is of use.

use super::{
    ast::{Call, Expr, ExprKind, Literal},
    calendar,
    check::{Checker, Meaning, Resolved},
    functions::{self, Kind},
    lower::{self, ConstantKey},
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    limits::MAX_CONDITION_BYTES,
};
use halftone_rules::{
    EvalError, Timestamp, Type, Value,
    bundle::Constant,
    limits::MAX_VALUE_BYTES,
    operator::{Binary, Unary},
};
use std::collections::HashMap;

/// A constant value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Const {
    Scalar(Constant),
    List(Vec<Const>),
    Map(Vec<(Const, Const)>),
}

/// A value, or the reason that there is none.
pub(crate) type Folded = Result<Const, EvalError>;

/// Why an expression has no constant value.
pub(crate) enum Unfolded {
    /// It depends on the request.
    Varies,
    /// This part of it is larger than any constant may be.
    TooLarge(Span, SizeLimit),
}

/// How much text a constant may have.
#[derive(Clone, Copy)]
pub(crate) enum SizeLimit {
    /// What is compared with values of requests.
    Scalar,
    /// Lists and maps: as much as can be written out in a condition.
    Collection,
}

impl SizeLimit {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Scalar => MAX_VALUE_BYTES,
            Self::Collection => MAX_CONDITION_BYTES,
        }
    }

    /// Reports a constant that is above the limit.
    pub(crate) fn report(self, span: &Span, diagnostics: &mut Diagnostics<'_>) {
        let (what, help) = match self {
            Self::Scalar => ("a constant", "longer values of requests count as none: nothing can equal this"),
            Self::Collection => ("a list or a map", "make it of fewer or shorter texts"),
        };
        let message = format!("{what} has at most {} bytes of text, but this has more", self.bytes());
        diagnostics.report_with_help(Code::TooLarge, span, message, help);
    }
}

/// The value of an expression that is the same for every request.
pub(crate) fn fold(expr: &Expr, checker: &Checker) -> Result<Folded, Unfolded> {
    let fold = |expr: &Expr| fold(expr, checker);
    match &expr.kind {
        ExprKind::Literal(literal) => {
            let value = value(literal, expr, checker);
            check_size(value.as_ref().map_or(0, bytes), SizeLimit::Scalar, expr)?;
            Ok(value.ok_or(EvalError::Overflow))
        }
        ExprKind::Negate(operand) => Ok(fold(operand)?.and_then(|value| unary(Unary::Negate, &value))),
        ExprKind::Name(_) | ExprKind::Index(..) | ExprKind::Select(..)
            if let Some(meaning) = checker.meaning(expr.id) =>
        {
            match meaning {
                Meaning::Constant(constant) => Ok(Ok(Const::Scalar(Constant::clone(constant)))),
                Meaning::Attribute(_) | Meaning::Presence(_) | Meaning::Now => Err(Unfolded::Varies),
            }
        }
        ExprKind::Name(_) => Err(Unfolded::Varies),
        ExprKind::List(elements) => Ok(all(elements, expr, fold)?.map(Const::List)),
        ExprKind::Map(entries) => {
            let values = all(entries.iter().flat_map(|(key, value)| [key, value]), expr, fold)?;
            Ok(values.map(|values| {
                let mut values = values.into_iter();
                // A key that stands twice is reported by the lowering, which knows the place.
                Const::Map(std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect())
            }))
        }
        ExprKind::Not(operand) => Ok(fold(operand)?.and_then(|value| unary(Unary::Not, &value))),
        ExprKind::Binary(op, left, right) => {
            let (left, right) = match (fold(left)?, fold(right)?) {
                (Ok(left), Ok(right)) => (left, right),
                (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
            };
            if op.op == Binary::Add {
                let scalar = matches!(left, Const::Scalar(_));
                let limit = if scalar { SizeLimit::Scalar } else { SizeLimit::Collection };
                check_size(bytes(&left) + bytes(&right), limit, expr)?;
            }
            Ok(binary(op.op, &left, &right))
        }
        ExprKind::And(operands) => logic(operands, fold, false),
        ExprKind::Or(operands) => logic(operands, fold, true),
        ExprKind::Conditional(parts) => {
            let [condition, then, otherwise] = &**parts;
            let (condition, then, otherwise) = (fold(condition)?, fold(then)?, fold(otherwise)?);
            Ok(match condition {
                Ok(Const::Scalar(Constant::Bool(true))) => then,
                Ok(Const::Scalar(Constant::Bool(false))) => otherwise,
                Ok(_) => Err(EvalError::Fault),
                Err(error) => Err(error),
            })
        }
        ExprKind::In(value, list) => {
            if matches!(checker.meaning(expr.id), Some(Meaning::Presence(_))) {
                return Err(Unfolded::Varies);
            }
            let (value, list) = (fold(value)?, fold(list)?);
            Ok(value.and_then(|value| {
                Ok(boolean(match list? {
                    Const::List(elements) => elements.iter().any(|element| equal(element, &value)),
                    Const::Map(entries) => entries.iter().any(|(key, _)| equal(key, &value)),
                    Const::Scalar(_) => return Err(EvalError::Fault),
                }))
            }))
        }
        ExprKind::Index(base, key) => {
            let (base, key) = (fold(base)?, fold(key)?);
            Ok(base.and_then(|base| index(&base, &key?)))
        }
        ExprKind::Select(base, field) => Ok(fold(base)?.and_then(|base| index(&base, &text(field)))),
        ExprKind::Call(call) => function(expr, call, checker),
    }
}

/// The values of all parts of a list or a map, or the first reason that one has none.
fn all<'e>(
    parts: impl IntoIterator<Item = &'e Expr>,
    whole: &Expr,
    fold: impl Fn(&Expr) -> Result<Folded, Unfolded>,
) -> Result<Result<Vec<Const>, EvalError>, Unfolded> {
    let mut size = 0;
    let mut folded = Vec::new();
    for part in parts {
        let part = fold(part)?;
        size += part.as_ref().map_or(0, bytes);
        check_size(size, SizeLimit::Collection, whole)?;
        folded.push(part);
    }
    Ok(folded.into_iter().collect())
}

/// Bytes of the texts in a value. Of what else there is, no more can be made than a condition has room for.
fn bytes(value: &Const) -> usize {
    match value {
        Const::Scalar(constant) => lower::text_bytes(constant),
        Const::List(elements) => elements.iter().map(bytes).sum(),
        Const::Map(entries) => entries.iter().map(|(key, value)| bytes(key) + bytes(value)).sum(),
    }
}

fn check_size(bytes: usize, limit: SizeLimit, expr: &Expr) -> Result<(), Unfolded> {
    if bytes > limit.bytes() { Err(Unfolded::TooLarge(expr.span.clone(), limit)) } else { Ok(()) }
}

fn text(text: &str) -> Const {
    Const::Scalar(Constant::String(text.into()))
}

fn boolean(value: bool) -> Const {
    Const::Scalar(Constant::Bool(value))
}

/// The value of a literal in the type that the checker found; `None` when the type cannot hold it.
pub(crate) fn value(literal: &Literal, expr: &Expr, checker: &Checker) -> Option<Const> {
    Some(Const::Scalar(match literal {
        Literal::Bool(value) => Constant::Bool(*value),
        Literal::Uint(value) => Constant::Uint(*value),
        Literal::Double(value) => Constant::Double(*value),
        Literal::String(value) => Constant::String(value.clone()),
        Literal::Bytes(value) => Constant::Bytes(value.clone()),
        Literal::Integer(value) if checker.type_of(expr.id) == Some(Resolved::Scalar(Type::Uint)) => {
            Constant::Uint(*value)
        }
        Literal::Negative(value) => Constant::Int(0i64.checked_sub_unsigned(*value)?),
        Literal::Integer(value) => Constant::Int(i64::try_from(*value).ok()?),
    }))
}

/// A value of the evaluator as a constant. Lists of attributes are not constants.
fn constant(value: Value<'_>) -> Folded {
    Ok(Const::Scalar(match value {
        Value::Bool(value) => Constant::Bool(value),
        Value::Int(value) => Constant::Int(value),
        Value::Uint(value) => Constant::Uint(value),
        Value::Double(value) => Constant::Double(value),
        Value::String(value) => Constant::String(value.into()),
        Value::Bytes(value) => Constant::Bytes(value.into()),
        Value::Timestamp(value) => Constant::Timestamp(value),
        Value::Duration(value) => Constant::Duration(value),
        Value::Semver(value) => Constant::Semver(value.into()),
        Value::List(_) => return Err(EvalError::Fault),
        Value::Error(error) => return Err(error),
    }))
}

fn unary(op: Unary, operand: &Const) -> Folded {
    match operand {
        Const::Scalar(operand) => constant(op.apply(operand.value())),
        Const::List(elements) if op == Unary::Size => size(elements.len()),
        Const::Map(entries) if op == Unary::Size => size(entries.len()),
        Const::List(_) | Const::Map(_) => Err(EvalError::Fault),
    }
}

fn size(size: usize) -> Folded {
    i64::try_from(size).map(|size| Const::Scalar(Constant::Int(size))).map_err(|_| EvalError::Overflow)
}

fn binary(op: Binary, left: &Const, right: &Const) -> Folded {
    match (op, left, right) {
        (Binary::Add, Const::List(a), Const::List(b)) => Ok(Const::List([a.as_slice(), b].concat())),
        (Binary::Add, Const::Scalar(Constant::String(a)), Const::Scalar(Constant::String(b))) => {
            Ok(text(&[a.as_str(), b].concat()))
        }
        (Binary::Add, Const::Scalar(Constant::Bytes(a)), Const::Scalar(Constant::Bytes(b))) => {
            Ok(Const::Scalar(Constant::Bytes([a.as_slice(), b].concat())))
        }
        (Binary::Equal, ..) => Ok(boolean(equal(left, right))),
        (Binary::NotEqual, ..) => Ok(boolean(!equal(left, right))),
        (_, Const::Scalar(left), Const::Scalar(right)) => constant(op.apply(left.value(), right.value())),
        _ => Err(EvalError::Fault),
    }
}

fn equal(left: &Const, right: &Const) -> bool {
    match (left, right) {
        (Const::Scalar(a), Const::Scalar(b)) => {
            Binary::Equal.apply(a.value(), b.value()) == Value::Bool(true)
        }
        (Const::List(a), Const::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Const::Map(a), Const::Map(b)) => {
            let found: HashMap<_, &Const> =
                b.iter().filter_map(|(key, value)| Some((scalar_key(key)?, value))).collect();
            let has = |key: &Const, value: &Const| {
                scalar_key(key).and_then(|key| found.get(&key)).is_some_and(|other| equal(value, other))
            };
            a.len() == b.len() && a.iter().all(|(key, value)| has(key, value))
        }
        _ => false,
    }
}

/// Keys of maps are scalars that are equal when they are the same.
fn scalar_key(value: &Const) -> Option<ConstantKey> {
    if let Const::Scalar(constant) = value { Some(lower::key(constant)) } else { None }
}

fn logic(
    operands: &[Expr],
    fold: impl Fn(&Expr) -> Result<Folded, Unfolded>,
    decisive: bool,
) -> Result<Folded, Unfolded> {
    let folded: Vec<Folded> = operands.iter().map(fold).collect::<Result<_, _>>()?;
    if folded.contains(&Ok(boolean(decisive))) {
        return Ok(Ok(boolean(decisive)));
    }
    Ok(folded.into_iter().find(Result::is_err).unwrap_or(Ok(boolean(!decisive))))
}

fn index(base: &Const, key: &Const) -> Folded {
    match (base, key) {
        (Const::List(elements), Const::Scalar(Constant::Int(at))) => {
            usize::try_from(*at).ok().and_then(|at| elements.get(at)).cloned().ok_or(EvalError::NoSuchKey)
        }
        (Const::Map(entries), key) => entries
            .iter()
            .find(|(other, _)| equal(other, key))
            .map(|(_, value)| value.clone())
            .ok_or(EvalError::NoSuchKey),
        _ => Err(EvalError::Fault),
    }
}

fn function(expr: &Expr, call: &Call, checker: &Checker) -> Result<Folded, Unfolded> {
    let Some(function) = functions::find(&call.name) else { return Err(Unfolded::Varies) };
    let operands = call.operands();
    match (function.kind, operands.as_slice()) {
        (Kind::Has, [attribute]) => {
            if checker.meaning(expr.id).is_some() {
                return Err(Unfolded::Varies);
            }
            let ExprKind::Select(base, field) = &attribute.kind else { return Err(Unfolded::Varies) };
            let base = fold(base, checker)?;
            Ok(base.map(|base| boolean(index(&base, &text(field)).is_ok())))
        }
        (kind, operands) if kind.folds() => {
            let operands: Vec<Folded> =
                operands.iter().map(|operand| fold(operand, checker)).collect::<Result<_, _>>()?;
            Ok(operands
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .and_then(|operands| apply(kind, &operands)))
        }
        _ => Err(Unfolded::Varies),
    }
}

fn apply(kind: Kind, operands: &[Const]) -> Folded {
    match (kind, operands) {
        (Kind::Unary(Unary::ToString), [Const::Scalar(value)]) => match show(value) {
            Some(shown) => Ok(text(&shown)),
            None => unary(Unary::ToString, &Const::Scalar(value.clone())),
        },
        (Kind::Unary(Unary::ToTimestamp), [Const::Scalar(Constant::String(text))]) => {
            time(calendar::timestamp(text).map(Constant::Timestamp))
        }
        (Kind::Duration, [Const::Scalar(Constant::String(text))]) => {
            time(calendar::duration(text).map(Constant::Duration))
        }
        (Kind::Duration, [value]) => Ok(value.clone()),
        (Kind::Unary(op) | Kind::Part(op), [value]) => unary(op, value),
        (Kind::Strings(op), [left, right]) => binary(op, left, right),
        (
            Kind::Part(op),
            [Const::Scalar(Constant::Timestamp(time)), Const::Scalar(Constant::String(zone))],
        ) => {
            let offset = calendar::zone(zone).ok_or(EvalError::Conversion)?;
            let local = time.0.checked_add(offset).ok_or(EvalError::Overflow)?;
            unary(op, &Const::Scalar(Constant::Timestamp(Timestamp(local))))
        }
        _ => Err(EvalError::Fault),
    }
}

fn time(read: Result<Constant, String>) -> Folded {
    read.map(Const::Scalar).map_err(|_| EvalError::Conversion)
}

/// What `string` makes of a value, where that is a new string.
fn show(value: &Constant) -> Option<String> {
    Some(match value {
        Constant::Bool(value) => value.to_string(),
        Constant::Int(value) => value.to_string(),
        Constant::Uint(value) => value.to_string(),
        Constant::Double(value) => show_double(*value),
        Constant::Timestamp(value) => calendar::show_timestamp(*value),
        Constant::Duration(value) => calendar::show_duration(*value),
        Constant::String(_) | Constant::Bytes(_) | Constant::Semver(_) => return None,
    })
}

/// A double with as few digits as tell it apart, in CEL's form: an exponent of at least two digits when the
/// number is large or small.
fn show_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}
