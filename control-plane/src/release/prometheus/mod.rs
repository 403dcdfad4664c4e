//! A Prometheus server as a source of metrics, so that any service behind Envoy can be released.
//!
//! `selector` is what a release names, [`server`] what is asked, `blocks` what follows from samples, `reader` the task that
//! reads, and [`readings`] what the rest of a release sees. `docs/release.md` says what holds.

mod blocks;
#[cfg(test)]
mod judged_tests;
mod reader;
pub mod readings;
mod selector;
pub mod server;

pub use readings::Readings;
pub use selector::Ratio;
pub use server::{PrometheusArgs, Server};

pub(super) use reader::Reader;

use super::{read::RELEASE, source::Source, spec::Spec};
use halftone_compiler::{Diagnostic, Tree};

/// Refuses a release that asks a Prometheus server where there is none.
///
/// # Errors
/// With the first metric that does.
pub(super) fn without_server(text: &str, spec: &Spec) -> Result<(), Vec<Diagnostic>> {
    let asks = |source: &Source| matches!(source, Source::Prometheus(_));
    let Some((name, _)) = spec.sources.iter().find(|(_, source)| asks(source)) else { return Ok(()) };
    let message =
        format!("the metric `{name}` comes from a Prometheus server, and this control plane knows none");
    let help = "start it with `halftone serve --prometheus URL`, or name another source";
    Err(Tree::read(text, RELEASE)?.problem(&format!("metrics.{name}.source"), &message, Some(help)))
}
