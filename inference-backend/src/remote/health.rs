//! Asks a server over and over whether its model is ready.

use super::peer::Peer;
use crate::signature::Signature;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};

/// So many answers in a row that say otherwise change what is thought of the model: one that was lost does not.
const TURNS: u32 = 2;

/// What is thought of a remote model.
#[derive(Debug)]
pub struct Health {
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    unready: AtomicBool,
    changed: AtomicBool,
}

impl Health {
    /// Of a model that is ready; from now on it is asked in this interval.
    #[must_use]
    pub fn watch(peer: Peer, signature: Arc<Signature>, interval: Duration) -> Self {
        let state = Arc::new(State::default());
        let task = tokio::spawn(watch(Arc::clone(&state), peer, signature, interval));
        Self { state, task }
    }

    /// Whether the model is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.state.unready.load(Ordering::Relaxed)
    }

    /// Whether the server has another model now than was loaded: it takes or gives something else.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.state.changed.load(Ordering::Relaxed)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(state: Arc<State>, peer: Peer, signature: Arc<Signature>, interval: Duration) {
    let mut contrary = 0;
    loop {
        sleep(interval).await;
        let answer = peer.ask().await;
        if let Ok(now) = &answer {
            state.changed.store(now.signature != *signature, Ordering::Relaxed);
        }
        let unready = state.unready.load(Ordering::Relaxed);
        if answer.is_err() == unready {
            contrary = 0;
            continue;
        }
        contrary += 1;
        if contrary >= TURNS {
            contrary = 0;
            state.unready.store(!unready, Ordering::Relaxed);
            match &answer {
                Ok(_) => tracing::info!(model = peer.place(), "ready again"),
                Err(problem) => tracing::warn!(model = peer.place(), problem, "not ready"),
            }
        }
    }
}
