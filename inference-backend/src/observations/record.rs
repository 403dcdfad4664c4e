//! What is handed over of one inference.

use crate::{
    checks::{Checks, Findings},
    failure::Failure,
};
use halftone_proto::v1::Series;
use halftone_telemetry::context::{RequestContext, parts};
use std::sync::Arc;

/// What is handed over of one inference that has ended.
#[derive(Debug)]
pub struct Record {
    /// What is known of the request: what was decided, which model it was about, how long it took.
    pub context: Arc<RequestContext>,
    /// What was looked for in the outputs.
    pub checks: Arc<Checks>,
    /// How it ended.
    pub end: End,
    /// What was found in the outputs, where there were some.
    pub findings: Findings,
}

/// How an inference ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Answered,
    /// It was refused: the client's fault, or there was no room.
    Refused,
    /// It failed: our fault.
    Failed,
}

impl End {
    /// That of an answer.
    #[must_use]
    pub fn of<T>(answer: &Result<T, Failure>) -> Self {
        match answer {
            Ok(_) => Self::Answered,
            Err(failure) if failure.is_ours() => Self::Failed,
            Err(_) => Self::Refused,
        }
    }
}

/// What came of a unit's request, as flags that add up; those of `Exposure.outcome`.
pub mod outcome {
    /// It failed.
    pub const ERROR: u32 = 1;
    /// The output had NaN or an infinity.
    pub const NAN: u32 = 2;
    /// The output was out of range.
    pub const RANGE: u32 = 4;
    /// It was refused.
    pub const REFUSED: u32 = 8;
}

impl Record {
    /// The flags of [`outcome`].
    #[must_use]
    pub fn outcome(&self) -> u32 {
        let end = match self.end {
            End::Answered => 0,
            End::Refused => outcome::REFUSED,
            End::Failed => outcome::ERROR,
        };
        let flag = |found: Option<bool>, flag| if found == Some(true) { flag } else { 0 };
        end | flag(self.findings.nan, outcome::NAN) | flag(self.findings.range, outcome::RANGE)
    }

    /// The unit whose request it was, where there is one.
    #[must_use]
    pub fn unit(&self) -> Option<u64> {
        self.context.evaluation.as_ref().map(|context| context.unit_hash).filter(|&hash| hash != 0)
    }

    /// The series that it belongs to: one for the rule with arms and one for each experiment, or else one without a
    /// release. None when it is not to be analysed.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let Some(served) = self.context.served() else { return Vec::new() };
        let plain = Series {
            model: served.model.as_ref().into(),
            version: served.version.as_ref().into(),
            ..Series::default()
        };
        let Some(context) = &self.context.evaluation else { return vec![plain] };
        if context.overridden || context.held_out {
            return Vec::new();
        }
        let of = |(release, arm): (&str, &str)| Series {
            ruleset: context.ruleset.clone(),
            release: release.to_owned(),
            // Other rules may change while a release stays in its epoch; what is no release has the revision alone.
            epoch: if context.epoch > 0 { context.epoch } else { context.revision },
            arm: arm.to_owned(),
            target: context.target.clone(),
            ..plain.clone()
        };
        let series: Vec<Series> = parts(context).map(of).collect();
        if series.is_empty() { vec![of(("", ""))] } else { series }
    }
}
