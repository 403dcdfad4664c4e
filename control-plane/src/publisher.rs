//! What a change goes through: compile, link, prove, keep, publish. In that order, and all or nothing.

pub use crate::precondition::Precondition;
use crate::{
    gate::{Gate, GateError},
    node_clusters::{Audience, PerNodeCluster},
    published_names::PublishedNames,
    store::{Action, Content, ReleaseWrite, Revision, Store, StoreError, StoredRelease, StoredRuleset},
    xds::{ProxySettings, Resources, RulesetRoutes, Snapshot, SnapshotError, plugin_configuration},
};
use halftone_compiler::{
    Compiled, Diagnostic, LinkError, Release, compile_released, limits::MAX_NODE_CLUSTERS, link,
};
use halftone_rules::codec::{self, BundleError};
use halftone_telemetry::current::{self, carry, carry_work, stage};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Mutex, Semaphore, watch};

/// A ruleset in force.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// As it was uploaded, and since when it is in force.
    pub stored: StoredRuleset,
    /// What became of it.
    pub compiled: Arc<Compiled>,
}

/// Everything that is in force.
#[derive(Clone, Debug)]
pub struct Current {
    /// The newest revision.
    pub revision: u64,
    /// For each proxy the newest change that is more to it than another number of the revision; newest first. No proxy
    /// is concerned by two of them.
    pub newest: Vec<Concern>,
    /// By name.
    pub rulesets: BTreeMap<String, Ruleset>,
    /// Rulesets as they were before they changed, newest first: the last few.
    pub lately: Vec<RulesetRoutes>,
}

/// A change, and the proxies for which it changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// The revision that it made.
    pub revision: u64,
    /// The proxies.
    pub audience: Audience,
}

/// The bundle in force.
#[derive(Clone, Debug)]
pub struct PublishedBundle {
    /// The revision that it holds.
    pub revision: u64,
    /// As proxies read it.
    pub bytes: Arc<[u8]>,
}

/// What a change led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The revision in which the ruleset is in force as asked.
    pub revision: u64,
    /// Whether the ruleset did not exist before.
    pub created: bool,
    /// Whether there was anything to change.
    pub changed: bool,
    /// What compiles, but will surprise.
    pub warnings: Vec<Diagnostic>,
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The ruleset has problems.
    #[error("the ruleset has {} problems", .0.len())]
    Invalid(Vec<Diagnostic>),
    /// It does not fit to the others.
    #[error(transparent)]
    Overlap(#[from] LinkError),
    /// They are for too many clusters of proxies.
    #[error(
        "the rulesets name {0} clusters of proxies in `match.node_clusters`, but at most {MAX_NODE_CLUSTERS} are allowed: join some, or tell them apart by an attribute"
    )]
    TooManyNodeClusters(usize),
    /// All rulesets together are too large for a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A proxy would not take it.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// It cannot become routes and clusters.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// There is no such ruleset.
    #[error("there is no ruleset {0:?}")]
    NotFound(String),
    /// The precondition does not hold.
    #[error("the ruleset is in force since revision {0:?}")]
    Precondition(Option<u64>),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Releases run in the ruleset.
    #[error("releases take requests of the ruleset: {}; abort or delete them first", .0.join(", "))]
    HasReleases(Vec<String>),
    /// Too many others wait for the same.
    #[error("too many rulesets are being checked")]
    Busy,
    /// The work was cut off, by a defect of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// So many earlier forms of rulesets are known. A proxy that was away for longer has targets' clusters of which only their
/// names are.
const LATELY: usize = 8;
/// So many revisions are searched for them after a restart: those of releases have none.
const LOOKED_BACK: usize = 256;
/// So many changes are watched that are not the newest one, each of other proxies.
const WATCHED: usize = 64;

/// Rulesets that are checked at the same time without being published. Everybody may ask for that, and a large one takes
/// a core for seconds and hundreds of megabytes.
const CHECKS: usize = 2;
/// Those and the ones that wait for their turn.
const CHECKS_ACCEPTED: usize = 32;

/// For how long the store counts as well after it was tried: everybody may ask, and each trial waits for the disk.
const TRIED: Duration = Duration::from_secs(1);

