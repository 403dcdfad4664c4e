use super::{Merge, add};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Distinct units of an epoch by cell, as the ledger's sets count them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmUnits {
    /// Units of the concurrent control.
    pub control: u64,
    /// Units of the candidate.
    pub treatment: u64,
    /// Units of the rest of stable.
    #[serde(default)]
    pub rest: u64,
    /// Units of other candidates, in the order of their shares.
    #[serde(default)]
    pub others: Vec<u64>,
    /// Units that were seen in more than one arm.
    #[serde(default)]
    pub both: u64,
}

impl ArmUnits {
    /// All cells, in the order control, treatment, rest, others.
    #[must_use]
    pub fn cells(&self) -> Vec<u64> {
        [self.control, self.treatment, self.rest].into_iter().chain(self.others.iter().copied()).collect()
    }
}

impl Merge for ArmUnits {
    /// For parts that hold different units, such as buckets of the unit hash. Replicas that may hold the same
    /// units have to unite their sets first.
    fn merge(&self, other: &Self) -> Result<Self> {
        let longest = self.others.len().max(other.others.len());
        let at = |units: &[u64], index: usize| units.get(index).copied().unwrap_or_default();
        let others = (0..longest)
            .map(|index| add(at(&self.others, index), at(&other.others, index)))
            .collect::<Result<_>>()?;
        Ok(Self {
            control: add(self.control, other.control)?,
            treatment: add(self.treatment, other.treatment)?,
            rest: add(self.rest, other.rest)?,
            others,
            both: add(self.both, other.both)?,
        })
    }
}

/// Outcomes of a shadow trial: both versions answered the same request, and each answer was good or bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedOutcomes {
    /// Both good, or both bad: they say nothing about the difference.
    pub agree: u64,
    /// Only stable's answer was bad.
    pub only_control: u64,
    /// Only the candidate's answer was bad.
    pub only_treatment: u64,
}

impl Merge for PairedOutcomes {
    fn merge(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            agree: add(self.agree, other.agree)?,
            only_control: add(self.only_control, other.only_control)?,
            only_treatment: add(self.only_treatment, other.only_treatment)?,
        })
    }
}
