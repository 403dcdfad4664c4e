//! Types: infers them over all conditions of a ruleset, and reports what does not fit.
//!
//! Types are static as in CEL, with two conveniences that make the short forms work: digits without a
//! suffix are an int, or a uint where an attribute needs a uint; and an attribute that is not declared gets
//! its type from its use. Inference is by unification: each expression has a variable, each operator says
//! which variables are the same.

mod help;

use super::{
    ast::{BinaryOp, Call, Expr, ExprId, ExprKind, Literal},
    functions::{self, Kind},
    names::{Named, Names, UnknownName, UsedAttribute, how_to_declare, is_attribute_name, map_entry},
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    suggest::did_you_mean,
};
use halftone_rules::{
    Type,
    bundle::Constant,
    isa::AttributeId,
    operator::{Binary, Unary},
};
use help::{mismatch_help, not_on_a_list};
use std::{collections::HashMap, rc::Rc};

/// A type that may not be known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TypeVar(usize);

#[derive(Clone, Copy, Debug)]
enum Binding {
    /// Nothing is known.
    Open,
    /// An integer literal: int unless a uint is needed.
    Integer,
    Known(Type),
    /// A list constant and the type of its elements.
    List(TypeVar),
    /// A map constant and the types of its keys and values.
    Map(TypeVar, TypeVar),
    /// The same as another variable.
    Same(TypeVar),
}

/// A type once all conditions have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Scalar(Type),
    /// A list constant.
    List,
    /// A map constant.
    Map,
}

impl Resolved {
    fn name(self) -> &'static str {
        match self {
            Self::Scalar(ty) => ty.name(),
            Self::List => "list",
            Self::Map => "map",
        }
    }

    fn with_article(self) -> String {
        let article = if self == Self::Scalar(Type::Int) { "an" } else { "a" };
        format!("{article} {}", self.name())
    }
}

/// What a name or a call resolved to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Attribute(AttributeId),
    Presence(AttributeId),
    Constant(Rc<Constant>),
    Now,
}

/// A type that an operand must have in the end.
struct Demand {
    var: TypeVar,
    /// The first is what an operand gets whose type is open.
    allowed: Vec<Type>,
    /// What is allowed besides when the operand is a constant.
    constant: ConstantOnly,
    /// Whether the operand is one.
    is_constant: bool,
    span: Span,
    /// The operator or function, for the message.
    by: String,
    /// What to do when the operand is a list of the request.
    help: Option<String>,
}

