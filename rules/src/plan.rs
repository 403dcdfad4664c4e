//! What is computed once per ruleset, so that no request has to.

use crate::{
    automaton::Matcher,
    bucket::{Bucketing, Seed},
    bundle::{self, Enrolment, Guard, Ruleset, Schedule},
    graph::{Exit, Graph, GraphBuilder, HOLDS},
    index::RuleIndex,
    scan::WantedHeaders,
};

/// A ruleset made ready. What a decision goes through for each rule lies close together.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) headers: WantedHeaders,
    pub(crate) automata: Vec<Matcher>,
    pub(crate) graph: Graph,
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
    /// Where its condition starts in the graph.
    pub(crate) condition: Exit,
    /// Where it splits.
    pub(crate) space: Option<Space>,
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
        let mut graph = GraphBuilder::new(ruleset);
        let mut entry = |name: &str, guard, enrolment: &Enrolment| Entry {
            guard,
            schedule: enrolment.schedule,
            condition: enrolment.condition.map_or(HOLDS, |condition| graph.add(condition)),
            space: space(ruleset, name, enrolment),
        };
        let rules = ruleset.rules.iter().map(|rule| entry(&rule.name, rule.guard, &rule.enrolment)).collect();
        let experiments =
            ruleset.experiments.iter().map(|other| entry(&other.name, None, &other.enrolment)).collect();
        Self {
            headers: WantedHeaders::new(&ruleset.attributes),
            automata,
            graph: graph.finish(),
            index: RuleIndex::new(ruleset),
            holdout: (ruleset.holdout > 0).then(|| Seed::of_holdout(&ruleset.name).ready()),
            rules,
            experiments,
        }
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
