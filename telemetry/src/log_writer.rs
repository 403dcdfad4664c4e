//! The lines of the log, written on a thread of their own: nobody who logs waits for whoever reads them.

use crate::{access_log::Line, log_output::Output, throttle::Throttle};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use std::{
    cell::RefCell,
    fmt,
    io::{self, Stderr, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};
use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;

/// For lines of the access log: what five thousand requests a second say in three seconds. Apart from all others, so that however
/// many requests push out no warning.
static ACCESS: Room = Room::of("access", 16 << 20);
/// For all other lines.
static OTHER: Room = Room::of("other", 4 << 20);

/// Lines of both kinds that had come so far, and then could not be written.
static UNWRITTEN: Dropped = Dropped::of("unwritten", "they could not be written");

/// All that is dropped, by the name that says which lines, or why.
fn dropped() -> [&'static Dropped; 3] {
    [&ACCESS.dropped, &OTHER.dropped, &UNWRITTEN]
}

/// So many bytes are written at once: thousands of requests a second need not be as many calls of the system.
const AT_ONCE: usize = 64 << 10;

/// After it was woken, the thread waits for so long for more lines, so that not every one has to wake it.
const GATHERING: Duration = Duration::from_millis(5);

/// Lines that were dropped.
struct Dropped {
    name: &'static str,
    why: &'static str,
    lines: AtomicU64,
}

impl Dropped {
    const fn of(name: &'static str, why: &'static str) -> Self {
        Self { name, why, lines: AtomicU64::new(0) }
    }
}

/// Memory for lines that wait.
struct Room {
    most: usize,
    used: AtomicUsize,
    /// Those that there was none for.
    dropped: Dropped,
}

impl Room {
    const fn of(name: &'static str, most: usize) -> Self {
        let dropped = Dropped::of(name, "whoever reads them is too slow");
        Self { most, used: AtomicUsize::new(0), dropped }
    }

    /// Whether the line comes in; one that does not is counted.
    fn enter(&self, bytes: usize) -> bool {
        let with = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.most);
        let is_in = self.used.fetch_update(Relaxed, Relaxed, with).is_ok();
        if !is_in {
            self.dropped.lines.fetch_add(1, Relaxed);
        }
        is_in
    }

    fn leave(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

enum Message {
    /// As it is to be written.
    Text(Vec<u8>),
    /// With where it is logged. It is formatted by the thread, too.
    Access(Box<Line>, Dispatch),
    /// Says when all before it is written.
    Flush(SyncSender<()>),
}

/// What the thread that writes is about to write, and where.
struct Next {
    lines: Vec<u8>,
    output: Output<Stderr>,
    /// Whether all that was put there last was written.
    works: bool,
}

thread_local! {
    /// Nothing on other threads.
    static NEXT: RefCell<Option<Next>> = const { RefCell::new(None) };
}

/// Whether this is the thread that writes.
fn writes() -> bool {
    NEXT.with_borrow(Option::is_some)
}

/// Adds lines to what is written next; `false` on other threads.
fn gather(text: &[u8]) -> bool {
    let length = NEXT.with_borrow_mut(|next| {
        let next = next.as_mut()?;
        next.lines.extend_from_slice(text);
        Some(next.lines.len())
    });
    if length.is_some_and(|length| length >= AT_ONCE) {
        put();
    }
    length.is_some()
}

/// Writes what was gathered; whether that works.
fn put() -> bool {
    NEXT.with_borrow_mut(|next| {
        let Some(next) = next else { return true };
        if !next.lines.is_empty() {
            next.works = put_on(&mut next.output, &next.lines);
            next.lines.clear();
        }
        next.works
    })
}

/// Writes lines; whether all were written. A log that cannot be written stops nothing.
fn put_on(output: &mut Output<Stderr>, lines: &[u8]) -> bool {
    let lost = output.put(lines);
    UNWRITTEN.lines.fetch_add(lost, Relaxed);
    lost == 0
}

/// Who writes, once there was a line; nobody where no thread can be started.
static WRITER: OnceLock<Option<Sender<Message>>> = OnceLock::new();

fn writer() -> Option<&'static Sender<Message>> {
    let start = || {
        let (writer, waiting) = channel();
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || run(&waiting)).is_ok().then_some(writer)
    };
    WRITER.get_or_init(start).as_ref()
}