/// What an operation does for constants only, because it would need memory for each request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConstantOnly {
    Nothing,
    /// These types.
    Types(&'static [Type]),
    /// These types, lists and maps.
    TypesAndContainers(&'static [Type]),
}

/// The names, types and meanings of all conditions of a ruleset.
pub(crate) struct Checker {
    names: Names,
    bindings: Vec<Binding>,
    /// Of expressions, by their ids.
    types: HashMap<ExprId, TypeVar>,
    meanings: HashMap<ExprId, Meaning>,
    /// Of attributes, by their indices, with the place of the first use.
    attributes: Vec<(TypeVar, Span)>,
    /// What gave attributes that are not declared their types, by their indices.
    fixed: HashMap<usize, Span>,
    demands: Vec<Demand>,
}

/// What asks for the type of a list's index, for messages.
const INDEX: &str = "`[]` on a list";

const COMPARABLE: [Type; 9] = [
    Type::String,
    Type::Int,
    Type::Uint,
    Type::Double,
    Type::Bool,
    Type::Bytes,
    Type::Timestamp,
    Type::Duration,
    Type::Semver,
];

impl Checker {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            bindings: Vec::new(),
            types: HashMap::new(),
            meanings: HashMap::new(),
            attributes: Vec::new(),
            fixed: HashMap::new(),
            demands: Vec::new(),
        }
    }

    /// Takes a rule's condition in.
    pub(crate) fn condition(&mut self, expr: &Expr, diagnostics: &mut Diagnostics<'_>) {
        if let Some(var) = self.infer(expr, diagnostics) {
            self.demand(var, &[Type::Bool], expr, "a condition");
        }
    }

    /// Takes in what is randomised: an attribute by its name. `None` when it is none, which is reported.
    pub(crate) fn unit(
        &mut self,
        name: &str,
        span: &Span,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<AttributeId> {
        let path: Vec<String> = name.split('.').map(ToString::to_string).collect();
        // The request's own names have dashes in them: `request.headers.x-tier`.
        if !is_attribute_name(name) && path.first().is_none_or(|first| first != "request") {
            let message = format!("{name:?} is not the name of an attribute");
            diagnostics.report_with_help(Code::UnknownName, span, message, how_to_declare(name));
            return None;
        }
        match self.names.resolve(&path) {
            Ok(Named::Attribute(source, ty)) => Some(self.use_attribute(name.into(), source, ty, span).0),
            Ok(Named::Constant(_) | Named::Now) => {
                let help = "name an attribute that differs between units, for example `user.id`";
                let message = format!("`{name}` is the same for all requests");
                diagnostics.report_with_help(Code::UnknownName, span, message, help);
                None
            }
            Err(UnknownName { code, message, help }) => {
                diagnostics.report_with_help(code, span, message, help);
                None
            }
        }
    }

    /// Fixes what is still open and checks the demands. To be called once, after all conditions.
    pub(crate) fn finish(&mut self, diagnostics: &mut Diagnostics<'_>) {
        for demand in std::mem::take(&mut self.demands) {
            let root = self.compressed_root(demand.var);
            if let (Binding::Open, Some(first)) = (self.bindings[root.0], demand.allowed.first()) {
                self.bindings[root.0] = Binding::Known(*first);
            }
            let resolved = self.resolved(demand.var);
            let allowed = matches!(resolved, Resolved::Scalar(ty) if demand.allowed.contains(&ty));
            let constant = match (demand.constant, resolved) {
                (
                    ConstantOnly::Types(types) | ConstantOnly::TypesAndContainers(types),
                    Resolved::Scalar(ty),
                ) => types.contains(&ty),
                (ConstantOnly::TypesAndContainers(_), Resolved::List | Resolved::Map) => true,
                _ => false,
            };
            if allowed || (constant && demand.is_constant) {
                continue;
            }
            if constant {
                let message = format!("{} of {} works on constants only", demand.by, resolved.with_article());
                let help = "at run time it would need memory for each request";
                diagnostics.report_with_help(Code::UnsupportedFeature, &demand.span, message, help);
                continue;
            }
            if resolved == Resolved::Scalar(Type::List) {
                not_on_a_list(&demand.by, &demand.span, &demand.span, diagnostics);
                if let Some(help) = &demand.help {
                    diagnostics.advise(help);
                }
                continue;
            }
            let wanted = wanted(&demand.allowed);
            let message = format!("{} needs {wanted}, but this is {}", demand.by, resolved.with_article());
            match mismatch_help(&demand, resolved) {
                Some(help) => diagnostics.report_with_help(Code::TypeMismatch, &demand.span, message, help),
                None => diagnostics.report(Code::TypeMismatch, &demand.span, message),
            }
        }
        self.check_attributes(diagnostics);
    }

    /// Reports attributes whose use asks for a type that no attribute is read as.
    fn check_attributes(&self, diagnostics: &mut Diagnostics<'_>) {
        for (used, (var, span)) in self.names.used().iter().zip(&self.attributes) {
            let help = match self.resolved(*var) {
                Resolved::Scalar(Type::Timestamp) => {
                    format!(
                        "if it holds seconds, declare it with `type: int` and write timestamp({})",
                        used.name
                    )
                }
                Resolved::Scalar(Type::Duration) => {
                    "compare numbers instead: declare it with `type: int`".to_owned()
                }
                Resolved::List | Resolved::Map => "compare it with a single value".to_owned(),
                Resolved::Scalar(_) => continue,
            };
            let message = format!(
                "`{}` would have to be {}, which no attribute is",
                used.name,
                self.resolved(*var).with_article()
            );
            diagnostics.report_with_help(Code::TypeMismatch, span, message, help);
        }
    }

    /// Reports headers that are read because the name of an attribute is misspelt.
    pub(crate) fn misspelt_attributes(&self, diagnostics: &mut Diagnostics<'_>) {
        for (index, (used, (_, span))) in self.names.used().iter().zip(&self.attributes).enumerate() {
            let (Some(other), halftone_rules::Source::Header(header)) =
                (self.names.misspelt(index), &used.source)
            else {
                continue;
            };
            let message = format!("`{}` is not declared, and so it is the header {header}", used.name);
            let help = format!("did you mean `{other}`? If not, declare `{}` under `attributes`", used.name);
            diagnostics.report_with_help(Code::MisspeltAttribute, span, message, help);
        }
    }

    /// The attributes that the conditions use, with their types. After [`Self::finish`].
    pub(crate) fn attributes(&self) -> Vec<halftone_rules::Attribute> {
        let attribute = |(used, (var, _)): (&UsedAttribute, &(TypeVar, Span))| halftone_rules::Attribute {
            name: used.name.clone(),
            source: used.source.clone(),
            ty: match self.resolved(*var) {
                Resolved::Scalar(ty) => ty,
                Resolved::List | Resolved::Map => Type::String,
            },
        };
        self.names.used().iter().zip(&self.attributes).map(attribute).collect()
    }

    /// Where an attribute is used first; the start of the text when there are not as many.
    pub(crate) fn place_of_attribute(&self, index: usize) -> Span {
        self.attributes.get(index).map_or(0..0, |(_, span)| span.clone())
    }

    /// An expression's type. After [`Self::finish`].
    pub(crate) fn type_of(&self, id: ExprId) -> Option<Resolved> {
        self.types.get(&id).map(|var| self.resolved(*var))
    }

    /// What a name or a call means.
    pub(crate) fn meaning(&self, id: ExprId) -> Option<&Meaning> {
        self.meanings.get(&id)
    }

    fn fresh(&mut self, binding: Binding) -> TypeVar {
        self.bindings.push(binding);
        TypeVar(self.bindings.len() - 1)
    }

    fn known(&mut self, ty: Type) -> TypeVar {
        self.fresh(Binding::Known(ty))
    }

    fn root(&self, mut var: TypeVar) -> TypeVar {
        while let Binding::Same(other) = self.bindings[var.0] {
            var = other;
        }
        var
    }

    fn binding(&self, var: TypeVar) -> Binding {
        self.bindings[self.root(var).0]
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
    fn resolved(&self, var: TypeVar) -> Resolved {
        match self.binding(var) {
            Binding::Known(ty) => Resolved::Scalar(ty),
            Binding::Integer => Resolved::Scalar(Type::Int),
            Binding::List(_) => Resolved::List,
            Binding::Map(..) => Resolved::Map,
            Binding::Open | Binding::Same(_) => Resolved::Scalar(Type::String),
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
            // Constants cannot contain themselves, so this ends.
            (Binding::List(x), Binding::List(y)) if self.unify(x, y) => (b, a),
            (Binding::Map(k, v), Binding::Map(l, w)) if self.unify(k, l) && self.unify(v, w) => (b, a),
            _ => return false,
        };
        self.bindings[from.0] = Binding::Same(to);
        true
    }

    fn demand(&mut self, var: TypeVar, allowed: &[Type], operand: &Expr, by: &str) {
        self.demand_constant(var, allowed, ConstantOnly::Nothing, operand, by);
    }

    fn demand_constant(
        &mut self,
        var: TypeVar,
        allowed: &[Type],
        constant: ConstantOnly,
        operand: &Expr,
        by: &str,
    ) {
        let is_constant = constant != ConstantOnly::Nothing && self.is_constant(operand);
        self.demands.push(Demand {
            var,
            allowed: allowed.to_vec(),
            constant,
            is_constant,
            span: operand.span.clone(),
            by: by.into(),
            help: None,
        });
    }

    /// Makes the last demand point at one operand of the expression that it is about.
    fn mark(&mut self, operand: &Expr) {
        if let Some(demand) = self.demands.last_mut() {
            demand.span = operand.span.clone();
        }
    }

    /// Whether the expression has the same value for every request, and folding finds it.
    fn is_constant(&self, expr: &Expr) -> bool {
        let own = match (&expr.kind, self.meanings.get(&expr.id)) {
            (_, Some(meaning)) => return matches!(meaning, Meaning::Constant(_)),
            (ExprKind::Name(_), None) => false,
            (ExprKind::Call(call), None) => {
                functions::find(&call.name).is_some_and(|function| function.kind.folds())
            }
            _ => true,
        };
        own && expr.parts().into_iter().all(|part| self.is_constant(part))
    }

    /// The variable of an expression; `None` when something in it is wrong, which is then reported.
    fn infer(&mut self, expr: &Expr, diagnostics: &mut Diagnostics<'_>) -> Option<TypeVar> {
        let var = match &expr.kind {
            ExprKind::Literal(literal) => {
                let var = self.fresh(match literal {
                    Literal::Bool(_) => Binding::Known(Type::Bool),
                    Literal::Integer(_) | Literal::Negative(_) => Binding::Integer,
                    Literal::Uint(_) => Binding::Known(Type::Uint),
                    Literal::Double(_) => Binding::Known(Type::Double),
                    Literal::String(_) => Binding::Known(Type::String),
                    Literal::Bytes(_) => Binding::Known(Type::Bytes),
                });
                if let Literal::Negative(_) = literal {
                    self.demand(var, &[Type::Int], expr, "`-`");
                }
                var
            }
            ExprKind::List(elements) => {
                let element = self.fresh(Binding::Open);
                self.all_alike(element, elements.iter(), ("a list", "elements"), diagnostics)?;
                self.fresh(Binding::List(element))
            }
            ExprKind::Map(entries) => {
                let (key, value) = (self.fresh(Binding::Open), self.fresh(Binding::Open));
                let keys =
                    self.all_alike(key, entries.iter().map(|(key, _)| key), ("a map", "keys"), diagnostics);
                let values = self.all_alike(
                    value,
                    entries.iter().map(|(_, value)| value),
                    ("a map", "values"),
                    diagnostics,
                );
                keys.and(values)?;
                if let Some((first, _)) = entries.first() {
                    self.demand(
                        key,
                        &[Type::String, Type::Int, Type::Uint, Type::Bool],
                        first,
                        "a key of a map",
                    );
                }
                self.fresh(Binding::Map(key, value))
            }
            ExprKind::Name(path) => self.name(expr, path, diagnostics)?,
            ExprKind::Index(base, key) => self.index(expr, base, key, diagnostics)?,
            ExprKind::Select(base, field) => {
                let base_var = self.infer(base, diagnostics)?;
                self.entry(base_var, base, field, diagnostics)?
            }
            ExprKind::Not(operand) => {
                let var = self.infer(operand, diagnostics)?;
                self.demand(var, &[Type::Bool], operand, "`!`");
                var
            }
            ExprKind::Negate(operand) => {
                let var = self.infer(operand, diagnostics)?;
                self.demand(var, &[Type::Int, Type::Double, Type::Duration], operand, "`-`");
                var
            }
            ExprKind::Binary(op, left, right) => self.binary(expr, *op, left, right, diagnostics)?,
            ExprKind::And(operands) | ExprKind::Or(operands) => {
                let by = if matches!(expr.kind, ExprKind::And(_)) { "`&&`" } else { "`||`" };
                let mut complete = true;
                for operand in operands {
                    match self.infer(operand, diagnostics) {
                        Some(var) => self.demand(var, &[Type::Bool], operand, by),
                        None => complete = false,
                    }
                }
                if !complete {
                    return None;
                }
                self.known(Type::Bool)
            }
            ExprKind::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                let vars = [condition, then, otherwise].map(|part| self.infer(part, diagnostics));
                let [Some(chooser), Some(a), Some(b)] = vars else {
                    return None;
                };
                self.demand(chooser, &[Type::Bool], condition, "`?`");
                self.same((a, then), (b, otherwise), ("`? :`", "values"), &expr.span, diagnostics)?;
                a
            }
            ExprKind::In(value, list) => {
                self.membership(expr, value, list, diagnostics)?;
                self.known(Type::Bool)
            }
            ExprKind::Call(call) => self.call(expr, call, diagnostics)?,
        };
        self.types.insert(expr.id, var);
        Some(var)
    }

    /// Gives all elements of a container the type `var`.
    fn all_alike<'e>(
        &mut self,
        var: TypeVar,
        elements: impl Iterator<Item = &'e Expr>,
        what: (&str, &str),
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<()> {
        let mut first = None;
        let mut complete = true;
        for element in elements {
            let Some(other) = self.infer(element, diagnostics) else {
                complete = false;
                continue;
            };
            let first = *first.get_or_insert(element);
            complete &= self.same((var, first), (other, element), what, &element.span, diagnostics).is_some();
        }
        complete.then_some(())
    }

    fn name(&mut self, expr: &Expr, path: &[String], diagnostics: &mut Diagnostics<'_>) -> Option<TypeVar> {
        if diagnostics.is_full() {
            return None;
        }
        let (meaning, var) = match self.names.resolve(path) {
            Ok(Named::Attribute(source, ty)) => {
                let (id, var) = self.use_attribute(path.join("."), source, ty, &expr.span);
                (Meaning::Attribute(id), var)
            }
            Ok(Named::Constant(constant)) => {
                let var = self.known(constant.ty());
                (Meaning::Constant(constant), var)
            }
            Ok(Named::Now) => (Meaning::Now, self.known(Type::Timestamp)),
            Err(UnknownName { code, message, help }) => {
                diagnostics.report_with_help(code, &expr.span, message, help);
                return None;
            }
        };
        self.meanings.insert(expr.id, meaning);
        Some(var)
    }

    fn use_attribute(
        &mut self,
        name: String,
        source: halftone_rules::Source,
        ty: Option<Type>,
        span: &Span,
    ) -> (AttributeId, TypeVar) {
        let index = self.names.use_attribute(name, source);
        if index == self.attributes.len() {
            let var = self.fresh(ty.map_or(Binding::Open, Binding::Known));
            self.attributes.push((var, span.clone()));
        }
        // More attributes than the bundle's limit are reported once, at the end.
        (AttributeId(u16::try_from(index).unwrap_or(u16::MAX)), self.attributes[index].0)
    }

    /// `base[key]`: an entry of the request's maps, or of a constant.
    fn index(
        &mut self,
        expr: &Expr,
        base: &Expr,
        key: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<TypeVar> {
        if let ExprKind::Name(path) = &base.kind
            && is_request_map(&path.join("."))
        {
            let ExprKind::Literal(Literal::String(key_text)) = &key.kind else {
                let message = "the name of an entry must be a string literal";
                diagnostics.report(Code::UnsupportedFeature, &key.span, message);
                return None;
            };
            let (id, var) = self.request_entry(expr, &path.join("."), key_text, diagnostics)?;
            self.meanings.insert(expr.id, Meaning::Attribute(id));
            return Some(var);
        }
        let (base_var, key_var) = (self.infer(base, diagnostics), self.infer(key, diagnostics));
        let (base_var, key_var) = (base_var?, key_var?);
        match self.binding(base_var) {
            Binding::List(element) => {
                self.demand(key_var, &[Type::Int], key, INDEX);
                Some(element)
            }
            Binding::Map(keys, value) => {
                self.same((keys, base), (key_var, key), ("a map", "keys"), &key.span, diagnostics)?;
                Some(value)
            }
            Binding::Known(Type::List) => {
                not_on_a_list("`[]`", &base.span, &base.span, diagnostics);
                None
            }
            _ => {
                let message = format!("{} cannot be indexed", self.resolved(base_var).with_article());
                let help = "lists, maps, `request.headers`, `request.cookies` and `request.query` can";
                diagnostics.report_with_help(Code::TypeMismatch, &base.span, message, help);
                None
            }
        }
    }

    /// The attribute that is an entry of one of the request's maps.
    fn request_entry(
        &mut self,
        expr: &Expr,
        map: &str,
        key: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<(AttributeId, TypeVar)> {
        // Names of headers have no case.
        let name = if map == "request.headers" { key.to_ascii_lowercase() } else { key.into() };
        match map_entry(map, key)? {
            Ok(source) => {
                Some(self.use_attribute(format!("{map}[{name:?}]"), source, Some(Type::String), &expr.span))
            }
            Err(UnknownName { code, message, help }) => {
                diagnostics.report_with_help(code, &expr.span, message, help);
                None
            }
        }
    }

    /// `base.field` of a map.
    fn entry(
        &mut self,
        base_var: TypeVar,
        base: &Expr,
        field: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<TypeVar> {
        if let Binding::Map(keys, value) = self.binding(base_var) {
            let string = self.known(Type::String);
            self.same((keys, base), (string, base), ("a map", "keys"), &base.span, diagnostics)?;
            return Some(value);
        }
        let message =
            format!("`.{field}` selects a field, but {} has none", self.resolved(base_var).with_article());
        diagnostics.report(Code::UnsupportedFeature, &base.span, message);
        None
    }

    fn binary(
        &mut self,
        expr: &Expr,
        op: BinaryOp,
        left: &Expr,
        right: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<TypeVar> {
        let sides = (self.infer(left, diagnostics), self.infer(right, diagnostics));
        let (Some(a), Some(b)) = sides else { return None };
        let by = format!("`{}`", op.symbol);
        let time = |ty| matches!(ty, Binding::Known(Type::Timestamp | Type::Duration));
        if matches!(op.op, Binary::Add | Binary::Subtract) && (time(self.binding(a)) || time(self.binding(b)))
        {
            // The only operations on two different types.
            if let (Binding::Known(x), Binding::Known(y)) = (self.binding(a), self.binding(b))
                && let Some(ty) = op.op.yields(x, y)
            {
                return Some(self.known(ty));
            }
            let (a, b) = (self.resolved(a), self.resolved(b));
            let message = format!("{by} does not work on {} and {}", a.with_article(), b.with_article());
            let help =
                "it works on a timestamp and a duration, and on two durations; `-` on two timestamps too";
            diagnostics.report_with_help(Code::TypeMismatch, &expr.span, message, help);
            return None;
        }
        self.same((a, left), (b, right), (&by, "values"), &expr.span, diagnostics)?;
        match op.op {
            Binary::Equal | Binary::NotEqual => {
                self.demand_constant(a, &COMPARABLE, ConstantOnly::TypesAndContainers(&[]), expr, &by);
                self.mark(left);
                Some(self.known(Type::Bool))
            }
            Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => {
                self.demand(a, &COMPARABLE, left, &by);
                Some(self.known(Type::Bool))
            }
            op => {
                let mut allowed: Vec<Type> =
                    Type::ALL.iter().copied().filter(|ty| op.yields(*ty, *ty) == Some(*ty)).collect();
                allowed.sort_by_key(|ty| *ty != Type::Int);
                let constant = match op {
                    Binary::Add => ConstantOnly::TypesAndContainers(&[Type::String, Type::Bytes]),
                    _ => ConstantOnly::Nothing,
                };
                self.demand_constant(a, &allowed, constant, expr, &by);
                self.mark(left);
                Some(a)
            }
        }
    }

    /// Unifies two operands or reports that they differ: `by` needs `parts` of one type.
    fn same(
        &mut self,
        (a, left): (TypeVar, &Expr),
        (b, right): (TypeVar, &Expr),
        (by, parts): (&str, &str),
        span: &Span,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<()> {
        // Digits become a uint for the sake of an attribute; among constants CEL's types stand as written.
        let mixed = |a: Binding, b: Binding| {
            matches!(
                (a, b),
                (Binding::Integer, Binding::Known(Type::Uint))
                    | (Binding::Known(Type::Uint), Binding::Integer)
            )
        };
        let strict =
            mixed(self.binding(a), self.binding(b)) && self.is_constant(left) && self.is_constant(right);
        let open = [(a, left), (b, right)].map(|(var, operand)| {
            matches!(self.binding(var), Binding::Open).then(|| self.attribute_of(operand)).flatten()
        });
        if !strict && self.unify(a, b) {
            for (index, var) in open.into_iter().zip([a, b]) {
                if let (Some(index), false) = (index, matches!(self.binding(var), Binding::Open)) {
                    self.fixed.entry(index).or_insert_with(|| span.clone());
                }
            }
            return Some(());
        }
        let (a, b) = (self.resolved(a), self.resolved(b));
        let lists = [(left, a, right), (right, b, left)];
        if let Some((list, _, other)) =
            lists.into_iter().find(|(_, found, _)| *found == Resolved::Scalar(Type::List))
        {
            not_on_a_list(by, span, &list.span, diagnostics);
            if let Some(help) = self.list_help(by, list, other, diagnostics) {
                diagnostics.advise(&help);
            }
            return None;
        }
        let message = if matches!((a, b), (Resolved::List, Resolved::List) | (Resolved::Map, Resolved::Map)) {
            format!("{by} needs {parts} of one type, but the elements of these have different types")
        } else {
            format!("{by} needs {parts} of one type, but these are {} and {}", a.name(), b.name())
        };
        let help = self.difference_help((a, left), (b, right), by, diagnostics);
        let because = [left, right].into_iter().find_map(|expr| self.because(expr, span, diagnostics));
        let help = match (because, help) {
            (Some(because), Some(help)) => Some(format!("{because}; {help}")),
            (because, help) => because.or(help),
        };
        match help {
            Some(help) => diagnostics.report_with_help(Code::TypeMismatch, span, message, help),
            None => diagnostics.report(Code::TypeMismatch, span, message),
        }
        None
    }

    /// `value in list`, where the list is a constant, an attribute or one of the request's maps.
    fn membership(
        &mut self,
        expr: &Expr,
        value: &Expr,
        list: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<()> {
        if let ExprKind::Name(path) = &list.kind
            && is_request_map(&path.join("."))
        {
            let ExprKind::Literal(Literal::String(key)) = &value.kind else {
                let message = "the name of an entry must be a string literal";
                diagnostics.report(Code::UnsupportedFeature, &value.span, message);
                return None;
            };
            let (id, _) = self.request_entry(value, &path.join("."), key, diagnostics)?;
            self.meanings.insert(expr.id, Meaning::Presence(id));
            return Some(());
        }
        let (value_var, list_var) = (self.infer(value, diagnostics), self.infer(list, diagnostics));
        let (value_var, list_var) = (value_var?, list_var?);
        match self.binding(list_var) {
            Binding::List(_) if matches!(self.binding(value_var), Binding::Known(Type::List)) => {
                let name = diagnostics.text().get(value.span.clone()).unwrap_or_default();
                let message = "`in` looks for one value, but this is a list of the request";
                let help = format!("write \"x\" in {name}, joined by `||` for several");
                diagnostics.report_with_help(Code::TypeMismatch, &value.span, message, help);
                None
            }
            Binding::List(element) => {
                self.same((value_var, value), (element, list), ("`in`", "values"), &expr.span, diagnostics)
            }
            Binding::Map(keys, _) => {
                self.same((value_var, value), (keys, list), ("`in`", "values"), &expr.span, diagnostics)
            }
            Binding::Known(Type::List) => {
                let string = self.known(Type::String);
                self.same((value_var, value), (string, list), ("`in`", "values"), &expr.span, diagnostics)
            }
            found => {
                let message = format!(
                    "`in` needs a list or a map on its right, but this is {}",
                    self.resolved(list_var).with_article()
                );
                let text = |expr: &Expr| diagnostics.text().get(expr.span.clone()).unwrap_or_default();
                let literal = matches!(list.kind, ExprKind::Literal(_));
                let help = match (self.binding(value_var), found) {
                    (Binding::Known(Type::List), _) if literal => {
                        format!("write it the other way round: {} in {}", text(list), text(value))
                    }
                    (_, Binding::Known(Type::String)) if literal => {
                        format!("write {} in [{}], or {} == {}", text(value), text(list), text(value), text(list))
                    }
                    _ => "write x in [\"a\", \"b\"] or \"x-header\" in request.headers, or declare the attribute with `type: list`".to_owned(),
                };
                diagnostics.report_with_help(Code::TypeMismatch, &list.span, message, help);
                None
            }
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call, diagnostics: &mut Diagnostics<'_>) -> Option<TypeVar> {
        let operands = call.operands();
        let Some(function) = functions::find(&call.name) else {
            match functions::left_out(&call.name) {
                Some(reason) => {
                    let message = format!("`{}` is not part of the rule language", call.name);
                    diagnostics.report_with_help(Code::UnsupportedFeature, &call.name_span, message, reason);
                }
                None => {
                    let message = format!("there is no function `{}`", call.name);
                    let help = functions::other_spelling(&call.name)
                        .map_or_else(|| did_you_mean(&call.name, functions::names()), ToOwned::to_owned);
                    diagnostics.report_with_help(Code::UnknownFunction, &call.name_span, message, help);
                }
            }
            return None;
        };
        if !function.is_called_by(call.receiver.is_some(), operands.len()) {
            let message = format!("`{}` is not called like this", call.name);
            let help = format!("write {}", function.form);
            diagnostics.report_with_help(Code::TypeMismatch, &expr.span, message, help);
            return None;
        }
        if function.kind == Kind::Has {
            return self.presence(expr, operands.first()?, diagnostics);
        }
        let vars: Vec<Option<TypeVar>> =
            operands.iter().map(|operand| self.infer(operand, diagnostics)).collect();
        let vars: Vec<TypeVar> = vars.into_iter().collect::<Option<_>>()?;
        let yields = self.apply(function.kind, &format!("`{}`", call.name), &operands, &vars);
        if let (Kind::Strings(Binary::Contains), [list, part]) = (function.kind, operands.as_slice()) {
            let help = self.list_help("`contains`", list, part, diagnostics);
            if let Some(demand) = self.demands.last_mut() {
                demand.help = help;
            }
        }
        yields
    }

    /// The demands of a function on its operands, and its type.
    fn apply(&mut self, kind: Kind, by: &str, operands: &[&Expr], vars: &[TypeVar]) -> Option<TypeVar> {
        let (first, first_var) = (*operands.first()?, *vars.first()?);
        for (operand, var) in operands.iter().zip(vars).skip(1) {
            let wanted = if kind == Kind::Bucket && std::ptr::eq(*operand, *operands.last()?) {
                Type::Int
            } else {
                Type::String
            };
            self.demand(*var, &[wanted], operand, by);
        }
        let yields = match kind {
            Kind::Unary(op) | Kind::Part(op) => {
                let mut allowed: Vec<Type> =
                    Type::ALL.iter().copied().filter(|ty| op.yields(*ty).is_some()).collect();
                allowed.sort_by_key(|ty| *ty != Type::String);
                if operands.len() > 1 {
                    // Only a point in time has a zone.
                    allowed.retain(|ty| *ty == Type::Timestamp);
                }
                let constant = match op {
                    Unary::ToString => ConstantOnly::Types(&[
                        Type::Bool,
                        Type::Int,
                        Type::Uint,
                        Type::Double,
                        Type::Timestamp,
                        Type::Duration,
                    ]),
                    Unary::ToTimestamp => ConstantOnly::Types(&[Type::String]),
                    Unary::Size => ConstantOnly::TypesAndContainers(&[]),
                    _ => ConstantOnly::Nothing,
                };
                self.demand_constant(first_var, &allowed, constant, first, by);
                allowed.first().and_then(|ty| op.yields(*ty))?
            }
            Kind::Strings(_) | Kind::Matches | Kind::Cidr => {
                self.demand(first_var, &[Type::String], first, by);
                Type::Bool
            }
            Kind::Duration => {
                let constant = ConstantOnly::Types(&[Type::String, Type::Duration]);
                self.demand_constant(first_var, &[], constant, first, by);
                Type::Duration
            }
            Kind::Bucket => {
                self.demand(first_var, &[Type::String, Type::Uint, Type::Int, Type::Bytes], first, by);
                Type::Int
            }
            Kind::Has => Type::Bool,
        };
        Some(self.known(yields))
    }

    /// `has(a.b)`: whether the request carries an attribute, or a constant map has a field.
    fn presence(
        &mut self,
        expr: &Expr,
        attribute: &Expr,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<TypeVar> {
        match &attribute.kind {
            ExprKind::Name(_) | ExprKind::Index(..) => {
                self.infer(attribute, diagnostics)?;
                match self.meanings.get(&attribute.id) {
                    Some(Meaning::Attribute(id)) => {
                        let id = *id;
                        self.meanings.insert(expr.id, Meaning::Presence(id));
                    }
                    Some(Meaning::Constant(_) | Meaning::Now) => {
                        self.meanings.insert(expr.id, Meaning::Constant(Rc::new(Constant::Bool(true))));
                    }
                    _ => return self.not_an_attribute(attribute, diagnostics),
                }
            }
            ExprKind::Select(base, field) => {
                let var = self.infer(base, diagnostics)?;
                self.entry(var, base, field, diagnostics)?;
            }
            _ => return self.not_an_attribute(attribute, diagnostics),
        }
        Some(self.known(Type::Bool))
    }

    fn not_an_attribute<T>(&self, expr: &Expr, diagnostics: &mut Diagnostics<'_>) -> Option<T> {
        let help = "write has(a.b)";
        diagnostics.report_with_help(Code::TypeMismatch, &expr.span, "this is not an attribute", help);
        None
    }
}

fn is_request_map(name: &str) -> bool {
    map_entry(name, "x").is_some()
}

/// The allowed types in words.
fn wanted(allowed: &[Type]) -> String {
    let names: Vec<String> = allowed.iter().map(|ty| Resolved::Scalar(*ty).with_article()).collect();
    match names.as_slice() {
        [] => "a constant string".into(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
