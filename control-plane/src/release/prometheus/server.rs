//! A Prometheus server, and what it is asked.

use super::blocks::Sample;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Client, Response, Url, redirect};
use serde::{Deserialize, de::IgnoredAny};
use std::{path::PathBuf, time::Duration};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer at most.
const LARGEST: usize = 16 << 20;
/// Series of an answer at most.
const MOST_SERIES: usize = 10_000;

/// The Prometheus server of a control plane. Operators name it: no address comes from a release's text.
#[derive(Args, Clone, Debug, Default)]
pub struct PrometheusArgs {
    /// A Prometheus server (http://HOST:PORT, with a path where it has one) that releases may take metrics from.
    #[arg(long, env = "HALFTONE_PROMETHEUS", value_name = "URL")]
    pub prometheus: Option<String>,
    /// File with the bearer token that the Prometheus server wants.
    #[arg(long, env = "HALFTONE_PROMETHEUS_TOKEN_FILE", value_name = "FILE", requires = "prometheus")]
    pub prometheus_token_file: Option<PathBuf>,
}

impl PrometheusArgs {
    /// The server that they name. It need not answer yet.
    ///
    /// # Errors
    /// When the address is none, or the token cannot be read.
    pub fn server(&self) -> anyhow::Result<Option<Server>> {
        let Some(url) = &self.prometheus else { return Ok(None) };
        let mut url = Url::parse(url).with_context(|| format!("--prometheus {url} is no address"))?;
        if url.scheme() != "http" || url.query().is_some() || url.fragment().is_some() {
            bail!(
                "--prometheus {url}: give an address like http://prometheus:9090; one that takes https alone needs a proxy \
                 beside the control plane"
            );
        }
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let token = match &self.prometheus_token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the token file {}", path.display()))?;
                if text.trim().is_empty() {
                    bail!("the token file {} is empty", path.display());
                }
                Some(text.trim().to_owned())
            }
        };
        // A redirect would carry the token to somebody else.
        let client = Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).build()?;
        Ok(Some(Server { client, url, token }))
    }
}

/// A Prometheus server.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
    /// Of instant queries.
    url: Url,
    token: Option<String>,
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// Nobody answers: asking for more makes no sense now.
    #[error("the Prometheus server does not answer: {0}")]
    Gone(String),
    /// It answers, and not with samples.
    #[error("{0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    /// What makes an answer a part of one.
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    result_type: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    values: Vec<(f64, String)>,
    histograms: Option<IgnoredAny>,
}

impl Server {
    /// The raw samples of each series that the selector chooses, in the `range_ms` milliseconds up to a moment.
    ///
    /// # Errors
    /// When the server is gone, is slow, or its answer is not whole or not sound.
    pub(super) async fn samples(
        &self,
        selector: &str,
        range_ms: u64,
        until_ms: u64,
    ) -> Result<Vec<Vec<Sample>>, Unread> {
        let gone = |error: reqwest::Error| Unread::Gone(causes(&error));
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("query", &format!("{selector}[{range_ms}ms]"))
            .append_pair("time", &format!("{}.{:03}", until_ms / 1_000, until_ms % 1_000));
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(gone)?;
        let status = response.status();
        let body = body(&mut response).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            Unread::Refused(format!(
                "the Prometheus server answered {status} and no result of a query: {error}"
            ))
        })?;
        samples(answer).map_err(Unread::Refused)
    }
}

/// An error with what led to it: the outermost alone says that a request failed.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

