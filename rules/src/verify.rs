//! The proof, before use, that a bundle cannot make the evaluator panic, loop or read out of bounds.

use crate::{
    anonymous::UnitCookie,
    automaton::Matcher,
    bucket::{BUCKETS, HASH_VERSION},
    bundle::{
        self, Allocation, Arm, Bundle, Condition, Constant, Enrolment, Forced, Guard, List, Map, Override,
        Ruleset, Slice,
    },
    isa::{
        AttributeId, AutomatonId, Buckets, ConstantId, Effect, ListId, MapId, NetworkId, Op, PredicateId,
        Skip,
    },
    limits::{
        MAX_ARMS, MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES, MAX_AUTOMATA, MAX_AUTOMATON_BYTES,
        MAX_CONDITION_OPS, MAX_EXPERIMENTS, MAX_LAYERS, MAX_NAME_BYTES, MAX_OVERRIDES, MAX_PREDICATES,
        MAX_RULES, MAX_RULESETS, MAX_SEED_BYTES, MAX_STACK, MAX_STEPS, MAX_TARGETS, MAX_VALUE_BYTES,
    },
    operator::{Binary, Unary},
    plan::Plan,
    value::Type,
};
use std::{cell::RefCell, collections::HashMap};

/// A bundle that passed verification. Only such a bundle can decide.
#[derive(Clone, Debug)]
pub struct VerifiedBundle {
    bundle: Bundle,
    plans: Vec<Plan>,
}

impl VerifiedBundle {
    /// Checks everything that the evaluator relies on.
    ///
    /// # Errors
    /// When the bundle would break an invariant of the evaluator; the error says which and where.
    pub fn new(bundle: Bundle) -> Result<Self, VerifyError> {
        let plans = verify(&bundle)?;
        Ok(Self { bundle, plans })
    }

    /// What was verified.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// One for each ruleset.
    pub(crate) fn plans(&self) -> &[Plan] {
        &self.plans
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

type Checked<T = ()> = Result<T, VerifyError>;

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(VerifyError::new(problem())) }
}

fn verify(bundle: &Bundle) -> Checked<Vec<Plan>> {
    ensure(bundle.hash_version == HASH_VERSION, || {
        format!("bucket function {} is unknown", bundle.hash_version)
    })?;
    at_most("rulesets", bundle.rulesets.len(), MAX_RULESETS)?;
    ensure(bundle.rulesets.is_sorted_by(|a, b| a.name < b.name), || {
        "rulesets are not in ascending order of distinct names".into()
    })?;
    let verified = |ruleset| Verifier { ruleset, followed: RefCell::default() }.ruleset();
    bundle
        .rulesets
        .iter()
        .map(|ruleset| verified(ruleset).map_err(|error| error.within("ruleset", &ruleset.name)))
        .collect()
}

fn at_most(what: &str, count: usize, limit: usize) -> Checked {
    ensure(count <= limit, || format!("{count} {what}, but at most {limit} are allowed"))
}

/// Names become header values, so only visible ASCII is let through.
fn name(what: &str, text: &str) -> Checked {
    let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure(printable && text.len() <= MAX_NAME_BYTES, || format!("{what} {text:?} is not a valid name"))
}

fn missing(what: &str) -> VerifyError {
    VerifyError::new(format!("{what} does not exist"))
}

/// The operations of a condition, when the range lies inside of the code.
pub(crate) fn code(ruleset: &Ruleset, condition: Condition) -> Option<&[Op]> {
    let start = usize::try_from(condition.start).ok()?;
    let end = start.checked_add(usize::try_from(condition.length).ok()?)?;
    ruleset.code.get(start..end)
}

/// Follows one ruleset.
struct Verifier<'a> {
    ruleset: &'a Ruleset,
    followed: RefCell<Followed>,
}

/// The conditions that have been followed.
#[derive(Default)]
struct Followed {
    /// The largest number of steps of each.
    steps: HashMap<(Condition, Sharing), u64>,
    /// The operations of all of them.
    operations: u64,
}

