//! A bundle as text, for people.

use halftone_rules::{
    Bundle, Condition, Constant, List, Rule, Ruleset, Source,
    bucket::BUCKETS,
    isa::{Effect, Op},
};
use std::fmt::{self, Display, Formatter};

/// Shows every ruleset, rule and operation of a bundle.
#[must_use]
pub fn disassemble(bundle: &Bundle) -> impl Display + '_ {
    Listing(bundle)
}

struct Listing<'a>(&'a Bundle);

impl Display for Listing<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(bundle) = self;
        writeln!(f, "bundle of revision {}, bucket function {}", bundle.revision, bundle.hash_version)?;
        bundle.rulesets.iter().try_for_each(|ruleset| write_ruleset(f, ruleset))
    }
}

fn write_ruleset(f: &mut Formatter<'_>, ruleset: &Ruleset) -> fmt::Result {
    let target = |index: u16| ruleset.targets.get(usize::from(index)).map_or("?", String::as_str);
    writeln!(f, "\nruleset {}", ruleset.name)?;
    for (what, patterns) in [("hosts", &ruleset.scope.hosts), ("path prefixes", &ruleset.scope.path_prefixes)]
    {
        if !patterns.is_empty() {
            writeln!(f, "  {what}: {}", patterns.join(", "))?;
        }
    }
    writeln!(f, "  unit: {}", source(&ruleset.unit))?;
    writeln!(f, "  targets: {}; default {}", ruleset.targets.join(", "), target(ruleset.default))?;
    for (index, attribute) in ruleset.attributes.iter().enumerate() {
        writeln!(
            f,
            "  a{index}: {} = {} as {}",
            attribute.name,
            source(&attribute.source),
            attribute.ty.name()
        )?;
    }
    for (index, rule) in ruleset.rules.iter().enumerate() {
        write_rule(f, ruleset, index, rule, target(rule.target))?;
    }
    Ok(())
}

fn write_rule(
    f: &mut Formatter<'_>,
    ruleset: &Ruleset,
    index: usize,
    rule: &Rule,
    target: &str,
) -> fmt::Result {
    write!(f, "  rule {index} {} -> {target}", rule.name)?;
    if rule.share < BUCKETS {
        write!(f, ", buckets 0 to {} of {BUCKETS} by seed {:?}", i64::from(rule.share) - 1, rule.seed)?;
    }
    writeln!(f)?;
    rule.condition.map_or(Ok(()), |condition| write_condition(f, ruleset, condition))
}

fn write_condition(f: &mut Formatter<'_>, ruleset: &Ruleset, condition: Condition) -> fmt::Result {
    let start = condition.start as usize;
    let code = ruleset.code.get(start..start + condition.length as usize).unwrap_or_default();
    for (at, op) in code.iter().enumerate() {
        writeln!(f, "    {at:>4}  {:<12} {}", op.mnemonic(), operand(ruleset, at, *op))?;
    }
    Ok(())
}

fn operand(ruleset: &Ruleset, at: usize, op: Op) -> String {
    match op.effect() {
        Effect::Constant(id) => ruleset.constants.get(id.0 as usize).map_or("?".into(), constant),
        Effect::Attribute(id) | Effect::Presence(id) => {
            let name =
                ruleset.attributes.get(usize::from(id.0)).map_or("?", |attribute| attribute.name.as_str());
            format!("a{} ({name})", id.0)
        }
        Effect::Member(id) => ruleset.lists.get(id.0 as usize).map_or("?".into(), list),
        Effect::Branch(skip) => format!("to {}", at + 1 + usize::from(skip.0)),
        Effect::Unary(..) | Effect::Binary(..) | Effect::Select => String::new(),
    }
}

/// A place in the request, in words.
#[must_use]
pub fn source(source: &Source) -> String {
    match source {
        Source::Header(name) => format!("header {name}"),
        Source::Cookie(name) => format!("cookie {name}"),
        Source::Path => "path".into(),
        Source::Method => "method".into(),
        Source::Host => "host".into(),
    }
}

fn constant(constant: &Constant) -> String {
    match constant {
        Constant::Bool(value) => value.to_string(),
        Constant::Int(value) => value.to_string(),
        Constant::Uint(value) => format!("{value}u"),
        Constant::Double(value) => format!("{value:?}"),
        Constant::String(value) => format!("{value:?}"),
    }
}

fn list(list: &List) -> String {
    match list {
        List::Int(values) => format!("{values:?}"),
        List::Uint(values) => format!("{values:?} (uint)"),
        List::Double(values) => format!("{values:?}"),
        List::String(values) => format!("{values:?}"),
    }
}
