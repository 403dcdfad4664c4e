//! A bundle as text, for people.

use crate::show::{self, source};
use halftone_rules::{
    Bundle, Rule, Ruleset, Timestamp, Value,
    bucket::BUCKETS,
    bundle::{Allocation, Condition, Enrolment, Forced, Guard, Slice, Space},
    isa::{AttributeId, ConstantId, Effect, ListId, Op},
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
        bundle.rulesets.iter().try_for_each(|ruleset| Section(ruleset).write(f))
    }
}

struct Section<'a>(&'a Ruleset);

impl Section<'_> {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(ruleset) = self;
        writeln!(f, "\nruleset {}", ruleset.name)?;
        for (what, patterns) in
            [("hosts", &ruleset.scope.hosts), ("path prefixes", &ruleset.scope.path_prefixes)]
        {
            if !patterns.is_empty() {
                writeln!(f, "  {what}: {}", patterns.join(", "))?;
            }
        }
        writeln!(f, "  unit: {}", self.attribute(ruleset.unit))?;
        if let Some(cookie) = &ruleset.unit_cookie {
            let age = match cookie.max_age_seconds {
                0 => "the session".to_owned(),
                seconds => format!("{seconds} s"),
            };
            let secure = if cookie.secure { ", secure" } else { "" };
            let same_site = cookie.same_site.name();
            writeln!(f, "  unit cookie: {} for {age}, same site {same_site}{secure}", cookie.name)?;
        }
        writeln!(f, "  targets: {}; default {}", ruleset.targets.join(", "), self.target(ruleset.default))?;
        if ruleset.holdout > 0 {
            writeln!(f, "  holdout: {}", show::buckets(0, ruleset.holdout))?;
        }
        for (index, attribute) in ruleset.attributes.iter().enumerate() {
            writeln!(
                f,
                "  a{index}: {} = {} as {}",
                attribute.name,
                source(&attribute.source),
                attribute.ty.name()
            )?;
        }
        for layer in &ruleset.layers {
            write!(f, "  layer {}", layer.name)?;
            if let Some(seed) = &layer.seed {
                write!(f, " by seed {seed:?}")?;
            }
            if layer.holdout > 0 {
                write!(f, ", holdout {}", show::buckets(0, layer.holdout))?;
            }
            writeln!(f)?;
        }
        for other in &ruleset.overrides {
            writeln!(
                f,
                "  override {:?} -> {}",
                String::from_utf8_lossy(&other.unit),
                self.forced(other.forced)
            )?;
        }
        for (index, predicate) in ruleset.predicates.iter().enumerate() {
            writeln!(f, "  predicate p{index}")?;
            self.code(f, *predicate)?;
        }
        for (index, rule) in ruleset.rules.iter().enumerate() {
            self.rule(f, index, rule)?;
        }
        for (index, experiment) in ruleset.experiments.iter().enumerate() {
            writeln!(f, "  experiment {index} {}: {}", experiment.name, experiment.arms.join(", "))?;
            let arm = |arm: u16| experiment.arms.get(usize::from(arm)).cloned().unwrap_or("?".into());
            self.enrolment(f, &experiment.enrolment, arm)?;
        }
        Ok(())
    }

    fn rule(&self, f: &mut Formatter<'_>, index: usize, rule: &Rule) -> fmt::Result {
        let arm = |arm: u16| {
            rule.arms.get(usize::from(arm)).map_or("?".into(), |arm| match arm.name.as_str() {
                "" => self.target(arm.target).to_owned(),
                name => format!("{name} ({})", self.target(arm.target)),
            })
        };
        let arms: Vec<String> = (0..).take(rule.arms.len()).map(arm).collect();
        let epoch = if rule.epoch > 0 { format!(", epoch {}", rule.epoch) } else { String::new() };
        writeln!(f, "  rule {index} {} -> {}{epoch}", rule.name, arms.join(", "))?;
        if let Some(guard) = rule.guard {
            writeln!(f, "    guard {}", self.guard(guard))?;
        }
        self.enrolment(f, &rule.enrolment, arm)
    }

    fn enrolment(
        &self,
        f: &mut Formatter<'_>,
        enrolment: &Enrolment,
        arm: impl Fn(u16) -> String,
    ) -> fmt::Result {
        if let Some(schedule) = enrolment.schedule {
            let time = |time: Timestamp| show::value(&Value::Timestamp(time));
            let (start, end) =
                (schedule.start.map_or("ever".into(), time), schedule.end.map_or("ever".into(), time));
            writeln!(f, "    in force from {start} to {end}")?;
        }
        if let Some(Allocation { space, slices }) = &enrolment.allocation {
            let seed = match space {
                Space::Own => "by its own seed".into(),
                Space::Seeded(seed) => format!("by seed {seed:?}"),
                Space::Layer(id) => {
                    let layer = self.0.layers.get(usize::from(*id)).map_or("?", |layer| layer.name.as_str());
                    format!("of layer {layer}")
                }
            };
            for Slice { start, end, division } in slices {
                write!(f, "    {} of {BUCKETS} {seed}", show::buckets(*start, *end))?;
                let mut from = 0;
                let parts: Vec<String> = division
                    .iter()
                    .map(|share| {
                        let part = format!("{} {}", arm(share.arm), show::buckets(from, share.end));
                        from = share.end;
                        part
                    })
                    .collect();
                match parts.as_slice() {
                    [_] => writeln!(f, ": {}", division.first().map_or("?".into(), |share| arm(share.arm)))?,
                    parts => writeln!(f, ", divided: {}", parts.join("; "))?,
                }
            }
        }
        enrolment.condition.map_or(Ok(()), |condition| self.code(f, condition))
    }

    fn code(&self, f: &mut Formatter<'_>, condition: Condition) -> fmt::Result {
        let start = condition.start as usize;
        let code = self.0.code.get(start..start + condition.length as usize).unwrap_or_default();
        for (at, op) in code.iter().enumerate() {
            writeln!(f, "    {at:>4}  {:<12} {}", op.mnemonic(), self.operand(at, *op))?;
        }
        Ok(())
    }

    fn operand(&self, at: usize, op: Op) -> String {
        match op.effect() {
            Effect::Constant(id) => self.constant(id),
            Effect::Attribute(id) | Effect::Presence(id) => self.attribute(id),
            Effect::Unary(op) => op.mnemonic().into(),
            Effect::Binary(op) => op.mnemonic().into(),
            Effect::Member(id) => self.list(id),
            Effect::Lookup(id) => self.0.maps.get(id.0 as usize).map_or("?".into(), |map| {
                let values: Vec<String> = map.values.iter().map(show::constant).collect();
                format!("{} -> [{}]", show::list(&map.keys), values.join(", "))
            }),
            Effect::Match(id) => self
                .0
                .automata
                .get(usize::from(id.0))
                .map_or("?".into(), |automaton| format!("{:?}", automaton.pattern)),
            Effect::Network(id) => {
                self.0.networks.get(usize::from(id.0)).map_or("?".into(), ToString::to_string)
            }
            Effect::Bucket(seed, buckets) => format!("of {} by seed {}", buckets.0, self.constant(seed)),
            Effect::Branch(skip) => format!("to {}", at + 1 + usize::from(skip.0)),
            Effect::Test(attribute, op, constant) => {
                format!("{} {} {}", self.attribute(attribute), op.mnemonic(), self.constant(constant))
            }
            Effect::TestMember(attribute, list) => {
                format!("{} in {}", self.attribute(attribute), self.list(list))
            }
            Effect::Predicate(id) => format!("p{}", id.0),
            Effect::Fail(ty, error) => format!("{}: {error}", ty.name()),
            Effect::Now | Effect::Logic | Effect::Select => String::new(),
        }
    }

    fn guard(&self, guard: Guard) -> String {
        let attribute = self.attribute(guard.attribute());
        match guard {
            Guard::Equals(_, constant) => format!("{attribute} eq {}", self.constant(constant)),
            Guard::OneOf(_, list) => format!("{attribute} in {}", self.list(list)),
            Guard::StartsWith(_, prefix) => format!("{attribute} starts_with {}", self.constant(prefix)),
            Guard::Between(_, first, last) => format!("{attribute} between keys {first:#x} and {last:#x}"),
        }
    }

    fn forced(&self, forced: Forced) -> String {
        let rule = |rule: u32| self.0.rules.get(rule as usize);
        match forced {
            Forced::Target(target) => self.target(target).to_owned(),
            Forced::Rule { rule: at, arm } => {
                let name = rule(at).map_or("?", |rule| rule.name.as_str());
                let arm =
                    rule(at).and_then(|rule| rule.arms.get(usize::from(arm))).map_or("?", |arm| &arm.name);
                format!("rule {name} {arm}")
            }
            Forced::Experiment { experiment, arm } => {
                let experiment = self.0.experiments.get(usize::from(experiment));
                let arm =
                    experiment.and_then(|other| other.arms.get(usize::from(arm))).map_or("?", String::as_str);
                format!("experiment {} {arm}", experiment.map_or("?", |other| &other.name))
            }
        }
    }

    fn target(&self, index: u16) -> &str {
        self.0.targets.get(usize::from(index)).map_or("?", String::as_str)
    }

    fn attribute(&self, AttributeId(id): AttributeId) -> String {
        let name = self.0.attributes.get(usize::from(id)).map_or("?", |attribute| attribute.name.as_str());
        format!("a{id} ({name})")
    }

    fn constant(&self, id: ConstantId) -> String {
        self.0.constants.get(id.0 as usize).map_or("?".into(), show::constant)
    }

    fn list(&self, id: ListId) -> String {
        self.0.lists.get(id.0 as usize).map_or("?".into(), show::list)
    }
}