impl<'a> Verifier<'a> {
    fn ruleset(&self) -> Checked<Plan> {
        let ruleset = self.ruleset;
        name("name", &ruleset.name)?;
        at_most("targets", ruleset.targets.len(), MAX_TARGETS)?;
        at_most("attributes", ruleset.attributes.len(), MAX_ATTRIBUTES)?;
        at_most("automata", ruleset.automata.len(), MAX_AUTOMATA)?;
        at_most("predicates", ruleset.predicates.len(), MAX_PREDICATES)?;
        at_most("layers", ruleset.layers.len(), MAX_LAYERS)?;
        at_most("overrides", ruleset.overrides.len(), MAX_OVERRIDES)?;
        at_most("rules", ruleset.rules.len(), MAX_RULES)?;
        at_most("experiments", ruleset.experiments.len(), MAX_EXPERIMENTS)?;
        ruleset.targets.iter().try_for_each(|target| name("target", target))?;
        for attribute in &ruleset.attributes {
            at_most("bytes of an attribute's name", attribute.name.len(), MAX_ATTRIBUTE_NAME_BYTES)?;
            ensure(!matches!(attribute.ty, Type::Timestamp | Type::Duration), || {
                format!("no attribute is read as {}", attribute.ty.name())
            })?;
        }
        self.target(ruleset.default)?;
        self.attribute(ruleset.unit)?;
        share("holdout", ruleset.holdout)?;
        if let Some(cookie) = &ruleset.unit_cookie {
            name("cookie", &cookie.name)?;
            ensure(UnitCookie::is_name(&cookie.name), || format!("{:?} names no cookie", cookie.name))?;
        }
        for layer in &ruleset.layers {
            name("layer", &layer.name)?;
            seed(layer.seed.as_deref())?;
            share("holdout", layer.holdout)?;
        }
        ruleset.lists.iter().try_for_each(verify_list)?;
        ruleset.maps.iter().try_for_each(verify_map)?;
        ensure(ruleset.networks.iter().all(super::network::Network::is_valid), || {
            "a network is malformed".into()
        })?;
        let automata = ruleset.automata.iter().map(verify_automaton).collect::<Checked<Vec<_>>>()?;
        self.overrides()?;

        let mut steps = 0u64;
        for (index, predicate) in ruleset.predicates.iter().enumerate() {
            let cost = self.condition(*predicate, Sharing::Refused);
            steps =
                steps.saturating_add(cost.map_err(|error| error.within("predicate", &index.to_string()))?);
        }
        for rule in &ruleset.rules {
            let mut verify_rule = || {
                name("name", &rule.name)?;
                rule.guard.map_or(Ok(()), |guard| self.guard(guard))?;
                at_most("arms", rule.arms.len(), MAX_ARMS)?;
                rule.arms.iter().try_for_each(|arm| self.arm(arm))?;
                self.enrolment(&rule.enrolment, rule.arms.len(), &mut steps)
            };
            verify_rule().map_err(|error| error.within("rule", &rule.name))?;
        }
        for experiment in &ruleset.experiments {
            let mut verify_experiment = || {
                name("name", &experiment.name)?;
                at_most("arms", experiment.arms.len(), MAX_ARMS)?;
                experiment.arms.iter().try_for_each(|arm| name("arm", arm))?;
                self.enrolment(&experiment.enrolment, experiment.arms.len(), &mut steps)
            };
            verify_experiment().map_err(|error| error.within("experiment", &experiment.name))?;
        }
        ensure(steps <= MAX_STEPS, || {
            format!("deciding can take {steps} steps, but at most {MAX_STEPS} are allowed")
        })?;
        Ok(Plan::new(ruleset, automata))
    }

    fn target(&self, index: u16) -> Checked {
        ensure(usize::from(index) < self.ruleset.targets.len(), || format!("target {index} does not exist"))
    }

    fn attribute(&self, AttributeId(id): AttributeId) -> Checked<Type> {
        Ok(self.ruleset.attributes.get(usize::from(id)).ok_or_else(|| missing("attribute"))?.ty)
    }

