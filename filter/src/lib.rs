//! The filter: a thin adapter between proxy-wasm and [`halftone_rules`]. It holds no policy.
//!
//! Configuration is a bundle's bytes, or nothing. Without a bundle, and for requests that no ruleset
//! governs, it only cleans: inbound `x-halftone-*` headers never pass.
//!
//! Host calls go through [`host`], which answers with `Result`s: the SDK's own wrappers panic on
//! statuses that they do not expect and on header bytes that are not UTF-8, and a panic takes an
//! Envoy worker down.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    reason = "a panic takes an Envoy worker down"
)]

mod headers;
mod host;
mod stamp;

use crate::host::{HeaderMap, LogLevel};
use halftone_rules::{VerifiedBundle, codec};
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};
use std::rc::Rc;

#[allow(unsafe_code, reason = "the macro exports the module's entry point")]
mod entry {
    proxy_wasm::main! {{
        std::panic::set_hook(Box::new(|info| {
            crate::host::log(crate::host::LogLevel::Critical, &format!("{info}"));
        }));
        proxy_wasm::set_root_context(|_| Box::new(crate::Root { bundle: None }));
    }}
}

/// One applied configuration. Envoy makes a new one for each update in the same VM, so the rules live
/// here and not in a global.
struct Root {
    bundle: Option<Rc<VerifiedBundle>>,
}

impl Context for Root {}

impl RootContext for Root {
    /// Answering false makes Envoy refuse the update and go on with the rules it has.
    fn on_configure(&mut self, size: usize) -> bool {
        if size == 0 {
            self.bundle = None;
            return true;
        }
        let decoded = host::plugin_configuration(size)
            .map_err(|status| format!("the configuration cannot be read: {status}"))
            .and_then(|bytes| codec::decode(&bytes).map_err(|error| error.to_string()));
        match decoded {
            Ok(bundle) => {
                host::log(
                    LogLevel::Info,
                    &format!("revision {} applied", bundle.bundle().revision),
                );
                self.bundle = Some(Rc::new(bundle));
                true
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("configuration refused: {error}"));
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { bundle: self.bundle.clone(), target: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request and its response. It keeps the rules it started with.
struct Stream {
    bundle: Option<Rc<VerifiedBundle>>,
    target: Option<String>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.target = stamp::request(self.bundle.as_deref());
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(target) = &self.target {
            host::set_header(HeaderMap::Response, stamp::TARGET, target);
        }
        Action::Continue
    }
}
