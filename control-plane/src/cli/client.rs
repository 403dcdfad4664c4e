//! How commands talk to a control plane.

use crate::api::is_loopback;
use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use std::{path::PathBuf, time::Duration};

/// How long an answer may take. Longer than what `?wait=` may be given.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Which control plane.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// The control plane's REST API.
    #[arg(long, env = "HALFTONE_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = server)]
    server: Url,
    /// File with the control plane's token.
    #[arg(long, env = "HALFTONE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

fn server(text: &str) -> Result<Url, String> {
    let expected = "http://HOST:PORT is expected";
    // `localhost:8080` would be a URL of the scheme `localhost`.
    if !text.contains("://") {
        return Err(format!("http:// is missing: {expected}"));
    }
    text.parse().map_err(|error| format!("{error}: {expected}"))
}

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody answers.
    #[error("{server} does not answer: start `halftone serve` there, or name another --server")]
    Unreachable {
        /// Who was asked.
        server: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// The control plane says no; the text is its own.
    #[error("{shown}")]
    Refused {
        /// The kind of no.
        status: StatusCode,
        /// For people.
        shown: String,
    },
    /// What answers is no control plane, or of another build.
    #[error("the answer of {0} is not understood: is it a control plane of this build?")]
    Odd(Url, #[source] serde_json::Error),
}

/// Talks to a control plane.
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
}

/// A change that was made.
pub(super) struct Changed {
    /// Whether it made something new.
    pub(super) created: bool,
    /// The answer.
    pub(super) body: String,
}

/// The parts of an error (RFC 9457) that people need.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    rendered: Option<String>,
}

impl Client {
    /// For what the flags say.
    pub(super) fn new(args: &ServerArgs) -> Result<Self> {
        let server = args.server.clone();
        if server.scheme() != "http" || server.host_str().is_none() {
            bail!(
                "--server {server} is not http://HOST:PORT: this program speaks plain HTTP, to loopback or through a tunnel"
            );
        }
        let token = match &args.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the token file {} cannot be read", path.display()))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        let builder = reqwest::Client::builder().timeout(PATIENCE).connect_timeout(CONNECT);
        // A proxy of the environment cannot reach this machine's loopback.
        let loopback = server.host_str().is_some_and(|host| is_loopback(host.as_bytes()));
        let builder = if loopback { builder.no_proxy() } else { builder };
        Ok(Self { http: builder.build()?, server, token })
    }

    /// Reads JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T> {
        let url = self.url(path, query)?;
        let body = self.send(Method::GET, url, String::new()).await?.body;
        Ok(serde_json::from_str(&body).map_err(|error| AskError::Odd(self.server.clone(), error))?)
    }

    /// Reads a text; `None` when it is not there.
    pub(super) async fn find(&self, path: &[&str]) -> Result<Option<String>> {
        match self.send(Method::GET, self.url(path, &[])?, String::new()).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(AskError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes or checks something.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: String,
    ) -> Result<Changed> {
        Ok(self.send(method, self.url(path, query)?, body).await?)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        // Each of these would be another place.
        if let Some(odd) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
            bail!("{odd:?} is no name");
        }
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn send(&self, method: Method, url: Url, body: String) -> std::result::Result<Changed, AskError> {
        let mut request = self.http.request(method, url).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = |source| AskError::Unreachable { server: self.server.clone(), source };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(Changed { created: status == StatusCode::CREATED, body });
        }
        let problem: Option<Problem> = serde_json::from_str(&body).ok();
        let shown = match problem {
            Some(Problem { rendered: Some(rendered), .. }) => rendered.trim_end().to_owned(),
            Some(Problem { detail, .. }) if status == StatusCode::UNAUTHORIZED => {
                format!("{detail}: name its file with --token-file")
            }
            Some(Problem { detail, .. }) => detail,
            None => format!("{} answered {status}", self.server),
        };
        Err(AskError::Refused { status, shown })
    }
}

/// Whether nobody can be asked at the moment, but maybe later.
pub(super) fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AskError::Unreachable { .. }))
}

/// Runs what asks a control plane.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
