//! Spans between those who make them and the collector.

use super::{
    link::{Link, Signal},
    origin::Origin,
};
use crate::{sampling::Sampling, span_message::length_delimited, throttle::Throttle, trace::Sink};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use prost::{Message, encoding::encoded_len_varint};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Bytes of spans that may wait: what five thousand requests a second make in half a second.
const WAITING: usize = 8 << 20;
/// Spans in one message, at most: collectors take 4 MiB.
const TOGETHER: u64 = 512;
/// Bytes in one message, unless a single span has more.
const LARGEST: usize = 1 << 20;
/// How often what waits is sent. Nobody is woken for a single span.
const EVERY: Duration = Duration::from_millis(200);

const SPANS: Signal =
    Signal { method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export", path: "/v1/traces" };

/// A place for spans that wait, and who sends them.
pub(super) fn channel() -> (Waiting, Sender) {
    let (waiting, counts) = (Arc::default(), Arc::default());
    (Waiting { waiting: Arc::clone(&waiting), counts: Arc::clone(&counts) }, Sender { waiting, counts })
}

/// Where spans wait to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    waiting: Arc<Mutex<Batches>>,
    counts: Arc<Counts>,
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
struct Batches {
    batches: VecDeque<Batch>,
    bytes: usize,
}

/// Spans for one message.
#[derive(Debug, Default)]
struct Batch {
    /// Each as the field `spans` of `ScopeSpans`.
    spans: Vec<u8>,
    count: u64,
}

impl Batches {
    /// Whether there was room for it.
    fn push(&mut self, span: &[u8]) -> bool {
        if self.bytes + span.len() > WAITING {
            return false;
        }
        let has_room = |batch: &Batch| batch.count < TOGETHER && batch.spans.len() + span.len() <= LARGEST;
        if !self.batches.back().is_some_and(has_room) {
            // Most spans have no more than that.
            let expected = self.batches.back().map_or(0, |before| before.spans.len());
            self.batches.push_back(Batch { spans: Vec::with_capacity(expected), count: 0 });
        }
        if let Some(batch) = self.batches.back_mut() {
            let before = batch.spans.len();
            length_delimited(2, span.len(), &mut batch.spans);
            batch.spans.extend_from_slice(span);
            batch.count += 1;
            self.bytes += batch.spans.len() - before;
        }
        true
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.spans.len();
        Some(batch)
    }
}

impl Waiting {
    /// How many were sent and dropped, as metrics.
    pub(super) fn counts(&self, sampling: Arc<Sampling>) -> CountsOfSpans {
        CountsOfSpans { counts: Arc::clone(&self.counts), sampling }
    }
}

impl Sink for Waiting {
    fn take(&self, span: &[u8]) {
        if !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(span) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// How many spans were sent and dropped, and how many requests have none.
#[derive(Debug)]
pub(super) struct CountsOfSpans {
    counts: Arc<Counts>,
    sampling: Arc<Sampling>,
}

impl Collector for CountsOfSpans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, count) in [
            (
                "halftone_spans_sent",
                "Spans that the collector took",
                self.counts.sent.load(Ordering::Relaxed),
            ),
            (
                "halftone_spans_dropped",
                "Spans that were dropped, because the collector did not take them, or not in time",
                self.counts.dropped.load(Ordering::Relaxed),
            ),
            (
                "halftone_traces_limited",
                "Requests that began a trace and were not recorded, because there were more than --trace-limit",
                self.sampling.beyond(),
            ),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

/// Sends spans.
#[derive(Debug)]
pub(super) struct Sender {
    waiting: Arc<Mutex<Batches>>,
    counts: Arc<Counts>,
}

impl Sender {
    /// Sends what comes, until it is to stop and everything was tried once.
    pub(super) async fn run(self, link: Link, origin: Origin, mut stop: watch::Receiver<bool>) {
        let mut throttle = Throttle::default();
        let envelope = Envelope::new(&origin);
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                // Also when whoever could say so is gone.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            while let Some(batch) = self.next() {
                self.send(&link, &envelope, batch, &mut throttle).await;
            }
            if stopping {
                return;
            }
        }
    }

    fn next(&self) -> Option<Batch> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn send(&self, link: &Link, envelope: &Envelope, batch: Batch, throttle: &mut Throttle) {
        let sent = link.send(&SPANS, envelope.around(&batch.spans)).await;
        let rejected = sent.map(|answer: ExportTraceServiceResponse| {
            answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
        });
        let (rejected, problem) = match rejected {
            Ok(0) => (0, None),
            // Not its words: they are anybody's.
            Ok(rejected) => (rejected.min(batch.count), Some(format!("{rejected} spans were rejected"))),
            Err(problem) => (batch.count, Some(problem)),
        };
        self.counts.sent.fetch_add(batch.count - rejected, Ordering::Relaxed);
        let dropped = self.counts.dropped.fetch_add(rejected, Ordering::Relaxed) + rejected;
        if let Some(problem) = problem
            && throttle.is_due()
        {
            let endpoint = link.endpoint();
            tracing::warn!(
                endpoint,
                problem,
                dropped,
                "the collector does not take spans, which are dropped"
            );
        }
    }
}

/// `ExportTraceServiceRequest`, whose one `ResourceSpans` is bytes already: on the wire that is the same.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(bytes = "bytes", tag = "1")]
    resource_spans: Bytes,
}

