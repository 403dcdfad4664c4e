//! What a release is to do, as people write it.

use super::source::Source;
use halftone_judge::{Judge, Policy};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// A release, as it was written, with everything that was left out filled in. `docs/release.md` has the fields.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name, which no other release has: the rule that it becomes, and what observations name.
    pub name: String,
    /// The ruleset whose requests it takes.
    pub ruleset: String,
    /// The target that requests go to today.
    pub stable: String,
    /// The targets that are tried, each an arm of that name.
    pub candidates: Vec<String>,
    /// Which requests are part of it: a condition of the rule language; all when left out.
    pub eligible: Option<String>,
    /// The layer whose buckets it takes.
    pub layer: Option<String>,
    /// The part of the layer that belongs to it.
    pub range: Option<[f64; 2]>,
    /// The rule of the ruleset that it is tried before; after all of them when left out.
    pub before: Option<String>,
    /// The ramp, in order; at least one step.
    pub steps: Vec<Step>,
    /// Where each metric's numbers come from.
    pub sources: BTreeMap<String, Source>,
    /// The judge, with policy and metrics.
    pub judge: Judge,
    /// Who approves what the judge promotes.
    pub approval: Approval,
    /// What to do when no data came until the policy's `data_deadline_s`.
    pub on_no_data: OnNoData,
    /// Names of the gates that are asked before it goes on; where they are is for the operator to say.
    pub gates: Vec<String>,
    /// What follows the promotion.
    pub watch: Watch,
}

impl Spec {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.judge.policy()
    }

    /// The part of its ruleset's buckets that the release may take.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.range.map_or(1.0, |[start, end]| end - start)
    }
}

/// A step of the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of the release's units that each candidate gets.
    pub share: f64,
    /// What has to hold before the next step.
    #[serde(default)]
    pub hold: Hold,
}

/// What has to hold before the next step; at the last one, before anything is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// Time that has to pass.
    #[serde(rename = "for", with = "duration")]
    pub time: Duration,
    /// Units that each arm has to have.
    pub units: u64,
    /// Whether a person has to approve.
    pub approval: bool,
}

impl Default for Hold {
    fn default() -> Self {
        Self { time: Duration::from_secs(600), units: 100, approval: false }
    }
}

/// Who approves what the judge promotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// A person.
    #[default]
    Manual,
    /// Nobody has to.
    Auto,
}

/// What to do when no data came for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNoData {
    /// Keep the shares, and wait for a person.
    #[default]
    Pause,
    /// Keep the shares, and wait for data.
    Hold,
    /// Return to stable.
    Rollback,
}

/// What follows the promotion: the candidate has all but a control, and can still be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// For how long.
    #[serde(rename = "for", with = "duration")]
    pub time: Duration,
    /// Share of the release's units that stay with stable, to compare with.
    pub control: f64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { time: Duration::from_secs(24 * 3600), control: 0.05 }
    }
}

/// Durations as the rule language writes them: `1h30m`.
pub(crate) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    /// Longer than any release.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nanoseconds = halftone_compiler::duration(&text).map_err(D::Error::custom)?;
        u64::try_from(nanoseconds)
            .map(Duration::from_nanos)
            .ok()
            .filter(|duration| *duration <= LONGEST)
            .ok_or_else(|| D::Error::custom(format!("{text}: give a duration from 0s to 8760h")))
    }

    /// `1h30m`, to the millisecond.
    pub(crate) fn text(duration: Duration) -> String {
        let milliseconds = duration.as_millis();
        let parts = [
            (milliseconds / 3_600_000, "h"),
            (milliseconds / 60_000 % 60, "m"),
            (milliseconds / 1_000 % 60, "s"),
            (milliseconds % 1_000, "ms"),
        ];
        let text: String = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, unit)| format!("{count}{unit}"))
            .collect();
        if text.is_empty() { "0s".to_owned() } else { text }
    }
}
