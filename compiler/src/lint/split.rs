//! Conditions that split units by hand.

use crate::{
    diagnostic::{Code, Diagnostics},
    document::Rule,
    expression::{Expr, ExprKind, Literal},
};
use halftone_rules::{bucket::BUCKETS, operator::Binary};

/// Shares below this are worth a word when the rule does not say them outright.
const SMALL_SHARE: f64 = 0.02;

/// A condition of the form `id % m < k` is a split by hand, and the weight splits again.
pub(super) fn effective_share(rule: &Rule, condition: &Expr, diagnostics: &mut Diagnostics<'_>) {
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
                Binary::Less => bound,
                Binary::LessEqual => bound.saturating_add(1),
                Binary::Equal => 1,
                _ => return None,
            };
            (op.op == Binary::Remainder && modulus > 1 && part > 0 && part < modulus)
                .then_some((part, modulus))
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
