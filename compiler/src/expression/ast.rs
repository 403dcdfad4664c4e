//! The abstract syntax of a condition.

use crate::diagnostic::Span;
use halftone_rules::operator::Binary;

/// Identifies an expression in its ruleset, so that tables can say more about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExprId(pub(crate) usize);

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) id: ExprId,
    /// Place in the ruleset's text.
    pub(crate) span: Span,
    pub(crate) kind: ExprKind,
}

/// What an expression is.
#[derive(Debug)]
pub(crate) enum ExprKind {
    Literal(Literal),
    List(Vec<Expr>),
    /// `{key: value, …}`
    Map(Vec<(Expr, Expr)>),
    /// `a.b.c`
    Name(Vec<String>),
    /// `a.b["c"]`
    Index(Box<Expr>, Box<Expr>),
    /// `{…}.field`; of names it is a longer name.
    Select(Box<Expr>, String),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// Comparison or arithmetic.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a && b && …`, two operands or more.
    And(Vec<Expr>),
    /// `a || b || …`, two operands or more.
    Or(Vec<Expr>),
    Conditional(Box<[Expr; 3]>),
    In(Box<Expr>, Box<Expr>),
    Call(Call),
}

impl Expr {
    /// The expressions that it is made of.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Name(_) => vec![],
            ExprKind::Not(a) | ExprKind::Negate(a) | ExprKind::Select(a, _) => vec![a],
            ExprKind::Binary(_, a, b) | ExprKind::In(a, b) | ExprKind::Index(a, b) => vec![a, b],
            ExprKind::List(parts) | ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter().collect(),
            ExprKind::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            ExprKind::Conditional(parts) => parts.iter().collect(),
            ExprKind::Call(call) => call.operands(),
        }
    }
}

impl Call {
    /// The receiver, when there is one, and the arguments.
    pub(crate) fn operands(&self) -> Vec<&Expr> {
        self.receiver.as_deref().into_iter().chain(&self.arguments).collect()
    }
}

/// `name(arguments)` or `receiver.name(arguments)`.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) receiver: Option<Box<Expr>>,
    pub(crate) arguments: Vec<Expr>,
}

/// A constant in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    /// Digits without a suffix: int, or uint where a uint is needed.
    Integer(u64),
    /// Digits without a suffix and with a minus before them: int.
    Negative(u64),
    /// Digits with the suffix `u`.
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// An operator that takes two operands of one type and evaluates both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BinaryOp {
    /// As it is written.
    pub(crate) symbol: &'static str,
    /// The operation that it compiles to.
    pub(crate) op: Binary,
}
