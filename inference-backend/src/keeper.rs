//! Keeps what is served in step with the repository: loads what is new, replaces what has changed, lets go what is gone.
//! Whatever goes wrong, the version that runs goes on.

use crate::{
    failure::Failure,
    model::{Model, Settings},
    models::Models,
    remote::Away,
    repository::{Artifact, Repository, Selection},
};
use arc_swap::ArcSwap;
use ort::environment::Environment;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long after the first try a server that was away is asked again; after each further one twice as long...
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// ...up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// State of a version that is served.
const READY: &str = "READY";
/// Why a version is not served that nobody wants.
const NOT_SELECTED: &str = "not selected";

/// What to keep.
#[derive(Debug)]
pub struct Plan {
    /// The repository.
    pub folder: PathBuf,
    /// What of it is served; everything when empty.
    pub selections: Vec<Selection>,
    /// How models are run.
    pub settings: Settings,
}

/// Keeps what is served in step with the repository.
#[derive(Debug)]
pub struct Keeper {
    environment: Environment,
    plan: Plan,
    models: Arc<Models>,
    /// Held while models are loaded, so that one thing happens at a time.
    state: Arc<Mutex<State>>,
    index: ArcSwap<Vec<IndexEntry>>,
}

/// A version in the protocol's index of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// The version.
    pub version: String,
    /// READY or UNAVAILABLE.
    pub state: &'static str,
    /// Why it is not served, or why the file that is there now is not; empty when all is well.
    pub reason: String,
}

#[derive(Debug, Default)]
struct State {
    /// By name and version.
    entries: BTreeMap<(String, String), Entry>,
    /// What each model looked like at the last look.
    seen: BTreeMap<String, Vec<Artifact>>,
    /// Models that a client unloaded.
    unloaded: BTreeSet<String>,
    /// Models that a client loaded, whether selected or not.
    loaded: BTreeSet<String>,
    /// What was wrong with the repository at the last look.
    trouble: String,
}

/// A version that is, or was to be, served.
#[derive(Debug)]
struct Entry {
    /// What was tried last.
    tried: Artifact,
    /// Why that failed.
    problem: Option<String>,
    /// What runs; of an earlier state of the files when the last try failed.
    running: Option<Arc<Model>>,
    /// When the last try failed because a server was away.
    again: Option<Again>,
}

/// When to try again what may succeed although no file changes.
#[derive(Clone, Copy, Debug)]
struct Again {
    at: Instant,
    waited: Duration,
}

impl Keeper {
    /// Loads what is there. A model whose server is away is not served until it is there.
    ///
    /// # Errors
    /// When anything else that is to be served cannot be.
    pub async fn start(environment: Environment, plan: Plan) -> anyhow::Result<Arc<Self>> {
        tokio::task::spawn_blocking(move || Self::load_all(environment, plan)).await?
    }

    fn load_all(environment: Environment, plan: Plan) -> anyhow::Result<Arc<Self>> {
        let repository = Repository::scan(&plan.folder)?;
        let mut state = State::default();
        for artifact in repository.select(&plan.selections)? {
            let loaded = Model::load(&environment, artifact.clone(), plan.settings);
            let entry = Entry::of(&artifact, loaded, None);
            if let Some(problem) = entry.problem.as_ref().filter(|_| entry.again.is_none()) {
                anyhow::bail!("{problem}");
            }
            state.entries.insert((artifact.model.clone(), artifact.version.clone()), entry);
        }
        state.seen = seen(&repository);
        let keeper = Self {
            environment,
            plan,
            models: Arc::default(),
            state: Arc::default(),
            index: ArcSwap::default(),
        };
        keeper.publish(&state, &repository);
        Ok(Arc::new(Self { state: Arc::new(Mutex::new(state)), ..keeper }))
    }

    /// What is served.
    #[must_use]
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// What the repository holds, and the state of each version.
    #[must_use]
    pub fn index(&self) -> Arc<Vec<IndexEntry>> {
        self.index.load_full()
    }

