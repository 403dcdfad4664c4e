//! Load: users who send digits, and what came back to each.

use crate::digits::{Digit, Fault, answer};
use anyhow::{Context, Result};
use reqwest::{Client, header::HeaderMap};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The user who sent it.
    pub user: u64,
    /// When the answer was complete.
    pub at: Instant,
    /// How long it took.
    pub latency: Duration,
    /// The status, or why there is none.
    pub status: Result<u16, String>,
    /// `x-halftone-target` of the response.
    pub target: Option<String>,
    /// `x-halftone-trace` of the response: what `halftone trace` is asked by.
    pub trace: Option<String>,
    /// `model_version` of the response: who really answered.
    pub version: Option<String>,
    /// Whether the model was right.
    pub correct: Option<bool>,
}

/// A client for servers on this machine, which no proxy that the environment names can reach.
///
/// # Errors
/// When the system refuses what a client needs.
pub fn client() -> reqwest::Result<Client> {
    Client::builder().no_proxy().build()
}

/// Sends one user's digit.
pub async fn send(client: &Client, url: &str, user: u64, digit: &Digit, headers: HeaderMap) -> Exchange {
    send_body(client, url, user, digit, digit.request.clone(), headers).await
}

async fn send_body(
    client: &Client,
    url: &str,
    user: u64,
    digit: &Digit,
    body: String,
    headers: HeaderMap,
) -> Exchange {
    let start = Instant::now();
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-user-id", user)
        .headers(headers)
        .body(body);
    let mut exchange = Exchange {
        user,
        at: start,
        latency: Duration::ZERO,
        status: Err(String::new()),
        target: None,
        trace: None,
        version: None,
        correct: None,
    };
    match request.send().await {
        Ok(response) => {
            exchange.status = Ok(response.status().as_u16());
            let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
            exchange.target = header("x-halftone-target");
            exchange.trace = header("x-halftone-trace");
            match response.json::<Value>().await {
                Ok(body) => {
                    exchange.version = body["model_version"].as_str().map(ToOwned::to_owned);
                    exchange.correct = answer(&body).map(|found| found == digit.label);
                }
                // An error may have any body; a success has an answer in it.
                Err(error) if exchange.status == Ok(200) => exchange.status = Err(error.to_string()),
                Err(_) => {}
            }
        }
        Err(error) => exchange.status = Err(format!("{error:?}")),
    }
    exchange.at = Instant::now();
    exchange.latency = exchange.at - start;
    exchange
}

/// Load that goes on until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    asked: watch::Sender<Option<Asked>>,
    workers: Vec<JoinHandle<Vec<Exchange>>>,
}

/// A fault that requests ask for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which.
    pub fault: Fault,
    /// The share of requests that do.
    pub share: f64,
}

impl Asked {
    /// Whether the request of this number asks for it: evenly spread, and the same each time.
    fn is_of(&self, number: u64) -> bool {
        // Multiples of the golden ratio, as fractions of 2^64.
        let place = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        #[allow(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let place = place as f64 / u64::MAX as f64;
        place < self.share
    }
}

/// What is sent.
pub struct Load<'a> {
    /// Where to.
    pub urls: &'a [String],
    /// The images.
    pub digits: &'a Arc<Vec<Digit>>,
    /// Clients for each url. Each sends one request after the other.
    pub connections: usize,
    /// Between an answer and the next request of a client.
    pub pause: Duration,
    /// Each request is of the next of so many users.
    pub users: u64,
    /// Where to tell what came back, at once; besides, [`Traffic::stop`] has all of it.
    pub tell: Option<mpsc::UnboundedSender<Exchange>>,
}

