//! From checked expressions to operations.

use super::{
    ast::{Expr, ExprKind, Literal},
    check::{Checker, Meaning},
};
use crate::diagnostic::{Code, Diagnostics};
use halftone_rules::{
    Condition, Constant, List, Type,
    isa::{ConstantId, ListId, Op, Skip},
    limits::{MAX_CONDITION_OPS, MAX_STACK},
};
use std::collections::HashMap;

/// The code and the constants of a ruleset, growing condition by condition.
#[derive(Default)]
pub(crate) struct Lowering {
    pub(crate) code: Vec<Op>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) lists: Vec<List>,
    index: HashMap<ConstantKey, ConstantId>,
}

/// Equal keys are equal constants. Doubles are compared by their bits.
#[derive(PartialEq, Eq, Hash)]
enum ConstantKey {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(u64),
    String(String),
}

/// Why an expression cannot be lowered; it is reported.
struct Reported;

impl Lowering {
    /// Compiles a condition; `None` when a number does not fit or the condition is too complex, which is
    /// then reported.
    pub(crate) fn condition(
        &mut self,
        expr: &Expr,
        checker: &Checker,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Condition> {
        let start = self.code.len();
        let mut emitter = Emitter { lowering: self, checker, diagnostics, depth: 0, deepest: 0 };
        emitter.expr(expr).ok()?;
        let deepest = emitter.deepest;
        let length = self.code.len() - start;
        if deepest > MAX_STACK || length > MAX_CONDITION_OPS {
            let message = format!(
                "the condition compiles to {length} operations on {deepest} values; at most {MAX_CONDITION_OPS} and {MAX_STACK} are allowed"
            );
            diagnostics.report_with_help(
                Code::TooComplex,
                &expr.span,
                message,
                "split it into several rules",
            );
            return None;
        }
        Some(Condition { start: u32::try_from(start).ok()?, length: u32::try_from(length).ok()? })
    }

    fn constant(&mut self, constant: Constant) -> ConstantId {
        let key = match &constant {
            Constant::Bool(value) => ConstantKey::Bool(*value),
            Constant::Int(value) => ConstantKey::Int(*value),
            Constant::Uint(value) => ConstantKey::Uint(*value),
            Constant::Double(value) => ConstantKey::Double(value.to_bits()),
            Constant::String(value) => ConstantKey::String(value.clone()),
        };
        *self.index.entry(key).or_insert_with(|| {
            self.constants.push(constant);
            // The text's size limit keeps the number of constants far below 2^32.
            ConstantId(u32::try_from(self.constants.len() - 1).unwrap_or(u32::MAX))
        })
    }
}

struct Emitter<'a, 'b> {
    lowering: &'a mut Lowering,
    checker: &'a Checker,
    diagnostics: &'a mut Diagnostics<'b>,
    /// Values on the stack now, and at most.
    depth: usize,
    deepest: usize,
}

impl Emitter<'_, '_> {
    /// Emits an operation that takes `pops` values and leaves one.
    fn emit(&mut self, op: Op, pops: usize) {
        self.lowering.code.push(op);
        self.depth = self.depth + 1 - pops;
        self.deepest = self.deepest.max(self.depth);
    }

    fn expr(&mut self, expr: &Expr) -> Result<(), Reported> {
        match &expr.kind {
            ExprKind::Literal(_) => self.constant(expr, false)?,
            ExprKind::Negate(operand) if matches!(operand.kind, ExprKind::Literal(_)) => {
                self.constant(operand, true)?;
            }
            ExprKind::Name(_) | ExprKind::Index(..) => self.attribute(expr),
            ExprKind::Not(operand) => {
                self.expr(operand)?;
                self.emit(Op::Not, 1);
            }
            ExprKind::Negate(operand) => {
                self.expr(operand)?;
                self.emit(Op::Negate, 1);
            }
            ExprKind::Binary(op, left, right) => {
                self.expr(left)?;
                self.expr(right)?;
                self.emit(op.op, 2);
            }
            ExprKind::And(operands) => self.chain(operands, Op::SkipIfFalse, Op::And)?,
            ExprKind::Or(operands) => self.chain(operands, Op::SkipIfTrue, Op::Or)?,
            ExprKind::Conditional(parts) => {
                for part in parts.iter() {
                    self.expr(part)?;
                }
                self.emit(Op::Select, 3);
            }
            ExprKind::In(value, list) => match &list.kind {
                ExprKind::List(elements) => {
                    self.expr(value)?;
                    let ty = self.checker.type_of(value.id).unwrap_or(Type::String);
                    let list = self.list(ty, elements)?;
                    self.emit(Op::In(list), 1);
                }
                _ => self.attribute(expr),
            },
            ExprKind::Call(call) => {
                for operand in call.receiver.as_deref().into_iter().chain(&call.arguments) {
                    if call.name != "has" {
                        self.expr(operand)?;
                    }
                }
                match call.name.as_str() {
                    "startsWith" => self.emit(Op::StartsWith, 2),
                    "endsWith" => self.emit(Op::EndsWith, 2),
                    "contains" => self.emit(Op::Contains, 2),
                    "size" => self.emit(Op::Size, 1),
                    _ => self.attribute(expr),
                }
            }
            // The checker lets a list stand only on the right of `in`.
            ExprKind::List(_) => return Err(Reported),
        }
        Ok(())
    }

