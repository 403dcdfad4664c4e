//! `GET /v1/traces/{id}` and `GET /v1/explanations`: what was decided for a request, and why.

use super::{Api, json::Json, problem::Problem};
use crate::{
    store::{Store, StoreError},
    trace::{BadId, Explanation, Found, Id, read, why::Explainer},
};
use axum::extract::{Path, Query, State, rejection::QueryRejection};
use serde::Deserialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Requests that are shown of a trace.
const MOST: usize = 100;
/// Answers that are worked out at the same time: each may compile a hundred large rulesets, and everybody may ask.
pub(super) const AT_ONCE: usize = 2;
/// How long one waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// A value of `x-halftone-context`.
    context: String,
}

/// The requests of a trace or of an evaluation.
pub(crate) async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Found>, Problem> {
    let id: Id = id.parse().map_err(|error: BadId| Problem::bad_request(error.to_string()))?;
    let ledger = api.ledger.clone();
    // What is not known needs no place.
    let traced = api.publisher().stored(move |_| ledger.traced(&id, MOST + 1)).await;
    let traced = traced.map_err(|error| Problem::publish(error, "", ""))?;
    if traced.is_empty() {
        return Err(Problem::not_found(unknown(&id, api.ledger.most_traced())));
    }
    Ok(Json(explained(&api, move |explainer| Found::of(traced, MOST, explainer)).await?))
}

/// What a value of `x-halftone-context` says, and why.
pub(crate) async fn explain(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    let Query(Wanted { context }) =
        wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let decided = read(&context).map_err(|error| {
        Problem::bad_request(format!("`context` is no value of the header x-halftone-context: {error}"))
    })?;
    Ok(Json(explained(&api, move |explainer| Explanation::of(Some(&decided), explainer)).await?))
}

async fn explained<T: Send + 'static>(
    api: &Api,
    explain: impl FnOnce(&mut Explainer<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let place = tokio::time::timeout(PATIENCE, api.explaining.clone().acquire_owned()).await;
    let Ok(place) = place else {
        return Err(Problem::busy(
            "others ask why at the moment, and of large rulesets: ask again in a while",
        ));
    };
    let place = place.map_err(|error| Problem::internal(error.to_string()))?;
    let (asking, forms) = (Asking::default(), api.forms.clone());
    let abandoned = Arc::clone(&asking.abandoned);
    let ask = move |store: &dyn Store| {
        let _place = place;
        explain(&mut Explainer::new(store, &forms, &abandoned)?)
    };
    api.publisher().stored(ask).await.map_err(|error| Problem::publish(error, "", ""))
}

/// Somebody who waits for an answer. The work goes on on another thread, which is told when nobody does any more.
#[derive(Default)]
struct Asking {
    abandoned: Arc<AtomicBool>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Why nothing may be known.
fn unknown(id: &Id, most: u32) -> String {
    format!(
        "nothing is known of {id}. Of a request it is, about a second after the answer, when\n\
         - it was an inference that reached a backend which reports here (--observations-to)\n\
         - its trace was sampled (its `traceparent` ends in an odd digit); a log has the others: `halftone trace ID --from-log FILE`\n\
         - it is among the newest {most} (`halftone serve --keep-traces`)\n\
         - it was not left out, as more than 512 a second came to its backend (`omitted.traced` in GET /v1/observations counts those)"
    )
}
