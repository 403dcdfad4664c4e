//! A service that knows features: asked once for many requests, and never waited for longer than it may take.

use super::{
    cache::{Cache, Flight, Found, Limits},
    config::ServiceConfig,
    row::Row,
    template::Template,
};
use crate::call::Call;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use halftone_proto::v1::EvaluationContext;
use halftone_telemetry::{
    breaker::{Breaker, BreakerLayer, BreakerService},
    trace::Span,
};
use http_body_util::{BodyExt, Limited};
use reqwest::{Body, Client, redirect::Policy};
use serde_json::Value;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tower_layer::Layer;
use tower_service::Service as _;

/// Largest answer, in bytes.
const LARGEST: usize = 1 << 20;
/// How many answers may be on their way.
const FLIGHTS: usize = 256;
/// Longest version that is recorded, in bytes.
const LONGEST_VERSION: usize = 128;
/// What an answer takes besides its values.
const OVERHEAD: usize = 256;

/// A service that knows features.
#[derive(Debug)]
pub struct Service {
    name: String,
    template: Template,
    version: Option<String>,
    timeout: Duration,
    fields: Vec<Field>,
    http: BreakerService<Http>,
    cache: Mutex<Cache<Answer>>,
}

/// What of an answer becomes an input.
#[derive(Debug)]
pub struct Field {
    /// Where it is: a JSON pointer.
    pub pointer: String,
    /// What it must be.
    pub row: Row,
}

/// What the service says.
#[derive(Debug)]
pub struct Answer {
    /// For each field a row, or what is wrong with it.
    pub rows: Vec<Result<Arc<[u8]>, String>>,
    /// Version of the features.
    pub version: Option<String>,
}

/// An answer that is there, or on its way.
#[derive(Debug)]
pub enum Asked {
    /// It is there.
    Answer(Arc<Answer>),
    /// It is on its way.
    Flight(Flight<Answer>),
    /// It cannot be asked for, because of this.
    Not(String),
}

