//! `?wait=acked&timeout=5s` of a change: the answer comes when the proxies have answered, and says what they said.

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

/// How long the answer to a change may wait for the proxies; `None`: it does not.
pub(crate) struct Wait(Option<Duration>);

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
    /// The fleet's state, once all proxies have answered or the time is over. `None` if nobody asked for it.
    pub(crate) async fn fleet(&self, api: &Api, revision: u64) -> Option<Fleet> {
        let timeout = self.0?;
        let (mut changes, mut stopping) = (api.nodes.changes(), api.stopping.clone());
        let answered = async {
            while !api.nodes.fleet(revision).answered() && changes.changed().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = answered => {}
            () = tokio::time::sleep(timeout) => {}
            // The sender goes away, and nothing is ever sent.
            _ = stopping.changed() => {}
        }
        Some(api.nodes.fleet(revision))
    }
}

fn parse(wait: Option<&str>, timeout: Option<&str>) -> Result<Option<Duration>, String> {
    match (wait, timeout) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("`timeout` goes with `wait`: write wait=acked&timeout=5s".to_owned()),
        (Some("acked"), None) => Ok(Some(DEFAULT)),
        (Some("acked"), Some(timeout)) => match duration(timeout).filter(|timeout| *timeout <= MOST) {
            Some(timeout) => Ok(Some(timeout)),
            None => Err(format!(
                "`timeout` is {timeout:?}, but has to be a number with its unit, at most {}s: write timeout=5s or \
                 timeout=500ms",
                MOST.as_secs()
            )),
        },
        (Some(wait), _) => Err(format!("`wait` is {wait:?}, but takes only `acked`: write wait=acked")),
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
        let seconds = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!(parse(None, None), Ok(None));
        assert_eq!(parse(Some("acked"), None), seconds(5));
        assert_eq!(parse(Some("acked"), Some("0s")), seconds(0));
        assert_eq!(parse(Some("acked"), Some("60s")), seconds(60));
        assert_eq!(parse(Some("acked"), Some("60000ms")), seconds(60));
        for bad in ["", "5", "s", "ms", "+5s", "-1s", "5 s", "5m", "1e3s", "61s", "99999999999999999999s"] {
            let error = parse(Some("acked"), Some(bad)).unwrap_err();
            assert!(error.contains("write timeout=5s"), "{bad}: {error}");
        }
        assert!(parse(Some("applied"), None).unwrap_err().contains("write wait=acked"));
        assert!(parse(None, Some("5s")).unwrap_err().contains("wait=acked&timeout=5s"));
    }
}
