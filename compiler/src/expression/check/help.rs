//! What to do about types that do not fit: the help below a problem.

use super::{Checker, Demand, INDEX, Meaning, Resolved};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    expression::ast::{Expr, ExprKind, Literal},
};
use halftone_rules::Type;

/// Reports an operation that attributes of type `list` do not have; `list` is where one stands.
pub(super) fn not_on_a_list(by: &str, span: &Span, list: &Span, diagnostics: &mut Diagnostics<'_>) {
    let name = diagnostics.text().get(list.clone()).unwrap_or_default();
    let message = format!("{by} does not work on a list of the request");
    let help = format!("write \"x\" in {name}, or size({name})");
    diagnostics.report_with_help(Code::TypeMismatch, span, message, help);
}

pub(super) fn mismatch_help(demand: &Demand, found: Resolved) -> Option<&'static str> {
    Some(match (demand.allowed.as_slice(), found) {
        ([Type::Int], Resolved::Scalar(Type::String)) if demand.by == INDEX => return None,
        (_, Resolved::List) if demand.by == "`cidr`" => {
            "write it once for each network, joined by `||`: cidr(a.b, \"10.0.0.0/8\") || cidr(a.b, \"fd00::/8\")"
        }
        ([Type::String], Resolved::List) => "write it once for each text, joined by `||`",
        ([Type::Bool], _) => "compare it with something, for example with `==`",
        (_, Resolved::Scalar(Type::Double)) if demand.by == "`%`" => "`%` works on integers only",
        (_, Resolved::Scalar(Type::Uint)) if demand.by == "`-`" => {
            "a uint has no negative values; declare the attribute as int"
        }
        ([Type::Int, ..], Resolved::Scalar(Type::String)) => {
            "strings cannot be computed with; if it is a number, declare the attribute with `type: int`"
        }
        ([Type::String], Resolved::Scalar(Type::Int | Type::Uint | Type::Double)) => {
            "if it is a text, declare the attribute with `type: string`, or put the literal into quotes"
        }
        _ => return None,
    })
}

/// The literal, or the literals of a list.
fn literals(expr: &Expr) -> Option<Vec<&Literal>> {
    let parts = match &expr.kind {
        ExprKind::List(elements) if !elements.is_empty() => expr.parts(),
        _ => vec![expr],
    };
    parts
        .into_iter()
        .map(|part| if let ExprKind::Literal(of) = &part.kind { Some(of) } else { None })
        .collect()
}

/// The string literal, or those of a list.
fn strings(expr: &Expr) -> Option<Vec<&str>> {
    let literals = literals(expr)?.into_iter();
    literals.map(|of| if let Literal::String(text) = of { Some(text.as_str()) } else { None }).collect()
}

fn elements_help((a, left): (Type, &Expr), (b, right): (Type, &Expr)) -> Option<&'static str> {
    let numeric =
        |expr: &Expr| strings(expr).is_some_and(|texts| texts.iter().all(|text| text.parse::<f64>().is_ok()));
    match (a, b) {
        (Type::String, Type::Int | Type::Uint | Type::Double) if numeric(left) => {
            Some("write all numbers with quotes, or none")
        }
        (Type::Int | Type::Uint | Type::Double, Type::String) if numeric(right) => {
            Some("write all numbers with quotes, or none")
        }
        (Type::String, Type::Int | Type::Uint | Type::Double)
        | (Type::Int | Type::Uint | Type::Double, Type::String) => Some("put the number into quotes"),
        _ => None,
    }
}

impl Checker {
    /// The attribute that an expression is.
    pub(super) fn attribute_of(&self, expr: &Expr) -> Option<usize> {
        match self.meanings.get(&expr.id) {
            Some(Meaning::Attribute(id)) => Some(usize::from(id.0)),
            _ => None,
        }
    }

    /// Why an attribute that is not declared has its type: `user.score` is an int because of line 4.
    pub(super) fn because(&self, expr: &Expr, here: &Span, diagnostics: &Diagnostics<'_>) -> Option<String> {
        let index = self.attribute_of(expr)?;
        let (var, _) = self.attributes.get(index)?;
        let span = self.fixed.get(&index).filter(|span| *span != here)?;
        let name = &self.names.used().get(index)?.name;
        let (place, ty) = (diagnostics.place_in_words(span), self.resolved(*var).with_article());
        Some(format!("`{name}` is {ty} because of {place}"))
    }

    /// What to do about two operands of different types.
    pub(super) fn difference_help(
        &self,
        (a, left): (Resolved, &Expr),
        (b, right): (Resolved, &Expr),
        by: &str,
        diagnostics: &Diagnostics<'_>,
    ) -> Option<String> {
        let (Resolved::Scalar(a), Resolved::Scalar(b)) = (a, b) else { return None };
        if matches!(by, "a list" | "a map") {
            return elements_help((a, left), (b, right)).map(ToOwned::to_owned);
        }
        self.literal_help((a, left), (b, right), diagnostics)
            .or_else(|| self.literal_help((b, right), (a, left), diagnostics))
            .or_else(|| types_help(a, b).map(ToOwned::to_owned))
    }

