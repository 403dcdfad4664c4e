//! What is computed once per ruleset, so that no request has to.

use crate::{
    automaton::Matcher,
    bucket::{Bucketing, Seed},
    bundle::{self, Condition, Enrolment, Guard, Ruleset, Schedule},
    index::RuleIndex,
    isa::{AttributeId, ConstantId, ListId, Op, PredicateId},
    operator::Binary,
    verify::code,
};

/// A ruleset made ready. What a decision goes through for each rule lies close together.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) automata: Vec<Matcher>,
    pub(crate) index: RuleIndex,
    /// Of the ruleset's holdout, when it has one.
    pub(crate) holdout: Option<Bucketing>,
    pub(crate) rules: Vec<Entry>,
    pub(crate) experiments: Vec<Entry>,
}

/// A rule or an experiment.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) guard: Option<Guard>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) condition: Check,
    /// Where it splits.
    pub(crate) space: Option<Space>,
}

/// A condition. Those of one operation need no stack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    Always,
    Test(AttributeId, Binary, ConstantId),
    Member(AttributeId, ListId),
    Predicate(PredicateId),
    Code(Condition),
}

/// The bucket spaces of an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// In which the slices lie.
    pub(crate) buckets: Bucketing,
    /// By which a slice is divided among arms.
    pub(crate) division: Bucketing,
    /// The layer's own holdout, and its share.
    pub(crate) holdout: Option<(Bucketing, u32)>,
}

impl Plan {
    /// The plan of a ruleset that has been verified.
    pub(crate) fn new(ruleset: &Ruleset, automata: Vec<Matcher>) -> Self {
        let rules = ruleset.rules.iter().map(|rule| entry(ruleset, &rule.name, rule.guard, &rule.enrolment));
        let experiments =
            ruleset.experiments.iter().map(|other| entry(ruleset, &other.name, None, &other.enrolment));
        Self {
            automata,
            index: RuleIndex::new(ruleset),
            holdout: (ruleset.holdout > 0).then(|| Seed::of_holdout(&ruleset.name).ready()),
            rules: rules.collect(),
            experiments: experiments.collect(),
        }
    }
}

fn entry(ruleset: &Ruleset, name: &str, guard: Option<Guard>, enrolment: &Enrolment) -> Entry {
    Entry {
        guard,
        schedule: enrolment.schedule,
        condition: enrolment.condition.map_or(Check::Always, |condition| check(ruleset, condition)),
        space: space(ruleset, name, enrolment),
    }
}

fn check(ruleset: &Ruleset, condition: Condition) -> Check {
    match code(ruleset, condition) {
        Some([Op::Test(attribute, op, constant)]) => Check::Test(*attribute, *op, *constant),
        Some([Op::TestIn(attribute, list)]) => Check::Member(*attribute, *list),
        Some([Op::Predicate(id)]) => Check::Predicate(*id),
        _ => Check::Code(condition),
    }
}

fn space(ruleset: &Ruleset, name: &str, enrolment: &Enrolment) -> Option<Space> {
    let space = &enrolment.allocation.as_ref()?.space;
    let (seed, holdout) = match space {
        bundle::Space::Own => (Seed::of_rule(&ruleset.name, name), None),
        bundle::Space::Seeded(seed) => (Seed::new(&[seed]), None),
        bundle::Space::Layer(id) => {
            let layer = ruleset.layers.get(usize::from(*id))?;
            let seed = match &layer.seed {
                Some(seed) => Seed::new(&[seed]),
                None => Seed::of_layer(&ruleset.name, &layer.name),
            };
            (seed, (layer.holdout > 0).then(|| (seed.holdout().ready(), layer.holdout)))
        }
    };
    Some(Space { buckets: seed.ready(), division: seed.division(name).ready(), holdout })
}
