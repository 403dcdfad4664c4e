//! The lines of the access log, written on a thread of their own: a request waits neither for a line to be formatted nor for whoever
//! reads it.

use crate::{context::RequestContext, throttle::Throttle};
use halftone_proto::v1::EvaluationContext;
use http::{Method, Uri};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::Dispatch;

/// Lines that may wait: what five thousand requests a second say in three seconds.
const WAITING: usize = 1 << 14;
/// After it was woken, the thread waits for so long for more lines, so that not every one has to wake it.
const GATHERING: Duration = Duration::from_millis(5);

/// Lines that there was no room for.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// What a line says.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) context: Arc<RequestContext>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) duration: Duration,
}

enum Message {
    /// With where it is logged.
    Line(Line, Dispatch),
    /// Says when all before it is written.
    Flush(SyncSender<()>),
}

/// Has a line written. When too many wait it is dropped and counted.
pub(crate) fn write(line: Line) {
    let dispatch = tracing::dispatcher::get_default(Dispatch::clone);
    match writer() {
        Some(writer) => {
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                writer.try_send(Message::Line(line, dispatch))
            {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        None => line.log(),
    }
}

/// Waits until all lines so far are written, for as long as `patience` at most. To be called before the process ends.
pub fn flush(patience: Duration) {
    let (done, written) = sync_channel(1);
    let (begun, mut message) = (Instant::now(), Message::Flush(done));
    let Some(writer) = writer() else { return };
    while let Err(TrySendError::Full(back)) = writer.try_send(message) {
        if begun.elapsed() >= patience {
            return;
        }
        message = back;
        thread::sleep(GATHERING);
    }
    let _ = written.recv_timeout(patience);
}

/// Who writes; nobody where no thread can be started.
fn writer() -> Option<&'static SyncSender<Message>> {
    static WRITER: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();
    let start = || {
        let (writer, waiting) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("access log".into());
        thread.spawn(move || run(&waiting)).is_ok().then_some(writer)
    };
    WRITER.get_or_init(start).as_ref()
}

fn run(waiting: &Receiver<Message>) {
    let (mut known, mut throttle) = (0, Throttle::default());
    while let Ok(first) = waiting.recv() {
        take(first);
        waiting.try_iter().for_each(take);
        let dropped = DROPPED.load(Ordering::Relaxed);
        if dropped > known && throttle.is_due() {
            tracing::warn!(dropped, "lines of the access log were dropped: whoever reads them is too slow");
            known = dropped;
        }
        thread::sleep(GATHERING);
    }
}

fn take(message: Message) {
    match message {
        Message::Line(line, dispatch) => tracing::dispatcher::with_default(&dispatch, || line.log()),
        Message::Flush(done) => {
            let _ = done.send(());
        }
    }
}

impl Line {
    fn log(&self) {
        let served = self.context.served();
        let decided = self.context.evaluation.as_ref();
        // The prefix is that of the baggage members. A plain `target` would be a second key of that name in JSON
        // lines, whose `target` is tracing's.
        tracing::info!(
            target: "access",
            method = self.method.as_str(),
            path = self.uri.path(),
            status = self.status,
            // Of calls over gRPC that failed; those that did not have theirs in the trailers.
            grpc_status = self.grpc_status,
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            model = served.map(|served| &*served.model),
            version = served.map(|served| &*served.version),
            halftone.target = decided.and_then(|c| non_empty(&c.target)),
            halftone.ruleset = decided.and_then(|c| non_empty(&c.ruleset)),
            halftone.revision = decided.map(|c| c.revision),
            halftone.rule = decided.and_then(|c| non_empty(&c.rule)),
            halftone.unit_hash = decided.and_then(unit_hash),
            halftone.arm = decided.and_then(|c| non_empty(&c.arm)),
            halftone.epoch = decided.map(|c| c.epoch).filter(|epoch| *epoch > 0),
            halftone.bucket = decided.and_then(|c| c.bucket),
            halftone.reason = decided.map(|c| c.reason().as_str_name()),
            halftone.overridden = decided.map(|c| c.overridden).filter(|overridden| *overridden),
            halftone.held_out = decided.map(|c| c.held_out).filter(|held_out| *held_out),
            feature_version = self.context.feature_version(),
            model_output_hash = self.context.output_hash().map(hexadecimal),
            trace_id = self.context.trace_id().map(tracing::field::display),
            evaluation_id = self.context.parent.as_ref().map(|parent| tracing::field::display(parent.span_id())),
        );
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn unit_hash(context: &EvaluationContext) -> Option<String> {
    (context.unit_hash != 0).then(|| hexadecimal(context.unit_hash))
}

/// As a number it would lose digits in whatever reads JSON numbers as doubles.
fn hexadecimal(hash: u64) -> String {
    format!("{hash:016x}")
}

/// How many lines there was no room for.
pub(crate) struct Dropped;

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dropped")
    }
}

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Lines of the access log that were dropped, because whoever reads them is too slow";
        let counter = ConstCounter::new(DROPPED.load(Ordering::Relaxed));
        let descriptor =
            encoder.encode_descriptor("halftone_access_log_dropped", help, None, MetricType::Counter)?;
        counter.encode(descriptor)
    }
}