/// What is around the spans of every message: who sends them.
struct Envelope {
    /// Of `ResourceSpans`: its field `resource`.
    resource: Vec<u8>,
    /// Of `ScopeSpans`: its field `scope`.
    scope: Vec<u8>,
}

impl Envelope {
    fn new(origin: &Origin) -> Self {
        fn field(message: &impl Message) -> Vec<u8> {
            let mut bytes = Vec::new();
            prost::encoding::message::encode(1, message, &mut bytes);
            bytes
        }
        Self { resource: field(&origin.resource), scope: field(&origin.scope) }
    }

    fn around(&self, spans: &[u8]) -> Request {
        let scope_spans = self.scope.len() + spans.len();
        let head = 1 + encoded_len_varint(scope_spans as u64);
        let mut bytes = Vec::with_capacity(self.resource.len() + head + scope_spans);
        bytes.extend_from_slice(&self.resource);
        length_delimited(2, scope_spans, &mut bytes);
        bytes.extend_from_slice(&self.scope);
        bytes.extend_from_slice(spans);
        Request { resource_spans: bytes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };

    fn span(name: String) -> Span {
        Span { name, ..Span::default() }
    }

    #[test]
    fn the_protocol_reads_what_is_sent() {
        let origin = Origin::new("test", Vec::new());
        let (waiting, sender) = channel();
        let spans: Vec<Span> =
            (0..TOGETHER + 3).map(|number| span("x".repeat(usize::try_from(number).unwrap()))).collect();
        spans.iter().for_each(|span| waiting.take(&span.encode_to_vec()));
        let envelope = Envelope::new(&origin);
        let mut received = Vec::new();
        while let Some(batch) = sender.next() {
            let bytes = envelope.around(&batch.spans).encode_to_vec();
            let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
            let [resource_spans] = <[ResourceSpans; 1]>::try_from(request.resource_spans).unwrap();
            assert_eq!(resource_spans.resource.as_ref(), Some(&origin.resource));
            let [scope_spans] = <[ScopeSpans; 1]>::try_from(resource_spans.scope_spans).unwrap();
            assert_eq!(scope_spans.scope.as_ref(), Some(&origin.scope));
            assert_eq!(scope_spans.spans.len() as u64, batch.count);
            assert!(batch.count <= TOGETHER);
            received.extend(scope_spans.spans);
        }
        assert_eq!(received, spans, "each once, in their order");
    }

    #[test]
    fn memory_and_messages_have_bounds() {
        let (waiting, sender) = channel();
        let large = span("x".repeat(300_000)).encode_to_vec();
        let (taken, offered) = (WAITING / (large.len() + 4), 100);
        (0..offered).for_each(|_| waiting.take(&large));
        let dropped = || waiting.counts.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped(), (offered - taken) as u64);
        let batches: Vec<Batch> = std::iter::from_fn(|| sender.next()).collect();
        assert_eq!(batches.iter().map(|batch| batch.count).sum::<u64>(), taken as u64);
        assert!(batches.iter().all(|batch| batch.spans.len() <= LARGEST), "three in each");
        // There is room again, also for one that fills a message alone.
        waiting.take(&vec![0; LARGEST + 1]);
        waiting.take(&large);
        assert_eq!(dropped(), (offered - taken) as u64);
        assert_eq!(sender.next().map(|batch| batch.count), Some(1));
        assert_eq!(sender.next().map(|batch| batch.count), Some(1));
        assert!(sender.next().is_none());
    }
}
