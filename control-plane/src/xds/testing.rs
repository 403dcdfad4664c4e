//! Shorthands for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use halftone_compiler::target::{TargetSettings, TargetSpec};

use super::{ProxySettings, Resources, RulesetRoutes, Snapshot};

pub(super) fn target(name: &str, ports: &[u16]) -> TargetSpec {
    TargetSpec {
        name: name.to_owned(),
        endpoints: ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect(),
        settings: TargetSettings { timeout: Duration::from_secs(5), ..TargetSettings::default() },
    }
}

pub(super) fn ruleset(name: &str, default: Option<&str>, targets: Vec<TargetSpec>) -> RulesetRoutes {
    RulesetRoutes { name: name.to_owned(), default: default.map(str::to_owned), targets }
}

/// A snapshot whose bundle tells its revision.
pub(super) fn snapshot(revision: u64, rulesets: Vec<RulesetRoutes>) -> Snapshot {
    let bundle = Arc::from(format!("bundle {revision}").into_bytes());
    Snapshot { revision, bundle, rulesets, lately: Vec::new() }
}

/// Resources of one ruleset `d` with these targets, each on its port.
pub(super) fn resources(revision: u64, targets: &[(&str, u16)]) -> Arc<Resources> {
    let targets = targets.iter().map(|(name, port)| target(name, &[*port])).collect();
    let snapshot = snapshot(revision, vec![ruleset("d", None, targets)]);
    Arc::new(Resources::build(&snapshot, &ProxySettings::new("filter.wasm")).unwrap())
}
