//! From a ruleset's text to its program.

use crate::{
    allocation::{allocation, arms, check_layers, overrides},
    diagnostic::{Code, Diagnostic, Diagnostics, Span},
    document::{self, Document, Spanned},
    expression::{Checker, Lowering, Names, Node, Optimisation},
    lint::lint,
    program::{self, Program},
    release::{Appended, Release},
    suggest::did_you_mean,
    target::{TargetSettings, TargetSpec},
    yaml,
};
use halftone_rules::{
    Bundle, Ruleset, VerifiedBundle,
    bundle::{self, Enrolment, Experiment},
    isa::AttributeId,
    limits::{
        MAX_ATTRIBUTES, MAX_AUTOMATA, MAX_CONDITION_OPS, MAX_EXPERIMENTS, MAX_LAYERS, MAX_NAME_BYTES,
        MAX_OVERRIDES, MAX_RULES, MAX_STACK, MAX_TARGETS,
    },
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A ruleset that compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What the evaluator runs.
    pub ruleset: Ruleset,
    /// The clusters of proxies that it is for; empty for all.
    pub node_clusters: BTreeSet<String>,
    /// The targets, in the order of the ruleset's targets.
    pub targets: Vec<TargetSpec>,
    /// What compiles, but will surprise.
    pub warnings: Vec<Diagnostic>,
}

impl Compiled {
    /// Whether proxies of a cluster get it. `None` stands for those of clusters that no ruleset names.
    #[must_use]
    pub fn is_for(&self, node_cluster: Option<&str>) -> bool {
        self.node_clusters.is_empty()
            || node_cluster.is_some_and(|cluster| self.node_clusters.contains(cluster))
    }
}

/// The target of a ruleset that names no other default.
pub(crate) const DEFAULT_TARGET: &str = "default";
/// What is randomised unless the ruleset says otherwise.
const DEFAULT_UNIT: &str = "user.id";

/// What is wrong with a name, if anything.
#[must_use]
pub fn name_problem(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Some("must not be empty")
    } else if name.len() > MAX_NAME_BYTES {
        Some("is too long")
    } else if !name.chars().all(allowed) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("has a character that names may not have")
    } else {
        None
    }
}

/// Compiles a ruleset (YAML or JSON). `name` is the name that it is stored under; a text that names
/// itself has to agree.
///
/// # Errors
/// All problems of the text in the order of their places; there is at least one.
pub fn compile(text: &str, name: &str) -> Result<Compiled, Vec<Diagnostic>> {
    compile_as(text, |_| name.to_owned())
}

/// Compiles a ruleset that may name itself; `fallback` is the name of one that does not.
///
/// # Errors
/// As [`compile`].
pub fn compile_file(text: &str, fallback: &str) -> Result<Compiled, Vec<Diagnostic>> {
    compile_as(text, |document| {
        document.name.as_ref().map_or_else(|| fallback.to_owned(), |name| name.value.clone())
    })
}

/// As [`compile`], and says how much is optimised: what the optimised form is compared with.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(text: &str, name: &str, optimisation: Optimisation) -> Result<Compiled, Vec<Diagnostic>> {
    compile_document(text, |_| name.to_owned(), optimisation, &[])
}

fn compile_as(text: &str, name: impl FnOnce(&Document) -> String) -> Result<Compiled, Vec<Diagnostic>> {
    compile_document(text, name, Optimisation::Full, &[])
}

pub(crate) fn compile_document(
    text: &str,
    name: impl FnOnce(&Document) -> String,
    optimisation: Optimisation,
    releases: &[Release],
) -> Result<Compiled, Vec<Diagnostic>> {
    let appended = Appended::new(text, releases);
    let mut diagnostics = appended.diagnostics();
    let compiled = yaml::parse(text, yaml::RULESET, &mut diagnostics)
        .and_then(|root| document::read(text, root, &mut diagnostics))
        .and_then(|mut document| {
            let name = name(&document);
            appended.insert(&mut document, &mut diagnostics);
            Assembly { document, name, optimisation, diagnostics: &mut diagnostics }.run()
        });
    match compiled {
        Some(compiled) if !diagnostics.has_errors() => {
            // The verifier has limits of its own, on what a request can cost; here they have a name and a place.
            if let Err(error) = VerifiedBundle::new(Bundle::new(0, vec![compiled.ruleset.clone()])) {
                diagnostics.report(Code::TooComplex, &(0..0), error.to_string());
                return Err(diagnostics.into_sorted());
            }
            Ok(Compiled { warnings: diagnostics.into_sorted(), ..compiled })
        }
        _ => Err(diagnostics.into_sorted()),
    }
}

/// The making of a program from a document.
struct Assembly<'a, 'd> {
    document: Document,
    name: String,
    optimisation: Optimisation,
    diagnostics: &'d mut Diagnostics<'a>,
}

