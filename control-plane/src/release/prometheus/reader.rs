//! The task that reads what releases want of a Prometheus server.

use super::{
    blocks::{Blocks, Cut, Part, Sample, fold, shared},
    readings::{OfEpoch, PrometheusMetric, PrometheusTarget, Reading, Readings, Trouble},
    selector::Ratio,
    server::{Server, Unread},
};
use crate::release::{controller::Looked, source::Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// Between two looks whether anything is to be read.
const TICK: Duration = Duration::from_secs(1);
/// Between two readings of a metric at most; at half of its blocks where that is less.
const SELDOMEST: Duration = Duration::from_secs(30);
/// What is read at once at most.
const CHUNK_MS: u64 = 15 * 60_000;
/// Chunks of a metric that are read before others get their turn.
const CHUNKS: u32 = 16;
/// A block counts this long after its end, when it is not long itself: scrapes take a moment.
const SETTLES_MS: u64 = 1_000;
/// What is this young is read again each time: scrapes that took long are in then.
const YOUNG_MS: u64 = 60_000;
/// The same for long blocks.
const YOUNG_BLOCKS: u64 = 4;
/// Blocks of a target at most: what they take of memory is bounded.
const MOST_BLOCKS: usize = 1_000_000;

/// Reads what releases want of a Prometheus server. Cheap to clone.
#[derive(Clone)]
pub(in crate::release) struct Reader {
    server: Option<Server>,
    readings: watch::Sender<BTreeMap<String, Arc<Readings>>>,
}

/// What was read for a metric so far: a cache of what the server holds.
#[derive(Default)]
struct Progress {
    /// Everything up to then was read: milliseconds since the Unix epoch.
    read_ms: u64,
    targets: BTreeMap<String, Blocks>,
    newest_ms: BTreeMap<String, u64>,
    trouble: Option<Trouble>,
    due: Option<Instant>,
}

impl Reader {
    /// Without a server, releases that want one are told so.
    pub(in crate::release) fn new(server: Option<Server>) -> Self {
        Self { server, readings: watch::Sender::default() }
    }

    /// Whether there is a server.
    pub(in crate::release) fn has_server(&self) -> bool {
        self.server.is_some()
    }

    /// What was read for a release.
    pub(in crate::release) fn readings(&self, release: &str) -> Arc<Readings> {
        self.readings.borrow().get(release).cloned().unwrap_or_default()
    }

    /// Reads for as long as it is polled.
    pub(in crate::release) async fn run(self, releases: watch::Receiver<Arc<BTreeMap<String, Looked>>>) {
        let mut work: BTreeMap<(String, String), Progress> = BTreeMap::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let current = releases.borrow().clone();
            work.retain(|(release, _), _| current.contains_key(release));
            self.readings.send_if_modified(|all| {
                all.retain(|release, _| current.contains_key(release));
                false
            });
            self.read_all(&current, &mut work).await;
        }
    }

    async fn read_all(
        &self,
        releases: &BTreeMap<String, Looked>,
        work: &mut BTreeMap<(String, String), Progress>,
    ) {
        // One that does not answer is not asked for each metric: each would wait.
        let mut gone: Option<String> = None;
        for (release, looked) in releases {
            if looked.status.phase.is_ended() || looked.status.settled || looked.status.epochs.is_empty() {
                continue;
            }
            for (metric, source) in &looked.spec.sources {
                let Source::Prometheus(ratio) = source else { continue };
                let progress = work.entry((release.clone(), metric.clone())).or_default();
                if progress.due.is_some_and(|due| Instant::now() < due) {
                    continue;
                }
                progress.due = Some(Instant::now() + SELDOMEST.min(ratio.block / 2));
                let read = match &gone {
                    Some(why) => Err(Unread::Gone(why.clone())),
                    None => self.read(looked, ratio, progress).await,
                };
                let now_ms = now_ms();
                let trouble = read.err().map(|error| {
                    let why = error.to_string();
                    if let Unread::Gone(cause) = error {
                        gone = Some(cause);
                    }
                    let since_ms = progress.trouble.as_ref().map_or(now_ms, |trouble| trouble.since_ms);
                    Trouble { why, since_ms }
                });
                tell(release, metric, progress.trouble.as_ref(), trouble.as_ref());
                progress.trouble = trouble;
                let reading = progress.reading(looked, ratio);
                self.readings.send_modify(|all| {
                    let readings = all.entry(release.clone()).or_default();
                    Arc::make_mut(readings).0.insert(metric.clone(), reading);
                });
            }
        }
    }

    /// Reads what is new of a metric. When that fails, nothing has changed.
    async fn read(&self, looked: &Looked, ratio: &Ratio, progress: &mut Progress) -> Result<(), Unread> {
        let Some(server) = &self.server else {
            let why = "no Prometheus server is named: start the control plane with --prometheus";
            return Err(Unread::Refused(why.to_owned()));
        };
        let cut = cut(looked, ratio);
        let young_ms = YOUNG_MS.max(YOUNG_BLOCKS.saturating_mul(cut.block_ms));
        let first_ms = cut.epochs.first().copied().unwrap_or_default();
        for _ in 0..CHUNKS {
            let now_ms = now_ms();
            let from = cut.block(progress.read_ms.saturating_sub(young_ms).max(first_ms) + 1);
            let begin_ms = from.saturating_mul(cut.block_ms);
            // Always beyond what was read before.
            let until_ms = now_ms.min(begin_ms.saturating_add(young_ms + CHUNK_MS.max(young_ms)));
            let range_ms = until_ms.saturating_sub(begin_ms).saturating_add(cut.gap_ms());
            let mut read = BTreeMap::new();
            for target in targets(looked) {
                let mut blocks = Blocks::new();
                let mut newest = None;
                for (part, selector) in
                    [(Part::Numerator, &ratio.numerator), (Part::Denominator, &ratio.denominator)]
                {
                    let selector = selector.of(&target).map_err(Unread::Refused)?;
                    for series in server.samples(&selector, range_ms, until_ms).await? {
                        cut.add(&mut blocks, part, &series, from);
                        if part == Part::Denominator {
                            newest = newest.max(newest_of(&series));
                        }
                    }
                }
                read.insert(target, (blocks, newest));
            }
            for (target, (blocks, newest)) in read {
                let known = progress.targets.entry(target.clone()).or_default();
                known.split_off(&from);
                known.extend(blocks);
                if known.len() > MOST_BLOCKS {
                    let why = format!(
                        "more than {MOST_BLOCKS} blocks were read: create a release with a longer `block`"
                    );
                    return Err(Unread::Refused(why));
                }
                if let Some(newest) = newest {
                    progress.newest_ms.insert(target, newest);
                }
            }
            progress.read_ms = until_ms;
            if until_ms >= now_ms {
                break;
            }
        }
        Ok(())
    }
}

