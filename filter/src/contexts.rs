//! What lives between callbacks: applied configurations and streams.

use crate::{
    host::{self, HeaderMap, LogLevel},
    stamp,
};
use halftone_rules::{VerifiedBundle, codec, headers::TARGET};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// Number that the host gives a context.
pub(crate) type ContextId = u32;

/// One applied configuration. Envoy makes a new one for each update in the same VM, so the rules live
/// here and not in a global.
#[derive(Default)]
struct Root {
    bundle: Option<Rc<VerifiedBundle>>,
}

/// One request and its response. It keeps the rules it started with.
struct Stream {
    bundle: Option<Rc<VerifiedBundle>>,
    target: Option<String>,
}

#[derive(Default)]
struct Contexts {
    roots: BTreeMap<ContextId, Root>,
    streams: BTreeMap<ContextId, Stream>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// `None` when a callback runs inside of another one, which no host does.
fn with<T>(f: impl FnOnce(&mut Contexts) -> T) -> Option<T> {
    CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok().map(|mut contexts| f(&mut contexts)))
}

/// A context begins: a configuration when it has no parent, else a stream under that configuration.
pub(crate) fn create(id: ContextId, parent: ContextId) {
    with(|contexts| {
        if parent == 0 {
            contexts.roots.insert(id, Root::default());
        } else {
            let bundle = contexts.roots.get(&parent).and_then(|root| root.bundle.clone());
            contexts.streams.insert(id, Stream { bundle, target: None });
        }
    });
}

/// A context ends.
pub(crate) fn delete(id: ContextId) {
    with(|contexts| {
        if contexts.streams.remove(&id).is_none() {
            contexts.roots.remove(&id);
        }
    });
}

/// Takes a configuration of `size` bytes. Answering false makes Envoy refuse the update and go on with
/// the rules it has.
pub(crate) fn configure(id: ContextId, size: usize) -> bool {
    let bundle = if size == 0 {
        None
    } else {
        let decoded = host::plugin_configuration(size)
            .map_err(|status| format!("it cannot be read: {status}"))
            .and_then(|bytes| codec::decode(&bytes).map_err(|error| error.to_string()));
        match decoded {
            Ok(bundle) => {
                host::log(LogLevel::Info, &format!("revision {} applied", bundle.bundle().revision));
                Some(Rc::new(bundle))
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("configuration refused: {error}"));
                return false;
            }
        }
    };
    with(|contexts| contexts.roots.entry(id).or_default().bundle = bundle).is_some()
}

/// The request's headers are there.
pub(crate) fn request_headers(id: ContextId) {
    let bundle =
        with(|contexts| contexts.streams.get(&id).and_then(|stream| stream.bundle.clone())).flatten();
    let target = stamp::request(bundle.as_deref());
    with(|contexts| {
        if let Some(stream) = contexts.streams.get_mut(&id) {
            stream.target = target;
        }
    });
}

/// The response's headers are there.
pub(crate) fn response_headers(id: ContextId) {
    let target =
        with(|contexts| contexts.streams.get_mut(&id).and_then(|stream| stream.target.take())).flatten();
    if let Some(target) = target {
        host::set_header(HeaderMap::Response, TARGET, target);
    }
}
