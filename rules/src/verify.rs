//! The proof, before use, that a bundle cannot make the evaluator panic, loop or read out of bounds.

use crate::{
    bucket::{BUCKETS, HASH_VERSION},
    bundle::{Bundle, Condition, List, Ruleset},
    isa::{Class, Effect, Op, Skip, Yields},
    limits::{
        MAX_ATTRIBUTES, MAX_CONDITION_OPS, MAX_NAME_BYTES, MAX_RULES, MAX_RULESETS, MAX_SEED_BYTES,
        MAX_STACK, MAX_TARGETS,
    },
    value::Type,
};
use std::collections::{HashMap, HashSet};

/// A bundle that passed verification. Only such a bundle can decide.
#[derive(Clone, Debug)]
pub struct VerifiedBundle(Bundle);

impl VerifiedBundle {
    /// For [`codec`](crate::codec) alone, which has verified the bundle.
    pub(crate) fn trust(bundle: Bundle) -> Self {
        Self(bundle)
    }

    /// What was verified.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.0
    }
}

/// Why a bundle does not verify.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub struct VerifyError {
    place: String,
    problem: String,
}

impl VerifyError {
    fn new(problem: impl Into<String>) -> Self {
        Self { place: String::new(), problem: problem.into() }
    }

    fn within(mut self, what: &str, name: &str) -> Self {
        self.place = format!("{what} {name:?}: {}", self.place);
        self
    }
}

type Checked = Result<(), VerifyError>;

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(VerifyError::new(problem())) }
}

/// Checks everything that the evaluator relies on.
pub(crate) fn verify(bundle: &Bundle) -> Checked {
    ensure(bundle.hash_version == HASH_VERSION, || {
        format!("bucket function {} is unknown", bundle.hash_version)
    })?;
    at_most("rulesets", bundle.rulesets.len(), MAX_RULESETS)?;
    ensure(bundle.rulesets.is_sorted_by(|a, b| a.name < b.name), || {
        "rulesets are not in ascending order of distinct names".into()
    })?;
    bundle.rulesets.iter().try_for_each(|ruleset| {
        verify_ruleset(ruleset).map_err(|error| error.within("ruleset", &ruleset.name))
    })
}

fn verify_ruleset(ruleset: &Ruleset) -> Checked {
    name("name", &ruleset.name)?;
    at_most("targets", ruleset.targets.len(), MAX_TARGETS)?;
    at_most("attributes", ruleset.attributes.len(), MAX_ATTRIBUTES)?;
    at_most("rules", ruleset.rules.len(), MAX_RULES)?;
    ruleset.targets.iter().try_for_each(|target| name("target", target))?;
    ruleset.attributes.iter().try_for_each(|attribute| name("attribute", &attribute.name))?;
    target(ruleset, ruleset.default)?;
    ruleset.lists.iter().try_for_each(verify_list)?;
    let mut names = HashSet::with_capacity(ruleset.rules.len());
    for rule in &ruleset.rules {
        let mut verify_rule = || {
            name("name", &rule.name)?;
            ensure(names.insert(rule.name.as_str()), || "the name is used twice".into())?;
            at_most("bytes of seed", rule.seed.len(), MAX_SEED_BYTES)?;
            ensure(rule.share <= BUCKETS, || format!("share {} of {BUCKETS}", rule.share))?;
            target(ruleset, rule.target)?;
            rule.condition.map_or(Ok(()), |condition| verify_condition(ruleset, condition))
        };
        verify_rule().map_err(|error| error.within("rule", &rule.name))?;
    }
    Ok(())
}

fn at_most(what: &str, count: usize, limit: usize) -> Checked {
    ensure(count <= limit, || format!("{count} {what}, but at most {limit} are allowed"))
}

/// Names become header values, so only visible ASCII is let through.
fn name(what: &str, text: &str) -> Checked {
    let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure(printable && text.len() <= MAX_NAME_BYTES, || format!("{what} {text:?} is not a valid name"))
}

fn target(ruleset: &Ruleset, index: u16) -> Checked {
    ensure(usize::from(index) < ruleset.targets.len(), || format!("target {index} does not exist"))
}

fn verify_list(list: &List) -> Checked {
    let ascending = match list {
        List::Int(values) => values.is_sorted_by(|a, b| a < b),
        List::Uint(values) => values.is_sorted_by(|a, b| a < b),
        List::Double(values) => {
            values.iter().all(|value| !value.is_nan()) && values.is_sorted_by(|a, b| a < b)
        }
        List::String(values) => values.is_sorted_by(|a, b| a < b),
    };
    ensure(ascending, || "a list's elements are not strictly ascending".into())
}