    fn constant(&self, ConstantId(id): ConstantId) -> Checked<&'a Constant> {
        self.ruleset.constants.get(id as usize).ok_or_else(|| missing("constant"))
    }

    fn list(&self, ListId(id): ListId) -> Checked<&'a List> {
        self.ruleset.lists.get(id as usize).ok_or_else(|| missing("list"))
    }

    fn arm(&self, arm: &Arm) -> Checked {
        ensure(arm.name.is_empty() || name("arm", &arm.name).is_ok(), || {
            format!("arm {:?} is not a valid name", arm.name)
        })?;
        self.target(arm.target)
    }

    fn overrides(&self) -> Checked {
        let overrides = &self.ruleset.overrides;
        ensure(overrides.is_sorted_by(|a, b| a.unit <= b.unit), || {
            "overrides are not in ascending order".into()
        })?;
        overrides.iter().try_for_each(|Override { unit, forced }| {
            at_most("bytes of unit", unit.len(), MAX_VALUE_BYTES)?;
            let arms = match *forced {
                Forced::Target(target) => return self.target(target),
                Forced::Rule { rule, arm } => {
                    self.ruleset.rules.get(rule as usize).map(|rule| (rule.arms.len(), arm))
                }
                Forced::Experiment { experiment, arm } => {
                    self.ruleset.experiments.get(usize::from(experiment)).map(|other| (other.arms.len(), arm))
                }
            };
            ensure(arms.is_some_and(|(arms, arm)| usize::from(arm) < arms), || {
                "an override names an arm that does not exist".into()
            })
        })
    }

    fn guard(&self, guard: Guard) -> Checked {
        let ty = self.attribute(guard.attribute())?;
        let fits = match guard {
            Guard::Equals(_, id) => self.constant(id)?.ty() == ty && ty != Type::Semver,
            Guard::OneOf(_, id) => self.list(id)?.element_type() == ty,
            Guard::StartsWith(_, id) => ty == Type::String && self.constant(id)?.ty() == Type::String,
            Guard::Between(..) => matches!(ty, Type::Int | Type::Uint | Type::Double),
        };
        ensure(fits, || format!("the guard does not fit to an attribute of type {}", ty.name()))
    }

    fn enrolment(&self, enrolment: &Enrolment, arms: usize, steps: &mut u64) -> Checked {
        ensure(arms > 0, || "there is no arm".into())?;
        if let Some(condition) = enrolment.condition {
            *steps = steps.saturating_add(self.condition(condition, Sharing::Allowed)?);
        }
        let Some(Allocation { space, slices }) = &enrolment.allocation else { return Ok(()) };
        match space {
            bundle::Space::Own => {}
            bundle::Space::Seeded(text) => seed(Some(text))?,
            bundle::Space::Layer(id) => {
                ensure(usize::from(*id) < self.ruleset.layers.len(), || "layer does not exist".into())?;
            }
        }
        ensure(slices.iter().is_sorted_by(|a, b| a.end <= b.start), || "slices overlap".into())?;
        slices.iter().try_for_each(|Slice { start, end, division }| {
            ensure(start <= end && *end <= BUCKETS, || format!("buckets {start} to {end} of {BUCKETS}"))?;
            at_most("parts of a slice", division.len(), MAX_ARMS)?;
            let whole = division.last().is_some_and(|share| share.end == BUCKETS);
            ensure(whole && division.is_sorted_by(|a, b| a.end <= b.end), || {
                "the parts of a slice do not make up the whole".into()
            })?;
            ensure(division.iter().all(|share| usize::from(share.arm) < arms), || "arm does not exist".into())
        })
    }

    /// Steps that an operation can take: one, and one for each piece of a text that it goes through. Pieces are
    /// what takes about as long as an operation: sixteen bytes where bytes are compared, a byte in an automaton.
    fn cost(&self, effect: Effect, top: Option<Type>) -> u64 {
        const BYTES: u64 = MAX_VALUE_BYTES as u64;
        match effect {
            Effect::Match(_) => BYTES,
            Effect::Unary(Unary::Size | Unary::ToString | Unary::ToSemver)
            | Effect::Binary(Binary::Contains | Binary::ElementOf)
            | Effect::Test(_, Binary::Contains | Binary::ElementOf, _)
            | Effect::Bucket(..) => BYTES / 16,
            // Versions are read each time they are compared.
            Effect::Binary(_) if top == Some(Type::Semver) => BYTES,
            Effect::Test(_, _, constant)
                if self.constant(constant).is_ok_and(|constant| constant.ty() == Type::Semver) =>
            {
                BYTES
            }
            _ => 1,
        }
    }

    /// Follows a condition, unless that has been done, and answers with the largest number of steps that it can take.
    /// What is built of a condition takes memory, so no code may be a part of many of them.
    fn condition(&self, condition: Condition, sharing: Sharing) -> Checked<u64> {
        let mut followed = self.followed.borrow_mut();
        if let Some(steps) = followed.steps.get(&(condition, sharing)) {
            return Ok(*steps);
        }
        followed.operations = followed.operations.saturating_add(u64::from(condition.length));
        ensure(followed.operations <= 2 * self.ruleset.code.len() as u64, || "conditions overlap".into())?;
        let steps = self.follow(condition, sharing)?;
        followed.steps.insert((condition, sharing), steps);
        Ok(steps)
    }

    /// Follows the types on the stack through every operation; the answer is the largest number of steps that
    /// it can take. All jumps go forward, so one pass sees, for each operation, every stack that can arrive
    /// there; they have to be the same.
    fn follow(&self, condition: Condition, sharing: Sharing) -> Checked<u64> {
        let code = code(self.ruleset, condition)
            .ok_or_else(|| VerifyError::new("the condition lies outside of the code"))?;
        at_most("operations", code.len(), MAX_CONDITION_OPS)?;
        let mut stack = TypeStack { verifier: self, sharing, types: Vec::new() };
        let mut arriving: HashMap<usize, Vec<Type>> = HashMap::new();
        let mut steps = 0u64;
        for (at, op) in code.iter().enumerate() {
            meet(&mut arriving, at, &stack.types)?;
            steps = steps.saturating_add(self.cost(op.effect(), stack.types.last().copied()));
            if let Some(Skip(skip)) = stack.apply(*op).map_err(|e| e.within("operation", &at.to_string()))? {
                let destination = at.saturating_add(1).saturating_add(usize::from(skip));
                ensure(destination <= code.len(), || format!("operation {at} jumps past the end"))?;
                let other = arriving.entry(destination).or_insert_with(|| stack.types.clone());
                ensure(*other == stack.types, || format!("jumps to {destination} bring different stacks"))?;
            }
        }
        meet(&mut arriving, code.len(), &stack.types)?;
        ensure(stack.types == [Type::Bool], || "the condition does not leave exactly one boolean".into())?;
        Ok(steps)
    }
}

