//! What all watches have in common.

use crate::{Engine, Event, content::Loaded};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Follows a source for as long as it exists: dropping it ends the watch, and the rules in force stay.
#[derive(Debug)]
#[must_use = "the watch ends when this is dropped"]
pub struct Watch(JoinHandle<()>);

impl Watch {
    pub(crate) fn spawn(watching: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(watching))
    }

    /// Ends the watch and waits until nothing of it runs any longer.
    pub async fn stop(mut self) {
        self.0.abort();
        // It was cancelled, which is what the error would say.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Brings what a source has to an engine, and tells how the source fares.
pub(crate) struct Feed {
    engine: Engine,
    source: Arc<str>,
    /// What the source has that is no use, as it was told last.
    failure: Option<Arc<str>>,
}

impl Feed {
    pub(crate) fn new(engine: Engine, source: &str) -> Self {
        Self { engine, source: source.into(), failure: None }
    }

    /// Puts what the source has in force. Compiling takes its time, so it has a thread of its own; the swap comes
    /// after it in the watch's task, so that nothing changes once the watch has ended. The error says why it is not
    /// in force now; it is told.
    pub(crate) async fn take(&mut self, bytes: Vec<u8>, name: String) -> Result<(), Arc<str>> {
        let revision = self.engine.next_revision();
        let loaded = tokio::task::spawn_blocking(move || Loaded::read(&bytes, &name, revision)).await;
        let why: Arc<str> = match loaded {
            Ok(Ok(loaded)) => {
                match self.engine.swap(loaded) {
                    // The change itself tells that the source is well.
                    Some(_) => self.failure = None,
                    None => self.well(),
                }
                return Ok(());
            }
            Ok(Err(error)) => error.to_string().into(),
            Err(error) => format!("internal error: {error}").into(),
        };
        self.failed(why.clone());
        Err(why)
    }

    /// The source has nothing that could be taken.
    pub(crate) fn failed(&mut self, why: impl Into<Arc<str>>) {
        let why = why.into();
        if self.failure.as_ref() != Some(&why) {
            self.engine.tell(Event::Failed { source: self.source.clone(), why: why.clone() });
            self.failure = Some(why);
        }
    }

    /// What the source has is in force.
    pub(crate) fn well(&mut self) {
        if self.failure.take().is_some() {
            self.engine.tell(Event::Recovered { source: self.source.clone() });
        }
    }
}
