//! Which requests earlier rules leave over.

use crate::expression::{Lowering, Node};
use halftone_rules::{
    bundle::Constant,
    isa::{AttributeId, Op},
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

/// The attribute and the values that a demand leaves it.
fn values(node: &Node, lowering: &Lowering) -> Option<(AttributeId, Vec<String>)> {
    let shown = |constant: &Constant| format!("{constant:?}");
    match node {
        Node::Leaf(ops) => match ops.as_slice() {
            [Op::Test(attribute, Binary::Equal, constant)] => {
                Some((*attribute, vec![shown(lowering.constants.get(constant.0 as usize)?)]))
            }
            [Op::TestIn(attribute, list)] => {
                let list = lowering.lists.get(list.0 as usize)?;
                let element = |at| list.get(at).map(|value| format!("{value:?}"));
                Some((*attribute, (0..list.len()).filter_map(element).collect()))
            }
            _ => None,
        },
        Node::Or(operands) => {
            let mut all = Vec::new();
            let mut attribute = None;
            for operand in operands {
                let (id, values) = values(operand, lowering)?;
                if attribute.is_some_and(|other| other != id) {
                    return None;
                }
                attribute = Some(id);
                all.extend(values);
            }
            Some((attribute?, all))
        }
        Node::And(_) => None,
    }
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

/// Whether two conditions demand different values of one attribute.
pub(super) fn disjoint(a: Option<&Node>, b: Option<&Node>) -> bool {
    let equalities = |node: Option<&Node>| -> Vec<(AttributeId, halftone_rules::isa::ConstantId)> {
        node.map(demands)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|node| match node {
                Node::Leaf(ops) => match ops.as_slice() {
                    [Op::Test(attribute, Binary::Equal, constant)] => Some((*attribute, *constant)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    };
    let (a, b) = (equalities(a), equalities(b));
    a.iter()
        .any(|(attribute, constant)| b.iter().any(|(other, value)| other == attribute && value != constant))
}
