//! Runs the real filter module outside Envoy, under wasmtime.
//!
//! Envoy tells the control plane about a configuration that the filter refuses only after it was published. This
//! crate asks the same module the same question before:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use halftone_filter_host::FilterModule;
//!
//! let module = FilterModule::new(&std::fs::read("filter.wasm")?)?;
//! module.check(b"the bundle")?; // the gate: an error says why the filter refuses it
//!
//! let mut filter = module.start()?;
//! filter.configure(b"the bundle")?;
//! let outcome = filter.request(&[(":path", "/v1/models/m/infer"), ("x-user-id", "7")])?;
//! println!("{:?}", outcome.request_header("x-halftone-target"));
//! println!("{} host calls, {} fuel", outcome.usage.host_calls(), outcome.usage.fuel);
//! # Ok(())
//! # }
//! ```
//!
//! The host speaks proxy-wasm ABI 0.2.1 with Envoy's meaning: which map is there in which callback, what is answered
//! when it is not, what a configuration update does to the contexts. What only a proxy can do (callouts, queues,
//! gRPC) answers `Unimplemented`, as a portable host does. The module can neither hang nor exhaust nor crash the
//! process it runs in: fuel, memory and everything that the host keeps for it are bounded, and no pointer of the
//! module is believed. All calls block; asynchronous code calls them from a blocking thread.

mod callbacks;
mod error;
mod headers;
mod imports;
mod instance;
mod logs;
mod memory;
mod metrics;
mod module;
mod outcome;
mod random;
mod settings;
mod shared_data;
mod state;
mod vm;

pub use error::HostError;
pub use headers::HeaderPairs;
pub use instance::FilterInstance;
pub use logs::{LogLevel, LogLine};
pub use module::FilterModule;
pub use outcome::{Action, LocalResponse, Outcome, Usage};
pub use settings::Settings;