fn newest_of(series: &[Sample]) -> Option<u64> {
    series.iter().rev().find(|(_, value)| value.is_finite()).map(|(at_ms, _)| *at_ms)
}

/// How time is cut for a release.
fn cut(looked: &Looked, ratio: &Ratio) -> Cut {
    let epochs = looked.status.epochs.iter().map(|epoch| epoch.since_ms).collect();
    Cut { block_ms: ratio.block_ms(), epochs }
}

/// Stable, and all candidates.
fn targets(looked: &Looked) -> BTreeSet<String> {
    let spec = &looked.spec;
    spec.candidates.iter().chain([&spec.stable]).cloned().collect()
}

/// Logs trouble when it begins, changes and ends.
fn tell(release: &str, metric: &str, before: Option<&Trouble>, now: Option<&Trouble>) {
    match (before, now) {
        (None, None) => {}
        (Some(before), Some(now)) if before.why == now.why => {}
        (_, Some(now)) => {
            tracing::warn!(
                release,
                metric,
                why = now.why,
                "a metric has no newer numbers from the Prometheus server"
            );
        }
        (Some(_), None) => tracing::info!(release, metric, "a metric has newer numbers again"),
    }
}

impl Progress {
    /// What it says to the release. A block counts once it ended, and not before its epoch was whole.
    fn reading(&self, looked: &Looked, ratio: &Ratio) -> Reading {
        let cut = cut(looked, ratio);
        let until_ms = self.read_ms.saturating_sub(SETTLES_MS.max(cut.block_ms));
        let none = Blocks::new();
        let of = |target: &String| self.targets.get(target).unwrap_or(&none);
        let stable = of(&looked.spec.stable);
        let mut reading = Reading { newest_ms: self.newest_ms.clone(), ..Reading::default() };
        let mut seen = PrometheusMetric { trouble: self.trouble.clone(), ..PrometheusMetric::default() };
        for epoch in &looked.status.epochs {
            let range = cut.of_epoch(epoch.since_ms, until_ms.min(epoch.until_ms.unwrap_or(u64::MAX)));
            let mut of_epoch = OfEpoch::default();
            for target in targets(looked) {
                let blocks = of(&target);
                let folded = fold(blocks, range);
                let numbers = || blocks.range(range.0..range.1);
                let first = numbers().next().map(|(number, _)| number * cut.block_ms);
                reading.begun_ms = [reading.begun_ms, first].into_iter().flatten().min();
                let (numerator, denominator) = folded.totals();
                let found = u64::try_from(numbers().count()).unwrap_or(u64::MAX);
                let before = seen.targets.remove(&target).unwrap_or_default();
                let resets = numbers().map(|(_, block)| block.resets).sum::<u64>();
                let of_target = PrometheusTarget {
                    newest_ms: self.newest_ms.get(&target).copied(),
                    blocks: folded.units,
                    unseen: (range.1 - range.0).saturating_sub(found),
                    numerator,
                    denominator,
                    resets: before.resets + resets,
                };
                seen.targets.insert(target.clone(), of_target);
                if target != looked.spec.stable {
                    of_epoch.shared.insert(target.clone(), shared(blocks, stable, range));
                }
                of_epoch.targets.insert(target, folded);
            }
            reading.epochs.insert(epoch.epoch, of_epoch);
        }
        reading.seen = seen;
        reading
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
