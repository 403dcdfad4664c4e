//! What people ask of releases: to be created, replaced, commanded and deleted.

use super::{Controller, ControllerError, Looked, now_ms};
use crate::{
    precondition::Precondition,
    publisher::PublishError,
    release::{
        allocation::{allocation, arrange},
        prometheus::without_server,
        read::{read, unknown_gates},
        record::Action,
        shares::Shares,
        spec::Spec,
        status::{Command, NotAllowed, Phase, Status},
        tick::Decided,
    },
    store::ReleaseWrite,
};
use halftone_compiler::Release;
use halftone_telemetry::current::carry;
use std::sync::Arc;

/// Releases at most.
const MOST: usize = 1_000;

/// What a [`Controller::put`] led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// There was no such release.
    pub created: bool,
    /// Anything changed.
    pub changed: bool,
}

impl Controller {
    /// Reads a text as the release of this name, and looks whether its ruleset could have it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, name: &str, source: &str) -> Result<Spec, ControllerError> {
        let spec = read(source, Some(name)).map_err(ControllerError::Invalid)?;
        if !self.0.prometheus.has_server() {
            without_server(source, &spec).map_err(ControllerError::Invalid)?;
        }
        let unknown = unknown_gates(source, &spec, &self.0.gates.names());
        if !unknown.is_empty() {
            return Err(ControllerError::Invalid(unknown));
        }
        let status = Status::new(&spec, 0);
        let shares = Shares::of_step(&spec, 0);
        let (of, first) = (spec.clone(), allocation(&spec, &status, shares, 1));
        let releases = self.0.releases.borrow().clone();
        let begins = |looked: &&Looked| {
            let Looked { spec: of, status, .. } = looked;
            let waits = status.phase == Phase::Pending || status.paused_in == Some(Phase::Pending);
            of.ruleset == spec.ruleset && of.name != spec.name && waits
        };
        let others: Vec<Release> = releases
            .values()
            .filter(begins)
            .map(|looked| {
                let shares = Shares::of_step(&looked.spec, 0);
                allocation(&looked.spec, &looked.status, shares, 1)
            })
            .collect();
        self.0
            .publisher
            .could_have(spec.ruleset.clone(), move |current, revision| {
                // Those that begin in a moment are as good as there.
                let mut all = current.to_vec();
                for other in others {
                    if all.iter().all(|release| release.name != other.name) {
                        let name = other.name.clone();
                        all = arrange(&all, &name, Some(Release { epoch: revision, ..other }), revision);
                    }
                }
                let before = all.iter().find(|release| release.name == of.name);
                let given = before.cloned().unwrap_or(Release { epoch: revision, ..first });
                arrange(&all, &of.name, Some(given), revision)
            })
            .await?;
        Ok(spec)
    }

    /// Creates a release, or replaces the text of one that has not ended. The answer says whether it is new, and whether
    /// anything changed.
    ///
    /// # Errors
    /// See [`ControllerError`]; nothing has changed then.
    pub async fn put(
        &self,
        name: &str,
        source: String,
        precondition: Precondition,
        by: String,
    ) -> Result<Put, ControllerError> {
        let (this, name) = (self.clone(), name.to_owned());
        let putting = async move {
            let mut work = this.0.changing.lock().await;
            // With the lock: of two that exclude each other only the first one can be had.
            let spec = Arc::new(this.check(&name, &source).await?);
            let now_ms = now_ms();
            let before = this.release(&name);
            let generation = before.as_ref().map(|before| before.status.generation);
            if !precondition.holds(generation) {
                return Err(ControllerError::Precondition(generation));
            }
            let Some(before) = before else {
                if this.0.releases.borrow().len() >= MOST {
                    return Err(NotAllowed(format!("there are {MOST} releases already: delete some")).into());
                }
                let observed = this.observed(&spec).await?;
                // Outcomes may come before the release does.
                if observed.is_some_and(|of| !of.epochs.is_empty() || !of.series.is_empty()) {
                    let message = format!(
                        "an earlier release of the name {name:?} was observed, and what was observed must not be mixed: \
                         choose another name"
                    );
                    return Err(NotAllowed(message).into());
                }
                let status = Status::new(&spec, now_ms);
                let new =
                    Looked { spec, source: source.into(), status: Arc::new(status.clone()), trouble: None };
                let created = Decided::by_person(Action::Create, "it was created");
                this.commit(&new, &mut work, status, vec![created], &by, now_ms).await?;
                return Ok(Put { created: true, changed: true });
            };
            if *before.source == *source {
                return Ok(Put { created: false, changed: false });
            }
            before.status.may_become(&before.spec, &spec)?;
            let next = Looked { spec, source: source.into(), ..before.clone() };
            let updated = Decided::by_person(Action::Update, "its text was replaced");
            this.commit(&next, &mut work, (*before.status).clone(), vec![updated], &by, now_ms).await?;
            Ok(Put { created: false, changed: true })
        };
        tokio::spawn(carry(putting)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Does what a person wants.
    ///
    /// # Errors
    /// See [`ControllerError`]; nothing has changed then.
    pub async fn command(
        &self,
        name: &str,
        command: Command,
        why: Option<String>,
        by: String,
    ) -> Result<Looked, ControllerError> {
        let (this, name) = (self.clone(), name.to_owned());
        let commanding = async move {
            let mut work = this.0.changing.lock().await;
            let now_ms = now_ms();
            let looked = this.release(&name).ok_or_else(|| ControllerError::NotFound(name.clone()))?;
            let mut next = (*looked.status).clone();
            let why = why.unwrap_or_else(|| format!("{by} asked for {}", command.name()));
            next.command(command, &why, &looked.spec, now_ms)?;
            let decided = Decided::by_person(Action::of(command, next.phase), why);
            this.commit(&looked, &mut work, next, vec![decided], &by, now_ms).await?;
            this.release(&name).ok_or(ControllerError::NotFound(name))
        };
        tokio::spawn(carry(commanding)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Removes a release with its records. One that is promoted goes on in its ruleset until then, so its units go back
    /// to what the rules say; with `force` only.
    ///
    /// # Errors
    /// See [`ControllerError`]; nothing has changed then.
    pub async fn delete(
        &self,
        name: &str,
        precondition: Precondition,
        force: bool,
        by: String,
    ) -> Result<(), ControllerError> {
        let (this, name) = (self.clone(), name.to_owned());
        let deleting = async move {
            let mut work = this.0.changing.lock().await;
            let looked = this.release(&name).ok_or_else(|| ControllerError::NotFound(name.clone()))?;
            let generation = looked.status.generation;
            if !precondition.holds(Some(generation)) {
                return Err(ControllerError::Precondition(Some(generation)));
            }
            let phase = looked.status.phase;
            if !(phase.is_ended() || looked.status.settled) {
                let message = format!("the release is {}: abort it, or roll it back, first", phase.name());
                return Err(NotAllowed(message).into());
            }
            let current = this.0.publisher.current();
            let ruleset = looked.spec.ruleset.clone();
            let takes = current.releases_of(&ruleset).iter().any(|release| release.name == name);
            if takes && !force && !this.is_default(&looked) {
                let winner = looked.status.winner.as_deref().unwrap_or_default();
                let message = format!(
                    "its units would go back from {winner} to what the rules of {ruleset} say: name {winner} there as the \
                     `default` first, or delete it with `force=true`"
                );
                return Err(NotAllowed(message).into());
            }
            let write = ReleaseWrite::Delete(name.clone());
            if takes {
                let of = name.clone();
                let change =
                    move |current: &[Release], revision| (arrange(current, &of, None, revision), Some(write));
                this.0.publisher.allocate(ruleset, by, change).await?;
            } else {
                this.0.publisher.note(write).await?;
            }
            work.outcomes.remove(&name);
            work.histories.remove(&name);
            this.show(&name, None, true);
            Ok(())
        };
        tokio::spawn(carry(deleting)).await.map_err(|error| PublishError::Internal(error.to_string()))?
    }

    /// Whether the ruleset sends to the promoted candidate by itself, as far as its default says.
    fn is_default(&self, looked: &Looked) -> bool {
        let current = self.0.publisher.current();
        let default = current.rulesets.get(&looked.spec.ruleset).and_then(|ruleset| {
            let compiled = &ruleset.compiled.ruleset;
            compiled.targets.get(usize::from(compiled.default))
        });
        default == looked.status.winner.as_ref()
    }
}
