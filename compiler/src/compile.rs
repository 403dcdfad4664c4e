//! From a ruleset's text to its program.

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Span},
    document::{self, Document, Spanned},
    expression::{Checker, Lowering, Names},
    lint::lint,
    suggest::did_you_mean,
    yaml,
};
use halftone_rules::{
    Rule, Ruleset, Source,
    limits::{MAX_ATTRIBUTES, MAX_NAME_BYTES, MAX_RULES, MAX_TARGETS},
};
use std::{collections::HashSet, net::SocketAddr};

/// A ruleset that compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What the evaluator runs.
    pub ruleset: Ruleset,
    /// Where the targets are, in the order of the ruleset's targets.
    pub targets: Vec<TargetSpec>,
    /// What compiles, but will surprise.
    pub warnings: Vec<Diagnostic>,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// The target's name.
    pub name: String,
    /// Addresses that serve it. Empty when whoever routes by the headers knows them.
    pub endpoints: Vec<SocketAddr>,
}

/// The target of a ruleset that names no other default.
const DEFAULT_TARGET: &str = "default";
/// What is randomised unless the ruleset says otherwise.
const DEFAULT_UNIT: &str = "user.id";

/// What is wrong with a name, if anything.
#[must_use]
pub(crate) fn name_problem(name: &str) -> Option<&'static str> {
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

fn compile_as(text: &str, name: impl FnOnce(&Document) -> String) -> Result<Compiled, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::new(text);
    let compiled = yaml::parse(text, &mut diagnostics)
        .and_then(|root| document::read(text, root, &mut diagnostics))
        .map(|document| {
            let name = name(&document);
            assemble(document, &name, &mut diagnostics)
        });
    match compiled {
        Some(compiled) if !diagnostics.has_errors() => {
            Ok(Compiled { warnings: diagnostics.into_sorted(), ..compiled })
        }
        _ => Err(diagnostics.into_sorted()),
    }
}

/// The program of a document. When something is reported, what it returns is not used.
fn assemble(mut document: Document, name: &str, diagnostics: &mut Diagnostics<'_>) -> Compiled {
    let top = 0..0;
    match &document.name {
        Some(own) if own.value != name => {
            let message = format!("the ruleset calls itself `{}`, but it is stored as `{name}`", own.value);
            let help = format!("write `name: {name}`, or leave the name out");
            diagnostics.report_with_help(Code::InvalidName, &own.span, message, help);
        }
        None => {
            if let Some(problem) = name_problem(name) {
                diagnostics.report(Code::InvalidName, &top, format!("the ruleset's name {problem}"));
            }
        }
        Some(_) => {}
    }
    limit("rules", document.rules.len(), MAX_RULES, &top, diagnostics);
    document.rules.truncate(MAX_RULES);
    let targets = targets(&document, diagnostics);

    let mut checker = Checker::new(Names::new(std::mem::take(&mut document.attributes)));
    for condition in document.rules.iter().filter_map(|rule| rule.condition.as_ref()) {
        checker.condition(condition, diagnostics);
    }
    checker.finish(diagnostics);
    let unit = unit(document.unit.as_ref(), checker.names(), diagnostics);
    let attributes = checker.attributes();
    limit("attributes", attributes.len(), MAX_ATTRIBUTES, &top, diagnostics);

    let mut lowering = Lowering::default();
    let mut rules = Vec::with_capacity(document.rules.len());
    let checked = !diagnostics.has_errors();
    if checked {
        lint(&document, &checker, diagnostics);
    }
    for rule in &document.rules {
        let condition = match &rule.condition {
            Some(expr) if checked => lowering.condition(expr, &checker, diagnostics),
            _ => None,
        };
        rules.push(Rule {
            seed: rule.seed.clone().unwrap_or_else(|| format!("{name}/{}", rule.name)),
            name: rule.name.clone(),
            condition,
            share: rule.share,
            target: rule.target.as_ref().map_or(0, |target| index_of(&targets, &target.value)),
        });
    }
    let default = document.default.map_or(DEFAULT_TARGET.into(), |default| default.value);
    Compiled {
        ruleset: Ruleset {
            name: name.into(),
            scope: document.scope,
            unit,
            targets: targets.iter().map(|target| target.name.clone()).collect(),
            default: index_of(&targets, &default),
            attributes,
            constants: lowering.constants,
            lists: lowering.lists,
            code: lowering.code,
            rules,
        },
        targets,
        warnings: Vec::new(),
    }
}

/// The declared targets, to which every name has to belong; or, without a declaration, the names used.
fn targets(document: &Document, diagnostics: &mut Diagnostics<'_>) -> Vec<TargetSpec> {
    let named = document.rules.iter().filter_map(|rule| rule.target.as_ref()).chain(&document.default);
    let mut targets: Vec<TargetSpec> = Vec::new();
    if let Some(declared) = &document.targets {
        let names: HashSet<&str> = declared.iter().map(|target| target.name.as_str()).collect();
        targets.extend(
            declared.iter().map(|t| TargetSpec { name: t.name.clone(), endpoints: t.endpoints.clone() }),
        );
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
        targets.extend(new.map(|name| TargetSpec { name: name.value.clone(), endpoints: Vec::new() }));
    }
    if document.default.is_none() && !targets.iter().any(|target| target.name == DEFAULT_TARGET) {
        targets.push(TargetSpec { name: DEFAULT_TARGET.into(), endpoints: Vec::new() });
    }
    limit("targets", targets.len(), MAX_TARGETS, &(0..0), diagnostics);
    targets.truncate(MAX_TARGETS);
    targets
}

/// Unknown names have been reported.
fn index_of(targets: &[TargetSpec], name: &str) -> u16 {
    let index = targets.iter().position(|target| target.name == name).unwrap_or_default();
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn unit(unit: Option<&Spanned<String>>, names: &Names, diagnostics: &mut Diagnostics<'_>) -> Source {
    let name = unit.map_or(DEFAULT_UNIT, |unit| unit.value.as_str());
    let path: Vec<String> = name.split('.').map(ToString::to_string).collect();
    match names.source(&path) {
        Ok((source, _)) => source,
        Err(unknown) => {
            let span = unit.map_or(0..0, |unit| unit.span.clone());
            diagnostics.report_with_help(unknown.code, &span, unknown.message, unknown.help);
            Source::Host
        }
    }
}

fn limit(what: &str, count: usize, limit: usize, span: &Span, diagnostics: &mut Diagnostics<'_>) {
    if count > limit {
        let message = format!("{count} {what}, but at most {limit} are allowed");
        diagnostics.report(Code::TooLarge, span, message);
    }
}
