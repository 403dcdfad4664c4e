//! Webhooks: each endpoint is told every event, in order, at least once.

use super::{
    progress::Progress,
    settings::{Endpoint, Hooks},
};
use crate::{
    publisher::PublishError,
    release::{Controller, Event, number},
};
use futures::future::join_all;
use std::time::Duration;

/// Until the first try again.
const FIRST: Duration = Duration::from_secs(1);
/// Between two tries, at most.
const LONGEST: Duration = Duration::from_secs(600);

/// Tells all webhooks of all events, for as long as it is polled. One that does not answer holds up no other.
pub(crate) async fn deliver(hooks: &Hooks, controller: &Controller) {
    join_all(hooks.webhooks.iter().map(|endpoint| tell(endpoint, &hooks.progress, controller))).await;
    // Without webhooks there is nothing to do, and nothing that ended.
    std::future::pending::<()>().await;
}

/// Tells an endpoint of all events from where it was.
async fn tell(endpoint: &Endpoint, progress: &Progress, controller: &Controller) {
    let name = endpoint.name.as_str();
    let mut failures = 0;
    loop {
        if let Err(error) = follow(endpoint, progress, controller, &mut failures).await {
            tracing::error!(webhook = name, %error, "events cannot be read: they are tried again");
            tokio::time::sleep(FIRST).await;
        }
    }
}

async fn follow(
    endpoint: &Endpoint,
    progress: &Progress,
    controller: &Controller,
    failures: &mut u32,
) -> Result<(), PublishError> {
    let name = endpoint.name.as_str();
    let mut feed = controller.events_for(name).await?;
    loop {
        let event = feed.next().await?;
        while let Err(why) = send(endpoint, &event).await {
            let wait = pause(*failures);
            *failures = failures.saturating_add(1);
            let behind = controller.events_since(number(&event)?).await? + 1;
            progress.failed(name, behind);
            tracing::warn!(
                webhook = name,
                event = event.id,
                behind,
                why,
                again_in_s = wait.as_secs(),
                "a webhook was not delivered"
            );
            tokio::time::sleep(wait).await;
        }
        *failures = 0;
        progress.delivered(name);
        // A crash before this delivers the event again, under the same id.
        controller.delivered(name, number(&event)?).await?;
    }
}

/// Sends an event; why it did not arrive.
async fn send(endpoint: &Endpoint, event: &Event) -> Result<(), String> {
    let body = serde_json::to_string(event).map_err(|error| error.to_string())?;
    let request = endpoint.secret.signed(endpoint.http.post(endpoint.url.clone()), &event.id, body);
    let answer = request.send().await.map_err(|error| shown(&error).to_owned())?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}

/// An error in words, without the address, which may have secrets of its own.
pub(super) fn shown(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "it cannot be connected to"
    } else {
        "the exchange broke off"
    }
}

/// Twice as long after each failure, less a random part up to a half: endpoints that failed together are not asked
/// together.
fn pause(failures: u32) -> Duration {
    let longest = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
    let random = getrandom::u32().unwrap_or_default();
    longest.mul_f64(1.0 - 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_ever_further_apart_up_to_ten_minutes() {
        for failures in [0, 1, 5, 9, 10, 40, u32::MAX] {
            let longest = Duration::from_secs(2_u64.saturating_pow(failures).min(600));
            for _ in 0..100 {
                let pause = pause(failures);
                assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause:?}");
            }
        }
    }
}
