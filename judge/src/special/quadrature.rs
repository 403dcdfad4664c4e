//! Gauss-Legendre rules on [−1, 1].

use std::{f64::consts::PI, sync::OnceLock};

/// Nodes and weights of one rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) nodes: Vec<f64>,
    pub(crate) weights: Vec<f64>,
}

/// Sizes that are kept: computing a rule costs the square of its size.
const SIZES: [usize; 12] = [80, 120, 160, 240, 360, 540, 810, 1_215, 1_800, 2_700, 4_050, 6_000];

static EMPTY: Rule = Rule { nodes: Vec::new(), weights: Vec::new() };
static RULES: [OnceLock<Rule>; SIZES.len()] = [const { OnceLock::new() }; SIZES.len()];

/// The smallest rule with at least `nodes` nodes; the largest one where there is none.
pub(crate) fn rule(nodes: usize) -> &'static Rule {
    let mut kept = RULES.iter().zip(SIZES);
    let fitting = kept.find(|(_, size)| *size >= nodes).or_else(|| RULES.iter().zip(SIZES).last());
    fitting.map_or(&EMPTY, |(rule, size)| rule.get_or_init(|| legendre(size)))
}

/// Roots of the Legendre polynomial by Newton's method from Tricomi's guess; exact to 1e-15.
fn legendre(size: usize) -> Rule {
    let n = size as f64;
    let (mut nodes, mut weights) = (Vec::with_capacity(size), Vec::with_capacity(size));
    for index in (0..size).rev() {
        let mut x = (PI * (index as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..20 {
            let (mut before, mut value) = (1.0, x);
            for degree in 2..=size {
                let k = degree as f64;
                (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
            }
            slope = n * (x * value - before) / (x * x - 1.0);
            let step = value / slope;
            x -= step;
            if step.abs() < 1e-16 {
                break;
            }
        }
        nodes.push(x);
        weights.push(2.0 / ((1.0 - x * x) * slope * slope));
    }
    Rule { nodes, weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_integrate_exactly() {
        for wanted in [1, 200, 700] {
            let rule = rule(wanted);
            assert!(rule.nodes.len() >= wanted);
            assert!(rule.nodes.windows(2).all(|pair| pair[0] < pair[1]));
            let integral = |f: fn(f64) -> f64| -> f64 {
                rule.nodes.iter().zip(&rule.weights).map(|(x, w)| w * f(*x)).sum()
            };
            assert!((integral(|_| 1.0) - 2.0).abs() < 1e-12);
            assert!((integral(|x| x.powi(8)) - 2.0 / 9.0).abs() < 1e-12);
            assert!((integral(f64::exp) - (1f64.exp() - (-1f64).exp())).abs() < 1e-12);
        }
        assert_eq!(rule(1_000_000).nodes.len(), 6_000);
    }
}
