//! Looks after all releases, one moment after the other; what people want in between is in `requests`.

mod requests;
mod work;

pub use requests::Put;

use super::{
    allocation::{allocation, arrange, epoch_of},
    feed::Feed,
    metrics::look_histogram,
    prometheus::{Reader, Readings, Server},
    read::read,
    record::{Action, DecisionRecord},
    safety::{Safety, Seen},
    silence::Silence,
    snapshot::{Knowledge, OutcomesByMetric, last_seen, outcomes},
    spec::Spec,
    status::{NotAllowed, Phase, Status},
    tick::{Decided, Moment, is_in_force, tick},
    view::{Arm, arms},
};
use crate::{
    hooks::Gatekeeper,
    ids::IdError,
    ledger::{Ledger, ReleaseObservations},
    publisher::{PublishError, Publisher},
    store::{ReleaseWrite, StoreError, StoredRelease},
    xds::Nodes,
};
use halftone_compiler::{Diagnostic, Release};
use halftone_telemetry::{
    current::{Current, carry, carry_from, stage},
    trace::{Span, Tracer},
};
use opentelemetry::trace::SpanKind;
use prometheus_client::metrics::histogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use work::Work;

/// Between two looks at all releases.
const TICK: Duration = Duration::from_secs(1);
/// How much longer than adding up outcomes the time until the next time is.
const PACE: u32 = 20;
/// A release that is looked after.
#[derive(Clone)]
pub struct Looked {
    /// What it is to do.
    pub spec: Arc<Spec>,
    /// The same, as it was uploaded.
    pub source: Arc<str>,
    /// Where it is.
    pub status: Arc<Status>,
    /// Why it cannot go on at the moment; it is tried again every second.
    pub trouble: Option<Arc<str>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The text has problems.
    #[error("the release has {} problems", .0.len())]
    Invalid(Vec<Diagnostic>),
    /// There is no such release.
    #[error("there is no release {0:?}")]
    NotFound(String),
    /// Where the release is does not allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It is not what it was when the client read it.
    #[error("the release is at generation {0:?}")]
    Precondition(Option<u64>),
    /// There is no number for a record.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The ruleset cannot have it, or the store does not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<StoreError> for ControllerError {
    fn from(error: StoreError) -> Self {
        Self::Publish(error.into())
    }
}

/// What was seen of the arms of a release, by name.
pub(super) type Arms = Arc<BTreeMap<String, Arm>>;

/// Looks after all releases. Cheap to clone.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    nodes: Nodes,
    ledger: Arc<Ledger>,
    gates: Gatekeeper,
    /// When it started: milliseconds since the Unix epoch.
    started_ms: u64,
    /// How long looks took, in seconds.
    looks: Histogram,
    prometheus: Reader,
    /// What was seen of each release's arms at the last look.
    arms: std::sync::Mutex<BTreeMap<String, Arms>>,
    /// Held by the one change that is under way.
    changing: Mutex<Work>,
    /// What readers see, by name. Told of every change.
    releases: watch::Sender<Arc<BTreeMap<String, Looked>>>,
}

/// What is wrong, for people who look at a release.
fn told(error: &ControllerError) -> String {
    match error {
        ControllerError::Publish(PublishError::Invalid(diagnostics)) => diagnostics.first().map_or_else(
            || error.to_string(),
            |first| format!("the ruleset cannot have it: {}", first.message),
        ),
        _ => error.to_string(),
    }
}

/// What a look came to, for its trace.
fn tell(mut verdict: Span, next: &Status, decided: &[Decided]) {
    verdict.set("halftone.phase", next.phase.name());
    for decided in decided {
        verdict.event("decided", SystemTime::now(), |event| {
            event.set("halftone.action", &format!("{:?}", decided.action).to_lowercase());
            event.set("halftone.why", &decided.why);
        });
    }
}

