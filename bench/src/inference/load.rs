//! Load over plain HTTP/1.1, made to cost little: it shares the cores with what is measured.

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const DIGITS: &str = "/v2/models/digits/infer";

/// Requests, to be sent in turns over and over.
#[derive(Clone)]
pub(crate) struct Load(Vec<Arc<Vec<u8>>>);

/// What became of the requests.
pub(crate) struct Report {
    /// Microseconds of those that were answered with 200.
    latencies: Histogram<u64>,
    refused: u64,
    failed: u64,
    time: Duration,
}

impl Load {
    /// A request of a digit as JSON.
    pub(crate) fn json(body: &str) -> Self {
        Self::of(DIGITS, "content-type: application/json\r\n", body.as_bytes())
    }

    /// An image as a binary tensor, to a model of images.
    pub(crate) fn image(model: &str, image: &[u8]) -> Self {
        let json = r#"{"inputs":[{"name":"image","shape":[1,3,224,224],"datatype":"FP32","parameters":{"binary_data_size":602112}}],"parameters":{"binary_data_output":true}}"#;
        let header = format!("inference-header-content-length: {}\r\n", json.len());
        Self::of(&format!("/v2/models/{model}/infer"), &header, &[json.as_bytes(), image].concat())
    }

    /// A request without a body.
    pub(crate) fn get(path: &str) -> Self {
        Self(vec![Arc::new(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes())])
    }

    /// Bytes, to any path.
    pub(crate) fn bytes(path: &str, body: &[u8]) -> Self {
        Self::of(path, "content-type: application/octet-stream\r\n", body)
    }

    /// The same as a binary tensor.
    pub(crate) fn binary() -> Self {
        let json = r#"{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}],"outputs":[{"name":"label","parameters":{"binary_data":true}}]}"#;
        let header = format!("inference-header-content-length: {}\r\n", json.len());
        Self::of(DIGITS, &header, &[json.as_bytes(), &[0; 256]].concat())
    }

    /// The same with the header that tells what the filter decided.
    pub(crate) fn with_context(&self, context: &str) -> Self {
        self.with_header("x-halftone-context", context)
    }

    /// The same in a trace that began in the filter, and is sampled.
    pub(crate) fn traced_by_filter(&self) -> Self {
        self.with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-03")
    }

    /// The same in a trace of a client: of `of` requests, `sampled` are sampled.
    pub(crate) fn traced(&self, sampled: usize, of: usize) -> Self {
        let in_trace = |number: usize| {
            let flag = u8::from(number < sampled);
            let trace = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{flag}");
            self.with_header("traceparent", &trace)
        };
        Self((0..of).flat_map(|number| in_trace(number).0).collect())
    }

    fn with_header(&self, name: &str, value: &str) -> Self {
        let header = format!("\r\n{name}: {value}");
        let with = |request: &Arc<Vec<u8>>| {
            let end_of_first_line = request.iter().position(|&byte| byte == b'\r').unwrap_or_default();
            let (first, rest) = request.split_at(end_of_first_line);
            Arc::new([first, header.as_bytes(), rest].concat())
        };
        Self(self.0.iter().map(with).collect())
    }

    fn of(path: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\nx-user-id: 42\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        Self(vec![Arc::new([head.as_bytes(), body].concat())])
    }

    /// Each connection sends the next request as soon as it has an answer.
    pub(crate) async fn closed(
        &self,
        address: SocketAddr,
        connections: u32,
        time: Duration,
    ) -> Result<Report> {
        self.send(address, connections, None, time).await
    }

    /// Requests are due at a fixed rate, whether the earlier ones are answered or not; the time that one waits for a
    /// connection counts.
    pub(crate) async fn open(
        &self,
        address: SocketAddr,
        connections: u32,
        rate: u32,
        time: Duration,
    ) -> Result<Report> {
        self.send(address, connections, Some(rate), time).await
    }