impl Assembly<'_, '_> {
    /// `None` when something is wrong, which is then reported.
    fn run(mut self) -> Option<Compiled> {
        self.check_name();
        self.check_limits();
        let targets = targets(&self.document, self.diagnostics);
        let indices: HashMap<&str, u16> =
            targets.iter().map(|target| target.name.as_str()).zip(0u16..).collect();
        // Unknown names have been reported.
        let target = |name: &Spanned<String>| indices.get(name.value.as_str()).copied().unwrap_or_default();
        let default = self.document.default.as_ref().map_or(DEFAULT_TARGET, |default| default.value.as_str());
        let default = indices.get(default).copied().unwrap_or_default();

        let mut checker = Checker::new(Names::new(std::mem::take(&mut self.document.attributes)));
        let document = &self.document;
        for condition in entries(document).filter_map(|entry| entry.condition.as_ref()) {
            checker.condition(condition, self.diagnostics);
        }
        let unit = unit(document, &mut checker, self.diagnostics);
        checker.finish(self.diagnostics);
        let attributes = checker.attributes();
        let place = checker.place_of_attribute(MAX_ATTRIBUTES);
        limit("attributes", attributes.len(), MAX_ATTRIBUTES, &place, self.diagnostics);
        check_layers(document, self.diagnostics);
        let overrides = overrides(document, target, self.diagnostics);
        let mut units = document.overrides.iter().flat_map(|other| &other.units);
        let place = units.nth(MAX_OVERRIDES).map_or(0..0, |unit| unit.span.clone());
        limit("overridden units", overrides.len(), MAX_OVERRIDES, &place, self.diagnostics);
        let mut allocations: Vec<_> =
            entries(document).map(|entry| allocation(entry, &document.layers, self.diagnostics)).collect();
        if self.diagnostics.has_errors() {
            return None;
        }

        let mut lowering = Lowering::new(self.optimisation);
        let mut place = 0..0;
        let conditions: Vec<Option<Node>> = entries(document)
            .map(|entry| {
                let condition = entry.condition.as_ref()?;
                let had_room = lowering.automata.len() <= MAX_AUTOMATA;
                let node = lowering.condition(condition, &checker, self.diagnostics);
                if had_room && lowering.automata.len() > MAX_AUTOMATA {
                    place = condition.span.clone();
                }
                node
            })
            .collect();
        limit("regular expressions", lowering.automata.len(), MAX_AUTOMATA, &place, self.diagnostics);
        if self.diagnostics.has_errors() {
            return None;
        }
        lint(document, &conditions, &lowering, &checker, self.diagnostics);
        let is_rule = |at| at < document.rules.len();
        let program = program::assemble(conditions, is_rule, &attributes, &mut lowering, self.optimisation);
        check_excess(document, &program, self.diagnostics);

        let mut parts = program.parts.iter().zip(allocations.drain(..));
        let mut enrolment = |entry: &document::Rule| {
            let (part, allocation) = parts.next()?;
            let enrolment = Enrolment { schedule: entry.schedule, condition: part.condition, allocation };
            Some((part.guard, enrolment))
        };
        let mut rules = Vec::with_capacity(document.rules.len());
        for rule in &document.rules {
            let (guard, enrolment) = enrolment(rule)?;
            rules.push(bundle::Rule {
                name: rule.name.clone(),
                guard,
                enrolment,
                arms: arms(rule, default, target),
                epoch: rule.release.as_ref().map_or(0, |release| release.epoch),
            });
        }
        let mut experiments = Vec::with_capacity(document.experiments.len());
        for experiment in &document.experiments {
            let (_, enrolment) = enrolment(experiment)?;
            let arms = experiment.arms.iter().map(|arm| arm.name.value.clone()).collect();
            experiments.push(Experiment { name: experiment.name.clone(), enrolment, arms });
        }
        let layers = document.layers.iter().map(|layer| bundle::Layer {
            name: layer.name.clone(),
            seed: layer.seed.clone(),
            holdout: layer.holdout,
        });
        Some(Compiled {
            ruleset: Ruleset {
                name: self.name,
                scope: document.scope.clone(),
                unit,
                default,
                attributes,
                constants: lowering.constants,
                lists: lowering.lists,
                maps: lowering.maps,
                networks: lowering.networks,
                automata: lowering.automata,
                code: program.code,
                predicates: program.predicates,
                layers: layers.collect(),
                holdout: document.holdout,
                overrides,
                rules,
                experiments,
                unit_cookie: document.unit_cookie.clone(),
                targets: targets.iter().map(|target| target.name.clone()).collect(),
            },
            node_clusters: document.node_clusters.clone(),
            targets,
            warnings: Vec::new(),
        })
    }