impl Controller {
    /// Takes up what the store holds.
    ///
    /// # Errors
    /// When a stored release would not be taken today, or the store does not answer.
    pub fn start(
        publisher: Publisher,
        nodes: Nodes,
        ledger: Arc<Ledger>,
        gates: Gatekeeper,
        prometheus: Option<Server>,
        stored: Vec<StoredRelease>,
    ) -> Result<Self, StoreError> {
        let mut releases = BTreeMap::new();
        for StoredRelease { name, source, status } in stored {
            let spec = read(&source, Some(&name)).map_err(|problems| {
                let shown = halftone_compiler::render(&name, &source, &problems);
                StoreError::Incompatible(format!(
                    "the stored release {name:?} is not valid any more:\n{shown}"
                ))
            })?;
            let looked = Looked {
                spec: Arc::new(spec),
                source: source.into(),
                status: Arc::new(status),
                trouble: None,
            };
            releases.insert(name, looked);
        }
        let newest = publisher.newest_record()?;
        Ok(Self(Arc::new(Inner {
            publisher,
            nodes,
            ledger,
            gates,
            started_ms: now_ms(),
            looks: look_histogram(),
            prometheus: Reader::new(prometheus),
            arms: std::sync::Mutex::default(),
            changing: Mutex::new(Work { last_record: newest, ..Work::default() }),
            releases: watch::Sender::new(Arc::new(releases)),
        })))
    }

    /// All releases, now and after each change.
    #[must_use]
    pub fn releases(&self) -> watch::Receiver<Arc<BTreeMap<String, Looked>>> {
        self.0.releases.subscribe()
    }

    /// A release.
    #[must_use]
    pub fn release(&self, name: &str) -> Option<Looked> {
        self.0.releases.borrow().get(name).cloned()
    }

    /// What a Prometheus server said of a release.
    #[must_use]
    pub fn readings(&self, name: &str) -> Arc<Readings> {
        self.0.prometheus.readings(name)
    }

