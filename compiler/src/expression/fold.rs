//! The values of constant expressions.
//!
//! What the evaluator can do, it also does here ([`halftone_rules::operator`]). Lists, maps and new strings
//! only exist here: a request would need memory for them.

use super::{
    ast::{Call, Expr, ExprKind, Literal},
    calendar,
    check::{Checker, Meaning, Resolved},
    functions::{self, Kind},
};
use halftone_rules::{
    EvalError, Timestamp, Type, Value,
    bundle::Constant,
    operator::{Binary, Unary},
};

/// A constant value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Const {
    Scalar(Constant),
    List(Vec<Const>),
    Map(Vec<(Const, Const)>),
}

/// A value, or the reason that there is none.
pub(crate) type Folded = Result<Const, EvalError>;

/// The value of an expression; `None` when it depends on the request.
pub(crate) fn fold(expr: &Expr, checker: &Checker) -> Option<Folded> {
    let fold = |expr: &Expr| fold(expr, checker);
    match &expr.kind {
        ExprKind::Literal(literal) => Some(value(literal, expr, checker).ok_or(EvalError::Overflow)),
        ExprKind::Negate(operand) => Some(fold(operand)?.and_then(|value| unary(Unary::Negate, &value))),
        ExprKind::Name(_) | ExprKind::Index(..) | ExprKind::Select(..)
            if checker.meaning(expr.id).is_some() =>
        {
            match checker.meaning(expr.id)? {
                Meaning::Constant(constant) => Some(Ok(Const::Scalar(constant.clone()))),
                Meaning::Attribute(_) | Meaning::Presence(_) | Meaning::Now => None,
            }
        }
        ExprKind::Name(_) => None,
        ExprKind::List(elements) => all(elements, fold).map(|elements| elements.map(Const::List)),
        ExprKind::Map(entries) => {
            let entries: Vec<(Folded, Folded)> =
                entries.iter().map(|(key, value)| Some((fold(key)?, fold(value)?))).collect::<Option<_>>()?;
            let mut map: Vec<(Const, Const)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let (Ok(key), Ok(value)) = (key, value) else { return Some(Err(EvalError::Conversion)) };
                // Reported by the lowering, which knows the place; here the last one would win.
                map.push((key, value));
            }
            Some(Ok(Const::Map(map)))
        }
        ExprKind::Not(operand) => Some(fold(operand)?.and_then(|value| unary(Unary::Not, &value))),
        ExprKind::Binary(op, left, right) => {
            let (left, right) = (fold(left)?, fold(right)?);
            Some(left.and_then(|left| binary(op.op, &left, &right?)))
        }
        ExprKind::And(operands) => logic(operands, fold, false),
        ExprKind::Or(operands) => logic(operands, fold, true),
        ExprKind::Conditional(parts) => {
            let [condition, then, otherwise] = &**parts;
            let (condition, then, otherwise) = (fold(condition)?, fold(then)?, fold(otherwise)?);
            Some(match condition {
                Ok(Const::Scalar(Constant::Bool(true))) => then,
                Ok(Const::Scalar(Constant::Bool(false))) => otherwise,
                Ok(_) => Err(EvalError::Fault),
                Err(error) => Err(error),
            })
        }
        ExprKind::In(value, list) => {
            if matches!(checker.meaning(expr.id), Some(Meaning::Presence(_))) {
                return None;
            }
            let (value, list) = (fold(value)?, fold(list)?);
            Some(value.and_then(|value| {
                Ok(boolean(match list? {
                    Const::List(elements) => elements.iter().any(|element| equal(element, &value)),
                    Const::Map(entries) => entries.iter().any(|(key, _)| equal(key, &value)),
                    Const::Scalar(_) => return Err(EvalError::Fault),
                }))
            }))
        }
        ExprKind::Index(base, key) => {
            let (base, key) = (fold(base)?, fold(key)?);
            Some(base.and_then(|base| index(&base, &key?)))
        }
        ExprKind::Select(base, field) => Some(fold(base)?.and_then(|base| index(&base, &text(field)))),
        ExprKind::Call(call) => function(expr, call, checker),
    }
}

fn all(exprs: &[Expr], fold: impl Fn(&Expr) -> Option<Folded>) -> Option<Result<Vec<Const>, EvalError>> {
    let folded: Vec<Folded> = exprs.iter().map(fold).collect::<Option<_>>()?;
    Some(folded.into_iter().collect())
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
            let has = |key: &Const, value: &Const| {
                b.iter().any(|(other, found)| equal(key, other) && equal(value, found))
            };
            a.len() == b.len() && a.iter().all(|(key, value)| has(key, value))
        }
        _ => false,
    }
}

fn logic(operands: &[Expr], fold: impl Fn(&Expr) -> Option<Folded>, decisive: bool) -> Option<Folded> {
    let folded: Vec<Folded> = operands.iter().map(fold).collect::<Option<_>>()?;
    if folded.contains(&Ok(boolean(decisive))) {
        return Some(Ok(boolean(decisive)));
    }
    Some(folded.into_iter().find(Result::is_err).unwrap_or(Ok(boolean(!decisive))))
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

fn function(expr: &Expr, call: &Call, checker: &Checker) -> Option<Folded> {
    let kind = functions::find(&call.name)?.kind;
    let operands = call.operands();
    match (kind, operands.as_slice()) {
        (Kind::Has, [attribute]) => {
            if checker.meaning(expr.id).is_some() {
                return None;
            }
            let ExprKind::Select(base, field) = &attribute.kind else { return None };
            let base = fold(base, checker)?;
            Some(base.map(|base| boolean(index(&base, &text(field)).is_ok())))
        }
        (kind, operands) if kind.folds() => {
            let operands: Vec<Folded> =
                operands.iter().map(|operand| fold(operand, checker)).collect::<Option<_>>()?;
            Some(
                operands
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()
                    .and_then(|operands| apply(kind, &operands)),
            )
        }
        _ => None,
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