    /// One after another; gives the milliseconds that each took.
    pub(crate) async fn one_by_one(&self, address: SocketAddr, count: usize) -> Result<Vec<f64>> {
        let mut stream = connect(address).await?;
        let (mut times, mut buffer) = (Vec::with_capacity(count), vec![0; 64 << 10]);
        for request in self.0.iter().cycle().take(count) {
            let begun = Instant::now();
            stream.write_all(request).await?;
            let status = answer(&mut stream, &mut buffer).await?;
            ensure!(status == 200, "status {status}");
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    }

    async fn send(
        &self,
        address: SocketAddr,
        connections: u32,
        rate: Option<u32>,
        time: Duration,
    ) -> Result<Report> {
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for connection in 0..connections {
            let stream = connect(address).await?;
            let interval = rate.map(|rate| Duration::from_secs(1) / rate);
            // The connections take turns.
            let pace = interval.map(|interval| (begun + interval * connection, interval * connections));
            tasks.spawn(one(stream, self.0.clone(), pace, begun + time));
        }
        let mut report = Report::new()?;
        while let Some(one) = tasks.join_next().await {
            report.add(one??)?;
        }
        report.time = begun.elapsed();
        Ok(report)
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection; with a pace, from when the first request is due, and how long it is to the next.
async fn one(
    mut stream: TcpStream,
    requests: Vec<Arc<Vec<u8>>>,
    pace: Option<(Instant, Duration)>,
    end: Instant,
) -> Result<Report> {
    let mut report = Report::new()?;
    let mut buffer = vec![0; 64 << 10];
    let mut due = pace.map_or_else(Instant::now, |(first, _)| first);
    let mut requests = requests.iter().cycle();
    while due < end
        && Instant::now() < end
        && let Some(request) = requests.next()
    {
        if pace.is_some() {
            // To the millisecond, as tokio's clock ticks.
            tokio::time::sleep_until(due.into()).await;
        }
        stream.write_all(request).await?;
        match answer(&mut stream, &mut buffer).await? {
            200 => {
                let micros = due.elapsed().as_micros().try_into()?;
                report.latencies.record(micros)?;
            }
            429 => report.refused += 1,
            _ => report.failed += 1,
        }
        due = pace.map_or_else(Instant::now, |(_, interval)| due + interval);
    }
    Ok(report)
}

/// Reads one answer; gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u16> {
    let mut length = 0;
    loop {
        let place = buffer.get_mut(length..).filter(|place| !place.is_empty()).context("a long answer")?;
        let read = stream.read(place).await?;
        if read == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        length += read;
        let text = buffer.get(..length).unwrap_or_default();
        let Some(head) = text.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(text.get(..head).unwrap_or_default())?;
        let body = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("an answer without a length")?;
        let whole = head.len() + 4 + body.1.trim().parse::<usize>()?;
        if length >= whole {
            return head.split(' ').nth(1).context("an answer without a status")?.parse().map_err(Into::into);
        }
    }
}

impl Report {
    /// How many were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.latencies.len()
    }

    fn new() -> Result<Self> {
        Ok(Self { latencies: Histogram::new(3)?, refused: 0, failed: 0, time: Duration::ZERO })
    }

    fn add(&mut self, other: Self) -> Result<()> {
        self.latencies.add(other.latencies)?;
        self.refused += other.refused;
        self.failed += other.failed;
        Ok(())
    }

    /// Answers with 200 per second.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    /// In microseconds.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.quantile(0.5) / 1000.0, self.quantile(0.99) / 1000.0);
        write!(f, "{:>7.0}/s   p50 {p50:>6.2} ms   p99 {p99:>6.2} ms", self.rate())?;
        if self.refused > 0 {
            write!(f, "   {} refused", self.refused)?;
        }
        if self.failed > 0 {
            write!(f, "   {} FAILED", self.failed)?;
        }
        Ok(())
    }
}
