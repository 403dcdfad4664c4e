//! Reads rules and experiments: who takes part, and what they get.

use super::{
    Arm, Control, Forced, Layer, Override, Rule, Spanned,
    fields::{Fields, comment_follows},
    reader::Reader,
    shape::{ARM, CONTROL, EXPERIMENT, EXPERIMENT_ARM, LAYER, OVERRIDE, RULE, Shape},
};
use crate::{
    diagnostic::{Code, Diagnostics, Span},
    expression::{Expr, SourceMap, parse, timestamp},
    limits::MAX_CONDITION_BYTES,
    yaml::{Kind, Node, quoted},
};
use halftone_rules::{
    bucket::{BUCKETS, share},
    bundle::Schedule,
    limits::MAX_SEED_BYTES,
};
use std::collections::HashSet;

/// What the arms of a rule with a control are called.
pub(crate) const TREATMENT: &str = "treatment";
/// See [`TREATMENT`].
pub(crate) const CONTROL_ARM: &str = "control";

impl Reader<'_, '_> {
    pub(super) fn layers(&mut self, node: Node) -> Vec<Layer> {
        let mut layers = Vec::new();
        for (key, node) in self.mapping(node, "`layers`") {
            if !self.check_name(&key.text, &key.span, "a layer's name") {
                continue;
            }
            let mut layer = Layer { name: key.text, seed: None, holdout: 0 };
            if !node.is_null()
                && let Some(mut fields) = Fields::of(node, &LAYER, self.diagnostics)
            {
                layer.seed = fields.optional("seed").and_then(|node| self.seed(&node));
                layer.holdout =
                    fields.optional("holdout").and_then(|node| self.share(&node, "holdout")).unwrap_or(0);
            }
            layers.push(layer);
        }
        layers
    }

    /// The rules or the experiments; `names` are those that are taken.
    pub(super) fn entries(
        &mut self,
        node: Node,
        shape: &'static Shape,
        names: &mut HashSet<String>,
    ) -> Vec<Rule> {
        let list = if std::ptr::eq(shape, &RULE) { "`rules`" } else { "`experiments`" };
        self.list(node, list).into_iter().filter_map(|node| self.entry(node, shape, names)).collect()
    }

    pub(super) fn rules(&mut self, node: Node, names: &mut HashSet<String>) -> Vec<Rule> {
        self.entries(node, &RULE, names)
    }

    pub(super) fn experiments(&mut self, node: Node, names: &mut HashSet<String>) -> Vec<Rule> {
        self.entries(node, &EXPERIMENT, names)
    }

    fn entry(&mut self, node: Node, shape: &'static Shape, names: &mut HashSet<String>) -> Option<Rule> {
        let routes = std::ptr::eq(shape, &RULE);
        let place = node.span.start..node.span.start;
        let mut fields = Fields::of(node, shape, self.diagnostics)?;
        let what = if routes { "a rule's name" } else { "an experiment's name" };
        let name = fields.required("name", self.diagnostics).and_then(|node| self.name(&node, what));
        if let Some(name) = &name
            && !names.insert(name.value.clone())
        {
            let message = format!("there is a rule or an experiment `{}` already", name.value);
            let help = "give each its own name";
            self.diagnostics.report_with_help(Code::DuplicateName, &name.span, message, help);
        }
        let mut optional =
            |field: &str| if shape.names().any(|name| name == field) { fields.optional(field) } else { None };
        let condition = optional("condition").and_then(|node| self.condition(&node));
        let share = optional("weight").map(|node| self.share(&node, "weight"));
        let target = optional("target").and_then(|node| self.name(&node, "a target's name"));
        let control = optional("control").and_then(|node| self.control(node));
        let arms_node = optional("arms");
        let arms = arms_node.map(|node| self.arms(node, if routes { &ARM } else { &EXPERIMENT_ARM }));
        let seed_node = optional("seed");
        let seed_span = seed_node.as_ref().map(|node| node.span.clone());
        let seed = seed_node.and_then(|node| self.seed(&node));
        let layer = optional("layer").and_then(|node| self.name(&node, "a layer's name"));
        let range = optional("range").and_then(|node| self.range(node));
        let start = optional("start").and_then(|node| self.time(&node, "`start`"));
        let end = optional("end").and_then(|node| self.time(&node, "`end`"));

        let span = name.as_ref().map_or(place.clone(), |name| name.span.clone());
        match (&target, &arms, &control) {
            (Some(target), Some(_), _) => {
                let help = "each arm names its target";
                self.wrong(&target.span, "a rule has a target or arms, not both", help);
            }
            (None, None, _) if routes && !fields.has("target") => {
                let message = "a rule needs the field `target`, or `arms` with a target each";
                self.diagnostics.report(Code::MissingField, &place, message);
            }
            (_, Some(_), Some(control)) => {
                let help = "make the control one of the arms";
                self.wrong(&control.span, "a rule has a control or arms, not both", help);
            }
            (_, None, _) if !routes => {
                let message = "an experiment needs the field `arms`";
                self.diagnostics.report(Code::MissingField, &place, message);
            }
            _ => {}
        }
        if let (Some(span), Some(_)) = (&seed_span, &layer) {
            let help = "the layer has a seed; leave this one out";
            self.wrong(span, "in a layer the buckets are the layer's", help);
        }
        if let (Some(range), None) = (&range, &layer) {
            self.wrong(
                &range.span,
                "a range is a part of a layer, but no layer is named",
                "add `layer: name`",
            );
        }
        let schedule = (start.is_some() || end.is_some())
            .then(|| Schedule { start: start.as_ref().map(|t| t.value), end: end.as_ref().map(|t| t.value) });
        if let (Some(start), Some(end)) = (&start, &end)
            && end.value <= start.value
        {
            self.wrong(
                &end.span,
                "the end is not after the start",
                "it is the first moment in which the rule is no longer in force",
            );
        }
        // A rule with a problem stays, so that the rest of it is checked too; nothing runs it.
        Some(Rule {
            span,
            name: name.map(|name| name.value).unwrap_or_default(),
            condition,
            share: share.map_or(BUCKETS, |share| share.unwrap_or(0)),
            target,
            arms: arms.unwrap_or_default(),
            control,
            seed,
            layer,
            range,
            schedule,
            release: None,
        })
    }