    /// Each operand but the first is skipped when the value so far decides.
    fn chain(&mut self, operands: &[Expr], skip: fn(Skip) -> Op, join: Op) -> Result<(), Reported> {
        let mut skips = Vec::with_capacity(operands.len());
        for (index, operand) in operands.iter().enumerate() {
            if index > 0 {
                skips.push(self.lowering.code.len());
                self.lowering.code.push(skip(Skip(0)));
            }
            self.expr(operand)?;
            if index > 0 {
                self.emit(join, 2);
            }
        }
        let end = self.lowering.code.len();
        for at in skips {
            // A condition too long for the skip is refused for its length.
            self.lowering.code[at] = skip(Skip(u16::try_from(end - at - 1).unwrap_or(u16::MAX)));
        }
        Ok(())
    }

    fn attribute(&mut self, expr: &Expr) {
        match self.checker.meaning(expr.id) {
            Some(Meaning::Attribute(id)) => self.emit(Op::Load(id), 0),
            Some(Meaning::Presence(id)) => self.emit(Op::Has(id), 0),
            // Without a meaning the checker has reported an error, and nothing is lowered.
            None => {}
        }
    }

    fn constant(&mut self, literal: &Expr, negative: bool) -> Result<(), Reported> {
        let constant = self.value(literal, negative)?;
        let id = self.lowering.constant(constant);
        self.emit(Op::Constant(id), 0);
        Ok(())
    }

    /// The value of a literal in the type that the checker found.
    fn value(&mut self, expr: &Expr, negative: bool) -> Result<Constant, Reported> {
        let ExprKind::Literal(literal) = &expr.kind else {
            return Err(Reported);
        };
        let constant = match literal {
            Literal::Bool(value) => Some(Constant::Bool(*value)),
            Literal::Uint(value) => Some(Constant::Uint(*value)),
            Literal::Double(value) => Some(Constant::Double(if negative { -value } else { *value })),
            Literal::String(value) => Some(Constant::String(value.clone())),
            Literal::Integer(value) if self.checker.type_of(expr.id) == Some(Type::Uint) => {
                Some(Constant::Uint(*value))
            }
            Literal::Integer(value) if negative => 0i64.checked_sub_unsigned(*value).map(Constant::Int),
            Literal::Integer(value) => i64::try_from(*value).ok().map(Constant::Int),
        };
        constant.ok_or_else(|| {
            let help =
                "an int goes from -9223372036854775808 to 9223372036854775807; for larger ones write 1u";
            let message = "the number is too large for an int";
            self.diagnostics.report_with_help(Code::NumberOutOfRange, &expr.span, message, help);
            Reported
        })
    }

    /// A list constant: sorted, each element once.
    fn list(&mut self, ty: Type, elements: &[Expr]) -> Result<ListId, Reported> {
        let mut constants = Vec::with_capacity(elements.len());
        for element in elements {
            constants.push(match &element.kind {
                ExprKind::Negate(operand) => self.value(operand, true)?,
                _ => self.value(element, false)?,
            });
        }
        let list = match ty {
            Type::Int => {
                List::Int(sorted(&constants, |c| if let Constant::Int(v) = c { Some(*v) } else { None }))
            }
            Type::Uint => {
                List::Uint(sorted(&constants, |c| if let Constant::Uint(v) = c { Some(*v) } else { None }))
            }
            // Lists hold no bools of their own: as integers they would need a type of value of their own.
            Type::Bool => return self.bools(elements),
            Type::Double => {
                let mut values: Vec<f64> = constants
                    .iter()
                    .filter_map(|c| if let Constant::Double(v) = c { Some(*v) } else { None })
                    .collect();
                values.sort_by(f64::total_cmp);
                // -0.0 and 0.0 are one element.
                values.dedup_by(|a, b| a == b);
                List::Double(values)
            }
            Type::String => List::String(sorted(&constants, |c| {
                if let Constant::String(v) = c { Some(v.clone()) } else { None }
            })),
        };
        self.lowering.lists.push(list);
        Ok(ListId(u32::try_from(self.lowering.lists.len() - 1).unwrap_or(u32::MAX)))
    }

    fn bools(&mut self, elements: &[Expr]) -> Result<ListId, Reported> {
        let span = elements.first().map_or(0..0, |element| element.span.clone());
        let message = "a list of bools is not supported";
        self.diagnostics.report_with_help(
            Code::UnsupportedFeature,
            &span,
            message,
            "use the value or its `!`",
        );
        Err(Reported)
    }
}

fn sorted<T: Ord>(constants: &[Constant], value: impl Fn(&Constant) -> Option<T>) -> Vec<T> {
    let mut values: Vec<T> = constants.iter().filter_map(value).collect();
    values.sort();
    values.dedup();
    values
}
