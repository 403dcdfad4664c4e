//! `POST /v1/outcomes`: what applications learned of units later, one or many.

mod form;

use super::{json, problem::Problem};
use crate::{
    ids::Id,
    ledger::{KeptOutcome, Ledger, LedgerError, Outcome, Refusal, Taken},
};
use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes of one outcome.
const MAX_ONE: usize = 64 << 10;
/// Bytes of many.
const MAX_MANY: usize = 16 << 20;
/// Lines of many: more than there can be outcomes, and no more than there is memory for answers.
const MAX_LINES: usize = 200_000;
/// Outcomes of one transaction.
const CHUNK: usize = 4_096;
/// Requests of one outcome that are answered at once; more wait.
const ONES: usize = 32;
/// Requests of many outcomes that are answered at once; more are told to come again. With the others and those of backends,
/// they are no more than may wait for the ledger.
const MANIES: usize = 4;

/// The name of an outcome, where it is not in the body (draft-ietf-httpapi-idempotency-key-header).
const KEY: &str = "idempotency-key";

/// What the handler works on.
#[derive(Clone)]
pub(crate) struct Reports {
    ledger: Arc<Ledger>,
    ones: Arc<Semaphore>,
    manies: Arc<Semaphore>,
}

/// The endpoint.
pub(crate) fn route<S>(ledger: Arc<Ledger>) -> MethodRouter<S> {
    let (ones, manies) = (Arc::new(Semaphore::new(ONES)), Arc::new(Semaphore::new(MANIES)));
    post(take).layer(DefaultBodyLimit::disable()).with_state(Reports { ledger, ones, manies })
}

/// An outcome as it is kept.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    record: Id,
    metric: String,
    value: f64,
    time_ms: u64,
    processed_at_ms: u64,
    eval_version: u32,
}

impl From<KeptOutcome> for Stored {
    fn from(of: KeptOutcome) -> Self {
        let KeptOutcome { record, metric, value, time_ms, processed_at_ms, eval_version, .. } = of;
        Self { record, metric, value, time_ms, processed_at_ms, eval_version }
    }
}

/// The answer to an outcome that is kept.
#[derive(Serialize)]
struct Answer {
    /// Whether it was kept before this request.
    repeated: bool,
    #[serde(flatten)]
    stored: Stored,
}

/// The answer to one of many outcomes.
#[derive(Serialize)]
struct Line {
    /// The number of its line, from 0 on.
    index: usize,
    /// As if it had come alone.
    status: u16,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    answer: Option<Answer>,
    /// What is kept in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Box<Stored>>,
}

async fn take(State(reports): State<Reports>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes()).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    // Nothing else is guessed: pages in the operator's browser can send other kinds to this machine unasked.
    if kind.eq_ignore_ascii_case(b"application/json") {
        one(reports, &headers, request).await
    } else if kind.eq_ignore_ascii_case(b"application/x-ndjson") {
        many(reports, &headers, request).await
    } else {
        Err(Problem::unsupported(
            "say what the body is: `Content-Type: application/json` for one outcome, `application/x-ndjson` for one on each line",
        ))
    }
}

async fn one(reports: Reports, headers: &HeaderMap, request: Request) -> Result<Response, Problem> {
    let key = key(headers)?;
    let _place = reports.ones.acquire().await.map_err(|error| Problem::internal(error.to_string()))?;
    let body = body(request, "an outcome", MAX_ONE).await?;
    let outcome = form::read(&body, key.as_deref());
    let mut results =
        keep(&reports.ledger, vec![outcome]).await.map_err(|error| Problem::not_taken(&error))?;
    let result = results.pop().unwrap_or(Err(LedgerError::Stopped));
    let (status, answer) = answer(result)?;
    Ok((status, json::Json(answer)).into_response())
}

