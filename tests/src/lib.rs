//! The end-to-end harness: starts the real processes on free ports and always ends them.
//!
//! A test builds a [`Stack`], uploads rulesets, sends [`traffic`] through Envoy and looks at what came
//! back. The demo (`halftone-demo`) is made of the same parts.

mod answering;
mod cli;
pub mod collector;
pub mod digits;
pub mod disk;
mod edge;
mod hearing;
mod mirror;
pub mod observed;
pub mod outcomes;
mod paths;
mod process;
mod prometheus;
mod releases;
mod scraped;
mod stack;
pub mod trace_cases;
pub mod traffic;
pub mod wire;

pub use answering::{Answering, HEALTH};
pub use cli::{Cli, stderr, stdout};
pub use edge::{Edge, EdgeOptions, closing_soon};
pub use hearing::{Conduct, Heard, Hearing};
pub use mirror::{Mirror, Seen, WEBSOCKET_KEY, read_websocket_message, websocket_message};
pub use paths::{Paths, repository};
pub use process::{Process, command, launched};
pub use prometheus::{Prometheus, Sample};
pub use scraped::Scraped;
pub use stack::{
    Backend, ControlPlane, Crashed, Envoy, EnvoyOptions, FAULTY, Ports, Stack, cluster_by_name, observed,
};
