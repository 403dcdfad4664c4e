//! `?wait=acked&timeout=5s` of a change: the answer comes when the proxies have answered, and says what they said; with
//! `?wait=applied` when those that took it also decide by it.

use super::{Api, problem::Problem};
use crate::xds::Fleet;
use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::Deserialize;
use std::time::Duration;

/// How long to wait when the request does not say.
const DEFAULT: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);

/// Answers of many proxies come close together; they need not be counted after each.
const PAUSE: Duration = Duration::from_millis(5);

/// For what the answer to a change waits, and how long it may; `None`: it does not.
pub(crate) struct Wait(Option<(Goal, Duration)>);

/// What all proxies are to have done with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Answered.
    Acked,
    /// Answered, and what was not refused is in force on all workers.
    Applied,
}

impl Goal {
    fn is_reached(self, fleet: &Fleet) -> bool {
        match self {
            Self::Acked => fleet.answered(),
            Self::Applied => fleet.applied(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    wait: Option<String>,
    timeout: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(parameters) = Query::<Parameters>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        parse(parameters.wait.as_deref(), parameters.timeout.as_deref())
            .map(Self)
            .map_err(Problem::bad_request)
    }
}

impl Wait {
    /// The fleet's state, once all proxies are there or the time is over. `None` if nobody asked for it.
    pub(crate) async fn fleet(&self, api: &Api, revision: u64) -> Option<Fleet> {
        let (goal, timeout) = self.0?;
        let (mut changes, mut stopping) = (api.nodes.changes(), api.stopping.clone());
        let reached = async {
            while !goal.is_reached(&api.nodes.fleet(revision)) && changes.changed().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = reached => {}
            () = tokio::time::sleep(timeout) => {}
            // The sender goes away, and nothing is ever sent.
            _ = stopping.changed() => {}
        }
        Some(api.nodes.fleet(revision))
    }
}

fn parse(wait: Option<&str>, timeout: Option<&str>) -> Result<Option<(Goal, Duration)>, String> {
    let goal = match wait {
        None if timeout.is_none() => return Ok(None),
        None => return Err("`timeout` goes with `wait`: write wait=acked&timeout=5s".to_owned()),
        Some("acked") => Goal::Acked,
        Some("applied") => Goal::Applied,
        Some(wait) => {
            return Err(format!("`wait` is {wait:?}, but takes `acked` or `applied`: write wait=applied"));
        }
    };
    let Some(timeout) = timeout else { return Ok(Some((goal, DEFAULT))) };
    match duration(timeout).filter(|timeout| *timeout <= MOST) {
        Some(timeout) => Ok(Some((goal, timeout))),
        None => Err(format!(
            "`timeout` is {timeout:?}, but has to be a number with its unit, at most {}s: write timeout=5s or \
             timeout=500ms",
            MOST.as_secs()
        )),
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit): (_, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis),
        None => (text.strip_suffix('s')?, Duration::from_secs),
    };
    // `parse` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(unit)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_takes_a_number_with_its_unit() {
        let seconds = |seconds| Ok(Some((Goal::Acked, Duration::from_secs(seconds))));
        assert_eq!(parse(None, None), Ok(None));
        assert_eq!(parse(Some("acked"), None), seconds(5));
        assert_eq!(parse(Some("acked"), Some("0s")), seconds(0));
        assert_eq!(parse(Some("acked"), Some("60s")), seconds(60));
        assert_eq!(parse(Some("acked"), Some("60000ms")), seconds(60));
        for bad in ["", "5", "s", "ms", "+5s", "-1s", "5 s", "5m", "1e3s", "61s", "99999999999999999999s"] {
            let error = parse(Some("acked"), Some(bad)).unwrap_err();
            assert!(error.contains("write timeout=5s"), "{bad}: {error}");
        }
        assert_eq!(parse(Some("applied"), None), Ok(Some((Goal::Applied, DEFAULT))));
        assert!(parse(Some("ack"), None).unwrap_err().contains("write wait=applied"));
        assert!(parse(None, Some("5s")).unwrap_err().contains("wait=acked&timeout=5s"));
    }
}