    fn check_name(&mut self) {
        let name = &self.name;
        match &self.document.name {
            Some(own) if own.value != *name => {
                let message =
                    format!("the ruleset calls itself `{}`, but it is stored as `{name}`", own.value);
                let help = format!("write `name: {name}`, or leave the name out");
                self.diagnostics.report_with_help(Code::InvalidName, &own.span, message, help);
            }
            None => {
                if let Some(problem) = name_problem(name) {
                    let message = format!("the ruleset's name {name:?} {problem}");
                    self.diagnostics.report(Code::InvalidName, &(0..0), message);
                }
            }
            Some(_) => {}
        }
    }

    fn check_limits(&mut self) {
        let place =
            |entries: &[document::Rule], at: usize| entries.get(at).map_or(0..0, |entry| entry.span.clone());
        let (rules, experiments) = (&self.document.rules, &self.document.experiments);
        limit("rules", rules.len(), MAX_RULES, &place(rules, MAX_RULES), self.diagnostics);
        let at = place(experiments, MAX_EXPERIMENTS);
        limit("experiments", experiments.len(), MAX_EXPERIMENTS, &at, self.diagnostics);
        limit("layers", self.document.layers.len(), MAX_LAYERS, &(0..0), self.diagnostics);
        self.document.rules.truncate(MAX_RULES);
        self.document.experiments.truncate(MAX_EXPERIMENTS);
    }
}

fn check_excess(document: &Document, program: &Program, diagnostics: &mut Diagnostics<'_>) {
    for (part, entry) in program.parts.iter().zip(entries(document)) {
        if let Some((operations, values)) = part.excess {
            let message = format!(
                "the condition compiles to {operations} operations on {values} values; at most {MAX_CONDITION_OPS} and {MAX_STACK} are allowed"
            );
            let span = entry.condition.as_ref().map_or(&entry.span, |condition| &condition.span);
            diagnostics.report_with_help(Code::TooComplex, span, message, "split it into several rules");
        }
    }
}

/// The rules, then the experiments.
fn entries(document: &Document) -> impl Iterator<Item = &document::Rule> {
    document.rules.iter().chain(&document.experiments)
}

/// The declared targets, to which every name has to belong; or, without a declaration, the names used.
fn targets(document: &Document, diagnostics: &mut Diagnostics<'_>) -> Vec<TargetSpec> {
    let named = document.named_targets().chain(&document.default);
    let mut targets: Vec<TargetSpec> = Vec::new();
    if let Some(declared) = &document.targets {
        let names: HashSet<&str> = declared.iter().map(|target| target.name.as_str()).collect();
        targets.extend(declared.iter().map(|t| TargetSpec {
            name: t.name.clone(),
            endpoints: t.endpoints.clone(),
            settings: t.settings.clone(),
        }));
        for Spanned { span, value } in named.filter(|name| !names.contains(name.value.as_str())) {
            if diagnostics.is_full() {
                break;
            }
            let message = format!("there is no target `{value}`");
            let help = did_you_mean(value, declared.iter().map(|target| target.name.as_str()));
            diagnostics.report_with_help(Code::UnknownTarget, span, message, help);
        }
    } else {
        let mut seen = HashSet::new();
        let new = named.filter(|name| seen.insert(name.value.as_str()));
        targets.extend(new.map(|name| elsewhere(&name.value)));
    }
    if document.default.is_none() && !targets.iter().any(|target| target.name == DEFAULT_TARGET) {
        targets.push(elsewhere(DEFAULT_TARGET));
    }
    let first = document.targets.as_deref().and_then(|declared| declared.get(MAX_TARGETS));
    let place = first.map_or(0..0, |target| target.span.clone());
    limit("targets", targets.len(), MAX_TARGETS, &place, diagnostics);
    targets.truncate(MAX_TARGETS);
    targets
}

/// A target that somebody else knows.
fn elsewhere(name: &str) -> TargetSpec {
    TargetSpec { name: name.into(), endpoints: Vec::new(), settings: TargetSettings::default() }
}

fn unit(document: &Document, checker: &mut Checker, diagnostics: &mut Diagnostics<'_>) -> AttributeId {
    let name = document.unit.as_ref().map_or(DEFAULT_UNIT, |unit| unit.value.as_str());
    let span = document.unit.as_ref().map_or(0..0, |unit: &Spanned<String>| -> Span { unit.span.clone() });
    // Without a unit there is an error, and nothing runs.
    checker.unit(name, &span, diagnostics).unwrap_or(AttributeId(0))
}

/// Reports what there is too much of, where the first that is too many stands.
fn limit(what: &str, count: usize, limit: usize, place: &Span, diagnostics: &mut Diagnostics<'_>) {
    if count > limit {
        let message = format!("{count} {what}, but at most {limit} are allowed");
        let help = if what == "regular expressions" {
            "join some of them by `|`, or use `startsWith`, `endsWith`, `contains` or `in`"
        } else {
            "remove some, or split the ruleset into several, each with a `match` of its own"
        };
        diagnostics.report_with_help(Code::TooLarge, place, message, help);
    }
}