    /// Why each version that is to be served and is not is not.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let index = self.index();
        let wanted = index.iter().filter(|entry| !entry.is_ready() && entry.reason != NOT_SELECTED);
        wanted.map(|entry| entry.reason.clone()).collect()
    }

    /// Looks at the repository over and over.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            // Only a panic ends the look early; the next one begins where it left.
            let _ = self.exclusively(|keeper, state| keeper.follow(state)).await;
        }
    }

    /// Loads a model as it is now, also one that is not selected or was unloaded, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not there, or a version of it cannot be served.
    pub async fn load(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let name = name.to_owned();
        self.exclusively(move |keeper, state| {
            let repository = keeper.look()?;
            if repository.versions(&name).is_empty() {
                let there: Vec<_> = repository.names().map(|name| format!("{name:?}")).collect();
                let there = there.join(", ");
                return Err(Failure::NotFound(format!(
                    "no model {name:?} in the repository; there: {there}"
                )));
            }
            state.unloaded.remove(&name);
            state.loaded.insert(name.clone());
            keeper.update(state, &repository, &name, true);
            keeper.publish(state, &repository);
            let of_model = state.entries.iter().filter(|((model, _), _)| *model == name);
            let problems: Vec<_> = of_model.filter_map(|(_, entry)| entry.problem.clone()).collect();
            if problems.is_empty() { Ok(()) } else { Err(Failure::BadRequest(problems.join("; "))) }
        })
        .await
    }

    /// Takes a model out of service until it is loaded again; who is being answered is.
    ///
    /// # Errors
    /// When it is not served.
    pub async fn unload(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let name = name.to_owned();
        self.exclusively(move |keeper, state| {
            keeper.models.find(&name, None)?;
            let repository = keeper.look()?;
            state.loaded.remove(&name);
            state.entries.retain(|(model, _), _| *model != name);
            state.unloaded.insert(name);
            keeper.publish(state, &repository);
            Ok(())
        })
        .await
    }

    /// Does something with the state, alone and where it may take its time.
    async fn exclusively<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &mut State) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let keeper = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || work(&keeper, &mut state));
        working.await.map_err(|_| Failure::Internal("loading panicked".into()))?
    }

    fn look(&self) -> Result<Repository, Failure> {
        Repository::look(&self.plan.folder).map_err(|error| Failure::Internal(format!("{error:#}")))
    }

    /// Brings those models in step that have changed and been the same at two looks: what is being written is left
    /// alone until it is complete.
    fn follow(&self, state: &mut State) -> Result<(), Failure> {
        let repository = match self.look() {
            Ok(repository) => repository,
            Err(failure) => {
                let trouble = failure.to_string();
                if state.trouble != trouble {
                    tracing::warn!(trouble, "all models stay as they are");
                    state.trouble = trouble;
                }
                return Ok(());
            }
        };
        state.trouble.clear();
        let now = seen(&repository);
        let served = state.entries.keys().map(|(model, _)| model);
        let names: BTreeSet<String> = now.keys().chain(state.seen.keys()).chain(served).cloned().collect();
        let before = std::mem::replace(&mut state.seen, now.clone());
        for name in names.iter().filter(|name| now.get(*name) == before.get(*name)) {
            self.update(state, &repository, name, false);
        }
        self.publish(state, &repository);
        Ok(())
    }

    /// Brings one model in step. What failed is tried `again`, or else only when it has changed.
    fn update(&self, state: &mut State, repository: &Repository, name: &str, again: bool) {
        let wanted = if state.unloaded.contains(name) {
            Vec::new()
        } else if state.loaded.contains(name) {
            let mut wanted = repository.wanted(name, &self.plan.selections);
            let by_policy = repository.by_policy(name);
            wanted.extend(by_policy.into_iter().filter(|a| !self.is_selected(repository, name, a)));
            wanted
        } else {
            repository.wanted(name, &self.plan.selections)
        };
        for &artifact in &wanted {
            let key = (artifact.model.clone(), artifact.version.clone());
            if state.entries.get(&key).is_some_and(|entry| entry.is_done(artifact, again)) {
                continue;
            }
            let loaded = Model::load(&self.environment, artifact.clone(), self.plan.settings);
            let before = state.entries.remove(&key);
            state.entries.insert(key, Entry::of(artifact, loaded, before));
            // At once: others may take long.
            self.publish(state, repository);
        }
        self.let_go(state, repository, name, &wanted);
    }

    /// Lets go the versions of a model that are not wanted any more. One that is still there stays as long as one that
    /// is wanted does not run: a broken new version must not end the old one.
    fn let_go(&self, state: &mut State, repository: &Repository, name: &str, wanted: &[&Artifact]) {
        let is = |artifacts: &[&Artifact], version: &str| artifacts.iter().any(|a| a.version == version);
        let there: Vec<&Artifact> = repository.versions(name).iter().collect();
        let all_run = wanted.iter().all(|artifact| {
            let key = (artifact.model.clone(), artifact.version.clone());
            state.entries.get(&key).is_some_and(|entry| entry.running.is_some())
        });
        state.entries.retain(|(model, version), entry| {
            let stays = model != name
                || is(wanted, version)
                || (!all_run && is(&there, version) && entry.running.is_some());
            if !stays {
                tracing::info!(model = %entry.tried, "no longer served");
            }
            stays
        });
    }

    fn is_selected(&self, repository: &Repository, name: &str, artifact: &Artifact) -> bool {
        repository.wanted(name, &self.plan.selections).iter().any(|a| a.version == artifact.version)
    }

    /// Puts what runs into service, in one step, and tells what there is.
    fn publish(&self, state: &State, repository: &Repository) {
        let mut running: Vec<Arc<Model>> =
            state.entries.values().filter_map(|entry| entry.running.clone()).collect();
        running.sort_by(|a, b| {
            let by_name = a.name().cmp(b.name());
            by_name.then_with(|| crate::repository::compare_versions(a.version(), b.version()))
        });
        self.models.replace(running);
        let mut index: BTreeMap<(String, String), IndexEntry> = BTreeMap::new();
        for name in repository.names() {
            for artifact in repository.versions(name) {
                let key = (artifact.model.clone(), artifact.version.clone());
                index.insert(key.clone(), IndexEntry::of(&key, "UNAVAILABLE", NOT_SELECTED));
            }
            if state.unloaded.contains(name) {
                let of_model = index.iter_mut().filter(|((model, _), _)| model == name);
                of_model.for_each(|(_, entry)| entry.reason = "unloaded".to_owned());
            }
        }
        for (key, entry) in &state.entries {
            let ready = if entry.running.is_some() { READY } else { "UNAVAILABLE" };
            let reason = entry.problem.as_deref().unwrap_or_default();
            index.insert(key.clone(), IndexEntry::of(key, ready, reason));
        }
        self.index.store(Arc::new(index.into_values().collect()));
    }
}