    pub(super) fn wrong(&mut self, span: &Span, message: impl Into<String>, help: &str) {
        self.diagnostics.report_with_help(Code::WrongForm, span, message, help);
    }

    fn control(&mut self, node: Node) -> Option<Control> {
        let span = node.span.clone();
        if matches!(node.kind, Kind::Scalar { .. }) {
            let share = self.share(&node, "control")?;
            return Some(Control { span, share, target: None });
        }
        let mut fields = Fields::of(node, &CONTROL, self.diagnostics)?;
        let share = fields.required("weight", self.diagnostics).and_then(|node| self.share(&node, "weight"));
        let target = fields.optional("target").and_then(|node| self.name(&node, "a target's name"));
        Some(Control { span, share: share?, target })
    }

    fn arms(&mut self, node: Node, shape: &'static Shape) -> Vec<Arm> {
        let span = node.span.start..node.span.start;
        let mut arms: Vec<Arm> = Vec::new();
        let nodes = self.list(node, "`arms`");
        if nodes.is_empty() {
            self.wrong(&span, "there are no arms", "name at least one");
        }
        for node in nodes {
            let Some(mut fields) = Fields::of(node, shape, self.diagnostics) else { continue };
            let name =
                fields.required("name", self.diagnostics).and_then(|node| self.name(&node, "an arm's name"));
            let target = if std::ptr::eq(shape, &ARM) {
                fields
                    .required("target", self.diagnostics)
                    .and_then(|node| self.name(&node, "a target's name"))
            } else {
                None
            };
            let split = fields.optional("split").map_or(Some(1.0), |node| self.split(&node));
            let (Some(name), Some(split)) = (name, split) else { continue };
            if arms.iter().any(|other| other.name.value == name.value) {
                let message = format!("there is an arm `{}` already", name.value);
                self.diagnostics.report_with_help(
                    Code::DuplicateName,
                    &name.span,
                    message,
                    "give each arm its own name",
                );
            }
            arms.push(Arm { name, target, split });
        }
        arms
    }

    fn split(&mut self, node: &Node) -> Option<f64> {
        let text = self.text(node, "`split`")?;
        let split = text.value.parse().ok().filter(|split: &f64| *split > 0.0 && split.is_finite());
        if split.is_none() {
            let help = "with the splits 1 and 3, one unit in four gets the first arm";
            self.wrong(&text.span, "a split is a number above 0", help);
        }
        split
    }

    /// Two shares as buckets.
    fn range(&mut self, node: Node) -> Option<Spanned<(u32, u32)>> {
        let span = node.span.clone();
        let help = "[0.2, 0.5] are the buckets from 20 % to 50 %";
        if !matches!(node.kind, Kind::Sequence(_)) {
            let message = format!("`range` is a list of two shares, but this is {}", node.describe());
            self.wrong(&span, &message, help);
            return None;
        }
        let nodes = self.list(node, "`range`");
        let [first, second] = nodes.as_slice() else {
            self.wrong(&span, "a range has two ends", help);
            return None;
        };
        let (start, end) = (self.share(first, "start")?, self.share(second, "end")?);
        if start >= end {
            self.wrong(&span, "the range is empty", help);
            return None;
        }
        Some(Spanned { span, value: (start, end) })
    }

    fn time(&mut self, node: &Node, what: &str) -> Option<Spanned<halftone_rules::Timestamp>> {
        let text = self.text(node, what)?;
        match timestamp(&text.value) {
            Ok(value) => Some(Spanned { span: text.span, value }),
            Err(problem) => {
                let help =
                    format!("write it like 2026-01-31T08:00:00Z, or leave {what} out if there is none");
                self.diagnostics.report_with_help(Code::InvalidConstant, &text.span, problem, help);
                None
            }
        }
    }

    pub(super) fn overrides(&mut self, node: Node) -> Vec<Override> {
        let nodes = self.list(node, "`overrides`");
        nodes.into_iter().filter_map(|node| self.override_(node)).collect()
    }

