//! `/v1/events`: what is decided about releases, as server-sent events.

use super::{Api, problem::Problem};
use crate::release::{Event, Feed};
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{IntoResponse, Response, Sse, sse},
};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Readers at the same time.
pub(super) const MOST_READERS: usize = 64;
/// Events that wait for a reader.
const AHEAD: usize = 16;
/// How long a reader may leave them there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two signs of life.
const ALIVE: Duration = Duration::from_secs(15);
/// Until the store is asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// From where on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Since {
    /// Only events with larger numbers; from now on when it is left out. `Last-Event-ID` counts more: it is newer.
    after: Option<u64>,
}

/// What is sent.
type Message = Result<sse::Event, Infallible>;

pub(crate) async fn get(
    State(api): State<Api>,
    from: Result<Query<Since>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(Since { after }) = from.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let last = headers.get("last-event-id").map(|last| {
        let number = last.to_str().ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| Problem::bad_request("Last-Event-ID takes the id of an event"))
    });
    let after = last.transpose()?.or(after);
    let place = api.readers.clone().try_acquire_owned().map_err(|_| {
        Problem::busy(format!("{MOST_READERS} clients read events already; try again in a moment"))
    })?;
    let feed = api.controller.events(after).await.map_err(|error| Problem::publish(error, "", ""))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(pump(feed, sender, api.stopping.clone(), place));
    let alive = sse::KeepAlive::new().interval(ALIVE).text("alive");
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(alive).into_response())
}

/// Passes events on until the reader is gone or too slow, or the server stops.
async fn pump(
    mut feed: Feed,
    reader: mpsc::Sender<Message>,
    mut stopping: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
) {
    loop {
        let event = tokio::select! {
            event = feed.next() => event,
            () = reader.closed() => return,
            _ = stopping.changed() => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read; they are tried again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        if reader.send_timeout(Ok(message(&event)), PATIENCE).await.is_err() {
            return;
        }
    }
}

fn message(event: &Event) -> sse::Event {
    let action = serde_json::to_value(event.action).unwrap_or_default();
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::Event::default().event(action.as_str().unwrap_or_default()).id(&event.id).data(data)
}
