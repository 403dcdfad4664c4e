//! A control plane as far as observations go: keeps what it takes, as sets and sums.

use crate::process::PATIENCE;
use halftone_proto::v1::{
    Moments, ObservationAck, ObservationBatch, ObservationSource, Omitted, Series, Statistics, TracedRequest,
    observations_server::{Observations, ObservationsServer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    thread::sleep,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{Code, Request, Response, Status};

/// What it does with a report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Takes,
    /// Takes it, and then fails to say so.
    LosesTheAnswer,
    Refuses(Code),
    /// Neither takes it nor answers.
    Hangs,
}

/// A unit's first request: its time, latency and outcome.
pub(crate) type Seen = (u64, Option<f64>, u32);

/// What it has taken.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) mood: Mood,
    /// By source.
    pub(crate) kept: BTreeMap<Vec<u8>, u64>,
    /// Batches by source and sequence.
    pub(crate) taken: BTreeSet<(Vec<u8>, u64)>,
    /// Reports of what it had already.
    pub(crate) again: usize,
    /// Reports that came, whatever became of them.
    pub(crate) reports: Vec<(Vec<u8>, u64)>,
    pub(crate) resumes: usize,
    pub(crate) exposures: BTreeMap<Series, BTreeMap<u64, Seen>>,
    pub(crate) bad_events: BTreeSet<(Series, String, u64)>,
    pub(crate) statistics: BTreeMap<(Series, String), Sums>,
    pub(crate) omitted: Omitted,
    pub(crate) traced: Vec<TracedRequest>,
}

/// Sums of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) count: u64,
    pub(crate) total: f64,
    pub(crate) rejected: u64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Values in the histogram, those that are no latencies included.
    pub(crate) histogram: u64,
    /// Values that are 1, or up to 2 % less.
    pub(crate) ones: u64,
    /// By bucket of units.
    pub(crate) units: BTreeMap<u32, (f64, u64)>,
}

impl Sums {
    fn add(&mut self, statistics: &Statistics) {
        let Moments { count, mean, min, max, rejected, .. } = statistics.moments.unwrap();
        if count > 0 {
            let before = self.count > 0;
            self.min = if before { self.min.min(min) } else { min };
            self.max = if before { self.max.max(max) } else { max };
        }
        self.count += count;
        self.total += mean * count as f64;
        self.rejected += rejected;
        let histogram = statistics.histogram.as_ref().unwrap();
        self.histogram += histogram.counts.iter().sum::<u64>()
            + histogram.zero
            + histogram.infinite
            + histogram.negative
            + histogram.nan;
        let counts = histogram.buckets.iter().zip(&histogram.counts);
        self.ones += counts.filter(|(bucket, _)| **bucket == 0).map(|(_, count)| count).sum::<u64>();
        if let Some(units) = &statistics.units {
            for ((&bucket, &numerator), &denominator) in
                units.buckets.iter().zip(&units.numerators).zip(&units.denominators)
            {
                let sums = self.units.entry(bucket).or_default();
                *sums = (sums.0 + numerator, sums.1 + denominator);
            }
        }
    }
}

impl Books {
    fn take(&mut self, batch: &ObservationBatch) {
        let kept = self.kept.entry(batch.source.clone()).or_default();
        if batch.sequence <= *kept {
            self.again += 1;
            return;
        }
        *kept = batch.sequence;
        self.taken.insert((batch.source.clone(), batch.sequence));
        let omitted = batch.omitted.unwrap_or_default();
        self.omitted.requests += omitted.requests;
        self.omitted.units += omitted.units;
        self.omitted.batches += omitted.batches;
        self.omitted.traced += omitted.traced;
        self.traced.extend(batch.traced.iter().cloned());
        for observations in &batch.series {
            let series = observations.series.clone().unwrap();
            for exposure in &observations.exposures {
                let units = self.exposures.entry(series.clone()).or_default();
                let new = (exposure.time_ms, exposure.latency, exposure.outcome);
                let known = units.entry(exposure.unit_hash).or_insert(new);
                // Enough for a test, in which a unit is answered at once or never.
                if (new.0, new.2) < (known.0, known.2) {
                    *known = new;
                }
            }
            for event in &observations.bad_events {
                self.bad_events.insert((series.clone(), event.metric.clone(), event.unit_hash));
            }
            for statistics in &observations.statistics {
                let key = (series.clone(), statistics.metric.clone());
                self.statistics.entry(key).or_default().add(statistics);
            }
        }
    }

    /// Requests that were counted in all series.
    pub(crate) fn requests(&self) -> u64 {
        self.statistics.iter().filter(|((_, metric), _)| metric == "error").map(|(_, sums)| sums.count).sum()
    }

    /// Requests, units, and batches that came although it had them.
    pub(crate) fn totals(&self) -> (u64, u64, usize) {
        let units = self.exposures.values().map(|units| units.len() as u64).sum();
        (self.requests(), units, self.again)
    }
}

struct Service(Arc<Mutex<Books>>);

#[tonic::async_trait]
impl Observations for Service {
    async fn report(&self, request: Request<ObservationBatch>) -> Result<Response<ObservationAck>, Status> {
        let batch = request.into_inner();
        let mood = {
            let mut books = self.0.lock().unwrap();
            books.reports.push((batch.source.clone(), batch.sequence));
            if matches!(books.mood, Mood::Takes | Mood::LosesTheAnswer) {
                books.take(&batch);
            }
            books.mood
        };
        match mood {
            Mood::Takes => Ok(Response::new(ObservationAck { sequence: batch.sequence })),
            Mood::LosesTheAnswer => Err(Status::unavailable("the answer is lost")),
            Mood::Refuses(code) => Err(Status::new(code, "refused by the test")),
            Mood::Hangs => std::future::pending().await,
        }
    }

    async fn resume(&self, request: Request<ObservationSource>) -> Result<Response<ObservationAck>, Status> {
        let mut books = self.0.lock().unwrap();
        books.resumes += 1;
        let sequence = books.kept.get(&request.get_ref().source).copied().unwrap_or_default();
        Ok(Response::new(ObservationAck { sequence }))
    }
}

/// A control plane that can be killed and started again: what it has taken stays.
pub(crate) struct Ledger {
    books: Arc<Mutex<Books>>,
    pub(crate) address: SocketAddr,
    /// With all its connections.
    running: Option<Runtime>,
}

impl Ledger {
    pub(crate) fn start() -> Self {
        let mut ledger =
            Self { books: Arc::default(), address: SocketAddr::from(([127, 0, 0, 1], 0)), running: None };
        ledger.resume();
        ledger
    }

    /// Starts it again, at the same address.
    pub(crate) fn resume(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let service =
            ObservationsServer::new(Service(Arc::clone(&self.books))).max_decoding_message_size(16 << 20);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        drop(entered);
        self.running = Some(runtime);
    }

    /// Ends it with all its connections.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // Elsewhere: tests are asynchronous themselves, and may not wait like that.
            std::thread::spawn(move || running.shutdown_timeout(PATIENCE)).join().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Waits until this holds.
    #[track_caller]
    pub(crate) fn wait(&self, until: impl Fn(&Books) -> bool) {
        let begun = Instant::now();
        loop {
            let books = self.books();
            if until(&books) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?}: {books:#?}");
            drop(books);
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.kill();
    }
}