impl Load<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn start(self) -> Result<Traffic> {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (asked, asks) = watch::channel(None::<Asked>);
        let mut workers = Vec::new();
        for url in self.urls {
            for _ in 0..self.connections {
                let (url, digits, stop, sent) =
                    (url.clone(), self.digits.clone(), stop.clone(), sent.clone());
                let (asks, tell, pause, users) = (asks.clone(), self.tell.clone(), self.pause, self.users);
                // A client of its own is a connection of its own.
                let client = client()?;
                workers.push(tokio::spawn(async move {
                    let mut exchanges = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let digit = &digits[usize::try_from(number).unwrap_or_default() % digits.len()];
                        let fault = asks.borrow().filter(|asked| asked.is_of(number));
                        let body =
                            fault.map_or_else(|| digit.request.clone(), |asked| digit.asking(asked.fault));
                        let user = number % users + 1;
                        let exchange = send_body(&client, &url, user, digit, body, HeaderMap::new()).await;
                        if let Some(tell) = &tell {
                            // Whoever does not listen any more does not need it.
                            let _ = tell.send(exchange.clone());
                        }
                        exchanges.push(exchange);
                        tokio::time::sleep(pause).await;
                    }
                    exchanges
                }));
            }
        }
        Ok(Traffic { stop, sent, asked, workers })
    }
}

impl Traffic {
    /// Starts `connections` clients for each url. Each sends one request after the other, `pause` apart,
    /// each from the next of `users` users.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn start(
        urls: &[String],
        digits: &Arc<Vec<Digit>>,
        connections: usize,
        pause: Duration,
        users: u64,
    ) -> Result<Self> {
        Load { urls, digits, connections, pause, users, tell: None }.start()
    }

    /// From now on, a share of the requests asks for a fault; or none does.
    pub fn ask(&self, asked: Option<Asked>) {
        self.asked.send_replace(asked);
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the load; the answer is all that happened, in order.
    ///
    /// # Errors
    /// When a client broke.
    pub async fn stop(self) -> Result<Vec<Exchange>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut exchanges = Vec::new();
        for worker in self.workers {
            exchanges.extend(worker.await.context("a client broke")?);
        }
        exchanges.sort_by_key(|exchange| exchange.at);
        Ok(exchanges)
    }
}

/// Sends one request for each of the users, over `connections` connections to each url in turn.
///
/// # Errors
/// When a client broke.
pub async fn replay(
    urls: &[String],
    digits: &Arc<Vec<Digit>>,
    users: std::ops::RangeInclusive<u64>,
    connections: usize,
) -> Result<Vec<Exchange>> {
    let next = Arc::new(AtomicU64::new(*users.start()));
    let last = *users.end();
    let mut workers = Vec::new();
    for index in 0..connections {
        let url = urls.get(index % urls.len().max(1)).context("no url")?.clone();
        let (digits, next) = (digits.clone(), next.clone());
        let client = client()?;
        workers.push(tokio::spawn(async move {
            let mut exchanges = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user > last {
                    return exchanges;
                }
                let digit = &digits[usize::try_from(user).unwrap_or_default() % digits.len()];
                exchanges.push(send(&client, &url, user, digit, HeaderMap::new()).await);
            }
        }));
    }
    let mut exchanges = Vec::new();
    for worker in workers {
        exchanges.extend(worker.await.context("a client broke")?);
    }
    Ok(exchanges)
}

/// The exchanges that were not answered with 200.
#[must_use]
pub fn failures(exchanges: &[Exchange]) -> Vec<&Exchange> {
    exchanges.iter().filter(|exchange| exchange.status != Ok(200)).collect()
}

/// Exchanges by the target that the filter named.
#[must_use]
pub fn by_target(exchanges: &[Exchange]) -> BTreeMap<String, Vec<&Exchange>> {
    let mut targets: BTreeMap<String, Vec<&Exchange>> = BTreeMap::new();
    for exchange in exchanges {
        targets.entry(exchange.target.clone().unwrap_or_default()).or_default().push(exchange);
    }
    targets
}

/// The target of each user. `None` when a user got more than one.
#[must_use]
pub fn assignment(exchanges: &[Exchange]) -> Option<HashMap<u64, String>> {
    let mut assigned: HashMap<u64, String> = HashMap::new();
    for exchange in exchanges {
        let target = exchange.target.clone()?;
        if assigned.insert(exchange.user, target.clone()).is_some_and(|before| before != target) {
            return None;
        }
    }
    Some(assigned)
}

/// Whether `hits` of `n` is what a probability of `p` gives, within five standard deviations.
#[must_use]
pub fn is_binomial(hits: usize, n: usize, p: f64) -> bool {
    #[allow(clippy::cast_precision_loss, reason = "counts of a test are far below 2^53")]
    let (hits, n) = (hits as f64, n as f64);
    (hits - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt().max(0.2)
}
