//! What compiles, but will surprise whoever wrote it.

mod cover;
mod split;
mod target;

use crate::{
    allocation::{coincide, takes_every_unit},
    compile::DEFAULT_TARGET,
    diagnostic::{Code, Diagnostics},
    document::{Document, Rule},
    expression::{Checker, Expr, ExprKind, Lowering, Node, Resolved},
};
use cover::Cover;
use halftone_rules::{
    Type,
    bucket::BUCKETS,
    bundle::Constant,
    isa::{ConstantId, Op},
    operator::Binary,
};
use std::collections::{HashMap, HashSet};

/// Reports all surprises of a document that has no errors. `conditions` are those of its rules and then its
/// experiments.
pub(crate) fn lint(
    document: &Document,
    conditions: &[Option<Node>],
    lowering: &Lowering,
    checker: &Checker,
    diagnostics: &mut Diagnostics<'_>,
) {
    let forced: HashSet<&str> = document.forced_entries().map(|name| name.value.as_str()).collect();
    let (mut cover, mut cover_of_units) = (Cover::default(), Cover::default());
    for (rule, condition) in document.rules.iter().zip(conditions) {
        let in_the_way = if takes_all(rule) {
            // Of two releases that are through, one may well stand behind the other.
            cover.covers(condition.as_ref(), lowering).filter(|earlier| is_of_text(document, earlier))
        } else {
            cover_of_units.covers(condition.as_ref(), lowering)
        };
        if rule.release.is_some()
            && let Some(earlier) = in_the_way
        {
            unreachable(rule, earlier, document, diagnostics);
        } else {
            never_matches(rule, condition.as_ref(), &cover, &forced, lowering, diagnostics);
        }
        let condition = condition.as_ref().filter(|node| constant(node, lowering) != Some(Ok(true)));
        if takes_all(rule) {
            cover.add(&rule.name, condition, lowering);
        }
        if takes_every_unit(rule, &document.layers) {
            cover_of_units.add(&rule.name, condition, lowering);
        }
    }
    let nothing = Cover::default();
    for (experiment, condition) in
        document.experiments.iter().zip(conditions.iter().skip(document.rules.len()))
    {
        never_matches(experiment, condition.as_ref(), &nothing, &forced, lowering, diagnostics);
    }
    for rule in document.rules.iter().chain(&document.experiments) {
        if let Some(condition) = &rule.condition {
            visit(condition, &mut |expr| negative_remainder(expr, checker, diagnostics));
            // A release has its share for a while only, and says so.
            if rule.release.is_none() {
                split::effective_share(rule, condition, diagnostics);
            }
        }
    }
    overlapping(document, conditions, lowering, diagnostics);
    targets_without_endpoints(document, diagnostics);
    for target in document.targets.iter().flatten() {
        target::settings(target, diagnostics);
    }
    undeclared_default(document, conditions, lowering, diagnostics);
    checker.misspelt_attributes(diagnostics);
}

/// Whether a rule takes every request for which its condition holds, at all times.
fn takes_all(rule: &Rule) -> bool {
    rule.share == BUCKETS
        && rule.arms.len() < 2
        && rule.layer.is_none()
        && rule.control.is_none()
        && rule.control_share() == 0
        && rule.schedule.is_none()
}

fn is_of_text(document: &Document, name: &str) -> bool {
    document.rules.iter().any(|rule| rule.name == name && rule.release.is_none())
}

/// A release that could see no unit would be waited for in vain.
fn unreachable(release: &Rule, earlier: &str, document: &Document, diagnostics: &mut Diagnostics<'_>) {
    let message = format!("no unit reaches it: `{earlier}` before it takes every one that it could");
    let help = if is_of_text(document, earlier) {
        format!("write `before: {earlier}`, or narrow that rule")
    } else {
        format!("narrow the condition of `{earlier}`, or put both into a layer, each with a range")
    };
    diagnostics.report_with_help(Code::Unreachable, &release.span, message, help);
}

/// Calls `f` on the expression and everything in it.
fn visit<'e>(expr: &'e Expr, f: &mut impl FnMut(&'e Expr)) {
    f(expr);
    for part in expr.parts() {
        visit(part, f);
    }
}

fn never_matches(
    rule: &Rule,
    condition: Option<&Node>,
    cover: &Cover,
    forced: &HashSet<&str>,
    lowering: &Lowering,
    diagnostics: &mut Diagnostics<'_>,
) {
    let (code, message, help) = if let Some(earlier) = cover.covers(condition, lowering) {
        (
            Code::NeverMatches,
            format!("it can never match: `{earlier}` before it takes every request that it could"),
            "move it up, or narrow the other one",
        )
    } else if rule.share == 0
        && rule.release.is_none()
        && rule.control.as_ref().is_none_or(|control| control.share == 0)
    {
        (Code::NeverMatches, "it can never match: its weight is 0".into(), "remove it, or raise its weight")
    } else {
        match condition.map(|node| constant(node, lowering)) {
            Some(Some(Ok(false))) => (
                Code::NeverMatches,
                "it can never match: its condition is false for every request".into(),
                "remove it, or correct the condition",
            ),
            Some(Some(Err(error))) => (
                Code::NeverHasValue,
                format!("the condition never has a value: {error}"),
                "a condition without a value does not match",
            ),
            _ => match condition.and_then(|node| contradiction(node, lowering)) {
                Some(what) => (
                    Code::NeverMatches,
                    format!("it can never match: {what} cannot have two values"),
                    "join the comparisons by `||`, or write `in`",
                ),
                None => return,
            },
        }
    };
    // A rule that only overrides give is of use: units get it before anybody else does.
    if code != Code::NeverMatches || !forced.contains(rule.name.as_str()) {
        diagnostics.report_with_help(code, &rule.span, message, help);
    }
}

