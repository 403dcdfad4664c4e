//! Requests that were asked after, as people and programs look at them.

use super::{
    decision::Decision,
    id::hexadecimal,
    why::{Explainer, Why},
};
use crate::store::StoreError;
use halftone_proto::v1::{EvaluationContext, TracedRequest, traced_request::Answer};
use serde::{Deserialize, Serialize};

/// What is said of a request that brought no decision.
const UNDECIDED: &str =
    "nothing was decided for it: it did not pass through the filter, or no ruleset governed it";

/// What was decided for a request, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was decided; missing when the request brought no decision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<Decision>,
    /// Why.
    pub why: Why,
}

/// Requests of a trace, or of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The oldest first.
    pub requests: Vec<Request>,
    /// Whether there are older ones, which are not shown.
    #[serde(default)]
    pub more: bool,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The trace that it belongs to.
    pub trace_id: String,
    /// The span in which it was decided.
    pub evaluation_id: String,
    /// When the backend began with it: milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// How long the inference took, in microseconds; 0 when no model was found.
    pub duration_us: u64,
    /// The status of HTTP; missing for calls of gRPC, and when the client left before the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http_status: Option<u32>,
    /// The code of gRPC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grpc_code: Option<u32>,
    /// The model; empty when none was found.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The hash of the output, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_hash: Option<String>,
    /// What was decided for it.
    #[serde(flatten)]
    pub explanation: Explanation,
}

impl Explanation {
    pub(crate) fn of(
        decided: Option<&EvaluationContext>,
        explainer: &mut Explainer<'_>,
    ) -> Result<Self, StoreError> {
        // Whoever passes by the filter may send a context that is empty: it says of nothing that it was decided.
        let decided = decided.filter(|decided| !decided.ruleset.is_empty());
        let why = match decided {
            Some(decided) => explainer.why(decided)?,
            None => return Ok(Self::undecided()),
        };
        Ok(Self { decision: decided.map(Decision::from), why })
    }

    /// That of a request that brought no decision.
    pub(crate) fn undecided() -> Self {
        Self { decision: None, why: Why::plain(UNDECIDED) }
    }
}

impl Found {
    /// These requests; when there are more than `most`, the newest of them.
    pub(crate) fn of(
        mut traced: Vec<TracedRequest>,
        most: usize,
        explainer: &mut Explainer<'_>,
    ) -> Result<Self, StoreError> {
        let left_out = traced.len().saturating_sub(most);
        traced.drain(..left_out);
        // Proxies say when; backends tell those that nothing was decided for.
        let when = |of: &TracedRequest| of.evaluation.as_ref().map_or(of.begun_ms, |of| of.timestamp_ms);
        traced.sort_by_key(|of| (when(of), of.begun_ms));
        let requests = traced.iter().map(|traced| Request::of(traced, explainer));
        Ok(Self { requests: requests.collect::<Result<_, _>>()?, more: left_out > 0 })
    }
}

impl Request {
    fn of(traced: &TracedRequest, explainer: &mut Explainer<'_>) -> Result<Self, StoreError> {
        let (http_status, grpc_code) = match traced.answer {
            Some(Answer::HttpStatus(status)) => (Some(status), None),
            Some(Answer::GrpcCode(code)) => (None, Some(code)),
            None => (None, None),
        };
        Ok(Self {
            trace_id: hexadecimal(&traced.trace_id),
            evaluation_id: hexadecimal(&traced.parent_id),
            begun_ms: traced.begun_ms,
            duration_us: traced.duration_us,
            http_status,
            grpc_code,
            model: traced.model.clone(),
            version: traced.version.clone(),
            output_hash: traced.output_hash.map(|hash| format!("{hash:016x}")),
            explanation: Explanation::of(traced.evaluation.as_ref(), explainer)?,
        })
    }
}
