//! Types: infers them over all conditions of a ruleset, and reports what does not fit.
//!
//! Types are static as in CEL, with two conveniences that make the short forms work: digits without a
//! suffix are an int, or a uint where a uint is needed; and an attribute that is not declared gets its
//! type from its use. Inference is by unification: each expression has a variable, each operator says
//! which variables are the same.

use super::{
    ast::{Call, Expr, ExprId, ExprKind, Literal},
    names::{Names, UnknownName, header_source},
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    suggest::did_you_mean,
};
use halftone_rules::{
    Type,
    isa::{AttributeId, Class, Effect, Yields},
};
use std::collections::HashMap;

/// A type that may not be known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeVar(usize);

#[derive(Clone, Copy, Debug)]
enum Binding {
    /// Nothing is known.
    Open,
    /// An integer literal: int unless a uint is needed.
    Integer,
    Known(Type),
    /// The same as another variable.
    Same(TypeVar),
}

/// What a name or a call resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Attribute(AttributeId),
    Presence(AttributeId),
}

/// A type that an operand must have in the end.
struct Demand {
    var: TypeVar,
    class: Class,
    span: Span,
    /// The operator or function, for the message.
    by: String,
}

/// The names, types and meanings of all conditions of a ruleset.
pub(crate) struct Checker {
    names: Names,
    bindings: Vec<Binding>,
    /// Of expressions, by their ids.
    types: HashMap<ExprId, TypeVar>,
    meanings: HashMap<ExprId, Meaning>,
    /// Of attributes, by their indices.
    attributes: Vec<TypeVar>,
    demands: Vec<Demand>,
}

const FUNCTIONS: [&str; 5] = ["startsWith", "endsWith", "contains", "size", "has"];

/// CEL has them, this language does not.
const OTHER_CEL_FUNCTIONS: [&str; 22] = [
    "matches",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "dyn",
    "type",
    "timestamp",
    "duration",
    "getFullYear",
    "getHours",
    "getDate",
    "getMonth",
    "getDayOfWeek",
    "getMinutes",
];