    fn override_(&mut self, node: Node) -> Option<Override> {
        let place = node.span.start..node.span.start;
        let mut fields = Fields::of(node, &OVERRIDE, self.diagnostics)?;
        let units = fields.required("units", self.diagnostics).map(|node| self.some(node, "`units`"));
        let units: Vec<_> =
            units.unwrap_or_default().iter().filter_map(|node| self.unit_value(node)).collect();
        let mut name =
            |field: &str, what: &str| fields.optional(field).and_then(|node| self.name(&node, what));
        let target = name("target", "a target's name").map(Forced::Target);
        let rule = name("rule", "a rule's name").map(Forced::Rule);
        let experiment = name("experiment", "an experiment's name").map(Forced::Experiment);
        let arm = name("arm", "an arm's name");
        let mut forced = [target, rule, experiment].into_iter().flatten();
        let (Some(forced), None) = (forced.next(), forced.next()) else {
            let help = "write `target: name`, or `rule: name` or `experiment: name` with its `arm`";
            self.wrong(&place, "an override names one of `target`, `rule` and `experiment`", help);
            return None;
        };
        if let (Forced::Target(_), Some(arm)) = (&forced, &arm) {
            self.wrong(&arm.span, "a target has no arms", "name the rule instead, or leave the arm out");
        }
        Some(Override { units, forced, arm })
    }

    fn unit_value(&mut self, node: &Node) -> Option<Spanned<String>> {
        let unit = self.text(node, "a unit")?;
        if unit.value.is_empty() {
            self.wrong(&unit.span, "a unit is not empty", "write the value that the request has");
            return None;
        }
        Some(unit)
    }

    fn condition(&mut self, node: &Node) -> Option<Expr> {
        let Kind::Scalar { plain, .. } = node.kind else {
            let written = self.text.get(node.span.clone()).unwrap_or_default();
            let message = format!("`condition` is a text, but this is {}", node.describe());
            let help = if written.contains('\n') {
                "put the whole condition into quotes".into()
            } else {
                format!("put the whole text into quotes: `condition: {}`", quoted(written))
            };
            self.wrong(&node.span, &message, &help);
            return None;
        };
        let condition = self.text(node, "`condition`")?;
        let length = condition.value.len();
        if length > MAX_CONDITION_BYTES {
            let place = condition.span.start..condition.span.start;
            let message =
                format!("the condition has {length} bytes, more than the {MAX_CONDITION_BYTES} allowed");
            self.diagnostics.report_with_help(Code::TooLarge, &place, message, "split it into several rules");
            return None;
        }
        let map = SourceMap::new(self.text, &condition.span, &condition.value);
        let parsed = parse(&condition.value, &map, &mut self.next_id, self.diagnostics);
        if parsed.is_none() && plain && comment_follows(self.text, condition.span.end) {
            self.diagnostics.advise("a ` #` starts a comment in YAML: put the whole condition into quotes");
        } else if parsed.is_none() && plain && self.text[condition.span.end..].trim_start().starts_with(',') {
            self.diagnostics.advise("within {…} a `,` ends a text: put the whole condition into quotes");
        }
        parsed
    }

    /// A number from 0 to 1 as buckets.
    pub(super) fn share(&mut self, node: &Node, what: &str) -> Option<u32> {
        let text = self.text(node, &format!("`{what}`"))?;
        let number = text.value.parse::<f64>().ok();
        let share = number.and_then(share);
        if let (Some(number), Some(share)) = (number, share) {
            less_than_a_bucket(number, share, what, &text.span, self.diagnostics);
        } else {
            let message = format!("the {what} {} is not a number from 0 to 1", text.value);
            let help = match text.value.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()) {
                Some(percent) => format!("write {}", percent / 100.0),
                None => "0.1 means 10 % of the matching units".into(),
            };
            self.diagnostics.report_with_help(Code::WeightOutOfRange, &text.span, message, help);
        }
        share
    }

    fn seed(&mut self, node: &Node) -> Option<String> {
        let seed = self.text(node, "`seed`")?;
        if seed.value.is_empty() || seed.value.len() > MAX_SEED_BYTES {
            let message = format!("a seed has 1 to {MAX_SEED_BYTES} bytes");
            self.diagnostics.report(Code::WrongForm, &seed.span, message);
            return None;
        }
        Some(seed.value)
    }
}

/// Reports a share that is not 0 and not 1, but counts as the one bucket that is next to it.
pub(crate) fn less_than_a_bucket(
    number: f64,
    share: u32,
    what: &str,
    span: &Span,
    diagnostics: &mut Diagnostics<'_>,
) {
    if (number * f64::from(BUCKETS)).round() == f64::from(share) {
        return;
    }
    let message = format!("the {what} {number:?} counts as {share} of {BUCKETS} buckets");
    let help = if share == 1 {
        "write 0 if nobody is meant, and at least 0.000001 otherwise"
    } else {
        "write 1 if everybody is meant, and at most 0.999999 otherwise"
    };
    diagnostics.report_with_help(Code::ShareOfABucket, span, message, help);
}