impl Service {
    /// A service of a model, which is known by this label.
    ///
    /// # Errors
    /// What is wrong with its configuration.
    pub fn new(label: &str, name: &str, config: &ServiceConfig, fields: Vec<Field>) -> Result<Self, String> {
        config.check()?;
        let template = Template::parse(&config.url)?;
        // Requests to services beside us do not go through the proxy of the environment.
        let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(config.timeout());
        let client = client.build().map_err(|e| e.to_string())?;
        let breaker = Breaker::new(format!("features {name:?} of {label}"), config.breaker.policy()?);
        let limits = Limits { entries: config.entries, bytes: config.bytes, flights: FLIGHTS };
        Ok(Self {
            name: name.to_owned(),
            template,
            version: config.version.clone(),
            timeout: config.timeout(),
            fields,
            http: BreakerLayer::new(breaker).layer(Http(client)),
            cache: Mutex::new(Cache::new(config.ttl(), config.stale(), limits)),
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for what belongs to a request, unless that is known, or somebody else has asked already.
    #[must_use]
    pub fn ask(self: &Arc<Self>, context: Option<&EvaluationContext>, call: &Call) -> Asked {
        let url = self.template.url(context.unwrap_or(&EvaluationContext::default()));
        let Some(url) = url else {
            return Asked::Not("the request has no unit that it could be asked about".into());
        };
        let mut cache = self.lock();
        let stale = match cache.get(&url) {
            Found::Fresh(answer) => return Asked::Answer(answer),
            Found::Stale(answer) => Some(answer),
            Found::Nothing => None,
        };
        let flight = cache.flight(&url).or_else(|| self.take_off(&mut cache, url.into(), call));
        match (stale, flight) {
            (Some(answer), _) => Asked::Answer(answer),
            (None, Some(flight)) => Asked::Flight(flight),
            (None, None) => Asked::Not(format!("{FLIGHTS} requests to it are on their way")),
        }
    }

    /// Waits for what was asked for, until the deadline at the latest.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn wait(&self, asked: Asked, deadline: Option<Instant>) -> Result<Arc<Answer>, String> {
        let mut flight = match asked {
            Asked::Answer(answer) => return Ok(answer),
            Asked::Not(problem) => return Err(problem),
            Asked::Flight(flight) => flight,
        };
        let own = Instant::now() + self.timeout;
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        let landed = tokio::time::timeout_at(deadline.into(), flight.wait_for(Option::is_some)).await;
        let landed = landed.map_err(|_| "no answer in time")?.map_err(|_| "asking it was given up")?;
        landed.clone().unwrap_or_else(|| Err("there was no answer".into()))
    }

    /// Sends somebody for an answer, who goes on also when nobody waits for it any more.
    fn take_off(
        self: &Arc<Self>,
        cache: &mut Cache<Answer>,
        url: Arc<str>,
        call: &Call,
    ) -> Option<Flight<Answer>> {
        let sender = cache.take_off(Arc::clone(&url))?;
        let flight = sender.subscribe();
        // The trace of who asked first. Others that wait for the same answer see in theirs that they waited.
        let mut span = call.calls("GET");
        span.set("http.request.method", "GET");
        let traceparent = call.traceparent(&span);
        let landing = Landing { service: Arc::clone(self), url };
        tokio::spawn(async move {
            let Landing { service, url } = &landing;
            let answer = service.fetch(url, traceparent, &mut span).await;
            drop(span);
            if let Ok((answer, bytes)) = &answer {
                service.lock().put(Arc::clone(url), Arc::clone(answer), *bytes);
            }
            // First: who asks from now on finds the answer, or tries again.
            drop(landing);
            sender.send_replace(Some(answer.map(|(answer, _)| answer)));
        });
        Some(flight)
    }

    /// The answer, and how many bytes it takes.
    async fn fetch(
        &self,
        url: &str,
        traceparent: Option<String>,
        span: &mut Span,
    ) -> Result<(Arc<Answer>, usize), String> {
        let mut request = Request::get(url).body(Body::default()).map_err(|e| e.to_string())?;
        // Not the whole URL, which has the unit in it.
        span.set_some("server.address", request.uri().host());
        span.set_some("server.port", request.uri().port_u16().map(i64::from));
        if let Some(traceparent) = traceparent.and_then(|text| text.try_into().ok()) {
            request.headers_mut().insert("traceparent", traceparent);
        }
        let response = self.http.clone().call(request).await.map_err(|e| {
            let problem = told(&e);
            span.fail("_OTHER", &problem);
            problem
        })?;
        span.set("http.response.status_code", i64::from(response.status().as_u16()));
        if response.status().is_client_error() || response.status().is_server_error() {
            span.fail(response.status().as_str(), "");
        }
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let nothing = || Err("it has nothing about the unit".to_owned());
                let rows = self.fields.iter().map(|_| nothing()).collect();
                return Ok((Arc::new(Answer { rows, version: None }), OVERHEAD));
            }
            status if status.is_success() => {}
            status => return Err(format!("it answered with status {}", status.as_u16())),
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|e| format!("its answer cannot be read: {e}"))?.to_bytes();
        self.read(&body)
    }

    fn read(&self, body: &Bytes) -> Result<(Arc<Answer>, usize), String> {
        let json: Value = serde_json::from_slice(body).map_err(|e| format!("its answer is not JSON: {e}"))?;
        let row = |field: &Field| {
            let pointer = &field.pointer;
            let value = json.pointer(pointer).ok_or_else(|| format!("its answer has no {pointer:?}"))?;
            let row =
                field.row.encode(value).map_err(|problem| format!("{pointer:?} of its answer: {problem}"))?;
            Ok(Arc::from(row))
        };
        let rows: Vec<Result<Arc<[u8]>, String>> = self.fields.iter().map(row).collect();
        let version = self.version.as_ref().and_then(|pointer| match json.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        let version = version.filter(|version| version.len() <= LONGEST_VERSION);
        let bytes =
            rows.iter().map(|row| row.as_ref().map_or_else(String::len, |row| row.len())).sum::<usize>();
        Ok((Arc::new(Answer { rows, version }), bytes + OVERHEAD))
    }

    fn lock(&self) -> MutexGuard<'_, Cache<Answer>> {
        // Nothing that can panic is done under the lock.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lands, whatever becomes of the flight.
struct Landing {
    service: Arc<Service>,
    url: Arc<str>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.service.lock().land(&self.url);
    }
}

/// The error with its causes, without the URL, which has the unit in it.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.last().map(ToString::to_string).unwrap_or_default()
}

/// The client as a service, so that layers go around it.
#[derive(Clone, Debug)]
struct Http(Client);

impl tower_service::Service<Request<Body>> for Http {
    type Response = Response<Body>;
    type Error = reqwest::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, reqwest::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move { client.execute(request.try_into()?).await.map(Into::into) })
    }
}