/// Follows the types on the stack through every operation. All jumps go forward, so one pass sees, for
/// each operation, every stack that can arrive there; they have to be the same.
fn verify_condition(ruleset: &Ruleset, condition: Condition) -> Checked {
    let code =
        code(ruleset, condition).ok_or_else(|| VerifyError::new("the condition lies outside of the code"))?;
    at_most("operations", code.len(), MAX_CONDITION_OPS)?;
    let mut stack = TypeStack::default();
    let mut arriving: HashMap<usize, Vec<Type>> = HashMap::new();
    for (at, op) in code.iter().enumerate() {
        meet(&mut arriving, at, &stack)?;
        if let Some(Skip(skip)) =
            stack.apply(ruleset, *op).map_err(|e| e.within("operation", &at.to_string()))?
        {
            let destination = at.saturating_add(1).saturating_add(usize::from(skip));
            ensure(destination <= code.len(), || format!("operation {at} jumps past the end"))?;
            let other = arriving.entry(destination).or_insert_with(|| stack.0.clone());
            ensure(*other == stack.0, || format!("jumps to {destination} bring different stacks"))?;
        }
    }
    meet(&mut arriving, code.len(), &stack)?;
    ensure(stack.0 == [Type::Bool], || "the condition does not leave exactly one boolean".into())
}

/// The operations of a condition, when the range lies inside of the code.
pub(crate) fn code(ruleset: &Ruleset, condition: Condition) -> Option<&[Op]> {
    let start = usize::try_from(condition.start).ok()?;
    let end = start.checked_add(usize::try_from(condition.length).ok()?)?;
    ruleset.code.get(start..end)
}

fn meet(arriving: &mut HashMap<usize, Vec<Type>>, at: usize, stack: &TypeStack) -> Checked {
    let same = arriving.remove(&at).is_none_or(|other| other == stack.0);
    ensure(same, || format!("different stacks meet at operation {at}"))
}

/// The types of the values on the evaluator's stack.
#[derive(Default)]
struct TypeStack(Vec<Type>);

impl TypeStack {
    /// Applies an operation's effect; the answer is how far it may jump.
    fn apply(&mut self, ruleset: &Ruleset, op: Op) -> Result<Option<Skip>, VerifyError> {
        let missing = |what: &str| VerifyError::new(format!("{what} does not exist"));
        let attribute = |id: u16| ruleset.attributes.get(usize::from(id)).ok_or(missing("attribute"));
        let index = |id: u32| usize::try_from(id).unwrap_or(usize::MAX);
        match op.effect() {
            Effect::Constant(id) => {
                let constant = ruleset.constants.get(index(id.0)).ok_or(missing("constant"))?;
                self.push(constant.ty())?;
            }
            Effect::Attribute(id) => self.push(attribute(id.0)?.ty)?,
            Effect::Presence(id) => {
                attribute(id.0)?;
                self.push(Type::Bool)?;
            }
            Effect::Unary(class, yields) => {
                let operand = self.pop_class(class)?;
                self.push(yields.of(operand))?;
            }
            Effect::Binary(class, yields) => {
                let right = self.pop_class(class)?;
                self.pop(right)?;
                self.push(yields.of(right))?;
            }
            Effect::Member(id) => {
                let list = ruleset.lists.get(index(id.0)).ok_or(missing("list"))?;
                self.pop(list.element_type())?;
                self.push(Type::Bool)?;
            }
            Effect::Select => {
                let otherwise = self.pop_class(Class::Any)?;
                self.pop(otherwise)?;
                self.pop(Type::Bool)?;
                self.push(otherwise)?;
            }
            Effect::Branch(skip) => {
                self.pop(Type::Bool)?;
                self.push(Type::Bool)?;
                return Ok(Some(skip));
            }
        }
        Ok(None)
    }

    fn push(&mut self, ty: Type) -> Checked {
        ensure(self.0.len() < MAX_STACK, || format!("more than {MAX_STACK} values on the stack"))?;
        self.0.push(ty);
        Ok(())
    }

    fn pop_class(&mut self, class: Class) -> Result<Type, VerifyError> {
        let top = self.0.pop().ok_or_else(|| VerifyError::new("the stack is empty"))?;
        ensure(class.contains(top), || format!("{} is not {class:?}", top.name()))?;
        Ok(top)
    }

    fn pop(&mut self, ty: Type) -> Checked {
        let top = self.pop_class(Class::Any)?;
        ensure(top == ty, || format!("{} where {} is needed", top.name(), ty.name()))
    }
}

impl Class {
    /// Whether the class has the type.
    #[must_use]
    pub fn contains(self, ty: Type) -> bool {
        match self {
            Self::Any => true,
            Self::Bool => ty == Type::Bool,
            Self::Number => matches!(ty, Type::Int | Type::Uint | Type::Double),
            Self::Integer => matches!(ty, Type::Int | Type::Uint),
            Self::Signed => matches!(ty, Type::Int | Type::Double),
            Self::String => ty == Type::String,
        }
    }
}

impl Yields {
    fn of(self, operand: Type) -> Type {
        match self {
            Self::Same => operand,
            Self::Bool => Type::Bool,
            Self::Int => Type::Int,
        }
    }
}
