//! Which of the traces that begin with a request are recorded, whether they begin in this program or in the filter before it. Of those
//! that a client brings, its `traceparent` says so.

use crate::otlp::share;
use clap::Args;
use opentelemetry::trace::TraceId;
use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// The flags of both programs that say how much is recorded. Their words are those of a program that serves requests behind the
/// filter; another one has its own.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// The share of traces that begin in this program and are recorded, from 0 to 1. Of those that come with a request, its
    /// `traceparent` says whether they are.
    #[arg(
        long,
        env = "HALFTONE_TRACE_SAMPLE",
        value_name = "SHARE",
        default_value_t = 1.0,
        value_parser = share,
        allow_negative_numbers = true,
        display_order = 800
    )]
    pub trace_sample: f64,

    /// How many requests per second are recorded, at most, whose traces begin in this program or in the filter before it; and as many
    /// more that a rule took, such as a candidate's. 0 records none of them. Traces that clients sample are not limited.
    #[arg(
        long,
        env = "HALFTONE_TRACE_LIMIT",
        value_name = "PER-SECOND",
        default_value_t = 200,
        allow_negative_numbers = true,
        display_order = 800
    )]
    pub trace_limit: u32,
}

impl SamplingArgs {
    /// What they ask for.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        Sampling::new(self.trace_sample, self.trace_limit)
    }
}

/// A share of all, and a number per second at most: what tracing costs is bounded, however much traffic comes.
#[derive(Debug)]
pub struct Sampling {
    share: f64,
    stable: Rate,
    candidate: Rate,
    beyond: AtomicU64,
}

impl Sampling {
    /// `share` of the traces that begin in this program, from 0 to 1; and of all that begin here or in the filter `most` per
    /// second: of requests that a rule took, and of all others. So a candidate of few requests is recorded whole beside many.
    #[must_use]
    pub fn new(share: f64, most: u32) -> Self {
        Self { share, stable: Rate::new(most), candidate: Rate::new(most), beyond: AtomicU64::new(0) }
    }

    /// Whether a trace is among so large a share of all, by the random part of its id: whoever asks, the answer is the same.
    #[must_use]
    pub(crate) fn has(&self, trace: TraceId) -> bool {
        halftone_rules::trace::is_sampled(&trace.to_bytes(), self.share)
    }

    /// Whether there is room for one more, which it then takes.
    pub(crate) fn has_room(&self, candidate: bool) -> bool {
        let rate = if candidate { &self.candidate } else { &self.stable };
        let has_room = rate.take();
        if !has_room {
            self.beyond.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// How many there was no room for.
    pub(crate) fn beyond(&self) -> u64 {
        self.beyond.load(Ordering::Relaxed)
    }
}

/// So many per second, evenly spread where there are more; those of a second may come at once.
#[derive(Debug)]
struct Rate {
    /// Nanoseconds between two; nothing for none at all.
    between: Option<NonZeroU64>,
    /// When there is room for the next, in nanoseconds since the start, if all had come evenly.
    next: AtomicU64,
    start: Instant,
}

const SECOND: u64 = 1_000_000_000;

impl Rate {
    fn new(most: u32) -> Self {
        // More than one per nanosecond are as good as no limit.
        let between = SECOND.checked_div(u64::from(most)).map(|between| between.max(1));
        Self { between: between.and_then(NonZeroU64::new), next: AtomicU64::new(0), start: Instant::now() }
    }

    fn take(&self) -> bool {
        self.take_at(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, now: u64) -> bool {
        let Some(between) = self.between else { return false };
        let after = |next: u64| {
            let after = next.max(now).saturating_add(between.get());
            (after <= now.saturating_add(SECOND)).then_some(after)
        };
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &Rate, from: u64, to: u64, offered: u64) -> usize {
        let times = (0..offered).map(|number| from + (to - from) * number / offered);
        times.filter(|&time| rate.take_at(time)).count()
    }

    #[test]
    fn no_more_than_so_many_in_a_second() {
        let rate = Rate::new(500);
        assert_eq!(taken(&rate, 0, 1, 10_000), 500, "at once");
        assert_eq!(taken(&rate, 1, SECOND + 100_000, 100_000), 500, "evenly");
        let (tenth, fifth) = (SECOND + SECOND / 10, SECOND + SECOND / 5);
        let later = taken(&rate, tenth, fifth, 10_000);
        assert!((99..=101).contains(&later), "{later}: those of the time without any, and of this");
        assert_eq!(
            taken(&rate, 100 * SECOND, 100 * SECOND + 1, 10_000),
            500,
            "and no more after a long time without any"
        );
        assert_eq!(taken(&rate, 200 * SECOND, 300 * SECOND, 40_000), 40_000, "all below it");
    }

    #[test]
    fn none_and_as_good_as_all() {
        assert_eq!(taken(&Rate::new(0), 0, SECOND, 1_000), 0);
        assert_eq!(taken(&Rate::new(u32::MAX), 0, 1, 100_000), 100_000);
    }

    #[test]
    fn a_candidate_has_room_of_its_own() {
        let sampling = Sampling::new(1.0, 2);
        let stable = [(); 4].map(|()| sampling.has_room(false));
        assert_eq!((stable, sampling.beyond()), ([true, true, false, false], 2));
        assert_eq!([(); 3].map(|()| sampling.has_room(true)), [true, true, false]);
    }
}
