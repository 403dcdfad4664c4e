//! What is observed of inferences, on its way to the control plane.
//!
//! A request is a [`watch`], which hands over a [`record`] when it has ended, without ever waiting ([`mod@handover`]). A thread
//! of its own, the [`worker`], makes a [`batch`] of them ([`aggregator`], [`statistics`], [`seen`], [`places`]), writes it into
//! the [`spool`], and sends it by the [`uplink`]. So the cost grows with units and series, and nothing of it is on the way of
//! a request.

pub mod aggregator;
pub mod backlog;
pub mod batch;
pub mod handover;
pub mod places;
pub mod record;
pub mod seen;
pub mod spool;
pub mod statistics;
pub mod uplink;
pub mod watch;
pub mod worker;

use self::{
    backlog::Backlog,
    handover::{Outbox, handover},
    spool::Spool,
    uplink::Uplink,
    worker::{Gatherer, Shelf},
};
use anyhow::Context;
use std::{path::PathBuf, thread, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tonic::{metadata::AsciiMetadataValue, transport::Endpoint};

/// How long a disk may take with what is left to write at the end.
const DISK: Duration = Duration::from_secs(5);

/// Where observations go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control plane.
    pub to: Endpoint,
    /// What it asks for, when it asks for one.
    pub token: Option<AsciiMetadataValue>,
    /// A folder of this process alone.
    pub folder: PathBuf,
    /// How often a batch is written.
    pub interval: Duration,
    /// Bytes that the folder may take.
    pub spool: u64,
}

/// The thread that gathers and sends.
#[derive(Debug)]
pub struct Reporter {
    stop: oneshot::Sender<Duration>,
    stopped: oneshot::Receiver<()>,
    backlog: Backlog,
}

/// Starts the thread that gathers and sends.
///
/// # Errors
/// When the folder cannot be used, or there is no thread to be had.
pub fn start(settings: Settings) -> anyhow::Result<(Outbox, Reporter)> {
    let spool = Spool::open(&settings.folder, settings.spool)?;
    if !spool.is_empty() {
        tracing::info!(batches = spool.len(), "observations of an earlier run are to be sent");
    }
    let (outbox, inbox) = handover();
    let backlog = Backlog::default();
    let gatherer = Gatherer::new(inbox, settings.interval, backlog.clone());
    let shelf = Shelf::new(spool, backlog.clone());
    // Its own: what it does to files must keep no request waiting.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopping) = oneshot::channel();
    let (done, stopped) = oneshot::channel();
    let work = move || {
        runtime.block_on(async {
            worker::run(gatherer, &shelf, Uplink::new(&settings.to, settings.token), stopping).await;
        });
        // Who would hear it has given up.
        let _ = done.send(());
    };
    thread::Builder::new().name("observations".into()).spawn(work).context("cannot start a thread")?;
    Ok((outbox, Reporter { stop, stopped, backlog }))
}

impl Reporter {
    /// How far it is behind.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Writes down all that was handed over, and sends it for as long as this, at most. What is not sent then is kept, and
    /// sent after the next start.
    pub async fn stop(self, patience: Duration) {
        // An error of the channels says that the thread is gone, which is what is waited for.
        let _ = self.stop.send(patience);
        if timeout(patience + DISK, self.stopped).await.is_err() {
            tracing::warn!("observations could not be written down in time");
        }
    }
}
