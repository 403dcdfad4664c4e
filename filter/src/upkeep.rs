//! What a configuration does besides deciding: it counts, reports, and follows its source.

use crate::{
    contexts::{ContextId, Root},
    host::{self, CallId, LogLevel},
    metrics::{self, Counts},
    pull::{self, Follower, News},
    report::Reporter,
};
use std::{cell::Cell, time::Duration};

/// How often counts are handed to the host.
const TICK: Duration = Duration::from_secs(1);
/// Soon, but not in the callback that applies a configuration: that one also runs where Envoy only tries it.
const SOON: Duration = Duration::from_millis(1);

thread_local! {
    /// The configuration that came last. An older one may go on for as long as it has streams, and has nothing to
    /// report any more.
    static NEWEST: Cell<ContextId> = const { Cell::new(0) };
}

/// The state of it.
#[derive(Default)]
pub(crate) struct Upkeep {
    id: ContextId,
    pub(crate) counts: Counts,
    reporter: Reporter,
    follower: Option<Follower>,
}

impl Root {
    /// Starts with a configuration that was just applied.
    pub(crate) fn begin(&mut self, id: ContextId) {
        NEWEST.set(id);
        let follower = self.settings.source.clone().and_then(Follower::new);
        self.upkeep = Upkeep { id, follower, ..Upkeep::default() };
        if let Some(follower) = &mut self.upkeep.follower {
            // What other workers have already, after a VM had to be started anew for example.
            let news = follower.look();
            self.take(news);
        }
        if let Some(bundle) = &self.bundle {
            metrics::applied(bundle.bundle().revision);
        }
        host::set_tick_period(SOON);
    }

    /// The period that was asked for is over.
    pub(crate) fn tick(&mut self) {
        host::set_tick_period(if self.upkeep.follower.is_some() { pull::TICK } else { TICK });
        self.flush();
        let now = host::monotonic();
        if let Some(follower) = &mut self.upkeep.follower {
            let news = follower.tick(now);
            self.take(news);
        }
        if let (Some(receiver), true) = (&self.settings.report, NEWEST.get() == self.upkeep.id) {
            let revision = self.bundle.as_ref().map_or(0, |bundle| bundle.bundle().revision);
            self.upkeep.reporter.tick(receiver, revision, now);
        }
    }

    /// A call was answered, or failed.
    pub(crate) fn answered(&mut self, call: CallId, body_size: usize) {
        let now = host::monotonic();
        if self.upkeep.reporter.answered(call, now) {
            return;
        }
        let news = self.upkeep.follower.as_mut().and_then(|own| own.answered(call, body_size, now));
        self.take(news.unwrap_or(News::Nothing));
    }

    /// Hands to the host what was counted.
    pub(crate) fn flush(&mut self) {
        if let Some(bundle) = &self.bundle {
            self.upkeep.counts.flush(bundle);
        }
    }

    /// Puts a bundle from the source in force.
    fn take(&mut self, news: News) {
        let News::Bundle(bundle) = news else { return };
        self.flush();
        let revision = bundle.bundle().revision;
        host::log(LogLevel::Info, &format!("revision {revision} applied"));
        metrics::applied(revision);
        self.bundle = Some(bundle);
    }
}