fn share(what: &str, share: u32) -> Checked {
    ensure(share <= BUCKETS, || format!("{what} {share} of {BUCKETS}"))
}

fn seed(seed: Option<&str>) -> Checked {
    at_most("bytes of seed", seed.map_or(0, str::len), MAX_SEED_BYTES)
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

fn verify_map(map: &Map) -> Checked {
    verify_list(&map.keys)?;
    let one_type =
        map.values.windows(2).all(|pair| pair.first().map(Constant::ty) == pair.last().map(Constant::ty));
    ensure(map.keys.len() == map.values.len() && !map.values.is_empty() && one_type, || {
        "a map does not have one value of one type for each key".into()
    })
}

fn verify_automaton(automaton: &bundle::Automaton) -> Checked<Matcher> {
    at_most("bytes of automaton", automaton.dfa.len(), MAX_AUTOMATON_BYTES)?;
    Matcher::new(&automaton.dfa).map_err(VerifyError::new)
}

fn meet(arriving: &mut HashMap<usize, Vec<Type>>, at: usize, stack: &[Type]) -> Checked {
    if arriving.is_empty() {
        return Ok(());
    }
    let same = arriving.remove(&at).is_none_or(|other| other == stack);
    ensure(same, || format!("different stacks meet at operation {at}"))
}

/// Whether the code may use shared predicates. They themselves may not: then nothing calls itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sharing {
    Allowed,
    Refused,
}

/// The types of the values on the evaluator's stack.
struct TypeStack<'v, 'a> {
    verifier: &'v Verifier<'a>,
    sharing: Sharing,
    types: Vec<Type>,
}

