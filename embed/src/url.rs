//! Following a URL.

use crate::{Engine, Watch, content::MAX_BYTES, engine::ruleset_name, watch::Feed};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, ETAG, HeaderValue, IF_NONE_MATCH},
};
use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Time between the beginnings of two requests, at least.
const INTERVAL: Duration = Duration::from_millis(500);
/// The longest that a server is asked to hold an answer. A connection that breaks without a word is noticed after
/// this time and [`PATIENCE`].
const MAX_WAIT: Duration = Duration::from_secs(20);
/// How long an answer may take beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// The pauses after the first failure and after many.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// By which a control plane says how many seconds it can be waited on.
const SERVER_MAX_WAIT: &str = "x-halftone-max-wait";

/// A URL that has rules: a control plane's `/v1/bundle`, or any other that answers with a bundle or a ruleset.
#[derive(Clone, Debug)]
pub struct UrlSource {
    url: Url,
    authorization: Option<HeaderValue>,
    interval: Duration,
    client: Option<Client>,
}

/// Why a URL cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL of HTTP.
    #[error("{url:?} is not a URL of HTTP: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token has characters that a header cannot have.
    #[error("the token has characters that HTTP does not allow in a header")]
    Token,
    /// The system refuses what a client needs.
    #[error("there can be no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl UrlSource {
    /// A URL, for example `http://127.0.0.1:8080/v1/bundle`. A `wait` in its query is left out.
    ///
    /// # Errors
    /// When it is not a URL of HTTP.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let wrong = |why: String| UrlError::Url { url: url.into(), why };
        let mut parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong(format!("it begins with {}:", parsed.scheme())));
        }
        // How long to wait is for the watch to say.
        if let Some(query) = parsed.query() {
            let others: Vec<&str> = query.split('&').filter(|part| !part.starts_with("wait=")).collect();
            let others = others.join("&");
            parsed.set_query((!others.is_empty()).then_some(&others));
        }
        Ok(Self { url: parsed, authorization: None, interval: INTERVAL, client: None })
    }

    /// Sends `Authorization: Bearer <token>`. It is never shown.
    ///
    /// # Errors
    /// When the token cannot be in a header.
    pub fn bearer_token(mut self, token: &str) -> Result<Self, UrlError> {
        let header = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut header = header.map_err(|_| UrlError::Token)?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// The time between the beginnings of two requests, at least: half a second, if this is not used. It is also how
    /// late a change is seen at most, except with a server that can be waited on: there it is seen at once, but at
    /// most one in this time.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// The client to ask with, for example one with TLS: for `https` one is needed that was built with a TLS feature
    /// of reqwest.
    #[must_use]
    pub fn client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The URL without what may be secret in it.
    fn shown(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = self.url.host_str().unwrap_or_default();
        format!("{}://{host}{port}{}", self.url.scheme(), self.url.path())
    }
}

impl Engine {
    /// Keeps the engine at what a URL has. Unchanged rules are not sent again (`ETag`, `If-None-Match`), and a server
    /// that says `x-halftone-max-wait: <seconds>`, as the control plane does, holds its answer until there is
    /// something new (`?wait=<seconds>`).
    ///
    /// While the server does not answer, or has rules that are no use, the last good ones stay in force and
    /// [`Event::Failed`](crate::Event::Failed) says why. It is asked again after growing pauses of up to ten seconds.
    ///
    /// # Errors
    /// When the system refuses what a client needs.
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime with timer and I/O.
    pub fn watch_url(&self, source: UrlSource) -> Result<Watch, UrlError> {
        let client = match source.client.clone() {
            Some(client) => client,
            None => Client::builder().connect_timeout(CONNECT).tcp_keepalive(CONNECT).build()?,
        };
        let feed = Feed::new(self.clone(), &source.shown());
        Ok(Watch::spawn(Poll { source, client, feed, tag: None, wait: Duration::ZERO }.run()))
    }
}

struct Poll {
    source: UrlSource,
    client: Client,
    feed: Feed,
    /// Of the last answer with content.
    tag: Option<Tag>,
    /// How long the server holds an answer.
    wait: Duration,
}

