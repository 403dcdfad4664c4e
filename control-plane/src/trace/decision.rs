//! What was decided for a request, as people and programs look at it.

use halftone_proto::v1::EvaluationContext;
use halftone_telemetry::context;
use serde::{Deserialize, Serialize};

/// What was decided for a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When: milliseconds since the Unix epoch, the proxy's clock; missing when that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_ms: Option<u64>,
    /// The ruleset that governed the request.
    pub ruleset: String,
    /// The revision that it was decided by.
    pub revision: u64,
    /// The rule that took it; missing when none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The rule's arm, when it has several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arm: Option<String>,
    /// Where it went.
    pub target: String,
    /// Why, as `OpenFeature` names it.
    pub reason: String,
    /// The unit's bucket, from 0 to 999999, when the rule splits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bucket: Option<u32>,
    /// The epoch of the release that the rule is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u64>,
    /// The hash of the unit, 16 hexadecimal digits; missing when the request had none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit_hash: Option<String>,
    /// An override named the unit, or a token demanded the target.
    #[serde(default)]
    pub overridden: bool,
    /// The unit is kept out of every rule and experiment.
    #[serde(default)]
    pub held_out: bool,
    /// Whose request it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// The version of the features that it was about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub feature_version: Option<String>,
    /// The experiments that the unit took part in besides.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub experiments: Vec<Participation>,
}

/// A part in an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// The experiment.
    pub experiment: String,
    /// The arm.
    pub arm: String,
}

/// What a value of `x-halftone-context` says was decided.
///
/// # Errors
/// Why it is none that a filter writes.
pub(crate) fn read(header: &str) -> Result<EvaluationContext, String> {
    let decided = context::decode(header.as_bytes())?;
    if decided.ruleset.is_empty() {
        return Err("it names no ruleset".to_owned());
    }
    Ok(decided)
}

impl From<&EvaluationContext> for Decision {
    fn from(of: &EvaluationContext) -> Self {
        let text = |text: &String| Some(text).filter(|text| !text.is_empty()).cloned();
        let experiments = of.experiments.iter();
        Self {
            at_ms: Some(of.timestamp_ms).filter(|at| *at > 0),
            ruleset: of.ruleset.clone(),
            revision: of.revision,
            rule: text(&of.rule),
            arm: text(&of.arm),
            target: of.target.clone(),
            reason: of.reason().as_str_name().to_owned(),
            bucket: of.bucket,
            epoch: Some(of.epoch).filter(|epoch| *epoch > 0),
            unit_hash: Some(of.unit_hash).filter(|hash| *hash != 0).map(|hash| format!("{hash:016x}")),
            overridden: of.overridden,
            held_out: of.held_out,
            tenant: of.tenant.clone(),
            feature_version: of.feature_version.clone(),
            experiments: experiments
                .map(|part| Participation { experiment: part.experiment.clone(), arm: part.arm.clone() })
                .collect(),
        }
    }
}
