//! The filter: a thin adapter between proxy-wasm and [`halftone_rules`]. It holds no policy.
//!
//! Configuration is settings, a bundle's bytes, both or nothing: see `configuration`. Without a bundle, and for requests that no ruleset
//! governs, it only cleans: inbound `x-halftone-*` headers never pass.
//!
//! The module speaks the proxy-wasm ABI 0.2.1 by itself, without the SDK, for three reasons. The SDK
//! panics on statuses that it does not expect and on header bytes that are not UTF-8, and a panic takes
//! an Envoy worker down. It imports every host function there is, and a host that lacks one cannot load
//! the module. And it exports every callback, each of which the host then enters the VM for, per request.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    reason = "a panic takes an Envoy worker down"
)]

#[cfg(feature = "envoy")]
mod calls;
mod configuration;
mod contexts;
mod exports;
mod headers;
mod host;
#[cfg(feature = "envoy")]
mod metrics;
mod overrides;
#[cfg(feature = "envoy")]
mod pull;
#[cfg(feature = "envoy")]
mod report;
mod stamp;
#[cfg(feature = "trap")]
mod trap;
#[cfg(feature = "envoy")]
mod upkeep;
