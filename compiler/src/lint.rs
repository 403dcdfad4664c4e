//! What compiles, but will surprise whoever wrote it.

use crate::{
    diagnostic::{Code, Diagnostics},
    document::{Document, Rule},
    expression::{Checker, Expr, ExprKind, Literal},
};
use halftone_rules::{Type, bucket::BUCKETS, isa::Op};

/// Shares below this are worth a word when the rule does not say them outright.
const SMALL_SHARE: f64 = 0.02;

/// Reports all surprises of a document that has no errors.
pub(crate) fn lint(document: &Document, checker: &Checker, diagnostics: &mut Diagnostics<'_>) {
    let mut taken_by: Option<&str> = None;
    for rule in &document.rules {
        if let Some(earlier) = taken_by {
            let message = format!("the rule can never match: `{earlier}` before it takes every request");
            let help = "move it up, or give the other one a condition or a weight";
            diagnostics.report_with_help(Code::NeverMatches, &rule.span, message, help);
        } else if rule.share == 0 {
            let message = "the rule can never match: its weight is 0";
            diagnostics.report_with_help(
                Code::NeverMatches,
                &rule.span,
                message,
                "remove the rule, or raise its weight",
            );
        } else if rule.condition.is_none() && rule.share == BUCKETS {
            taken_by = Some(&rule.name);
        }
        if let Some(condition) = &rule.condition {
            visit(condition, &mut |expr| modulo(expr, checker, diagnostics));
            effective_share(rule, condition, diagnostics);
        }
    }
}

/// Calls `f` on the expression and everything in it.
fn visit<'e>(expr: &'e Expr, f: &mut impl FnMut(&'e Expr)) {
    f(expr);
    let parts: Vec<&Expr> = match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Name(_) => vec![],
        ExprKind::Not(a) | ExprKind::Negate(a) => vec![a],
        ExprKind::Binary(_, a, b) | ExprKind::In(a, b) | ExprKind::Index(a, b) => vec![a, b],
        ExprKind::List(parts) | ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter().collect(),
        ExprKind::Conditional(parts) => parts.iter().collect(),
        ExprKind::Call(call) => call.receiver.as_deref().into_iter().chain(&call.arguments).collect(),
    };
    for part in parts {
        visit(part, f);
    }
}

/// `%` truncates, so the remainder of a negative number is negative.
fn modulo(expr: &Expr, checker: &Checker, diagnostics: &mut Diagnostics<'_>) {
    let ExprKind::Binary(op, dividend, _) = &expr.kind else { return };
    let literal = matches!(dividend.kind, ExprKind::Literal(_));
    if op.op == Op::Remainder && !literal && checker.type_of(dividend.id) == Some(Type::Int) {
        let message = "the remainder of a negative number is negative: -7 % 5 is -2";
        let help = "if the value is never negative, declare the attribute with `type: uint`";
        diagnostics.report_with_help(Code::NegativeRemainder, &expr.span, message, help);
    }
}

/// A condition of the form `id % m < k` is a split by hand, and the weight splits again.
fn effective_share(rule: &Rule, condition: &Expr, diagnostics: &mut Diagnostics<'_>) {
    let Some((part, whole)) = modulo_split(condition) else { return };
    #[allow(clippy::cast_precision_loss, reason = "a share in per cent is all that is shown")]
    let by_condition = part as f64 / whole as f64;
    let by_weight = f64::from(rule.share) / f64::from(BUCKETS);
    let effective = by_condition * by_weight;
    if rule.share < BUCKETS && effective < SMALL_SHARE {
        let message = format!(
            "the rule reaches about {} of the units: {} by the condition, and of those {} by the weight",
            per_cent(effective),
            per_cent(by_condition),
            per_cent(by_weight)
        );
        let help = "use either the condition or the weight; the weight splits evenly and independently of other rules";
        diagnostics.report_with_help(Code::SmallShare, &condition.span, message, help);
    } else {
        let message = "a remainder is no random split: ids that are not spread evenly give another share, and the same units are hit by every rule like this";
        let help = format!("write `weight: {by_condition}` instead of the condition");
        diagnostics.report_with_help(Code::ModuloSplit, &condition.span, message, help);
    }
}

/// `k` and `m` of `x % m < k`, also when that is one operand of `&&`.
fn modulo_split(condition: &Expr) -> Option<(u64, u64)> {
    match &condition.kind {
        ExprKind::And(operands) => operands.iter().find_map(modulo_split),
        ExprKind::Binary(comparison, left, right) => {
            let ExprKind::Binary(op, _, modulus) = &left.kind else { return None };
            let (Some(modulus), Some(bound)) = (integer(modulus), integer(right)) else { return None };
            let part = match comparison.op {
                Op::Less => bound,
                Op::LessEqual => bound.saturating_add(1),
                Op::Equal => 1,
                _ => return None,
            };
            (op.op == Op::Remainder && modulus > 1 && part > 0 && part < modulus).then_some((part, modulus))
        }
        _ => None,
    }
}

fn integer(expr: &Expr) -> Option<u64> {
    match expr.kind {
        ExprKind::Literal(Literal::Integer(value) | Literal::Uint(value)) => Some(value),
        _ => None,
    }
}

fn per_cent(share: f64) -> String {
    // Three digits at most: 1 %, 0.25 %, 12.5 %.
    format!("{} %", (share * 1e5).round() / 1e3)
}
