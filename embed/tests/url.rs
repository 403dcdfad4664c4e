//! Following a URL of a server that does as it is told. The control plane is followed in the end-to-end tests.

use anyhow::{Context as _, Result, bail};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, header},
};
use halftone_embed::{Engine, Event, Events, UrlSource, Watch};
use reqwest::Client;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

/// Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(20);

/// What the server answers, and where it tells of each request.
struct Script {
    status: StatusCode,
    body: Vec<u8>,
    tag: Option<&'static str>,
    max_wait: Option<&'static str>,
    told: UnboundedSender<Asked>,
}

/// A request that was answered.
#[derive(Debug)]
struct Asked {
    query: Option<String>,
    known: Option<String>,
    authorization: Option<String>,
    status: StatusCode,
}

#[derive(Clone)]
struct Server(Arc<Mutex<Script>>);

impl Server {
    async fn start(body: &str) -> Result<(Self, SocketAddr, UnboundedReceiver<Asked>)> {
        let (told, asked) = unbounded_channel();
        let script =
            Script { status: StatusCode::OK, body: body.into(), tag: Some("\"1\""), max_wait: None, told };
        let server = Self(Arc::new(Mutex::new(script)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((server, address, asked))
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.0.lock().expect("no test panicked"));
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response<Body> {
    let script = server.0.lock().expect("no test panicked");
    let text = |name| request.headers().get(name)?.to_str().ok().map(ToOwned::to_owned);
    let known: Option<String> = text(header::IF_NONE_MATCH);
    let unchanged = known.is_some() && known.as_deref() == script.tag && script.status == StatusCode::OK;
    let status = if unchanged { StatusCode::NOT_MODIFIED } else { script.status };
    let _ = script.told.send(Asked {
        query: request.uri().query().map(ToOwned::to_owned),
        known,
        authorization: text(header::AUTHORIZATION),
        status,
    });
    let mut response = Response::builder().status(status);
    if let Some(tag) = script.tag {
        response = response.header(header::ETAG, tag);
    }
    if let Some(seconds) = script.max_wait {
        response = response.header("x-halftone-max-wait", seconds);
    }
    let body = if unchanged { Body::empty() } else { script.body.clone().into() };
    response.body(body).expect("a response")
}

fn source(address: SocketAddr) -> Result<UrlSource> {
    let client = Client::builder().no_proxy().build()?;
    Ok(UrlSource::new(&format!("http://{address}/digits.yaml"))?.interval(INTERVAL).client(client))
}

fn watch(source: UrlSource) -> Result<(Engine, Events, Watch)> {
    let engine = Engine::new();
    let events = engine.subscribe();
    let watch = engine.watch_url(source)?;
    Ok((engine, events, watch))
}

async fn changed(events: &mut Events) -> Result<u64> {
    match timeout(PATIENCE, events.next()).await? {
        Some(Event::Changed(change)) => Ok(change.revision),
        other => bail!("{other:?} instead of a change"),
    }
}

async fn failed(events: &mut Events) -> Result<String> {
    match timeout(PATIENCE, events.next()).await? {
        Some(Event::Failed { why, .. }) => Ok(why.to_string()),
        other => bail!("{other:?} instead of a failure"),
    }
}

#[tokio::test]
async fn unchanged_rules_are_not_sent_again() -> Result<()> {
    let (server, address, mut asked) = Server::start("{version: v1, rules: [], default: v1}").await?;
    let (engine, mut events, watch) = watch(source(address)?.bearer_token("secret")?)?;
    assert_eq!(changed(&mut events).await?, 1);
    assert_eq!(engine.rules().rulesets().collect::<Vec<_>>(), ["digits"], "the name is that of the URL");
    let first = asked.recv().await.context("no request")?;
    assert_eq!((first.known, first.status), (None, StatusCode::OK));
    for _ in 0..5 {
        let next = timeout(PATIENCE, asked.recv()).await?.context("no request")?;
        assert_eq!((next.known.as_deref(), next.status), (Some("\"1\""), StatusCode::NOT_MODIFIED));
        assert_eq!(next.query, None, "a server that says nothing of waiting is asked to wait");
        assert_eq!(next.authorization.as_deref(), Some("Bearer secret"));
    }
    server.set(|script| {
        (script.body, script.tag) = (b"{version: v1, rules: [], default: v2}".into(), Some("\"2\""));
    });
    assert_eq!(changed(&mut events).await?, 2);

    // Without tags everything is sent again, and still only changes are told.
    server.set(|script| script.tag = None);
    for _ in 0..5 {
        timeout(PATIENCE, asked.recv()).await?.context("no request")?;
    }
    server.set(|script| script.body = b"{version: v1, rules: [], default: v3}".into());
    assert_eq!(changed(&mut events).await?, 3);
    watch.stop().await;
    drop(engine);
    assert_eq!(events.next().await, None);
    Ok(())
}

#[tokio::test]
async fn a_url_that_says_how_long_to_wait_is_followed_all_the_same() -> Result<()> {
    let (server, address, mut asked) = Server::start("{version: v1, rules: [], default: v1}").await?;
    server.set(|script| script.max_wait = Some("7"));
    let client = Client::builder().no_proxy().build()?;
    let url = format!("http://{address}/digits.yaml?wait=20&a=%20b&wait=1&await=2");
    let source = UrlSource::new(&url)?.interval(INTERVAL).client(client);
    let (_engine, mut events, _watch) = watch(source)?;
    assert_eq!(changed(&mut events).await?, 1);
    for query in ["a=%20b&await=2", "a=%20b&await=2&wait=7"] {
        let next = timeout(PATIENCE, asked.recv()).await?.context("no request")?;
        assert_eq!(next.query.as_deref(), Some(query));
    }
    Ok(())
}

#[tokio::test]
async fn troubles_are_told_once_and_survived() -> Result<()> {
    let (server, address, _asked) = Server::start("{version: v1, rules: [], default: v1}").await?;
    let (engine, mut events, _watch) = watch(source(address)?)?;
    assert_eq!(changed(&mut events).await?, 1);
    server.set(|script| (script.body, script.tag) = (b"{version: v9}".into(), Some("\"bad\"")));
    assert!(failed(&mut events).await?.contains("v9"));
    server.set(|script| script.status = StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(failed(&mut events).await?, "the server answers 503 Service Unavailable");
    // It answers again, and has what it had.
    server.set(|script| script.status = StatusCode::OK);
    assert!(failed(&mut events).await?.contains("v9"));
    server.set(|script| {
        (script.status, script.body, script.tag) =
            (StatusCode::OK, vec![b'#'; (4 << 20) + 1], Some("\"large\""));
    });
    assert!(failed(&mut events).await?.contains("more than 4194304 bytes"));
    assert_eq!(engine.rules().revision(), 1);
    server.set(|script| {
        (script.body, script.tag) = (b"{version: v1, rules: [], default: v1}".into(), Some("\"1\""));
    });
    assert!(matches!(timeout(PATIENCE, events.next()).await?, Some(Event::Recovered { .. })));
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_reason_to_end() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    let (engine, mut events, watch) = watch(source(address)?)?;
    let why = failed(&mut events).await?;
    assert!(why.contains("refused"), "{why}");
    assert_eq!(engine.rules().revision(), 0);
    drop(watch);
    drop(engine);
    assert_eq!(timeout(PATIENCE, events.next()).await?, None);
    Ok(())
}
