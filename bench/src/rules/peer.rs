//! The rules in the interpreter of the crate `cel`.

use super::Headers;
use anyhow::{Context as _, Result, anyhow};
use cel::{Context, Program, Value};
use halftone_rules::{
    Request, Ruleset, Type,
    bucket::{BUCKETS, Bucketing, Seed},
};

struct CelRule {
    name: String,
    program: Option<Program>,
    split: Option<(Bucketing, u32)>,
}

/// A ruleset whose conditions `cel` interprets.
pub(super) struct CelRules {
    ruleset: Ruleset,
    rules: Vec<CelRule>,
}

impl CelRules {
    /// `text` is the ruleset as written: one rule per line, in flow style.
    pub(super) fn new(ruleset: &Ruleset, text: &str) -> Result<Self> {
        let condition = |name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.contains(&format!("{{name: {name},")))?;
            let (_, rest) = line.split_once("condition: '")?;
            Some(rest.split_once('\'')?.0.to_owned())
        };
        let rule = |rule: &halftone_rules::Rule| {
            let split = rule.enrolment.allocation.as_ref().and_then(|allocation| allocation.slices.first());
            let seed = Seed::of_rule(&ruleset.name, &rule.name).ready();
            let program = condition(&rule.name).map(|text| Program::compile(&variables(&text)));
            Ok(CelRule {
                name: rule.name.clone(),
                program: program.transpose().map_err(|error| anyhow!("{error}"))?,
                split: split.filter(|slice| slice.end < BUCKETS).map(|slice| (seed, slice.end)),
            })
        };
        Ok(Self { rules: ruleset.rules.iter().map(rule).collect::<Result<_>>()?, ruleset: ruleset.clone() })
    }

    /// The request's attributes as variables.
    pub(super) fn context(&self, request: &Headers) -> Result<(Context<'static, 'static>, Option<Vec<u8>>)> {
        let mut context = Context::default();
        for attribute in &self.ruleset.attributes {
            let Some(bytes) = request.attribute(attribute) else { continue };
            let text = std::str::from_utf8(bytes)?;
            let value = match attribute.ty {
                Type::Int => Value::Int(text.parse()?),
                Type::Uint => Value::UInt(text.parse()?),
                _ => Value::from(text),
            };
            context.add_variable_from_value(variables(&attribute.name), value);
        }
        let unit = self.ruleset.attributes.get(usize::from(self.ruleset.unit.0)).context("no unit")?;
        Ok((context, request.attribute(unit).map(<[u8]>::to_vec)))
    }

    /// The name of the rule that takes the request.
    pub(super) fn decide(&self, request: &Headers) -> Result<Option<&str>> {
        self.decide_with(&self.context(request)?)
    }

    /// As [`decide`](Self::decide), with the variables made before.
    pub(super) fn decide_with(
        &self,
        (context, unit): &(Context<'static, 'static>, Option<Vec<u8>>),
    ) -> Result<Option<&str>> {
        for rule in &self.rules {
            let matches = match &rule.program {
                Some(program) => matches!(program.execute(context), Ok(Value::Bool(true))),
                None => true,
            };
            let takes = || {
                rule.split.is_none_or(|(seed, end)| unit.as_ref().is_some_and(|unit| seed.bucket(unit) < end))
            };
            if matches && takes() {
                return Ok(Some(&rule.name));
            }
        }
        Ok(None)
    }
}

/// Conditions and names with plain variables, which is the fastest that `cel` knows, and the literals that its
/// static types would need.
fn variables(text: &str) -> String {
    text.replace("request.headers[\"x-staff\"]", "staff")
        .replace("request.path", "path")
        .replace("request.host", "host")
        .replace("app.version", "app_version")
        .replace("user.id % 1000 < 5", "user_id % 1000u < 5u")
        .replace("user.id", "user_id")
}
