//! An engine in this process follows the real control plane.

use anyhow::{Context as _, Result, bail};
use halftone_embed::{Change, Engine, Event, Events, UrlSource, Watch};
use halftone_tests::{ControlPlane, Paths, traffic::client};
use reqwest::{Method, StatusCode};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::timeout,
};

/// Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

fn ruleset(target: &str) -> String {
    format!("version: v1\nrules:\n  - {{name: all, target: {target}}}\ndefault: none\n")
}

async fn start() -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    Ok((ControlPlane::start(&Paths::find()?, folder.path(), 0, 0).await?, folder))
}

fn follow(address: SocketAddr) -> Result<(Engine, Events, Watch)> {
    let engine = Engine::new();
    let events = engine.subscribe();
    let source = UrlSource::new(&format!("http://{address}/v1/bundle"))?.client(client()?);
    let watch = engine.watch_url(source)?;
    Ok((engine, events, watch))
}

async fn changed(events: &mut Events) -> Result<Change> {
    match timeout(PATIENCE, events.next()).await?.context("the engine is gone")? {
        Event::Changed(change) => Ok(change),
        other => bail!("{other:?} instead of a change"),
    }
}

fn target(engine: &Engine) -> Result<String> {
    Ok(engine.rules().context("digits")?.decide().context("no decision")?.target.into())
}

/// Passes bytes on to a server and counts what it is asked and answers.
#[derive(Default)]
struct Relay {
    asked: AtomicUsize,
    contents: AtomicUsize,
    unchanged: AtomicUsize,
    counted: Notify,
}