/// Owns what is in force. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    gate: Gate,
    settings: ProxySettings,
    resources: watch::Sender<Arc<PerNodeCluster<Arc<Resources>>>>,
    /// Held by the one change that is under way.
    changing: Mutex<()>,
    /// Held by those that [`Publisher::validate`] works for.
    checking: Arc<Semaphore>,
    /// Held by those that it has accepted.
    accepted: Semaphore,
    /// When the store was last seen to be well, unless it failed since.
    store_well: std::sync::Mutex<Option<Instant>>,
    current: watch::Sender<Arc<Current>>,
    bundles: watch::Sender<Arc<PerNodeCluster<PublishedBundle>>>,
    names: Arc<PublishedNames>,
}

/// A state that passed every check.
struct Proven {
    current: Current,
    bundles: PerNodeCluster<PublishedBundle>,
    resources: PerNodeCluster<Arc<Resources>>,
}

impl Publisher {
    /// Takes up what the store holds and publishes it. The releases are for whoever looks after them. Blocks.
    ///
    /// # Errors
    /// When the store does not answer, or holds what would not be published today.
    pub fn start(
        store: Arc<dyn Store>,
        gate: Gate,
        settings: ProxySettings,
    ) -> Result<(Self, Vec<StoredRelease>), PublishError> {
        let state = store.load()?;
        let mut current = Current {
            revision: state.revision,
            newest: vec![Concern { revision: state.revision, audience: Audience::All }],
            rulesets: BTreeMap::new(),
            lately: lately(&*store)?,
        };
        for stored in state.rulesets {
            let compiled = compiled(&stored.name, &stored.content).map_err(|error| match error {
                PublishError::Invalid(diagnostics) => {
                    let text = halftone_compiler::render(&stored.name, &stored.content.source, &diagnostics);
                    PublishError::Internal(format!(
                        "the stored ruleset {:?} does not compile:\n{text}",
                        stored.name
                    ))
                }
                other => other,
            })?;
            current.rulesets.insert(stored.name.clone(), Ruleset { stored, compiled });
        }
        let proven = prove(current, &gate, &settings)?;
        let names = Arc::new(PublishedNames::default());
        proven.current.name(&names);
        let publisher = Self(Arc::new(Inner {
            store,
            gate,
            settings,
            resources: watch::Sender::new(Arc::new(proven.resources)),
            changing: Mutex::new(()),
            checking: Arc::new(Semaphore::new(CHECKS)),
            accepted: Semaphore::new(CHECKS_ACCEPTED),
            store_well: std::sync::Mutex::default(),
            current: watch::Sender::new(Arc::new(proven.current)),
            bundles: watch::Sender::new(Arc::new(proven.bundles)),
            names,
        }));
        Ok((publisher, state.releases))
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.0.current.borrow().clone()
    }

    /// What proxies are to have, now and after each change.
    #[must_use]
    pub fn resources(&self) -> watch::Receiver<Arc<PerNodeCluster<Arc<Resources>>>> {
        self.0.resources.subscribe()
    }

    /// The bundles in force, now and after each change.
    #[must_use]
    pub fn bundles(&self) -> watch::Receiver<Arc<PerNodeCluster<PublishedBundle>>> {
        self.0.bundles.subscribe()
    }

    /// The names in all that was in force lately.
    #[must_use]
    pub fn names(&self) -> Arc<PublishedNames> {
        Arc::clone(&self.0.names)
    }

    /// Creates or replaces a ruleset.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing has changed then.
    pub async fn put(
        &self,
        name: &str,
        source: String,
        precondition: Precondition,
        actor: String,
    ) -> Result<Published, PublishError> {
        self.change(name, Some(source), precondition, actor).await
    }

    /// Removes a ruleset.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing has changed then.
    pub async fn delete(
        &self,
        name: &str,
        precondition: Precondition,
        actor: String,
    ) -> Result<Published, PublishError> {
        self.change(name, None, precondition, actor).await
    }

