//! What is handed over of one inference.

use super::places::Rank;
use crate::{
    checks::{Checks, Findings},
    failure::Failure,
};
use axum::http::StatusCode;
use halftone_proto::v1::{EvaluationContext, Series, TracedRequest, traced_request::Answer};
use halftone_telemetry::{
    context::{RequestContext, parts},
    outcome::Outcome,
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// What is handed over of one inference that has ended.
#[derive(Debug)]
pub struct Record {
    /// What is known of the request: what was decided, which model it was about, how long it took.
    pub context: Arc<RequestContext>,
    /// When it began: milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// How it was answered; none when it was not.
    pub answer: Option<Answer>,
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
    /// It was not answered: the client left before.
    Left,
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// Over REST.
    Rest,
    /// Over gRPC.
    Grpc,
}

impl Protocol {
    /// How an answer ends there.
    #[must_use]
    pub fn answer<T>(self, answer: &Result<T, Failure>) -> Answer {
        let (status, code) =
            answer.as_ref().map_or_else(Failure::codes, |_| (StatusCode::OK, tonic::Code::Ok));
        match self {
            Self::Rest => Answer::HttpStatus(status.as_u16().into()),
            Self::Grpc => Answer::GrpcCode(u32::try_from(code as i32).unwrap_or(u32::MAX)),
        }
    }
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
            End::Answered | End::Left => 0,
            End::Refused => outcome::REFUSED,
            End::Failed => outcome::ERROR,
        };
        let flag = |found: Option<bool>, flag| if found == Some(true) { flag } else { 0 };
        end | flag(self.findings.nan, outcome::NAN) | flag(self.findings.range, outcome::RANGE)
    }

    /// That of a request which no model was found for. It is no observation of any; whoever asks after its trace is told.
    #[must_use]
    pub fn of_no_model(context: Arc<RequestContext>, answer: Answer) -> Self {
        let (checks, findings) = (Arc::default(), Findings::default());
        Self { context, begun_ms: now_ms(), answer: Some(answer), checks, end: End::Refused, findings }
    }

    /// How much people ask after it by itself.
    #[must_use]
    pub fn rank(&self) -> Rank {
        let of_candidate = |of: &EvaluationContext| {
            // The other arms of a release.
            of.epoch > 0 && !matches!(of.arm.as_str(), "control" | "rest")
        };
        // What no model was found for is a mistake, too.
        let outcome = self.context.inference().map_or(Outcome::Invalid, |inference| inference.outcome);
        if outcome == Outcome::Invalid {
            return Rank::MISTAKE;
        }
        Rank {
            of_candidate: self.context.evaluation.as_ref().is_some_and(of_candidate),
            is_trouble: outcome != Outcome::Ok,
            is_mistake: false,
        }
    }

    /// The request by itself, when its trace is sampled.
    #[must_use]
    pub fn traced(&self) -> Option<TracedRequest> {
        let Self { context, begun_ms, answer, findings, .. } = self;
        let parent = context.sampled_parent()?;
        let (served, inference) = (context.served(), context.inference());
        let micros = inference.map_or(0, |inference| inference.duration.as_micros());
        Some(TracedRequest {
            trace_id: parent.trace_id().to_bytes().into(),
            parent_id: parent.span_id().to_bytes().into(),
            evaluation: context.evaluation.clone(),
            begun_ms: *begun_ms,
            duration_us: u64::try_from(micros).unwrap_or(u64::MAX),
            answer: *answer,
            model: served.map(|served| served.model.as_ref().into()).unwrap_or_default(),
            version: served.map(|served| served.version.as_ref().into()).unwrap_or_default(),
            output_hash: findings.hash,
        })
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
        let Some(served) = self.context.served().filter(|_| self.end != End::Left) else { return Vec::new() };
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

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