impl Checker {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            bindings: Vec::new(),
            types: HashMap::new(),
            meanings: HashMap::new(),
            attributes: Vec::new(),
            demands: Vec::new(),
        }
    }

    /// Takes a rule's condition in.
    pub(crate) fn condition(&mut self, expr: &Expr, diagnostics: &mut Diagnostics<'_>) {
        if let Some(var) = self.infer(expr, diagnostics) {
            self.demand(var, Class::Bool, &expr.span, "a condition");
        }
    }

    /// Fixes what is still open and checks the demands. To be called once, after all conditions.
    pub(crate) fn finish(&mut self, diagnostics: &mut Diagnostics<'_>) {
        for demand in std::mem::take(&mut self.demands) {
            let root = self.compressed_root(demand.var);
            if let Binding::Open = self.bindings[root.0] {
                self.bindings[root.0] = match demand.class {
                    Class::Bool => Binding::Known(Type::Bool),
                    Class::String => Binding::Known(Type::String),
                    Class::Number | Class::Integer | Class::Signed => Binding::Known(Type::Int),
                    Class::Any => Binding::Open,
                };
            }
            let ty = self.known(demand.var);
            if !demand.class.contains(ty) {
                let wanted = match demand.class {
                    Class::Bool => "a bool",
                    Class::Number => "a number",
                    Class::Integer => "an int or a uint",
                    Class::Signed => "an int or a double",
                    Class::String => "a string",
                    Class::Any => "a value",
                };
                let message = format!("{} needs {wanted}, but this is {}", demand.by, with_article(ty));
                let help = match (demand.class, ty) {
                    (Class::Integer, Type::Double) => Some("`%` works on integers only"),
                    (Class::Signed, Type::Uint) => {
                        Some("a uint has no negative values; declare the attribute as int")
                    }
                    (Class::Bool, _) => Some("compare it with something, for example with `==`"),
                    (Class::Number, Type::String) => Some(
                        "strings cannot be computed with; if it is a number, declare the attribute with `type: int`",
                    ),
                    _ => None,
                };
                report(diagnostics, Code::TypeMismatch, &demand.span, message, help);
            }
        }
    }

    /// The attributes that the conditions use, with their types. After [`Self::finish`].
    pub(crate) fn attributes(&self) -> Vec<halftone_rules::Attribute> {
        let attribute = |(used, var): (&super::names::UsedAttribute, &TypeVar)| halftone_rules::Attribute {
            name: used.name.clone(),
            source: used.source.clone(),
            ty: self.known(*var),
        };
        self.names.used().iter().zip(&self.attributes).map(attribute).collect()
    }

    /// An expression's type. After [`Self::finish`].
    pub(crate) fn type_of(&self, id: ExprId) -> Option<Type> {
        self.types.get(&id).map(|var| self.known(*var))
    }

    /// What a name or a call means.
    pub(crate) fn meaning(&self, id: ExprId) -> Option<Meaning> {
        self.meanings.get(&id).copied()
    }

    /// The names that rules may use.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    fn fresh(&mut self, binding: Binding) -> TypeVar {
        self.bindings.push(binding);
        TypeVar(self.bindings.len() - 1)
    }

    fn root(&self, mut var: TypeVar) -> TypeVar {
        while let Binding::Same(other) = self.bindings[var.0] {
            var = other;
        }
        var
    }

    /// As [`Self::root`], and the next look-up takes one step: long lists of literals stay cheap.
    fn compressed_root(&mut self, mut var: TypeVar) -> TypeVar {
        let root = self.root(var);
        while let Binding::Same(other) = self.bindings[var.0] {
            self.bindings[var.0] = Binding::Same(root);
            var = other;
        }
        root
    }

    /// The variable's type, where what is open is a string and an integer literal an int.
    fn known(&self, var: TypeVar) -> Type {
        match self.bindings[self.root(var).0] {
            Binding::Known(ty) => ty,
            Binding::Integer => Type::Int,
            Binding::Open | Binding::Same(_) => Type::String,
        }
    }

    /// Makes the two the same, if they can be.
    fn unify(&mut self, a: TypeVar, b: TypeVar) -> bool {
        let (a, b) = (self.compressed_root(a), self.compressed_root(b));
        if a == b {
            return true;
        }
        let (from, to) = match (self.bindings[a.0], self.bindings[b.0]) {
            (Binding::Open, _) => (a, b),
            (_, Binding::Open) => (b, a),
            (Binding::Integer, Binding::Known(Type::Int | Type::Uint)) => (a, b),
            (Binding::Integer | Binding::Known(Type::Int | Type::Uint), Binding::Integer) => (b, a),
            (Binding::Known(x), Binding::Known(y)) if x == y => (b, a),
            _ => return false,
        };
        self.bindings[from.0] = Binding::Same(to);
        true
    }

    fn demand(&mut self, var: TypeVar, class: Class, span: &Span, by: &str) {
        self.demands.push(Demand { var, class, span: span.clone(), by: by.into() });
    }

    /// The variable of an expression; `None` when something in it is wrong, which is then reported.
    fn infer(&mut self, expr: &Expr, diagnostics: &mut Diagnostics<'_>) -> Option<TypeVar> {
        let var = match &expr.kind {
            ExprKind::Literal(literal) => self.fresh(match literal {
                Literal::Bool(_) => Binding::Known(Type::Bool),
                Literal::Integer(_) => Binding::Integer,
                Literal::Uint(_) => Binding::Known(Type::Uint),
                Literal::Double(_) => Binding::Known(Type::Double),
                Literal::String(_) => Binding::Known(Type::String),
            }),
            ExprKind::List(_) => {
                let help = "a list stands on the right of `in`: x in [\"a\", \"b\"]";
                let message = "a list cannot be used as a value";
                diagnostics.report_with_help(Code::UnsupportedFeature, &expr.span, message, help);
                return None;
            }
            ExprKind::Name(_) | ExprKind::Index(..) => {
                let (index, var) = self.attribute(expr, diagnostics)?;
                self.meanings.insert(expr.id, Meaning::Attribute(index));
                var
            }
            ExprKind::Not(operand) => {
                let var = self.infer(operand, diagnostics)?;
                self.demand(var, Class::Bool, &operand.span, "`!`");
                var
            }
            ExprKind::Negate(operand) => {
                let var = self.infer(operand, diagnostics)?;
                self.demand(var, Class::Signed, &operand.span, "`-`");
                var
            }
            ExprKind::Binary(op, left, right) => {
                let sides = (self.infer(left, diagnostics), self.infer(right, diagnostics));
                let (Some(a), Some(b)) = sides else { return None };
                let by = format!("`{}`", op.symbol);
                let Effect::Binary(class, yields) = op.op.effect() else {
                    return None;
                };
                if !self.same(a, b, &by, expr, diagnostics) {
                    return None;
                }
                if class != Class::Any {
                    self.demand(a, class, &left.span, &by);
                }
                match yields {
                    Yields::Same => a,
                    Yields::Bool => self.fresh(Binding::Known(Type::Bool)),
                    Yields::Int => self.fresh(Binding::Known(Type::Int)),
                }
            }
            ExprKind::And(operands) | ExprKind::Or(operands) => {
                let by = if matches!(expr.kind, ExprKind::And(_)) { "`&&`" } else { "`||`" };
                let mut complete = true;
                for operand in operands {
                    match self.infer(operand, diagnostics) {
                        Some(var) => self.demand(var, Class::Bool, &operand.span, by),
                        None => complete = false,
                    }
                }
                if !complete {
                    return None;
                }
                self.fresh(Binding::Known(Type::Bool))
            }
            ExprKind::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                let vars = [condition, then, otherwise].map(|part| self.infer(part, diagnostics));
                let [Some(chooser), Some(a), Some(b)] = vars else {
                    return None;
                };
                self.demand(chooser, Class::Bool, &condition.span, "`?`");
                if !self.same(a, b, "`? :`", expr, diagnostics) {
                    return None;
                }
                a
            }
            ExprKind::In(value, list) => {
                self.membership(expr.id, value, list, diagnostics)?;
                self.fresh(Binding::Known(Type::Bool))
            }
            ExprKind::Call(call) => self.call(expr, call, diagnostics)?,
        };
        self.types.insert(expr.id, var);
        Some(var)
    }

    /// Unifies two operands or reports that they differ.
    fn same(
        &mut self,
        a: TypeVar,
        b: TypeVar,
        by: &str,
        expr: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> bool {
        if self.unify(a, b) {
            return true;
        }
        let (a, b) = (self.known(a), self.known(b));
        let message =
            format!("{by} needs two values of one type, but these are {} and {}", a.name(), b.name());
        let help = match (a, b) {
            (Type::Double, Type::Int) | (Type::Int, Type::Double) => {
                Some("write the whole number with a decimal point, for example 1.0")
            }
            (Type::String, Type::Int | Type::Uint | Type::Double)
            | (Type::Int | Type::Uint | Type::Double, Type::String) => Some(
                "put the number into quotes, or declare the attribute with a numeric type under `attributes`",
            ),
            (Type::Int, Type::Uint) | (Type::Uint, Type::Int) => {
                Some("int and uint do not mix; declare both alike")
            }
            _ => None,
        };
        report(diagnostics, Code::TypeMismatch, &expr.span, message, help);
        false
    }

    /// The index and the type of the attribute that an expression names.
    fn attribute(
        &mut self,
        expr: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<(AttributeId, TypeVar)> {
        if diagnostics.is_full() {
            return None;
        }
        let resolved = match &expr.kind {
            ExprKind::Name(path) => self.names.source(path).map(|(source, ty)| (path.join("."), source, ty)),
            ExprKind::Index(map, key) => {
                let headers =
                    matches!(&map.kind, ExprKind::Name(path) if path.join(".") == "request.headers");
                let ExprKind::Literal(Literal::String(header)) = &key.kind else {
                    let message = "an index must be a string literal";
                    diagnostics.report(Code::UnsupportedFeature, &key.span, message);
                    return None;
                };
                if !headers {
                    let message = "only `request.headers` can be indexed";
                    diagnostics.report(Code::UnsupportedFeature, &map.span, message);
                    return None;
                }
                let name = format!("request.headers[{header:?}]").to_ascii_lowercase();
                header_source(header).map(|source| (name, source, Some(Type::String)))
            }
            _ => {
                diagnostics.report(Code::TypeMismatch, &expr.span, "this is not an attribute");
                return None;
            }
        };
        match resolved {
            Ok((name, source, ty)) => {
                let index = self.names.use_attribute(name, source);
                if index == self.attributes.len() {
                    let var = self.fresh(ty.map_or(Binding::Open, Binding::Known));
                    self.attributes.push(var);
                }
                // More attributes than the bundle's limit are reported once, at the end.
                let id = AttributeId(u16::try_from(index).unwrap_or(u16::MAX));
                Some((id, self.attributes[index]))
            }
            Err(UnknownName { code, message, help }) => {
                diagnostics.report_with_help(code, &expr.span, message, help);
                None
            }
        }
    }

    /// `value in list`, where the list is a literal or `request.headers`.
    fn membership(
        &mut self,
        id: ExprId,
        value: &Expr,
        list: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<()> {
        match &list.kind {
            ExprKind::Name(path) if path.join(".") == "request.headers" => {
                let ExprKind::Literal(Literal::String(header)) = &value.kind else {
                    let message = "the name of a header must be a string literal";
                    diagnostics.report(Code::UnsupportedFeature, &value.span, message);
                    return None;
                };
                let path = ["request".into(), "headers".into(), header.clone()];
                let named = Expr { id, span: value.span.clone(), kind: ExprKind::Name(path.into()) };
                let (index, _) = self.attribute(&named, diagnostics)?;
                self.meanings.insert(id, Meaning::Presence(index));
            }
            ExprKind::List(elements) => {
                let var = self.infer(value, diagnostics)?;
                let mut complete = true;
                for element in elements {
                    if !is_constant(element) {
                        let help = "compare with `==` and join by `||`";
                        let message = "the elements of a list must be literals";
                        diagnostics.report_with_help(Code::UnsupportedFeature, &element.span, message, help);
                        complete = false;
                    } else if let Some(other) = self.infer(element, diagnostics) {
                        complete &= self.same(var, other, "`in`", element, diagnostics);
                    }
                }
                if !complete {
                    return None;
                }
            }
            _ => {
                let message = "`in` needs a list of literals or `request.headers` on its right";
                let help = "write x in [\"a\", \"b\"] or \"x-header\" in request.headers";
                diagnostics.report_with_help(Code::TypeMismatch, &list.span, message, help);
                return None;
            }
        }
        Some(())
    }

    fn call(&mut self, expr: &Expr, call: &Call, diagnostics: &mut Diagnostics<'_>) -> Option<TypeVar> {
        let operands: Vec<&Expr> = call.receiver.as_deref().into_iter().chain(&call.arguments).collect();
        match (call.name.as_str(), call.receiver.is_some(), operands.as_slice()) {
            ("startsWith" | "endsWith" | "contains", true, [text, part]) => {
                let vars = (self.infer(text, diagnostics), self.infer(part, diagnostics));
                let (Some(text_var), Some(part_var)) = vars else {
                    return None;
                };
                let by = format!("`{}`", call.name);
                self.demand(text_var, Class::String, &text.span, &by);
                self.demand(part_var, Class::String, &part.span, &by);
                Some(self.fresh(Binding::Known(Type::Bool)))
            }
            ("size", _, [text]) => {
                let var = self.infer(text, diagnostics)?;
                self.demand(var, Class::String, &text.span, "`size`");
                Some(self.fresh(Binding::Known(Type::Int)))
            }
            ("has", false, [attribute]) => {
                let (index, _) = self.attribute(attribute, diagnostics)?;
                self.meanings.insert(expr.id, Meaning::Presence(index));
                Some(self.fresh(Binding::Known(Type::Bool)))
            }
            ("startsWith" | "endsWith" | "contains" | "size" | "has", ..) => {
                let form = match call.name.as_str() {
                    "size" => "size(text) or text.size()",
                    "has" => "has(a.b)",
                    name => &format!("text.{name}(\"part\")"),
                };
                let message = format!("`{}` is not called like this", call.name);
                diagnostics.report_with_help(
                    Code::TypeMismatch,
                    &expr.span,
                    message,
                    format!("write {form}"),
                );
                None
            }
            (name, ..) if OTHER_CEL_FUNCTIONS.contains(&name) => {
                let message = format!("`{name}`: this function of CEL is not part of the rule language");
                let help = format!("known are: {}", FUNCTIONS.join(", "));
                diagnostics.report_with_help(Code::UnsupportedFeature, &call.name_span, message, help);
                None
            }
            (name, ..) => {
                let message = format!("there is no function `{name}`");
                let help = did_you_mean(name, FUNCTIONS);
                diagnostics.report_with_help(Code::UnknownFunction, &call.name_span, message, help);
                None
            }
        }
    }
}

/// A literal, or a number with a minus before it.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Literal(_) => true,
        ExprKind::Negate(operand) => {
            matches!(operand.kind, ExprKind::Literal(Literal::Integer(_) | Literal::Double(_)))
        }
        _ => false,
    }
}

fn with_article(ty: Type) -> String {
    let article = if ty == Type::Int { "an" } else { "a" };
    format!("{article} {}", ty.name())
}

fn report(diagnostics: &mut Diagnostics<'_>, code: Code, span: &Span, message: String, help: Option<&str>) {
    match help {
        Some(help) => diagnostics.report_with_help(code, span, message, help),
        None => diagnostics.report(code, span, message),
    }
}