    /// Looks at all releases once a second, for as long as it is polled. Looks are recorded by the tracer.
    pub async fn run(&self, tracer: &Tracer) {
        // By itself: a server that is slow delays no look. It ends with this.
        let mut reading = JoinSet::new();
        reading.spawn(self.0.prometheus.clone().run(self.releases()));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick_all(tracer).await;
        }
    }

    /// Looks at all releases.
    pub async fn tick_all(&self, tracer: &Tracer) {
        let names: Vec<String> = self.0.releases.borrow().keys().cloned().collect();
        for name in names {
            let trouble = self.tick(&name, tracer).await.err().map(|error| Arc::from(told(&error)));
            if self.release(&name).is_none_or(|looked| looked.trouble == trouble) {
                continue;
            }
            match &trouble {
                Some(error) => {
                    tracing::error!(release = name, %error, "a release cannot go on: it is tried again every second");
                }
                None => tracing::info!(release = name, "the release goes on again"),
            }
            self.0.releases.send_if_modified(|releases| {
                let known = Arc::make_mut(releases).get_mut(&name);
                known.map(|looked| looked.trouble = trouble).is_some()
            });
        }
        if let Err(error) = self.drop_orphans().await {
            tracing::error!(%error, "what a deleted release takes cannot be taken from it: it is tried again");
        }
    }

    /// Takes from rulesets what releases take that are gone: taking back a revision that every proxy refused can bring back
    /// what a release had before it was deleted.
    async fn drop_orphans(&self) -> Result<(), ControllerError> {
        let this = self.clone();
        let dropping = async move {
            let mut work = this.0.changing.lock().await;
            let current = this.0.publisher.current();
            for (ruleset, of) in &current.rulesets {
                let releases = this.0.releases.borrow().clone();
                let orphan = of.stored.content.releases.iter().find(|of| !releases.contains_key(&of.name));
                let Some(name) = orphan.map(|orphan| orphan.name.clone()) else { continue };
                if work.must_wait(&name) {
                    continue;
                }
                work.wait(name.clone());
                tracing::warn!(
                    ruleset,
                    release = name,
                    "a deleted release came back with a revision: it is taken out"
                );
                let change =
                    move |current: &[Release], revision: u64| (arrange(current, &name, None, revision), None);
                this.0.publisher.allocate(ruleset.clone(), "controller".to_owned(), change).await?;
            }
            Ok(())
        };
        tokio::spawn(carry(dropping)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Looks at a release. A change that began goes on when nobody waits for it.
    async fn tick(&self, name: &str, tracer: &Tracer) -> Result<(), ControllerError> {
        let looked = self.release(name).ok_or_else(|| ControllerError::NotFound(name.to_owned()))?;
        if looked.status.phase == Phase::Promoted && looked.status.settled && self.is_settled(&looked)
            || looked.status.phase.is_ended() && self.is_safe(&looked)
        {
            return Ok(());
        }
        let mut span = tracer.root("tick", SpanKind::Internal);
        span.set("halftone.release", name);
        let current = Current::of(&span);
        let (this, name) = (self.clone(), name.to_owned());
        let ticking = async move {
            let _span = span;
            let mut work = this.0.changing.lock().await;
            let Some(looked) = this.release(&name) else { return Ok(()) };
            let (begun, now_ms) = (Instant::now(), now_ms());
            let observed = this.observed(&looked.spec).await?;
            let seen = this.seen(&looked, observed.as_ref());
            let prometheus = this.readings(&name);
            this.note_arms(&looked, arms(&looked, observed.as_ref(), &prometheus));
            this.outcomes(&looked, &mut work, now_ms).await?;
            let mut history = work.histories.remove(&name).unwrap_or_default();
            history.push(now_ms, Arc::new(observed.unwrap_or_default()));
            let nothing = OutcomesByMetric::new();
            let outcomes = work.outcomes.get(&name).map_or(&nothing, |(_, known)| known);
            let current = this.0.publisher.current();
            let actual =
                current.releases_of(&looked.spec.ruleset).iter().find(|release| release.name == name);
            let answered = this.0.gates.answer(&looked.spec);
            let moment = Moment {
                known: Knowledge { history: &history, outcomes, prometheus: &prometheus, now_ms },
                actual,
                answered: answered.as_ref(),
                seen,
                started_ms: this.0.started_ms,
            };
            let verdict = stage("verdict");
            let (next, decided) = tick(&looked.spec, &looked.status, &moment);
            tell(verdict, &next, &decided);
            work.histories.insert(name.clone(), history);
            match &next.gate {
                Some(held) => this.0.gates.ask(&looked.spec, &held.question),
                None => this.0.gates.forget(&name),
            }
            // Every proxy refused to lose it, and will again for a while.
            let came_back = looked.status.phase.is_ended() && actual.is_some();
            if came_back && work.must_wait(&name) {
                return Ok(());
            }
            if came_back {
                work.wait(name);
            }
            let done = this.commit(&looked, &mut work, next, decided, "controller", now_ms).await;
            this.0.looks.observe(begun.elapsed().as_secs_f64());
            done
        };
        tokio::spawn(carry_from(current, ticking))
            .await
            .map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Whether nothing is left to do for a release that is settled.
    fn is_settled(&self, looked: &Looked) -> bool {
        let current = self.0.publisher.current();
        let actual = current.releases_of(&looked.spec.ruleset).iter().find(|of| of.name == looked.spec.name);
        actual.map(|actual| actual.epoch) == looked.status.epochs.last().map(|epoch| epoch.epoch)
    }

    /// Whether nothing is left to do for a release that ended.
    fn is_safe(&self, looked: &Looked) -> bool {
        let current = self.0.publisher.current();
        let gone = current.releases_of(&looked.spec.ruleset).iter().all(|of| of.name != looked.spec.name);
        gone && looked.status.safety.as_ref().is_none_or(|safety| safety.safe_at_ms.is_some())
    }

    async fn observed(&self, spec: &Spec) -> Result<Option<ReleaseObservations>, ControllerError> {
        let (ledger, ruleset, name) = (self.0.ledger.clone(), spec.ruleset.clone(), spec.name.clone());
        let read = tokio::task::spawn_blocking(move || ledger.release(&ruleset, &name)).await;
        Ok(read.map_err(|error| PublishError::Internal(error.to_string()))??)
    }

    /// What was reported of a release. Adding up takes time with many units: never more than a twentieth of it.
    async fn outcomes(&self, looked: &Looked, work: &mut Work, now_ms: u64) -> Result<(), ControllerError> {
        let name = looked.spec.name.clone();
        let (again, known) = work.outcomes.entry(name).or_insert_with(|| (Instant::now(), BTreeMap::new()));
        let begun = Instant::now();
        if !looked.status.phase.is_ended() && begun >= *again {
            let (ledger, spec) = (self.0.ledger.clone(), looked.spec.clone());
            let read = tokio::task::spawn_blocking(move || outcomes(&ledger, &spec, now_ms)).await;
            *known = read.map_err(|error| PublishError::Internal(error.to_string()))??;
            *again = begun + PACE * begun.elapsed();
        }
        Ok(())
    }

    fn seen(&self, looked: &Looked, observed: Option<&ReleaseObservations>) -> Seen {
        let safety = looked.status.safety.as_ref();
        Seen {
            applied_at_ms: safety.and_then(|safety| self.0.nodes.applied_at_ms(safety.revision)),
            last_seen_ms: last_seen(observed, &looked.spec),
            proxies: self.0.nodes.fleet(0).proxies,
            started_ms: self.0.started_ms,
        }
    }

    /// Puts a status in force: with the records of what was decided, and with the revision that it takes, in one
    /// transaction. For the holder of the lock.
    async fn commit(
        &self,
        looked: &Looked,
        work: &mut Work,
        mut next: Status,
        decided: Vec<Decided>,
        by: &str,
        now_ms: u64,
    ) -> Result<(), ControllerError> {
        let spec = looked.spec.clone();
        let shares = next.shares(&spec);
        let current = self.0.publisher.current();
        let actual = current.releases_of(&spec.ruleset).iter().find(|release| release.name == spec.name);
        let wanted = shares.map(|shares| allocation(&spec, &next, shares, 0));
        // A pause keeps what is there, whatever that is; unless one of several candidates is taken back meanwhile.
        let keeps =
            next.phase == Phase::Paused && decided.iter().all(|decided| decided.action != Action::Rollback);
        let moves = !keeps && !is_in_force(wanted.as_ref(), actual);
        let is_news = !decided.is_empty() || moves;
        if !is_news && remembered(&next) == remembered(&looked.status) {
            self.show(&spec.name, Some(Looked { status: Arc::new(next), ..looked.clone() }), false);
            return Ok(());
        }
        next.generation += u64::from(is_news);
        let from = looked.status.phase;
        let mut records = Vec::with_capacity(decided.len());
        for decided in decided {
            records.push(DecisionRecord {
                id: work.number(self.0.ledger.ids().next()?.get()).to_string(),
                release: spec.name.clone(),
                at_ms: now_ms,
                by: if decided.by == "controller" { by.to_owned() } else { decided.by.to_owned() },
                action: decided.action,
                why: decided.why,
                from,
                to: next.phase,
                step: next.step + 1,
                revision: None,
                time_to_safe_ms: match decided.action {
                    Action::Safe => next.safety.as_ref().and_then(|safety| safety.time_to_safe_ms),
                    _ => None,
                },
                judged: decided.judged,
            });
        }
        let source = looked.source.clone();
        let told: Vec<(Action, String)> =
            records.iter().map(|record| (record.action, record.why.clone())).collect();
        let status = if moves {
            let (done, written) = tokio::sync::oneshot::channel();
            let of = spec.clone();
            let change = move |current: &[Release], revision: u64| {
                let given = next.shares(&of).map(|shares| allocation(&of, &next, shares, revision));
                if let Some(open) = next.epochs.last_mut() {
                    open.until_ms.get_or_insert(now_ms);
                }
                match &given {
                    Some(given) => next.epochs.push(epoch_of(given, of.width(), now_ms)),
                    None => {
                        let decided_at_ms =
                            next.safety.as_ref().map_or(now_ms, |before| before.decided_at_ms);
                        next.safety = Some(Safety::begun(decided_at_ms, revision));
                    }
                }
                if let Some(last) = records.last_mut() {
                    last.revision = Some(revision);
                }
                let releases = arrange(current, &of.name, given, revision);
                let stored =
                    StoredRelease { name: of.name.clone(), source: source.to_string(), status: next.clone() };
                // Whoever waits for it is there, or is gone and needs it no more.
                let _ = done.send(next);
                (releases, Some(ReleaseWrite::Put(Box::new(stored), records)))
            };
            self.0.publisher.allocate(spec.ruleset.clone(), by.to_owned(), change).await?;
            written.await.map_err(|error| PublishError::Internal(error.to_string()))?
        } else {
            let stored =
                StoredRelease { name: spec.name.clone(), source: source.to_string(), status: next.clone() };
            self.0.publisher.note(ReleaseWrite::Put(Box::new(stored), records)).await?;
            next
        };
        for (action, why) in told {
            tracing::info!(release = spec.name, ?action, phase = status.phase.name(), by, why, "decided");
        }
        self.show(&spec.name, Some(Looked { status: Arc::new(status), ..looked.clone() }), is_news);
        Ok(())
    }

    /// Shows readers a release as it is now. `tell`: who waits for changes is told.
    fn show(&self, name: &str, looked: Option<Looked>, tell: bool) {
        self.0.releases.send_if_modified(|releases| {
            let mut next = (**releases).clone();
            match looked {
                Some(looked) => next.insert(name.to_owned(), looked),
                None => {
                    self.0.arms.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                    next.remove(name)
                }
            };
            *releases = Arc::new(next);
            tell
        });
    }

    /// What was seen of a release's arms at the last look; none of one that takes no requests.
    pub(super) fn arms(&self, name: &str) -> Arms {
        self.0.arms.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    fn note_arms(&self, looked: &Looked, seen: BTreeMap<String, Arm>) {
        let mut arms = self.0.arms.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.status.shares(&looked.spec).is_some() {
            arms.insert(looked.spec.name.clone(), Arc::new(seen));
        } else {
            arms.remove(&looked.spec.name);
        }
    }

    /// When it started: milliseconds since the Unix epoch.
    pub(super) fn started_ms(&self) -> u64 {
        self.0.started_ms
    }

    /// How long looks took, in seconds.
    pub(super) fn looks(&self) -> &Histogram {
        &self.0.looks
    }

    /// The publisher.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// The newest records of a release, or of all.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn records(
        &self,
        release: Option<String>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<String>, PublishError> {
        self.0.publisher.stored(move |store| store.records(release.as_deref(), before, limit)).await
    }

    /// The events above a number; without one, those that come from now on.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn events(&self, after: Option<u64>) -> Result<Feed, PublishError> {
        // Before the newest one is known, so that none is missed.
        let changes = self.releases();
        let after = match after {
            Some(after) => after,
            None => self.0.publisher.stored(|store| store.newest_record()).await?,
        };
        Ok(Feed::new(self.0.publisher.clone(), changes, after))
    }

    /// The events that a webhook was not told yet.
    pub(crate) async fn events_for(&self, webhook: &str) -> Result<Feed, PublishError> {
        let (changes, name) = (self.releases(), webhook.to_owned());
        let after = self.0.publisher.stored(move |store| store.delivered(&name)).await?;
        Ok(Feed::new(self.0.publisher.clone(), changes, after))
    }

    /// How many events there are above a number.
    pub(crate) async fn events_since(&self, after: u64) -> Result<u64, PublishError> {
        self.0.publisher.stored(move |store| store.count_events(after)).await
    }

    /// Notes the last event that a webhook was told.
    pub(crate) async fn delivered(&self, webhook: &str, event: u64) -> Result<(), PublishError> {
        let name = webhook.to_owned();
        self.0.publisher.stored(move |store| store.set_delivered(&name, event)).await
    }

    /// A record, as JSON.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn record(&self, id: u64) -> Result<Option<String>, PublishError> {
        self.0.publisher.stored(move |store| store.record(id)).await
    }
}

/// A status without what need not be remembered at each moment.
fn remembered(status: &Status) -> Status {
    let mut status = status.clone();
    for candidate in status.candidates.values_mut() {
        candidate.judge.elapsed_s = 0;
        candidate.verdict = None;
        candidate.judged_at_ms = None;
        candidate.silence = Silence::default();
    }
    status
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