impl TypeStack<'_, '_> {
    /// Applies an operation's effect; the answer is how far it may jump.
    fn apply(&mut self, op: Op) -> Result<Option<Skip>, VerifyError> {
        let Self { verifier, .. } = *self;
        let ruleset = verifier.ruleset;
        match op.effect() {
            Effect::Constant(id) => self.push(verifier.constant(id)?.ty())?,
            Effect::Attribute(id) => self.push(verifier.attribute(id)?)?,
            Effect::Presence(id) => {
                verifier.attribute(id)?;
                self.push(Type::Bool)?;
            }
            Effect::Now => self.push(Type::Timestamp)?,
            Effect::Fail(ty, _) => self.push(ty)?,
            Effect::Unary(op) => {
                let operand = self.pop()?;
                self.push(op.yields(operand).ok_or_else(|| not_for(op.mnemonic(), &[operand]))?)?;
            }
            Effect::Binary(op) => {
                let right = self.pop()?;
                let left = self.pop()?;
                self.push(binary(op, left, right)?)?;
            }
            Effect::Logic => {
                self.pop_type(Type::Bool)?;
                self.pop_type(Type::Bool)?;
                self.push(Type::Bool)?;
            }
            Effect::Member(id) => {
                self.pop_type(verifier.list(id)?.element_type())?;
                self.push(Type::Bool)?;
            }
            Effect::Lookup(MapId(id)) => {
                let map = ruleset.maps.get(id as usize).ok_or_else(|| missing("map"))?;
                self.pop_type(map.keys.element_type())?;
                self.push(map.values.first().ok_or_else(|| missing("value"))?.ty())?;
            }
            Effect::Match(AutomatonId(id)) => {
                ruleset.automata.get(usize::from(id)).ok_or_else(|| missing("automaton"))?;
                self.pop_type(Type::String)?;
                self.push(Type::Bool)?;
            }
            Effect::Network(NetworkId(id)) => {
                ruleset.networks.get(usize::from(id)).ok_or_else(|| missing("network"))?;
                self.pop_type(Type::String)?;
                self.push(Type::Bool)?;
            }
            Effect::Bucket(seed, Buckets(buckets)) => {
                let seed = verifier.constant(seed)?;
                ensure(seed.ty() == Type::String, || "a seed is not a string".into())?;
                ensure((1..=1 << 31).contains(&buckets), || format!("{buckets} buckets"))?;
                let unit = self.pop()?;
                let allowed = matches!(unit, Type::String | Type::Bytes | Type::Int | Type::Uint);
                ensure(allowed, || format!("{} is no unit", unit.name()))?;
                self.push(Type::Int)?;
            }
            Effect::Select => {
                let otherwise = self.pop()?;
                self.pop_type(otherwise)?;
                self.pop_type(Type::Bool)?;
                self.push(otherwise)?;
            }
            Effect::Branch(skip) => {
                self.pop_type(Type::Bool)?;
                self.push(Type::Bool)?;
                return Ok(Some(skip));
            }
            Effect::Test(attribute, op, constant) => {
                let (left, right) = (verifier.attribute(attribute)?, verifier.constant(constant)?.ty());
                self.push(binary(op, left, right)?)?;
            }
            Effect::TestMember(attribute, list) => {
                let (attribute, element) =
                    (verifier.attribute(attribute)?, verifier.list(list)?.element_type());
                ensure(attribute == element, || {
                    format!("{} in a list of {}", attribute.name(), element.name())
                })?;
                self.push(Type::Bool)?;
            }
            Effect::Predicate(PredicateId(id)) => {
                ensure(self.sharing == Sharing::Allowed, || "a predicate uses a predicate".into())?;
                ensure(usize::from(id) < ruleset.predicates.len(), || "predicate does not exist".into())?;
                self.push(Type::Bool)?;
            }
        }
        Ok(None)
    }

    fn push(&mut self, ty: Type) -> Checked {
        ensure(self.types.len() < MAX_STACK, || format!("more than {MAX_STACK} values on the stack"))?;
        self.types.push(ty);
        Ok(())
    }

    fn pop(&mut self) -> Checked<Type> {
        self.types.pop().ok_or_else(|| VerifyError::new("the stack is empty"))
    }

    fn pop_type(&mut self, ty: Type) -> Checked {
        let top = self.pop()?;
        ensure(top == ty, || format!("{} where {} is needed", top.name(), ty.name()))
    }
}

fn binary(op: Binary, left: Type, right: Type) -> Checked<Type> {
    op.yields(left, right).ok_or_else(|| not_for(op.mnemonic(), &[left, right]))
}

fn not_for(operation: &str, operands: &[Type]) -> VerifyError {
    let operands: Vec<&str> = operands.iter().map(|ty| ty.name()).collect();
    VerifyError::new(format!("{operation} does not take {}", operands.join(" and ")))
}