/// What the server calls a content.
struct Tag {
    value: HeaderValue,
    /// Whether the content is in force, or why not.
    taken: Result<(), Arc<str>>,
}

impl Poll {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            match self.ask().await {
                Ok(()) => {
                    failures = 0;
                    sleep(self.source.interval.saturating_sub(asked.elapsed())).await;
                }
                Err(why) => {
                    self.feed.failed(why);
                    // Servers that come back may be others.
                    self.wait = Duration::ZERO;
                    sleep(pause(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// One request; the error says why there is no answer.
    async fn ask(&mut self) -> Result<(), String> {
        let response = self.request().send().await.map_err(|error| chain(error.without_url()))?;
        match response.status() {
            StatusCode::OK => self.content(response).await,
            StatusCode::NOT_MODIFIED if self.tag.is_some() => {
                self.learn(&response);
                match self.tag.as_ref().map(|tag| &tag.taken) {
                    Some(Err(why)) => self.feed.failed(why.clone()),
                    _ => self.feed.well(),
                }
                Ok(())
            }
            status => Err(format!("the server answers {status}")),
        }
    }

    fn request(&self) -> RequestBuilder {
        let mut url = self.source.url.clone();
        let wait = if self.tag.is_some() { self.wait } else { Duration::ZERO };
        if !wait.is_zero() {
            url.query_pairs_mut().append_pair("wait", &wait.as_secs().to_string());
        }
        let mut request = self.client.get(url).timeout(wait + PATIENCE);
        if let Some(authorization) = &self.source.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(Tag { value, .. }) = &self.tag {
            request = request.header(IF_NONE_MATCH, value);
        }
        request
    }

    async fn content(&mut self, mut response: Response) -> Result<(), String> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| chain(error.without_url()))? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(format!("the answer has more than {MAX_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let name = ruleset_name(Path::new(self.source.url.path()));
        let taken = self.feed.take(bytes, name).await;
        // Also when it is no use: the server need not send it again.
        self.tag = response.headers().get(ETAG).map(|value| Tag { value: value.clone(), taken });
        self.learn(&response);
        Ok(())
    }

    fn learn(&mut self, response: &Response) {
        let seconds = response.headers().get(SERVER_MAX_WAIT);
        let seconds = seconds.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        self.wait = seconds.map_or(Duration::ZERO, Duration::from_secs).min(MAX_WAIT);
    }
}

/// The pause after so many failures in a row: twice as long each time, and a random part of up to a half less, so
/// that the clients of a server that comes back do not come all at once.
fn pause(failures: u32) -> Duration {
    let (first, last) = PAUSES;
    let pause = first.saturating_mul(1 << failures.min(16)).min(last);
    // The keys of a new hasher are random.
    let random = RandomState::new().hash_one(0);
    pause.mul_f64(1.0 - 0.5 * (random as f64 / u64::MAX as f64))
}

/// An error with all its causes: the outermost alone says nothing.
fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_vary() {
        let (first, last) = PAUSES;
        for failures in [0, 1, 2, 5, 6, 40, u32::MAX] {
            let longest = first.saturating_mul(1 << failures.min(16)).min(last);
            for _ in 0..100 {
                let pause = pause(failures);
                assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
            }
        }
        assert!((0..100).any(|_| pause(9) != pause(9)));
    }

    #[test]
    fn secrets_are_not_shown() -> Result<(), UrlError> {
        let source = UrlSource::new("http://user:secret@example.com:1/v1/bundle?key=secret")?;
        let source = source.bearer_token("secret\n")?;
        assert_eq!(source.shown(), "http://example.com:1/v1/bundle");
        assert!(!format!("{:?}", source.authorization).contains("secret"));
        Ok(())
    }

    #[test]
    fn what_is_no_url_of_http_is_refused() {
        for url in ["", "127.0.0.1:8080", "ftp://example.com/", "http://"] {
            assert!(UrlSource::new(url).is_err(), "{url}");
        }
        let source = UrlSource::new("http://example.com").expect("a URL");
        assert!(source.bearer_token("a\nb").is_err());
    }
}