    /// Does all that [`Self::put`] does but keep and publish.
    ///
    /// # Errors
    /// Those that [`Self::put`] would have, and [`PublishError::Busy`].
    pub async fn validate(&self, name: &str, source: String) -> Result<Arc<Compiled>, PublishError> {
        let _accepted = self.0.accepted.try_acquire().map_err(|_| PublishError::Busy)?;
        let turn = self.0.checking.clone().acquire_owned().await.map_err(|_| PublishError::Busy)?;
        let (this, name) = (self.clone(), name.to_owned());
        let current = self.current();
        blocking(move || {
            // The work does not end when the one who asked goes away.
            let _turn = turn;
            let content = Content { source, releases: current.releases_of(&name).to_vec() };
            let compiled = compiled(&name, &content)?;
            let next = with(&current, &name, Some((content, compiled.clone())));
            prove(next, &this.0.gate, &this.0.settings)?;
            Ok(compiled)
        })
        .await
    }

    /// Takes back all changes after the revision `good` that concern the same proxies as `refused`, when that is the
    /// newest one for them; the answer is the revision that resulted. `None` when it is not the newest any more, or is a
    /// rollback itself: taking that back would bring back what was refused before.
    ///
    /// # Errors
    /// When the store does not answer, or holds what would not be published today.
    pub async fn roll_back(&self, refused: u64, good: u64) -> Result<Option<u64>, PublishError> {
        let this = self.clone();
        let rollback = async move {
            let _changing = this.0.changing.lock().await;
            let publisher = this.clone();
            blocking(move || publisher.undo(refused, good)).await
        };
        tokio::spawn(carry(rollback)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// For the holder of the lock. Change by change, newest first: each state on the way has been in force, so the
    /// store can be left with any of them.
    fn undo(&self, refused: u64, good: u64) -> Result<Option<u64>, PublishError> {
        let mut current = self.current();
        let newest = current.newest.iter().find(|newest| newest.revision == refused);
        let Some(refusing) = newest.map(|newest| newest.audience.clone()) else { return Ok(None) };
        let count = usize::try_from(refused.saturating_sub(good)).unwrap_or(usize::MAX);
        // What came after it concerns none of them.
        let undone = self.0.store.revisions(refused.checked_add(1), count)?;
        if undone.first().is_none_or(|newest| newest.action == Action::Rollback) {
            return Ok(None);
        }
        // What was taken back already needs nothing, and neither does what took it back: otherwise tries that are refused
        // again and again would have ever more to take back.
        let taken_back: BTreeSet<u64> = undone.iter().filter_map(|revision| revision.undoes).collect();
        let mut last = None;
        for Revision { revision, ruleset, action, .. } in undone {
            if action == Action::Rollback || taken_back.contains(&revision) {
                continue;
            }
            let before = match self.0.store.content_before(&ruleset, revision)? {
                Some(content) => {
                    let compiled = compiled(&ruleset, &content)?;
                    Some((content, compiled))
                }
                None => None,
            };
            let next = with(&current, &ruleset, before);
            if !next.newest.first().is_some_and(|undo| undo.audience.meets(&refusing)) {
                // Others may have taken it, and those who refused never saw it.
                continue;
            }
            let proven = prove(next, &self.0.gate, &self.0.settings)?;
            let actor = "control-plane".to_owned();
            let change = Change { action: Action::Rollback, ruleset, actor, undoes: Some(revision) };
            let kept = self.keep(&proven, change, None)?;
            current = Arc::new(proven.current.clone());
            last = Some((proven, kept));
        }
        Ok(last.map(|(proven, revision)| {
            self.publish(proven, &revision);
            revision.revision
        }))
    }

    /// The newest revisions below `before`, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revisions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Revision>, PublishError> {
        let store = self.0.store.clone();
        blocking(move || Ok(store.revisions(before, limit)?)).await
    }

    /// Whether changes can be kept.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub async fn ready(&self) -> Result<(), PublishError> {
        let this = self.clone();
        blocking(move || {
            let well = *this.store_well();
            if well.is_none_or(|at| at.elapsed() >= TRIED) {
                let checked = this.0.store.check();
                *this.store_well() = checked.is_ok().then(Instant::now);
                checked?;
            }
            Ok(())
        })
        .await
    }