async fn many(reports: Reports, headers: &HeaderMap, request: Request) -> Result<Response, Problem> {
    if headers.contains_key(KEY) {
        return Err(Problem::bad_request(
            "of many outcomes each has its `id` on its line: leave `Idempotency-Key` out",
        ));
    }
    let Ok(_place) = reports.manies.try_acquire() else {
        return Err(Problem::busy("other outcomes are being taken: try again in a moment"));
    };
    let body = body(request, "a body of outcomes", MAX_MANY).await?;
    let lines =
        (0..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    let lines: Vec<(usize, Bytes)> =
        lines.take(MAX_LINES + 1).map(|(index, line)| (index, body.slice_ref(line))).collect();
    if lines.is_empty() {
        return Err(Problem::bad_request("there is no outcome in it: it has one as JSON on each line"));
    }
    if lines.len() > MAX_LINES {
        return Err(Problem::too_large(format!("it has more than {MAX_LINES} lines")));
    }
    let (mut answers, mut all_kept) = (Vec::new(), true);
    for chunk in lines.chunks(CHUNK) {
        let results = match keep(&reports.ledger, read(chunk.to_vec()).await?).await {
            Ok(results) => results.into_iter().map(answer).collect::<Vec<_>>(),
            Err(error) => chunk.iter().map(|_| Err(Problem::not_taken(&error))).collect(),
        };
        for ((index, _), result) in chunk.iter().zip(results) {
            let line = Line::new(*index, result);
            all_kept &= line.answer.is_some();
            let text = json::text(&line).map_err(|error| Problem::internal(error.to_string()))?;
            answers.extend(text);
        }
    }
    let status = if all_kept { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, [(header::CONTENT_TYPE, "application/x-ndjson")], answers).into_response())
}

/// The outcomes on these lines. It takes milliseconds, in which others could be answered.
async fn read(lines: Vec<(usize, Bytes)>) -> Result<Vec<Result<Outcome, Refusal>>, Problem> {
    let read = move || lines.iter().map(|(_, line)| form::read(line, None)).collect();
    tokio::task::spawn_blocking(read).await.map_err(|error| Problem::internal(error.to_string()))
}

/// What became of each, when that is durable.
async fn keep(
    ledger: &Ledger,
    outcomes: Vec<Result<Outcome, Refusal>>,
) -> Result<Vec<Result<Taken, LedgerError>>, LedgerError> {
    ledger.take_outcomes(outcomes)?.await
}

async fn body(mut request: Request, what: &str, most: usize) -> Result<Bytes, Problem> {
    DefaultBodyLimit::max(most).apply(&mut request);
    Bytes::from_request(request, &()).await.map_err(|rejection| Problem::body(&rejection, what, most))
}

fn answer(result: Result<Taken, LedgerError>) -> Result<(StatusCode, Answer), Problem> {
    match result.map_err(|error| Problem::not_taken(&error))? {
        Taken::New(kept) => Ok((StatusCode::CREATED, Answer { repeated: false, stored: kept.into() })),
        Taken::Repeated(kept) => Ok((StatusCode::OK, Answer { repeated: true, stored: kept.into() })),
        Taken::Conflict(kept) => Err(Problem::key_used(kept.into())),
    }
}

impl Line {
    fn new(index: usize, result: Result<(StatusCode, Answer), Problem>) -> Self {
        match result {
            Ok((status, answer)) => {
                Self { index, status: status.as_u16(), message: None, answer: Some(answer), stored: None }
            }
            Err(problem) => {
                let (status, message, stored) = problem.parts();
                Self { index, status, message: Some(message), answer: None, stored }
            }
        }
    }
}

/// The key of `Idempotency-Key`, which may stand in quotes.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let (key, more) = (keys.next(), keys.next());
    let Some(key) = key else { return Ok(None) };
    let key = key.to_str().ok().filter(|_| more.is_none());
    let key =
        key.ok_or_else(|| Problem::bad_request("`Idempotency-Key` is there more than once, or is no text"))?;
    let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    Ok(Some(quoted.unwrap_or(key).to_owned()))
}
