//! What a model's `config.json` says about its checks.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Outputs that are larger are not looked at, unless the model says otherwise; in bytes.
const LOOKED_AT: usize = 1 << 20;

/// What is looked for in a model's outputs; what is left out is as here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksConfig {
    /// Whether NaN and infinities are looked for.
    pub nan: bool,
    /// Whether the outputs are hashed.
    pub hash: bool,
    /// An answer whose outputs are larger together is not looked at; in bytes.
    pub max_bytes: usize,
    /// The output that tells how sure the model is.
    pub confidence: Option<String>,
    /// What more is looked for, by the output's name.
    pub outputs: BTreeMap<String, OutputConfig>,
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self { nan: true, hash: true, max_bytes: LOOKED_AT, confidence: None, outputs: BTreeMap::new() }
    }
}

/// What is looked for in one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// The smallest value that it may have.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Whether its values are summed up, so that a drift shows.
    pub distribution: bool,
}
