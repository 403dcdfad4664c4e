//! What is looked for in a model's outputs: NaN and infinities, values out of range, how sure the model is, how its
//! values are distributed, and a hash of them.

mod config;
pub mod hash;
pub mod numbers;

pub use config::{ChecksConfig, OutputConfig};

use crate::{
    datatype::{Datatype, Elements},
    output::Output,
    signature::{Signature, TensorSpec, names},
};
use std::ops::RangeInclusive;

/// What is looked for in the outputs of one version of a model.
#[derive(Debug, Default)]
pub struct Checks {
    nan: bool,
    hash: bool,
    max_bytes: usize,
    confidence: Option<usize>,
    outputs: Vec<OutputCheck>,
}

/// What is looked for in one output.
#[derive(Debug)]
struct OutputCheck {
    index: usize,
    range: Option<RangeInclusive<f64>>,
    /// Name of the metric that its values go to.
    distribution: Option<String>,
}

/// What was found in the outputs of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// [`hash::of`] all of them.
    pub hash: Option<u64>,
    /// Whether there was a NaN or an infinity; none when that was not looked for.
    pub nan: Option<bool>,
    /// Whether a value was out of range; none when that was not looked for.
    pub range: Option<bool>,
    /// How sure the model was, of each row.
    pub confidence: Vec<f64>,
    /// Values of outputs whose distribution is of interest, by the index of the check.
    pub values: Vec<(usize, Vec<f64>)>,
}

impl Checks {
    /// Of a version of a model, as its configuration says.
    ///
    /// # Errors
    /// What of the configuration does not fit the model.
    pub fn new(config: &ChecksConfig, signature: &Signature) -> Result<Self, String> {
        let find = |place: &str, name: &str| {
            let index = signature.outputs.iter().position(|spec| spec.name == name);
            let index = index.ok_or_else(|| {
                format!("{place}: unknown output {name:?}; the model gives {}", names(&signature.outputs))
            })?;
            if signature.outputs.get(index).is_some_and(|spec| spec.datatype == Datatype::String) {
                return Err(format!("{place}: output {name:?} is BYTES, which are no numbers"));
            }
            Ok(index)
        };
        let confidence = config.confidence.as_deref().map(|name| find("checks.confidence", name));
        let outputs = config.outputs.iter().map(|(name, output)| {
            let index = find("checks.outputs", name)?;
            OutputCheck::new(index, name, *output)
                .map_err(|problem| format!("checks.outputs.{name}: {problem}"))
        });
        Ok(Self {
            nan: config.nan && signature.outputs.iter().any(is_float),
            hash: config.hash,
            max_bytes: config.max_bytes,
            confidence: confidence.transpose()?,
            outputs: outputs.collect::<Result<_, _>>()?,
        })
    }

    /// Looks at the outputs of one answer. The hash is for the log; the rest is of use only when it is `observed`.
    ///
    /// An output that is not what the model declares has nothing to look at: to send it fails.
    #[must_use]
    pub fn look(&self, outputs: &[Output], signature: &Signature, observed: bool) -> Findings {
        let size = |output: &Output| output.spec(signature).datatype.size().unwrap_or(1);
        let bytes = |output: &Output| output.count().saturating_mul(size(output));
        if outputs.iter().map(bytes).fold(0, usize::saturating_add) > self.max_bytes {
            return Findings::default();
        }
        let elements = |index: usize| {
            let output = outputs.get(index)?;
            output.elements(output.spec(signature)).ok()
        };
        let mut findings = Findings::default();
        if self.hash {
            let tensors: Option<Vec<Elements<'_>>> = (0..outputs.len()).map(elements).collect();
            findings.hash = tensors.map(hash::of);
        }
        if !observed {
            return findings;
        }
        if self.nan {
            let floats = (0..).zip(outputs).filter(|(_, output)| is_float(output.spec(signature)));
            let seen = floats.filter_map(|(index, _)| elements(index));
            findings.nan = seen.map(|elements| numbers::any_not_finite(&elements)).reduce(|a, b| a | b);
        }
        // Requests need not ask for all outputs.
        let given = |index: usize| outputs.iter().position(|output| output.index == index);
        for (index, check) in self.outputs.iter().enumerate() {
            let Some(elements) = given(check.index).and_then(elements) else { continue };
            if let Some(range) = &check.range {
                let outside = numbers::any_outside(&elements, range);
                findings.range = Some(outside || findings.range.unwrap_or_default());
            }
            if check.distribution.is_some() {
                findings.values.push((index, numbers::sample(&elements)));
            }
        }
        if let Some(index) = self.confidence.and_then(given)
            && let (Some(output), Some(elements)) = (outputs.get(index), elements(index))
        {
            findings.confidence = numbers::largest(&elements, row(output, output.spec(signature)));
        }
        findings
    }

    /// The metric that the values of a check go to.
    #[must_use]
    pub fn metric(&self, check: usize) -> Option<&str> {
        self.outputs.get(check)?.distribution.as_deref()
    }
}

impl OutputCheck {
    fn new(index: usize, name: &str, config: OutputConfig) -> Result<Self, String> {
        let OutputConfig { min, max, distribution } = config;
        if min.is_none() && max.is_none() && !distribution {
            return Err("it asks for nothing; give min, max or distribution".into());
        }
        let (least, most) = (min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY));
        if least > most {
            return Err(format!("min is {least}, more than max, which is {most}"));
        }
        let range = (min.is_some() || max.is_some()).then_some(least..=most);
        Ok(Self { index, range, distribution: distribution.then(|| format!("output:{name}")) })
    }
}

fn is_float(spec: &TensorSpec) -> bool {
    matches!(spec.datatype, Datatype::Float16 | Datatype::Bfloat16 | Datatype::Float32 | Datatype::Float64)
}

/// Elements of a row: the last dimension. A single dimension that can vary is the number of rows.
fn row(output: &Output, spec: &TensorSpec) -> usize {
    match (output.shape.as_slice(), spec.shape.as_slice()) {
        ([], _) | ([_], [-1]) => 1,
        ([.., last], _) => usize::try_from(*last).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