    fn store_well(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.store_well.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a proven state into the store.
    fn keep(
        &self,
        proven: &Proven,
        change: Change,
        release: Option<&ReleaseWrite>,
    ) -> Result<Revision, PublishError> {
        let Change { action, ruleset, actor, undoes } = change;
        let bundle = proven.bundles.others();
        let content_hash = codec::stored_content_hash(&bundle.bytes).unwrap_or_default();
        let revision = Revision {
            revision: proven.current.revision,
            created_at_ms: now_ms(),
            action,
            ruleset,
            actor,
            undoes,
            content_hash: format!("{content_hash:016x}"),
            bundle_bytes: bundle.bytes.len() as u64,
        };
        let content = proven.current.rulesets.get(&revision.ruleset).map(|ruleset| &ruleset.stored.content);
        let span = stage("keep");
        let kept = self.0.store.commit(&revision, content, release);
        drop(span);
        *self.store_well() = kept.is_ok().then(Instant::now);
        kept?;
        Ok(revision)
    }

    /// Puts a state that was kept in force.
    fn publish(&self, proven: Proven, revision: &Revision) {
        let mut span = stage("publish");
        span.set("halftone.revision", whole(revision.revision));
        span.set("halftone.ruleset", &revision.ruleset);
        span.set("halftone.action", &format!("{:?}", revision.action).to_lowercase());
        if let Some(publication) = current::Current::of(&span) {
            proven.resources.each(|resources| resources.published_in(publication.clone()));
        }
        proven.current.name(&self.0.names);
        self.0.current.send_replace(Arc::new(proven.current));
        self.0.resources.send_replace(Arc::new(proven.resources));
        self.0.bundles.send_replace(Arc::new(proven.bundles));
        tracing::info!(
            revision = revision.revision,
            ruleset = revision.ruleset,
            action = ?revision.action,
            actor = revision.actor,
            "published"
        );
    }

    /// The change goes on when whoever asked for it goes away: it has its own task.
    async fn change(
        &self,
        name: &str,
        source: Option<String>,
        precondition: Precondition,
        actor: String,
    ) -> Result<Published, PublishError> {
        let (this, name) = (self.clone(), name.to_owned());
        let change = async move {
            let current = this.current();
            let (given, name) = blocking(move || {
                let given = source.map(|source| {
                    let content = Content { source, releases: current.releases_of(&name).to_vec() };
                    let compiled = compiled(&name, &content)?;
                    Ok::<_, PublishError>((content, compiled))
                });
                Ok((given.transpose()?, name))
            })
            .await?;
            let _changing = this.0.changing.lock().await;
            this.apply(name, given, precondition, actor).await
        };
        tokio::spawn(carry(change)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Changes what releases take of a ruleset, and keeps what changes of a release in the same transaction. `change` is
    /// told what they take and which revision this will be. The answer is the revision.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing has changed then.
    pub(crate) async fn allocate(
        &self,
        ruleset: String,
        actor: String,
        change: impl FnOnce(&[Release], u64) -> (Vec<Release>, Option<ReleaseWrite>) + Send + 'static,
    ) -> Result<u64, PublishError> {
        let this = self.clone();
        let allocation = async move {
            let _changing = this.0.changing.lock().await;
            let publisher = this.clone();
            blocking(move || {
                let current = publisher.current();
                let Some(before) = current.rulesets.get(&ruleset) else {
                    return Err(PublishError::NotFound(ruleset));
                };
                let (releases, write) = change(&before.stored.content.releases, current.revision + 1);
                let content = Content { source: before.stored.content.source.clone(), releases };
                let compiled = compiled(&ruleset, &content)?;
                let next = with(&current, &ruleset, Some((content, compiled)));
                let proven = prove(next, &publisher.0.gate, &publisher.0.settings)?;
                let change = Change { action: Action::Release, ruleset, actor, undoes: None };
                let revision = publisher.keep(&proven, change, write.as_ref())?;
                publisher.publish(proven, &revision);
                Ok(revision.revision)
            })
            .await
        };
        tokio::spawn(carry(allocation)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Whether a ruleset could have these releases: all that [`Self::allocate`] does but keep and publish.
    ///
    /// # Errors
    /// Those that [`Self::allocate`] would have.
    pub(crate) async fn could_have(
        &self,
        ruleset: String,
        change: impl FnOnce(&[Release], u64) -> Vec<Release> + Send + 'static,
    ) -> Result<(), PublishError> {
        let this = self.clone();
        blocking(move || {
            let current = this.current();
            let Some(before) = current.rulesets.get(&ruleset) else {
                return Err(PublishError::NotFound(ruleset));
            };
            let stored = &before.stored.content;
            let releases = change(&stored.releases, current.revision + 1);
            let content = Content { source: stored.source.clone(), releases };
            let compiled = compiled(&ruleset, &content)?;
            prove(with(&current, &ruleset, Some((content, compiled))), &this.0.gate, &this.0.settings)?;
            Ok(())
        })
        .await
    }

    /// Keeps what changes of a release without changing what it takes.
    ///
    /// # Errors
    /// When the store does not take it.
    pub(crate) async fn note(&self, write: ReleaseWrite) -> Result<(), PublishError> {
        let this = self.clone();
        blocking(move || Ok(this.0.store.note(&write)?)).await
    }

    /// The number of the newest decision record; 0 when there is none. Blocks.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) fn newest_record(&self) -> Result<u64, StoreError> {
        self.0.store.newest_record()
    }

    /// Asks the store.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PublishError> {
        let store = self.0.store.clone();
        blocking(move || Ok(ask(&*store)?)).await
    }

    /// For the holder of the lock.
    async fn apply(
        &self,
        name: String,
        given: Option<(Content, Arc<Compiled>)>,
        precondition: Precondition,
        actor: String,
    ) -> Result<Published, PublishError> {
        let current = self.current();
        let before = current.rulesets.get(&name);
        let since = before.map(|ruleset| ruleset.stored.revision);
        if !precondition.holds(since) {
            return Err(PublishError::Precondition(since));
        }
        match (before, &given) {
            (None, None) => return Err(PublishError::NotFound(name)),
            (Some(before), None) if !before.stored.content.releases.is_empty() => {
                let names = before.stored.content.releases.iter().map(|release| release.name.clone());
                return Err(PublishError::HasReleases(names.collect()));
            }
            (Some(before), Some((content, _))) if before.stored.content.source == content.source => {
                let warnings = before.compiled.warnings.clone();
                return Ok(Published {
                    revision: before.stored.revision,
                    created: false,
                    changed: false,
                    warnings,
                });
            }
            _ => {}
        }
        let created = before.is_none();
        let this = self.clone();
        blocking(move || {
            let action = if given.is_some() { Action::Put } else { Action::Delete };
            let given = match given {
                Some((Content { source, .. }, _)) if !current.releases_of(&name).is_empty() => {
                    // It may have been compiled beside what releases took a moment ago.
                    let mut content = Content { source, releases: current.releases_of(&name).to_vec() };
                    let mut after = compiled(&name, &content)?;
                    let before = current.rulesets.get(&name);
                    if before.is_none_or(|before| before.compiled.ruleset != after.ruleset) {
                        // Other rules may give a release other units: what was observed before is not added to that.
                        let releases = content.releases.iter_mut();
                        releases.for_each(|release| release.epoch = current.revision + 1);
                        after = compiled(&name, &content)?;
                    }
                    Some((content, after))
                }
                given => given,
            };
            let proven = prove(with(&current, &name, given), &this.0.gate, &this.0.settings)?;
            let revision = this.keep(&proven, Change { action, ruleset: name, actor, undoes: None }, None)?;
            let ruleset = proven.current.rulesets.get(&revision.ruleset);
            let warnings = ruleset.map(|ruleset| ruleset.compiled.warnings.clone()).unwrap_or_default();
            this.publish(proven, &revision);
            Ok(Published { revision: revision.revision, created, changed: true, warnings })
        })
        .await
    }
}

impl Current {
    /// Tells which names it has.
    fn name(&self, names: &PublishedNames) {
        names.add(self.revision, self.rulesets.values().map(|ruleset| &ruleset.compiled.ruleset));
    }

    /// What releases take of a ruleset.
    pub(crate) fn releases_of(&self, ruleset: &str) -> &[Release] {
        self.rulesets.get(ruleset).map_or(&[], |ruleset| &ruleset.stored.content.releases)
    }
}

/// What becomes of a ruleset.
fn compiled(name: &str, content: &Content) -> Result<Arc<Compiled>, PublishError> {
    let mut span = stage("compile");
    span.set("halftone.ruleset", name);
    let compiled = compile_released(&content.source, name, &content.releases);
    if let Err(diagnostics) = &compiled {
        span.fail("invalid_ruleset", diagnostics.first().map_or("", |first| &first.message));
    }
    compiled.map(Arc::new).map_err(PublishError::Invalid)
}

/// What the store is to know of a change besides its outcome.
struct Change {
    action: Action,
    ruleset: String,
    actor: String,
    undoes: Option<u64>,
}

/// The state after `current` in which the ruleset is as given, or gone.
fn with(current: &Current, name: &str, ruleset: Option<(Content, Arc<Compiled>)>) -> Current {
    let audience = |compiled: &Compiled| Audience::of_ruleset(&compiled.node_clusters);
    let before = current.rulesets.get(name).map(|ruleset| audience(&ruleset.compiled));
    let after = ruleset.as_ref().map(|(_, compiled)| audience(compiled));
    let concern = Concern {
        revision: current.revision + 1,
        audience: before.into_iter().chain(after).reduce(Audience::and).unwrap_or(Audience::All),
    };
    let mut next = Current { revision: concern.revision, ..current.clone() };
    next.newest.retain(|older| !older.audience.meets(&concern.audience));
    next.newest.insert(0, concern);
    next.newest.truncate(WATCHED);
    let after = ruleset.as_ref().map(|(content, _)| content.source.clone());
    // What releases take changes no cluster and no route.
    if let Some(before) = current.rulesets.get(name)
        && after.as_ref() != Some(&before.stored.content.source)
    {
        next.lately.insert(0, routes(before));
        next.lately.truncate(LATELY);
    }
    match ruleset {
        Some((content, compiled)) => {
            let before = current.rulesets.get(name).map(|ruleset| &ruleset.stored);
            let same = before.filter(|before| before.content.source == content.source);
            let revision = same.map_or(next.revision, |before| before.revision);
            let stored = StoredRuleset { name: name.into(), content, revision };
            next.rulesets.insert(name.into(), Ruleset { stored, compiled });
        }
        None => {
            next.rulesets.remove(name);
        }
    }
    next
}

/// Everything that can be known to be wrong before a proxy is told.
fn prove(current: Current, gate: &Gate, settings: &ProxySettings) -> Result<Proven, PublishError> {
    let named: BTreeSet<&str> = current
        .rulesets
        .values()
        .flat_map(|ruleset| &ruleset.compiled.node_clusters)
        .map(String::as_str)
        .collect();
    if named.len() > MAX_NODE_CLUSTERS {
        return Err(PublishError::TooManyNodeClusters(named.len()));
    }
    let mut span = stage("prove");
    span.set("halftone.revision", whole(current.revision));
    let both = PerNodeCluster::make(named, |cluster| prove_for(cluster, &current, gate, settings))?;
    let bundles = both.map(|(bundle, _)| bundle.clone());
    let resources = both.map(|(_, resources)| resources.clone());
    Ok(Proven { current, bundles, resources })
}

/// The same for the proxies of one cluster; `None` stands for all clusters that no ruleset names.
fn prove_for(
    node_cluster: Option<&str>,
    current: &Current,
    gate: &Gate,
    settings: &ProxySettings,
) -> Result<(PublishedBundle, Arc<Resources>), PublishError> {
    let rulesets = || current.rulesets.values().filter(|ruleset| ruleset.compiled.is_for(node_cluster));
    let bundle = link(current.revision, rulesets().map(|ruleset| &*ruleset.compiled))?;
    let bytes: Arc<[u8]> = codec::encode(&bundle)?.into();
    gate.check(&plugin_configuration(&bytes, settings))?;
    let snapshot = Snapshot {
        revision: current.revision,
        bundle: bytes.clone(),
        rulesets: rulesets().map(routes).collect(),
        lately: current.lately.clone(),
    };
    let resources = Arc::new(Resources::build(&snapshot, settings)?);
    Ok((PublishedBundle { revision: current.revision, bytes }, resources))
}

fn routes(ruleset: &Ruleset) -> RulesetRoutes {
    routes_of(&ruleset.compiled)
}

fn routes_of(compiled: &Compiled) -> RulesetRoutes {
    RulesetRoutes {
        name: compiled.ruleset.name.clone(),
        default: compiled.ruleset.targets.get(usize::from(compiled.ruleset.default)).cloned(),
        targets: compiled.targets.clone(),
    }
}

/// The forms that rulesets had before the last changes, newest first.
fn lately(store: &dyn Store) -> Result<Vec<RulesetRoutes>, StoreError> {
    let mut lately = Vec::new();
    for Revision { revision, ruleset, .. } in store.revisions(None, LOOKED_BACK)? {
        let before = store.content_before(&ruleset, revision)?;
        let after = store.content_before(&ruleset, revision.saturating_add(1))?;
        let source = |content: &Option<Content>| content.as_ref().map(|content| content.source.clone());
        if source(&before) == source(&after) {
            continue;
        }
        // One that an earlier build took and this one does not is as good as forgotten.
        let before = before.map(|content| compiled(&ruleset, &content));
        lately.extend(before.and_then(Result::ok).map(|compiled| routes_of(&compiled)));
        if lately.len() == LATELY {
            break;
        }
    }
    Ok(lately)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(carry_work(work))
        .await
        .map_err(|error| PublishError::Internal(error.to_string()))?
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SqliteStore, State};

    fn content(text: &str) -> (Content, Arc<Compiled>) {
        let content = Content { source: text.to_owned(), releases: Vec::new() };
        let compiled = compiled("digits", &content).unwrap();
        (content, compiled)
    }

    fn ruleset(target: &str, node_clusters: &str) -> String {
        format!(
            "version: v1\nmatch: {{node_clusters: [{node_clusters}]}}\ntargets: {{{target}: {{endpoints: \
             [\"127.0.0.1:9\"], protocol: http2}}}}\ndefault: {target}\nrules: []\n"
        )
    }

    fn nothing() -> Current {
        let newest = vec![Concern { revision: 0, audience: Audience::All }];
        Current { revision: 0, newest, rulesets: BTreeMap::new(), lately: Vec::new() }
    }

    #[test]
    fn the_newest_change_of_each_proxy_is_watched() {
        let of = |revision, cluster: &str| Concern {
            revision,
            audience: Audience::of_ruleset(&BTreeSet::from([cluster.to_owned()])),
        };
        let put = |current: &Current, name: &str, cluster: &str| {
            with(current, name, Some(content(&ruleset("v1", cluster))))
        };
        let first = put(&nothing(), "european", "eu");
        assert_eq!(first.newest, [of(1, "eu")], "what there was before concerned those, too");
        let second = put(&first, "american", "us");
        assert_eq!(second.newest, [of(2, "us"), of(1, "eu")]);
        let third = put(&second, "european", "eu");
        assert_eq!(third.newest, [of(3, "eu"), of(2, "us")]);
        let all = with(&third, "shared", Some(content("version: v1\nrules: []\n")));
        assert_eq!(all.newest, [Concern { revision: 4, audience: Audience::All }]);
    }

    #[test]
    fn what_rulesets_were_before_is_known_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("halftone.db")).unwrap();
        let mut current = nothing();
        for target in ["old", "older", "new"] {
            current = with(&current, "digits", Some(content(&ruleset(target, "eu"))));
            let revision = Revision {
                revision: current.revision,
                created_at_ms: 0,
                action: Action::Put,
                ruleset: "digits".into(),
                actor: String::new(),
                undoes: None,
                content_hash: String::new(),
                bundle_bytes: 0,
            };
            store.commit(&revision, Some(&content(&ruleset(target, "eu")).0), None).unwrap();
        }
        assert_ne!(store.load().unwrap(), State::default());
        let names: Vec<&str> = current.lately.iter().map(|routes| &*routes.targets[0].name).collect();
        assert_eq!(names, ["older", "old"]);
        assert_eq!(lately(&store).unwrap(), current.lately);
    }
}
