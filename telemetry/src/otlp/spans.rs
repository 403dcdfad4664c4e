//! Spans between those who make them and the collector.

use super::link::{TIMEOUT, chain};
use crate::{throttle::Throttle, trace::Sink};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};

/// Spans that may wait: what five thousand requests a second make in half a second.
const WAITING: usize = 20_000;
/// Spans in one message.
const TOGETHER: usize = 512;
/// How often what waits is sent. Nobody is woken for a single span.
const EVERY: Duration = Duration::from_millis(200);

/// A place for spans that wait, and who sends them.
pub(super) fn channel() -> (Waiting, Sender) {
    let (waiting, received) = mpsc::channel(WAITING);
    let counts = Arc::new(Counts::default());
    (Waiting { waiting, counts: Arc::clone(&counts) }, Sender { received, counts })
}

/// Where spans wait to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    waiting: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
}

impl Waiting {
    /// How many were sent and dropped, as metrics.
    pub(super) fn counts(&self) -> CountsOfSpans {
        CountsOfSpans(Arc::clone(&self.counts))
    }
}

impl Sink for Waiting {
    fn take(&self, span: SpanData) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.waiting.try_send(span) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// How many spans were sent and dropped.
pub(super) struct CountsOfSpans(Arc<Counts>);

impl fmt::Debug for CountsOfSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Collector for CountsOfSpans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, count) in [
            ("halftone_spans_sent", "Spans that the collector took", &self.0.sent),
            (
                "halftone_spans_dropped",
                "Spans that were dropped, because the collector did not take them in time",
                &self.0.dropped,
            ),
        ] {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

/// Sends spans.
#[derive(Debug)]
pub(super) struct Sender {
    received: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
}

impl Sender {
    /// Sends what comes, until it is to stop and everything was tried once.
    pub(super) async fn run(mut self, exporter: SpanExporter, mut stop: watch::Receiver<bool>) {
        let mut throttle = Throttle::default();
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                // Also when whoever could say so is gone.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            while let Some(batch) = self.batch() {
                self.send(&exporter, batch, &mut throttle).await;
            }
            if stopping {
                return;
            }
        }
    }

    /// What waits, up to a message's fill.
    fn batch(&mut self) -> Option<Vec<SpanData>> {
        let mut batch = Vec::with_capacity(TOGETHER.min(self.received.len()));
        while batch.len() < TOGETHER
            && let Ok(span) = self.received.try_recv()
        {
            batch.push(span);
        }
        Some(batch).filter(|batch| !batch.is_empty())
    }

    async fn send(&self, exporter: &SpanExporter, batch: Vec<SpanData>, throttle: &mut Throttle) {
        let count = batch.len() as u64;
        let problem = match tokio::time::timeout(TIMEOUT, exporter.export(batch)).await {
            Ok(Ok(())) => {
                self.counts.sent.fetch_add(count, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer in {} s", TIMEOUT.as_secs()),
        };
        let dropped = self.counts.dropped.fetch_add(count, Ordering::Relaxed) + count;
        if throttle.is_due() {
            tracing::warn!(problem, dropped, "the collector does not take spans, which are dropped");
        }
    }
}