impl Relay {
    async fn start(server: SocketAddr) -> Result<(Arc<Self>, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let relay = Arc::new(Self::default());
        let this = relay.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let this = this.clone();
                // An error ends this connection, which is what both sides are to see.
                tokio::spawn(async move { this.connect(client, server).await });
            }
        });
        Ok((relay, address))
    }

    async fn connect(&self, client: TcpStream, server: SocketAddr) -> Result<()> {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(server).await?.into_split();
        tokio::select! {
            ended = self.pass(from_client, to_server) => ended,
            ended = self.pass(from_server, to_client) => ended,
        }
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut bytes).await?;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&bytes[..read]).await?;
            // They are small, so each comes in one piece.
            for (start, count) in
                [("GET ", &self.asked), ("HTTP/1.1 200", &self.contents), ("HTTP/1.1 304", &self.unchanged)]
            {
                if bytes[..read].starts_with(start.as_bytes()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.counted.notify_one();
        }
    }

    async fn wait_until(&self, holds: impl Fn(&Self) -> bool) -> Result<()> {
        while !holds(self) {
            timeout(PATIENCE, self.counted.notified()).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_change_is_in_force_within_a_second() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    let (relay, address) = Relay::start(control_plane.rest).await?;
    let (engine, mut events, watch) = follow(address)?;
    // The first bundle has no rulesets, and is of the same revision as no rules at all.
    assert_eq!(changed(&mut events).await?, Change { revision: 0, previous: 0 });
    let mut delays = Vec::new();
    for revision in 1..=5 {
        let version = format!("v{revision}");
        assert_eq!(control_plane.put("digits", ruleset(&version)).await?, revision);
        let published = Instant::now();
        let change = changed(&mut events).await?;
        delays.push(published.elapsed());
        assert_eq!(change, Change { revision, previous: revision - 1 });
        assert_eq!(target(&engine)?, version);
    }
    // The one in the middle, because the machine may be busy with something else.
    delays.sort();
    assert!(delays[2] < Duration::from_secs(1), "changes were in force only after {delays:?}");

    // The control plane ends in time, although it is being waited on; it answers before it goes.
    relay.wait_until(|relay| relay.asked.load(Ordering::Relaxed) == 7).await?;
    // An answer to a later request means that the one before has arrived.
    control_plane.get("/v1/rulesets").await?;
    let stopped = Instant::now();
    tokio::task::spawn_blocking(|| control_plane.stop()).await??;
    assert!(stopped.elapsed() < Duration::from_secs(4), "stopping took {:?}", stopped.elapsed());
    relay.wait_until(|relay| relay.unchanged.load(Ordering::Relaxed) == 1).await?;
    assert_eq!(relay.contents.load(Ordering::Relaxed), 6, "rules were sent that had not changed");
    assert_eq!(target(&engine)?, "v5");
    watch.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_rules_outlive_the_control_plane_and_follow_its_return() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    control_plane.put("digits", ruleset("v1")).await?;
    let (engine, mut events, _watch) = follow(control_plane.rest)?;
    assert_eq!(changed(&mut events).await?.revision, 1);

    let crashed = control_plane.crash()?;
    let Some(Event::Failed { .. }) = timeout(PATIENCE, events.next()).await? else {
        bail!("nobody noticed that the control plane is gone")
    };
    assert_eq!(target(&engine)?, "v1");
    let control_plane = crashed.start_again().await?;
    // Refused connections are another failure than the one that broke.
    loop {
        match timeout(PATIENCE, events.next()).await? {
            Some(Event::Failed { .. }) => {}
            Some(Event::Recovered { .. }) => break,
            other => bail!("{other:?} instead of a recovery"),
        }
    }
    control_plane.put("digits", ruleset("v2")).await?;
    assert_eq!(changed(&mut events).await?, Change { revision: 2, previous: 1 });
    assert_eq!(target(&engine)?, "v2");
    Ok(())
}

#[tokio::test]
async fn the_bundle_can_be_asked_for_and_waited_for() -> Result<()> {
    let (control_plane, _folder) = start().await?;
    control_plane.put("digits", ruleset("v1")).await?;
    let client = client()?;
    let url = format!("http://{}/v1/bundle", control_plane.rest);
    let first = client.get(&url).send().await?;
    assert_eq!(first.headers()["content-type"], "application/octet-stream");
    assert_eq!(first.headers()["x-halftone-revision"], "1");
    assert_eq!(first.headers()["x-halftone-max-wait"], "60");
    let tag = first.headers()["etag"].clone();
    let length = first.headers()["content-length"].clone();
    let hash = control_plane.get("/v1/revisions").await?["revisions"][0]["content_hash"].clone();
    assert_eq!(Some(tag.to_str()?.trim_matches('"')), hash.as_str());
    assert_eq!(Engine::from_bundle(&first.bytes().await?)?.rules().revision(), 1);
    let head = client.head(&url).send().await?;
    assert_eq!((&head.headers()["etag"], &head.headers()["content-length"]), (&tag, &length));

    // Who knows the bundle waits, to the end or until it changes; who does not, does not.
    let known = |query: &str| client.get(format!("{url}{query}")).header("if-none-match", &tag).send();
    let start = Instant::now();
    let unchanged = known("?wait=1").await?;
    assert_eq!((unchanged.status(), &unchanged.headers()["etag"]), (StatusCode::NOT_MODIFIED, &tag));
    assert!(start.elapsed() >= Duration::from_secs(1), "the answer came too soon");
    assert_eq!(known("").await?.status(), StatusCode::NOT_MODIFIED);
    let other = client.get(format!("{url}?wait=60")).header("if-none-match", "\"other\"");
    assert_eq!(timeout(PATIENCE / 2, other.send()).await??.status(), StatusCode::OK);
    let waiting = tokio::spawn(known("?wait=60"));
    control_plane.put("digits", ruleset("v2")).await?;
    let changed = timeout(PATIENCE / 2, waiting).await???;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_eq!(changed.headers()["x-halftone-revision"], "2");

    for query in ["?wait=61", "?wait=-1", "?wait=soon", "?wiat=1"] {
        let answer = control_plane.request(Method::GET, &format!("/v1/bundle{query}"), "").await?;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{query}");
    }
    assert_eq!(
        control_plane.request(Method::PUT, "/v1/bundle", "").await?.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    Ok(())
}
