//! Which requests earlier rules leave over.

use crate::expression::{Lowering, Node};
use halftone_rules::{
    Value,
    isa::{AttributeId, ConstantId, Op},
    operator::Binary,
};
use std::collections::{BTreeSet, HashMap};

/// What rules that take everybody who matches take from the rules behind them.
#[derive(Default)]
pub(super) struct Cover {
    everything: Option<String>,
    /// Conditions as the set of what they demand, with the rule's name.
    conjunctions: HashMap<BTreeSet<String>, String>,
    /// Single demands, in the same form.
    demands: HashMap<String, String>,
    /// Values of attributes of which nothing is left.
    values: HashMap<(AttributeId, String), String>,
}

/// What a condition demands, each in a form that is equal when the demands are.
fn demands(node: &Node) -> Vec<&Node> {
    match node {
        Node::And(operands) => operands.iter().collect(),
        other => vec![other],
    }
}

/// Constants and operations have ids, so equal nodes print alike.
fn form(node: &Node) -> String {
    format!("{node:?}")
}

/// A value in a form that is the same for all that are equal to it.
fn shown(value: &Value<'_>) -> String {
    match value {
        // -0.0 and 0.0 are equal.
        Value::Double(value) => format!("{:?}", Value::Double(value + 0.0)),
        Value::Semver(version) => format!("Semver({:?})", version.split('+').next()),
        value => format!("{value:?}"),
    }
}

/// The attribute and the values that a demand leaves it.
fn values(node: &Node, lowering: &Lowering) -> Option<(AttributeId, Vec<String>)> {
    let mut parts = Vec::new();
    match node {
        Node::Leaf(ops) => {
            for op in ops {
                match op {
                    Op::Test(attribute, Binary::Equal, constant) => {
                        let constant = lowering.constants.get(constant.0 as usize)?;
                        parts.push((*attribute, vec![shown(&constant.value())]));
                    }
                    Op::TestIn(attribute, list) => {
                        let list = lowering.lists.get(list.0 as usize)?;
                        let elements = (0..list.len()).filter_map(|at| list.get(at));
                        parts.push((*attribute, elements.map(|element| shown(&element)).collect()));
                    }
                    // `in` a list of versions is several tests joined by `||`.
                    Op::SkipIfTrue(_) | Op::Or => {}
                    _ => return None,
                }
            }
        }
        Node::Or(operands) => {
            for operand in operands {
                parts.push(values(operand, lowering)?);
            }
        }
        Node::And(_) => return None,
    }
    let attribute = parts.first()?.0;
    let alike = parts.iter().all(|(other, _)| *other == attribute);
    alike.then(|| (attribute, parts.into_iter().flat_map(|(_, values)| values).collect()))
}

impl Cover {
    /// Takes in a rule that takes everybody who matches.
    pub(super) fn add(&mut self, rule: &str, condition: Option<&Node>, lowering: &Lowering) {
        let Some(node) = condition else {
            self.everything.get_or_insert_with(|| rule.into());
            return;
        };
        let demands = demands(node);
        if let [only] = demands.as_slice() {
            self.demands.entry(form(only)).or_insert_with(|| rule.into());
            if let Some((attribute, values)) = values(only, lowering) {
                for value in values {
                    self.values.entry((attribute, value)).or_insert_with(|| rule.into());
                }
            }
        }
        self.conjunctions.entry(demands.into_iter().map(form).collect()).or_insert_with(|| rule.into());
    }

    /// The rule that takes all requests which match the condition.
    pub(super) fn covers(&self, condition: Option<&Node>, lowering: &Lowering) -> Option<&str> {
        if let Some(rule) = &self.everything {
            return Some(rule);
        }
        let demands = demands(condition?);
        let forms: BTreeSet<String> = demands.iter().map(|node| form(node)).collect();
        let by_demand = forms.iter().find_map(|form| self.demands.get(form));
        let by_values = || {
            demands.iter().find_map(|node| {
                let (attribute, values) = values(node, lowering)?;
                let mut taken = values.into_iter().map(|value| self.values.get(&(attribute, value)));
                let first = taken.next()??;
                taken.all(|rule| rule.is_some()).then_some(first)
            })
        };
        by_demand.or_else(|| self.conjunctions.get(&forms)).or_else(by_values).map(String::as_str)
    }
}

/// The values that a condition demands of attributes.
pub(super) fn equalities(node: &Node) -> impl Iterator<Item = (AttributeId, ConstantId)> {
    demands(node).into_iter().filter_map(|node| match node {
        Node::Leaf(ops) => match ops.as_slice() {
            [Op::Test(attribute, Binary::Equal, constant)] => Some((*attribute, *constant)),
            _ => None,
        },
        _ => None,
    })
}

/// Whether two conditions demand different values of one attribute.
pub(super) fn disjoint(a: Option<&Node>, b: Option<&Node>, lowering: &Lowering) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    // Values that one condition demands of one attribute are equal, or it never matches, which is told elsewhere.
    let of_a: HashMap<AttributeId, ConstantId> = equalities(a).collect();
    equalities(b).any(|(attribute, constant)| {
        of_a.get(&attribute).is_some_and(|other| differ(*other, constant, lowering))
    })
}

/// Whether nothing equals both constants.
pub(super) fn differ(a: ConstantId, b: ConstantId, lowering: &Lowering) -> bool {
    let value =
        |id: ConstantId| lowering.constants.get(id.0 as usize).map(halftone_rules::bundle::Constant::value);
    match (value(a), value(b)) {
        (Some(a), Some(b)) => Binary::Equal.apply(a, b) == Value::Bool(false),
        _ => false,
    }
}
