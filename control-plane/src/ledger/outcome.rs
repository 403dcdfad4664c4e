//! An outcome: what an application learned of a unit later, a click, a label, a rating.

use super::Refusal;
use super::batch::check_name;
use crate::ids::Id;
use halftone_proto::CLOCK_TOLERANCE_MS;
use std::time::Duration;

/// How outcomes are evaluated: a new number when the same outcome would be kept as another value.
pub const EVAL_VERSION: u32 = 1;

/// Bytes of an outcome's key.
const MAX_KEY: usize = 128;
/// Larger values have no squares that could be added up.
const MAX_VALUE: f64 = 1e100;

/// An outcome as it comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The name that its sender gives it, so that it can be sent again.
    pub key: String,
    /// The ruleset that has the release.
    pub ruleset: String,
    /// The release that the unit takes part in.
    pub release: String,
    /// What is measured.
    pub metric: String,
    /// The hash of the unit.
    pub unit: u64,
    /// The value.
    pub value: f64,
    /// When it happened: milliseconds since the Unix epoch; `None` when it is not said: when it is kept.
    pub time_ms: Option<u64>,
}

impl Outcome {
    /// The same, when it may be kept.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn checked(mut self, now_ms: u64, keep: Duration) -> Result<Self, Refusal> {
        if self.key.is_empty() || self.key.len() > MAX_KEY || self.key.chars().any(char::is_control) {
            return Err(Refusal::new(format!(
                "`id` has {} bytes: it has to have 1 to {MAX_KEY}, and no control characters",
                self.key.len()
            )));
        }
        for (what, name) in [("ruleset", &self.ruleset), ("release", &self.release), ("metric", &self.metric)]
        {
            if name.is_empty() {
                return Err(Refusal::new(format!("`{what}` is missing")));
            }
            check_name(what, name)?;
        }
        if !self.value.is_finite() || self.value.abs() > MAX_VALUE {
            return Err(Refusal::new(format!(
                "`value` is {}, and has to be from -1e100 to 1e100",
                self.value
            )));
        }
        // The database knows one zero.
        self.value += 0.0;
        if let Some(time_ms) = self.time_ms {
            if time_ms > now_ms + CLOCK_TOLERANCE_MS {
                let ahead = (time_ms - now_ms) / 1000;
                return Err(Refusal::new(format!(
                    "`time` is {ahead} s in the future: set the sender's clock"
                )));
            }
            let age = Duration::from_millis(now_ms.saturating_sub(time_ms));
            if age > keep {
                return Err(Refusal::new(format!(
                    "`time` is {} s ago, and observations are kept for {} s (--keep-observations)",
                    age.as_secs(),
                    keep.as_secs()
                )));
            }
        }
        Ok(self)
    }
}

/// An outcome as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptOutcome {
    /// The name of its record.
    pub record: Id,
    /// What is measured.
    pub metric: String,
    /// The hash of the unit.
    pub unit: u64,
    /// The value.
    pub value: f64,
    /// When it happened: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// When it was kept.
    pub processed_at_ms: u64,
    /// [`EVAL_VERSION`] then.
    pub eval_version: u32,
}

impl KeptOutcome {
    /// Whether it may have been made of this one.
    pub(super) fn is_of(&self, outcome: &Outcome) -> bool {
        self.metric == outcome.metric
            && self.unit == outcome.unit
            && self.value == outcome.value
            && outcome.time_ms.is_none_or(|time_ms| time_ms == self.time_ms)
    }
}

/// What became of an outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It is kept.
    New(KeptOutcome),
    /// The first one with this key, which is the same, is kept.
    Repeated(KeptOutcome),
    /// The first one with this key, which is another one, is kept.
    Conflict(KeptOutcome),
}
