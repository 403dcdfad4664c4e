//! What lives between callbacks: applied configurations and streams.

use crate::{
    configuration::{self, Settings},
    host::{self, HeaderMap, LogLevel},
    stamp::{self, Stamped},
};
use halftone_rules::{VerifiedBundle, headers::TARGET};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// Number that the host gives a context.
pub(crate) type ContextId = u32;

/// One applied configuration. Envoy makes a new one for each update in the same VM, so the rules live
/// here and not in a global.
#[derive(Default)]
pub(crate) struct Root {
    pub(crate) settings: Rc<Settings>,
    pub(crate) bundle: Option<Rc<VerifiedBundle>>,
    #[cfg(feature = "envoy")]
    pub(crate) upkeep: crate::upkeep::Upkeep,
}

/// One request and its response.
struct Stream {
    root: ContextId,
    stamped: Option<Stamped>,
}

#[derive(Default)]
struct Contexts {
    roots: BTreeMap<ContextId, Root>,
    streams: HashMap<ContextId, Stream, ahash::RandomState>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// `None` when a callback runs inside of another one, which no host does.
fn with<T>(f: impl FnOnce(&mut Contexts) -> T) -> Option<T> {
    CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok().map(|mut contexts| f(&mut contexts)))
}

/// Works on a configuration that still exists.
#[cfg(feature = "envoy")]
pub(crate) fn with_root<T>(id: ContextId, f: impl FnOnce(&mut Root) -> T) -> Option<T> {
    with(|contexts| contexts.roots.get_mut(&id).map(f)).flatten()
}

/// A context begins: a configuration when it has no parent, else a stream under that configuration.
pub(crate) fn create(id: ContextId, parent: ContextId) {
    with(|contexts| {
        if parent == 0 {
            contexts.roots.insert(id, Root::default());
        } else {
            contexts.streams.insert(id, Stream { root: parent, stamped: None });
        }
    });
}

/// A context ends.
pub(crate) fn delete(id: ContextId) {
    with(|contexts| {
        if contexts.streams.remove(&id).is_none() {
            #[cfg(feature = "envoy")]
            if let Some(root) = contexts.roots.get_mut(&id) {
                root.flush();
            }
            contexts.roots.remove(&id);
        }
    });
}

/// Takes a configuration of `size` bytes. Answering false makes Envoy refuse the update and go on with
/// the rules it has.
pub(crate) fn configure(id: ContextId, size: usize) -> bool {
    let read = host::plugin_configuration(size)
        .map_err(|status| format!("it cannot be read: {status}"))
        .and_then(|bytes| configuration::read(&bytes));
    let configuration = match read {
        Ok(configuration) => configuration,
        Err(error) => {
            host::log(LogLevel::Error, &format!("configuration refused: {error}"));
            return false;
        }
    };
    if let Some(bundle) = &configuration.bundle {
        host::log(LogLevel::Info, &format!("revision {} applied", bundle.bundle().revision));
    }
    let configured = with(|contexts| {
        let root = contexts.roots.entry(id).or_default();
        root.settings = configuration.settings;
        root.bundle = configuration.bundle;
        #[cfg(feature = "envoy")]
        root.begin(id);
    });
    configured.is_some()
}

/// The request's headers are there.
pub(crate) fn request_headers(id: ContextId) {
    with(|contexts| {
        let Some(stream) = contexts.streams.get_mut(&id) else { return };
        let root = contexts.roots.entry(stream.root).or_default();
        stream.stamped = stamp::request(root);
    });
}

/// The response's headers are there.
pub(crate) fn response_headers(id: ContextId) {
    let stamped =
        with(|contexts| contexts.streams.get_mut(&id).and_then(|stream| stream.stamped.take())).flatten();
    if let Some(Stamped { target, set_cookie }) = stamped {
        host::set_header(HeaderMap::Response, TARGET, target);
        if let Some(cookie) = set_cookie {
            host::add_header(HeaderMap::Response, "set-cookie", &cookie);
        }
    }
}