    /// As [`Self::difference_help`], when the first of the two is what was written wrongly: a literal.
    fn literal_help(
        &self,
        (literal, written): (Type, &Expr),
        (wanted, other): (Type, &Expr),
        diagnostics: &Diagnostics<'_>,
    ) -> Option<String> {
        let literals = literals(written)?;
        let attribute = self.attribute_of(other);
        let declare = |ty: &str| attribute.and_then(|index| self.names.declaration(index, ty));
        let or_declare = |what: &str, ty: &str| match declare(ty) {
            Some(declare) => format!("{what}, or {declare}"),
            None => what.to_owned(),
        };
        let name = diagnostics.text().get(other.span.clone()).unwrap_or_default();
        let of_request = attribute.is_some() && declare("int").is_none();
        // What is compared with a version, by its name.
        let is_version = name.to_ascii_lowercase().contains("version");
        let version = || {
            let text = diagnostics.text().get(written.span.clone()).unwrap_or_default();
            let parts = text.split('.').count();
            format!("semver(\"{text}{}\")", ".0".repeat(3usize.saturating_sub(parts)))
        };
        Some(match (literal, wanted) {
            (Type::String, Type::Int | Type::Uint | Type::Double) => {
                let texts = strings(written)?;
                let numeric = match wanted {
                    Type::Double => texts.iter().all(|text| text.parse::<f64>().is_ok()),
                    _ => texts.iter().all(|text| text.parse::<i128>().is_ok()),
                };
                match (numeric, texts.as_slice()) {
                    (true, [_]) if !matches!(written.kind, ExprKind::List(_)) => {
                        "write the number without quotes".into()
                    }
                    (true, _) => or_declare("write the numbers without quotes", "string"),
                    (false, _) => declare("string").unwrap_or_else(|| "compare it with a number".into()),
                }
            }
            (Type::Double | Type::Int, Type::String)
                if is_version && attribute.is_some() && literals.len() == 1 =>
            {
                let declare = declare("semver").unwrap_or_else(|| format!("convert it: semver({name})"));
                format!("if it is a version, {declare} and write {}", version())
            }
            (Type::Double, Type::Semver) if literals.len() == 1 => format!("write {}", version()),
            (Type::Int | Type::Uint | Type::Double, Type::String) => {
                let what = if literals.len() == 1 {
                    "put the number into quotes"
                } else {
                    "put the numbers into quotes"
                };
                let ty = literal.name();
                if of_request { format!("{what}, or convert: {ty}({name})") } else { or_declare(what, ty) }
            }
            (Type::String, Type::Bool) => match strings(written)?.as_slice() {
                [text @ ("true" | "false")] => format!("write {text} without quotes"),
                _ => declare("string").unwrap_or_else(|| "compare it with true or false".into()),
            },
            (Type::Bool, Type::String) => or_declare("put it into quotes", "bool"),
            (Type::Int, Type::Bool) => or_declare("write true or false", literal.name()),
            (Type::Int, Type::Double) => {
                "write the whole number with a decimal point, for example 1.0".into()
            }
            (Type::Double, Type::Int | Type::Uint) => {
                or_declare(&format!("convert it: double({name})"), "double")
            }
            _ => return None,
        })
    }

    /// How to ask what was meant by an operator that does not work on lists of the request.
    pub(super) fn list_help(
        &self,
        by: &str,
        list: &Expr,
        other: &Expr,
        diagnostics: &Diagnostics<'_>,
    ) -> Option<String> {
        let name = diagnostics.text().get(list.span.clone())?;
        let text = |expr: &Expr| diagnostics.text().get(expr.span.clone()).map(ToOwned::to_owned);
        let asked: Vec<String> = match &other.kind {
            ExprKind::Literal(Literal::String(_)) => vec![text(other)?],
            ExprKind::List(elements) if (1..=3).contains(&elements.len()) && strings(other).is_some() => {
                elements.iter().filter_map(text).collect()
            }
            _ => return None,
        };
        let asked: Vec<String> = asked.into_iter().map(|element| format!("{element} in {name}")).collect();
        let asked = asked.join(" && ");
        Some(if by == "`!=`" { format!("write !({asked})") } else { format!("write {asked}") })
    }
}

/// What to do about two types that differ, whatever is written.
fn types_help(a: Type, b: Type) -> Option<&'static str> {
    use Type::{Double, Int, Semver, String, Timestamp, Uint};
    Some(match (a, b) {
        (Double, Int) | (Int, Double) => {
            "declare the attribute with `type: double`, or convert one side: double(x)"
        }
        (String, Int | Uint | Double) | (Int | Uint | Double, String) => {
            "declare both attributes with one type, or convert one side: int(x)"
        }
        (Int, Uint) | (Uint, Int) => {
            "int and uint do not mix; declare both alike, or convert one side: int(x)"
        }
        (Semver, String) | (String, Semver) => {
            "write semver(\"1.2.3\"), or declare the attribute with `type: semver`"
        }
        (Timestamp, String) | (String, Timestamp) => "write timestamp(\"2026-01-31T08:00:00Z\")",
        _ => return None,
    })
}