async fn body(response: &mut Response) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Unread::Gone(causes(&error)))? {
        if body.len() + chunk.len() > LARGEST {
            let message = format!(
                "the selector's samples take more than {} MiB: add them up to fewer series by a recording rule",
                LARGEST >> 20
            );
            return Err(Unread::Refused(message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an answer holds.
fn samples(answer: Answer) -> Result<Vec<Vec<Sample>>, String> {
    let data = match (answer.status.as_str(), answer.data) {
        ("success", Some(data)) => data,
        (_, _) => {
            let error = answer.error.unwrap_or_else(|| format!("its status is {:?}", answer.status));
            return Err(format!("the Prometheus server refused the query: {error}"));
        }
    };
    if let Some(warning) = answer.warnings.first() {
        return Err(format!("the Prometheus server answered with a part only: {warning}"));
    }
    if data.result_type != "matrix" {
        return Err(format!("the Prometheus server answered with a {} instead of samples", data.result_type));
    }
    if data.result.len() > MOST_SERIES {
        let count = data.result.len();
        return Err(format!(
            "the selector chooses {count} series, and {MOST_SERIES} are possible: add them up by a recording rule"
        ));
    }
    data.result.into_iter().map(series).collect()
}

fn series(series: Series) -> Result<Vec<Sample>, String> {
    if series.histograms.is_some() {
        return Err("the selector chooses native histograms: name counters".to_owned());
    }
    let mut samples: Vec<Sample> = Vec::with_capacity(series.values.len());
    for (seconds, value) in series.values {
        let value: f64 = value.parse().map_err(|_| format!("a sample is {value:?}, which is no number"))?;
        if value < 0.0 {
            return Err(format!("a sample is {value}: the selector chooses what is no counter"));
        }
        if !(0.0..1e11).contains(&seconds) {
            return Err(format!("a sample is of the moment {seconds}, which is none"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range above")]
        let at_ms = (seconds * 1e3).round() as u64;
        if samples.last().is_some_and(|(before, _)| *before >= at_ms) {
            return Err(format!("the samples of a series are not in order at {seconds}"));
        }
        samples.push((at_ms, value));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Vec<Sample>>, String> {
        samples(serde_json::from_str(text).map_err(|error| error.to_string())?)
    }

    fn matrix(series: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#)
    }

    #[test]
    fn samples_are_read_as_they_are() {
        let text = matrix(r#"{"metric":{"a":"b"},"values":[[1435781430.781,"1"],[1435781431,"NaN"]]}"#);
        let series = read(&text).unwrap();
        assert_eq!(series[0][0], (1_435_781_430_781, 1.0));
        assert!(series[0][1].1.is_nan());
    }

    #[test]
    fn what_is_not_whole_or_not_sound_is_refused() {
        for (text, wanted) in [
            (r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.to_owned(), "parse error"),
            (r#"{"status":"success"}"#.to_owned(), "its status"),
            (
                r#"{"status":"success","warnings":["a store is gone"],"data":{"resultType":"matrix","result":[]}}"#
                    .to_owned(),
                "a part only",
            ),
            (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.to_owned(), "a vector"),
            (matrix(r#"{"values":[[1,"-1"]]}"#), "no counter"),
            (matrix(r#"{"values":[[1,"many"]]}"#), "no number"),
            (matrix(r#"{"values":[[2,"1"],[1,"1"]]}"#), "not in order"),
            (matrix(r#"{"values":[[-2,"1"]]}"#), "which is none"),
            (matrix(r#"{"histograms":[]}"#), "native histograms"),
            ("[]".to_owned(), "invalid"),
        ] {
            let refused = read(&text).expect_err(&text);
            assert!(refused.contains(wanted), "{text}: {refused}");
        }
        let many = vec![r#"{"values":[]}"#; MOST_SERIES + 1].join(",");
        assert!(read(&matrix(&many)).expect_err("too many").contains("recording rule"));
    }

    #[test]
    fn addresses_are_looked_at_before_anything_runs() {
        let server = |url: &str| {
            PrometheusArgs { prometheus: Some(url.to_owned()), prometheus_token_file: None }.server()
        };
        assert_eq!(server("http://a:9090").unwrap().unwrap().url.as_str(), "http://a:9090/api/v1/query");
        assert_eq!(server("http://a/b/").unwrap().unwrap().url.as_str(), "http://a/b/api/v1/query");
        for refused in ["a:9090", "https://a", "http://a?b", "nothing"] {
            assert!(server(refused).is_err(), "{refused}");
        }
        assert!(PrometheusArgs::default().server().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(text in ".{0,80}", at in any::<f64>(), value in ".{0,8}") {
            let _ = read(&text);
            let value = serde_json::to_string(&value).unwrap();
            if at.is_finite() {
                let _ = read(&matrix(&format!(r#"{{"values":[[{at},{value}]]}}"#)));
            }
        }
    }
}
