//! An endpoint of hooks inside the test: it hears what the control plane says, and answers as it is told to.

use anyhow::{Context, Result, bail};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How long a thing may take that takes some seconds. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// What it heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl Heard {
    /// The body.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// What it does.
#[derive(Clone, Debug)]
pub enum Conduct {
    /// It answers so.
    Answers(u16, &'static str),
    /// It says nothing until it is told to do something else.
    Silent,
}

/// A running endpoint.
pub struct Hearing {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    conduct: watch::Sender<Conduct>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Ears {
    heard: Arc<Mutex<Vec<Heard>>>,
    conduct: watch::Receiver<Conduct>,
}

impl Hearing {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(conduct: Conduct) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (conduct, of_server) = watch::channel(conduct);
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let router =
            Router::new().fallback(hear).with_state(Ears { heard: heard.clone(), conduct: of_server });
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("an endpoint of the test broke: {error}");
            }
        });
        Ok(Self { address, heard, conduct, server })
    }

    /// From now on it does this.
    pub fn does(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// What it has heard until now.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has heard something that fits; all that it heard until then.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn hears(&self, fits: impl Fn(&[Heard]) -> bool) -> Result<Vec<Heard>> {
        let start = Instant::now();
        loop {
            let heard = self.heard();
            if fits(&heard) {
                return Ok(heard);
            }
            if start.elapsed() > SOON {
                bail!("an endpoint heard nothing that fits: {heard:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its part of the file of `--hooks`: `kind` is `webhook` or `gate`, and the secret is in `secret`, beside the file.
    #[must_use]
    pub fn entry(&self, kind: &str, name: &str) -> String {
        let url = format!("http://{}/{name}", self.address);
        format!("[[{kind}]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret_file = \"secret\"\n")
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn hear(State(mut ears): State<Ears>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| {
        let value = headers.get(name).context("it is missing").and_then(|value| Ok(value.to_str()?));
        value.unwrap_or_default().to_owned()
    };
    let heard = Heard {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body,
    };
    ears.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    let conduct = ears.conduct.wait_for(|conduct| !matches!(conduct, Conduct::Silent)).await;
    let Ok(Conduct::Answers(status, body)) = conduct.as_deref() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    (StatusCode::from_u16(*status).unwrap_or_default(), *body).into_response()
}
