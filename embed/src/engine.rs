//! The rules in force, and what replaces them.

use crate::{
    Change, Event, Events, LoadError, Rules,
    content::{Loaded, MAX_BYTES},
    event,
};
use arc_swap::ArcSwap;
use halftone_rules::{Bundle, VerifiedBundle};
use nix::fcntl::OFlag;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Decides by the rules in force, which can be replaced at any time. A clone is another handle to the same rules.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    rules: ArcSwap<Loaded>,
    /// Held while rules are swapped, so that events come in the order of the swaps. Readers never ask for it.
    swapping: Mutex<()>,
    events: broadcast::Sender<Event>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine without rules, at revision 0: no ruleset governs anything until rules are loaded.
    #[must_use]
    pub fn new() -> Self {
        // A bundle of nothing breaks no invariant.
        let bundle = VerifiedBundle::new(Bundle::new(0, Vec::new())).expect("an empty bundle is valid");
        Self::with(Loaded { bundle, fingerprint: None })
    }

    /// An engine with the rules of a bundle, as `halftone compile` and the control plane make it.
    ///
    /// # Errors
    /// When the bytes are not a bundle that this version can run.
    pub fn from_bundle(bytes: &[u8]) -> Result<Self, LoadError> {
        Loaded::bundle(bytes).map(Self::with)
    }

    /// An engine with one ruleset (YAML or JSON), at revision 1. `name` is for a ruleset that does not name itself.
    ///
    /// # Errors
    /// When the ruleset does not compile; the error has all problems with their places.
    pub fn from_ruleset(text: &str, name: &str) -> Result<Self, LoadError> {
        Loaded::ruleset(text, name, 1).map(Self::with)
    }

    /// An engine with what is in a file: a bundle or a ruleset. A ruleset that does not name itself is called as the
    /// file is, without the extension.
    ///
    /// # Errors
    /// When the file cannot be read, or as [`from_bundle`](Self::from_bundle) and
    /// [`from_ruleset`](Self::from_ruleset).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|error| LoadError::Read { path: path.into(), error })?;
        Loaded::read(&bytes, &ruleset_name(path), 1).map(Self::with)
    }

    fn with(loaded: Loaded) -> Self {
        Self(Arc::new(Inner {
            rules: ArcSwap::from_pointee(loaded),
            swapping: Mutex::new(()),
            events: event::channel(),
        }))
    }

    /// The rules in force. Never waits, whatever else happens to the engine, and does not allocate.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules(self.0.rules.load())
    }

    /// Puts the rules of a bundle in force; `None` when they are already.
    ///
    /// The bundle need not have a greater revision than the one before: which is the newest is for its source to
    /// say.
    ///
    /// # Errors
    /// As [`from_bundle`](Self::from_bundle). Nothing has changed then.
    pub fn replace_bundle(&self, bytes: &[u8]) -> Result<Option<Change>, LoadError> {
        Loaded::bundle(bytes).map(|loaded| self.swap(loaded))
    }

    /// Puts one ruleset (YAML or JSON) in force, in place of all there was; `None` when it is already. Its revision
    /// is one more than that in force when it is compiled.
    ///
    /// # Errors
    /// As [`from_ruleset`](Self::from_ruleset). Nothing has changed then.
    pub fn replace_ruleset(&self, text: &str, name: &str) -> Result<Option<Change>, LoadError> {
        Loaded::ruleset(text, name, self.next_revision()).map(|loaded| self.swap(loaded))
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(self.0.events.subscribe())
    }

    /// The revision of a ruleset that is to replace the rules in force.
    pub(crate) fn next_revision(&self) -> u64 {
        self.rules().revision().saturating_add(1)
    }

    pub(crate) fn swap(&self, loaded: Loaded) -> Option<Change> {
        // A panic elsewhere leaves nothing half done that the lock would protect.
        let _swapping = self.0.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.rules();
        if before.0.fingerprint.is_some() && before.0.fingerprint == loaded.fingerprint {
            return None;
        }
        let change = Change { revision: loaded.bundle.bundle().revision, previous: before.revision() };
        self.0.rules.store(Arc::new(loaded));
        self.tell(Event::Changed(change));
        Some(change)
    }

    pub(crate) fn tell(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.0.events.send(event);
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("rules", &self.rules()).finish_non_exhaustive()
    }
}

/// The bytes of a file, if it is one and not larger than anything that can be loaded.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for somebody to write to it.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        let problem = format!("it has more than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// The name of a ruleset that does not name itself.
pub(crate) fn ruleset_name(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