/// The value of a condition that is the same for every request.
fn constant(node: &Node, lowering: &Lowering) -> Option<Result<bool, halftone_rules::EvalError>> {
    let Node::Leaf(ops) = node else { return None };
    match ops.as_slice() {
        [Op::Constant(ConstantId(id))] => match lowering.constants.get(*id as usize)? {
            Constant::Bool(value) => Some(Ok(*value)),
            _ => None,
        },
        [Op::Fail(_, error)] => Some(Err(*error)),
        _ => None,
    }
}

/// `a == x && a == y`
fn contradiction(node: &Node, lowering: &Lowering) -> Option<&'static str> {
    let mut demanded = HashMap::new();
    let differs = cover::equalities(node).any(|(attribute, constant)| {
        let before = demanded.insert(attribute, constant);
        before.is_some_and(|other| cover::differ(other, constant, lowering))
    });
    differs.then_some("an attribute")
}

/// `%` truncates, so the remainder of a negative number is negative.
fn negative_remainder(expr: &Expr, checker: &Checker, diagnostics: &mut Diagnostics<'_>) {
    let ExprKind::Binary(op, dividend, _) = &expr.kind else { return };
    let literal = matches!(dividend.kind, ExprKind::Literal(_));
    if op.op == Binary::Remainder
        && !literal
        && checker.type_of(dividend.id) == Some(Resolved::Scalar(Type::Int))
    {
        let message = "the remainder of a negative number is negative: -7 % 5 is -2";
        let help = "if the value is never negative, declare the attribute with `type: uint`";
        diagnostics.report_with_help(Code::NegativeRemainder, &expr.span, message, help);
    }
}

/// Two experiments that run at the same time on the same units and share no layer.
fn overlapping(
    document: &Document,
    conditions: &[Option<Node>],
    lowering: &Lowering,
    diagnostics: &mut Diagnostics<'_>,
) {
    let compares = |rule: &Rule| {
        rule.arms.len() > 1 || rule.control.is_some() || (rule.release.is_some() && !takes_all(rule))
    };
    let entries: Vec<(&Rule, bool, Option<&Node>)> = document
        .rules
        .iter()
        .map(|rule| (rule, false))
        .chain(document.experiments.iter().map(|experiment| (experiment, true)))
        .zip(conditions)
        .filter(|((rule, reported), _)| *reported || compares(rule))
        .map(|((rule, reported), condition)| (rule, reported, condition.as_ref()))
        .collect();
    for (at, (later, reported, condition)) in entries.iter().enumerate() {
        let clash = entries[..at].iter().find(|(earlier, other, other_condition)| {
            let layer = |rule: &Rule| rule.layer.as_ref().map(|layer| layer.value.clone());
            // Of two rules a unit takes the first that matches, so at least one is an experiment.
            (*reported || *other)
                && (layer(earlier).is_none() || layer(earlier) != layer(later))
                && coincide(earlier.schedule, later.schedule)
                && !cover::disjoint(*other_condition, *condition, lowering)
        });
        if let Some((earlier, ..)) = clash {
            let message = format!("units can be in `{}` and `{}` at the same time", earlier.name, later.name);
            let help = "if one can influence the other, put both into a layer, each with a range";
            diagnostics.report_with_help(Code::OverlappingExperiments, &later.span, message, help);
        }
    }
}

/// Targets of rules that the proxy does not know, while it knows others.
fn targets_without_endpoints(document: &Document, diagnostics: &mut Diagnostics<'_>) {
    let declared = document.targets.as_deref().unwrap_or_default();
    if declared.iter().all(|target| target.endpoints.is_empty()) {
        return;
    }
    let named: HashSet<&str> = document.named_targets().map(|name| name.value.as_str()).collect();
    let default = document.default.as_ref().map_or(DEFAULT_TARGET, |default| &default.value);
    for target in declared {
        // The default may be what the proxy has anyway.
        if target.endpoints.is_empty() && target.name != default && named.contains(target.name.as_str()) {
            let message = format!(
                "`{}` has no endpoints, but others have: the proxy sends its requests to `{default}`",
                target.name
            );
            let help =
                "give it endpoints, or leave out those of all if something else routes by x-halftone-target";
            diagnostics.report_with_help(Code::MissingEndpoints, &target.span, message, help);
        }
    }
}

/// A ruleset that says which targets there are, and not which of them is the default.
fn undeclared_default(
    document: &Document,
    conditions: &[Option<Node>],
    lowering: &Lowering,
    diagnostics: &mut Diagnostics<'_>,
) {
    let declared = document.targets.as_deref().unwrap_or_default();
    let (None, Some(first)) = (&document.default, declared.first()) else { return };
    if declared.iter().any(|target| target.name == DEFAULT_TARGET) {
        return;
    }
    let always = |(rule, condition): (&Rule, &Option<Node>)| {
        takes_all(rule)
            && condition.as_ref().is_none_or(|condition| constant(condition, lowering) == Some(Ok(true)))
    };
    let keeps = |rule: &Rule| rule.control.as_ref().is_some_and(|control| control.target.is_none());
    let reached = document.holdout > 0
        || document.rules.iter().any(keeps)
        || !document.rules.iter().zip(conditions).any(always);
    if reached {
        let message =
            format!("requests that no rule takes go to `{DEFAULT_TARGET}`, which is not among the targets");
        let help = format!(
            "add `default: {}`, or, if `{DEFAULT_TARGET}` is meant, declare it: `targets: {{{DEFAULT_TARGET}: , …}}`",
            first.name
        );
        diagnostics.report_with_help(Code::UndeclaredDefault, &first.span, message, help);
    }
}