/// Has bytes written that are whole lines.
pub(crate) fn write(text: &[u8]) {
    if gather(text) {
        return;
    }
    let Some(writer) = writer() else {
        put_on(&mut Output::new(io::stderr()), text);
        return;
    };
    if OTHER.enter(text.len()) {
        send(writer, Message::Text(text.to_vec()));
    }
}

/// Has a line of the access log written.
pub(crate) fn write_access(line: Line) {
    let Some(writer) = writer() else { return line.log() };
    if ACCESS.enter(line.bytes()) {
        let dispatch = tracing::dispatcher::get_default(Dispatch::clone);
        send(writer, Message::Access(Box::new(line), dispatch));
    }
}

fn send(writer: &Sender<Message>, message: Message) {
    // Fails only when the thread is gone; what takes room keeps it then, and all that follows is counted as dropped.
    let _ = writer.send(message);
}

/// Waits until all lines so far are written, for as long as `patience` at most.
pub(crate) fn flush(patience: Duration) {
    let Some(writer) = WRITER.get().and_then(Option::as_ref).filter(|_| !writes()) else {
        put();
        return;
    };
    let (done, written) = sync_channel(1);
    send(writer, Message::Flush(done));
    let _ = written.recv_timeout(patience);
}

fn run(waiting: &Receiver<Message>) {
    let (lines, output) = (Vec::with_capacity(2 * AT_ONCE), Output::new(io::stderr()));
    NEXT.set(Some(Next { lines, output, works: true }));
    let mut watches = dropped().map(|dropped| (dropped, Watch::default()));
    while let Ok(first) = waiting.recv() {
        take(first);
        waiting.try_iter().for_each(take);
        // Nobody would read of what is dropped while nothing can be written.
        if put() {
            watches.iter_mut().for_each(|(dropped, watch)| watch.look(dropped));
            put();
        }
        thread::sleep(GATHERING);
    }
}

fn take(message: Message) {
    match message {
        Message::Text(text) => {
            gather(&text);
            OTHER.leave(text.len());
        }
        Message::Access(line, dispatch) => {
            tracing::dispatcher::with_default(&dispatch, || line.log());
            ACCESS.leave(line.bytes());
        }
        Message::Flush(done) => {
            put();
            let _ = done.send(());
        }
    }
}

/// Tells of lines that were dropped.
#[derive(Default)]
struct Watch {
    known: u64,
    throttle: Throttle,
}

impl Watch {
    fn look(&mut self, dropped: &Dropped) {
        let Dropped { name, why, lines } = dropped;
        let count = lines.load(Relaxed);
        if count > self.known && self.throttle.is_due() {
            tracing::warn!(lines = name, dropped = count, "lines of the log were dropped: {why}");
            self.known = count;
        }
    }
}

/// Where a subscriber writes: each event is one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines;

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has Prometheus count the lines that were dropped.
#[derive(Debug)]
pub(crate) struct DroppedLines;

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Lines of the log that were dropped: of the access log and all others, because whoever reads them is too slow; and those that could not be written";
        let mut family =
            encoder.encode_descriptor("halftone_log_lines_dropped", help, None, MetricType::Counter)?;
        for Dropped { name, lines, .. } in dropped() {
            let counter = ConstCounter::new(lines.load(Relaxed));
            counter.encode(family.encode_family(&[("lines", *name)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_takes_what_it_has_place_for_and_counts_the_rest() {
        let room = Room::of("test", 10);
        assert!(room.enter(6) && room.enter(4));
        assert!(!room.enter(1) && !room.enter(usize::MAX));
        room.leave(4);
        assert!(room.enter(3) && !room.enter(2));
        assert_eq!(room.dropped.lines.load(Relaxed), 3);
    }
}