impl Entry {
    /// What came of loading an artifact. When that failed, what ran before goes on.
    fn of(artifact: &Artifact, loaded: anyhow::Result<Model>, before: Option<Self>) -> Self {
        let tried = artifact.clone();
        match loaded {
            Ok(model) => {
                let replaced = before.is_some_and(|before| before.running.is_some());
                tracing::info!(model = model.label(), replaced, "ready");
                Self { tried, problem: None, running: Some(Arc::new(model)), again: None }
            }
            Err(error) => {
                let problem = format!("{error:#}");
                let waited = before.as_ref().and_then(|before| before.again).map(|again| again.waited);
                let again = error.is::<Away>().then(|| Again::after(waited));
                let known = before.as_ref().and_then(|before| before.problem.as_ref()) == Some(&problem);
                let running = before.and_then(|before| before.running);
                if !known {
                    tracing::error!(problem, still_served = running.is_some(), "cannot serve {artifact}");
                }
                Self { tried, problem: Some(problem), running, again }
            }
        }
    }

    /// Whether there is no reason to load the artifact. What failed is tried `again`, or else when it has changed, or
    /// when it is time to ask a server that was away. So is what a server has changed.
    fn is_done(&self, artifact: &Artifact, again: bool) -> bool {
        if self.tried != *artifact || (again && self.problem.is_some()) {
            return false;
        }
        let remote = self.running.as_ref().and_then(|model| model.remote());
        let has_changed = remote.is_some_and(|remote| remote.health().has_changed());
        self.again.map_or(!has_changed, |again| Instant::now() < again.at)
    }
}

impl Again {
    fn after(waited: Option<Duration>) -> Self {
        let waited = waited.map_or(FIRST_WAIT, |waited| (waited * 2).min(LONGEST_WAIT));
        Self { at: Instant::now() + waited, waited }
    }
}

impl IndexEntry {
    /// Whether it is served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == READY
    }

    fn of((name, version): &(String, String), state: &'static str, reason: &str) -> Self {
        Self { name: name.clone(), version: version.clone(), state, reason: reason.to_owned() }
    }
}

fn seen(repository: &Repository) -> BTreeMap<String, Vec<Artifact>> {
    repository.names().map(|name| (name.to_owned(), repository.versions(name).to_vec())).collect()
}
